"""Every op's rule: no point of the box escapes, points stay tiny, exact ranges are met."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tangency.models import Builder, InputError
from tangency.models.activations import get
from tangency.models.ops import (
    OPS,
    Activate,
    Add,
    AveragePool,
    BatchNorm,
    Broadcast,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Extremum,
    Gather,
    GroupSort,
    Householder,
    Input,
    LayerNorm,
    LogSumExp,
    MatMul,
    MaxPool,
    Pad,
    Prelu,
    Product,
    Quotient,
    Reduce,
    ReduceExtremum,
    Reshape,
    Scale,
    Select,
    Slice,
    Softmax,
    Subtract,
    Transpose,
    Upsample,
    numpy_backend,
)
from tangency.verify.bounds import Box, bound
from tangency.verify.rigorous.registry import RULES


def one_op(op, *shapes, constants=(), dtype="float64", **params):
    """A network of one op on inputs of these shapes; constants join as further operands."""
    b = Builder(dtype)
    values = [b.input((1, *s), name=f"in{i}") for i, s in enumerate(shapes)]
    for i, c in enumerate(constants):
        values.append(b.emit(Constant(), [], {"value": (f"c{i}", c.astype(dtype))}))
    b.scope = "it"
    held = {role: (role, np.asarray(a).astype(dtype)) for role, a in params.items()}
    return b.finish([b.emit(op, values, held)])


def normal(rng, *shape):
    return rng.normal(size=shape)


def unit_rows(rng, *shape):
    v = rng.normal(size=shape)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


# Each case: rng -> network. "positive" in the name: the boxes lie above zero.
CASES = {
    "constant": lambda r: one_op(Add(), (3,), constants=[normal(r, 3)]),
    "add": lambda r: one_op(Add(), (2, 3), (3,)),
    "subtract": lambda r: one_op(Subtract(), (3,), (2, 3)),
    "product": lambda r: one_op(Product(), (2, 3), (2, 1)),
    "product_constant": lambda r: one_op(Product(), (2, 3), constants=[normal(r, 3)]),
    "quotient_positive": lambda r: one_op(Quotient(), (2, 3), (3,)),
    "max": lambda r: one_op(Extremum("max"), (4,), (4,)),
    "min": lambda r: one_op(Extremum("min"), (4,), (1,)),
    "select": lambda r: one_op(Select(), (3,), (1,), (2, 3), (3,)),
    "select_loose": lambda r: one_op(Select(strict=False), (3,), (3,), (3,), (3,)),
    "matmul": lambda r: one_op(MatMul(), (2, 3, 4), (4, 2)),
    "matmul_left": lambda r: one_op(MatMul(), (2, 3, 4), constants=[normal(r, 4, 5)]),
    "matmul_right_first": lambda r: constant_first(r),
    "dense": lambda r: one_op(Dense(), (5,), weight=normal(r, 4, 5), bias=normal(r, 4)),
    "dense_inner": lambda r: one_op(Dense(), (2, 5), weight=normal(r, 3, 5)),
    "conv2d": lambda r: one_op(
        Conv((2, 1), ((1, 0), (1, 2)), (1, 2), 2),
        (4, 6, 7),
        weight=normal(r, 6, 2, 3, 2),
        bias=normal(r, 6),
    ),
    "conv1d": lambda r: one_op(
        Conv((2,), ((1, 1),), (1,), 1), (2, 9), weight=normal(r, 3, 2, 3), bias=normal(r, 3)
    ),
    "conv_transpose": lambda r: one_op(
        ConvTranspose((2, 2), ((1, 1), (0, 1)), (1, 2), 2, (1, 0)),
        (4, 3, 3),
        weight=normal(r, 4, 3, 3, 2),
        bias=normal(r, 6),
    ),
    "conv_transpose1d": lambda r: one_op(
        ConvTranspose((3,), ((0, 0),), (1,), 1, (0,)), (2, 4), weight=normal(r, 2, 3, 2)
    ),
    "batch_norm": lambda r: one_op(
        BatchNorm(0, 1e-5),
        (3, 4),
        mean=normal(r, 3),
        var=r.uniform(0.1, 3, 3),
        weight=normal(r, 3),
        bias=normal(r, 3),
    ),
    "scale": lambda r: one_op(Scale(), (2, 3), scale=normal(r, 3)),
    "scale_inverse": lambda r: one_op(Scale(True), (2, 3), scale=r.uniform(0.5, 2, (2, 1))),
    "reduce_sum": lambda r: one_op(Reduce("sum", (0, 2)), (2, 3, 4)),
    "reduce_mean": lambda r: one_op(Reduce("mean", (-1,)), (2, 7)),
    "average_pool": lambda r: one_op(
        AveragePool((3, 2), (2, 1), ((1, 1), (0, 1)), count_padding=False), (2, 5, 4)
    ),
    "average_pool_padded": lambda r: one_op(AveragePool((3,), (2,), ((1, 1),)), (2, 7)),
    "upsample_nearest": lambda r: one_op(Upsample((5, 4)), (2, 3, 2)),
    "upsample_linear": lambda r: one_op(Upsample((7, 5), "linear"), (2, 3, 2)),
    "upsample_corners": lambda r: one_op(Upsample((7,), "linear", True), (2, 4)),
    "reshape": lambda r: one_op(Reshape((3, 4)), (2, 6)),
    "transpose": lambda r: one_op(Transpose((2, 0, 1)), (2, 3, 4)),
    "slice": lambda r: one_op(Slice((0, 1), (2, 6), (1, 2)), (2, 6)),
    "gather": lambda r: one_op(Gather((3, 0, 3), 1), (2, 4)),
    "pad": lambda r: one_op(Pad(((0, 1), (2, 0)), 0.1), (2, 3)),
    "concat": lambda r: one_op(Concat(1), (2, 3), (2, 1), constants=[normal(r, 2, 2)]),
    "broadcast": lambda r: one_op(Broadcast((4, 2, 3)), (2, 1)),
    "max_pool": lambda r: one_op(MaxPool((3, 2), (2, 1), ((1, 1), (0, 0)), (1, 1)), (2, 5, 4)),
    "reduce_max": lambda r: one_op(ReduceExtremum("max", (0,)), (3, 4)),
    "reduce_min": lambda r: one_op(ReduceExtremum("min", (-1, 0)), (3, 4)),
    "maxmin": lambda r: one_op(GroupSort(2, 0, True), (6,)),
    "group_sort": lambda r: one_op(GroupSort(3, 1, False), (2, 6)),
    "householder2": lambda r: one_op(Householder(0), (6,), vectors=unit_rows(r, 3, 2)),
    "householder3": lambda r: one_op(Householder(1), (2, 6), vectors=unit_rows(r, 2, 3)),
    "softmax": lambda r: one_op(Softmax(-1), (2, 5)),
    "softmax_first": lambda r: one_op(Softmax(0), (4, 2)),
    "log_sum_exp": lambda r: one_op(LogSumExp((0, 1)), (2, 3)),
    "layer_norm": lambda r: one_op(
        LayerNorm((-1,), 1e-5), (2, 5), weight=normal(r, 5), bias=normal(r, 5)
    ),
    "layer_norm_two_axes": lambda r: one_op(
        LayerNorm((0, 2), 1e-3), (3, 2, 2), weight=normal(r, 3, 2), bias=normal(r, 3, 2)
    ),
    "rms_norm": lambda r: one_op(LayerNorm((-1,), 1e-6, False), (2, 4), weight=normal(r, 4)),
    "prelu": lambda r: one_op(Prelu(0), (4, 3), slope=normal(r, 4)),
    "prelu_one": lambda r: one_op(Prelu(0), (4, 3), slope=np.array([-0.3])),
    "activation": lambda r: one_op(Activate(get("silu")), (6,)),
    "activation_kinked": lambda r: one_op(Activate(get("leaky_relu")), (6,)),
}


def constant_first(r):
    b = Builder("float64")
    y = b.input((1, 4, 3))
    x = b.emit(Constant(), [], {"value": ("c", normal(r, 2, 5, 4))})
    return b.finish([b.emit(MatMul(), [x, y])])


def random_boxes(rng, network, scale, *, positive=False):
    boxes = []
    for shape in network.input_shapes:
        centre = rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1)
        radius = scale * rng.uniform(0, 1, size=shape) * (rng.random(shape) < 0.9)
        low, high = centre - radius, centre + radius
        if positive:
            low, high = np.sort(np.abs([low, high]), axis=0)
            low, high = low + 0.01, high + 0.01
        boxes.append(Box(low, high))
    return boxes


def points_in(rng, boxes, count):
    """Uniform points, corners, and points with some coordinates at a corner; all corners of few."""
    points = []
    for box in boxes:
        shape = (count, *box.shape)
        part = rng.random(shape)
        inner = np.clip(box.lower * (1 - part) + box.upper * part, box.lower, box.upper)
        corner = np.where(rng.random(shape) < 0.5, box.lower, box.upper)
        mix = np.where(rng.random(shape) < 0.5, inner, corner)
        kind = np.arange(count).reshape((-1,) + (1,) * len(box.shape)) % 3
        points.append(np.where(kind == 0, inner, np.where(kind == 1, corner, mix)))
    if len(boxes) == 1 and boxes[0].lower.size <= 9:
        box, n = boxes[0], boxes[0].lower.size
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        bits = bits.reshape((-1, *box.shape)).astype(bool)
        points = [np.concatenate([points[0], np.where(bits, box.upper, box.lower)])]
    return points


def evaluate_long(network, points):
    """The network in 80-bit arithmetic, from its stored weights."""
    weights = {k: w.astype(np.longdouble) for k, w in network.weights.items()}
    inputs = [p.astype(np.longdouble) for p in points]
    with np.errstate(all="ignore"):
        return network.structure.apply(numpy_backend(), weights, inputs)


def assert_no_escape(network, boxes, rng, count=2000):
    found = bound(network, tuple(boxes))
    y = evaluate_long(network, points_in(rng, boxes, count))
    assert found.lower.shape == (1, *network.output_shape)
    assert (found.lower <= y).all(), float((found.lower - y).max())
    assert (y <= found.upper).all(), float((y - found.upper).max())
    return found, y


def test_every_op_has_a_rule_and_a_case():
    assert set(RULES) == set(OPS.values()) - {Input}
    rng = np.random.default_rng(0)
    met = {type(n.op) for make in CASES.values() for n in make(rng).structure.nodes}
    assert met == set(OPS.values())


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), log_scale=st.floats(-8, 1))
def test_no_point_escapes(name, seed, log_scale):
    rng = np.random.default_rng(seed)
    network = CASES[name](rng)
    boxes = random_boxes(rng, network, 10.0**log_scale, positive="positive" in name)
    assert_no_escape(network, boxes, rng)


@pytest.mark.parametrize("name", CASES)
def test_points_give_tiny_bounds(name):
    rng = np.random.default_rng(7)
    network = CASES[name](rng)
    boxes = random_boxes(rng, network, 0.0, positive="positive" in name)
    found, y = assert_no_escape(network, boxes, rng, 3)
    width = found.upper - found.lower
    assert (width <= 1e-9 * np.maximum(1.0, np.abs(y).max())).all()
    assert np.isfinite(width).all()


@pytest.mark.parametrize("magnitude", [1e-310, 1e-160, 1e150, 1e308])
@pytest.mark.parametrize("name", CASES)
def test_no_point_escapes_at_the_ends_of_the_float_range(name, magnitude):
    """Underflow and overflow: 80-bit numbers reach much further than the bounds do."""
    rng = np.random.default_rng(9)
    network = CASES[name](rng)
    boxes = []
    for shape in network.input_shapes:
        ends = rng.uniform(0.1 if "positive" in name else -1, 1, size=(2, *shape)) * magnitude
        boxes.append(Box(ends.min(axis=0), ends.max(axis=0)))
    found = bound(network, tuple(boxes))
    y = evaluate_long(network, points_in(rng, boxes, 500))
    assert not np.isnan(found.lower).any()
    assert not np.isnan(found.upper).any()
    assert ((found.lower <= y) | np.isnan(y)).all()
    assert ((y <= found.upper) | np.isnan(y)).all()


@pytest.mark.parametrize("name", ["dense", "conv2d", "conv_transpose", "scale", "upsample_linear"])
def test_weights_of_float32_are_taken_exactly(name):
    rng = np.random.default_rng(3)
    network = CASES[name](rng).astype("float32")
    boxes = random_boxes(rng, network, 1.0)
    narrow, wide = (bound(n, tuple(boxes)) for n in (network, network.astype("float64")))
    assert (narrow.lower == wide.lower).all()
    assert (narrow.upper == wide.upper).all()
    assert_no_escape(network.astype("float64"), boxes, rng)


@pytest.mark.parametrize("name", ["add", "quotient_positive", "product", "max", "maxmin", "prelu"])
def test_ranges_of_single_ops_are_attained(name):
    """One op with independent entries: the corners attain the bounds."""
    rng = np.random.default_rng(5)
    network = CASES[name](rng)
    boxes = random_boxes(rng, network, 1.0, positive="positive" in name)
    found = bound(network, tuple(boxes))
    corners = [np.where(rng.random((40000, *b.shape)) < 0.5, b.lower, b.upper) for b in boxes]
    y = network.evaluate(
        *[
            np.concatenate([c, np.zeros_like(c[:1]).clip(b.lower, b.upper)])
            for c, b in zip(corners, boxes, strict=True)
        ]
    )
    scale = 1e-12 * np.abs(y).max()
    assert np.abs(found.lower - y.min(axis=0)).max() <= scale
    assert np.abs(found.upper - y.max(axis=0)).max() <= scale


def test_softmax_and_log_sum_exp_are_exact_and_stable():
    rng = np.random.default_rng(1)
    low = rng.normal(size=6) * 300
    high = low + rng.uniform(0, 2, 6)
    found = bound(one_op(Softmax(-1), (6,)), Box(low, high))
    for i in range(6):
        for own, others, got in ((low, high, found.lower), (high, low, found.upper)):
            z = np.where(np.arange(6) == i, own, others)
            e = np.exp((z - z.max()).astype(np.longdouble))
            assert got[0, i] == pytest.approx(float((e / e.sum())[i]), rel=1e-11, abs=1e-300)
    assert (found.lower >= 0).all()
    assert (found.upper <= 1).all()
    huge = bound(one_op(LogSumExp((0,)), (6,)), Box(low * 100, high * 100))
    assert np.isfinite(huge.lower).all()
    assert huge.upper[0] == pytest.approx((high * 100).max(), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_householder_is_exact(size):
    """Against a fine grid (the function is Lipschitz) and never wider."""
    rng = np.random.default_rng(size)
    for _ in range(40):
        network = one_op(Householder(0), (size,), vectors=unit_rows(rng, 1, size))
        centre, radius = rng.normal(size=size), rng.uniform(0.1, 2, size)
        box = Box(centre - radius, centre + radius)
        found = bound(network, box)
        n = {1: 4001, 2: 401, 3: 61}[size]
        axes = [np.linspace(a, b, n) for a, b in zip(box.lower, box.upper, strict=True)]
        y = network.evaluate(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, size))
        step = 2.0 * max(radius) / (n - 1)
        assert (found.lower[0] <= y.min(axis=0)).all()
        assert (y.max(axis=0) <= found.upper[0]).all()
        assert np.abs(found.lower[0] - y.min(axis=0)).max() <= 2 * step
        assert np.abs(found.upper[0] - y.max(axis=0)).max() <= 2 * step


def test_layer_norm_is_bounded_by_the_root_of_n():
    network = one_op(LayerNorm((-1,), 1e-5), (8,))
    found = bound(network, Box(np.full(8, -1e6), np.full(8, 1e6)))
    assert np.abs(found.lower).max() <= np.sqrt(7) * (1 + 1e-12)
    assert found.upper.max() <= np.sqrt(7) * (1 + 1e-12)
    one = bound(one_op(LayerNorm((-1,), 1e-5), (1,)), Box(np.array([-1.0]), np.array([2.0])))
    assert (one.lower == 0).all()
    assert (one.upper == 0).all()


def test_product_of_a_node_with_itself_is_a_square():
    b = Builder("float64")
    x = b.input((1, 2))
    network = b.finish([b.emit(Product(), [x, x])])
    found = bound(network, Box(np.array([-1.0, 2.0]), np.array([2.0, 3.0])))
    assert found.lower[0] == pytest.approx([0, 4])
    assert found.upper[0] == pytest.approx([4, 9])


def test_select_takes_a_decided_branch():
    network = one_op(Select(), (2,), (2,), (2,), (2,))
    x = Box(np.array([1.6, 0.0]), np.array([2.0, 2.0]))
    y = Box(np.array([0.0, 1.0]), np.full(2, 1.5))
    a, b = Box(np.full(2, 5.0), np.full(2, 6.0)), Box(np.full(2, -6.0), np.full(2, -5.0))
    found = bound(network, (x, y, a, b))
    assert found.lower[0].tolist() == [5, -6]
    assert found.upper[0].tolist() == [6, 6]


def test_divisor_that_may_be_zero_is_refused_by_name():
    network = one_op(Quotient(), (2,), (2,))
    box = Box(np.array([1.0, -1.0]), np.array([2.0, 1.0]))
    with pytest.raises(
        InputError, match=r"layer 'it' \(quotient\): the divisor may be zero.*\(1,\)"
    ):
        bound(network, (box, box))


def test_activation_out_of_its_domain_is_refused_by_name():
    network = one_op(Activate(get("log")), (2,))
    with pytest.raises(InputError, match=r"layer 'it' \(activation\)"):
        bound(network, Box(np.array([1.0, -1.0]), np.array([2.0, 1.0])))


def test_overflow_is_unbounded_and_not_silent():
    b = Builder("float64")
    x = b.emit(Activate(get("exp")), [b.input((1, 2))])
    network = b.finish([b.dense(x, np.array([[1.0, -1.0], [1.0, 1.0]]))])
    found = bound(network, Box(np.zeros(2), np.array([1.0, 800.0])))
    assert found.lower[0, 0] == -np.inf
    assert found.upper[0, 1] == np.inf
    huge = one_op(Dense(), (2,), weight=np.array([[1e308, 1e308]]))
    found = bound(huge, Box(np.array([1.0, 1.0]), np.array([1.0, 1.0])))
    assert found.upper[0, 0] == np.inf
