"""Damaged files: whatever the bytes are, a network or one of our own errors comes out."""

import io
import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from tangency.models import Network, TangencyError, load
from tangency.models.importers.mat import from_mat

RNG = np.random.default_rng(9)
FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=250,
    suppress_health_check=list(HealthCheck),
)
#: One damaged file must not keep the reader longer than this, in seconds.
LONGEST = 20.0


def outcome(read):
    """Whether a reader gave a network; fails for any error but ours, and for a long wait."""
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy on broken numbers
        try:
            network = read()
        except TangencyError:
            network = None
    assert time.monotonic() - start < LONGEST
    assert network is None or isinstance(network, Network)
    return network is not None


def damage(data, edits):
    """Some edits of bytes: (kind, place as a part of the length, value)."""
    data = bytearray(data)
    for kind, place, value in edits:
        at = int(place * max(1, len(data) - 1))
        if kind == "set":
            data[at : at + 1] = bytes([value])
        elif kind == "flip":
            data[at : at + 1] = bytes([b ^ (1 << value % 8) for b in data[at : at + 1]])
        elif kind == "insert":
            data[at:at] = bytes([value]) * (1 + value % 9)
        elif kind == "delete":
            del data[at : at + 1 + value % 9]
        elif kind == "cut":
            del data[at:]
        elif kind == "copy":
            data[at:at] = data[at : at + value]
    return bytes(data)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "set", "flip", "insert", "delete", "copy", "cut"]),
        st.floats(0, 1),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


# --- ONNX -----------------------------------------------------------------------------------


