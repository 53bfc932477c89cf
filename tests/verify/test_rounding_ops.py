"""Nonlinear ops against exact corners and kinks: planes, reflections, softmax and norms."""

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from tangency.models.intervals import Interval
from tangency.models.ops import (
    BatchNorm,
    Householder,
    LayerNorm,
    LogSumExp,
    Prelu,
    Product,
    Select,
    Softmax,
    Upsample,
)
from tangency.verify.rigorous import walk  # noqa: F401 - enters the rules
from tangency.verify.rigorous.registry import rule_of
from tangency.verify.rigorous.relaxations import planes_of

EXACT = np.vectorize(Fraction, otypes=[object])
ENDS = [0.0, 0.1, 1.0 / 3.0, 1.0 + 2.0**-26, 1.0 + 2.0**-27, 3.0, 2.0**-53]
EDGES = sorted({*ENDS, *(-v for v in ENDS)})
BOXES = [(a, b) for a, b in itertools.combinations_with_replacement(EDGES, 2)]


def box_of(pairs):
    return Interval(*(np.array([v])[:, :] for v in zip(*pairs, strict=True)))


def contains(x, index, value):
    return Fraction(float(x.lower[index])) <= value <= Fraction(float(x.upper[index]))


# --- planes -------------------------------------------------------------------------------------


def assert_planes(planes, function, boxes, points):
    """The planes hold at given points of every box, in rationals."""
    low, high = planes.low[0, 0], planes.high[0, 0]
    below, above = (
        [np.broadcast_to(v, (1, 1, len(low)))[0, 0] for v in side]
        for side in (planes.below, planes.above)
    )
    for i in range(len(low)):
        for at in points([b[i] for b in boxes]):
            value = function(*at)
            under = sum(Fraction(a[i]) * x for a, x in zip(below, at, strict=True))
            over = sum(Fraction(a[i]) * x for a, x in zip(above, at, strict=True))
            assert under + Fraction(low[i]) <= value <= over + Fraction(high[i])


def all_corners(pairs):
    return itertools.product(*(map(Fraction, p) for p in pairs))


@pytest.mark.parametrize("given", [False, True])
def test_planes_of_products_hold_at_the_corners(given):
    rng = np.random.default_rng(0)
    x, y = ([BOXES[k] for k in rng.integers(0, len(BOXES), 200)] for _ in range(2))
    slopes = tuple(rng.standard_normal((1, 1, 200)) for _ in range(4)) if given else None
    planes = planes_of(Product(), {}, [box_of(x), box_of(y)], slopes)
    assert_planes(planes, lambda p, q: p * q, [x, y], all_corners)


@pytest.mark.parametrize("slope", [0.1, 0.7, -0.3, 1.7, 0.0])
@pytest.mark.parametrize("given", [False, True])
def test_planes_of_the_parametric_relu_hold_at_ends_and_kink(slope, given):
    rng = np.random.default_rng(0)
    n = len(BOXES)
    slopes = tuple(rng.standard_normal((1, 1, n)) for _ in range(2)) if given else None
    params = {"slope": np.full(n, slope)}
    planes = planes_of(Prelu(), params, [box_of(BOXES)], slopes)

    def points(pairs):
        ((low, high),) = pairs
        kink = [(Fraction(0),)] if low <= 0 <= high else []
        return [(Fraction(low),), (Fraction(high),), *kink]

    def function(p):
        return p if p >= 0 else Fraction(slope) * p

    assert_planes(planes, function, [BOXES], points)


def test_ranges_of_the_parametric_relu_hold_at_ends_and_kink():
    for slope in (0.1, -0.3, 1.7):
        op = Prelu()
        found = rule_of(op)(op, {"slope": np.full(len(BOXES), slope)}, box_of(BOXES))
        for i, (low, high) in enumerate(BOXES):
            points = {low, high} | ({0.0} if low <= 0 <= high else set())
            for p in points:
                value = Fraction(p) if p >= 0 else Fraction(slope) * Fraction(p)
                assert contains(found, (0, i), value)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_planes_of_choices_hold_at_the_corners(strict, given):
    rng = np.random.default_rng(1)
    n = 150
    boxes = [[BOXES[k] for k in rng.integers(0, len(BOXES), n)] for _ in range(4)]
    slopes = tuple(rng.standard_normal((1, 1, n)) for _ in range(4)) if given else None
    planes = planes_of(Select(strict), {}, [box_of(b) for b in boxes], slopes)

    def function(x, y, a, b):
        return a if (x > y if strict else x >= y) else b

    assert_planes(planes, function, boxes, all_corners)


