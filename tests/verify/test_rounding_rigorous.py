"""Every rounding constant of the rigorous bounds, held to its formula in rationals.

Sums whose small terms floating point swallows, ties and subnormal numbers are what would show a
constant that is too small; where nothing attains the worst case, the charge itself is compared with
Higham's :math:`gamma_n` (Accuracy and Stability, 3.1 and 3.5).
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from tangency.models.intervals import Interval
from tangency.verify.rigorous import numpy_engine  # noqa: F401 - enters the transposes
from tangency.verify.rigorous.arithmetic import _four_corners
from tangency.verify.rigorous.backward import Charge, Rows, lower_bounds
from tangency.verify.rigorous.enclosure import (
    UNDERFLOW,
    affine,
    exclusive_sum,
    midpoint_radius,
    relative_error,
    total,
    widened,
)
from tangency.verify.rigorous.sets import BallPart, InputSet
from tangency.verify.rigorous.specification import on_last_layer, on_output

U = Fraction(1, 2**53)
EXACT = np.vectorize(Fraction, otypes=[object])
SMALL = np.array([1.0, *[2.0**-53] * 40])  # floats add up to 1, from the left
LARGE = np.array([1.0, *[-(2.0**-54)] * 40])
ALL = slice(0, 1)


def gamma_of(n):
    return n * U / (1 - n * U)


def swallowed(n):
    """Rows whose floating-point sum is 1 or -1, however they are added from the left."""
    return np.stack([sign * v[:n] for sign in (1, -1) for v in (SMALL, LARGE)])


def assert_contains(x, value):
    assert (EXACT(x.lower) <= value).all()
    assert (value <= EXACT(x.upper)).all()


# --- enclosures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5, 100, 2**20])
def test_the_relative_error_is_twice_gamma(n):
    found = Fraction(relative_error(n))
    assert 2 * gamma_of(n + 4) * (1 - Fraction(1, 2**24)) <= found <= 2 * gamma_of(n + 4)
    assert found >= gamma_of(n + 1) / (1 - gamma_of(n + 4)) * (1 + 2 * U)


def test_underflow_is_paid_for_2_to_the_60_products():
    # flushed to zero or not: each loses less than the least normal number
    assert Fraction(UNDERFLOW) >= 2**60 * Fraction(2) ** -1022


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1.0, 1.0 + 2.0**-52),
        (1.0 + 2.0**-52, 1.0 + 3 * 2.0**-52),
        (-1.0, 2.0**-53),
        (-5e-324, 1e-323),
        (5e-324, 1e-323),
        (0.1, 0.3),
        (-1.7e308, 1.7e308),
        (1.0, 1e16 + 2),
        (2.0**-53, 1.0),
    ],
)
def test_midpoints_and_radii_hold_both_ends(low, high):
    c, r = midpoint_radius(Interval(np.array([low]), np.array([high])))
    assert Fraction(c[0]) - Fraction(r[0]) <= Fraction(low)
    assert Fraction(high) <= Fraction(c[0]) + Fraction(r[0])


def test_midpoints_of_points_and_of_what_is_unbounded():
    c, r = midpoint_radius(Interval(np.array([0.1, -np.inf, 0.0]), np.array([0.1, 1.0, np.inf])))
    np.testing.assert_array_equal(c, [0.1, 0.0, 0.0])
    np.testing.assert_array_equal(r, [0.0, np.inf, np.inf])


@pytest.mark.parametrize("terms", [1, 40])
@pytest.mark.parametrize(
    ("centre", "radius"), [(1.0, 2.0**-54), (1.0, 0.3), (-1.0, 2.0**-60), (0.0, 0.0), (1e300, 0.1)]
)
def test_widening_pays_for_its_own_rounding(terms, centre, radius):
    found = widened(np.array([centre]), np.array([radius]), terms)
    # a radius computed as a sum of `terms` products is that much too small, and underflows
    t = Fraction(radius) / (1 - gamma_of(terms)) + terms * Fraction(2) ** -1074
    assert Fraction(found.lower[0]) <= Fraction(centre) - t
    assert Fraction(centre) + t <= Fraction(found.upper[0])


def test_widening_knows_nothing_after_an_overflow():
    centre, radius = [np.inf, -np.inf, np.nan, 1.0, -np.inf], [1.0, 1.0, 1.0, np.inf, np.inf]
    found = widened(np.array(centre), np.array(radius), 1)
    assert (found.lower == -np.inf).all()
    assert (found.upper == np.inf).all()


@pytest.mark.parametrize("n", [2, 7, 41])
def test_affine_maps_hold_what_rounding_swallows(n):
    rows = swallowed(n)
    for w in (rows, rows * 2.0**-600, rows * 2.0**-1074):
        for x in (np.ones(n), np.full(n, 3.0), np.full(n, 2.0**-530)):
            point = Interval(x[None])
            with np.errstate(all="ignore"):
                found = affine(point, lambda v, w=w: v @ w.T, lambda v, w=w: v @ abs(w).T, n)
            assert_contains(found, EXACT(w) @ EXACT(x))


def test_affine_maps_of_boxes_biases_and_loose_coefficients():
    rng = np.random.default_rng(0)
    w, d, bias = rng.standard_normal((4, 5)), rng.random((4, 5)) * 1e-9, swallowed(4)[:, 1]
    low = rng.standard_normal(5)
    high = low + rng.random(5) * np.array([0.0, 1e-17, 1.0, 1e-3, 2.0**-52])
    x = Interval(low[None], high[None])
    size = np.abs(w) + d
    found = affine(
        x, lambda v: v @ w.T, lambda v: v @ size.T, 5, bias=bias, slack=lambda v: v @ d.T
    )
    for corner in (EXACT(low), EXACT(high)):
        for sign in (1, -1):
            assert_contains(found, (EXACT(w) + sign * EXACT(d)) @ corner + EXACT(bias))
    point = Interval(low[None])
    loose = affine(point, lambda v: v @ w.T, lambda v: v @ size.T, 5, slack=lambda v: v @ d.T)
    span = EXACT(d) @ abs(EXACT(low))
    assert_contains(loose, EXACT(w) @ EXACT(low) + span)
    assert_contains(loose, EXACT(w) @ EXACT(low) - span)
    plain = affine(Interval(np.zeros((1, 4))), lambda v: v, lambda v: v, 1, bias=bias)
    assert_contains(plain, EXACT(bias))
    ones = Interval(np.ones((1, 4)))
    assert_contains(affine(ones, lambda v: v, lambda v: v, 1, bias=bias), 1 + EXACT(bias))


def test_the_radius_of_affine_maps_is_that_of_the_formula():
    rng = np.random.default_rng(1)
    n = 30
    w, low = rng.standard_normal((3, n)), rng.standard_normal(n)
    x = Interval(low[None], (low + rng.random(n))[None])
    c, r = (EXACT(v[0]) for v in midpoint_radius(x))
    bias = rng.standard_normal(3)
    found = affine(x, lambda v: v @ w.T, lambda v: v @ abs(w).T, n, bias=bias)
    centre = x.lower[0] * 0.5 + x.upper[0] * 0.5
    value = EXACT(centre @ w.T + bias)
    size = abs(EXACT(w))
    t = size @ (r + gamma_of(n + 1) * abs(c)) + gamma_of(n + 1) * abs(EXACT(bias))
    assert (value - EXACT(found.lower[0]) >= t * (1 - 8 * U)).all()
    assert (EXACT(found.upper[0]) - value >= t * (1 - 8 * U)).all()
    # the bias alone: gamma_{n+1} |b|, as if it were added first
    tiny = w * 2.0**-100
    found = affine(x, lambda v: v @ tiny.T, lambda v: v @ abs(tiny).T, n, bias=bias)
    assert (EXACT(found.upper[0]) - EXACT(bias) >= gamma_of(n + 1) * abs(EXACT(bias))).all()
    assert (EXACT(bias) - EXACT(found.lower[0]) >= gamma_of(n + 1) * abs(EXACT(bias))).all()


@pytest.mark.parametrize("n", [2, 5, 8, 41])
def test_sums_hold_what_rounding_swallows(n):
    for rows in (swallowed(n), swallowed(n)[:, ::-1].copy()):
        assert_contains(total(Interval(rows), (1,)), EXACT(rows).sum(axis=1))
        others = EXACT(rows).sum(axis=1)[:, None] - EXACT(rows)
        assert_contains(exclusive_sum(Interval(rows)), others)
        x = Interval(np.minimum(rows, rows[::-1]), np.maximum(rows, rows[::-1]))
        assert_contains(total(x, (1,)), EXACT(rows).sum(axis=1))
        assert_contains(exclusive_sum(x), others)


@pytest.mark.parametrize("n", [1, 7, 41])
def test_sums_have_the_radius_of_the_formula(n):
    rng = np.random.default_rng(n)
    rows = rng.standard_normal((3, n))
    plain, size = rows.sum(axis=1), abs(EXACT(rows)).sum(axis=1)
    found = total(Interval(rows), (1,))
    assert (EXACT(found.upper) - EXACT(plain) >= gamma_of(n) * size).all()
    assert (EXACT(plain) - EXACT(found.lower) >= gamma_of(n) * size).all()


def test_sums_keep_a_known_sign():
    assert total(Interval(np.zeros((1, 3))), (1,)).lower[0] == 0.0
    found = total(Interval(np.array([[0.0, -1.0]]), np.array([[0.0, 1.0]])), (1,))
    assert found.lower[0] <= -1.0
    assert found.upper[0] >= 1.0


@pytest.mark.parametrize("n", [2, 7, 41])
def test_products_of_two_interval_matrices(n):
    rows = swallowed(n)
    ones = np.ones((n, 1))
    for x, y in ((rows, ones), (rows * 2.0**-530, ones * 2.0**-540), (rows * 0.1, ones * 0.3)):
        found = _four_corners(Interval(x[None]), Interval(y[None]))
        assert_contains(found, (EXACT(x) @ EXACT(y))[None])
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((2, n)), rng.standard_normal((n, 2))
    x, y = Interval(a[None], a[None] + 0.1), Interval(b[None] - 0.2, b[None])
    found = _four_corners(x, y)
    for p, q in itertools.product((x.lower, x.upper), (y.lower, y.upper)):
        assert_contains(found, (EXACT(p[0]) @ EXACT(q[0]))[None])


@pytest.mark.parametrize("n", [2, 7, 41])
def test_specifications_joined_to_the_last_layer(n):
    rows = swallowed(n)
    h = Interval(np.ones((1, 1)))
    spec, weight = rows[None], np.ones((n, 1))
    assert_contains(on_last_layer(spec, weight, None, h), (EXACT(rows) @ EXACT(weight)).T)
    assert_contains(
        on_last_layer(spec, np.zeros((n, 1)), np.ones(n), h), EXACT(rows).sum(axis=1)[None]
    )
    assert_contains(on_output(spec, Interval(np.ones((1, n)))), EXACT(rows).sum(axis=1)[None])
    many = np.repeat(spec, 2, axis=0)
    assert_contains(on_output(many, Interval(np.ones((2, n)))), EXACT(rows).sum(axis=1)[None])


# --- rows on their way back ---------------------------------------------------------------------


def rows_of(coef, value=0.0, error=0.0, index=0):
    lead = coef.shape[:2]
    return Rows({index: coef}, np.full(lead, value), np.full(lead, error))


def test_shifts_pay_for_the_sum():
    for value, amount in ((1.0, 2.0**-53), (1.0, -(2.0**-54)), (0.1, 0.7), (-1.0, 2.0**-55)):
        rows = rows_of(np.zeros((1, 1, 1)), value)
        rows.shift(np.array([[amount]]))
        gap = abs(Fraction(rows.value[0, 0]) - Fraction(value) - Fraction(amount))
        assert Fraction(rows.error[0, 0]) >= gap
        assert Fraction(rows.error[0, 0]) >= U * abs(Fraction(rows.value[0, 0]))
        rows.charge(0.5)
        assert rows.error[0, 0] >= 0.5
        rows.shift(np.zeros((1, 1)))
        assert rows.error[0, 0] > 0.5


def test_coefficients_that_meet_pay_for_their_sum():
    old, new = np.array([[[1.0, 0.1, -1.0]]]), np.array([[[2.0**-53, 0.7, 2.0**-54]]])
    for scale in (1.0, 2.0**-500):
        rows = rows_of(old * scale)
        size = np.array([[3.0, 5.0, 0.7]])
        rows.add(0, new * scale, size)
        gap = abs(EXACT(rows.coef[0]) - EXACT(old * scale) - EXACT(new * scale))
        assert Fraction(rows.error[0, 0]) >= (gap * EXACT(size)).sum()
        formula = U * (abs(EXACT(rows.coef[0])) * EXACT(size)).sum()
        assert Fraction(rows.error[0, 0]) >= formula
    rows = rows_of(np.zeros((1, 1, 3)))
    rows.add(0, np.zeros((1, 1, 3)), np.ones((1, 3)))
    assert rows.error[0, 0] >= UNDERFLOW
    rows = rows_of(old)
    rows.add(0, new, np.array([[1.0, np.inf, 1.0]]))
    assert rows.error[0, 0] == np.inf


@pytest.mark.parametrize(
    ("value", "error"), [(1.0, 0.5), (1.0, 2.0**-54), (1.0, 2.0**-60), (-1.0, 2.0**-54), (0.1, 0.3)]
)
def test_lower_bounds_give_all_of_the_error_and_round_outward(value, error):
    rows = Rows({}, np.array([[value]]), np.array([[error]]))
    low = Fraction(lower_bounds(rows, {}, ALL)[0, 0])
    # e itself is a computed sum: the factor pays for up to 2^32 roundings of it.
    assert low <= Fraction(value) - Fraction(error) * (1 + Fraction(1, 2**21))


def test_lower_bounds_of_what_is_lost():
    rows = Rows({}, np.array([[1.0, np.nan, 1.0]]), np.array([[np.inf, 0.0, 0.0]]))
    with np.errstate(invalid="ignore"):
        rows.shift(np.array([[0.0, 0.0, np.inf]]))  # what overflowed is not a bound
    assert (lower_bounds(rows, {}, ALL) == -np.inf).all()


@pytest.mark.parametrize("n", [2, 7, 41])
@pytest.mark.parametrize("width", [0.0, 2.0**-53, 0.3])
@pytest.mark.parametrize("norm", [None, 1, 2])
def test_lower_bounds_of_linear_functions_on_sets(n, width, norm):
    centre = np.full((1, n), 1.0)
    ball = None if norm is None else BallPart(centre, np.array([width]), norm)
    own = InputSet(centre - width, centre + width, ball)
    for a in swallowed(n):
        rows = rows_of(a[None, None])
        low = Fraction(lower_bounds(rows, {0: own}, ALL)[0, 0])
        coef, c = EXACT(a), EXACT(centre[0])
        box = sum(
            x * (EXACT(own.lower[0])[i] if x > 0 else EXACT(own.upper[0])[i])
            for i, x in enumerate(coef)
        )
        if norm is None:
            assert low <= box
            continue
        value, radius = (coef * c).sum(), Fraction(width)
        if norm == 1:
            on_ball = value - radius * abs(coef).max()
            assert low <= max(on_ball, box)
        else:  # low <= value - radius |a|
            away = value - low
            assert low <= box or (away >= 0 and away**2 >= radius**2 * (coef**2).sum())


@pytest.mark.parametrize("norm", [1, 2])
def test_the_dual_norm_on_a_ball_is_rounded_upward(norm):
    n = 41
    ball = BallPart(np.zeros((1, n)), np.array([0.3]), norm)
    own = InputSet(np.full((1, n), -9.0), np.full((1, n), 9.0), ball)
    for tail in (2.0**-27, 1.4 * 2.0**-27, 0.1, 2.0**-600):
        a = np.array([1.0, *[-tail] * (n - 1)])
        value, error = own.least(a[None, None])
        away, radius = -Fraction(value[0, 0]), Fraction(0.3)
        square = max(EXACT(a) ** 2) if norm == 1 else (EXACT(a) ** 2).sum()
        # of the dual norm itself, the error pays only for the product with the radius
        assert away**2 >= radius**2 * square * (1 - 4 * U)
        assert Fraction(error[0, 0]) >= 2 * U * away


def test_the_error_on_sets_is_that_of_the_formula():
    rng = np.random.default_rng(3)
    n = 30
    low = rng.standard_normal((1, n))
    own, a = InputSet(low, low + 0.5), rng.standard_normal((1, 1, n))
    value, error = own.least(a)
    c, r = (EXACT(v[0]) for v in midpoint_radius(own.interval))
    formula = gamma_of(n) * (abs(EXACT(a[0, 0])) * (abs(c) + r)).sum()
    assert Fraction(error[0, 0]) >= formula + U * abs(Fraction(value[0, 0]))
    ball = BallPart(low, np.array([0.25]), 2)
    value, error = InputSet(low - 9.0, low + 9.0, ball).least(a)
    formula = gamma_of(n) * (abs(EXACT(a[0, 0])) * abs(EXACT(low[0]))).sum()
    assert Fraction(error[0, 0]) >= formula + U * abs(Fraction(value[0, 0]))
    assert InputSet(low * 0, low * 0).least(a * 0)[1][0, 0] >= UNDERFLOW


def test_what_meets_an_unknown_entry_is_lost():
    charge = Charge.of(np.array([[[1.0, np.inf]]]), np.array([[0.0]]))
    for coef, lost in (([1.0, 0.0], False), ([0.0, 1e-300], True)):
        rows = rows_of(np.array([[coef]]))
        charge.lost(rows, np.array([[coef]]) != 0, ALL)
        assert (rows.error[0, 0] == np.inf) == lost
