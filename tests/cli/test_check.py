"""``tangency check``, as a stranger uses it: a file, a model, a verdict and a status."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tangency
from tangency.cli import main
from tangency.models import from_layers
from tangency.verify import lipschitz_bound, read_certificate, write_certificate
from tangency.verify.certificate import file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RELU, MAXMIN, CONV = (str(EXAMPLES / f"digits_{name}.onnx") for name in ("relu", "maxmin", "conv"))

pytest.importorskip("onnx", reason="the examples are ONNX files")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tangency", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The certificate of the MaxMin example, by the command."""
    path = tmp_path_factory.mktemp("cert") / "maxmin.cert"
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "certify", MAXMIN, "--out", path, "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["certificate"] == str(path)
    return path, answer


COMMAND = "from tangency.cli import main; main()"
#: The same where what a search needs cannot be imported.
ALONE = """
import sys
for name in "scipy jax jaxlib cvxpy scs clarabel numba torch matplotlib flint".split():
    sys.modules[name] = None
from tangency.cli import main
main()
"""


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_it_holds_in_a_process_without_the_search(certificate, arguments):
    path, answer = certificate
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "check", path, MAXMIN, *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if not arguments:
        assert done.stdout.startswith("holds: |f(x) - f(y)|_2 <= ")
        assert answer["model"]["hash"] in done.stdout
        return
    found = json.loads(done.stdout)
    assert found["holds"] is True
    assert found["reason"] == ""
    assert found["bound"] == answer["upper"]
    assert found["model"] == {"path": MAXMIN, "hash": answer["model"]["hash"]}
    assert found["tangency"] == tangency.__version__
    printed = float(found["claim"].split("<= ")[1].split()[0])
    assert answer["upper"] <= printed <= answer["upper"] * (1 + 1e-10)
    assert found["seconds"] < max(answer["seconds"], 0.2)


def test_in_exact_arithmetic(run, certificate):
    pytest.importorskip("flint", reason="needs the extra [exact]")
    code, out, _ = run("check", certificate[0], MAXMIN, "--exact")
    assert code == 0
    assert "rational arithmetic" in out


def test_another_model_does_not_hold(run, certificate):
    code, out, _ = run("check", certificate[0], RELU)
    assert code == 1
    assert out.startswith("does not hold: the certificate is for the weights with sha256")
    code, out, _ = run("check", certificate[0], RELU, "--json")
    assert code == 1
    found = json.loads(out)
    assert found["holds"] is False
    assert found["model"]["hash"] == tangency.load(RELU).hash
    assert found["reason"]


def test_a_lowered_bound_does_not_hold(run, certificate, tmp_path):
    held = read_certificate(certificate[0])
    lower = held.bound * (1 - 1e-6)
    witness = replace(held.witness, bound=lower)
    other = replace(held, claim=replace(held.claim, bound=lower), witness=witness)
    file.write(tmp_path / "lower.cert", other)
    code, out, _ = run("check", tmp_path / "lower.cert", MAXMIN)
    assert code == 1
    assert "does not hold: layer 1" in out


