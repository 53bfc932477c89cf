"""Each supported op in a model with a symbolic batch, imported with the check switched on."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tangency.models import UnsupportedError, from_onnx  # noqa: E402
from tangency.models.importers.onnx_ops import READERS  # noqa: E402

RNG = np.random.default_rng(7)


def model(nodes, shape, constants=None, *, opset=21, dtype=np.float32, outputs=("y",)):
    """A model of one input ``x`` with a symbolic batch in front."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, ["batch", *shape])],
        [helper.make_tensor_value_info(name, kind, ["any"]) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def one(op, shape, *constants, opset=21, dtype=np.float32, outputs=1, first=0, **attributes):
    """A model of one node; ``first`` is the place of x among its inputs."""
    held = {
        f"c{i}": a.astype(dtype) if a.dtype.kind == "f" else a
        for i, a in enumerate(map(np.asarray, constants))
        if a.shape != (0,)
    }
    names = [f"c{i}" if f"c{i}" in held else "" for i in range(len(constants))]
    names.insert(first, "x")
    out = ["y", *(f"y{i}" for i in range(1, outputs))]
    node = helper.make_node(op, names, out, name="layer", **attributes)
    return model([node], shape, held, opset=opset, dtype=dtype, outputs=out)


def f(*shape):
    return RNG.standard_normal(shape)


def i(*values):
    return np.array(values, np.int64)


NONE = np.zeros(0)
S1, S2 = (3, 9), (4, 6, 5)  # (C, L) and (C, H, W)

CASES = [
    *(
        (op, (5,), (), {})
        for op in (
            *("Abs", "Atan", "Asinh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor"),
            *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Reciprocal"),
            *("Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign"),
            *("Tan", "Tanh", "ThresholdedRelu", "Log", "Sqrt", "Asin", "Acos", "Atanh", "Gelu"),
            *("Softmax", "LogSoftmax", "Shrink", "Dropout"),
        )
    ),
    ("Gelu", (5,), (), {"approximate": "tanh"}),
    ("Celu", (5,), (), {"alpha": 0.7}),
    ("Elu", (5,), (), {"alpha": 1.5}),
    ("Selu", (5,), (), {"alpha": 1.2, "gamma": 1.1}),
    ("ThresholdedRelu", (5,), (), {"alpha": 0.3}),
    ("HardSigmoid", (5,), (), {"alpha": 0.4, "beta": 0.6}),
    ("Shrink", (5,), (), {"lambd": 0.4, "bias": 0.4}),
    ("Swish", (5,), (), {"opset": 24}),
    ("Swish", (5,), (), {"opset": 24, "alpha": 1.7}),
    ("Clip", (5,), (f(), f() + 4), {}),
    ("Clip", (5,), (np.array(0.0),), {}),
    ("Clip", (5,), (np.array(0.0), np.array(6.0)), {}),
    ("Clip", (5,), (NONE, np.array(0.4)), {}),
    ("Clip", (5,), (np.array(-0.2),), {}),
    *(("Pow", (5,), (np.array(n),), {}) for n in (1.0, 2.0, 3.0, 5.0, -1.0, 0.5, -0.5)),
    ("Pow", (5,), (np.array(2.5),), {"first": 1}),
    ("PRelu", (4, 3), (f(4, 1),), {}),
    ("PRelu", (4, 3), (f(1),), {}),
    ("PRelu", (4, 3), (f(4, 3),), {}),
    *(
        (op, (4, 5), (c,), {"first": k})
        for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")
        for c in (f(5) + 4, f(4, 1) + 4, f() + 4, f(1, 4, 5) + 4)
        for k in (0, 1)
    ),
    ("Sum", (5,), (f(5), f(1)), {}),
    ("Mean", (5,), (f(5), f(1)), {}),
    ("Max", (5,), (f(5), f(1)), {}),
    ("Max", (5,), (np.array(0.0),), {}),
    ("MatMul", (5,), (f(5, 3),), {}),
    ("MatMul", (4, 5), (f(5, 3),), {}),
    ("MatMul", (4, 5), (f(5),), {}),
    ("MatMul", (4, 5), (f(3, 4),), {"first": 1}),
    ("MatMul", (2, 4, 5), (f(2, 5, 3),), {}),
    ("Gemm", (5,), (f(5, 3), f(3)), {}),
    ("Gemm", (5,), (f(3, 5), f(1, 3)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", (5,), (f(5, 3), f()), {}),
    ("Gemm", (5,), (f(5, 3),), {}),
    ("Einsum", (4, 5), (f(5, 3),), {"equation": "bik,kj->bij"}),
    ("Einsum", (4, 5), (f(4, 5, 3),), {"equation": "bik,ikj->bij"}),
    ("Einsum", (4, 5), (), {"equation": "bij->bji"}),
    ("Einsum", (4, 5), (), {"equation": "bij->bi"}),
    ("Conv", S1, (f(6, 3, 3), f(6)), {"pads": [1, 2], "strides": [2], "dilations": [2]}),
    ("Conv", S2, (f(6, 4, 3, 2), f(6)), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", S2, (f(8, 2, 3, 3),), {"group": 2, "dilations": [2, 1]}),
    ("Conv", S2, (f(6, 4, 3, 2),), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", S2, (f(6, 4, 3, 2),), {"auto_pad": "SAME_LOWER"}),
    ("Conv", S2, (f(6, 4, 3, 2),), {"auto_pad": "VALID"}),
    ("ConvTranspose", S1, (f(3, 2, 4), f(2)), {"strides": [2], "pads": [1, 1]}),
    ("ConvTranspose", S2, (f(4, 3, 3, 3), f(3)), {"strides": [2, 2], "output_padding": [1, 0]}),
    ("ConvTranspose", S2, (f(4, 3, 3, 3),), {"strides": [2, 2], "output_shape": [12, 10]}),
    ("ConvTranspose", S2, (f(4, 3, 3, 3),), {"group": 2, "pads": [1, 0, 0, 1]}),
    ("BatchNormalization", S2, (f(4), f(4), f(4), f(4) ** 2 + 0.1), {}),
    ("BatchNormalization", (4,), (f(4), f(4), f(4), f(4) ** 2 + 0.1), {"epsilon": 0.01}),
    ("InstanceNormalization", S2, (f(4), f(4)), {}),
    ("LayerNormalization", S2, (f(5), f(5)), {}),
    ("LayerNormalization", S2, (f(6, 5),), {"axis": 2, "epsilon": 0.1}),
    ("GroupNormalization", S2, (f(4), f(4)), {"num_groups": 2}),
    ("RMSNormalization", S2, (f(5),), {"opset": 23}),
    ("Softmax", S2, (), {"axis": 1}),
    ("LogSoftmax", S2, (), {"axis": 2}),
    *(
        (op, S2, (i(1, 3),), {"keepdims": k})
        for op in (
            *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"),
            *("ReduceLogSumExp", "ReduceSumSquare", "ReduceLogSum"),
        )
        for k in (0, 1)
    ),
    ("ReduceSum", S2, (), {"noop_with_empty_axes": 1}),
    ("CumSum", (5,), (np.array(1),), {"exclusive": 1}),
    ("CumSum", (5, 3), (np.array(-2),), {"reverse": 1}),
    ("Reshape", S2, (i(0, -1, 5),), {}),
    ("Flatten", S2, (), {}),
    ("Squeeze", (1, 5), (i(1),), {}),
    ("Unsqueeze", (5,), (i(-1, 1),), {}),
    ("Transpose", S2, (), {"perm": [0, 3, 1, 2]}),
    ("Slice", S2, (i(1, -1), i(4, -6), i(1, 3), i(2, -2)), {}),
    ("Split", S2, (i(1, 2, 3),), {"outputs": 3, "axis": 2}),
    ("Split", S2, (), {"outputs": 2, "axis": 1, "num_outputs": 2}),
    ("Gather", S2, (np.array([[0, -1], [2, 2]]),), {"axis": 2}),
    ("Gather", S2, (np.array(1),), {"axis": 1}),
    ("Pad", S2, (i(0, 0, 1, 0, 0, 1, 0, 2), np.array(0.5)), {}),
    ("Pad", S2, (i(0, 0, 1, 0, 0, 0, 3, 2),), {"mode": "reflect"}),
    ("Pad", S2, (i(0, 0, 1, 0, 0, 0, 3, 2),), {"mode": "edge"}),
    ("Pad", S2, (i(0, 0, -1, 1, 0, 0, 3, -2),), {}),
    ("Expand", (1, 5), (i(1, 4, 5),), {}),
    ("Tile", (2, 3), (i(1, 2, 2),), {}),
    ("Trilu", (4, 5), (np.array(1),), {"upper": 0}),
    ("DepthToSpace", (8, 2, 3), (), {"blocksize": 2}),
    ("DepthToSpace", (8, 2, 3), (), {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", (2, 4, 6), (), {"blocksize": 2}),
    ("Resize", S2, (NONE, np.array([1.0, 1, 2, 3])), {"mode": "nearest"}),
    ("Resize", S2, (NONE, NONE, i(0, 0, 7, 4)[2:]), {"mode": "nearest", "axes": [2, 3]}),
    ("Resize", S2, (NONE, np.array([1.0, 1, 2, 2])), {"mode": "linear"}),
    (
        "Resize",
        S2,
        (NONE, np.array([1.0, 1, 2, 2])),
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    (
        "Resize",
        S2,
        (NONE, np.array([1.0, 1, 2, 2])),
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
    ),
    ("Upsample", S2, (np.array([1.0, 1, 2, 2]),), {"opset": 9}),
    ("MaxPool", S2, (), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    ("MaxPool", S1, (), {"kernel_shape": [3], "dilations": [2]}),
    ("MaxPool", S1, (), {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}),
    ("AveragePool", S2, (), {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}),
    (
        "AveragePool",
        S2,
        (),
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1},
    ),
    ("AveragePool", S2, (), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
    ("GlobalAveragePool", S2, (), {}),
    ("GlobalMaxPool", S2, (), {}),
    ("Cast", (5,), (), {"to": TensorProto.FLOAT}),
    ("CastLike", (5,), (f(1),), {}),
    ("LSTM", (3, 4), (f(1, 8, 4), f(1, 8, 2), f(1, 16)), {"hidden_size": 2, "layout": 1}),
    ("GRU", (3, 4), (f(1, 6, 4), f(1, 6, 2), f(1, 12)), {"hidden_size": 2, "layout": 1}),
    ("RNN", (3, 4), (f(1, 2, 4), f(1, 2, 2), f(1, 4)), {"hidden_size": 2, "layout": 1}),
]


@pytest.mark.parametrize(
    ("op", "shape", "constants", "options"), CASES, ids=[f"{c[0]}{n}" for n, c in enumerate(CASES)]
)
def test_op_agrees_with_the_reference(op, shape, constants, options):
    network = from_onnx(one(op, shape, *constants, **options))
    assert network.input_shape == shape
    x = np.random.default_rng(1).uniform(0.2, 0.8, (2, *shape)).astype(np.float32)
    y = network.evaluate(x)
    assert all(np.isfinite(v).all() for v in (y if isinstance(y, tuple) else (y,)))


@pytest.mark.parametrize("op", sorted({c[0] for c in CASES} - {"Cast"}))
def test_op_in_double_precision(op):
    case = next(c for c in CASES if c[0] == op)
    network = from_onnx(one(op, case[1], *case[2], dtype=np.float64, **case[3]))
    assert network.dtype == "float64"


def test_every_reader_is_tried():
    elsewhere = {
        "Concat",
        "Constant",
        "Where",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Not",
    }
    assert {c[0] for c in CASES} | elsewhere == set(READERS)


@pytest.mark.parametrize("op", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("negated", [False, True])
def test_choice_by_comparison(op, negated):
    nodes = [helper.make_node(op, ["x", "c"], ["m"])]
    if negated:
        nodes.append(helper.make_node("Not", ["m"], ["n"]))
    nodes.append(helper.make_node("Where", ["n" if negated else "m", "x", "d"], ["y"]))
    constants = {"c": np.float32(0.1), "d": f(5).astype(np.float32)}
    network = from_onnx(model(nodes, (5,), constants))
    assert [n.op.kind for n in network.structure.nodes][-1] == "select"
    at = np.full((1, 5), 0.1, np.float32)  # where strict and not strict part
    chosen = op.endswith("OrEqual") != negated
    np.testing.assert_array_equal(network.evaluate(at), at if chosen else constants["d"][None])


def test_comparison_cast_to_numbers_and_fixed_masks():
    nodes = [
        helper.make_node("Greater", ["x", "c"], ["m"]),
        helper.make_node("Cast", ["m"], ["s"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["mask", "x", "s"], ["t"]),
        helper.make_node("Where", ["mask", "t", "d"], ["y"]),
    ]
    mask = np.array([True, False, True, False, True])
    held = {"c": np.float32(0.1), "mask": mask, "d": np.where(mask, -np.inf, 2).astype("float32")}
    from_onnx(model(nodes, (5,), held))


def test_shapes_are_computed_and_folded():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("ConstantOfShape", ["two"], ["zeros"]),
        helper.make_node("Add", ["zeros", "w"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["r", "wt"], ["y"]),
    ]
    held = {
        "zero": np.array(0),
        "axis": i(0),
        "rest": i(-1),
        "two": i(3, 20),
        "w": f(3, 20).astype(np.float32),
    }
    network = from_onnx(model(nodes, (4, 5), held))
    assert network.output_shape == (3,)


@pytest.mark.parametrize(
    ("op", "constants", "options", "word"),
    [
        ("Resize", (NONE, np.array([1.0, 1, 2, 2])), {"mode": "cubic"}, "cubic"),
        ("Conv", (f(6, 3, 3, 3),), {}, "does not fit"),
        ("Pow", (f(5),), {}, "different values"),
        ("MatMul", (f(4, 3),), {}, "does not fit"),
        ("Einsum", (f(5, 3),), {"equation": "...i,ij->...j"}, "equation"),
        ("Mul", (np.array([[np.nan] * 5], np.float32),), {}, "NaN"),
        ("Div", (np.zeros(5),), {}, "zero"),
        ("Reshape", (i(7, 7),), {}, "cannot become"),
        ("Gather", (i(9),), {"axis": 1}, "indices"),
        ("MaxPool", (), {"kernel_shape": [0, 1]}, "kernel_shape"),
        ("BatchNormalization", (f(4), f(4), f(4), -np.ones(4)), {}, "variance"),
        ("ReduceSum", (i(9),), {}, "axis 9"),
        ("Cast", (), {"to": TensorProto.DOUBLE}, "casts to float64"),
        ("Celu", (), {"alpha": -1.0}, "celu has alpha = -1.0"),
        ("HardSigmoid", (), {"alpha": 0.0}, "hardsigmoid has alpha = 0.0"),
        ("Shrink", (), {"lambd": -0.5}, "lambd >= 0"),
        ("Swish", (), {"alpha": -1.0, "opset": 24}, "swish has beta = -1.0"),
    ],
)
def test_what_does_not_fit_is_named(op, constants, options, word):
    from tangency.models import TangencyError

    with pytest.raises(TangencyError, match="layer") as caught:
        from_onnx(one(op, S2, *constants, **options))
    assert word in str(caught.value)


def test_mixing_the_batch_is_found_out():
    nodes = [
        helper.make_node("ReduceMean", ["x", "c"], ["m"], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    with pytest.raises(UnsupportedError, match="mixes its samples"):
        from_onnx(model(nodes, (5,), {"c": i(0)}))
