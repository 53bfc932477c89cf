"""A lowered network computes the same, of simple ops alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models import Builder, InputError, UnsupportedError, from_torch
from tangency.models.activations import get
from tangency.models.activations.lines import default_slopes, proved_intercepts
from tangency.models.namespace import numpy_namespace
from tangency.models.ops import (
    Activate,
    Add,
    Concat,
    Constant,
    Dense,
    Extremum,
    GroupSort,
    Householder,
    Input,
    LayerNorm,
    LogSumExp,
    MatMul,
    MaxPool,
    Product,
    Quotient,
    ReduceExtremum,
    Select,
    Slice,
    Softmax,
    numpy_backend,
)
from tangency.verify.rigorous.lowering import SIMPLE, lowered
from tangency.verify.rigorous.lowering_normalised import inverse_root

rng = np.random.default_rng(0)


def network(op, *shapes, constants=(), dtype="float64", **params):
    """One op on inputs of these shapes, constants after them, and a nonlinear layer behind it."""
    b = Builder(dtype)
    values = [b.input((1, *s), name=f"in{i}") for i, s in enumerate(shapes)]
    for i, c in enumerate(constants):
        array = np.asarray(c, dtype)
        values.append(b.emit(Constant(), [], {"value": (f"c{i}", array)}))
    b.scope = "it"
    held = {role: (role, np.asarray(a).astype(dtype)) for role, a in params.items()}
    value = b.emit(op, values, held)
    b.scope = "behind"
    return b.finish([value, b.activation(value, get("tanh"))])


def rows(*shape):
    v = rng.normal(size=shape)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


PADS = ((1, 1), (1, 1))
CASES = {
    "max": lambda: network(Extremum("max"), (2, 3), (3,)),
    "min": lambda: network(Extremum("min"), (3,), (2, 3)),
    "max_constant": lambda: network(Extremum("max"), (4,), constants=[[0.1, 0.2, -0.3, 0.0]]),
    "reduce_max": lambda: network(ReduceExtremum("max", (0, -1)), (3, 2, 5)),
    "reduce_min": lambda: network(ReduceExtremum("min", (1,)), (3, 7)),
    "reduce_one": lambda: network(ReduceExtremum("min", (1,)), (3, 1, 2)),
    "reduce_nothing": lambda: network(ReduceExtremum("max", ()), (3, 2)),
    "pool": lambda: network(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), (2, 6, 4)),
    "pool_padded": lambda: network(MaxPool((3, 3), (2, 1), PADS), (2, 5, 5)),
    "pool_dilated": lambda: network(MaxPool((2, 3), (1, 2), PADS, (2, 2)), (1, 6, 7)),
    "pool_1d": lambda: network(MaxPool((3,), (1,), ((1, 1),), (1,)), (2, 5)),
    "pool_of_one": lambda: network(MaxPool((1, 1), (1, 1), ((0, 0), (0, 0))), (2, 2, 2)),
    "maxmin": lambda: network(GroupSort(2, 0, True), (6, 2)),
    "sort": lambda: network(GroupSort(5, -1, False), (2, 10)),
    "sort_middle": lambda: network(GroupSort(3, 1, True), (2, 6, 2)),
    "sort_of_one": lambda: network(GroupSort(1), (4,)),
    "householder": lambda: network(Householder(0), (6, 3), vectors=rows(3, 2)),
    "householder_last": lambda: network(Householder(-1), (3, 6), vectors=rows(2, 3)),
    "softmax": lambda: network(Softmax(0), (4, 3)),
    "softmax_of_two": lambda: network(Softmax(-1), (3, 2)),
    "softmax_of_one": lambda: network(Softmax(-1), (3, 1)),
    "log_sum_exp": lambda: network(LogSumExp((0, 2)), (3, 2, 3)),
    "layer_norm": lambda: network(LayerNorm((-1,)), (3, 5), weight=rng.normal(size=5)),
    "layer_norm_2": lambda: network(
        LayerNorm((0, 2), 1e-3), (2, 3, 4), weight=rows(2, 4), bias=rows(2, 4)
    ),
    "rms_norm": lambda: network(LayerNorm((-1,), 0.1, center=False), (3, 5)),
    "rms_norm_0": lambda: network(LayerNorm((-1,), 0.0, center=False), (3, 5)),
    "quotient": lambda: network(Quotient(), (2, 3), (3,)),
    "quotient_by": lambda: network(Quotient(), (2, 3), constants=[[2.0, -3.0, 0.5]]),
    "product_constant": lambda: network(Product(), (2, 3), constants=[[2.0, -3.0, 0.5]]),
    "matmul_right": lambda: network(MatMul(), (4, 2, 3), constants=[rows(3, 2)]),
    "select": lambda: network(Select(), (3,), (3,), (3,), (2, 3)),
}


def inputs_of(net, count=9):
    return [1.5 * rng.normal(size=(count, *s)).astype(net.dtype) for s in net.input_shapes]


def check(net, low, tolerance=1e-12):
    """Equal outputs, simple ops alone, and heirs that hold what origin says."""
    xs = inputs_of(net)
    wide, narrow = (n.astype("float64") for n in (net, low.network))
    xs = [x.astype("float64") for x in xs]
    old = wide.structure.values(numpy_backend(), wide.weights, xs)
    new = narrow.structure.values(numpy_backend(), narrow.weights, xs)
    nodes, olds = low.network.structure.nodes, net.structure.nodes
    for node in nodes:
        assert node.op.affine or isinstance(node.op, (Input, *SIMPLE)), node
    assert sorted(low.origin.values()) == list(range(len(olds)))
    for i, j in low.origin.items():
        assert nodes[i].name == olds[j].name
        assert nodes[i].shape == olds[j].shape
        size = tolerance * (1.0 + np.abs(old[j]).max())
        np.testing.assert_allclose(new[i], old[j], rtol=0, atol=size)
    assert low.network.input_shapes == net.input_shapes
    assert low.network.output_shapes == net.output_shapes
    assert low.network.dtype == net.dtype


@pytest.mark.parametrize("case", CASES)
def test_an_op_is_equal_to_its_parts(case):
    net = CASES[case]()
    low = lowered(net)
    check(net, low)
    again = lowered(net)
    assert again.network == low.network
    assert again.origin == low.origin


def test_every_one_op_network_of_torch(one_op_modules):
    torch = pytest.importorskip("torch")
    for module, shape in one_op_modules.values():
        net = from_torch(module, torch.randn(1, *shape))
        check(net, lowered(net), tolerance=1e-10)


def test_a_simple_network_comes_back_as_it_is():
    b = Builder("float32")
    x = b.input((1, 3))
    y = b.activation(b.dense(x, np.eye(3, dtype="float32")), get("relu"))
    net = b.finish([b.elementwise(Product(), x, y)])
    low = lowered(net)
    assert low.network is net
    assert low.origin == {i: i for i in range(len(net.structure.nodes))}


def test_a_square_and_constant_factors_are_affine_or_of_one_variable():
    b = Builder("float64")
    x = b.input((1, 3, 3))
    matrix = b.emit(Constant(), [], {"value": ("m", rows(2, 3))})
    left = b.emit(MatMul(), [matrix, x])
    square = b.emit(Product(), [left, left])
    half = b.emit(Constant(), [], {"value": ("h", np.asarray(0.5))})
    net = b.finish([b.emit(Quotient(), [half, b.emit(Add(), [square, half])])])
    low = lowered(net)
    check(net, low)
    kinds = [type(n.op) for n in low.network.structure.nodes]
    assert MatMul not in kinds
    assert Product not in kinds
    assert Dense in kinds
    made = [n.op.activation.name for n in low.network.structure.nodes if type(n.op) is Activate]
    assert made == ["square", "reciprocal"]


def test_the_gain_of_a_layer_norm_has_tight_lines():
    """Close to the pole at -eps, too: the offsets are those of dense samples to five digits."""
    record = inverse_root(1e-5)
    low = 10.0 ** rng.uniform(-7, 1, 200)
    high = low * (1.0 + 10.0 ** rng.uniform(-3, 2, 200))
    slopes = default_slopes(record, numpy_namespace, low, high)
    b_l, b_u = proved_intercepts(record, low, high, *slopes)
    x = np.clip(np.geomspace(low, high, 2001), low, high)
    y = record(x)
    above, below = (y - slopes[1] * x).max(axis=0), (y - slopes[0] * x).min(axis=0)
    size = 1e-5 * (y[0] - y[-1]) + 1e-12 * y[0]
    assert (b_u >= above - 1e-12 * y[0]).all()
    assert (b_l <= below + 1e-12 * y[0]).all()
    assert (b_u <= above + size).all()
    assert (b_l >= below - size).all()


def test_windows_without_padding_are_slices():
    low = lowered(CASES["pool"]())
    kinds = [n.op.kind for n in low.network.structure.nodes]
    assert "gather" not in kinds
    assert sum(isinstance(n.op, Slice) for n in low.network.structure.nodes) == 4


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8])
def test_the_sorting_network_sorts_every_zero_and_one(size):
    """By the zero-one principle a network that sorts these sorts everything."""
    net = network(GroupSort(size, 0, False), (size,))
    words = np.array(list(itertools.product([0.0, 1.0], repeat=size)))
    np.testing.assert_array_equal(lowered(net).network.evaluate(words)[0], np.sort(words, axis=1))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_chains(data):
    """Several ops in a row, names in use twice, one value used by many."""
    b = Builder("float64")
    x = b.input((1, 4, 4))
    values = [x]
    for step in range(data.draw(st.integers(1, 4))):
        b.scope = data.draw(st.sampled_from([f"layer{step}", "it", "it/activation"]))
        x = data.draw(st.sampled_from(values))
        op = data.draw(
            st.sampled_from(
                [
                    Softmax(-1),
                    GroupSort(2, 1),
                    LayerNorm((-1,), 0.1),
                    Extremum("max"),
                    Product(),
                    Concat(0),
                    MaxPool((2, 2), (1, 1), ((0, 1), (1, 0))),
                ]
            )
        )
        two = isinstance(op, Extremum | Product | Concat)
        made = b.emit(op, [x, data.draw(st.sampled_from(values))] if two else [x])
        if isinstance(op, Concat):
            made = b.emit(MaxPool((5,), (1,), ((0, 0),), (1,)), [b.transpose(made, (0, 2, 1))])
        values.append(made)
    net = b.finish([values[-1], x])
    check(net, lowered(net), tolerance=1e-9)


def test_what_cannot_be_lowered_names_its_layer():
    with pytest.raises(InputError, match=r"it.*eps"):
        lowered(network(LayerNorm((-1,), -1.0), (3,)))
    with pytest.raises(UnsupportedError, match=r"it.*padding alone"):
        lowered(network(MaxPool((2, 2), (1, 1), ((2, 2), (0, 0)), (3, 1)), (1, 1, 3)))
    with pytest.raises(InputError, match=r"it.*zero"):
        lowered(network(Quotient(), (2,), constants=[[1.0, 0.0]]))
