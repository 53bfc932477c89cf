"""Infinite depth against Hermite quadrature, long iteration and references of other making."""

import numpy as np
import pytest

from tangency.models.errors import InputError
from tangency.theory.spectral import (
    deep_correlation,
    deep_kernel_scores,
    depth_limit,
    explicit_activation,
    hilbert_scores,
    nearest_neighbour_scores,
    optimal_sine,
    singular_kernel,
    singular_kernel_scores,
)

PSI = {
    1: lambda t: (t**7 + t) / 2,
    2: lambda t: (t**3 + t) / 2,
    4: lambda t: t**3 / 4 + t**2 / 2 + t / 4,
    8: lambda t: t**3 / 16 + 7 * t**2 / 8 + t / 16,
}


@pytest.mark.parametrize("dimension", PSI)
def test_explicit_activations_have_their_duals_and_exponents(dimension):
    activation = explicit_activation(dimension)
    t = np.linspace(-1, 1, 21)
    assert deep_correlation(activation, 1 - t, 1) == pytest.approx(PSI[dimension](t), abs=1e-12)
    limit = depth_limit(activation)
    assert limit.exponent == pytest.approx(dimension, abs=1e-9)
    # One period of the factor R: distances change by sqrt(B') a layer.
    far = 1e-4
    near = far * limit.slope_second**-5.0
    ratio = singular_kernel(activation, [near**2 / 2, far**2 / 2])
    slope = np.log(ratio[0] / ratio[1]) / np.log(near / far)
    assert slope == pytest.approx(-dimension, abs=1e-3)


@pytest.mark.parametrize("dimension", [1.5, 2, 3, 4, 8, 14])
def test_sines_have_the_exponent_asked_for(dimension):
    sine = optimal_sine(dimension)
    assert depth_limit(sine).exponent == pytest.approx(dimension, rel=1e-8)
    # By quadrature, from the function alone.
    z, w = np.polynomial.hermite_e.hermegauss(150)
    w = w / w.sum()
    omega = dict(sine.record.params)["omega"]
    if omega < 4:
        second = w @ np.sin(omega * z) ** 2
        slope = omega * (w @ np.cos(omega * z))
        squares = omega**2 * (w @ np.cos(omega * z) ** 2)
        alpha = -4 * np.log(abs(slope) / second**0.5) / np.log(squares / second)
        assert alpha == pytest.approx(dimension, rel=1e-6)


def test_published_sine_constants():
    found = [dict(optimal_sine(d).record.params)["omega"] ** 2 for d in (2, 4, 8)]
    assert found == pytest.approx([2.676, 6.13539, 13.8258], rel=2e-4)


def test_taxonomy():
    assert depth_limit("relu").kind == "majority vote"
    assert depth_limit("hermite3").kind == "nearest neighbour"
    assert depth_limit("tanh").exponent == pytest.approx(0.881, abs=1e-3)
    assert depth_limit("sin").exponent == pytest.approx(1.186, abs=1e-3)
    with pytest.raises(InputError, match="linear"):
        depth_limit("identity")
    with pytest.raises(InputError, match="majority"):
        singular_kernel("relu", [0.1])
    with pytest.raises(InputError, match="dimension"):
        explicit_activation(3)
    with pytest.raises(InputError, match="dimension"):
        optimal_sine(1.0)


def test_the_singular_kernel_is_the_limit_of_depth():
    activation = explicit_activation(2)
    delta = np.array([0.01, 0.3, 1.0, 1.7])
    # 45 layers: psi'(0)^45 is 3e-14 and still a normal number.
    deep = deep_correlation(activation, delta, 45) / 0.5**45
    assert singular_kernel(activation, delta) == pytest.approx(deep, rel=1e-9)
    ends = singular_kernel(activation, [0.0, 2.0])
    assert ends.tolist() == [np.inf, -np.inf]


def test_tangent_kernel_by_hand():
    delta = np.array([0.2, 0.9, 1.4])
    t, k = 1 - delta, 1 - delta
    for _ in range(4):
        t, k = PSI[4](t), PSI[4](t) + k * (3 * t**2 / 4 + t + 1 / 4)
    assert deep_correlation(explicit_activation(4), delta, 4, get="ntk") == pytest.approx(k)


def test_the_hilbert_estimate_is_a_weighted_mean():
    angle = np.array([0.1, 0.8, 2.0, 4.0])
    x, y = np.stack([np.cos(angle), np.sin(angle)], 1), np.array([1.0, -1.0, 1.0, 1.0])
    point = np.array([[np.cos(1.3), np.sin(1.3)]])
    weights = np.linalg.norm(x - point, axis=1) ** -1.7
    expected = weights @ y / weights.sum()
    assert hilbert_scores(x, y, point, exponent=1.7) == pytest.approx([expected], rel=1e-10)


@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_a_network_of_two_layers_is_kernel_regression(get):
    rng = np.random.default_rng(1)
    x, x_test = rng.normal(size=(12, 3)), rng.normal(size=(5, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x_test /= np.linalg.norm(x_test, axis=1, keepdims=True)
    y = rng.choice([-1.0, 1.0], 12)

    def kernel(cos):
        one, slope = PSI[2](cos), (3 * cos**2 + 1) / 2
        two, slope_two = PSI[2](one), (3 * one**2 + 1) / 2
        return two if get == "nngp" else two + slope_two * (one + slope * cos)

    expected = kernel(x_test @ x.T) @ np.linalg.solve(kernel(x @ x.T), y)
    found = deep_kernel_scores(x, y, x_test, explicit_activation(2), depth=2, get=get)
    assert found == pytest.approx(expected, rel=1e-7)


def test_classifiers_agree_in_the_limit():
    rng = np.random.default_rng(7)

    def draw(n):
        y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
        x = np.where((y > 0)[:, None], rng.dirichlet([0.5, 0.5, 2.5], n), 0)
        x = np.where((y < 0)[:, None], rng.dirichlet([2.5, 0.1, 0.5], n), x)
        return x / np.linalg.norm(x, axis=1, keepdims=True), y

    (x, y), (x_test, y_test) = draw(250), draw(250)
    activation = explicit_activation(2)
    deep = np.sign(deep_kernel_scores(x, y, x_test, activation, depth=100))
    limit = np.sign(singular_kernel_scores(x, y, x_test, activation))
    hilbert = np.sign(hilbert_scores(x, y, x_test, exponent=2.0))
    assert np.mean(deep == limit) >= 0.996
    assert np.mean(deep == hilbert) >= 0.98
    assert np.mean(deep == y_test) > 0.85
    neighbours = nearest_neighbour_scores(x, y, x_test)
    nearest = np.sign(deep_kernel_scores(x, y, x_test, "hermite3", depth=10))
    # So deep a kernel underflows to 0 between far points, where it has no opinion.
    seen = nearest != 0
    assert seen.mean() > 0.5
    assert np.mean(nearest[seen] == neighbours[seen]) >= 0.99
    # Training inputs keep their labels, and the estimate is scale-free.
    assert (hilbert_scores(x, y, x, exponent=2.0) == y).all()
    assert (singular_kernel_scores(x, y, x, activation) == y).all()
    assert (np.sign(hilbert_scores(x, y, x_test, exponent=400.0)) == neighbours).all()
    with pytest.raises(InputError, match="sphere"):
        hilbert_scores(2 * x, y, x_test, exponent=2.0)
