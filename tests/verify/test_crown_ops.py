"""Op by op: transposes against the op itself, planes against samples, the 59 one-op networks."""

from fractions import Fraction
from math import prod

import numpy as np
import pytest

from tangency.models import Builder, InputError
from tangency.models.activations import get
from tangency.models.intervals import Interval
from tangency.models.ops import (
    Activate,
    Add,
    AveragePool,
    BatchNorm,
    Broadcast,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Gather,
    MatMul,
    Pad,
    Prelu,
    Product,
    Reduce,
    Reshape,
    Scale,
    Select,
    Slice,
    Subtract,
    Transpose,
    Upsample,
    numpy_backend,
)
from tangency.verify.bounds import Box, bound
from tangency.verify.rigorous.numpy_engine import TRANSPOSE_FILES
from tangency.verify.rigorous.relaxations import planes_of
from tangency.verify.rigorous.transpose import linear_of

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


AFFINE = {
    "dense": (Dense(), {"weight": normal(3, 5), "bias": normal(3)}, [(2, 5)]),
    "conv": (
        Conv((2, 1), ((1, 0), (2, 1)), (1, 2), 2),
        {"weight": normal(4, 3, 2, 2), "bias": normal(4)},
        [(6, 5, 6)],
    ),
    "conv of a sequence": (Conv((2,), ((1, 1),), (1,), 1), {"weight": normal(4, 2, 3)}, [(2, 7)]),
    "conv of two": (Conv((1,), ((0, 0),), (1,), 1), {"weight": normal(4, 2, 3)}, [(3, 2, 7)]),
    "transposed conv": (
        ConvTranspose((2, 3), ((1, 0), (0, 1)), (1, 2), 2, (1, 2)),
        {"weight": normal(4, 3, 3, 2), "bias": normal(6)},
        [(4, 3, 4)],
    ),
    "batch norm": (
        BatchNorm(1, 1e-3),
        {"mean": normal(3), "var": normal(3) ** 2, "weight": normal(3), "bias": normal(3)},
        [(2, 3, 4)],
    ),
    "scale": (Scale(), {"scale": normal(4)}, [(3, 4)]),
    "scale to more": (Scale(), {"scale": normal(2, 3, 1)}, [(3, 4)]),
    "division": (Scale(True), {"scale": normal(3, 4)}, [(1, 4)]),
    "add": (Add(), {}, [(3, 4), (4,)]),
    "subtract": (Subtract(), {}, [(3, 1), (2, 3, 4)]),
    "broadcast": (Broadcast((2, 3, 4)), {}, [(3, 1)]),
    "sum": (Reduce("sum", (0, -1)), {}, [(2, 3, 4)]),
    "mean": (Reduce("mean", (1,)), {}, [(2, 3, 4)]),
    "average pool": (AveragePool((3, 2), (2, 1), ((1, 1), (0, 1)), False), {}, [(2, 5, 4)]),
    "average pool with padding": (AveragePool((3,), (2,), ((1, 1),), True), {}, [(2, 6)]),
    "nearest": (Upsample((5, 7)), {}, [(2, 3, 4)]),
    "linear": (Upsample((5, 7), "linear"), {}, [(2, 3, 4)]),
    "linear to the corners": (Upsample((6,), "linear", True), {}, [(2, 4)]),
    "reshape": (Reshape((4, 3)), {}, [(2, 6)]),
    "transpose": (Transpose((2, 0, 1)), {}, [(2, 3, 4)]),
    "concat": (Concat(1), {}, [(2, 3), (2, 1), (2, 4)]),
    "gather": (Gather((2, 0, 2, 1, 2), 1), {}, [(2, 3)]),
    "gather each once": (Gather((2, 0), 0), {}, [(3, 2)]),
    "slice": (Slice((0, 1), (2, 6), (1, 2)), {}, [(2, 6)]),
    "pad": (Pad(((1, 0), (2, 1)), 3.5), {}, [(2, 3)]),
}


@pytest.mark.parametrize("name", AFFINE)
def test_transposes_are_those_of_the_op(name):
    """Against the op's own evaluation at unit vectors, and its errors against longdouble."""
    assert TRANSPOSE_FILES
    op, params, shapes = AFFINE[name]
    backend, zeros = numpy_backend(), [np.zeros((1, *s)) for s in shapes]
    constant = op.apply(backend, params, *zeros)[0]
    linear = linear_of(op, params, tuple(shapes), constant.shape)
    shift = 0.0 if linear.shift is None else linear.shift
    assert np.abs(constant - shift).max() <= 1e-14 * max(1.0, np.abs(constant).max())
    coef = RNG.normal(size=(2, 3, *constant.shape))
    for k, shape in enumerate(shapes):
        n = prod(shape)
        given = [np.zeros((n, *s)) for s in shapes]
        given[k] = np.eye(n).reshape(n, *shape)
        columns = (op.apply(backend, params, *given) - constant).reshape(n, -1)
        wanted = coef.reshape(6, -1) @ columns.T
        got = linear.pulls[k](coef)
        assert got.shape == (2, 3, *shape)
        assert np.abs(got.reshape(6, n) - wanted).max() <= 1e-12
        m = RNG.uniform(0.5, 2, size=(2, *shape))
        slip = linear.slips[k]
        if slip is None:
            assert np.array_equal(got.reshape(6, n), wanted)
            continue
        size = slip(m)
        assert size.shape == (2, *constant.shape)
        weight = np.abs(columns.T) @ m.reshape(2, n).T
        assert (size.reshape(2, -1).T >= 2.0**-53 * weight).all()
        assert (size.reshape(2, -1).T <= 1e-12 * weight + 1e-14).all()  # positions are rounded too


