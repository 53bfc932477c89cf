"""``load`` picks the importer by what it is given."""

import gzip
import pickle
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from tangency.models import InputError, Network, TangencyError, from_layers, load

RNG = np.random.default_rng(4)
LAYERS = [RNG.standard_normal((4, 3)), RNG.standard_normal((2, 4))]


@pytest.fixture
def network():
    return from_layers(LAYERS, "maxmin")


def onnx_model():
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 2])],
        [numpy_helper.from_array(np.ones((3, 2), np.float32), "w")],
    )
    assert onnx is not None
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_network_is_given_back(network):
    assert load(network) is network


def test_own_file_by_content(network, tmp_path):
    for name in ("n.tangency", "n.zip", "n", "n.onnx", "n.mat", "n.pt2"):
        network.save(tmp_path / name)
        assert load(tmp_path / name) == network
        assert load(str(tmp_path / name)) == network


def test_onnx_files_bytes_and_models(tmp_path):
    proto = onnx_model()
    data = proto.SerializeToString()
    found = [load(proto), load(data), load(proto, batch_axis=0, check=False)]
    for name, content in (
        *(("a.onnx", data), ("a.onnx.gz", gzip.compress(data)), ("A.ONNX", data)),
        *(("bare", data), ("bare.pb", data), ("b.onnx", gzip.compress(data))),
    ):
        (tmp_path / name).write_bytes(content)
        found.append(load(tmp_path / name))
    assert len({n.hash for n in found}) == 1


def test_mat_files(network, tmp_path):
    row = np.empty((1, 2), object)
    row[0, :] = LAYERS
    for name in ("w.mat", "w.dat"):
        savemat(tmp_path / name, {"W": row}, appendmat=False)
        assert load(tmp_path / name) == network
    assert load(tmp_path / "w.mat", activation="relu") == from_layers(LAYERS, "relu")


def test_lists_of_arrays(network):
    assert load(LAYERS, activation="maxmin") == network
    assert load(tuple(LAYERS)) == from_layers(LAYERS)
    pairs = [(w, np.ones(len(w))) for w in LAYERS]
    assert load(pairs) == from_layers(pairs)


def test_jax_callables():
    def double(x):
        return 2.0 * x

    x = np.ones(3, np.float32)
    network = load(double, example=x[None])
    assert isinstance(network, Network)
    np.testing.assert_array_equal(network.evaluate(x[None])[0], 2 * x)
    with pytest.raises(InputError, match="the callable double: give example="):
        load(double)


def test_torch_modules_and_programs(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("tangency.models.importers.torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    module = module.eval()
    example = torch.ones(1, 3)
    network = load(module, example=example)
    assert network.output_shape == (2,)
    with pytest.raises(InputError, match="Sequential: give example="):
        load(module)
    program = torch.export.export(module, (example,))
    torch.export.save(program, tmp_path / "p.pt2")
    for source in (program, tmp_path / "p.pt2"):
        again = load(source)
        x = RNG.standard_normal((5, 3)).astype(np.float32)
        np.testing.assert_allclose(again.evaluate(x), network.evaluate(x), rtol=1e-6)


@pytest.mark.parametrize("name", ["s.pt", "s.pth", "s.bin"])
def test_torch_state_is_explained(tmp_path, name):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / name)
    with pytest.raises(InputError, match=r"from_torch\(module, example\)"):
        load(tmp_path / name)
    torch.save(torch.nn.Linear(3, 2), tmp_path / name)  # a pickled module
    with pytest.raises(InputError, match="may run code"):
        load(tmp_path / name)


def test_a_pickle_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    for name in ("a.pt", "a.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(InputError):
            load(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path):
    empty, text = tmp_path / "empty.onnx", tmp_path / "notes.txt"
    empty.touch()
    text.write_text("hello")
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("a.txt", "hello")
    damaged = tmp_path / "d.pt2"
    damaged.write_bytes(other.read_bytes()[:40])
    cases = [
        *((tmp_path / "none.onnx", "no such file"), (tmp_path, "is a directory")),
        *((empty, "is empty"), (text, "no known form"), (other, "no known form")),
        *((damaged, "damaged"), ("", "directory|no such file"), ("a" * 5000, "not a path")),
    ]
    for path, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            load(path)
        assert ".onnx.gz" in str(caught.value) or words == "not a path"


def test_a_program_that_torch_cannot_read(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "p.pt2"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("p/archive_format", "pt2")
    with pytest.raises(TangencyError, match=r"p\.pt2"):
        load(path)


@pytest.mark.parametrize("source", [3, None, [], {}, [1, 2], "", np.eye(2), int])
def test_other_objects(source):
    with pytest.raises(InputError, match="give"):
        load(source)


def test_options_and_examples_that_are_not_taken(network, tmp_path):
    network.save(tmp_path / "n.zip")
    with pytest.raises(InputError, match="option 'batch_axis' does not exist for a file of"):
        load(tmp_path / "n.zip", batch_axis=None)
    with pytest.raises(InputError, match="there are: activation, source"):
        load(LAYERS, nonsense=1)
    with pytest.raises(InputError, match="example= is not used for a list"):
        load(LAYERS, example=np.ones(3))
