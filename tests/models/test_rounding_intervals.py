"""Interval arithmetic against rationals: ties, subnormal results, overflow, quotients across zero.

The elementary functions are held against ball arithmetic in `test_intervals`; here the padding
itself is measured, since functions that happen to be good to half a unit would not show it.
"""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from tangency.models import interval_functions
from tangency.models.interval_functions import interval_namespace as nx
from tangency.models.intervals import Interval, _two_sum

U, TINY, MAX = 2.0**-53, 5e-324, float(np.finfo(np.float64).max)
VALUES = [
    0.0,
    1.0,
    1.0 + 2 * U,
    1.0 - U,
    U,
    0.1,
    1.0 / 3.0,
    3.0,
    1.0 + 2.0**-26,
    1.0 + 2.0**-27,
    TINY,
    3 * TINY,
    2.0**-537,
    1.25 * 2.0**-537,
    2.0**-1022,
    2.0**511,
    2.0**970,
    MAX,
    MAX - 2.0**971,
]
POINTS = np.array(VALUES + [-v for v in VALUES[1:]])
FIRST, SECOND = (v.ravel() for v in np.meshgrid(POINTS, POINTS))


def above(bound, value):
    return bound == math.inf or Fraction(bound) >= value


def below(bound, value):
    return bound == -math.inf or Fraction(bound) <= value


OPERATIONS = {
    "+": (lambda x, y: x + y, lambda p, q: p + q),
    "-": (lambda x, y: x - y, lambda p, q: p - q),
    "*": (lambda x, y: x * y, lambda p, q: p * q),
    "/": (lambda x, y: x / y, lambda p, q: p / q),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_points_hold_the_exact_result(name):
    operation, exact = OPERATIONS[name]
    keep = SECOND != 0 if name == "/" else np.full(FIRST.shape, True)
    x, y = FIRST[keep], SECOND[keep]
    found = operation(Interval(x), Interval(y))
    with np.errstate(all="ignore"):
        plain = operation(x, y)
    for p, q, low, high, near in zip(
        x.tolist(),
        y.tolist(),
        found.lower.tolist(),
        found.upper.tolist(),
        plain.tolist(),
        strict=True,
    ):
        value = exact(Fraction(p), Fraction(q))
        assert below(low, value), (p, q)
        assert above(high, value), (p, q)
        # one float on either side of the nearest, no more
        assert low >= min(math.nextafter(near, -math.inf), MAX)
        assert high <= max(math.nextafter(near, math.inf), -MAX)


def test_exact_sums_are_not_moved():
    found = Interval(np.array([1.0, 0.5, -3.0])) + Interval(np.array([2.0, U, 3.0]))
    np.testing.assert_array_equal(found.lower, [3.0, 0.5 + U, 0.0])
    np.testing.assert_array_equal(found.upper, found.lower)


def test_the_error_of_a_sum_is_exact():
    with np.errstate(all="ignore"):
        sums, errors = _two_sum(FIRST, SECOND)
    for a, b, s, e in zip(*(v.tolist() for v in (FIRST, SECOND, sums, errors)), strict=True):
        if math.isfinite(s):
            assert Fraction(s) + Fraction(e) == Fraction(a) + Fraction(b)
        else:
            assert math.isnan(e)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_intervals_hold_their_corners(name):
    operation, exact = OPERATIONS[name]
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b, c, d = rng.choice(POINTS, 4).tolist()
        x, y = Interval(min(a, b), max(a, b)), Interval(min(c, d), max(c, d))
        found = operation(x, y)
        low, high = float(found.lower), float(found.upper)
        for p, q in itertools.product((a, b), (c, d)):
            if name != "/" or q:
                value = exact(Fraction(p), Fraction(q))
                assert below(low, value), (a, b, c, d)
                assert above(high, value), (a, b, c, d)
        if name == "/" and y.lower < 0 < y.upper:
            assert (a == b == 0) or (low, high) == (-math.inf, math.inf)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, -1, -2, -3])
def test_powers_hold_the_exact_result(n):
    for a, b in itertools.combinations_with_replacement(POINTS.tolist(), 2):
        low, high = min(a, b), max(a, b)
        found = Interval(low, high) ** n
        across = low <= 0 <= high
        for p in {a, b} | ({0.0} if across and n > 0 else set()):
            if p or n > 0:
                value = Fraction(p) ** n
                assert below(float(found.lower), value), (a, b)
                assert above(float(found.upper), value), (a, b)
        if across and n == -2 and low < 0 < high:
            assert float(found.upper) == math.inf
        if n > 0 and n % 2 == 0:
            assert float(found.lower) >= 0.0


