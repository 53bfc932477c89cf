"""The steps of backward bounds: each claim, with its charge, in rationals.

What a step says is checked exactly, on sums whose small terms floating point swallows, and its
charge is compared with the formula of `tangency.verify.rigorous.transpose`.
"""

import itertools
from fractions import Fraction
from math import prod

import numpy as np
import pytest

from tangency.models.intervals import Interval
from tangency.models.ops import (
    Add,
    AveragePool,
    BatchNorm,
    Broadcast,
    Conv,
    ConvTranspose,
    Dense,
    Gather,
    Reduce,
    Scale,
    Subtract,
    Upsample,
    numpy_backend,
)
from tangency.verify.rigorous import numpy_engine  # noqa: F401 - enters the transposes
from tangency.verify.rigorous.backward import Rows
from tangency.verify.rigorous.relaxations import Planes
from tangency.verify.rigorous.steps import AffineStep, MatMulStep, PlanesStep
from tangency.verify.rigorous.transpose import Linear, linear_of

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


# --- affine ops backwards -----------------------------------------------------------------------

OPS = {
    "dense": (Dense(), {"weight": swallowed(41).T[:, :2].copy(), "bias": SMALL}, [(2,)]),
    "dense, negative": (Dense(), {"weight": -np.ones((41, 2)), "bias": LARGE}, [(2,)]),
    "conv": (Conv((1,), ((1, 1),), (1,), 1), {"weight": np.full((9, 1, 3), 0.7)}, [(1, 5)]),
    "conv^T": (
        ConvTranspose((1,), ((0, 0),), (1,), 1, (0,)),
        {"weight": np.full((1, 9, 3), 0.7)},
        [(1, 5)],
    ),
    "scale": (Scale(), {"scale": np.array([0.1, 0.7, 3.0])}, [(3,)]),
    "scale to more": (Scale(), {"scale": np.full((40, 1), 0.7)}, [(1, 3)]),
    "division": (Scale(True), {"scale": np.array([0.1, 0.7, 3.0])}, [(3,)]),
    "add": (Add(), {}, [(40, 2), (2,)]),
    "subtract": (Subtract(), {}, [(40, 2), (1, 2)]),
    "broadcast": (Broadcast((41, 3)), {}, [(1, 3)]),
    "sum": (Reduce("sum", (0,)), {}, [(7, 2)]),
    "mean": (Reduce("mean", (0,)), {}, [(7, 2)]),
    "average": (AveragePool((3,), (1,), ((1, 1),), False), {}, [(1, 6)]),
    "gather": (Gather((0, 0, 0, 1, 1, 0, 0, 0, 0)), {}, [(2,)]),
    "batch norm": (
        BatchNorm(0, 1e-3),
        {
            "mean": np.array([0.1, 0.3]),
            "var": np.array([0.7, 1.1]),
            "weight": np.array([0.9, -1.3]),
            "bias": np.array([1.0, 0.1]),
        },
        [(2, 2)],
    ),
    "linear": (Upsample((7,), "linear"), {}, [(1, 5)]),
}


def exact_matrices(op, params, shapes):
    """Rational matrices of an affine op and its constant, written out op by op."""
    backend = numpy_backend()
    zeros = [np.zeros((1, *s)) for s in shapes]
    constant = op.apply(backend, params, *zeros)[0]
    columns = []
    for k, s in enumerate(shapes):
        own = []
        for i in range(prod(s)):
            unit = [np.zeros((1, *t)) for t in shapes]
            unit[k].flat[i] = 1.0
            plain = {key: v for key, v in params.items() if key != "bias"}
            column = EXACT(op.apply(backend, plain, *unit)[0]).ravel()
            if isinstance(op, Scale | Reduce | AveragePool | Upsample):
                column = np.array([rational(v, op, params, s) for v in column], dtype=object)
            own.append(column)
        columns.append(np.array(own, dtype=object).T)
    return columns, EXACT(constant).ravel(), constant.shape