# --- planes ------------------------------------------------------------------------------------


def check_planes(planes, boxes, value, rng, *, at=()):
    """No sample crosses a plane, by more than this evaluation's own rounding."""
    shape = np.broadcast_shapes(*(b.lower.shape for b in boxes))
    for point in range(200):
        xs = []
        for b in boxes:
            t = rng.random(shape) if point % 2 else rng.integers(0, 2, size=shape)
            x = np.clip(b.lower * (1 - t) + b.upper * t, b.lower, b.upper)
            for p in at:
                x = np.where((b.lower < p) & (p < b.upper) & (rng.random(shape) < 0.2), p, x)
            xs.append(np.broadcast_to(x, shape))
        y = value(*xs)
        scale = 1 + np.abs(y)
        low, high = planes.low[:, 0], planes.high[:, 0]
        for x, a, b in zip(xs, planes.below, planes.above, strict=True):
            low, high = low + a[:, 0] * x, high + b[:, 0] * x
            scale = scale + np.abs(a[:, 0] * x) + np.abs(b[:, 0] * x)
        assert (low <= y + 1e-13 * scale).all()
        assert (high >= y - 1e-13 * scale).all()


def random_box(rng, shape, scale=2.0):
    a, b = rng.normal(size=(2, *shape)) * scale * 10.0 ** rng.uniform(-6, 1, size=shape)
    a = np.where(rng.random(shape) < 0.1, 0.0, a)
    b = np.where(rng.random(shape) < 0.1, a, b)
    return Interval(np.minimum(a, b), np.maximum(a, b))


@pytest.mark.parametrize("given", [False, True])
def test_planes_of_prelu(given):
    rng = np.random.default_rng(1)
    for slope in ([0.25], [0.0, -0.5, 1.0, 3.0]):
        s = np.array(slope)
        x = random_box(rng, (40, 4, 5))
        op = Prelu(0)
        shape = s.reshape(1, -1, 1)
        chosen = tuple(rng.normal(size=(40, 1, 4, 5)) for _ in range(2)) if given else None
        planes = planes_of(op, {"slope": s}, [x], chosen)
        check_planes(planes, [x], lambda v, shape=shape: np.where(v > 0, v, v * shape), rng, at=[0])
        if not given:  # exact where the sign is known
            one = (x.lower >= 0) | (x.upper <= 0)
            assert np.array_equal(planes.below[0][:, 0][one], planes.above[0][:, 0][one])


@pytest.mark.parametrize("given", [False, True])
def test_planes_of_a_product(given):
    rng = np.random.default_rng(2)
    x, y = random_box(rng, (30, 3, 4)), random_box(rng, (30, 4))
    chosen = None
    if given:
        chosen = tuple(rng.normal(size=(30, 1, 3, 4)) for _ in range(4))
    planes = planes_of(Product(), {}, [x, y], chosen)
    wide = [x, Interval(y.lower[:, None], y.upper[:, None])]
    check_planes(planes, wide, lambda a, b: a * b, rng)
    if not given:  # the gap at the centres is the product of the radii
        gap = planes.high - planes.low
        wanted = 2 * wide[0].radius * wide[1].radius
        assert (gap[:, 0] <= wanted * (1 + 1e-9) + 1e-14 * (1 + x.magnitude)).all()


@pytest.mark.parametrize("strict", [False, True])
def test_planes_of_a_selection(strict):
    rng = np.random.default_rng(3)
    boxes = [random_box(rng, (60, 5)) for _ in range(4)]
    x, y, _, _ = boxes
    planes = planes_of(Select(strict), {}, boxes)
    check_planes(
        planes,
        boxes,
        lambda p, q, a, b: np.where(p > q if strict else p >= q, a, b),
        rng,
    )
    decided = (x.lower > y.upper) | (x.upper < y.lower)
    assert (planes.low[:, 0][decided] == 0).all()
    assert (planes.high[:, 0][decided] == 0).all()


