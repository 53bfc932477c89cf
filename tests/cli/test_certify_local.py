"""``tangency certify --local``: bounds near samples, as a user types it."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import tangency
from tangency.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RELU, MAXMIN = (str(EXAMPLES / f"digits_{name}.onnx") for name in ("relu", "maxmin"))
DATA = str(EXAMPLES / "digits_test.npz")
NEAR = ("certify", RELU, "--local", DATA, "--eps", "0.02", "--limit")

pytest.importorskip("onnx", reason="the examples are ONNX files")


@pytest.fixture(autouse=True)
def interruptible():
    """Python's own handler: a shell's background process begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tangency", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network of two inputs, saved, and four samples."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(s) for s in ((6, 2), (5, 6), (2, 5))]
    network = tangency.models.from_layers(weights, "relu")
    network.save(folder / "net.tangency")
    np.savez(folder / "x.npz", x=rng.standard_normal((4, 2)))
    return folder


def test_table_and_json(run):
    code, out, err = run(*NEAR, 3)
    assert code == 0
    assert err == ""
    rows = re.findall(r"^ +(\d) +([\d.]+) +([\d.]+) +([\d.]+)", out, re.M)
    assert [int(row[0]) for row in rows] == [0, 1, 2]
    assert "for all x and y within 0.02" in out
    code, out, _ = run(*NEAR, 3, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["certified"] is True
    assert (answer["samples"], answer["bounded"], answer["eps"]) == (3, 3, 0.02)
    for row, result in zip(rows, answer["results"], strict=True):
        assert result["upper"] <= float(row[1]) <= result["upper"] * (1 + 1e-6)
        assert result["lower"] >= float(row[2])
        assert result["lower"] <= result["upper"]
        assert (result["norm"], result["output"], result["certificate"]) == ("2", "2", None)
    everywhere = json.loads(run("certify", RELU, "--json")[1])
    assert all(result["upper"] < everywhere["upper"] for result in answer["results"])


def test_norms_and_margins(run):
    for norm, output in (("inf", "margin:3,5"), ("1", "inf")):
        code, out, _ = run(*NEAR, 1, "--norm", norm, "--output", output, "--json")
        result = json.loads(out)["results"][0]
        assert code == 0
        assert (result["norm"], result["output"]) == (norm, output)
    everywhere = ("certify", RELU, "--norm", "inf", "--output", "margin:3,5", "--time-limit", "3")
    code, out, _ = run(*everywhere, "--json")
    answer = json.loads(out)
    assert (answer["norm"], answer["output"]) == ("inf", "margin:3,5")
    code, out, _ = run(*everywhere)
    assert "with g = f[3] - f[5] for all x and y" in out


def test_one_certificate(run, tmp_path):
    path = tmp_path / "one.cert"
    code, out, _ = run(*NEAR, 1, "--out", path, "--json")
    assert code == 0
    result = json.loads(out)["results"][0]
    assert result["certificate"] == str(path)
    code, out, _ = run("check", path, RELU, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["holds"] is True
    assert answer["bound"] == result["upper"]
    assert "in the box of 64 entries" in answer["claim"]
    assert run("check", path, MAXMIN)[0] == 1


def test_files_of_several(run, small, tmp_path):
    model, data = small / "net.tangency", small / "x.npz"
    near = ("certify", model, "--local", data, "--eps", "0.1")
    folder = tmp_path / "certificates"
    assert run(*near, "--out", folder)[0] == 0
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"sample_{i:04d}.cert" for i in range(4)]
    bounds = []
    for file in files:
        code, out, _ = run("check", file, model, "--json")
        assert code == 0
        bounds.append(json.loads(out)["bound"])
    assert run(*near, "--out", tmp_path / "b.npz")[0] == 0
    with np.load(tmp_path / "b.npz") as arrays:
        assert (arrays["upper"] == bounds).all()
        assert (arrays["lower"] <= arrays["upper"]).all()
    assert run(*near, "--out", tmp_path / "b.json")[0] == 0
    answer = json.loads((tmp_path / "b.json").read_text())
    assert [result["upper"] for result in answer["results"]] == bounds
    code, out, _ = run(*near, "--branch", "--time-limit", "2", "--limit", "2", "--json")
    assert code == 0
    for result, one in zip(json.loads(out)["results"], bounds, strict=False):
        assert result["upper"] <= one * (1 + 1e-4)
        assert result["boxes"] >= 1
    wide = ("certify", model, "--local", data, "--eps", "3", "--branch", "--limit", "1")
    code, out, _ = run(*wide, "--time-limit", "2", "--out", tmp_path / "cut.cert", "--json")
    result = json.loads(out)["results"][0]
    assert code == 0
    assert result["boxes"] > 1
    code, out, _ = run("check", tmp_path / "cut.cert", model, "--json")
    assert code == 0
    assert json.loads(out)["bound"] == result["upper"]


def test_an_interrupt_keeps_what_is_proved(run, small, monkeypatch):
    from tangency.verify.lipschitz import local

    real, calls = local.attack_box, []

    def third(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*args, **options)

    monkeypatch.setattr(local, "attack_box", third)
    near = ("certify", small / "net.tangency", "--local", small / "x.npz", "--eps", "0.1")
    code, out, _ = run(*near)
    assert code == 1
    assert "Interrupted: 2 samples were not bounded" in out
    assert re.search(r"of 2 of 4 samples", out)


def test_an_interrupt_inside_of_the_search(run, monkeypatch):
    from tangency.verify.lipschitz.engine import objective

    real, calls = objective.Objective.evaluate, []

    def late(self, *args, **options):
        calls.append(1)
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)
        return real(self, *args, **options)

    monkeypatch.setattr(objective.Objective, "evaluate", late)
    code, out, _ = run("certify", RELU)
    assert code == 0
    assert "stopped before the search had ended" in out
    calls.clear()
    code, out, _ = run(*NEAR, 3)
    assert code == 1
    assert "stopped early" in out
    assert "Interrupted: 2 samples were not bounded" in out


