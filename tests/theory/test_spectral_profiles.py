"""Spectral algorithms against solvers, and the circle against explicit regressions."""

import numpy as np
import pytest

from tangency.models.errors import InputError
from tangency.theory.spectral import (
    CircleModel,
    CutOff,
    GradientDescent,
    GradientFlow,
    Interpolation,
    Ridge,
    spectral_regression,
)

RNG = np.random.default_rng(4)
X = RNG.normal(size=(15, 4))
GRAM = np.exp(-((X[:, None] - X[None]) ** 2).sum(-1))
CROSS, Y = GRAM[:3] * 0.7, RNG.normal(size=(15, 2))


def test_profiles_are_their_algorithms():
    ridge = CROSS @ np.linalg.solve(GRAM + 15 * 0.1 * np.eye(15), Y)
    assert spectral_regression(GRAM, Y, CROSS, Ridge(0.1)) == pytest.approx(ridge, rel=1e-9)
    exact = CROSS @ np.linalg.solve(GRAM, Y)
    assert spectral_regression(GRAM, Y, CROSS, Interpolation()) == pytest.approx(exact, rel=1e-9)
    weights = np.zeros_like(Y)
    for _ in range(70):
        weights -= 0.5 / 15 * (GRAM @ weights - Y)
    descent = spectral_regression(GRAM, Y, CROSS, GradientDescent(70, 0.5))
    assert descent == pytest.approx(CROSS @ weights, rel=1e-9)
    steep = GradientDescent(3, 1.0)(np.array([0.2, 0.7, 1.5]))
    assert steep == pytest.approx([1 - 0.8**3, 1 - 0.3**3, 1 + 0.5**3], rel=1e-12)
    flow = spectral_regression(GRAM, Y, CROSS, GradientFlow(35.0))
    fine = spectral_regression(GRAM, Y, CROSS, GradientDescent(350_000, 1e-4))
    assert fine == pytest.approx(flow, rel=1e-4)
    values, vectors = np.linalg.eigh(GRAM)
    lead = vectors[:, -3:]
    cut = CROSS @ lead / values[-3:] @ lead.T @ Y
    middle = CutOff((values[-3] + values[-4]) / 2 / 15)
    assert spectral_regression(GRAM, Y, CROSS, middle) == pytest.approx(cut, rel=1e-9)


def test_options_are_checked():
    with pytest.raises(InputError, match="diverges"):
        GradientDescent(3, 1.0)(np.array([2.5]))
    for make in (lambda: Ridge(0.0), lambda: GradientFlow(-1.0), lambda: CutOff(np.inf)):
        with pytest.raises(InputError, match="positive"):
            make()
    with pytest.raises(InputError, match="Profile"):
        spectral_regression(GRAM, Y, CROSS, "ridge")
    with pytest.raises(InputError, match="samples"):
        CircleModel(1.5, 1.0).loss(1, Ridge(1.0))
    with pytest.raises(InputError, match="family"):
        CircleModel(1.5, 1.0).optimal(8, "lasso")


@pytest.mark.parametrize("profile", [Ridge(0.05), GradientFlow(9.0), CutOff(0.2), Interpolation()])
def test_the_circle_is_an_average_of_regressions(profile):
    """Kernel and target cut off at a frequency beyond which neither counts; noise and shifts."""
    n, nu, kappa, noise, top = 6, 4.0, 4.0, 0.3, 280
    modes = np.arange(-top, top + 1)
    lam, c = (np.abs(modes) + 1.0) ** -nu, (np.abs(modes) + 1.0) ** (-(kappa + 1) / 2)
    losses = []
    for shift in (
        np.arange(96) / 96 * 2 * np.pi / n
    ):  # a lattice: exact up to frequency 48 n, beyond the cut
        x = shift + 2 * np.pi * np.arange(n) / n
        basis = np.exp(1j * np.outer(x, modes))
        gram = (basis * lam @ basis.conj().T).real
        values, vectors = np.linalg.eigh(gram)
        solve = vectors * (profile(values / n) / values) @ vectors.T
        operator = lam[:, None] * basis.conj().T @ solve  # targets to Fourier coefficients
        bias = np.sum(np.abs(operator @ (basis @ c) - c) ** 2)
        losses.append(0.5 * (bias + noise * np.sum(np.abs(operator) ** 2)))
    model = CircleModel(nu, kappa, noise)
    assert model.loss(n, profile) == pytest.approx(np.mean(losses), rel=1e-5)


def test_optima_are_optimal():
    model = CircleModel(1.5, 2.0, 0.5)
    best = model.optimal(64)
    for family, make in (("ridge", Ridge), ("flow", GradientFlow), ("cut-off", CutOff)):
        found = model.optimal(64, family)
        assert found.loss >= best.loss
        assert model.loss(64, found.profile) == pytest.approx(found.loss, rel=1e-9)
        (value,) = vars(found.profile).values()
        for factor in (0.3, 0.8, 1.3, 3.0):
            assert model.loss(64, make(value * factor)) >= found.loss * (1 - 1e-12)


def test_the_best_of_all_profiles_minimises_the_written_loss():
    """The loss of the module's text from explicit sums, minimised in every g by itself."""
    n, nu, kappa, noise = 12, 3.0, 4.0, 0.5
    sizes = np.abs(np.arange(n)[:, None] + n * np.arange(-3000, 3001)) + 1.0
    values, powers = sizes**-nu, sizes ** (-kappa - 1)
    power, cross = powers.sum(1), (values * powers).sum(1)
    squares = (values**2).sum(1) * (power + noise / n)
    least = 0.5 * np.sum(power - cross**2 / squares)
    assert CircleModel(nu, kappa, noise).optimal(n).loss == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize("kappa", [1.0, 2.0, 5.0])
def test_noiseless_rates(kappa):
    losses = [CircleModel(1.5, kappa).optimal(n).loss for n in (2**15, 2**17)]
    assert -np.diff(np.log(losses))[0] / np.log(4) == pytest.approx(min(kappa, 3.0), abs=0.03)


def test_ridge_saturates_and_flow_does_not():
    def rate(family, kappa):
        losses = [CircleModel(1.5, kappa, 1.0).optimal(n, family).loss for n in (2**14, 2**18)]
        return -np.diff(np.log(losses))[0] / np.log(16)

    assert rate("ridge", 2.0) == pytest.approx(rate("flow", 2.0), abs=0.02)
    assert rate("ridge", 5.0) == pytest.approx(3 / 4, abs=0.03)
    assert rate("flow", 5.0) == pytest.approx(5 / 6, abs=0.03)


def test_noisy_observations_are_the_circle_without_aliasing():
    model = CircleModel(3.0, 4.0, 1.0)
    for profile in (Ridge(1e-3), GradientFlow(1e3)):
        naive = model.observations(4096, profile)
        assert naive == pytest.approx(model.loss(4096, profile), rel=0.02)
