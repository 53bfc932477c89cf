"""The example networks: one function in three frameworks, trained, small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tangency

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = ("digits_relu", "digits_maxmin", "digits_conv")


@pytest.fixture(scope="module")
def digits():
    spec = importlib.util.spec_from_file_location("digits", EXAMPLES / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def test_set():
    with np.load(EXAMPLES / "digits_test.npz") as file:
        return file["x"], file["y"]


@pytest.mark.parametrize("name", NAMES)
def test_the_three_forms_are_one_function(name, digits, test_set):
    pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    x, y = test_set
    module = digits.torch_model(name)
    module.load_state_dict(torch.load(EXAMPLES / f"{name}.pt", weights_only=True))
    with np.load(EXAMPLES / f"{name}.npz") as file:
        params = {key: file[key] for key in file.files}
    networks = [
        tangency.load(EXAMPLES / f"{name}.onnx"),
        tangency.from_torch(module, x[:1]),
        tangency.from_jax(digits.jax_model(name), x[:1], params=params),
    ]
    with torch.no_grad():
        want = module(torch.tensor(x)).numpy()
    for network in networks:
        np.testing.assert_allclose(network.evaluate(x), want, rtol=1e-4, atol=1e-4)
        assert network.size == sum(p.numel() for p in module.parameters())
    assert (want.argmax(1) == y).mean() > 0.93


def test_they_are_small():
    files = [f for f in EXAMPLES.iterdir() if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 1_000_000