def models():
    """Small valid models that together hold most ways of reading an op."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    def node(op, inputs, output, **attributes):
        return helper.make_node(op, inputs, [output], **attributes)

    def model(nodes, shape, **constants):
        arrays = {n: np.asarray(a) for n, a in constants.items()}
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", 1, ["n", *shape])],
            [helper.make_tensor_value_info("y", 1, ["n", "m"])],
            [
                numpy_helper.from_array(a.astype("f4") if a.dtype.kind == "f" else a, n)
                for n, a in arrays.items()
            ],
        )
        assert onnx is not None
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    def f(*shape):
        return RNG.standard_normal(shape)

    return [
        model(
            [
                node("Gemm", ["x", "w", "b"], "h", transB=1, alpha=0.5),
                node("Relu", ["h"], "r"),
                node("MatMul", ["r", "v"], "y"),
            ],
            (3,),
            w=f(4, 3),
            b=f(4),
            v=f(4, 2),
        ),
        model(
            [
                node("Conv", ["x", "w"], "c", pads=[1, 1, 1, 1], strides=[2, 2]),
                node("BatchNormalization", ["c", "s", "s", "s", "s"], "n"),
                node("MaxPool", ["n"], "p", kernel_shape=[2, 2], strides=[1, 1]),
                node("Shape", ["p"], "h"),
                node("Gather", ["h", "zero"], "k"),
                node("Concat", ["k", "rest"], "t", axis=0),
                node("Reshape", ["p", "t"], "y"),
            ],
            (2, 6, 6),
            w=f(3, 2, 3, 3),
            s=np.ones(3),
            zero=np.array([0]),
            rest=np.array([-1]),
        ),
        model(
            [
                node("ConstantOfShape", ["size"], "z"),
                node("Range", ["a", "b", "c"], "i"),
                node("Gather", ["x", "i"], "g", axis=1),
                node("Pad", ["g", "pads"], "p", mode="reflect"),
                node("Slice", ["p", "start", "end", "axis"], "s"),
                node("Expand", ["s", "wide"], "e"),
                node("Tile", ["e", "twice"], "t"),
                node("ReduceMean", ["t", "axis"], "m", keepdims=1),
                node("Sub", ["t", "m"], "y"),
            ],
            (5,),
            size=np.array([2]),
            a=np.array(0),
            b=np.array(4),
            c=np.array(1),
            pads=np.array([0, 1, 0, 2]),
            start=np.array([1]),
            end=np.array([9]),
            axis=np.array([1]),
            wide=np.array([1, 1]),
            twice=np.array([1, 2]),
        ),
        model(
            [
                node("LSTM", ["x", "w", "r", "b"], "l", hidden_size=2, layout=1),
                node("Squeeze", ["l", "two"], "s"),
                node("Softmax", ["s"], "p", axis=-1),
                node("Resize", ["p", "", "scales"], "q", mode="linear"),
                node("Split", ["q"], "y", axis=1, num_outputs=1),
            ],
            (2, 3),
            w=f(1, 8, 3),
            r=f(1, 8, 2),
            b=f(1, 16),
            two=np.array([2]),
            scales=np.array([1.0, 1.0, 2.0]),
        ),
    ]


@pytest.fixture(scope="module")
def protos():
    return models()


@FUZZ
@given(which=st.integers(0, 3), edits=EDITS)
def test_onnx_bytes(protos, which, edits):
    data = damage(protos[which].SerializeToString(), edits)
    outcome(lambda: load(data))


NUMBERS = st.sampled_from([0, 1, 2, -1, 3, 7, -(2**31), 2**31, 2**40, 2**62, -(2**63), 2**63 - 1])


@FUZZ
@given(
    which=st.integers(0, 3),
    changes=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 40), st.integers(0, 8), NUMBERS),
        min_size=1,
        max_size=3,
    ),
)
def test_onnx_fields(protos, which, changes):
    """Valid protobuf with wrong fields: what random bytes seldom reach."""
    from onnx import ModelProto, TensorProto

    proto = ModelProto()
    proto.CopyFrom(protos[which])
    for kind, i, j, number in changes:
        tensors, nodes = proto.graph.initializer, proto.graph.node
        tensor, node = tensors[i % len(tensors)], nodes[i % len(nodes)]
        if kind == 0 and tensor.dims:
            tensor.dims[j % len(tensor.dims)] = number
        elif kind == 1:
            tensor.data_type = abs(number) % 30
        elif kind in (2, 3, 4) and node.attribute:
            attribute = node.attribute[j % len(node.attribute)]
            if attribute.ints:
                attribute.ints[j % len(attribute.ints)] = number
            attribute.i = number
            attribute.f = float(number)
        elif kind == 5 and node.input:
            node.input[j % len(node.input)] = tensors[number % len(tensors)].name
        elif kind == 6:
            node.op_type = nodes[j % len(nodes)].op_type
        elif kind in (7, 8, 9) and tensor.data_type == TensorProto.INT64:
            values = np.frombuffer(tensor.raw_data, np.int64).copy()
            if values.size:
                values[j % values.size] = number
                tensor.raw_data = values.tobytes()
        elif kind == 10:
            dims = proto.graph.input[0].type.tensor_type.shape.dim
            dims[j % len(dims)].dim_value = number
        elif kind == 11:
            del node.input[j % (len(node.input) + 1) :]
        elif kind == 12:
            proto.opset_import[0].version = 1 + abs(number) % 30
    outcome(lambda: load(proto))


def test_valid_models_are_read(protos):
    assert all(outcome(lambda p=p: load(p.SerializeToString())) for p in protos)


def test_every_truncation_of_a_model(protos):
    data = protos[0].SerializeToString()
    for length in range(len(data)):
        outcome(lambda length=length: load(data[:length]))


# --- MATLAB ---------------------------------------------------------------------------------


def matlab(compressed):
    row = np.empty((1, 2), object)
    row[0, :] = [RNG.standard_normal((4, 3)), RNG.standard_normal((2, 4))]
    buffer = io.BytesIO()
    savemat(buffer, {"W": row, "note": "text"}, do_compression=compressed)
    return buffer.getvalue()


FILES = [matlab(False), matlab(True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@FUZZ
@given(which=st.integers(0, 1), edits=EDITS)
def test_mat_bytes(folder, which, edits):
    path = folder / "w.mat"
    path.write_bytes(damage(FILES[which], edits))
    outcome(lambda: from_mat(path))


def test_a_type_code_that_ends_other_readers(folder):
    data = FILES[0].replace(b"\x09\x00\x00\x00\x60", b"\xfe\x00\x00\x00\x60", 1)
    assert data != FILES[0]
    path = folder / "type.mat"
    path.write_bytes(data)
    with pytest.raises(TangencyError, match="data of type 254"):
        from_mat(path)


def test_valid_mat_files_are_read(folder):
    for i, data in enumerate(FILES):
        path = folder / f"valid{i}.mat"
        path.write_bytes(data)
        assert outcome(lambda path=path: from_mat(path))


def test_every_truncation_of_a_mat_file(folder):
    path = folder / "cut.mat"
    for length in range(0, len(FILES[0]), 3):
        path.write_bytes(FILES[0][:length])
        outcome(lambda: from_mat(path))


# --- anything ---------------------------------------------------------------------------------


@FUZZ
@given(
    data=st.binary(max_size=200),
    head=st.sampled_from(
        [b"", b"PK\x03\x04", b"\x1f\x8b\x08", b"MATLAB 5.0 MAT-file", b"\x08\x07"]
    ),
    suffix=st.sampled_from(["", ".onnx", ".onnx.gz", ".mat", ".pt", ".pt2", ".zip", ".txt"]),
)
def test_files_of_any_bytes(folder, data, head, suffix):
    path = folder / f"any{suffix}"
    path.write_bytes(head + data)
    assert not outcome(lambda: load(path))


@FUZZ
@given(edits=EDITS)
@example(edits=[("set", 0.9117535692354766, 64)])  # a zip of a later version
def test_own_files(folder, edits):
    from tangency.models import from_layers

    path = folder / "own.zip"
    from_layers([np.eye(2), np.ones((1, 2))], "relu").save(path)
    path.write_bytes(damage(path.read_bytes(), edits))
    outcome(lambda: load(path))