def test_bad_input_is_one_line_and_status_2(run, certificate, tmp_path):
    data = certificate[0].read_bytes()
    damaged = bytearray(data)
    damaged[-3] ^= 1
    for name, content, word in (
        ("short", data[:-1], "truncated"),
        ("damaged", bytes(damaged), "sha256"),
        ("later", data.replace(b"certificate 2", b"certificate 99", 1), "version 99"),
        ("text", b"hello", "not a tangency certificate"),
        ("empty", b"", "truncated"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        code, out, err = run("check", path, MAXMIN, "--json")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert word in err
        assert str(path) in err
    assert run("check", tmp_path / "none", MAXMIN)[0] == 2
    assert run("check", certificate[0], tmp_path / "none.onnx")[0] == 2
    code, _, err = run("certify", MAXMIN, "--out", tmp_path / "x.txt")
    assert code == 2
    assert "FILE.cert" in err


def test_convolutions_and_matlab_files(run, tmp_path):
    path = tmp_path / "conv.cert"
    assert run("certify", CONV, "--method", "product", "--out", path)[0] == 0
    code, out, _ = run("check", path, CONV)
    assert code == 0
    assert "found by product" in out
    savemat = pytest.importorskip("scipy.io").savemat
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((4, 3)), rng.standard_normal((2, 4))]
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = weights
    savemat(tmp_path / "net.mat", {"W": cells})
    network = from_layers(weights, "maxmin")
    write_certificate(path, lipschitz_bound(network, attack=False), network)
    assert run("check", path, tmp_path / "net.mat")[0] == 0
    assert run("check", path, tmp_path / "net.mat", "--activation", "relu")[0] == 1


def alone(*args):
    """The command in a process without the search: status and JSON, or the error."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, args)], capture_output=True, text=True
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def forge(path, **changes):
    """The same certificate with another witness, and the bound that it states."""
    held = read_certificate(path)
    witness = replace(held.witness, **changes)
    claim = replace(held.claim, bound=witness.bound)
    forged = path.with_name("forged.cert")
    file.write(forged, replace(held, claim=claim, witness=witness))
    return forged


def test_a_box_in_pieces(run, tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(6, 2), (6, 6), (2, 6)]
    layers = [(rng.standard_normal(s), rng.standard_normal(s[0])) for s in shapes]
    from_layers(layers, "relu").save(tmp_path / "net.tangency")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 2)))
    path, model = tmp_path / "cut.cert", tmp_path / "net.tangency"
    near = ("certify", model, "--local", tmp_path / "x.npz", "--eps", "1", "--branch")
    code, out, _ = run(*near, "--out", path, "--json")
    assert code == 0
    result = json.loads(out)["results"][0]
    assert result["boxes"] > 1
    assert result["certificate"] == str(path)
    code, found = alone("check", path, model, "--json")
    assert (code, found["holds"], found["bound"]) == (0, True, result["upper"])
    assert "in the box of 2 entries" in found["claim"]
    witness = read_certificate(path).witness
    assert len(witness.pieces) > 1
    lower = witness.lower.copy()
    lower[0, 0] += 0.01
    for changes, word in (
        ({"bound": result["upper"] * (1 - 1e-6)}, "its bound"),
        ({"lower": lower}, "is left for it"),
        (
            {
                "lower": witness.lower[1:],
                "upper": witness.upper[1:],
                "pieces": witness.pieces[1:],
            },
            "part",
        ),
    ):
        code, found = alone("check", forge(path, **changes), model, "--json")
        assert (code, found["holds"]) == (1, False)
        assert word in found["reason"]


def test_convolutions_by_frequency(run, tmp_path):
    from tangency.models import Builder, activations
    from tangency.models.ops import Conv

    rng, side = np.random.default_rng(0), 80  # too large to be unrolled
    b = Builder("float64")
    x = b.input((1, 1, side, side))
    for k in range(2):
        weight = {"weight": (f"w{k}", rng.standard_normal((1, 1, 3, 3)))}
        x = b.emit(Conv((1, 1), ((1, 1), (1, 1))), [x], weight)
        x = x if k else b.activation(x, activations.get("relu"))
    b.finish([x]).save(tmp_path / "net.tangency")
    path, model = tmp_path / "conv.cert", tmp_path / "net.tangency"
    code, out, _ = run("certify", model, "--time-limit", "5", "--out", path, "--json")
    answer = json.loads(out)
    assert (code, answer["method"]) == (0, "conv")
    code, found = alone("check", path, model, "--json")
    assert (code, found["holds"], found["bound"]) == (0, True, answer["upper"])
    code, found = alone("check", forge(path, bound=answer["upper"] * (1 - 1e-6)), model, "--json")
    assert (code, found["holds"]) == (1, False)
    assert "exceeds the bound" in found["reason"]
    code, found = alone("check", path, model, "--exact")
    assert code == 2
    assert "exact arithmetic checks chains" in found


def test_the_example_by_frequency_too(run, tmp_path):
    from tangency.verify.lipschitz.conv import conv_bound

    network, path = tangency.load(CONV), tmp_path / "conv.cert"
    bound = conv_bound(network, attack=False, time_limit=None)
    write_certificate(path, bound, network)
    code, out, _ = run("check", path, CONV, "--json")
    assert (code, json.loads(out)["bound"]) == (0, bound.upper)
    assert bound.upper >= lipschitz_bound(network, attack=False, time_limit=None, rtol=1e-2).lipsdp


def test_an_implicit_layer(run, tmp_path):
    from tangency.verify import ImplicitLayer
    from tangency.verify.lipschitz.implicit import implicit_bound

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 6)) / 8
    model = ImplicitLayer(weight, rng.standard_normal((6, 2)), rng.standard_normal((2, 6)))
    bound = implicit_bound(model.W, model.U, model.C, attack=False)
    path, saved = tmp_path / "layer.cert", tmp_path / "layer.npz"
    write_certificate(path, bound, model)
    model.save(saved)
    code, found = alone("check", path, saved, "--json")
    assert (code, found["holds"], found["bound"]) == (0, True, bound.upper)
    assert found["model"] == {"path": str(saved), "hash": model.hash}
    code, found = alone("check", forge(path, bound=bound.upper * (1 - 1e-6)), saved, "--json")
    assert (code, found["holds"]) == (1, False)
    assert "the bound: not proved" in found["reason"]
    ImplicitLayer(weight.T.copy(), model.U, model.C).save(tmp_path / "other.npz")
    code, out, _ = run("check", path, tmp_path / "other.npz")
    assert code == 1
    assert "sha256" in out
    for arguments, word in (
        ((path, RELU), "not an implicit layer"),
        ((path, saved, "--residual"), "without options"),
    ):
        code, out, err = run("check", *arguments)
        assert (code, out) == (2, "")
        assert word in err


DATA = str(EXAMPLES / "digits_test.npz")


@pytest.fixture(scope="module")
def robust(tmp_path_factory):
    """A certificate of robust samples, by the command: 20 asked, some of them proved."""
    path = tmp_path_factory.mktemp("cert") / "robust.cert"
    near = ["--data", DATA, "--eps", "0.04", "--limit", "20", "--method", "crown"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "certify", RELU, *near, "--out", path, "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def test_the_claim_is_compared_with_the_data(run, robust, tmp_path):
    path, answer = robust
    proved = np.flatnonzero(answer["verified"]).tolist()
    unsure = answer["verified"].index(False)
    code, found = alone("check", path, RELU, "--data", DATA, "--eps", "0.04", "--json")
    assert (code, found["holds"], found["samples"]) == (0, True, proved)
    with np.load(DATA) as data:
        x, y = data["x"], data["y"]
    statement, source = found["statement"], found["source"]
    assert statement["labels"] == y[proved].tolist()
    assert statement["region"]["sets"] == len(proved)
    assert float(statement["region"]["half_edges"][0]) >= 0.04
    assert (source["samples"], source["eps"], source["norm"]) == (proved, 0.04, "inf")
    assert f"the labels y are {', '.join(map(str, y[proved]))}" in found["claim"]
    assert statement["region"]["corners_sha256"] in found["claim"]
    code, out, _ = run("check", path, RELU, "--data", DATA, "--eps", "0.04")
    assert code == 0
    assert "the ball around each of the samples 0" in out
    assert "and its label" in out
    code, out, _ = run("check", path, RELU)
    assert code == 0
    assert "the file says, unproved" in out
    np.savez(tmp_path / "other.npz", x=x, y=(y + 1) % 10)
    np.savez(tmp_path / "moved.npz", x=x[1:], y=y[1:])
    unlabelled = tmp_path / "x.npz"
    np.savez(unlabelled, x=x)
    for arguments, reason in (
        ((DATA, "--eps", "0.041"), "leaves out a part of its ball of radius 0.041"),
        ((DATA, "--eps", "0.04", "--samples", "0:20"), "is not claimed"),
        ((DATA, "--eps", "0.04", "--samples", str(unsure)), f"sample {unsure} is not claimed"),
        ((tmp_path / "other.npz", "--eps", "0.04"), "the claim is about the label"),
        ((tmp_path / "moved.npz", "--eps", "0.04"), "leaves out a part"),
    ):
        code, out, _ = run("check", path, RELU, "--data", *arguments)
        assert code == 1
        assert out.startswith("does not hold: sample")
        assert reason in out
    # A smaller ball, and fewer samples, are covered too; clipped balls are parts of whole ones.
    assert run("check", path, RELU, "--data", DATA, "--eps", "0.01")[0] == 0
    few = ("--samples", f"{proved[0]},{proved[1]}:{proved[1] + 1}")
    assert run("check", path, RELU, "--data", DATA, "--eps", "0.04", *few)[0] == 0
    assert run("check", path, RELU, "--data", DATA, "--eps", "0.04", "--clip", "0:16")[0] == 0
    assert run("check", path, RELU, "--data", DATA, "--eps", "0.04", "--norm", "2")[0] == 0
    for arguments, word in (
        (("--data", DATA), "go together"),
        (("--norm", "2"), "give --data and --eps"),
        (("--data", DATA, "--eps", "0.04", "--samples", "a"), "give places"),
        (("--data", DATA, "--eps", "0.04", "--clip", "0"), "give LO:HI"),
        (("--data", unlabelled, "--eps", "0.04"), "needs labels"),
        (("--data", DATA, "--eps", "-1"), "a radius is finite"),
    ):
        code, out, err = run("check", path, RELU, *arguments)
        assert (code, out) == (2, "")
        assert word in err


def test_local_and_clipped_certificates_are_compared_too(run, tmp_path):
    local = ("certify", MAXMIN, "--local", DATA, "--eps", "0.05", "--method", "product")
    assert run(*local, "--limit", "3", "--out", tmp_path / "near")[0] == 0
    path = tmp_path / "near" / "sample_0002.cert"
    code, out, _ = run("check", path, MAXMIN, "--data", DATA, "--eps", "0.05", "--json")
    assert (code, json.loads(out)["samples"]) == (0, [2])
    assert run("check", path, MAXMIN, "--data", DATA, "--eps", "0.06")[0] == 1
    assert run("check", path, MAXMIN, "--data", DATA, "--eps", "0.05", "--samples", "1")[0] == 1
    with np.load(DATA) as data:
        np.savez(tmp_path / "x.npz", x=data["x"][:4])
    near = ("--data", tmp_path / "x.npz", "--eps", "0.5", "--norm", "2")
    path = tmp_path / "clipped.cert"
    assert run("bounds", RELU, *near, "--clip", "0:1", "--out", path)[0] == 0
    code, out, _ = run("check", path, RELU, *near)
    assert code == 1
    assert "leaves out a part of its ball of radius 0.5 in l2; the sets are said to be cut" in out
    code, out, _ = run("check", path, RELU, *near, "--clip", "0:1")
    assert code == 0
    assert "cut with boxes" in out
