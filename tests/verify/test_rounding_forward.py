"""Linear bounds carried forwards: each claim, with its charge, in rationals.

Where several charges are added, each is also tried where it alone pays: the others are of terms
that are zero there.
"""

from fractions import Fraction
from math import isqrt
from types import SimpleNamespace

import numpy as np
import pytest

from tangency.models import Builder
from tangency.models.intervals import Interval
from tangency.models.ops import BatchNorm, Dense
from tangency.verify.rigorous import numpy_engine
from tangency.verify.rigorous.enclosure import UNDERFLOW, midpoint_radius
from tangency.verify.rigorous.forward import Forward
from tangency.verify.rigorous.lines import Lines, Reach
from tangency.verify.rigorous.relaxations import Planes
from tangency.verify.rigorous.sets import InputSet

U = Fraction(1, 2**53)
PART = 1 + Fraction(1, 2**20)  # what the end of the way adds to all errors
EXACT = np.vectorize(Fraction, otypes=[object])
SMALL = np.array([1.0, *[2.0**-53] * 40])  # floats add up to 1, from the left
LARGE = np.array([1.0, *[-(2.0**-54)] * 40])


def gamma_of(n):
    return n * U / (1 - n * U)


def swallowed(n):
    """Rows whose floating-point sum is 1 or -1, however they are added from the left."""
    return np.stack([sign * v[:n] for sign in (1, -1) for v in (SMALL, LARGE)])