# --- reflections --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_ranges_of_reflections_hold_at_corners_and_on_the_hyperplane(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        v = rng.standard_normal(2)
        v = v / np.linalg.norm(v)
        if seed == 0:
            v = np.array([[0.8, 0.6], [-0.6, 0.8], [1.0, 0.0], [0.28, -0.96]][rng.integers(4)])
        centre = rng.integers(-2, 3, 2) * 0.3
        width = rng.choice([0.0, 2.0**-52, 0.1, 1.0], 2)
        x = Interval((centre - width)[None], (centre + width)[None])
        op = Householder()
        found = rule_of(op)(op, {"vectors": v[None]}, x)
        u, low, high = EXACT(v), EXACT(x.lower[0]), EXACT(x.upper[0])
        points = [
            np.array(p, dtype=object) for p in itertools.product(*zip(low, high, strict=True))
        ]
        for k in range(2):  # where an edge of the box meets the hyperplane
            for end in (low[1 - k], high[1 - k]):
                if u[k] != 0:
                    t = -u[1 - k] * end / u[k]
                    if low[k] <= t <= high[k]:
                        point = np.empty(2, dtype=object)
                        point[k], point[1 - k] = t, end
                        points.append(point)
        for z in points:
            along = (u * z).sum()
            value = z if along > 0 else z - 2 * u * along
            for k in range(2):
                assert contains(found, (0, k), value[k])


# --- entries divided by what they have in common ------------------------------------------------


def corner_values(x):
    return [np.array(p) for p in itertools.product(*zip(x.lower[0], x.upper[0], strict=True))]


def inside(found, index, value):
    low, high = (mpmath.mpf(float(v[index])) for v in (found.lower, found.upper))
    slack = mpmath.mpf(2) ** -250  # of the reference
    return low <= value + slack and value - slack <= high


@pytest.fixture
def _many_digits():
    with mpmath.workprec(300):
        yield


@pytest.mark.usefixtures("_many_digits")
@pytest.mark.parametrize("width", [0.0, 2.0**-50, 0.5])
def test_ranges_of_softmax_and_its_logarithm(width):
    rng = np.random.default_rng(0)
    for scale in (1.0, 30.0, 300.0):
        low = rng.standard_normal((1, 4)) * scale
        x = Interval(low, low + width)
        soft, log = Softmax(), LogSumExp((0,))
        share, total = rule_of(soft)(soft, {}, x), rule_of(log)(log, {}, x)
        for corner in corner_values(x):
            powers = [mpmath.exp(mpmath.mpf(v)) for v in corner.tolist()]
            assert inside(total, 0, mpmath.log(sum(powers)))
            for i, p in enumerate(powers):
                assert inside(share, (0, i), p / sum(powers))


@pytest.mark.usefixtures("_many_digits")
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("eps", [0.1, 1e-5])
@pytest.mark.parametrize("width", [0.0, 2.0**-50, 0.1, 2.0])
def test_ranges_of_layer_norms(center, eps, width):
    rng = np.random.default_rng(0)
    for _ in range(8):
        low = rng.standard_normal((1, 3))
        x = Interval(low, low + width * rng.random((1, 3)))
        op = LayerNorm((0,), eps, center)
        found = rule_of(op)(op, {}, x)
        middle = (x.lower[0] + x.upper[0]) / 2
        inner = [np.clip(middle, x.lower[0], x.upper[0])]
        for corner in corner_values(x) + inner:
            v = [mpmath.mpf(float(t)) for t in corner]
            mean = sum(v) / 3 if center else mpmath.mpf(0)
            d = [t - mean for t in v]
            scale = mpmath.sqrt(sum(t * t for t in d) / 3 + mpmath.mpf(eps))
            for i in range(3):
                assert inside(found, (0, i), d[i] / scale)


@pytest.mark.usefixtures("_many_digits")
def test_ranges_of_batch_norms():
    rng = np.random.default_rng(0)
    op = BatchNorm(0, 1e-3)
    params = {k: rng.random(3) for k in ("mean", "var", "weight", "bias")}
    params["weight"] -= 0.5
    low = rng.standard_normal((1, 3))
    for width in (0.0, 0.3):
        x = Interval(low, low + width)
        found = rule_of(op)(op, params, x)
        for corner in corner_values(x):
            for i in range(3):
                mean, var, gain, bias = (
                    mpmath.mpf(float(params[k][i])) for k in ("mean", "var", "weight", "bias")
                )
                value = (mpmath.mpf(float(corner[i])) - mean) * gain
                assert inside(found, (0, i), value / mpmath.sqrt(var + mpmath.mpf(1e-3)) + bias)


@pytest.mark.parametrize(("old", "new"), [(5, 7), (3, 10), (10, 3), (97, 89), (2, 1000)])
@pytest.mark.parametrize("corners", [False, True])
def test_interpolation_holds_where_its_positions_are_rounded(old, new, corners):
    op = Upsample((new,), "linear", corners)
    for values in (np.arange(old) * 0.1, (-1.0) ** np.arange(old), np.eye(1, old)[0]):
        found = rule_of(op)(op, {}, Interval(values[None, None]))
        x = EXACT(values)
        for i in range(new):
            if corners:
                where = Fraction(i * (old - 1), new - 1)
            else:
                where = (Fraction(2 * i + 1, 2)) * Fraction(old, new) - Fraction(1, 2)
            where = min(max(where, Fraction(0)), Fraction(old - 1))
            k = min(int(where), old - 1)
            part = where - k
            value = (1 - part) * x[k] + part * x[min(k + 1, old - 1)]
            assert contains(found, (0, 0, i), value)
