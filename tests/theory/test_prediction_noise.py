"""The noise floor: where the warning fires, a measured error stands behind it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tangency.models.errors import InputError
from tangency.theory.prediction import (
    Grams,
    NoiseFloorWarning,
    gp_posterior,
    gradient_flow_mse,
    kernel_ridge,
    noise_floor,
)

N = 300


@pytest.fixture(scope="module")
def smooth():
    """A Gram matrix whose spectrum falls below any floor, and targets that it explains."""
    x = np.linspace(0, 1, N)
    exact = np.exp(-((x[:, None] - x) ** 2) / 0.1)
    return exact, np.sin(6 * x)


def noisy(exact, error, seed):
    noise = np.random.default_rng(seed).standard_normal(exact.shape)
    noise = np.triu(noise) + np.triu(noise, 1).T
    return exact * (1 + error * noise)


@pytest.mark.parametrize("error", [1e-3, 4e-7])
def test_the_floor_is_the_norm_of_the_noise(error):
    # A constant kernel is the extreme case: every entry carries noise of the full size.
    exact = np.ones((N, N))
    measured = [
        np.linalg.norm(noisy(exact, error, seed) - exact, 2) / exact.mean() for seed in range(3)
    ]
    floor = noise_floor(exact, error=error)
    np.testing.assert_allclose(measured, floor, rtol=0.1)


def test_the_floor_knows_the_dtype():
    for dtype, error in ((np.float32, 4.05e-7), (np.float64, 7.55e-16), (np.float16, 3.32e-3)):
        got = noise_floor(np.eye(100, dtype=dtype))
        np.testing.assert_allclose(got, 2 * error * 10, rtol=0.01)
    assert noise_floor(np.ones((50, 50, 2, 2), np.float32)) == noise_floor(
        np.eye(100, dtype=np.float32)
    )
    with pytest.raises(InputError, match="Gram"):
        noise_floor(np.ones((2, 3)))


def test_the_warning_stands_where_the_error_is(smooth):
    exact, y = smooth
    error = 4e-7
    floor = noise_floor(exact, error=error)
    y = y + 0.1 * np.random.default_rng(1).standard_normal(N)
    off = {}
    for share in (1e-2, 100.0):
        ridge = share * floor
        truth = kernel_ridge(exact, y, ridge=ridge).coefficients
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                got = kernel_ridge(noisy(exact, error, 2), y, ridge=ridge, error=error).coefficients
                off[share] = np.linalg.norm(got - truth) / np.linalg.norm(truth)
            except InputError as failure:
                assert "not positive definite" in str(failure)  # noqa: PT017
                off[share] = np.inf
        fired = any(issubclass(w.category, NoiseFloorWarning) for w in caught)
        assert fired == (share < 1 and np.isfinite(off[share]))
    assert off[1e-2] > 0.5  # not one digit of the coefficients is right
    assert off[100.0] < 0.02


def test_the_warning_has_the_number_and_points_at_the_caller(smooth):
    exact, y = smooth
    single = (exact + 1e-4 * np.eye(N)).astype(np.float32)
    floor = noise_floor(single)
    with pytest.warns(NoiseFloorWarning, match=f"{floor:.3g}") as caught:
        kernel_ridge(single, y, ridge=floor / 2)
    assert caught[0].filename == __file__
    with pytest.warns(NoiseFloorWarning) as caught:
        gp_posterior(Grams(nngp=(single, single)), y, ridge=floor / 2)
    assert caught[0].filename == __file__
    kernel_ridge(single, y, ridge=2 * floor)  # warnings are errors here
    kernel_ridge(single.astype(np.float64), y, ridge=floor / 2)


def test_without_a_ridge_the_spectrum_decides(smooth):
    exact, y = smooth
    well = (exact + 0.1 * np.eye(N)).astype(np.float32)
    kernel_ridge(well, y)
    ill = exact.astype(np.float32) + np.float32(2e-6) * np.eye(N, dtype=np.float32)
    with pytest.warns(NoiseFloorWarning, match="without a ridge"):
        kernel_ridge(ill, y)
    floor = noise_floor(exact.astype(np.float32))
    indefinite = exact - 3 * floor * np.eye(N)
    with pytest.raises(InputError, match="give ridge >="):
        kernel_ridge(indefinite.astype(np.float32), y)


def test_a_flow_warns_when_it_is_long_enough_to_fit_noise(smooth):
    exact, y = smooth
    grams = Grams(ntk=exact.astype(np.float32))
    floor = noise_floor(grams.ntk.train)
    gradient_flow_mse(grams, y, t=0.5 / floor)
    with pytest.warns(NoiseFloorWarning) as caught:
        gradient_flow_mse(grams, y, t=[1.0, 2 / floor])
    assert caught[0].filename == __file__
    gradient_flow_mse(grams, y, t=np.inf, ridge=2 * floor)