def rational(value, op, params, shape):
    """The quotient that a float coefficient was rounded from."""
    bases = {
        Scale: [Fraction(v) for v in np.ravel(params.get("scale", 1.0))],
        Reduce: [Fraction(shape[0])],
        AveragePool: [Fraction(2), Fraction(3)],
        Upsample: [Fraction(14)],
    }[type(op)]
    if isinstance(op, Upsample):  # positions are (i + 1/2) 5 / 7 - 1/2
        return Fraction(round(value * 14), 14)
    if isinstance(op, Scale) and not op.inverse:
        return value
    near = [1 / b for b in bases if abs(value - 1 / b) < Fraction(1, 10**9)]
    return near[0] if near else value


@pytest.mark.parametrize("name", [n for n in OPS if n != "batch norm"])
def test_affine_steps_pay_for_their_rounding(name):
    op, params, shapes = OPS[name]
    matrices, constant, shape = exact_matrices(op, params, shapes)
    n = prod(shape)
    sizes = [np.full((1, *s), 3.0) for s in shapes]
    linear = linear_of(op, params, tuple(shapes), shape)
    step = AffineStep.of(linear, tuple(range(len(shapes))), tuple(sizes), shape)
    rng = np.random.default_rng(0)
    tests = [np.resize(v, n) for v in (SMALL, -SMALL, LARGE, -LARGE)]
    tests += [rng.standard_normal(n), np.resize([1.0, 2.0**-53], n), np.full(n, 0.1)]
    for a in tests:
        rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
        step.apply(rows, a.reshape((1, 1, *shape)), ALL)
        # a (W x + v) >= A x + c - e for all |x| <= m
        spare = (EXACT(a) * constant).sum() - Fraction(rows.value[0, 0])
        spare += Fraction(rows.error[0, 0]) * (1 + Fraction(1, 2**20))
        for k, w in enumerate(matrices):
            gap = abs(EXACT(a) @ w - EXACT(rows.coef[k]).ravel())
            spare -= (gap * EXACT(sizes[k]).ravel()).sum()
        assert spare >= 0
        # and the charge is that of as many terms as a coefficient is the sum of, twice
        least = 0
        for w, s, slip in zip(matrices, sizes, linear.slips, strict=True):
            terms = max((col != 0).sum() for col in w.T)
            if slip is not None:
                weight = 2 * gamma_of(terms) * (abs(w) @ EXACT(s).ravel())
                least += (abs(EXACT(a)) * weight).sum()
        least += 2 * gamma_of(n) * (abs(EXACT(a)) * abs(constant)).sum()
        assert Fraction(rows.error[0, 0]) >= least * (1 - Fraction(1, 2**30))


@pytest.mark.parametrize(("old", "new"), [(1000, 3), (997, 7), (5, 7)])
def test_interpolation_pays_for_rounded_positions(old, new):
    op, shape = Upsample((new,), "linear"), (1, new)
    step = AffineStep.of(
        linear_of(op, {}, ((1, old),), shape), (0,), (np.ones((1, 1, old)),), shape
    )
    for i in range(new):
        a = np.zeros((1, 1, 1, new))
        a[..., i] = 1.0
        rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
        step.apply(rows, a, ALL)
        where = Fraction(2 * i + 1, 2) * Fraction(old, new) - Fraction(1, 2)
        where = min(max(where, Fraction(0)), Fraction(old - 1))
        weights = EXACT(np.zeros(old))
        k = int(where)
        weights[k] += 1 - (where - k)
        weights[min(k + 1, old - 1)] += where - k
        gap = abs(weights - EXACT(rows.coef[0]).ravel()).sum()
        assert Fraction(rows.error[0, 0]) * (1 + Fraction(1, 2**20)) >= gap
        # of a position of the size of `old`, a few units in the last place
        assert Fraction(rows.error[0, 0]) >= 4 * U * (old + new)


