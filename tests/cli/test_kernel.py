"""``tangency kernel``: the numbers of the library, files, pictures and one-line errors."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tangency
from tangency.cli import main
from tangency.gpu.engines import available_devices
from tangency.theory.kernels import infinite_kernel
from tangency.theory.prediction import NTKClassifier

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RELU = str(EXAMPLES / "digits_relu.onnx")
DATA = str(EXAMPLES / "digits_test.npz")

pytest.importorskip("onnx", reason="the examples are ONNX files")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tangency", "kernel", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def split(tmp_path):
    with np.load(DATA) as file:
        x, y = file["x"], file["y"]
    paths = tmp_path / "train.npz", tmp_path / "test.npz"
    np.savez(paths[0], x=x[:120], y=y[:120])
    np.savez(paths[1], x=x[120:], y=y[120:])
    return (x, y), paths


def test_it_is_the_library(run, split, tmp_path):
    (x, y), (train, test) = split
    out, picture = tmp_path / "gram.npz", tmp_path / "gram.png"
    code, text, _ = run(
        *(RELU, "--data", train, "--test", test, "--ridge", 1e-3, "--bias-variance", 0.1),
        *("--json", "--out", out, "--plot", picture),
    )
    assert code == 0
    answer = json.loads(text)
    kernel = infinite_kernel(tangency.load(RELU), bias_variance=0.1)
    gram = kernel(x[:120], get="ntk")
    with np.load(out) as file:
        np.testing.assert_array_equal(file["ntk"], gram)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert answer["trace"] == pytest.approx(np.trace(gram))
    assert answer["largest"] == pytest.approx(np.linalg.norm(gram, 2))
    model = NTKClassifier(kernel, ridge=1e-3).fit(x[:120], y[:120])
    assert answer["test"] == model.score(x[120:], y[120:])
    assert answer["test"] > 0.8
    assert answer["leave_one_out"] > 0.8
    assert answer["measure"] == "accuracy"


def test_text_and_the_gaussian_process(run, split):
    code, text, _ = run(RELU, "--data", split[1][0], "--get", "nngp", "--limit", 60)
    assert code == 0
    assert "infinite-width NNGP on 60 samples" in text
    assert "accuracy 0." in text


def test_a_large_matrix_shows_the_time_that_is_left(run, split, tmp_path, monkeypatch):
    x = np.concatenate([split[0][0]] * 3)[:700]
    np.save(tmp_path / "x.npy", x)
    code, text, err = run(RELU, "--data", tmp_path / "x.npy", "--out", tmp_path / "k.npz", "--json")
    assert code == 0
    assert err == ""  # no terminal, no line
    answer = json.loads(text)
    assert answer["device"] == available_devices()[0]
    want = infinite_kernel(tangency.load(RELU), method="reference")(x, get="ntk")
    with np.load(tmp_path / "k.npz") as file:
        np.testing.assert_allclose(file["ntk"], want, rtol=1e-9)
    monkeypatch.setenv("FORCE_COLOR", "1")
    err = run(RELU, "--data", tmp_path / "x.npy", "--device", "cpu")[2]
    assert "NTK on cpu" in err
    assert re.search(r"\d:\d\d:\d\d", err)


@pytest.mark.skipif("cuda" in available_devices(), reason="there is a GPU")
def test_no_device_says_what_to_install(run, split):
    code, _, err = run(RELU, "--data", split[1][0], "--device", "cuda")
    assert code == 2
    assert "CuPy" in err
    assert len(err.strip().splitlines()) == 1


def test_real_targets_are_scored_by_the_share_explained(run, split, tmp_path):
    (x, _), _ = split
    weights = np.random.default_rng(0).standard_normal(64)
    path = tmp_path / "regression.npz"
    np.savez(path, x=x, y=x @ weights)
    answer = json.loads(run(RELU, "--data", path, "--test", path, "--json")[1])
    assert answer["measure"] == "R^2"
    assert 0.5 < answer["leave_one_out"] < answer["test"] <= 1.0


def test_inputs_alone_give_the_kernel_alone(run, split, tmp_path):
    np.save(tmp_path / "x.npy", split[0][0][:20])
    answer = json.loads(run(RELU, "--data", tmp_path / "x.npy", "--json")[1])
    assert answer["shape"] == [20, 20]
    assert "leave_one_out" not in answer


def test_the_noise_floor_is_a_warning_and_not_a_crash(run, split):
    code, _, err = run(RELU, "--data", split[1][0], "--ridge", 1e-17)
    assert code == 0
    assert err.startswith("tangency: warning: ridge=1e-17 is below")


def test_errors_are_one_line(run, split, tmp_path):
    (x, y), (train, test) = split
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "short.npz", x=x, y=y[:5])
    np.savez(tmp_path / "rows.npz", x=x, y=np.eye(10, dtype=int)[y])
    for args, word in (
        (("--data", tmp_path / "x.npy", "--test", test), "no targets"),
        (("--data", tmp_path / "short.npz"), "y is"),
        (("--data", tmp_path / "rows.npz"), "labels"),
        (("--data", train, "--test", tmp_path / "x.npy"), "labels 'y'"),
    ):
        code, _, err = run(RELU, *args)
        assert code == 2
        assert word in err
        assert len(err.strip().splitlines()) == 1