def test_reciprocals_hold_the_exact_result():
    for a, b in itertools.combinations_with_replacement(POINTS.tolist(), 2):
        low, high = min(a, b), max(a, b)
        found = Interval(low, high).reciprocal()
        if low < 0 < high or low == high == 0:
            assert (found.lower, found.upper) == (-math.inf, math.inf)
            continue
        for p in (low, high):
            if p:
                assert below(float(found.lower), 1 / Fraction(p))
                assert above(float(found.upper), 1 / Fraction(p))
        if low == 0:
            assert found.upper == math.inf
        if high == 0:
            assert found.lower == -math.inf


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_quotients_by_what_ends_at_zero(zero):
    for x, sign in ((Interval(1.0, 2.0), 1), (Interval(-2.0, -1.0), -1)):
        above_zero, below_zero = x / Interval(zero, 1.0), x / Interval(-1.0, zero)
        for found, side in ((above_zero, sign), (below_zero, -sign)):
            ends = float(found.lower) * side, float(found.upper) * side
            assert max(ends) == math.inf
            assert 0.0 <= min(ends) <= 1.0
    found = Interval(-1.0, 2.0) / Interval(zero, 1.0)
    assert (found.lower, found.upper) == (-math.inf, math.inf)


def test_unbounded_operands():
    line, half = Interval(-math.inf, math.inf), Interval(1.0, math.inf)
    for found in (half / half, half * Interval(0.0, 1.0)):
        assert (found.lower, found.upper) == (0.0, math.inf)
    assert (line * 0.0).upper == 0.0
    assert (half - half).lower == -math.inf
    assert (half**2).upper == math.inf
    assert (1.0 / half).lower == 0.0
    assert (1.0 / half).upper >= 1.0
    assert Interval(MAX, math.inf).lower == MAX
    assert Interval(math.inf).lower == MAX  # what overflowed lies above the largest float
    assert Interval(-math.inf).upper == -MAX


def test_roots_hold_the_exact_result():
    points = np.abs(POINTS)
    found = nx.sqrt(Interval(points))
    for p, low, high in zip(
        points.tolist(), found.lower.tolist(), found.upper.tolist(), strict=True
    ):
        assert Fraction(low) ** 2 <= Fraction(p) <= Fraction(high) ** 2
    wide = nx.sqrt(Interval(-1.0, 2.0))
    assert wide.lower == 0.0
    assert Fraction(float(wide.upper)) ** 2 >= 2


def test_midpoints_and_radii_hold_the_interval():
    for a, b in itertools.product(POINTS.tolist(), repeat=2):
        x = Interval(min(a, b), max(a, b))
        c, r = float(x.midpoint), float(x.radius)
        assert x.contains(c)
        if math.isfinite(r):
            assert Fraction(c) - Fraction(r) <= Fraction(float(x.lower))
            assert Fraction(float(x.upper)) <= Fraction(c) + Fraction(r)
        assert x.magnitude == max(abs(a), abs(b))


def test_hulls_and_common_parts():
    x, y = Interval(0.0, 2.0), Interval(1.0, 3.0)
    assert (x.hull(y).lower, x.hull(y).upper) == (0.0, 3.0)
    assert (x.intersect(y).lower, x.intersect(y).upper) == (1.0, 2.0)
    assert not x.contains(2.5)
    assert not x.contains(Interval(-1.0, 1.0))
    assert (abs_of := nx.abs(Interval(-3.0, 2.0))).upper == 3.0
    assert abs_of.lower == 0.0
    assert nx.abs(Interval(-3.0, -2.0)).lower == 2.0


@pytest.mark.parametrize(("op", "mirror"), [("lt", "gt"), ("le", "ge")])
def test_comparisons_are_sure_only_of_what_holds_everywhere(op, mirror):
    ends = [0.0, 1.0, 2.0]
    intervals = [Interval(a, b) for a, b in itertools.combinations_with_replacement(ends, 2)]
    for x, y in itertools.product(intervals, repeat=2):
        found = getattr(x, f"__{op}__")(y)
        same = getattr(y, f"__{mirror}__")(x)
        pairs = list(itertools.product((x.lower, x.upper), (y.lower, y.upper)))
        truth = [(p < q) if op == "lt" else (p <= q) for p, q in pairs]
        assert found.surely == same.surely == all(truth)
        assert found.possibly == same.possibly == any(truth)
        # numbers nearby may be less, or greater, than two that are equal
        assert found.nearby.surely == same.nearby.surely == all(p < q for p, q in pairs)
        assert found.nearby.possibly == same.nearby.possibly == any(p <= q for p, q in pairs)


