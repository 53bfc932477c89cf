"""No file runs code: each format with a payload in it ends in one of our errors."""

import io
import json
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from tangency.cli import main
from tangency.models import InputError, TangencyError, from_layers, load

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
