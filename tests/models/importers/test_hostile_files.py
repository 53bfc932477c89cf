"""No file runs code: each format with a payload in it ends in one of our errors."""

import gzip
import io
import json
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from tangency import files
from tangency.cli import main
from tangency.models import InputError, TangencyError, from_layers, load
from tangency.verify import ImplicitLayer

EYE = np.eye(2, dtype="float32")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def ran(tmp_path):
    """The folder that a payload makes; it must not be there in the end."""
    mark = tmp_path / "ran"
    yield mark
    assert not mark.exists()


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["tangency", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), capsys.readouterr().err

    return call


def test_the_payload_runs_where_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "made")))
    assert (tmp_path / "made").exists()


# --- .pt2 -----------------------------------------------------------------------------------


def saved(path):
    """A program of torch.export in a file; its members by name."""
    torch = pytest.importorskip("torch")
    size = {0: torch.export.Dim("b")}
    program = torch.export.export(
        torch.nn.Linear(2, 2), (torch.zeros(3, 2),), dynamic_shapes=(size,)
    )
    torch.export.save(program, str(path))
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def written(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


def member(members, end):
    return next(name for name in members if name.endswith(end))


def torch_file(thing):
    import torch

    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def pickled_inputs(members, mark):
    members[member(members, "sample_inputs/model.pt")] = torch_file(Payload(mark))


def pickled_weight(members, mark):
    name = member(members, "model_weights_config.json")
    table = json.loads(members[name])
    entry = next(iter(table["config"].values()))
    entry["use_pickle"] = True
    members[name] = json.dumps(table).encode()
    members[f"{name.rpartition('/')[0]}/{entry['path_name']}"] = torch_file(Payload(mark))


def pickled_constant(members, mark):
    name = member(members, "model_constants_config.json")
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    members[name] = json.dumps({"config": {"c": {**entry, "tensor_meta": None}}}).encode()
    members[f"{name.rpartition('/')[0]}/opaque_obj_0"] = pickle.dumps(Payload(mark))


def expression(members, mark):
    name = member(members, "models/model.json")
    text = members[name].decode()
    assert "Symbol('" in text
    start = text.index("Symbol('")
    end = text.index('"', start)
    code = f"__import__('os').mkdir('{mark}')"
    members[name] = (text[:start] + code + text[end:]).encode()


def library(members, mark):
    members[member(members, "models/model.json").replace("model.json", "net/model.so")] = b"\x7fELF"


HOSTILE = {
    "sample inputs": (pickled_inputs, "sample_inputs/model.pt"),
    "weight": (pickled_weight, "weights/weight_0"),
    "constant": (pickled_constant, "opaque_obj_0"),
    "expression": (expression, 'expression "__import__'),
    "library": (library, "model.so"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_exported_program(tmp_path, ran, run, name):
    spoil, words = HOSTILE[name]
    path = tmp_path / "net.pt2"
    members = saved(path)
    spoil(members, ran)
    written(path, members)
    with pytest.raises(InputError, match=words):
        load(path)
    status, printed = run("inspect", path)
    assert status == 2
    assert words in printed.replace("\n", " ")


def test_guards_are_not_run(tmp_path, ran):
    path = tmp_path / "net.pt2"
    members = saved(path)
    name = member(members, "models/model.json")
    document = json.loads(members[name])
    document["guards_code"] = [f"__import__('os').mkdir('{ran}') is None"]
    members[name] = json.dumps(document).encode()
    written(path, members)
    assert load(path).input_shape == (2,)


def test_a_member_that_is_there_twice(tmp_path, ran):
    path = tmp_path / "net.pt2"
    members = saved(path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(member(members, "sample_inputs/model.pt"), torch_file(Payload(ran)))
    with pytest.raises(InputError, match="twice"):
        load(path)


def test_an_honest_program_is_read(tmp_path):
    path = tmp_path / "net.pt2"
    saved(path)
    assert load(path).output_shape == (2,)


def test_a_program_without_example_inputs():
    torch = pytest.importorskip("torch")
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    program.example_inputs = None
    with pytest.raises(InputError, match="no example inputs: give example="):
        load(program)
    assert load(program, example=torch.zeros(1, 2)).input_shape == (2,)


# --- other models ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix", [".pt", ".pth", ".bin", ".ckpt", ".mat", ".onnx", ".zip", ".pkl"]
)
def test_pickles_by_any_name(tmp_path, ran, run, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(pickle.dumps(Payload(ran)))
    with pytest.raises(TangencyError):
        load(path)
    assert run("inspect", path)[0] == 2


def test_a_module_of_torch(tmp_path, ran, run):
    pytest.importorskip("torch")
    path = tmp_path / "net.pt"
    path.write_bytes(torch_file(Payload(ran)))
    assert run("inspect", path)[0] == 2


@pytest.mark.parametrize("place", ["/etc/hostname", "../secret.bin", "link.bin"])
def test_external_data_of_another_folder(tmp_path, run, place):
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(4, "float32").tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weight = onnx.TensorProto(name="w", data_type=1, dims=[2, 2])
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", place
    ends = [helper.make_tensor_value_info(n, 1, ["n", 2]) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="external data of initializer 'w' cannot be read"):
        load(path)
    assert run("inspect", path)[0] == 2
    model.graph.initializer[0].external_data[0].value = "beside.bin"
    (folder / "beside.bin").write_bytes(np.ones(4, "float32").tobytes())
    path.write_bytes(model.SerializeToString())
    assert load(path).input_shape == (2,)


def npy(thing):
    buffer = io.BytesIO()
    np.save(buffer, np.array([thing], object), allow_pickle=True)
    return buffer.getvalue()


def own(path):
    from_layers([EYE, EYE], "relu").save(path)
    return path


def test_own_file_with_a_pickled_weight(tmp_path, ran, run):
    path = own(tmp_path / "net.zip")
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["weights/0.npy"] = npy(Payload(ran))
    written(path, members)
    with pytest.raises(InputError):
        load(path)
    assert run("inspect", path)[0] == 2


# --- data, certificates, checkpoints ----------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_data(tmp_path, ran, run, suffix):
    path = tmp_path / f"data{suffix}"
    if suffix == ".npy":
        path.write_bytes(npy(Payload(ran)))
    else:
        written(path, {"x.npy": npy(Payload(ran))})
    status, printed = run("bounds", own(tmp_path / "net.zip"), "--data", path, "--eps", 0.1)
    assert status == 2
    assert "not a .npz or .npy file of arrays" in printed.replace("\n", " ")


@pytest.mark.parametrize("form", ["pickle", "npy", "npz"])
def test_certificate(tmp_path, ran, run, form):
    path = tmp_path / "proof.cert"
    if form == "npz":
        names = ("claim", "header", "data", "meta", "weights")
        written(path, {f"{name}.npy": npy(Payload(ran)) for name in names})
    else:
        path.write_bytes(pickle.dumps(Payload(ran)) if form == "pickle" else npy(Payload(ran)))
    assert run("check", path, own(tmp_path / "net.zip"))[0] == 2


@pytest.mark.parametrize("form", ["pickle", "npz"])
def test_checkpoint(tmp_path, ran, run, form):
    model, data, path = own(tmp_path / "net.zip"), tmp_path / "d.npz", tmp_path / "state"
    np.savez(data, x=np.ones((2, 2), "float32"), y=np.array([0, 1]))
    options = ("bounds", model, "--data", data, "--eps", 0.1, "--checkpoint", path)
    assert run(*options)[0] in (0, 1)
    assert path.exists()
    if form == "npz":
        names = ("header", "verified", "lower", "values", "state")
        written(path, {f"{name}.npy": npy(Payload(ran)) for name in names})
    else:
        path.write_bytes(pickle.dumps(Payload(ran)))
    assert run(*options)[0] == 2


# --- small files that unpack, unfold or allocate without limit ----------------------------------


def calling(path, calls):
    """An ONNX file of functions, each of which calls those listed for it in a row."""
    import onnx

    h = onnx.helper
    opsets = [h.make_opsetid("", 17), h.make_opsetid("d", 1)]
    functions = []
    for i, names in enumerate(calls):
        body = [
            h.make_node(name, [f"t{k}"], [f"t{k + 1}"], domain="" if name == "Relu" else "d")
            for k, name in enumerate(names)
        ]
        functions.append(h.make_function("d", f"f{i}", ["t0"], [f"t{len(names)}"], body, opsets))
    ends = [h.make_tensor_value_info(n, 1, ["N", 4]) for n in "xy"]
    last = h.make_node(f"f{len(calls) - 1}", ["x"], ["y"], domain="d")
    graph = h.make_graph([last], "g", ends[:1], ends[1:])
    model = h.make_model(graph, functions=functions, opset_imports=opsets, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_local_functions_of_onnx_do_not_unfold_without_limit(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    inliner = pytest.importorskip("onnx.inliner")
    path = tmp_path / "f.onnx"
    doubled = [["Relu"], *([f"f{i}"] * 2 for i in range(27))]  # 2^27 nodes
    with pytest.raises(InputError, match=r"function 'f\d+' unfolds to \d+ nodes .* 200000 and"):
        load(calling(path, doubled))
    with pytest.raises(InputError, match=r"function 'f[01]' calls itself"):
        load(calling(path, [["f1"], ["f0"]]))
    inlined = inliner.inline_local_functions(onnx.load(calling(path, doubled[:4])))
    assert len(inlined.graph.node) == 8
    # The 14 calls within functions are counted, too: nobody else limits them.
    monkeypatch.setattr("tangency.models.importers.onnx_read.NODES", 22)
    assert load(calling(path, doubled[:4])).output_shape == (4,)
    monkeypatch.setattr("tangency.models.importers.onnx_read.NODES", 21)
    with pytest.raises(InputError, match="function 'f3' unfolds to 22 nodes"):
        load(calling(path, doubled[:4]))


def test_local_functions_of_onnx_do_not_repeat_their_constants_without_limit(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setattr(files, "UNPACKED", 2**10)
    monkeypatch.setattr(files, "RATIO", 2)
    doubled = [["Relu"], *([f"f{i}"] * 2 for i in range(9))]
    with pytest.raises(InputError, match=r"function 'f\d' unfolds to \d+ nodes and \d+ bytes"):
        load(calling(tmp_path / "f.onnx", doubled))


def packed(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def contents(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture
def small(monkeypatch):
    """Limits that a file of a few kB is beyond."""
    monkeypatch.setattr(files, "UNPACKED", 2**16)


def test_own_file_with_a_header_that_unpacks_without_limit(tmp_path, run, monkeypatch):
    monkeypatch.setattr("tangency.models.file.TEXT_LIMIT", 2**16)
    path = packed(tmp_path / "b.tangency", {"structure.json": b"{" + b" " * 2**17})
    with pytest.raises(InputError, match=r"'structure.json' unpacks to 131073 bytes; 65536 are"):
        load(path)
    assert run("inspect", path)[0] == 2


def test_own_file_with_a_weight_larger_than_its_place(tmp_path):
    path = own(tmp_path / "net.zip")
    members = contents(path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2**16, 2), "float32"))
    members["weights/0.npy"] = buffer.getvalue()
    with pytest.raises(InputError, match=r"'weights/0.npy' unpacks to 524416 bytes"):
        load(packed(path, members))


def test_own_file_of_zeros_is_read_however_small_it_is(tmp_path, small):
    network = from_layers([np.zeros((900, 900))], "relu")  # packed a thousand times smaller
    network.save(tmp_path / "zeros")
    assert (tmp_path / "zeros").stat().st_size < network.weights["layer0.weight"].nbytes / 500
    assert load(tmp_path / "zeros").hash == network.hash


def test_own_file_with_an_input_that_no_memory_holds(tmp_path):
    path = own(tmp_path / "net.zip")
    members = contents(path)
    header = json.loads(members["structure.json"])
    header["nodes"][0]["shape"] = [2**18, 2**18]
    members["structure.json"] = json.dumps(header)
    with pytest.raises(InputError, match=r"has the shape \(262144, 262144\): 2147483648 entries"):
        load(packed(path, members))


def test_an_exported_program_that_unpacks_without_limit(tmp_path, small):
    path = tmp_path / "net.pt2"
    members = saved(path)
    extra = member(members, "sample_inputs/model.pt").replace("model.pt", "zeros")
    with pytest.raises(InputError, match=r"unpacks to \d+; \d+ are accepted"):
        load(packed(path, {**members, extra: bytes(2**23)}))
    bomb = packed(io.BytesIO(), {"a/data.pkl": pickle.dumps(None, 2), "a/data/0": bytes(2**17)})
    members[member(members, "sample_inputs/model.pt")] = bomb.getvalue()
    with pytest.raises(InputError, match=r"model.pt' is more than tensors.*unpacks to"):
        load(packed(path, members, zipfile.ZIP_STORED))


def test_an_exported_program_with_a_long_text(tmp_path, monkeypatch):
    path = tmp_path / "net.pt2"
    saved(path)
    monkeypatch.setattr("tangency.models.importers.pt2.TEXT_LIMIT", 100)
    with pytest.raises(InputError, match=r"json' has \d+ bytes; 100 are accepted"):
        load(path)


class Allocates:
    def __init__(self, cls):
        self.cls = cls

    def __reduce__(self):
        return self.cls, (2**4,)


@pytest.mark.parametrize("name", ["bytearray", "UntypedStorage", "Tensor"])
def test_an_exported_program_whose_pickle_allocates(tmp_path, name):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pt2"
    members = saved(path)
    cls = bytearray if name == "bytearray" else getattr(torch, name)
    members[member(members, "sample_inputs/model.pt")] = torch_file(Allocates(cls))
    written(path, members)
    with pytest.raises(InputError, match=rf"more than tensors.* names \S+ {name}"):
        load(path)


def test_an_exported_program_with_a_pickle_before_an_archive(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pt2"
    members = saved(path)
    bare = io.BytesIO()
    torch.save(bytearray(4), bare, _use_new_zipfile_serialization=False)
    behind = bare.getvalue() + torch_file(torch.ones(2))
    assert torch.load(io.BytesIO(behind), weights_only=True) == bytearray(4)
    assert zipfile.is_zipfile(io.BytesIO(behind))
    members[member(members, "sample_inputs/model.pt")] = behind
    written(path, members)
    with pytest.raises(InputError, match=r"not an archive of torch.save"):
        load(path)


@pytest.mark.parametrize("kind", ["parts", "float16", "parameter", "view"])
def test_what_torch_saves_of_tensors_is_read(tmp_path, kind):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pt2"
    members = saved(path)
    thing = {
        "parts": [torch.arange(3), torch.Size([1]), torch.device("cpu"), torch.float64],
        "float16": torch.ones(2, dtype=torch.bfloat16),
        "parameter": {"a": torch.nn.Parameter(torch.ones(2)), "b": True},
        "view": torch.ones(4, 4, dtype=torch.complex64).T[1:],
    }[kind]
    inputs = member(members, "sample_inputs/model.pt")
    members[inputs.replace("model.pt", "thing.pt")] = torch_file(thing)
    written(path, members)
    assert load(path).output_shape == (2,)


def test_compressed_weights_without_limit(tmp_path, small, run):
    from scipy.io import savemat

    path = tmp_path / "net.mat"
    weights = np.empty((1, 2), object)  # a cell array
    weights[0, 0], weights[0, 1] = np.zeros((400, 400)), np.zeros((400, 400))
    savemat(path, {"W": weights}, do_compression=True)
    with pytest.raises(InputError, match=r"above \d+ bytes"):
        load(path)
    savemat(path, {"W": weights})
    assert load(path).input_shape == (400,)
    path = tmp_path / "net.onnx.gz"
    path.write_bytes(gzip.compress(b"\x08" * 2**20))
    pytest.importorskip("onnx")
    with pytest.raises(InputError, match=r"unpacks to more than \d+ bytes"):
        load(path)
    assert run("inspect", path)[0] == 2


def test_arrays_without_limit(tmp_path, small, run):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((2**17, 2), "float32"), y=np.zeros(2**17, int))
    status, printed = run("bounds", own(tmp_path / "net.zip"), "--data", path, "--eps", 0.1)
    assert status == 2
    assert "unpacks to" in printed
    zeros = {name: np.zeros((400, 400)) for name in "WUC"}
    np.savez_compressed(path, format="tangency-implicit 1", activation="relu", **zeros)
    with pytest.raises(InputError, match=r"not an implicit layer.*unpacks to"):
        ImplicitLayer.load(path)
    np.savez(path, format="tangency-implicit 1", activation="relu", **zeros)
    assert ImplicitLayer.load(path).input_shape == (400,)


def test_a_member_that_states_less_than_it_unpacks_to(tmp_path):
    path = packed(tmp_path / "a.zip", {"a": bytes(2**20)})
    data = path.read_bytes().replace((2**20).to_bytes(4, "little"), (16).to_bytes(4, "little"))
    with zipfile.ZipFile(io.BytesIO(data)) as file, pytest.raises(zipfile.BadZipFile):
        files.read_member(file, "a", 2**20)
    other = packed(tmp_path / "b.zip", {"a": bytes(2**20)}, zipfile.ZIP_BZIP2)
    with other.open("rb") as file, pytest.raises(ValueError, match="'a' is packed by another"):
        files.unzipped(file)