@pytest.mark.parametrize("shifted", [True, False])
def test_batch_norms_pay_for_their_gain(shifted):
    op, params, shapes = OPS["batch norm"]
    if not shifted:  # what pays for the constant would hide what does not pay for the gain
        params = {**params, "mean": np.zeros(2), "bias": np.zeros(2)}
    linear = linear_of(op, params, tuple(shapes), shapes[0])
    step = AffineStep.of(linear, (0,), (np.full((1, *shapes[0]), 3.0),), shapes[0])
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = rng.standard_normal((1, 1, *shapes[0]))
        rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
        step.apply(rows, a, ALL)
        for sign in itertools.product((3, -3), repeat=4):
            x = np.array(sign, dtype=object).reshape(2, 2)
            bound = (EXACT(rows.coef[0][0, 0]) * x).sum() + Fraction(rows.value[0, 0])
            bound -= Fraction(rows.error[0, 0]) * (1 + Fraction(1, 2**20))
            value = Fraction(0)
            for i in range(2):
                # the square root between two rationals, on the side that makes a z smaller
                spread = Fraction(params["var"][i]) + Fraction(op.eps)
                shifted = x[i] - Fraction(params["mean"][i])
                scaled = (EXACT(a[0, 0, i]) * shifted).sum() * Fraction(params["weight"][i])
                value += scaled / root(spread)
                value += EXACT(a[0, 0, i]).sum() * Fraction(params["bias"][i])
            assert bound <= value + Fraction(1, 2**200)


def root(value):
    """The square root to 400 bits."""
    from math import isqrt

    return Fraction(isqrt(int(value * 4**400)), 2**400)


def test_a_constant_is_known_to_within_its_slack_alone():
    slack = np.array([0.3, 2.0**-60])
    linear = Linear((lambda a: a,), (None,), np.zeros(2), slack)
    step = AffineStep.of(linear, (0,), (np.ones((1, 2)),), (2,))
    for a in ([1.0, -1.0], [0.0, 3.0]):
        rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
        step.apply(rows, np.array([[a]]), ALL)
        paid = Fraction(rows.error[0, 0]) * (1 + Fraction(1, 2**20))
        assert paid >= (abs(EXACT(a)) * EXACT(slack)).sum()


# --- planes and products ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 41])
def test_planes_pay_for_their_rounding(n):
    rng = np.random.default_rng(n)
    size = np.full((1, n), 3.0)
    slopes = [(np.full(n, v), np.full(n, w)) for v, w in ((0.1, 0.4), (0.0, 0.0), (0.0, 0.7))]
    slopes += [(np.full(n, -0.7), np.zeros(n)), (v := rng.standard_normal(n), v + 0.3)]
    for low, (below, above) in itertools.product(swallowed(n), slopes):
        high = -low
        planes = Planes(
            *((v[None, None],) for v in (below, above)), low[None, None], high[None, None]
        )
        step = PlanesStep.of(planes, (0,), (size,), (n,))
        for a in (np.ones(n), -np.ones(n), np.resize([0.7, -0.1], n)):
            rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
            step.apply(rows, a[None, None], ALL)
            slope = np.where(a > 0, EXACT(below), EXACT(above))
            offset = np.where(a > 0, EXACT(low), EXACT(high))
            spare = (EXACT(a) * offset).sum() - Fraction(rows.value[0, 0])
            spare += Fraction(rows.error[0, 0]) * (1 + Fraction(1, 2**20))
            gap = abs(EXACT(a) * slope - EXACT(rows.coef[0][0, 0]))
            assert spare >= (gap * EXACT(size[0])).sum()
            steep = np.maximum(abs(EXACT(below)), abs(EXACT(above)))
            least = 2 * U * steep * EXACT(size[0]) + 2 * gamma_of(n) * abs(EXACT(low))
            found = Fraction(rows.error[0, 0])
            assert found >= (abs(EXACT(a)) * least).sum() * (1 - Fraction(1, 2**30))


