"""Maps of variance and correlation: closed forms, brute-force integrals, the edge of chaos."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from tangency.models.activations import Activation, get
from tangency.models.errors import InputError
from tangency.theory.propagation import (
    DepthMap,
    correlation_rate,
    edge_of_chaos,
    phase,
    universality_class,
)

SMOOTH = ("tanh", "erf", "silu", "gelu", "softplus", "sin")
KINKED = ("relu", "leaky_relu", "elu", "hardtanh", "abs", "relu6")


def average(function, variance: float) -> float:
    """An average by SciPy's adaptive quadrature."""
    root = math.sqrt(variance)

    def weighted(t: float) -> float:
        return float(function(root * t)) * math.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)

    parts = [quad(weighted, k, k + 2.0, epsabs=1e-14, epsrel=1e-12)[0] for k in range(-12, 12, 2)]
    return math.fsum(parts)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("variance", [0.3, 1.7])
def test_variances_and_susceptibilities_match_another_quadrature(name, variance):
    layer, record = DepthMap(name, 1.3, 0.2), get(name)
    second = average(lambda z: record(z) ** 2, variance)
    assert layer.variance(variance) == pytest.approx(0.2 + 1.3 * second, rel=1e-9)
    slope = average(lambda z: record.slope(z) ** 2, variance)
    assert layer.perpendicular(variance) == pytest.approx(1.3 * slope, rel=1e-9)
    # Stein: d/dK E phi^2 = E z phi phi' / K
    stein = average(lambda z: z * record(z) * record.slope(z), variance) / variance
    assert layer.parallel(variance) == pytest.approx(1.3 * stein, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(SMOOTH + KINKED),
    weight=st.floats(0.3, 3.0),
    bias=st.floats(0.0, 1.0),
    variance=st.floats(0.05, 5.0),
)
def test_parallel_is_the_derivative_of_the_variance(name, weight, bias, variance):
    layer = DepthMap(name, weight, bias)
    step = 1e-5 * variance
    ends = layer.variance(np.array([variance - step, variance + step]))
    assert layer.parallel(variance) == pytest.approx(
        float(ends[1] - ends[0]) / (2.0 * step), rel=1e-5, abs=1e-7
    )


def test_correlations_match_random_pairs():
    rng = np.random.default_rng(3)
    q, c = 1.4, 0.3
    u, e = rng.standard_normal((2, 2_000_000)) * math.sqrt(q)
    v = c * u + math.sqrt(1.0 - c * c) * e
    for name in ("relu", "tanh", "elu"):
        layer, record = DepthMap(name, 1.5, 0.3), get(name)
        moments = [np.mean(a * b) for a, b in ((record(u), record(v)), (record(u), record(u)))]
        want = (0.3 + 1.5 * moments[0]) / (0.3 + 1.5 * moments[1])
        assert 1.0 - layer.correlation(1.0 - c, q) == pytest.approx(want, abs=3e-3)


def test_relu_correlation_map_is_the_arc_cosine():
    c = np.linspace(-0.99, 0.999, 50)
    want = (np.sqrt(1.0 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi
    assert np.allclose(1.0 - DepthMap("relu", 2.0).correlation(1.0 - c, 1.0), want, atol=1e-13)


def test_relu_near_one_is_not_lost_to_cancellation():
    delta = 1e-14  # 1 - c of this size is some rounding errors of c
    found = float(DepthMap("relu", 2.0).correlation(delta, 1.0))
    kappa = 2.0 * math.sqrt(2.0) / (3.0 * math.pi)
    assert found - delta == pytest.approx(-kappa * delta**1.5, rel=0.05)


def test_fixed_points():
    assert DepthMap("relu", 1.5, 0.1).fixed_point(7.0) == pytest.approx(0.4, rel=1e-12)
    assert DepthMap("relu", 2.0).fixed_point(7.0) == 7.0
    assert DepthMap("relu", 2.5).fixed_point() == math.inf
    assert DepthMap("tanh", 0.9).fixed_point() == 0.0
    layer = DepthMap("tanh", 2.25, 0.01)
    assert layer.fixed_point() == pytest.approx(layer.variances(1.0, 300)[-1], rel=1e-12)


@settings(max_examples=10, deadline=None)
@given(weight=st.floats(0.3, 4.0), bias=st.floats(0.001, 1.0))
def test_phase_is_what_iteration_shows(weight, bias):
    layer = DepthMap("tanh", weight, bias)
    found = phase(layer)
    deep = layer.correlations(0.3, found.variance, 100)
    if found.name == "ordered" and found.depth_scale < 5.0:
        assert deep[-1] < 1e-7
    if found.name == "chaotic" and found.depth_scale < 5.0:
        assert 1.0 - deep[-1] == pytest.approx(found.correlation, abs=1e-6)
    assert (found.name == "chaotic") == (found.perpendicular > 1.0 + 1e-9)


def test_phases_without_a_positive_fixed_point():
    assert phase(DepthMap("relu", 2.5)).name == "divergent"
    assert phase(DepthMap("exp", 1.0)).name == "divergent"
    assert phase(DepthMap("tanh", 1.0)).name == "critical"
    assert phase(DepthMap("tanh", 0.9)).name == "ordered"
    assert phase(DepthMap("relu", 2.0)).depth_scale == math.inf
    found = phase(DepthMap("sign", 1.0))
    assert found.name == "chaotic"
    assert found.perpendicular == math.inf


def test_depth_scale_is_the_rate_of_the_iteration():
    layer = DepthMap("tanh", 1.0, 0.04)
    found = phase(layer)
    deep = layer.correlations(0.3, found.variance, 60)
    assert -1.0 / math.log(deep[60] / deep[59]) == pytest.approx(found.depth_scale, rel=1e-3)


@pytest.mark.parametrize("name", ["tanh", "silu", "elu", "relu"])
def test_edge_of_chaos_is_critical(name):
    edge = edge_of_chaos(name, [0.2, 1.0, 3.0])
    for q, w, b in zip(edge.variances, edge.weight_variances, edge.bias_variances, strict=True):
        if math.isfinite(w):
            layer = DepthMap(name, float(w), float(b))
            assert layer.perpendicular(q) == pytest.approx(1.0, abs=1e-9)
            assert layer.variance(q) == pytest.approx(q, rel=1e-9)
    assert edge.plot().axes[0].get_title() == f"Edge of chaos, {get(name)}"


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "hardtanh", "tanh", "erf"])
def test_correlation_rate_is_met_by_iteration(name):
    q = 1.0
    edge = edge_of_chaos(name, [q])
    layer = DepthMap(name, float(edge.weight_variances[0]), float(edge.bias_variances[0]))
    rate = correlation_rate(name, q)
    assert rate.power == (2 if name in ("relu", "leaky_relu", "hardtanh") else 1)
    # one step near 1: delta' = delta - delta^2 / constant, or - 2 delta^1.5 / sqrt(constant)
    delta = 1e-6
    fall = delta - float(layer.correlation(delta, q))
    law = delta**2 / rate.constant if rate.power == 1 else 2.0 * delta**1.5 / rate.constant**0.5
    assert fall == pytest.approx(law, rel=0.02)


