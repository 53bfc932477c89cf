"""MATLAB files: real networks, residual ones, biases, and what is refused."""

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tangency.models import InputError, from_layers
from tangency.models import activations as catalogue
from tangency.models.importers.mat import from_mat

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "maxmin"
RNG = np.random.default_rng(2)


def cells(*arrays):
    """A MATLAB cell array."""
    row = np.empty((1, len(arrays)), object)
    for i, array in enumerate(arrays):
        row[0, i] = array
    return row


def saved(path, **variables):
    savemat(path, variables)
    return path


def weights(*sizes, dtype=np.float64):
    return [RNG.standard_normal((m, n)).astype(dtype) for n, m in pairwise(sizes)]


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")
@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("weights_l2_2fc_16", [784, 16, 10]),
        ("weights_l2_2fc_64", [784, 64, 10]),
        ("weights_l2_5fc_32", [784, *[32] * 4, 10]),
        ("weights_l2_8fc_32", [784, *[32] * 7, 10]),
        ("weights_l2_18fc_64", [784, *[64] * 17, 10]),
        ("weights_linf_2fc_16", [784, 16, 10]),
        ("weights_linf_8fc_32", [784, *[32] * 7, 10]),
        ("resweights_5_32", [784, *[32] * 4, 10]),
    ],
)
def test_published_networks(name, widths):
    network = from_mat(DATA / f"{name}.mat", residual="auto")
    assert network.dtype == "float64"
    shapes = [w.shape for w in network.weights.values()]
    assert shapes == list(zip(widths[1:], widths[:-1], strict=True))
    kinds = [n.op.kind for n in network.structure.nodes]
    gaps = len(shapes) - 1
    residual = name.startswith("res")
    assert kinds.count("group_sort") == (gaps - 1 if residual else gaps)
    assert kinds.count("add") == (gaps - 1 if residual else 0)


def test_equals_the_same_layers(tmp_path):
    ws = weights(6, 8, 4, 3)
    network = from_mat(saved(tmp_path / "w.mat", W=cells(*ws)))
    assert network == from_layers(ws, "maxmin")
    assert network.source.endswith("w.mat")


def test_biases_other_names_and_single_precision(tmp_path):
    ws = weights(6, 8, 3, dtype=np.float32)
    bs = [RNG.standard_normal((8, 1)).astype("f4"), RNG.standard_normal((1, 3)).astype("f4")]
    path = saved(tmp_path / "w.mat", V=cells(*ws), c=cells(*bs), unrelated="text")
    network = from_mat(path, variable="V", bias="c", activation="relu")
    pairs = [(w, b.reshape(-1)) for w, b in zip(ws, bs, strict=True)]
    assert network == from_layers(pairs, "relu")
    assert network.dtype == "float32"


@pytest.mark.parametrize("activation", ["maxmin", "groupsort4", "tanh", catalogue.get("gelu")])
def test_residual(tmp_path, activation):
    a, b, c, d = weights(6, 8, 8, 8, 3)
    path = saved(tmp_path / "resweights.mat", W=cells(a, b, c, d))
    network = from_mat(path, residual=True, activation=activation)
    phi = from_layers([np.eye(8), np.eye(8)], activation)
    x = RNG.standard_normal((5, 6))
    z = x @ a.T
    z = z + phi.evaluate(z @ b.T)
    z = z + phi.evaluate(z @ c.T)
    np.testing.assert_allclose(network.evaluate(x), z @ d.T, rtol=1e-12)
    assert network == from_mat(path, residual="auto", activation=activation)
    assert network != from_mat(path, activation=activation)


def test_a_plain_matrix_is_one_layer(tmp_path):
    (w,) = weights(6, 3)
    assert from_mat(saved(tmp_path / "w.mat", W=w)) == from_layers([w])


