"""Jacobian bounds: no gradient of the box escapes, exact where that is known, Clarke's at kinks."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tangency.models import Builder, InputError, UnsupportedError, from_layers
from tangency.models.activations import Activation, get
from tangency.models.network import precision
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
    jax_backend,
)
from tangency.verify.bounds import Box
from tangency.verify.jacobian import bounds as bounds_module
from tangency.verify.jacobian import jacobian_bounds, local_lipschitz
from tangency.verify.jacobian.registry import RULES
from tangency.verify.lipschitz import lipschitz_bound

METHODS = ("interval", "crown")


def one_op(op, *shapes, constants=(), **params):
    b = Builder("float64")
    values = [b.input((1, *s), name=f"in{i}") for i, s in enumerate(shapes)]
    for i, c in enumerate(constants):
        values.append(b.emit(Constant(), [], {"value": (f"c{i}", c)}))
    b.scope = "it"
    return b.finish([b.emit(op, values, {r: (r, np.asarray(a)) for r, a in params.items()})])


def normal(rng, *shape):
    return rng.normal(size=shape)


def unit(rng, *shape):
    v = rng.normal(size=shape)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def larger(rng):
    b = Builder("float64")
    x, y = b.input((1, 4)), b.input((1, 4), name="other")
    return b.finish([b.emit(Select(), [x, y, x, y])])


def decided(rng):
    """Where x > 5: never on the boxes of the tests."""
    b = Builder("float64")
    x = b.input((1, 4))
    five = b.emit(Constant(), [], {"value": ("five", np.full(4, 50.0))})
    return b.finish([b.emit(Select(), [x, five, five, b.emit(Activate(get("tanh")), [x])])])


SAME = ((1, 1),)
CASES = {
    "dense": lambda r: one_op(Dense(), (2, 3), weight=normal(r, 4, 3), bias=normal(r, 4)),
    "conv": lambda r: one_op(
        Conv((2, 1), ((1, 0), (1, 1)), (1, 2), 2), (4, 6, 5), weight=normal(r, 2, 2, 3, 2)
    ),
    "conv_lead": lambda r: one_op(Conv((2,), SAME, (1,), 1), (2, 2, 6), weight=normal(r, 2, 2, 3)),
    "conv_transpose": lambda r: one_op(
        ConvTranspose((2, 2), ((1, 0), (1, 1)), (1, 1), 2, (1, 0)),
        (2, 2, 3),
        weight=normal(r, 2, 1, 3, 2),
    ),
    "conv_transpose_1d": lambda r: one_op(
        ConvTranspose((3,), ((2, 4),), (2,), 1, (2,)), (2, 4), weight=normal(r, 2, 2, 3)
    ),
    "batch_norm": lambda r: one_op(
        BatchNorm(0), (3, 2), mean=normal(r, 3), var=r.uniform(0.1, 2, 3), weight=normal(r, 3)
    ),
    "scale": lambda r: one_op(Scale(), (3, 1), scale=normal(r, 2, 3, 2)),
    "divide": lambda r: one_op(Scale(True), (3,), scale=r.uniform(1, 3, size=(2, 1))),
    "add": lambda r: one_op(Add(), (2, 3), (3,)),
    "subtract": lambda r: one_op(Subtract(), (3,), (2, 3)),
    "product": lambda r: one_op(Product(), (2, 3), (2, 1)),
    "quotient_positive": lambda r: one_op(Quotient(), (2, 3), (3,)),
    "max": lambda r: one_op(Extremum("max"), (4,), (4,)),
    "min": lambda r: one_op(Extremum("min"), (4,), (1,)),
    "larger": larger,
    "decided": decided,
    "matmul": lambda r: one_op(MatMul(), (2, 2, 3), (3, 2)),
    "concat": lambda r: one_op(Concat(1), (2, 3), (2, 2)),
    "concat_constant": lambda r: one_op(Concat(0), (2,), constants=[normal(r, 3)]),
    "gather": lambda r: one_op(Gather((0, 2, 2, 1), 1), (2, 3)),
    "pad": lambda r: one_op(Pad(((1, 0), (0, 2)), 1.5), (2, 3)),
    "slice": lambda r: one_op(Slice((0, 1), (2, 5), (1, 2)), (2, 5)),
    "transpose": lambda r: one_op(Transpose((1, 0, 2)), (2, 3, 2)),
    "reshape": lambda r: one_op(Reshape((6,)), (2, 3)),
    "broadcast": lambda r: one_op(Broadcast((4, 2, 3)), (2, 1)),
    "mean": lambda r: one_op(Reduce("mean", (0, 2)), (2, 3, 4)),
    "sum": lambda r: one_op(Reduce("sum", (-1,)), (2, 3)),
    "average_pool": lambda r: one_op(AveragePool((3,), (2,), SAME, False), (2, 7)),
    "average_pool_2d": lambda r: one_op(AveragePool((2, 2), (1, 2), ((1, 1), (0, 1))), (1, 3, 4)),
    "nearest": lambda r: one_op(Upsample((5, 7)), (2, 3)),
    "linear": lambda r: one_op(Upsample((4, 5), "linear"), (2, 2, 3)),
    "corners": lambda r: one_op(Upsample((7,), "linear", True), (3,)),
    "max_pool": lambda r: one_op(MaxPool((2, 2), (1, 1), ((0, 1), (1, 0))), (1, 3, 3)),
    "max_over": lambda r: one_op(ReduceExtremum("max", (0,)), (3, 2)),
    "min_over": lambda r: one_op(ReduceExtremum("min", (0, 2)), (2, 2, 2)),
    "group_sort": lambda r: one_op(GroupSort(3, 0, True), (6, 2)),
    "max_min": lambda r: one_op(GroupSort(2, 1, False), (2, 4)),
    "householder": lambda r: one_op(Householder(0), (6, 2), vectors=unit(r, 2, 3)),
    "softmax": lambda r: one_op(Softmax(0), (4, 2)),
    "log_sum_exp": lambda r: one_op(LogSumExp((0, 2)), (2, 3, 2)),
    "layer_norm": lambda r: one_op(LayerNorm((-1,), 1e-2), (2, 4), weight=normal(r, 4)),
    "rms_norm": lambda r: one_op(LayerNorm((-1,), 1e-2, False), (4,)),
    "prelu": lambda r: one_op(Prelu(0), (3, 2), slope=normal(r, 3)),
} | {
    name: (lambda r, name=name: one_op(Activate(get(name)), (5,)))
    for name in ("relu", "tanh", "sigmoid", "gelu", "silu", "sin", "elu", "abs", "hardswish")
}


def boxes_of(rng, network, name, eps, samples=2):
    centres = [rng.normal(size=(samples, *s)) * 1.5 for s in network.input_shapes]
    if "positive" in name:
        centres = [np.abs(c) + 2.0 for c in centres]
    return [Box.around(c, eps) for c in centres]


def gradients(network, points, rows):
    """``rows @ J`` at points, a list by input, ``(N, S, *shape)``: JAX's, in float64."""
    import jax

    size = network.output_shape

    def value(xs, row):
        y = network.structure.apply(jax_backend(), dict(network.weights), [x[None] for x in xs])
        return (y[0] * row.reshape(size)).sum()

    with precision("float64"):
        each = jax.vmap(jax.vmap(jax.grad(value), (None, 0)), (0, None))
        return [np.asarray(g) for g in jax.jit(each)([np.asarray(p) for p in points], rows)]


