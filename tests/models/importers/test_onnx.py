"""Whole ONNX models: real networks, composites, the batch axis, and what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tangency.models import InputError, TangencyError, UnsupportedError, from_onnx  # noqa: E402
from tangency.models.ops import Activate, GroupSort, LayerNorm, Reshape, Softmax  # noqa: E402

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
RNG = np.random.default_rng(3)
FLOAT = TensorProto.FLOAT


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], **attributes)


def model(nodes, shape, constants=None, *, opset=18, kind=FLOAT, outputs=("y",)):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    held = {
        name: np.asarray(a, dtype) if np.asarray(a).dtype.kind == "f" else np.asarray(a)
        for name, a in (constants or {}).items()
    }
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, ["any"]) for name in outputs],
        [numpy_helper.from_array(a, name) for name, a in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def mlp(shape=("batch", 4)):
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="act"),
        helper.make_node("MatMul", ["r", "w1"], ["m"], name="second"),
        helper.make_node("Add", ["m", "b1"], ["y"], name="bias"),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.standard_normal((5, 4)),
        "b0": rng.standard_normal(5),
        "w1": rng.standard_normal((5, 3)),
        "b1": rng.standard_normal(3),
    }
    return model(nodes, list(shape), constants)


def ops(network):
    return [type(n.op) for n in network.structure.nodes]


def activations_of(network):
    nodes = network.structure.nodes
    return [n.op.activation.name for n in nodes if isinstance(n.op, Activate)]


# --- what an import gives -------------------------------------------------------------------


def test_names_are_those_of_the_model():
    network = from_onnx(mlp())
    assert [n.name for n in network.structure.nodes] == ["x", "first", "act", "second"]
    assert list(network.weights) == ["w0", "b0", "w1", "b1"]
    assert network.size == 5 * 4 + 5 + 5 * 3 + 3
    assert network.structure.nodes[3].op.kind == "dense"


def test_path_bytes_and_model_give_the_same(tmp_path):
    proto = mlp()
    plain, packed = tmp_path / "a.onnx", tmp_path / "a.onnx.gz"
    plain.write_bytes(proto.SerializeToString())
    packed.write_bytes(gzip.compress(proto.SerializeToString()))
    networks = [from_onnx(s) for s in (proto, plain, str(packed), plain.read_bytes())]
    assert len({n.hash for n in networks}) == 1
    assert networks[1].source == str(plain)


def test_jax_and_numpy_agree_with_the_reference():
    from onnx.reference import ReferenceEvaluator

    x = RNG.standard_normal((6, 4)).astype(np.float32)
    network = from_onnx(mlp())
    (want,) = ReferenceEvaluator(mlp()).run(None, {"x": x})
    np.testing.assert_allclose(network.evaluate(x), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(network(x)), want, rtol=1e-5, atol=1e-6)


def test_external_data_is_read_beside_the_file(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(mlp(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert from_onnx(path).hash == from_onnx(mlp()).hash
    with pytest.raises(InputError, match="kept in another file"):
        from_onnx(path.read_bytes())
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InputError, match="external data of initializer"):
        from_onnx(path)


def test_functions_of_the_model_are_inlined():
    inner = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], "b")], [helper.make_opsetid("", 18)]
    )
    nodes = [helper.make_node("Twice", ["x"], ["t"], domain="own"), node("Relu", ["t"], "y")]
    graph = model(nodes, ["n", 3]).graph
    proto = helper.make_model(
        graph,
        functions=[inner],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("own", 1)],
        ir_version=8,
    )
    network = from_onnx(proto)
    np.testing.assert_array_equal(network.evaluate(np.ones((1, 3), np.float32)), 2)


def test_several_inputs_and_outputs():
    graph = helper.make_graph(
        [node("Mul", ["a", "b"], "p"), node("Sub", ["a", "b"], "q")],
        "two",
        [helper.make_tensor_value_info(n, FLOAT, ["n", 3]) for n in "ab"],
        [helper.make_tensor_value_info(n, FLOAT, ["n", 3]) for n in "pq"],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    network = from_onnx(proto)
    assert network.input_shapes == ((3,), (3,))
    p, q = network.evaluate(np.full((2, 3), 5, np.float32), np.full((2, 3), 2, np.float32))
    assert p[0, 0] == 10
    assert q[0, 0] == 3


# --- real networks ----------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")
def test_acas_xu():
    paths = sorted((DATA / "acasxu" / "onnx").glob("*.onnx.gz"))
    assert len(paths) == 45
    for path in paths:
        network = from_onnx(path)
        assert network.output_shape == (5,)
        assert network.size == 13310
        assert activations_of(network) == ["relu"] * 6


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("mnist_fc/onnx/mnist-net_256x2.onnx.gz", 784, ["relu"] * 2),
        ("mnist_fc/onnx/mnist-net_256x4.onnx.gz", 784, ["relu"] * 4),
        ("sigmoid_6x200/onnx/ffnnSIGMOID__Point_6x200.onnx.gz", 784, ["sigmoid"] * 6),
    ],
)
def test_mnist(name, size, layers):
    network = from_onnx(DATA / name)
    assert np.prod(network.input_shape) == size
    assert network.output_shape == (10,)
    assert activations_of(network) == layers


# --- composites -------------------------------------------------------------------------------

ERF = [
    node("Div", ["x", "root2"], "a"),
    node("Erf", ["a"], "b"),
    node("Add", ["b", "one"], "c"),
]
COMPOSITES = {
    "gelu": [*ERF, node("Mul", ["x", "half"], "d"), node("Mul", ["d", "c"], "y")],
    "gelu ": [*ERF, node("Mul", ["x", "c"], "d"), node("Mul", ["d", "half"], "y")],
    "gelu_tanh": [
        node("Pow", ["x", "three"], "a"),
        node("Mul", ["a", "k"], "b"),
        node("Add", ["x", "b"], "c"),
        node("Mul", ["c", "root"], "d"),
        node("Tanh", ["d"], "e"),
        node("Add", ["e", "one"], "f"),
        node("Mul", ["x", "f"], "g"),
        node("Mul", ["half", "g"], "y"),
    ],
    "silu": [node("Sigmoid", ["x"], "a"), node("Mul", ["x", "a"], "y")],
    "silu ": [
        node("Neg", ["x"], "a"),
        node("Exp", ["a"], "b"),
        node("Add", ["b", "one"], "c"),
        node("Div", ["x", "c"], "y"),
    ],
    "quick_gelu": [
        node("Mul", ["x", "quick"], "a"),
        node("Sigmoid", ["a"], "b"),
        node("Mul", ["b", "x"], "y"),
    ],
    "mish": [
        node("Softplus", ["x"], "a"),
        node("Tanh", ["a"], "b"),
        node("Mul", ["x", "b"], "y"),
    ],
    "softplus": [
        node("Exp", ["x"], "a"),
        node("Add", ["a", "one"], "b"),
        node("Log", ["b"], "y"),
    ],
    "hardswish": [
        node("Add", ["x", "three"], "a"),
        node("Clip", ["a", "zero", "six"], "b"),
        node("Mul", ["x", "b"], "c"),
        node("Div", ["c", "six"], "y"),
    ],
    "softsign": [
        node("Abs", ["x"], "a"),
        node("Add", ["one", "a"], "b"),
        node("Div", ["x", "b"], "y"),
    ],
    "tanhshrink": [node("Tanh", ["x"], "a"), node("Sub", ["x", "a"], "y")],
    "logsigmoid": [
        node("Neg", ["x"], "a"),
        node("Softplus", ["a"], "b"),
        node("Neg", ["b"], "y"),
    ],
}
SCALARS = {
    **{"root2": 2**0.5, "one": 1.0, "half": 0.5, "three": 3.0, "k": 0.044715, "zero": 0.0},
    **{"root": (2 / np.pi) ** 0.5, "quick": 1.702, "six": 6.0},
}


@pytest.mark.parametrize("name", sorted(COMPOSITES))
@pytest.mark.parametrize("kind", [FLOAT, TensorProto.DOUBLE])
def test_formulas_of_activations_are_recognised(name, kind):
    network = from_onnx(model(COMPOSITES[name], ["n", 6], SCALARS, kind=kind))
    assert activations_of(network) == [name.strip()]
    assert len(network.structure.nodes) == 2


def test_a_formula_with_another_constant_is_not_that_activation():
    near = {**SCALARS, "root2": 1.4143}
    network = from_onnx(model(COMPOSITES["gelu"], ["n", 6], near))
    assert "gelu" not in activations_of(network)
    assert "erf" in activations_of(network)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("root", ["div", "mul"])
def test_layer_norm_in_pieces(centred, root):
    d = "d" if centred else "x"
    nodes = [
        node("ReduceMean", ["x", "last"], "m"),
        node("Sub", ["x", "m"], "d"),
        node("Pow", [d, "two"], "s"),
        node("ReduceMean", ["s", "last"], "v"),
        node("Add", ["v", "eps"], "e"),
        node("Sqrt", ["e"], "r"),
        node("Reciprocal", ["r"], "i"),
        node("Div", [d, "r"], "n") if root == "div" else node("Mul", [d, "i"], "n"),
        node("Mul", ["n", "w"], "p"),
        node("Add", ["p", "b"], "y"),
    ]
    nodes = nodes if centred else nodes[2:]
    constants = {
        **{"two": 2.0, "eps": 1e-5, "last": np.array([-1])},
        **{"w": RNG.standard_normal(6), "b": RNG.standard_normal(6)},
    }
    network = from_onnx(model(nodes, ["n", 3, 6], constants))
    assert ops(network)[1:] == [LayerNorm]
    norm = network.structure.nodes[1]
    assert norm.op.center == centred
    assert [p.role for p in norm.params] == ["weight", "bias"]


def test_softmax_in_pieces():
    nodes = [
        node("ReduceMax", ["x", "last"], "m"),
        node("Sub", ["x", "m"], "d"),
        node("Exp", ["d"], "e"),
        node("ReduceSum", ["e", "last"], "s"),
        node("Div", ["e", "s"], "y"),
    ]
    network = from_onnx(model(nodes, ["n", 6], {"last": np.array([-1])}))
    assert ops(network)[1:] == [Softmax]


def reshape_pairs(first, second, axis=-1):
    return [
        node("Reshape", ["x", "pairs"], "p"),
        node(first, ["p", "last"], "a", keepdims=1),
        node(second, ["p", "last"], "b", keepdims=1),
        node("Concat", ["a", "b"], "c", axis=axis),
        node("Reshape", ["c", "flat"], "y"),
    ]


def sliced_pairs(second="Min"):
    return [
        node("Slice", ["x", "i0", "end", "i1", "i2"], "u"),
        node("Slice", ["x", "i1", "end", "i1", "i2"], "v"),
        node("Max", ["u", "v"], "a"),
        node(second, ["u", "v"], "b"),
        node("Unsqueeze", ["a", "i2"], "au"),
        node("Unsqueeze", ["b", "i2"], "bu"),
        node("Concat", ["au", "bu"], "c", axis=2),
        node("Reshape", ["c", "flat"], "y"),
    ]


INTEGERS = {
    **{"pairs": np.array([0, -1, 2]), "last": np.array([-1]), "flat": np.array([0, -1])},
    **{"i0": np.array([0]), "i1": np.array([1]), "i2": np.array([2]), "end": np.array([2**40])},
}


@pytest.mark.parametrize("descending", [True, False])
def test_maxmin_by_reshape(descending):
    names = ("ReduceMax", "ReduceMin")
    nodes = reshape_pairs(*(names if descending else names[::-1]))
    network = from_onnx(model(nodes, ["n", 8], INTEGERS))
    assert ops(network)[1:] == [GroupSort]
    op = network.structure.nodes[1].op
    assert (op.size, op.descending) == (2, descending)


def test_maxmin_by_slices():
    network = from_onnx(model(sliced_pairs(), ["n", 8], INTEGERS))
    assert ops(network)[1:] == [GroupSort]


def test_maxmin_of_channels():
    nodes = [
        node("Reshape", ["x", "pairs"], "p"),
        node("ReduceMax", ["p", "i2"], "a", keepdims=1),
        node("ReduceMin", ["p", "i2"], "b", keepdims=1),
        node("Concat", ["a", "b"], "c", axis=2),
        node("Reshape", ["c", "whole"], "y"),
    ]
    ints = {**INTEGERS, "pairs": np.array([0, 3, 2, 4, 5]), "whole": np.array([0, 6, 4, 5])}
    network = from_onnx(model(nodes, ["n", 6, 4, 5], ints))
    assert ops(network)[1:] == [GroupSort]
    assert network.structure.nodes[1].op.axis == 0


def halves(first="Max"):
    return [
        helper.make_node("Split", ["x"], ["u", "v"], axis=1, num_outputs=2),
        node(first, ["u", "v"], "a"),
        node("Min", ["u", "v"], "b"),
        node("Concat", ["a", "b"], "y", axis=1),
    ]


def test_maxmin_of_halves():
    network = from_onnx(model(halves(), ["n", 8]))
    assert ops(network)[1:] == [Reshape, GroupSort, Reshape]
    assert network.structure.nodes[2].op == GroupSort(2, 0, descending=True)


def test_pairs_that_are_not_whole_are_no_maxmin():
    assert GroupSort not in ops(from_onnx(model(halves("Min"), ["n", 8])))
    assert GroupSort not in ops(from_onnx(model(sliced_pairs("Max"), ["n", 8], INTEGERS)))


# --- the batch axis and shapes ------------------------------------------------------------------


def test_batch_axis():
    assert from_onnx(mlp(("batch", 4))).input_shape == (4,)
    assert from_onnx(mlp((1, 4))).input_shape == (4,)
    assert from_onnx(mlp((7, 4)), batch_axis=0).input_shape == (4,)
    assert from_onnx(mlp((7, 4)), batch_axis=None).input_shape == (7, 4)
    assert from_onnx(mlp(("batch", 4)), shape=(7, 4)).input_shape == (4,)
    assert from_onnx(mlp(("b", 4)), shape=(7, 4), batch_axis=None).input_shape == (7, 4)
    with pytest.raises(InputError, match="batch_axis=None if this is one sample"):
        from_onnx(mlp((7, 4)))
    with pytest.raises(InputError, match="batch_axis is 1"):
        from_onnx(mlp(), batch_axis=1)


def test_input_of_one_axis_is_one_sample():
    proto = model([node("MatMul", ["w", "x"], "y")], [4], {"w": RNG.standard_normal((3, 4))})
    network = from_onnx(proto)
    assert (network.input_shape, network.output_shape) == ((4,), (3,))


def test_symbolic_axes_need_a_shape():
    proto = model([node("Relu", ["x"], "y")], ["n", "length", 3])
    with pytest.raises(InputError, match=r"\(\?, \?, 3\).*give shape="):
        from_onnx(proto)
    assert from_onnx(proto, shape=(1, 5, 3)).input_shape == (5, 3)
    assert from_onnx(proto, shape={"x": (1, 5, 3)}).input_shape == (5, 3)
    for wrong in [(5, 3), (1, 5, 4), "abc", {"z": (1, 5, 3)}, 3]:
        with pytest.raises(InputError, match="shape"):
            from_onnx(proto, shape=wrong)


# --- bad input ------------------------------------------------------------------------------------


def broken(change):
    proto = mlp()
    change(proto)
    return proto


def set_weight(array):
    def change(proto):
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.asarray(array), "w0"))

    return change


def set_op(op, domain=""):
    def change(proto):
        proto.graph.node[1].op_type = op
        proto.graph.node[1].domain = domain

    return change


def set_dims(*dims):
    def change(proto):
        proto.graph.initializer[0].dims[:] = dims

    return change


def set_opset(version):
    def change(proto):
        proto.opset_import[0].version = version

    return change


def set_input(i, name):
    def change(proto):
        proto.graph.node[i].input[0] = name

    return change


BROKEN = [
    (set_weight(np.full((5, 4), np.nan, np.float32)), "'w0' has a NaN"),
    (set_weight(np.full((5, 4), np.inf, np.float32)), "'w0' has a NaN or infinite"),
    (set_weight(np.ones((5, 4), np.int64)), "'w0' is int64"),
    (set_weight(np.ones((5, 4))), "'w0' is float64"),
    (set_weight(np.ones((5, 9), np.float32)), r"'first' \(Gemm\).*does not fit the weight 'w0'"),
    (set_op("Det"), r"Det \(node 'act'\); supported are Abs, "),
    (set_op("FusedRelu", "com.microsoft"), "com.microsoft.FusedRelu"),
    (set_op("NonZero"), "'act'.*supported on constants alone"),
    (set_dims(2**40, 2**40), "'w0': dimensions"),
    (set_dims(-5, -4), "'w0' has dimensions"),
    (set_opset(999), "knows opsets 1 to"),
    (set_opset(0), "knows opsets 1 to"),
    (set_input(1, "nowhere"), "nowhere"),
    (lambda p: p.graph.ClearField("node"), "no nodes"),
    (lambda p: p.ClearField("graph"), "not an ONNX model"),
    (lambda p: p.ClearField("opset_import"), "no opset"),
    (lambda p: p.graph.ClearField("input"), "x"),
    (lambda p: p.graph.ClearField("output"), "no output"),
]


@pytest.mark.parametrize(("change", "words"), BROKEN, ids=range(len(BROKEN)))
def test_broken_models_are_refused(change, words):
    with pytest.raises(TangencyError, match=words):
        from_onnx(broken(change))


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT16, TensorProto.STRING])
def test_inputs_of_other_types(kind):
    proto = mlp()
    proto.graph.input[0].type.tensor_type.elem_type = kind
    with pytest.raises(UnsupportedError, match="inputs are FLOAT or DOUBLE"):
        from_onnx(proto)


def test_what_is_no_model(tmp_path):
    text = tmp_path / "a.onnx"
    text.write_text("this is not a model, it is a sentence")
    empty = tmp_path / "empty.onnx"
    empty.touch()
    gz = tmp_path / "a.onnx.gz"
    gz.write_bytes(gzip.compress(mlp().SerializeToString())[:-40])
    cases = [
        *((text, "a.onnx"), (empty, "is empty"), (gz, "damaged")),
        *((tmp_path, "directory"), (tmp_path / "no.onnx", "no such file"), (b"", "is empty")),
        *(
            (3, "got a int"),
            (None, "got a NoneType"),
            ("a\0b", "no such file|not a path"),
            ("x" * 9999, "path"),
        ),
    ]
    for source, words in cases:
        with pytest.raises(InputError, match=words):
            from_onnx(source)


def test_constant_output_is_refused():
    proto = model([node("Mul", ["w", "w"], "y")], ["n", 3], {"w": np.ones((1, 3))})
    with pytest.raises(UnsupportedError, match="does not depend on any input"):
        from_onnx(proto)


def test_huge_sizes_are_refused_before_they_are_made():
    nodes = [node("ConstantOfShape", ["s"], "z"), node("Add", ["x", "z"], "y")]
    with pytest.raises(InputError, match="more than"):
        from_onnx(model(nodes, ["n", 3], {"s": np.array([2**20, 2**20])}))
    with pytest.raises(InputError, match="entries"):
        from_onnx(model([node("Expand", ["x", "s"], "y")], ["n", 1], {"s": np.array([1, 2**40])}))
    with pytest.raises(InputError, match="entries"):
        from_onnx(model([node("Relu", ["x"], "y")], ["n", 2**40]))


def test_rounding_alone_is_no_difference():
    """Layers that cancel: float32 loses 1e-5 of the output in either evaluation."""
    rng = np.random.default_rng(5)
    w = rng.standard_normal((60, 4))
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("Add", ["a", "large"], "b"),
        node("Tanh", ["x"], "t"),
        node("MatMul", ["t", "w"], "c"),
        node("Add", ["b", "c"], "d"),
        node("Sub", ["d", "large"], "e"),
        node("Mul", ["e", "small"], "y"),
    ]
    held = {"w": w, "large": np.full(4, 3e4), "small": 1e-3}
    assert from_onnx(model(nodes, ["n", 60], held)).dtype == "float32"
