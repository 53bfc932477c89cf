"""``tangency ntk`` with the sum of logits, the spectrum and random features."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from tangency.cli import cli
from tangency.models import from_layers
from tangency.models.errors import MissingPackageError
from tangency.theory.ntk import empirical_ntk

RNG = np.random.default_rng(3)


@pytest.fixture
def files(tmp_path):
    layers = [(RNG.standard_normal((m, n)), RNG.standard_normal(m)) for n, m in ((4, 8), (8, 3))]
    network = from_layers(layers, "tanh")
    x = RNG.standard_normal((9, 4))
    network.save(tmp_path / "model.tangency")
    np.savez(tmp_path / "data.npz", x=x)
    return network, x, tmp_path


def run(folder, *options):
    names = [str(folder / "model.tangency"), "--data", str(folder / "data.npz")]
    return CliRunner().invoke(cli, ["ntk", *names, *map(str, options)])


def test_sum_reports_its_error(files):
    network, x, folder = files
    answer = json.loads(run(folder, "--outputs", "sum", "--json").stdout)
    want = empirical_ntk(network, x, outputs="sum")
    assert answer["error"] == pytest.approx(want.error)
    assert answer["trace"] == pytest.approx(np.trace(want.ntk))
    assert "relative to the full kernel, on 9 samples" in run(folder, "--outputs", "sum").stdout


def test_spectrum(files):
    network, x, folder = files
    out, plot = folder / "s.npz", folder / "s.png"
    answer = json.loads(run(folder, "--spectrum", 3, "--json", "--out", out, "--plot", plot).stdout)
    want = empirical_ntk(network, x, outputs="full").eigenvalues
    np.testing.assert_allclose(answer["top"], want[:3], rtol=1e-8)
    assert answer["size"] == 27
    assert plot.stat().st_size > 1000
    with np.load(out) as file:
        np.testing.assert_allclose(file["top"], want[:3], rtol=1e-8)
        assert file["weights"].sum() == pytest.approx(1)
    assert "residual" in run(folder, "--spectrum", 1).stdout


def test_features(files):
    _, _, folder = files
    out = folder / "f.npz"
    answer = json.loads(run(folder, "--features", 50, "--json", "--out", out).stdout)
    assert answer["shape"] == [9, 3, 50]
    assert 0 < answer["error"] < 1
    with np.load(out) as file:
        assert file["features"].shape == (9, 3, 50)
    assert "seed 0" in run(folder, "--features", 5).stdout


def test_what_is_refused(files):
    folder = files[2]
    both = run(folder, "--features", 5, "--spectrum", 2)
    assert both.exit_code == 2
    assert "ask for one" in both.output
    drawn = run(folder, "--features", 5, "--plot", folder / "x.png")
    assert drawn.exit_code == 2


@pytest.mark.parametrize("kind", [(), ("--features", 5)])
def test_a_device_that_is_not_there_is_said(files, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "cupy", None)  # its import fails
    done = run(files[2], "--device", "cuda", *kind)
    assert isinstance(done.exception, MissingPackageError) or done.exit_code == 2
    assert "tangency[cuda13]" in str(done.exception) + done.output
    assert run(files[2], "--device", "cpu", "--memory", 1, *kind).exit_code == 0