def test_choices_take_the_hull_of_what_is_undecided():
    one, two = Interval(1.0, 3.0), Interval(2.0, 5.0)
    for x, low, high in ((Interval(1.0), 1.0, 3.0), (Interval(-1.0), 2.0, 5.0)):
        found = nx.where(x > 0.0, one, two)
        assert (found.lower, found.upper) == (low, high)
    found = nx.where(Interval(-1.0, 1.0) > 0.0, two, one)
    assert (found.lower, found.upper) == (1.0, 5.0)
    assert (nx.maximum(one, two).lower, nx.maximum(one, two).upper) == (2.0, 5.0)
    assert (nx.minimum(one, two).lower, nx.minimum(one, two).upper) == (1.0, 3.0)


# --- elementary functions -----------------------------------------------------------------------


@pytest.mark.parametrize("units", [8, 16])
def test_function_values_are_padded_by_their_units(units):
    values = np.array([1.0, -1.0, math.pi, 1.0 - U, 1e300, 1e-300, 3 * TINY, 0.0, MAX, -1e-310])
    low, high = interval_functions._pad(values, units)
    for y, a, b in zip(values.tolist(), low.tolist(), high.tolist(), strict=True):
        # units in the last place are at most 2^-52 of the value each, or subnormal steps
        pad = units * max(Fraction(2.0**-52) * abs(Fraction(y)), Fraction(TINY))
        assert below(a, Fraction(y) - pad)
        assert above(b, Fraction(y) + pad)
    # What overflowed may lie below the largest float by as much as a function errs.
    low, high = interval_functions._pad(np.array([math.inf, -math.inf]), units)
    reached = Fraction(MAX) * (1 - units * Fraction(2.0**-52))
    assert low[1] == -math.inf
    assert high[0] == math.inf
    assert below(float(low[0]), reached)
    assert above(float(high[1]), -reached)


@pytest.mark.parametrize(("name", "units"), [("exp", 8), ("sigmoid", 16), ("softplus", 16)])
def test_composed_functions_have_the_larger_pad(name, units, monkeypatch):
    used = []
    wide = interval_functions._pad
    monkeypatch.setattr(
        interval_functions, "_pad", lambda y, ulps=8: used.append(ulps) or wide(y, ulps)
    )
    getattr(nx, name)(Interval(0.25, 0.5))
    assert set(used) == {units}


MONOTONE = ["exp", "expm1", "log", "log1p", "arcsin", "arctan", "sinh", "tanh", "arcsinh", "erf"]


@pytest.mark.parametrize("name", [*MONOTONE, "arctanh", "sigmoid", "softplus"])
def test_functions_use_the_padding_at_both_ends(name, monkeypatch):
    wide = interval_functions._pad

    def pad(y, *ulps):  # as if the library were wrong by a thousand times as much
        low, high = wide(y, *ulps)
        return low - 1e-3, high + 1e-3

    x = Interval(0.25, 0.5)
    plain = getattr(nx, name)(x)
    monkeypatch.setattr(interval_functions, "_pad", pad)
    found = getattr(nx, name)(x)
    assert float(found.lower) == pytest.approx(float(plain.lower) - 1e-3, abs=1e-9)
    assert float(found.upper) == pytest.approx(float(plain.upper) + 1e-3, abs=1e-9)


def test_pi_lies_in_its_interval():
    with mpmath.workprec(300):
        assert mpmath.mpf(float(nx.pi.lower)) < mpmath.pi < mpmath.mpf(float(nx.pi.upper))


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_waves_next_to_their_crests(name):
    function, mp = getattr(nx, name), getattr(mpmath, name)
    with mpmath.workprec(300):
        for k in [*range(-9, 10), 10**6, 2**29 + 1]:
            near = float(k * mpmath.pi / 2)
            for steps in (0, 1, -1, 3, -3):
                x = near + steps * math.ulp(near)
                around = (near - 0.3, near + 0.3)  # of which both ends are far from the crest
                for low, high in ((x, x), (x, around[1]), (around[0], x), around):
                    if low > high:
                        continue
                    found = function(Interval(low, high))
                    for p in (low, high):
                        value = mp(mpmath.mpf(p))
                        assert (
                            mpmath.mpf(float(found.lower))
                            <= value
                            <= mpmath.mpf(float(found.upper))
                        )
                    inside = mpmath.mpf(low) < k * mpmath.pi / 2 < mpmath.mpf(high)
                    if inside and name != "tan":
                        value = mp(k * mpmath.pi / 2)
                        assert found.lower <= round(float(value)) <= found.upper
                    if inside and name == "tan" and k % 2:
                        assert (found.lower, found.upper) == (-math.inf, math.inf)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_waves_far_from_zero_or_wide_are_all_of_the_range(name):
    for x in (Interval(1e300), Interval(0.0, 7.0), Interval(-math.inf, math.inf)):
        found = getattr(nx, name)(x)
        assert (found.lower, found.upper) == (-1.0, 1.0)
