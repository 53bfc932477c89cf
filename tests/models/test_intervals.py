"""Intervals against ball arithmetic: the true value is enclosed, and not absurdly wide."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval

flint = pytest.importorskip("flint")

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MODEST = st.floats(min_value=-1e4, max_value=1e4)
SPECIAL = st.sampled_from(
    [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-300, 1.0, -1.0, 1e300, -1e300, math.pi, 2.0**1023]
)
NUMBER = st.one_of(FINITE, MODEST, SPECIAL)


def _sigmoid(x):
    return 1 / (1 + (-x).exp())


def _softplus(x):
    return x.exp().log1p() if x < 0 else x + (-x).exp().log1p()


REFERENCE = {
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "log": lambda x: x.log(),
    "log1p": lambda x: x.log1p(),
    "sqrt": lambda x: x.sqrt(),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "tan": lambda x: x.tan(),
    "arcsin": lambda x: x.asin(),
    "arccos": lambda x: x.acos(),
    "arctan": lambda x: x.atan(),
    "sinh": lambda x: x.sinh(),
    "cosh": lambda x: x.cosh(),
    "tanh": lambda x: x.tanh(),
    "arcsinh": lambda x: x.asinh(),
    "arctanh": lambda x: x.atanh(),
    "erf": lambda x: x.erf(),
    "erfc": lambda x: x.erfc(),
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "abs": abs,
}
DOMAIN = {
    "log": (0.0, math.inf),
    "log1p": (-1.0, math.inf),
    "sqrt": (0.0, math.inf),
    "arcsin": (-1.0, 1.0),
    "arccos": (-1.0, 1.0),
    "arctanh": (-1.0, 1.0),
}


def holds(X, ball):
    """Whether the interval holds the ball, up to the ball's own (2^-200) radius."""
    if not ball.is_finite():  # a pole, or an end of the domain
        return True
    low, high = float(X.lower), float(X.upper)
    above = low == -math.inf or not ball < flint.arb(low)
    return above and (high == math.inf or not ball > flint.arb(high))


@pytest.fixture(autouse=True)
def _precision():
    old = flint.ctx.prec
    flint.ctx.prec = 2400  # sin(1e300) needs a thousand bits of pi
    yield
    flint.ctx.prec = old


def inside(name, x):
    low, high = DOMAIN.get(name, (-math.inf, math.inf))
    if not low <= x <= high:
        x = math.fmod(x, 1.0)
        x = abs(x) if low == 0.0 else x
    return min(max(x, low), high)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_interval_function_encloses(name):
    function = getattr(interval_namespace, name)

    @settings(max_examples=60, deadline=None)
    @given(NUMBER, NUMBER, st.floats(0.0, 1.0))
    def check(a, b, t):
        a, b = sorted((inside(name, a), inside(name, b)))
        X = function(Interval(a, b))
        for x in (a, b, min(max(a + t * (b / 2 - a / 2) * 2, a), b)):
            if abs(x) < 1e6 or name in ("sin", "cos", "tan", "arctan", "tanh", "abs", "sqrt"):
                assert holds(X, REFERENCE[name](flint.arb(x))), (a, b, x, X)
        point = function(Interval(a))
        assert not np.isnan(point.lower)
        assert holds(point, REFERENCE[name](flint.arb(a))) or abs(a) > 1e6
        width = float(point.upper - point.lower)
        assert not abs(a) < 600 or name == "tan" or width <= 1e-14 * abs(point.magnitude) + 1e-300

    check()


OPERATIONS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_interval_operation_encloses(name):
    operation = OPERATIONS[name]

    @settings(max_examples=200, deadline=None)
    @given(NUMBER, NUMBER, NUMBER, NUMBER)
    def check(a, b, c, d):
        X, Y = Interval(min(a, b), max(a, b)), Interval(min(c, d), max(c, d))
        Z = operation(X, Y)
        for x in (a, b):
            for y in (c, d):
                if name != "div" or y != 0.0:
                    assert holds(Z, operation(flint.arb(x), flint.arb(y)))

    check()


@settings(max_examples=200, deadline=None)
@given(NUMBER, NUMBER, st.integers(-5, 9))
def test_interval_power_encloses(a, b, n):
    X = Interval(min(a, b), max(a, b)) ** n
    for x in (a, b, *([0.0] if a * b < 0 and n >= 0 else [])):
        if x or n >= 0:
            assert holds(X, flint.arb(x) ** n)


def test_interval_division_by_zero_is_the_whole_line():
    Z = Interval(1.0, 2.0) / Interval(-1.0, 1.0)
    assert (Z.lower, Z.upper) == (-math.inf, math.inf)
    half = 1.0 / Interval(0.0, 2.0)
    assert 0.49 < half.lower <= 0.5
    assert half.upper == math.inf


def test_interval_keeps_zero_and_signs():
    assert float((Interval(0.0) * -3.0).lower) == 0.0
    tiny = Interval(0.0, 1e-200)
    assert float((tiny * tiny).lower) == 0.0
    assert float((-tiny * tiny).upper) == 0.0


def test_interval_nan_becomes_the_whole_line():
    X = Interval(math.nan, 1.0)
    assert (X.lower, X.upper) == (-math.inf, math.inf)
    outside = interval_namespace.log(Interval(-2.0, -1.0))
    assert (outside.lower, outside.upper) == (-math.inf, math.inf)


def test_interval_overflow_stays_sound():
    X = Interval(1e308) * 10.0
    assert np.isfinite(X.lower)
    assert X.upper == math.inf


def test_interval_wrong_order_is_refused():
    with pytest.raises(InputError, match="lower <= upper"):
        Interval(1.0, 0.0)
    with pytest.raises(InputError, match="where"):
        bool(Interval(0.0) < Interval(1.0))


def test_interval_hull_intersection_midpoint():
    X, Y = Interval([0.0, 1.0], [2.0, 3.0]), Interval([1.0, 2.0], [5.0, 2.5])
    np.testing.assert_array_equal(X.hull(Y).upper, [5.0, 3.0])
    np.testing.assert_array_equal(X.intersect(Y).lower, [1.0, 2.0])
    assert X.contains(X.midpoint).all()
    assert (X.radius >= 1.0).all()
    assert np.isfinite(Interval(-1e308, 1e308).midpoint)


def test_interval_where_hulls_only_the_undecided():
    X = Interval([-2.0, -1.0, 1.0], [-1.0, 1.0, 2.0])
    Y = interval_namespace.where(X > 0.0, X, 0.0)
    np.testing.assert_array_equal(Y.lower, [0.0, -1.0, 1.0])
    np.testing.assert_array_equal(Y.upper, [0.0, 1.0, 2.0])


def test_interval_arrays_and_numbers_mix():
    X = np.array([1.0, 2.0]) * Interval(1.0, 2.0) + 1.0
    assert X.shape == (2,)
    assert X.contains([2.5, 4.0]).all()
