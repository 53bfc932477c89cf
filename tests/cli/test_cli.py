"""The command, as a user types it: answers, JSON, files, exit status, one-line errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tangency
from tangency.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RELU, MAXMIN, CONV = (str(EXAMPLES / f"digits_{name}.onnx") for name in ("relu", "maxmin", "conv"))
DATA = str(EXAMPLES / "digits_test.npz")
PNG = b"\x89PNG"

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


def test_help_and_version(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in ("inspect", "certify", "ntk", "activations", "Exit status"):
        assert name in out
    assert run("--version")[1].split()[-1] == tangency.__version__
    for name in ("inspect", "certify", "ntk", "activations"):
        assert run(name, "--help")[0] == 0


def test_inspect(run, tmp_path):
    saved, picture = tmp_path / "net.tangency", tmp_path / "net.png"
    code, out, _ = run("inspect", RELU, "--out", saved, "--plot", picture)
    assert code == 0
    assert "dense" in out
    assert "relu" in out
    assert "3,466 trainable parameters, float32" in out
    assert picture.read_bytes()[:4] == PNG
    first = json.loads(run("inspect", RELU, "--json")[1])
    again = json.loads(run("inspect", saved, "--json")[1])
    assert first["model"]["hash"] == again["model"]["hash"]
    assert [row["op"] for row in first["layers"]] == [row["op"] for row in again["layers"]]


def test_certify_proves_what_it_prints(run, tmp_path):
    out_file, picture = tmp_path / "bound.json", tmp_path / "bound.png"
    code, out, _ = run("certify", MAXMIN, "--out", out_file, "--plot", picture)
    assert code == 0
    assert picture.read_bytes()[:4] == PNG
    answer = json.loads(out_file.read_text())
    assert answer["certified"] is True
    assert answer["norm"] == "2"
    assert answer["certificate"] is None
    assert 0 < answer["lower"] <= answer["upper"]
    assert answer["tangency"] == tangency.__version__
    network = tangency.load(MAXMIN)
    assert answer["model"]["hash"] == network.hash
    # What is printed for a person is rounded up, never down.
    printed = float(re.search(r"upper bound\s+(\S+)\s+certified", out)[1])
    assert answer["upper"] <= printed <= answer["upper"] * (1 + 1e-6)
    # Random pairs never beat the bound.
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (2, 2000, 64))
    wide = network.astype("float64")
    ratios = np.linalg.norm(wide.evaluate(x) - wide.evaluate(y), axis=1)
    ratios /= np.linalg.norm(x - y, axis=1)
    assert ratios.max() <= answer["upper"]


@pytest.mark.parametrize("model", [RELU, CONV])
def test_certify_json_by_product(run, model):
    code, out, _ = run("certify", model, "--method", "product", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["certified"] is True
    assert answer["lower"] <= answer["upper"]
    assert "product" in answer["method"]


def test_certify_robustness(run, tmp_path):
    arrays, picture = tmp_path / "bounds.npz", tmp_path / "r.png"
    args = ("certify", RELU, "--data", DATA, "--eps", "0.02", "--limit", "50")
    code, out, _ = run(*args, "--out", arrays, "--plot", picture)
    assert code == 0
    assert "rounded outward" in out
    assert picture.read_bytes()[:4] == PNG
    answer = json.loads(run(*args, "--json")[1])
    assert 0 < answer["certified_accuracy"] <= answer["attacked_accuracy"]
    assert answer["attacked_accuracy"] <= answer["clean_accuracy"] <= 1
    with np.load(arrays) as file, np.load(DATA) as data:
        assert file["lower"].shape == file["upper"].shape == (50, 10)
        logits = tangency.load(RELU).astype("float64").evaluate(data["x"][:50])
        assert (file["lower"] <= logits).all()
        assert (logits <= file["upper"]).all()
        assert file["verified"].mean() == answer["certified_accuracy"]


def test_ntk(run, tmp_path):
    arrays, picture = tmp_path / "ntk.npz", tmp_path / "ntk.png"
    code, out, _ = run(
        "ntk", CONV, "--data", DATA, "--limit", "12", "--out", arrays, "--plot", picture
    )
    assert code == 0
    assert "eigenvalues" in out
    assert picture.read_bytes()[:4] == PNG
    with np.load(arrays) as file:
        kernel = file["ntk"]
    assert kernel.shape == (12, 12)
    assert kernel.dtype == np.float64
    answer = json.loads(run("ntk", CONV, "--data", DATA, "--limit", "12", "--json")[1])
    assert answer["trace"] == pytest.approx(np.trace(kernel))


def test_activations(run, tmp_path):
    code, out, _ = run("activations")
    assert code == 0
    for name in ("gelu", "relu", "MaxMin"):
        assert name.lower() in out.lower()
    code, out, _ = run("activations", "gelu", "--plot", tmp_path / "gelu.png")
    assert code == 0
    assert "-0.1289" in out
    assert "1.1289" in out
    assert (tmp_path / "gelu.png").read_bytes()[:4] == PNG
    card = json.loads(run("activations", "leaky_relu", "--set", "negative_slope=0.2", "--json")[1])
    assert card["activation"]["params"] == {"negative_slope": 0.2}
    listed = json.loads(run("activations", "--json")[1])
    assert len(listed["activations"]) > 60
    for group in listed["groups"]:  # whatever is listed has a card
        assert group["formula"] in run("activations", group["name"])[1]
    assert json.loads(run("activations", "softmax", "--json")[1])["activation"]["lipschitz"] == 0.5
    assert run("activations", "maxmin", "--set", "x=1")[0] == 2


def write(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_bad_input_is_one_line_and_status_two(run, tmp_path):
    x, y = np.zeros((3, 64), "float32"), np.zeros(3, int)
    text = tmp_path / "words.onnx"
    text.write_text("this is not a model")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "broken.npz").write_bytes(Path(DATA).read_bytes()[:500])
    data = lambda name, **arrays: write(tmp_path / f"{name}.npz", **arrays)  # noqa: E731
    certify = ("certify", RELU, "--eps", "0.1", "--data")
    for args, says in [
        (("inspect", tmp_path / "missing.onnx"), "missing.onnx"),
        (("inspect", text), "words.onnx"),
        (("inspect", tmp_path / "empty.onnx"), "empty.onnx"),
        (("inspect", tmp_path), str(tmp_path)),
        ((*certify, tmp_path / "none.npz"), "none.npz"),
        ((*certify, tmp_path / "broken.npz"), "broken.npz"),
        ((*certify, data("a", z=x)), "has ['z']"),
        ((*certify, data("b", x=x)), "needs labels 'y'"),
        ((*certify, data("c", x=x[:0], y=y[:0])), "x is empty"),
        ((*certify, data("d", x=x.astype(int), y=y)), "x is int64"),
        ((*certify, data("e", x=x[:, :9], y=y)), "the network takes (n, 64)"),
        ((*certify, data("f", x=np.full_like(x, np.nan), y=y)), "NaN"),
        ((*certify, data("g", x=x, y=y + 10)), "10"),
        ((*certify, data("h", x=x, y=y[:2])), "label"),
        (("certify", RELU, "--data", data("i", x=x, y=y), "--eps", "-0.1"), "eps"),
        (("certify", RELU, "--data", data("i", x=x, y=y), "--eps", "nan"), "eps"),
        (("ntk", RELU, "--data", data("j", x=x[:, :9])), "(n, 64)"),
        (("activations", "gelo"), "gelu"),
        (("activations", "relu", "--set", "sharpness=3"), "sharpness"),
        (("inspect", RELU, "--plot", tmp_path / "x.txt"), ".png"),
        (("inspect", RELU, "--activation", "relu"), ".mat"),
        (("inspect", RELU, "--out", tmp_path / "no" / "where"), "where"),
    ]:
        code, out, err = run(*args)
        assert code == 2, (args, out, err)
        assert says in err, (args, err)
        assert len(err.strip().splitlines()) == 1, err
        assert not out


def test_usage_errors_have_status_two(run):
    for args in [
        ("certify", RELU, "--eps", "0.1"),
        ("certify", RELU, "--method", "ibp"),
        ("certify", RELU, "--limit", "3"),
        ("certify", RELU, "--data", DATA, "--eps", "0.1", "--method", "product"),
        ("certify",),
        ("unknown",),
        ("ntk", RELU),
        ("activations", "--plot", "x.png"),
    ]:
        assert run(*args)[0] == 2, args


def test_the_installed_command_answers():
    done = subprocess.run(
        [sys.executable, "-c", "from tangency.cli import main; main()", "inspect", MAXMIN],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "group_sort" in done.stdout


def test_what_is_not_expected_is_no_answer(run, monkeypatch, tmp_path):
    """Status 1 means "not proved" and nothing else."""

    def fails(error):
        def load(*args, **options):
            raise error

        monkeypatch.setattr(tangency.models, "load", load)

    fails(ZeroDivisionError("division\nby zero"))
    code, out, err = run("inspect", RELU)
    assert (code, out) == (3, "")
    assert "Traceback" in err
    last = err.splitlines()[-1]
    assert last == (
        "tangency: unexpected error: ZeroDivisionError: division by zero; please report it"
    )
    code, out, err = run("certify", RELU, "--json")
    assert code == 3
    assert json.loads(out) == {"error": "ZeroDivisionError: division by zero"}
    for error in (MemoryError(), RecursionError("deep"), AssertionError(), OSError(5, "I/O")):
        fails(error)
        assert run("inspect", RELU)[0] == 3
    for error, status in (
        (KeyboardInterrupt(), 130),
        (tangency.InputError("no"), 2),
        (tangency.models.NotProvedError("no"), 1),
    ):
        fails(error)
        code, out, err = run("inspect", RELU)
        assert (code, out) == (status, "")
        assert "Traceback" not in err
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["tangency", "inspect"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2


def test_a_closed_pipe_is_no_answer(tmp_path):
    command = f"import sys; sys.argv = ['tangency', 'inspect', {RELU!r}]\n"
    command += "import tangency.cli; sys.stdin.read(); tangency.cli.main()"
    child = subprocess.Popen(
        [sys.executable, "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdout.close()
    child.stdin.close()
    error = child.stderr.read()
    child.stderr.close()
    assert child.wait() == 141, error
    assert b"Traceback" not in error
