"""The steps of backward and forward bounds: each claim, with its charge, in rationals.

What a step says is checked exactly, on sums whose small terms floating point swallows, and its
charge is compared with the formula of `tangency.verify.rigorous.transpose`.
"""

import itertools
from fractions import Fraction
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest

from tangency.models import Builder
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
from tangency.verify.rigorous import numpy_engine
from tangency.verify.rigorous.backward import Rows
from tangency.verify.rigorous.enclosure import (
    UNDERFLOW,
    midpoint_radius,
)
from tangency.verify.rigorous.forward import Forward
from tangency.verify.rigorous.lines import Lines, Reach
from tangency.verify.rigorous.relaxations import Planes
from tangency.verify.rigorous.sets import InputSet
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


# --- lines carried forwards ---------------------------------------------------------------------


def exact_lines(v, magnitude):
    return (abs(EXACT(v)) * EXACT(magnitude)[:, None]).sum(axis=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_lines_through_planes_pay_for_their_rounding(sign):
    rng = np.random.default_rng(2)
    n, columns = 5, 4
    reach = Reach(np.array([[3.0, 0.7, 2.0, 1.0]]))
    given = Lines(
        rng.standard_normal((1, columns, n)),
        rng.standard_normal((1, columns, n)),
        np.full((1, n), 2.0**-50),
    )
    a, b = (sign * rng.random((1, 1, n)) for _ in range(2))
    low, high = (rng.standard_normal((1, 1, n)) * 7 for _ in range(2))
    found = reach.through_planes(Planes((a,), (b,), low, high), [given], (n,))
    for got, slope, offset, first, second in (
        (found.low, a, low, given.low, given.high),
        (found.high, b, high, given.high, given.low),
    ):
        k = EXACT(slope[0, 0])
        exact = np.where(k > 0, k * EXACT(first[0]), k * EXACT(second[0]))
        size = (abs(exact) * EXACT(reach.magnitude[0])[:, None]).sum(axis=0)
        exact[-1] = exact[-1] + EXACT(offset[0, 0])
        gap = (abs(EXACT(got[0]) - exact) * EXACT(reach.magnitude[0])[:, None]).sum(axis=0)
        paid = EXACT(found.error[0]) * (1 + Fraction(1, 2**20))
        assert (paid >= gap + abs(k) * EXACT(given.error[0])).all()
        least = U * size + U * abs(EXACT(got[0, -1])) + abs(k) * EXACT(given.error[0])
        assert (paid >= least).all()


def test_lines_through_products_pay_for_their_rounding():
    rng = np.random.default_rng(2)
    k, columns = 9, 3
    reach = Reach(np.array([[3.0, 0.7, 1.0]]))
    boxes = [
        Interval(rng.standard_normal((1, 2, k)) - 1.0),
        Interval(rng.standard_normal((1, k, 1))),
    ]
    boxes = [Interval(v.lower, v.upper + 0.25) for v in boxes]
    given = [
        Lines(
            *(rng.standard_normal((1, columns, *v.shape[1:])) for _ in range(2)),
            np.full(v.shape, 2.0**-50),
        )
        for v in boxes
    ]
    found = reach.through_product(boxes, given)
    (c, rx), (d, ry) = ([EXACT(v[0]) for v in midpoint_radius(x)] for x in boxes)
    middle, spread = c @ d, rx @ ry
    plus, minus = (lambda v: np.maximum(v, 0)), (lambda v: np.minimum(v, 0))
    (xl, xh), (yl, yh) = (([EXACT(v[0]) for v in (g.low, g.high)]) for g in given)
    magnitude = EXACT(reach.magnitude[0])
    carried = EXACT(given[0].error[0]) @ abs(d) + abs(c) @ EXACT(given[1].error[0])
    for got, x0, x1, y0, y1, offset in (
        (found.low, xl, xh, yl, yh, -middle - spread),
        (found.high, xh, xl, yh, yl, spread - middle),
    ):
        gap = 0
        for i in range(columns):
            exact = x0[i] @ plus(d) + x1[i] @ minus(d) + plus(c) @ y0[i] + minus(c) @ y1[i]
            exact = exact + (offset if i == columns - 1 else 0)
            gap = gap + abs(EXACT(got[0, i]) - exact) * magnitude[i]
        assert (EXACT(found.error[0]) * (1 + Fraction(1, 2**20)) >= gap + carried).all()
    formula = gamma_of(k) * (2 * abs(c) @ abs(d) + spread) + carried
    assert (EXACT(found.error[0]) >= formula).all()


def test_sizes_of_lines_are_rounded_upward():
    low = np.stack([SMALL, LARGE])[None].swapaxes(1, 2)
    reach = Reach(np.ones((1, 41)))
    found = reach.size(Lines(low, low * 0.5, np.zeros((1, 2))))
    assert (EXACT(found[0]) >= abs(EXACT(low[0])).sum(axis=0)).all()
    assert Fraction(reach.spill[0]) >= Fraction(UNDERFLOW) * 42


def forward_of(own):
    structure = SimpleNamespace(nodes=[], inputs=[0])
    engine = SimpleNamespace(
        network=SimpleNamespace(structure=structure), inputs=[own], samples=own.samples
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