def cancelling(rng, rows, n):
    """Rows of n entries, and n weights, whose products have the sum 0 and are not small."""
    half, weight = rng.standard_normal((rows, n // 2)), rng.random(n // 2) + 0.5
    order = rng.permutation(n)
    return np.hstack([half, -half])[:, order].copy(), np.tile(weight, 2)[order].copy()


def plus(v):
    return np.maximum(v, 0)


def minus(v):
    return np.minimum(v, 0)


# --- planes and products ------------------------------------------------------------------------


def assert_through_planes(reach, given, planes, shape):
    """The lines behind planes hold for the lines before, with their error."""
    found = reach.through_planes(planes, [given], shape)
    magnitude = EXACT(reach.magnitude[0])[:, None]
    (a,), (b,) = planes.below, planes.above
    for got, slope, offset, first, second in (
        (found.low, a, planes.low, given.low, given.high),
        (found.high, b, planes.high, given.high, given.low),
    ):
        k = EXACT(slope[0, 0])
        exact = np.where(k > 0, k * EXACT(first[0]), k * EXACT(second[0]))
        size = (abs(exact) * magnitude).sum(axis=0)
        exact[-1] = exact[-1] + EXACT(offset[0, 0])
        gap = (abs(EXACT(got[0]) - exact) * magnitude).sum(axis=0)
        paid = EXACT(found.error[0]) * PART
        carried = abs(k) * EXACT(given.error[0])
        assert (paid >= gap + carried).all()
        assert (paid >= U * size + U * abs(EXACT(got[0, -1])) + carried).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("slopes", "constants", "offsets", "error"),
    [
        (1.0, 1.0, 7.0, 2.0**-50),
        (0.0, 0.0, 0.0, 1.0),  # the error of the line before alone
        (1.0, 0.0, 0.0, 0.0),  # the rounding of slope times line
        (0.0, 2.0**-53, 7.0, 0.0),  # the rounding of the constant
    ],
)
def test_lines_through_planes_pay_for_their_rounding(sign, slopes, constants, offsets, error):
    rng = np.random.default_rng(2)
    n, columns = 5, 4
    scale = np.array([slopes] * (columns - 1) + [constants])[:, None]
    given = Lines(
        *(rng.standard_normal((1, columns, n)) * scale for _ in range(2)), np.full((1, n), error)
    )
    a, b = (sign * rng.random((1, 1, n)) for _ in range(2))
    low, high = (rng.standard_normal((1, 1, n)) * offsets for _ in range(2))
    reach = Reach(np.array([[3.0, 0.7, 2.0, 1.0]]))
    assert_through_planes(reach, given, Planes((a,), (b,), low, high), (n,))


def assert_through_product(reach, boxes, given):
    """The lines of a product hold for those of its factors, with their errors."""
    found = reach.through_product(boxes, given)
    (c, rx), (d, ry) = ([EXACT(v[0]) for v in midpoint_radius(x)] for x in boxes)
    middle, spread = c @ d, rx @ ry
    (xl, xh), (yl, yh) = (([EXACT(v[0]) for v in (g.low, g.high)]) for g in given)
    magnitude = EXACT(reach.magnitude[0])
    carried = EXACT(given[0].error[0]) @ abs(d) + abs(c) @ EXACT(given[1].error[0])
    for got, x0, x1, y0, y1, offset in (
        (found.low, xl, xh, yl, yh, -middle - spread),
        (found.high, xh, xl, yh, yl, spread - middle),
    ):
        gap = 0
        for i in range(len(magnitude)):
            exact = x0[i] @ plus(d) + x1[i] @ minus(d) + plus(c) @ y0[i] + minus(c) @ y1[i]
            exact = exact + (offset if i == len(magnitude) - 1 else 0)
            gap = gap + abs(EXACT(got[0, i]) - exact) * magnitude[i]
        assert (EXACT(found.error[0]) * PART >= gap + carried).all()
    formula = gamma_of(c.shape[-1]) * (2 * abs(c) @ abs(d) + spread) + carried
    assert (EXACT(found.error[0]) * PART >= formula).all()


@pytest.mark.parametrize(
    ("size", "errors"), [(1.0, (2.0**-50, 2.0**-50)), (0.0, (1.0, 0.0)), (0.0, (0.0, 1.0))]
)
def test_lines_through_products_pay_for_their_rounding(size, errors):
    rng = np.random.default_rng(2)
    k, columns = 9, 3
    low = rng.standard_normal((1, 2, k)) - 1.0, rng.standard_normal((1, k, 1))
    boxes = [Interval(v, v + 0.25) for v in low]
    given = [
        Lines(
            *(rng.standard_normal((1, columns, *v.shape[1:])) * size for _ in range(2)),
            np.full(v.shape, error),
        )
        for v, error in zip(boxes, errors, strict=True)
    ]
    assert_through_product(Reach(np.array([[3.0, 0.7, 1.0]])), boxes, given)


def test_lines_through_products_pay_for_centres_that_cancel():
    c, d = cancelling(np.random.default_rng(0), 4, 40)
    boxes = [Interval(c[None]), Interval(d[None, :, None])]
    given = [
        Lines(np.zeros((1, 2, *v.shape[1:])), np.zeros((1, 2, *v.shape[1:])), np.zeros(v.shape))
        for v in boxes
    ]
    assert_through_product(Reach(np.ones((1, 2))), boxes, given)


def test_sizes_of_lines_are_rounded_upward():
    low = np.stack([SMALL, LARGE])[None].swapaxes(1, 2)
    reach = Reach(np.ones((1, 41)))
    found = reach.size(Lines(low, low * 0.5, np.zeros((1, 2))))
    assert (EXACT(found[0]) >= abs(EXACT(low[0])).sum(axis=0)).all()
    assert Fraction(reach.spill[0]) >= Fraction(UNDERFLOW) * 42


# --- ends and specifications --------------------------------------------------------------------


def forward_of(*own):
    structure = SimpleNamespace(nodes=[], inputs=list(range(len(own))))
    engine = SimpleNamespace(
        network=SimpleNamespace(structure=structure), inputs=own, samples=own[0].samples
    )
    return Forward(engine)


@pytest.mark.parametrize("width", [0.0, 2.0**-53, 0.25])
@pytest.mark.parametrize("error", [0.0, 2.0**-54, 0.5])
def test_ends_of_lines_round_outward(width, error):
    n = 41
    centre = np.ones((1, n))
    own = InputSet(centre - width, centre + width)
    rows = swallowed(n)
    coef = np.concatenate([rows, np.array([[2.0**-53], [1.0], [0.1], [-1.0]])], axis=1)
    coef = coef.T[None]
    low, high = forward_of(own).ends(Lines(coef, coef, np.full((1, 4), error)))
    below, above = EXACT(own.lower[0]), EXACT(own.upper[0])
    for k in range(4):
        a, constant = EXACT(coef[0, :-1, k]), Fraction(coef[0, -1, k])
        least = np.where(a > 0, a * below, a * above).sum() + constant - Fraction(error)
        most = np.where(a > 0, a * above, a * below).sum() + constant + Fraction(error)
        assert Fraction(low[0, k]) <= least
        assert Fraction(high[0, k]) >= most


def test_ends_of_lines_of_many_inputs_pay_for_their_sum():
    rows = swallowed(41)  # a constant, and 40 inputs that it swallows one by one
    coef = np.roll(rows, -1, axis=1).T[None]
    point = InputSet(np.ones((1, 1)), np.ones((1, 1)))
    low, high = forward_of(*[point] * 40).ends(Lines(coef, coef, np.zeros((1, 4))))
    assert (EXACT(low[0]) <= EXACT(rows).sum(axis=1)).all()
    assert (EXACT(high[0]) >= EXACT(rows).sum(axis=1)).all()


@pytest.mark.parametrize("joined", [False, True])
def test_specifications_of_lines(joined):
    n = 41
    own = InputSet(np.ones((1, 1)), np.ones((1, 1)))
    spec = swallowed(n)[None]
    if joined:
        one = np.ones((1, 2, 1))
        lines = Lines(one * 0.5, one * 0.5, np.full((1, 1), 2.0**-54))
        bias = np.full(n, 0.3)
        low, high = forward_of(own).mapped(lines, spec, np.full((n, 1), 0.7), bias)
        z = Fraction(1)
        rows = EXACT(spec[0]).sum(axis=1)
        value = rows * Fraction(0.7) * z + rows * Fraction(0.3)
        slack = abs(rows) * Fraction(0.7) * Fraction(2.0**-54)
    else:
        coef = np.full((1, 2, n), 0.5)
        lines = Lines(coef, coef, np.full((1, n), 2.0**-54))
        low, high = forward_of(own).mapped(lines, spec)
        value = EXACT(spec[0]).sum(axis=1)
        slack = abs(EXACT(spec[0])).sum(axis=1) * Fraction(2.0**-54)
    assert (EXACT(low[0]) <= value - slack).all()
    assert (EXACT(high[0]) >= value + slack).all()


@pytest.mark.parametrize("joined", [False, True])
def test_specifications_pay_for_the_error_of_lines(joined):
    lines = Lines(*[np.zeros((1, 2, 3))] * 2, np.array([[0.25, 0.5, 1.0]]))
    spec = np.array([[[1.0, -2.0, 3.0], [0.0, 0.5, 0.0]]])
    weight = np.eye(3) if joined else None
    own = InputSet(np.ones((1, 1)), np.ones((1, 1)))
    low, high = forward_of(own).mapped(lines, spec, weight)
    slack = (abs(spec[0]) * lines.error).sum(axis=1)
    assert (low[0] <= -slack).all()
    assert (high[0] >= slack).all()


@pytest.mark.parametrize("biased", [False, True])
def test_specifications_pay_for_products_that_cancel(biased):
    spec, column = cancelling(np.random.default_rng(0), 16, 40)
    weight, bias = column[:, None], np.zeros(40)
    if biased:
        weight, bias = np.zeros((40, 1)), column
    lines = Lines(*[np.full((1, 2, 1), 0.5)] * 2, np.zeros((1, 1)))
    own = InputSet(np.ones((1, 1)), np.ones((1, 1)))
    low, high = forward_of(own).mapped(lines, spec[None], weight, bias)
    assert (low[0] <= 0).all()
    assert (high[0] >= 0).all()


# --- affine layers ------------------------------------------------------------------------------


def through_affine(op, params, shape, lines):
    """The lines behind an affine op of one input, every entry of which is in [-1, 1]."""
    builder = Builder("float64")
    entered = {role: (role, value) for role, value in params.items()}
    z = builder.emit(op, [builder.input((1, *shape))], entered)
    own = InputSet(-np.ones((1, *shape)), np.ones((1, *shape)))
    forward = Forward(numpy_engine.NumpyEngine(builder.finish([z]), [own]))
    return forward._affine(1, [lines], forward.nodes[1].shape)


@pytest.mark.parametrize(("size", "error"), [(1.0, 0.0), (0.0, 1.0), (1.0, 2.0**-50)])
def test_affine_layers_pay_for_lines_and_their_rounding(size, error):
    rng = np.random.default_rng(3)
    n = 41  # of one neuron: what a row of the transpose would pay is much less
    weight = rng.standard_normal((1, n))
    low, high = (rng.standard_normal((1, n + 1, n)) * size for _ in range(2))
    lines = Lines(low, high, np.full((1, n), error))
    found = through_affine(Dense(), {"weight": weight}, (n,), lines)
    w, paid = EXACT(weight[0]), Fraction(found.error[0, 0]) * PART
    for got, first, second in ((found.low, low, high), (found.high, high, low)):
        exact = EXACT(first[0]) @ plus(w) + EXACT(second[0]) @ minus(w)
        gap = abs(EXACT(got[0, :, 0]) - exact).sum()
        assert paid >= gap + abs(w).sum() * Fraction(error)
    greater = np.maximum(*(abs(EXACT(v[0])).sum(axis=0) for v in (low, high)))
    assert paid >= abs(w) @ (2 * gamma_of(n) * greater + Fraction(error))


def test_batch_norms_forwards_pay_for_a_constant_that_cancels():
    rng = np.random.default_rng(4)
    n, op = 20, BatchNorm(0, 1e-3)
    params = {"mean": rng.standard_normal(n), "var": rng.random(n) + 0.1}
    params["bias"] = params["mean"] / np.sqrt(params["var"] + op.eps)
    zero = Lines(*[np.zeros((1, n + 1, n))] * 2, np.zeros((1, n)))
    found = through_affine(op, params, (n,), zero)
    assert np.array_equal(found.low, found.high)
    for i in range(n):
        mean, var, bias = (Fraction(v[i]) for v in params.values())
        square = int((var + Fraction(op.eps)) * 4**400)
        constant = bias - mean * 2**400 / isqrt(square)  # to about 400 bits
        gap = abs(constant - Fraction(found.low[0, -1, i]))
        assert Fraction(found.error[0, i]) * PART + Fraction(1, 2**300) >= gap


def test_lines_of_affine_layers_hold_at_the_corners():
    hidden, last = np.array([[0.7, -0.3]] * 41), swallowed(41)
    builder = Builder("float64")
    z = builder.emit(
        Dense(),
        [builder.input((1, 2))],
        {"weight": ("w1", hidden), "bias": ("b1", np.full(41, 0.1))},
    )
    y = builder.emit(Dense(), [z], {"weight": ("w2", last), "bias": ("b2", LARGE[:4])})
    own = InputSet(np.array([[0.9, -1.1]]), np.array([[1.3, 0.7]]))
    engine = numpy_engine.NumpyEngine(builder.finish([y]), [own])
    _, kept = Forward(engine, plain=True).run([2])
    lines = kept[2]
    magnitude = np.array([1.3, 1.1, 1.0])
    exact = EXACT(last) @ np.hstack([EXACT(hidden), EXACT(np.full((41, 1), 0.1))])
    exact[:, -1] = exact[:, -1] + EXACT(LARGE[:4])
    paid = EXACT(lines.error[0]) * (1 + Fraction(1, 2**20))
    for got in (lines.low[0].T, lines.high[0].T):
        assert (abs(EXACT(got) - exact) @ EXACT(magnitude) <= paid).all()
    size = abs(EXACT(last)) @ abs(EXACT(hidden)) @ EXACT(magnitude[:2])
    assert (paid >= 2 * gamma_of(41) * size).all()
