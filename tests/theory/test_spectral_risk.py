"""Expected errors against simulations, closed forms and the linear algebra of small cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.errors import InputError
from tangency.theory.spectral import (
    deep_feature_risk,
    effective_dimension,
    feature_covariances,
    layer_constants,
    measure_eigenstructure,
    optimal_ridge,
    power_law,
    ridge_risk,
)

VALUES = power_law(1.5, 300)
TARGET = np.sqrt(power_law(1.6, 300))


def simulate(rng, n, k, ridge, noise, draws):
    """Gaussian eigenfunctions, as the theory has them; exact test error of each draw."""
    errors = []
    m = len(VALUES)
    for _ in range(draws):
        x = rng.normal(size=(n, m))
        y = x @ TARGET + math.sqrt(noise) * rng.normal(size=n)
        if math.isinf(k):
            maps = np.sqrt(VALUES) * np.eye(m)
        else:
            maps = np.sqrt(VALUES)[:, None] * rng.normal(size=(m, k)) / math.sqrt(k)
        features = x @ maps
        dual = np.linalg.solve(features @ features.T + ridge * np.eye(n), y)
        learnt = maps @ (features.T @ dual)
        train = np.mean((features @ (features.T @ dual) - y) ** 2)
        errors.append((np.sum((learnt - TARGET) ** 2) + noise, train))
    return np.mean(errors, axis=0), np.std(errors, axis=0) / math.sqrt(draws)


@pytest.mark.parametrize(
    ("n", "k", "ridge", "noise"),
    [(60, math.inf, 0.5, 0.1), (60, 120, 0.5, 0.0), (100, 40, 0.1, 0.2), (60, math.inf, 1e-9, 0.2)],
)
def test_theory_meets_simulation(n, k, ridge, noise):
    rng = np.random.default_rng(5)
    (test, train), (d_test, d_train) = simulate(rng, n, k, ridge, noise, 60)
    risk = ridge_risk(VALUES, TARGET, n, features=k, ridge=ridge, noise=noise)
    # Corrections of relative order 1/n to the theory, and four standard errors of the draws.
    assert abs(risk.test - test) <= 4 * d_test + 0.03 * test
    assert abs(risk.train - train) <= 4 * d_train + 0.03 * train + 1e-12


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 400),
    k=st.one_of(st.just(math.inf), st.integers(2, 400)),
    ridge=st.floats(1e-6, 1e3),
    alpha=st.floats(0.5, 3.0),
)
def test_constants_solve_their_equations(n, k, ridge, alpha):
    values = power_law(alpha, 200)
    risk = ridge_risk(values, np.ones(200), n, features=k, ridge=ridge, noise=0.1)
    z = (values / (values + risk.gamma)).sum()
    assert z + ridge / risk.kappa == pytest.approx(n, rel=1e-6)
    if math.isinf(k):
        assert risk.kappa == risk.gamma
    else:
        assert z + k * risk.kappa / risk.gamma == pytest.approx(k, rel=1e-9)
    assert 0 <= risk.train <= risk.test
    assert risk.overfitting >= 1


def test_isotropic_ridgeless_regression_in_closed_form():
    values, target = np.ones(50), np.full(50, 50**-0.5)
    below = ridge_risk(values, target, 20, noise=0.3)
    # The least-norm interpolant: bias 1 - n/m, variance (n/m) / (1 - n/m), and the noise itself.
    assert below.test == pytest.approx((1 - 0.4) + 0.3 * 0.4 / (1 - 0.4) + 0.3, rel=1e-9)
    above = ridge_risk(values, target, 200, noise=0.3)
    assert above.test == pytest.approx(0.3 / (1 - 50 / 200), rel=1e-9)
    assert above.train == pytest.approx(0.3 * (1 - 50 / 200), rel=1e-9)


def test_many_features_are_the_kernel_and_few_are_regression():
    kernel = ridge_risk(VALUES, TARGET, 64, ridge=0.1, noise=0.1).test
    many = ridge_risk(VALUES, TARGET, 64, features=1e9, ridge=0.1, noise=0.1).test
    assert many == pytest.approx(kernel, rel=1e-6)
    limit = ridge_risk(VALUES, TARGET, 1e9, features=20, noise=0.1)
    near = ridge_risk(VALUES, TARGET, 1e9, features=20, ridge=1e-3, noise=0.1)
    assert near.test == pytest.approx(limit.test, rel=1e-6)
    # As many features as eigenfunctions: plain regression on seven variables.
    plain = ridge_risk(VALUES[:7], TARGET[:7], 40, features=7, noise=0.1)
    assert plain.test == pytest.approx(0.1 / (1 - 7 / 40), rel=1e-9)


def test_more_is_better_at_the_optimal_ridge():
    errors = [
        [optimal_ridge(VALUES, TARGET, n, features=k, noise=0.1).test for k in (16, 64, 256)]
        for n in (16, 64, 256)
    ]
    assert (np.diff(errors, axis=0) < 0).all()
    assert (np.diff(errors, axis=1) < 0).all()
    best = optimal_ridge(VALUES, TARGET, 64, noise=0.1)
    for factor in (0.5, 0.9, 1.1, 2.0):
        other = ridge_risk(VALUES, TARGET, 64, ridge=factor * best.ridge, noise=0.1)
        assert other.test >= best.test


def test_where_the_error_is_infinite_or_input_is_wrong():
    with pytest.raises(InputError, match="samples = features"):
        ridge_risk(VALUES, TARGET, 32, features=32)
    with pytest.raises(InputError, match="coefficients"):
        ridge_risk(VALUES, TARGET[1:], 32)
    with pytest.raises(InputError, match="eigenvalues"):
        ridge_risk(-VALUES, TARGET, 32)
    with pytest.raises(InputError, match="ridge"):
        ridge_risk(VALUES, TARGET, 32, ridge=-1.0)


def test_effective_dimension_of_a_gram_matrix_is_a_trace():
    x = np.random.default_rng(0).normal(size=(12, 5))
    gram = x @ x.T
    smoother = gram @ np.linalg.inv(gram + 12 * 0.3 * np.eye(12))
    assert effective_dimension(gram, 0.3) == pytest.approx(np.trace(smoother), rel=1e-10)
    assert effective_dimension(gram, 0.3, order=2) == pytest.approx(
        np.trace(smoother @ smoother), rel=1e-10
    )
    assert effective_dimension(gram, 0.0) == 5
    with pytest.raises(InputError, match="order"):
        effective_dimension(gram, 0.3, order=3)


def test_the_eigenvalue_exponent_is_found_from_a_gram_matrix():
    rng = np.random.default_rng(2)
    values = power_law(2.0, 20_000)
    x = rng.normal(size=(240, 20_000)) * np.sqrt(values)
    measured = measure_eigenstructure(x @ x.T, x @ np.ones(20_000))
    assert measured.exponent == pytest.approx(2.0, abs=0.1)
    assert measured.powers.sum() == pytest.approx(np.mean((x @ np.ones(20_000)) ** 2), rel=1e-9)
    theory = ridge_risk(values, np.ones(20_000), 240).kappa
    assert measured.kappa[-1] == pytest.approx(theory, rel=0.1)
    with pytest.raises(InputError, match="not positive definite"):
        measure_eigenstructure(np.ones((10, 10)), np.ones(10))


def test_constants_of_deep_tanh_features():
    one, two = layer_constants(["tanh", "tanh"])
    assert (one.linear, two.linear) == pytest.approx((0.6057, 0.7635), abs=1e-4)
    assert (one.noise, two.noise) == pytest.approx((0.1656, 0.0811), abs=1e-4)
    assert two.variance == pytest.approx(0.3943, abs=1e-4)
    with pytest.raises(InputError, match="mean"):
        layer_constants(["relu"])


@pytest.mark.parametrize("labels", ["linear", "sign"])
def test_deep_features_meet_simulation(labels):
    rng = np.random.default_rng(11)
    d, k, n, ridge = 100, 200, 400, 0.5
    weights = [rng.normal(size=(k, d)) / d**0.5, rng.normal(size=(k, k)) / k**0.5]
    teacher, theta = rng.normal(size=(k, d)) / d**0.5, rng.normal(size=k) / k**0.5
    constants = layer_constants(["tanh"] * 2)
    omega, cross = feature_covariances(weights, constants, np.eye(d))
    field, mixed = feature_covariances([teacher], constants[:1], np.eye(d))
    risk = deep_feature_risk(
        omega, cross @ (mixed.T @ theta), theta @ field @ theta, n, ridge=ridge, labels=labels
    )
    found = []
    for _ in range(16):
        x = rng.normal(size=(n + 2000, d))
        f = np.tanh(np.tanh(x @ weights[0].T) @ weights[1].T)
        t = np.tanh(x @ teacher.T) @ theta
        y = t if labels == "linear" else np.sign(t)
        w = np.linalg.solve(f[:n].T @ f[:n] + ridge * np.eye(k), f[:n].T @ y[:n])
        p = f @ w
        found.append(
            (
                np.mean((p[n:] - y[n:]) ** 2),
                np.mean((p[:n] - y[:n]) ** 2),
                np.mean(np.sign(p[n:]) != np.sign(t[n:])),
            )
        )
    theory = np.array([risk.test, risk.train, risk.classification])
    assert np.abs(np.mean(found, axis=0) / theory - 1).max() < 0.05


def test_classification_errors_of_endless_samples_are_angles():
    rng = np.random.default_rng(5)
    factor = rng.normal(size=(6, 7))
    omega = factor[:5] @ factor[:5].T
    overlap, power = factor[:5] @ factor[5], factor[5] @ factor[5]
    few = deep_feature_risk(omega, overlap, power, 1e9, ridge=1e-3)
    best = overlap @ np.linalg.solve(omega, overlap)
    assert few.classification == pytest.approx(np.arccos(np.sqrt(best / power)) / np.pi, rel=1e-5)
    # A ridge beyond all eigenvalues leaves the direction of the overlap itself.
    scale = 1e4 * np.trace(omega)
    much = deep_feature_risk(omega, overlap, power, 1e7, ridge=1e7 * scale)
    cosine = overlap @ overlap / np.sqrt(power * (overlap @ omega @ overlap))
    assert much.classification == pytest.approx(np.arccos(cosine) / np.pi, rel=1e-3)


def test_the_covariances_of_features_are_those_of_samples():
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(40, 60)) / 60**0.5
    omega, cross = feature_covariances([weight], layer_constants(["tanh"]), np.eye(60))
    x = rng.normal(size=(40_000, 60))
    f = np.tanh(x @ weight.T)
    assert np.abs(np.diag(f.T @ f / len(x)) - np.diag(omega)).mean() < 0.03
    assert np.linalg.norm(f.T @ x / len(x) - cross) < 0.12 * np.linalg.norm(cross)
    with pytest.raises(InputError, match="overlap"):
        deep_feature_risk(np.eye(3), np.full(3, 2.0), 1.0, 10, ridge=0.1)