def test_an_unbounded_box_leaves_the_range():
    """Half of the boxes are unbounded: constant planes there, lines elsewhere."""
    x = Interval(np.array([[-np.inf, 0.0, -1.0]]), np.array([[np.inf, np.inf, 1.0]]))
    planes = planes_of(Activate(get("sigmoid")), {}, [x])
    assert np.array_equal(planes.below[0][0, 0, :2], [0, 0])
    assert planes.low[0, 0, 0] == pytest.approx(0.0, abs=1e-12)
    assert planes.high[0, 0, 1] == pytest.approx(1.0, abs=1e-12)
    assert planes.below[0][0, 0, 2] > 0
    relu = planes_of(Activate(get("relu")), {}, [x])
    assert relu.high[0, 0, 0] == np.inf
    assert relu.low[0, 0, 0] == 0


def test_what_overflows_is_unbounded_and_the_rest_is_not():
    b = Builder("float64")
    x = b.input((1, 2))
    h = b.dense(x, np.array([[1e200, 0.0], [0.0, 1.0]]))
    h = b.emit(Product(), [h, b.emit(Activate(get("relu")), [h])])
    h = b.emit(Product(), [h, h])
    network = b.finish([b.dense(h, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))])
    found = bound(network, Box(np.array([0.5, 1.0]), np.array([1.0, 2.0])), method="crown")
    assert found.upper[0, 0] == np.inf
    assert 16.0 <= found.upper[0, 1] <= 16.1
    assert found.upper[0, 2] == np.inf
    assert -4 <= found.lower[0, 1] <= 1


@pytest.mark.parametrize("shapes", [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((1, 2, 3), (5, 3, 1))])
def test_products_of_matrices_are_enclosed_and_affine_where_a_factor_is_a_point(shapes):
    rng = np.random.default_rng(4)
    b = Builder("float64")
    x, y = (b.input((1, *s)) for s in shapes)
    network = b.finish([b.emit(MatMul(), [x, y])])
    centres = [rng.normal(size=(3, *s)) for s in shapes]
    boxes = tuple(Box.around(c, rng.uniform(0, 0.5, size=c.shape)) for c in centres)
    found = bound(network, boxes, method="crown", plain=True)
    for _ in range(100):
        xs = [rng.uniform(z.lower, z.upper) for z in boxes]
        value = network.evaluate(*xs)
        assert (found.lower <= value + 1e-12).all()
        assert (value <= found.upper + 1e-12).all()
    point = Box(centres[1], centres[1])
    found = bound(network, (boxes[0], point), method="crown", plain=True)
    exact = bound(network, (boxes[0], point))
    assert np.allclose(found.lower, exact.lower, rtol=0, atol=1e-12)
    assert np.allclose(found.upper, exact.upper, rtol=0, atol=1e-12)


def test_errors_name_the_layer():
    b = Builder("float64")
    h = b.dense(b.input((1, 2)), np.eye(2))
    network = b.finish([b.emit(Activate(get("log")), [h])])
    with pytest.raises(InputError, match=r"layer .*log"):
        bound(network, Box(np.array([-1.0, 1.0]), np.array([1.0, 2.0])), method="crown")


# --- one op at a time --------------------------------------------------------------------------


def test_the_59_one_op_networks(one_op_modules):
    """Every one is bounded by CROWN, in both modes, and 10,000 samples and corners stay inside."""
    torch = pytest.importorskip("torch")
    from tangency.models import from_torch

    rng, narrower = np.random.default_rng(5), 0
    assert len(one_op_modules) == 59
    for name, (module, shape) in one_op_modules.items():
        network = from_torch(module, torch.zeros(1, *shape))
        box = Box.around(0.5 * rng.normal(size=shape), 0.2)
        points = rng.uniform(box.lower, box.upper, size=(10000, *shape))
        points = np.where(rng.random(points.shape) < 0.3, box.lower, points)
        points = np.where(rng.random(points.shape) < 0.3, box.upper, points)
        y = network.astype("float64").evaluate(points)
        slack = 1e-9 * (1 + np.abs(y).max())
        ibp = bound(network, box)
        for plain in (False, True):
            found = bound(network, box, method="crown", plain=plain)
            assert (found.lower <= y.min(axis=0) + slack).all(), name
            assert (found.upper >= y.max(axis=0) - slack).all(), name
            assert np.isfinite(found.upper - found.lower).all(), name
        found = bound(network, box, method="crown")
        narrower += np.mean(found.upper - found.lower) < 0.9 * np.mean(ibp.upper - ibp.lower)
    assert narrower >= 15


def test_a_residual_sum_counts_its_rounding():
    """x + (c x) with a huge c, minus c x: exact values by fractions."""
    b = Builder("float64")
    x = b.input((1, 3))
    big = b.dense(x, np.diag([1e17, 3e16, 7e15]) / 3)
    h = b.emit(Subtract(), [b.emit(Add(), [x, big]), big])
    network = b.finish([b.dense(h, np.ones((1, 3)))])
    point = np.array([0.1, 0.2, 0.3])
    found = bound(network, Box(point, point), method="crown")
    exact = sum(Fraction(float(v)) for v in point)
    assert Fraction(float(found.lower[0, 0])) <= exact <= Fraction(float(found.upper[0, 0]))
    assert found.upper[0, 0] - found.lower[0, 0] < 100