def test_planes_that_know_nothing_lose_the_row():
    nothing = np.array([[[-np.inf, 0.0]]])
    zero = np.zeros((1, 1, 2))
    planes = Planes((zero,), (zero,), nothing, zero)
    step = PlanesStep.of(planes, (0,), (np.ones((1, 2)),), (2,))
    for a, lost in (([1.0, 1.0], True), ([-1.0, 1.0], False), ([0.0, 1.0], False)):
        rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
        step.apply(rows, np.array([[a]]), ALL)
        assert (rows.error[0, 0] == np.inf) == lost

    planes = Planes((zero,), (zero,), zero, -nothing)
    step = PlanesStep.of(planes, (0,), (np.ones((1, 2)),), (2,))
    for a, lost in (([-1.0, 1.0], True), ([1.0, -1.0], False), ([0.0, 1.0], False)):
        rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
        step.apply(rows, np.array([[a]]), ALL)
        assert (rows.error[0, 0] == np.inf) == lost


@pytest.mark.parametrize("k", [1, 7, 41])
def test_products_of_two_nodes_pay_for_their_rounding(k):
    rng = np.random.default_rng(k)
    x, y = swallowed(k)[:2][None], np.ones((1, k, 1))
    for wide in (0.0, 2.0**-53, 0.3):
        boxes = [Interval(x - wide, x + wide), Interval(y - wide, y + wide)]
        sizes = tuple(np.maximum(abs(b.lower), abs(b.upper)) for b in boxes)
        step = MatMulStep.of(boxes, (0, 1), sizes)
        for a in (np.ones((1, 1, 2, 1)), -np.ones((1, 1, 2, 1)), rng.standard_normal((1, 1, 2, 1))):
            rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
            step.apply(rows, a, ALL)
            for p, q in itertools.product((0, 1), repeat=2):
                left = EXACT((boxes[0].lower, boxes[0].upper)[p][0])
                right = EXACT((boxes[1].lower, boxes[1].upper)[q][0])
                value = (EXACT(a[0, 0]) * (left @ right)).sum()
                bound = (EXACT(rows.coef[0][0, 0]) * left).sum()
                bound += (EXACT(rows.coef[1][0, 0]) * right).sum() + Fraction(rows.value[0, 0])
                bound -= Fraction(rows.error[0, 0]) * (1 + Fraction(1, 2**20))
                assert bound <= value
            c, d = (EXACT(np.squeeze(v, (0, 1))) for v in step.centres)
            size = abs(c) @ abs(EXACT(sizes[1][0])) + abs(EXACT(sizes[0][0])) @ abs(d)
            least = gamma_of(k) * (size + 2 * abs(c) @ abs(d))
            assert Fraction(rows.error[0, 0]) >= (abs(EXACT(a[0, 0])) * least).sum()


@pytest.mark.parametrize("turned", [False, True])
def test_products_with_a_wide_factor_around_zero_pay_for_their_rounding(turned):
    n = 41  # coefficients are sums over n entries that rounding swallows, times |x| up to 3
    wide, point = Interval(np.full((1, 2, 1), -3.0), np.full((1, 2, 1), 3.0)), swallowed(n)[:1]
    boxes, shape = [wide, Interval(point[None])], (2, n)
    if turned:
        boxes = [Interval(v.lower.swapaxes(1, 2), v.upper.swapaxes(1, 2)) for v in boxes[::-1]]
        shape = (n, 2)
    sizes = tuple(np.maximum(abs(b.lower), abs(b.upper)) for b in boxes)
    rows = Rows({}, np.zeros((1, 1)), np.zeros((1, 1)))
    MatMulStep.of(boxes, (0, 1), sizes).apply(rows, np.ones((1, 1, *shape)), ALL)
    coef = EXACT(rows.coef[1 if turned else 0][0, 0]).ravel()
    gap = abs(EXACT(point).sum() - coef) * 3
    assert Fraction(rows.error[0, 0]) * (1 + Fraction(1, 2**20)) >= gap.sum()
    assert Fraction(rows.error[0, 0]) >= 2 * 3 * gamma_of(n) * abs(EXACT(point)).sum()