def test_a_picture_of_both_bounds(run, small, tmp_path):
    near = ("certify", small / "net.tangency", "--local", small / "x.npz", "--eps", "0.1")
    assert run(*near, "--plot", tmp_path / "x.svg")[0] == 0
    assert (tmp_path / "x.svg").read_text().count("<use") >= 8  # a mark for each bound


def test_a_search_goes_on_from_its_checkpoint(run, small, tmp_path, monkeypatch):
    from tangency.verify.lipschitz.engine import objective

    real, calls = objective.Objective.evaluate, []

    def late(self, *args, **options):
        calls.append(1)
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)
        return real(self, *args, **options)

    file = tmp_path / "search.ckpt"
    asked = ("certify", small / "net.tangency", "--checkpoint", file, "--json")
    with monkeypatch.context() as patch:
        patch.setattr(objective.Objective, "evaluate", late)
        code, out, _ = run(*asked)
    assert code == 0
    first = json.loads(out)["upper"]
    assert file.exists()
    code, out, _ = run(*asked)
    assert code == 0
    assert json.loads(out)["upper"] <= first
    assert json.loads(run(*asked[:2], "--json")[1])["upper"] < first
    other = tangency.models.from_layers([np.eye(2), 2 * np.eye(2)], "relu")
    other.save(tmp_path / "other.tangency")
    code, _, err = run("certify", tmp_path / "other.tangency", "--checkpoint", file)
    assert code == 2
    assert "another network" in err


def test_residual_networks_near_samples(run, tmp_path):
    from tangency.models import Builder, activations
    from tangency.models.ops import Add

    rng, builder = np.random.default_rng(0), Builder("float64")
    x = builder.input((1, 2))
    inner = builder.dense(x, rng.standard_normal((4, 2)), np.zeros(4), keys=("a", "b"))
    inner = builder.activation(inner, activations.get("relu"))
    inner = builder.dense(inner, rng.standard_normal((2, 4)), np.zeros(2), keys=("c", "d"))
    builder.finish([builder.elementwise(Add(), x, inner)], source="t").save(tmp_path / "r.tangency")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((2, 2)))
    near = ("certify", tmp_path / "r.tangency", "--local", tmp_path / "x.npz", "--eps", "0.01")
    code, out, _ = run(*near, "--out", tmp_path / "certificates", "--json")
    assert code == 0
    for result in json.loads(out)["results"]:
        assert 0 < result["lower"] <= result["upper"]
        assert run("check", result["certificate"], tmp_path / "r.tangency")[0] == 0


def test_errors(run, small, tmp_path):
    model, data = small / "net.tangency", small / "x.npz"
    near = ("certify", model, "--local", data, "--eps", "0.1")
    np.savez(tmp_path / "wide.npz", x=np.zeros((2, 3)))
    for args, text in (
        (("certify", model, "--local", data), "--eps go together"),
        ((*near, "--data", data), "give one of them"),
        ((*near[:4], "--eps", "-1"), "eps"),
        ((*near, "--out", tmp_path / "x.cert"), "for one sample"),
        ((*near, "--out", tmp_path / "x.txt"), "give a folder"),
        ((*near, "--plot", tmp_path / "x.gif"), "a picture ends in"),
        ((*near, "--checkpoint", tmp_path / "x"), "one global bound"),
        (("certify", model, "--checkpoint", tmp_path / "no" / "x"), "No such file"),
        ((*near, "--method", "ibp"), "ibp"),
        ((*near, "--output", "margin:3"), "margin:I,J"),
        ((*near, "--output", "margin:0,9"), "margin"),
        ((*near, "--time-limit", "0"), "--time-limit"),
        (("certify", model, "--branch"), "--branch"),
        (("certify", model, "--limit", "2"), "--limit"),
        (("certify", model, "--data", data, "--eps", "1", "--output", "1"), "--output"),
        (("certify", model, "--local", tmp_path / "wide.npz", "--eps", "1"), "takes (n, 2)"),
    ):
        code, out, err = run(*args)
        assert code == 2, args
        assert out == ""
        assert text in err, (args, err)
        assert "Traceback" not in err
