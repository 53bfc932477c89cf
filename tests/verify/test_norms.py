"""Proved spectral norms against closed forms, at the cost of one factorisation."""

import math

import numpy as np
import pytest

from tangency.verify.certificate import norms
from tangency.verify.certificate.norms import spectral_norm_bound


def reflection(n, seed):
    v = np.random.default_rng(seed).standard_normal(n)
    return np.eye(n) - 2.0 * np.outer(v, v) / (v @ v)


def turned(values, shape):
    """A full matrix of known singular values, up to rounding errors of 1e-14."""
    middle = np.zeros(shape)
    np.fill_diagonal(middle, values)
    return reflection(shape[0], 1) @ middle @ reflection(shape[1], 2)


CASES = {
    "ones": (np.ones((500, 300)), math.sqrt(500 * 300)),
    "identity": (np.eye(300), 1.0),
    "diagonal": (np.diag(np.linspace(0.0, 1.0, 250)), 1.0),
    "one gap": (turned(np.r_[5.0, np.ones(299)], (300, 420)), 5.0),
    "no gap": (turned(1.0 - 1e-9 * np.arange(260), (400, 260)), 1.0),
    "spread": (turned(np.geomspace(1.0, 1e-12, 200), (200, 200)), 1.0),
    "two equal blocks": (np.kron(np.eye(2), turned(np.linspace(3.0, 1.0, 120), (120, 140))), 3.0),
    "thin": (turned([2.0, 1.0], (2, 900)), 2.0),
}


@pytest.mark.parametrize("name", CASES)
def test_within_a_billionth_after_one_factorisation(name, monkeypatch):
    matrix, true = CASES[name]
    real, asked = norms.is_positive_definite, []

    def counted(*args):
        asked.append(1)
        return real(*args)

    def dear(*args, **options):
        raise AssertionError("a singular value decomposition")

    monkeypatch.setattr(norms, "is_positive_definite", counted)
    monkeypatch.setattr(np.linalg, "svd", dear)
    plain = np.linalg.norm
    monkeypatch.setattr(
        np.linalg,
        "norm",
        lambda x, ord=None, **o: dear() if np.ndim(x) == 2 and ord == 2 else plain(x, ord, **o),
    )
    assert true * (1.0 - 1e-13) <= spectral_norm_bound(matrix) <= true * (1.0 + 1e-9)
    assert len(asked) <= 1 or name == "thin"  # where a factorisation costs nothing
    assert spectral_norm_bound(matrix.T * 2.0**-900) <= true * (1.0 + 1e-9) * 2.0**-900


@pytest.mark.parametrize("guess", [0.0, 0.5, 1.0 - 1e-6, 1.5])
def test_a_wrong_guess_costs_tightness_alone(guess, monkeypatch):
    matrix, true = CASES["one gap"]
    monkeypatch.setattr(norms, "_top_eigenvalue", lambda gram: guess * true**2)
    scale = 2.0 ** norms.scale_exponent(matrix)
    assert true * (1.0 - 1e-13) <= spectral_norm_bound(matrix)
    monkeypatch.setattr(norms, "_top_eigenvalue", lambda gram: guess * (true / scale) ** 2)
    found = spectral_norm_bound(matrix)
    assert true * (1.0 - 1e-13) <= found
    if guess == 1.0 - 1e-6:
        assert found <= true * (1.0 + 1e-6)
