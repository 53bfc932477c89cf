"""Information between outputs: quadrature of exact laws, and the growth of the vertex."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.propagation import (
    DepthMap,
    finite_width,
    mixture_information,
    optimal_aspect_ratio,
    output_information,
    universality_class,
    vertex_growth,
)


def log_normal(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """A law of relative variance ``exp(spread) - 1``: deep ReLU networks at fixed ``l / n``."""
    t, weights = np.polynomial.hermite_e.hermegauss(81)
    return np.exp(np.sqrt(spread) * t - spread / 2.0), weights


def deep_linear(width: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The law of ``|z|^2 / n`` of a linear network, a product of chi-squares, on a grid."""
    log = np.linspace(-1.2, 1.2, 161) * np.sqrt(200.0 / width)
    one = np.exp(width / 2.0 * (log - np.exp(log) + 1.0))  # of log(chi^2_n / n), up to a factor
    law = one / one.sum()
    for _ in range(depth - 1):
        law = np.convolve(law, one / one.sum(), mode="same")
    kept = law > 1e-20
    return np.exp(log[kept]), law[kept] / law[kept].sum()


@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 3), (4, 4)])
def test_third_order_is_that_of_the_exact_information(first, second):
    def coefficient(spread: float) -> float:
        v = np.expm1(spread)
        exact = mixture_information(*log_normal(spread), first, second)
        return (v**2 / 8.0 - exact / (first * second)) / v**3

    # the next order, linear in v, taken out twice
    near, middle, far = (coefficient(s) for s in (0.002, 0.004, 0.008))
    limit = (2 * (2 * near - middle) * 2 - (2 * middle - far)) / 3.0
    assert limit == pytest.approx((20.0 + 3.0 * (first + second)) / 48.0, rel=2e-3)


def test_linear_networks_have_the_same_third_order():
    """Their law is exact at every width, and not log-normal."""
    found = []
    for width in (400, 800, 1600):
        variances, weights = deep_linear(width, 3)
        v = (1.0 + 2.0 / width) ** 3 - 1.0
        assert (weights @ variances**2) / (weights @ variances) ** 2 - 1.0 == pytest.approx(
            v, rel=1e-6
        )
        exact = mixture_information(variances, weights, 2, 3)
        found.append((v**2 / 8.0 - exact / 6.0) / v**3)
    far, middle, near = found
    assert (4 * (2 * near - middle) - (2 * middle - far)) / 3.0 == pytest.approx(
        35.0 / 48.0, rel=0.01
    )


def test_quadrature_is_the_information_of_the_density():
    """Two outputs of a two-point mixture, on a grid of the plane."""
    variances, weights = np.array([0.5, 2.0]), np.array([0.7, 0.3])
    z = np.linspace(-14.0, 14.0, 1401)
    step = z[1] - z[0]
    normal = np.exp(-(z**2) / (2.0 * variances[:, None])) / np.sqrt(2 * np.pi * variances[:, None])
    joint = np.einsum("g,gi,gj->ij", weights, normal, normal)
    alone = weights @ normal
    direct = np.sum(joint * np.log(joint / np.outer(alone, alone))) * step**2
    assert mixture_information(variances, weights, 1, 1) == pytest.approx(direct, rel=1e-6)
    # a common factor of all outputs tells nothing
    assert mixture_information(9.0 * variances, weights, 1, 1) == pytest.approx(direct, rel=1e-6)
    assert mixture_information(np.array([3.0]), np.array([1.0]), 2, 5) == pytest.approx(
        0.0, abs=1e-12
    )


def test_the_ratio_is_where_the_cubic_is_greatest_and_the_exact_information_is_not():
    found = optimal_aspect_ratio("relu", outputs=6)
    ratios = np.linspace(0.0, 3.0 * found.ratio, 30_001)
    cubic = output_information(found.growth * ratios, 2, 4)
    assert ratios[np.argmax(cubic)] == pytest.approx(found.ratio, abs=2e-5)
    exact = [
        mixture_information(*log_normal(5.0 * f * found.ratio), 2, 4) for f in (0.5, 1, 2, 8, 64)
    ]
    assert (np.diff(exact) > 0.0).all()
    assert 1.5 < exact[1] / output_information(found.vertex, 2, 4) < 2.0


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sin", "arctan", "elu", "silu"])
def test_growth_is_that_of_the_recursion(name):
    kind = universality_class(name)
    layer = DepthMap(name, kind.weight_variance, kind.bias_variance)
    vertex = finite_width(layer, 600, variance=kind.variance or 1.0).normalised_vertex
    slope = (vertex[-1] - vertex[299]) / 300.0
    assert vertex_growth(name) == pytest.approx(slope, rel=6e-3)


def test_growth_of_what_is_straight_about_0_comes_slowly():
    vertex = finite_width(DepthMap("hardtanh", 1.0), 800).normalised_vertex
    slopes = [(vertex[2 * at] - vertex[at]) / at for at in (50, 150, 390)]
    assert (
        0.5 < slopes[0] < slopes[1] < slopes[2] < vertex_growth("hardtanh") == pytest.approx(2 / 3)
    )


def test_half_stable_activations_have_a_growth_and_no_ratio():
    kind = universality_class("gelu")
    layer = DepthMap("gelu", kind.weight_variance, kind.bias_variance)
    drift = finite_width(layer, 200, variance=kind.variance).kernel_correction
    assert drift[199] / drift[99] == pytest.approx(4.0, rel=0.05)  # quadratic in the depth
    assert vertex_growth("gelu") > 0.0
    with pytest.raises(UnsupportedError, match="drifts"):
        optimal_aspect_ratio("gelu", outputs=2)


def test_what_is_refused():
    with pytest.raises(UnsupportedError, match="no critical"):
        vertex_growth("sigmoid")
    with pytest.raises(InputError, match="outputs"):
        optimal_aspect_ratio("tanh", outputs=1)
    with pytest.raises(InputError, match="empty"):
        output_information(0.1, 0, 2)
    with pytest.raises(InputError, match="positive"):
        mixture_information(np.array([1.0, -1.0]), np.array([0.5, 0.5]), 1, 1)