def assert_inside(found, network, boxes, rows, rng, count=24):
    """Secants along the axes, between points of the box, lie within the bounds.

    By the mean value theorem each is an average of elements of Clarke's Jacobian on the way.
    """
    samples = max(b.lower.shape[0] for b in boxes)
    points = []
    for b in boxes:
        part = rng.random((count, *b.lower.shape))
        part[: count // 4] = part[: count // 4].round()  # corners too
        points.append(np.clip(b.lower + part * (b.upper - b.lower), b.lower, b.upper))
    for k, (low, high) in enumerate(found.inputs):
        n, shape = low[0, 0].size, points[k].shape[2:]
        here = points[k].reshape(count, samples, n)
        ends = [
            np.broadcast_to(e.reshape(-1, n), (samples, n))
            for e in (boxes[k].lower, boxes[k].upper)
        ]
        step = 10.0 ** rng.uniform(-4, 0, (count, 1, 1)) * (ends[1] - ends[0])
        far = np.where(here - ends[0] > ends[1] - here, ends[0], ends[1])
        there = np.where(here - step >= ends[0], here - step, far)
        there = np.where(here + step <= ends[1], here + step, there)
        moved = np.repeat(here[:, :, None], n, axis=2)
        moved[..., range(n), range(n)] = there
        h = (there - here)[..., None]

        def values(x, k=k, shape=shape, n=n):
            given_ = [np.repeat(p[:, :, None], x.shape[2], axis=2) for p in points]
            given_[k] = x.reshape(*x.shape[:3], *shape)
            flat = [v.reshape(-1, *v.shape[3:]) for v in given_]
            y = network.evaluate(*(np.ascontiguousarray(v) for v in flat))
            return y.reshape(*x.shape[:3], -1) @ rows.T

        start, end = values(here[:, :, None]), values(moved)  # (count, samples, n, S)
        secants = np.moveaxis((end - start) / h, 3, 2)
        slack = np.moveaxis(1e-13 * (1.0 + np.abs(end) + np.abs(start)) / np.abs(h), 3, 2)
        low, high = low.reshape(*low.shape[:2], n), high.reshape(*high.shape[:2], n)
        assert (low <= secants + slack).all()
        assert (secants - slack <= high).all()


def test_every_op_has_a_rule():
    kinds = {cls for cls in OPS.values() if cls not in (Input, Constant)}
    assert kinds <= set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_no_gradient_escapes(name):
    rng = np.random.default_rng(0)
    network = CASES[name](rng)
    size = int(np.prod(network.output_shape))
    rows = rng.normal(size=(2, size))
    for eps in (0.02, 0.4):
        boxes = boxes_of(rng, network, name, eps)
        given_ = boxes[0] if len(boxes) == 1 else boxes
        found = [jacobian_bounds(network, given_, spec=rows, method=m) for m in METHODS]
        for f in found:
            assert f.certified
            assert_inside(f, network, boxes, rows, rng)
        for (a, b), (c, d) in zip(found[0].inputs, found[1].inputs, strict=True):
            assert (a <= c).all()  # the linear bounds are never looser
            assert (d <= b).all()


@pytest.mark.parametrize("name", CASES)
def test_points_are_tight(name):
    rng = np.random.default_rng(1)
    network = CASES[name](rng)
    boxes = boxes_of(rng, network, name, 0.0)
    found = jacobian_bounds(network, boxes if len(boxes) > 1 else boxes[0])
    assert all((high - low).max() < 1e-9 for low, high in found.inputs)


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_network_is_its_product_in_rational_arithmetic(method):
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=s) * 10.0 ** rng.integers(-6, 6) for s in ((7, 5), (7, 7), (3, 7))]
    network = from_layers(weights, "identity")
    exact = [[Fraction(int(i == j)) for j in range(5)] for i in range(5)]
    for w in weights:
        exact = [
            [sum(Fraction(v) * exact[k][j] for k, v in enumerate(row)) for j in range(5)]
            for row in w.tolist()
        ]
    found = jacobian_bounds(network, Box.around(rng.normal(size=5), 1.0), method=method)
    for i, j in product(range(3), range(5)):
        low, high = found.lower[0, i, j], found.upper[0, i, j]
        assert Fraction(low) <= exact[i][j] <= Fraction(high)
        assert high - low <= 1e-12 * max(abs(low), abs(high), np.abs(found.lower).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_relu_network_at_points_in_rational_arithmetic(method):
    """Weights of twelve orders of magnitude: cancellation that float64 cannot see through."""
    rng = np.random.default_rng(10)
    sizes = ((6, 4), (6, 6), (6, 6), (2, 6))
    weights = [rng.normal(size=s) * 10.0 ** rng.integers(-6, 7, size=s) for s in sizes]
    network = from_layers(weights, "relu")
    x = rng.normal(size=(3, 4))
    found = jacobian_bounds(network, Box.around(x, 0.0), method=method)
    for n in range(3):
        value = [Fraction(v) for v in x[n].tolist()]
        jacobian = [[Fraction(int(i == j)) for j in range(4)] for i in range(4)]
        for k, w in enumerate(weights):
            rows = [[Fraction(v) for v in row] for row in w.tolist()]
            value = [sum(a * v for a, v in zip(row, value, strict=True)) for row in rows]
            columns = list(zip(*jacobian, strict=True))
            jacobian = [
                [sum(a * b for a, b in zip(r, c, strict=True)) for c in columns] for r in rows
            ]
            if k < 3:
                jacobian = [
                    row if v > 0 else [Fraction(0)] * 4
                    for row, v in zip(jacobian, value, strict=True)
                ]
                value = [max(v, Fraction(0)) for v in value]
        for i, j in product(range(2), range(4)):
            assert (
                Fraction(found.lower[n, i, j]) <= jacobian[i][j] <= Fraction(found.upper[n, i, j])
            )


@pytest.mark.parametrize("method", METHODS)
def test_one_hidden_layer_is_exact(method):
    """All patterns of the neurons that change sign, enumerated."""
    rng = np.random.default_rng(3)
    w, b, v = rng.normal(size=(7, 4)), rng.normal(size=7), rng.normal(size=(2, 7))
    network = from_layers([(w, b), v], "relu")
    x = rng.normal(size=4)
    middle, reach = w @ x + b, 0.3 * np.abs(w).sum(axis=1)
    open_ = np.flatnonzero(np.abs(middle) < reach)
    assert 2 <= len(open_) <= 6
    mask = np.repeat((middle > 0).astype(float)[None], 2 ** len(open_), axis=0)
    mask[:, open_] = np.array(list(product((0.0, 1.0), repeat=len(open_))))
    all_ = np.einsum("sk,pk,kj->psj", v, mask, w)
    found = jacobian_bounds(network, Box.around(x, 0.3), method=method)
    np.testing.assert_allclose(found.lower[0], all_.min(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.upper[0], all_.max(axis=0), atol=1e-12)


def test_linear_bounds_of_a_deep_network_are_tighter():
    rng = np.random.default_rng(4)
    for name in ("relu", "tanh"):
        layers = [rng.normal(size=s) / np.sqrt(s[1]) * 1.4 for s in ((20, 8), (20, 20), (2, 20))]
        network = from_layers(layers, name)
        box = Box.around(rng.normal(size=(3, 8)), 0.05)
        widths = []
        for method in METHODS:
            found = jacobian_bounds(network, box, method=method)
            assert_inside(found, network, [box], np.eye(2), rng)
            widths.append((found.upper - found.lower).mean())
        assert widths[1] < 0.3 * widths[0]


@pytest.mark.parametrize("method", METHODS)
def test_kinks_have_clarkes_jacobian(method):
    """At a point, at an end of the box, and where the network itself has no kink."""
    kink = from_layers([np.ones((1, 1)), np.ones((1, 1))], "relu")
    for low, high in ((0.0, 0.0), (0.0, 1.0), (-1.0, 0.0)):
        found = jacobian_bounds(kink, Box(np.array([low]), np.array([high])), method=method)
        assert found.lower[0, 0, 0] == 0.0
        assert 1.0 <= found.upper[0, 0, 0] < 1.0 + 1e-14
    straight = from_layers([np.array([[1.0], [-1.0]]), np.array([[1.0, -1.0]])], "relu")
    found = jacobian_bounds(straight, Box.around(np.zeros(1), 0.0), method=method)
    assert found.lower[0, 0, 0] <= 1.0 <= found.upper[0, 0, 0]
    tie = one_op(Extremum("max"), (1,), (1,))
    point = Box.around(np.zeros(1), 0.0)
    for low, high in jacobian_bounds(tie, (point, point), method=method).inputs:
        assert low.item() == 0.0
        assert 1.0 <= high.item() < 1.0 + 1e-14


def test_kinks_that_a_record_does_not_list():
    """A user's record of two fields: relu under another name, bounded by the linear method too."""
    record = Activation("bent", lambda nx, x: nx.where(x > 0.0, x, 0.25 * x))
    network = one_op(Activate(record), (1,))
    for low, high, least in ((0.0, 1.0, 0.25), (-1.0, 0.0, 0.25), (0.5, 1.0, 1.0)):
        box = Box(np.array([low]), np.array([high]))
        for method in METHODS:
            found = jacobian_bounds(network, box, method=method)
            assert abs(found.lower.item() - least) < 1e-9
            assert (found.upper.item() > 1.0 - 1e-9) == (high > 0.0 or low == -1.0)


@pytest.mark.parametrize("method", METHODS)
def test_jumps_are_unbounded(method):
    step = one_op(Activate(get("floor")), (1,))
    for low, high in ((0.5, 1.5), (0.5, 1.0), (1.0, 1.0)):
        found = jacobian_bounds(step, Box(np.array([low]), np.array([high])), method=method)
        assert (found.lower.item(), found.upper.item()) == (0.0, np.inf)
    found = jacobian_bounds(step, Box(np.array([0.25]), np.array([0.75])), method=method)
    assert (found.lower.item(), found.upper.item()) == (0.0, 0.0)


def random_graph(rng, steps):
    """A DAG of values of one shape, of ops of all families."""
    b = Builder("float64")
    key = iter(range(1000))

    def w(*shape):
        return f"w{next(key)}", rng.normal(size=shape) / np.sqrt(shape[-1])

    names = ("relu", "tanh", "sigmoid", "silu", "sin", "leaky_relu", "abs")
    layers = (
        lambda v, _: b.emit(Dense(), [v], {"weight": w(4, 4), "bias": w(4)}),
        lambda v, _: b.emit(Conv((1,), SAME, (1,), 1), [v], {"weight": w(2, 2, 3)}),
        lambda v, _: b.emit(Activate(get(names[rng.integers(len(names))])), [v]),
        lambda v, _: b.emit(GroupSort(2, 1, bool(rng.integers(2))), [v]),
        lambda v, _: b.emit(Softmax(int(rng.integers(2))), [v]),
        lambda v, _: b.emit(LayerNorm((-1,), 0.3), [v], {"weight": w(4)}),
        lambda v, _: b.emit(MaxPool((3,), (1,), SAME, (1,)), [v]),
        lambda v, _: b.emit(Prelu(0), [v], {"slope": w(2)}),
        lambda v, u: b.emit(Add(), [v, u]),
        lambda v, u: b.emit(Product(), [v, u]),
        lambda v, u: b.emit(Extremum(("max", "min")[rng.integers(2)]), [v, u]),
        lambda v, u: b.emit(Subtract(), [v, u]),
    )
    values = [b.input((1, 2, 4))]
    for _ in range(steps):
        u = values[rng.integers(len(values))]
        values.append(layers[rng.integers(len(layers))](values[-1], u))
    return b.finish([values[-1]])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(2, 6), eps=st.sampled_from([0.01, 0.2]))
def test_random_graphs(seed, steps, eps):
    rng = np.random.default_rng(seed)
    network = random_graph(rng, steps)
    box = Box.around(rng.normal(size=(2, 2, 4)), eps)
    rows = rng.normal(size=(2, 8))
    for method in METHODS:
        found = jacobian_bounds(network, box, spec=rows, method=method)
        assert_inside(found, network, [box], rows, rng)


def test_outputs_specs_and_batches(monkeypatch):
    rng = np.random.default_rng(5)
    network = from_layers([rng.normal(size=(6, 3)), rng.normal(size=(4, 6))], "tanh")
    box = Box.around(rng.normal(size=(5, 3)), 0.1)
    whole = jacobian_bounds(network, box)
    assert whole.lower.shape == (5, 4, 3)
    assert whole.seconds > 0
    picked = jacobian_bounds(network, box, outputs=[2, 0])
    np.testing.assert_allclose(picked.lower, whole.lower[:, [2, 0]])
    each = np.stack([np.eye(4)[[i % 4]] for i in range(5)])  # one output of each sample
    single = jacobian_bounds(network, box, spec=each)
    np.testing.assert_allclose(single.upper[:, 0], whole.upper[range(5), [0, 1, 2, 3, 0]])
    linear = jacobian_bounds(network, box, spec=each, method="crown")
    assert (linear.lower >= single.lower).all()
    monkeypatch.setattr(bounds_module, "_BUDGET", 50)
    np.testing.assert_allclose(jacobian_bounds(network, box).upper, whole.upper, atol=1e-12)


def test_what_is_refused():
    rng = np.random.default_rng(6)
    network = from_layers([rng.normal(size=(4, 3))])
    box = Box.around(np.zeros(3), 1.0)
    with pytest.raises(InputError, match="'forward'"):
        jacobian_bounds(network, box, method="forward")
    with pytest.raises(InputError, match=r"outputs 0\.\.3"):
        jacobian_bounds(network, box, outputs=[4])
    with pytest.raises(InputError, match="list of indices"):
        jacobian_bounds(network, box, outputs=[])
    with pytest.raises(InputError, match="not both"):
        jacobian_bounds(network, box, outputs=[0], spec=np.eye(4))
    with pytest.raises(InputError, match="norm '3'"):
        local_lipschitz(network, box, "3")
    b = Builder("float64")
    x = b.input((1, 2))
    zero = b.emit(Constant(), [], {"value": ("zero", np.zeros(2))})
    other = b.negate(x)
    b.scope = "jump"
    jump = b.finish([b.emit(Select(), [x, zero, x, other])])
    for method in METHODS:
        with pytest.raises(UnsupportedError, match=r"'jump'.*no Jacobian"):
            jacobian_bounds(jump, Box.around(np.zeros(2), 1.0), method=method)
        beside = jacobian_bounds(jump, Box.around(np.full(2, 3.0), 1.0), method=method)
        np.testing.assert_allclose(beside.lower[0], np.eye(2))


# --- Lipschitz constants ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
def test_lipschitz_at_a_point_is_the_operator_norm(norm):
    rng = np.random.default_rng(7)
    network = from_layers([rng.normal(size=(6, 4)), rng.normal(size=(3, 6))], "tanh")
    box = Box.around(rng.normal(size=(2, 4)), 0.0)
    found = local_lipschitz(network, box, norm)
    jacobian = gradients(network, [box.lower], np.eye(3))[0]
    order = {"inf": np.inf, "1": 1, "2": 2}[norm]
    exact = np.linalg.norm(jacobian, order, axis=(1, 2))
    rows = np.linalg.norm(jacobian, {"inf": 1, "1": np.inf, "2": 2}[norm], axis=2)
    for bound_, value in ((found.upper, exact), (found.rows_upper, rows)):
        np.testing.assert_allclose(bound_, value, rtol=1e-9)
    for bound_, value in ((found.lower, exact), (found.rows_lower, rows)):
        np.testing.assert_allclose(bound_, value, rtol=1e-9)


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
def test_lipschitz_bounds_stand_on_their_sides_of_differences(norm):
    rng = np.random.default_rng(8)
    order = {"inf": np.inf, "1": 1, "2": 2}[norm]
    network = from_layers([rng.normal(size=s) / 2 for s in ((10, 3), (10, 10), (2, 10))], "relu")
    box = Box.around(rng.normal(size=(2, 3)), 0.2)
    found = local_lipschitz(network, box, norm)
    assert (found.lower <= found.upper).all()
    assert (found.rows_lower <= found.rows_upper).all()
    assert (found.rows_upper <= found.upper[:, None] * (1 + 1e-12)).all() or norm == "1"
    x, y = (rng.uniform(box.lower, box.upper, size=(400, 2, 3)) for _ in range(2))
    fx, fy = (network.evaluate(v.reshape(-1, 3)).reshape(400, 2, 2) for v in (x, y))
    slopes = np.linalg.norm(fx - fy, order, axis=2) / np.linalg.norm(x - y, order, axis=2)
    assert (slopes.max(axis=0) <= found.upper).all()
    assert (0.5 * found.upper <= found.lower).all()  # neither side is empty words
    assert (box.lower <= found.points).all()
    assert (found.points <= box.upper).all()
    at = gradients(network, [found.points], np.eye(2))[0]
    np.testing.assert_allclose(np.linalg.norm(at, order, axis=(1, 2)), found.lower, rtol=1e-9)


def test_margins_and_the_lipschitz_engine():
    rng = np.random.default_rng(9)
    network = from_layers([rng.normal(size=s) / 2 for s in ((12, 4), (3, 12))], "relu")
    x = rng.normal(size=4)
    spec = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    margins = local_lipschitz(network, Box.around(x, 0.1), spec=spec)
    assert margins.rows_upper.shape == (1, 2)
    assert (margins.rows_upper <= 2 * local_lipschitz(network, Box.around(x, 0.1)).upper).all()
    here, engine = (
        local_lipschitz(network, Box.around(x, 0.1), "2"),
        lipschitz_bound(network, box=Box.around(x, 0.1)),
    )
    assert here.lower.item() <= engine.upper * (1 + 1e-9)
    assert engine.lower <= here.upper.item() * (1 + 1e-9)