def test_the_paper_s_constants():
    assert correlation_rate("relu").constant == pytest.approx(9.0 * math.pi**2 / 2.0, rel=1e-12)
    for sigma_b, beta in ((0.05, 39.28), (0.2, 7.08), (0.5, 2.24)):
        low, high = 1e-3, 3.0
        for _ in range(50):
            q = 0.5 * (low + high)
            bias = edge_of_chaos("tanh", [q]).bias_variances[0]
            low, high = (q, high) if bias < sigma_b**2 else (low, q)
        assert correlation_rate("tanh", q).constant == pytest.approx(beta, rel=2e-3)


CLASSES = {
    "relu": ("scale-invariant", 2.0, 0.0),
    "leaky_relu": ("scale-invariant", 2.0 / (1.0 + 1e-4), 0.0),
    "identity": ("scale-invariant", 1.0, 0.0),
    "tanh": ("K* = 0", 1.0, 0.0),
    "sin": ("K* = 0", 1.0, 0.0),
    "erf": ("K* = 0", math.pi / 4.0, 0.0),
    "elu": ("K* = 0", 1.0, 0.0),
    "hardtanh": ("K* = 0", 1.0, 0.0),
    # the book's numbers for its half-stable class
    "silu": ("half-stable", 1.98800468, 0.55514317),
    "gelu": ("half-stable", 1.98305826, 0.17292239),
}


@pytest.mark.parametrize("name", CLASSES)
def test_universality_classes(name):
    found = universality_class(name)
    kind, weight, bias = CLASSES[name]
    assert found.name == kind
    assert found.weight_variance == pytest.approx(weight, rel=1e-7)
    assert found.bias_variance == pytest.approx(bias, abs=1e-8)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "sign", "cos", "exp", "square", "sinh"])
def test_activations_that_are_never_critical(name):
    assert str(universality_class(name)) == "none"


@pytest.mark.parametrize("name", ["silu", "gelu", "mish", "snake"])
def test_half_stable_points_are_critical_both_ways(name):
    found = universality_class(name)
    layer = DepthMap(name, found.weight_variance, found.bias_variance)
    k = found.variance
    assert layer.variance(k) == pytest.approx(k, rel=1e-10)
    assert layer.perpendicular(k) == pytest.approx(1.0, abs=1e-9)
    assert layer.parallel(k) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "power", "strength"),
    [
        ("tanh", 1.0, 2.0),
        ("sin", 1.0, 1.0),
        ("erf", 1.0, 2.0),
        ("sine", 1.0, 900.0),
        ("elu", 0.5, math.sqrt(2.0 / math.pi)),
        ("softsign", 0.5, 4.0 * math.sqrt(2.0 / math.pi)),
    ],
)
def test_decay_of_the_variance_at_k_star_zero(name, power, strength):
    found = universality_class(name)
    assert found.power == power
    assert found.strength == pytest.approx(strength, rel=2e-3)


def test_a_record_of_ones_own():
    own = Activation("bent", lambda nx, x: x - 0.1 * nx.tanh(x) * x)
    found = universality_class(own)
    assert found.name in ("K* = 0", "half-stable", "none")
    assert DepthMap(own, 1.0).variance(1.0) > 0.0


def test_what_is_refused():
    with pytest.raises(InputError, match="whole line"):
        DepthMap("log", 1.0)
    with pytest.raises(InputError, match="weight_variance"):
        DepthMap("relu", 0.0)
    with pytest.raises(InputError, match="bias_variance"):
        DepthMap("relu", 1.0, -1.0)
    with pytest.raises(InputError, match="delta"):
        DepthMap("relu", 1.0).correlation(2.5, 1.0)
    with pytest.raises(InputError, match="no critical"):
        correlation_rate("softplus", 0.1)
    with pytest.raises(InputError, match="overflows"):
        DepthMap("exp", 1.0).parallel(1e6)
    with pytest.raises(InputError, match="linear"):
        correlation_rate("identity")
    with pytest.raises(InputError, match="no activation"):
        universality_class(3)
