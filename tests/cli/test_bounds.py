"""``tangency bounds`` as a user types it: boxes, balls, certified accuracy, checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tangency
from tangency.cli import main
from tangency.verify import Box, bound, certify_robust
from tangency.verify.bounds import accuracy
from tangency.verify.bounds.accuracy import certified_accuracy

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RELU = str(EXAMPLES / "digits_relu.onnx")
DATA = str(EXAMPLES / "digits_test.npz")
PNG = b"\x89PNG"

pytest.importorskip("onnx", reason="the examples are ONNX files")


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
def data():
    with np.load(DATA) as file:
        return file["x"][:6], file["y"][:6]


def test_a_box(run, tmp_path):
    out, picture = tmp_path / "b.npz", tmp_path / "b.png"
    code, text, _ = run("bounds", RELU, "--box", "0:0.1", "--out", out, "--plot", picture)
    assert code == 0
    assert "crown, certified" in text
    assert text.count("\n") > 12
    assert picture.read_bytes()[:4] == PNG
    with np.load(out) as found:
        lower, upper = found["lower"][0], found["upper"][0]
    network = tangency.load(RELU)
    x = np.random.default_rng(0).uniform(0, 0.1, (200, 64)).astype("float32")
    y = network.evaluate(x)
    assert (y >= lower - 1e-5).all()
    assert (y <= upper + 1e-5).all()


def test_boxes_are_spelled_in_three_ways(run, tmp_path):
    path = tmp_path / "box.npz"
    np.savez(path, lower=np.zeros(64), upper=np.full(64, 0.1))
    spelled = ["0:0.1", ",".join(["0:0.1"] * 64), path]
    answers = [json.loads(run("bounds", RELU, "--box", box, "--json")[1]) for box in spelled]
    assert answers[0]["certified"] is True
    assert answers[0]["method"] == "crown"
    for answer in answers[1:]:
        assert (answer["lower"], answer["upper"]) == (answers[0]["lower"], answers[0]["upper"])


def test_methods_in_order_of_tightness(run):
    widths = {}
    for method in ("ibp", "crown-ibp", "crown"):
        answer = json.loads(run("bounds", RELU, "--box", "0:0.1", "--method", method, "--json")[1])
        widths[method] = np.subtract(answer["upper"], answer["lower"]).mean()
    assert widths["crown"] < widths["crown-ibp"] < widths["ibp"]


def test_balls(run, data, tmp_path):
    alone = tmp_path / "x.npy"
    np.save(alone, data[0])
    command = ("bounds", RELU, "--data", alone, "--eps", 0.1, "--norm", 2)
    code, text, _ = run(*command)
    assert code == 0
    assert "0.1 in l2 around each" in text
    inner = json.loads(run(*command, "--json")[1])
    box = bound(tangency.load(RELU), Box.around(data[0], 0.1), method="crown")
    assert (np.array(inner["upper"]) <= box.upper).all()


@pytest.mark.parametrize("norm", ["1", "2"])
def test_labels_are_certified_in_every_norm(run, data, norm):
    """With labels the answer is about labels, whatever the norm and however many the radii."""
    how = ("--data", DATA, "--limit", 6, "--norm", norm, "--json")
    code, text, _ = run("bounds", RELU, *how, "--eps", "0.1,0.4", "--attack", "corners")
    assert code == 0
    answer = json.loads(text)
    assert answer["norm"] == f"l{norm}"
    network = tangency.load(RELU)
    for eps, verified in zip(answer["eps"], answer["verified"], strict=True):
        alone = certify_robust(network, *data, eps, norm=norm, method="crown", attack="none")
        assert verified == alone.verified.tolist()
    answer = json.loads(run("certify", RELU, *how, "--eps", "0.1", "--method", "crown")[1])
    assert answer["norm"] == f"l{norm}"
    alone = certify_robust(network, *data, 0.1, norm=norm, method="crown", attack="none")
    assert answer["margin_lower"] == alone.margin_lower.tolist()


def test_certified_accuracy(run, tmp_path, data):
    out, picture = tmp_path / "a.npz", tmp_path / "a.png"
    code, text, _ = run(
        "bounds", RELU, "--data", DATA, "--eps", "0.06,0.01", "--limit", 6, "--attack", "corners",
        "--out", out, "--plot", picture,
    )  # fmt: skip
    assert code == 0
    assert "certified" in text
    assert picture.read_bytes()[:4] == PNG
    with np.load(out) as found:
        assert found["eps"].tolist() == [0.01, 0.06]
        for eps, verified, least in zip(
            found["eps"], found["verified"], found["margin_lower"], strict=True
        ):
            alone = certify_robust(
                tangency.load(RELU), *data, float(eps), method="crown", attack="none"
            )
            assert verified.tolist() == alone.verified.tolist()
            np.testing.assert_array_equal(least, alone.margin_lower)


def test_a_run_goes_on_where_it_was_stopped(tmp_path, data, monkeypatch):
    network, path = tangency.load(RELU), tmp_path / "half.npz"
    options = {"method": "crown", "attack": "none", "batch": 2}
    calls = []
    true = accuracy.certify_robust

    def stopped(*args, **named):
        calls.append(args[1])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return true(*args, **named)

    monkeypatch.setattr(accuracy, "certify_robust", stopped)
    with pytest.raises(KeyboardInterrupt):
        certified_accuracy(network, *data, [0.01, 0.05], checkpoint=path, **options)
    done = []
    resumed = certified_accuracy(
        network,
        *data,
        [0.01, 0.05],
        checkpoint=path,
        progress=lambda *state: done.append(state),
        **options,
    )
    assert len(calls) == 4 + 3  # the three finished batches are not bounded again
    assert done[-1] == (12, 12)
    monkeypatch.setattr(accuracy, "certify_robust", true)
    whole = certified_accuracy(network, *data, [0.01, 0.05], **options)
    np.testing.assert_array_equal(resumed.margin_lower, whole.margin_lower)
    np.testing.assert_array_equal(resumed.verified, whole.verified)
    with pytest.raises(tangency.InputError, match="another network, data set, radii or options"):
        certified_accuracy(network, *data, [0.02], checkpoint=path, **options)


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        ((), 2, "give --box BOX, or --data"),
        (("--box", "0:1", "--data", DATA, "--eps", "1"), 2, "give --box BOX, or --data"),
        (("--data", DATA), 2, "--data and --eps go together"),
        (("--box", "0:1", "--clip", "0:1"), 2, "--clip is for samples"),
        (("--box", "0;1"), 2, "give LO:HI"),
        (("--box", "1:0"), 2, "lower > upper"),
        (("--box", "0:inf"), 2, "corners are finite"),
        (("--box", "0:1,0:1"), 2, "2 ranges, the network takes 64"),
        (("--box", "0:1", "--norm", "2"), 2, "--norm is of a ball"),
        (("--box", "0:1", "--steps", "3"), 2, "--steps is for --method alpha-crown"),
        (("--data", DATA, "--eps", "a"), 2, "give numbers"),
        (("--data", DATA, "--eps", "-0.1"), 2, "eps"),
        (("--data", "nowhere.npz", "--eps", "0.1"), 2, "nowhere.npz"),
    ],
)
def test_errors(run, args, code, reason):
    found, _, err = run("bounds", RELU, *args)
    assert found == code
    assert reason in " ".join(err.split())


def test_another_runs_checkpoint(run, tmp_path):
    path = tmp_path / "run"
    command = ("bounds", RELU, "--data", DATA, "--limit", 2, "--attack", "none", "--eps")
    assert run(*command, "0.01", "--checkpoint", path)[0] == 0
    code, _, err = run(*command, "0.02", "--checkpoint", path)
    assert code == 2
    assert "another network" in err
    path.write_bytes(b"anything")
    code, _, err = run(*command, "0.01", "--checkpoint", path)
    assert code == 2
    assert "not a checkpoint of this version" in err