BAD = [
    ({"V": cells(np.eye(2))}, {}, "no variable 'W'; it holds: V"),
    ({"W": cells(np.eye(2), np.ones((2, 3)))}, {}, "weight|fit"),
    ({"W": cells(np.eye(2), np.full((2, 2), np.nan))}, {}, "layer 1"),
    ({"W": cells(np.eye(2), np.eye(2, dtype=np.int32))}, {}, r"W\{2\} is int32"),
    ({"W": cells(np.eye(2), "text")}, {}, r"W\{2\} is char"),
    ({"W": cells(np.eye(2), 1j * np.eye(2))}, {}, r"W\{2\} is complex"),
    ({"W": cells(np.eye(2), np.eye(2, dtype="f4"))}, {}, "mixed"),
    ({"W": cells(np.ones((2, 2, 2)))}, {}, r"W\{1\} has shape \(2, 2, 2\)"),
    ({"W": "text"}, {}, "is a char; a cell array"),
    ({"W": np.zeros((0, 0))}, {}, "layer 0"),
    ({"W": {"a": 1.0}}, {}, "is a struct"),
    ({"W": cells(np.eye(2), np.eye(2)), "b": cells(np.ones(2))}, {}, "2 matrices"),
    ({"W": cells(np.eye(2)), "b": cells(np.ones((2, 2)))}, {}, "vectors are needed"),
    ({"W": cells(np.eye(2)), "b": cells(np.ones(5))}, {}, "bias"),
    ({"W": cells(np.eye(3), np.eye(3))}, {}, "groups|entries"),
    ({"W": cells(np.eye(2), np.eye(2))}, {"activation": "nonsense"}, "nonsense"),
    ({"W": cells(np.eye(2), np.ones((4, 2)), np.eye(2))}, {"residual": True}, "layer 1"),
    ({"W": cells(np.eye(2))}, {"residual": True}, "first and a last"),
    ({"W": cells(np.eye(2))}, {"residual": "yes"}, "residual is 'yes'"),
]


@pytest.mark.parametrize(("variables", "options", "words"), BAD, ids=range(len(BAD)))
def test_what_does_not_fit_is_named(tmp_path, variables, options, words):
    path = saved(tmp_path / "w.mat", **variables)
    with pytest.raises(InputError, match=words):
        from_mat(path, **options)


def test_files_that_are_none(tmp_path):
    text, empty, hdf = (tmp_path / n for n in ("text.mat", "empty.mat", "hdf.mat"))
    text.write_text(
        "this is no MATLAB file at all, although it is long enough to hold a header" * 3
    )
    empty.touch()
    hdf.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    cases = [(text, "readable"), (empty, "empty"), (hdf, "7.3"), (tmp_path, "directory")]
    for path, words in [*cases, (tmp_path / "none.mat", "no such file"), (3, "got a int")]:
        with pytest.raises(InputError, match=words):
            from_mat(path)


def test_reads_what_scipy_reads(tmp_path):
    """Every storage that MATLAB writes: packed integers, compression, either byte order."""
    from scipy.io import loadmat

    from tangency.models.importers.mat_read import read_mat

    ws = weights(6, 8, 3)
    for compressed in (False, True):
        path = tmp_path / "w.mat"
        savemat(path, {"W": cells(*ws), "other": 1}, do_compression=compressed)
        found = read_mat(path.read_bytes(), ("W",))
        assert found["other"] == "matrix"
        for a, b in zip(found["W"], loadmat(path)["W"][0], strict=True):
            np.testing.assert_array_equal(a, b)


def big_endian(array):
    """A file of one matrix W as a big-endian machine writes it, whole numbers packed to bytes."""
    flags = struct.pack(">IIII", 6, 8, 6, 0)
    dims = struct.pack(">IIii", 5, 8, *array.shape)
    name = struct.pack(">HHcxxx", 1, 1, b"W")
    data = array.astype("i1").tobytes("F")
    data = struct.pack(">II", 1, len(data)) + data + bytes(-len(data) % 8)
    body = flags + dims + name + data
    head = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    return head + struct.pack(">II", 14, len(body)) + body


def test_big_endian_and_packed(tmp_path):
    from scipy.io import loadmat

    w = np.arange(6.0).reshape(2, 3)
    path = tmp_path / "w.mat"
    path.write_bytes(big_endian(w))
    np.testing.assert_array_equal(loadmat(path)["W"], w)  # the file is right
    assert from_mat(path) == from_layers([w])
