"""Gaussian moments and what follows from them."""

import math

import mpmath
import numpy as np
import pytest

from tangency.models.activations import get, names
from tangency.models.errors import InputError

# E phi^2, E phi, E phi', E phi'^2, normalised A, 1/E phi'^2 and the exponent, as measured in the
# reference (section 6).
CARD = {
    "relu": (0.5000, 0.3989, 0.5000, 0.5000, 0.5642, 2.0000),
    "leaky_relu": (0.5000, 0.3950, 0.5050, 0.5000, 0.5585, 1.9998),
    "tanh": (0.3943, 0.0000, 0.6057, 0.4644, 0.0000, 2.1533),
    "sigmoid": (0.2934, 0.5000, 0.2066, 0.0448, 0.9231, 22.3034),
    "erf": (0.4646, 0.0000, 0.6515, 0.5694, 0.0000, 1.7562),
    "sin": (0.4323, 0.0000, 0.6065, 0.5677, 0.0000, 1.7616),
    "elu": (0.6449, 0.1605, 0.7616, 0.6681, 0.1999, 1.4968),
    "softplus": (0.9212, 0.8061, 0.5000, 0.2934, 0.8398, 3.4086),
    "gelu": (0.4252, 0.2821, 0.5000, 0.4559, 0.4326, 2.1937),
    "silu": (0.3558, 0.2066, 0.5000, 0.3795, 0.3464, 2.6352),
    "mish": (0.4523, 0.2404, 0.5637, 0.4791, 0.3574, 2.0873),
    "golu": (0.3196, 0.2589, 0.4126, 0.3475, 0.4579, 2.8777),
    "smelu": (0.5248, 0.4623, 0.5000, 0.3790, 0.6382, 2.6384),
    "sau": (0.5926, 0.4231, 0.6250, 0.4375, 0.5497, 2.2857),
    "snake": (1.3074, 0.4323, 1.0000, 1.4998, 0.3781, 0.6667),
    "crrelu": (0.5036, 0.3989, 0.5035, 0.5036, 0.5622, 1.9858),
    "atlu": (0.3467, 0.2087, 0.5000, 0.3624, 0.3545, 2.7590),
    "apa": (0.2934, 0.5000, 0.2066, 0.0448, 0.9231, 22.3034),
    "tempered_sigmoid": (0.3943, 0.0000, 0.6057, 0.4644, 0.0000, 2.1533),
    "cauchy": (0.6557, 0.6557, 0.3443, 0.5000, 0.8097, 2.0000),
    "elephant": (0.5746, 0.6768, 0.0000, 0.3496, 0.8928, 2.8603),
    "gcu": (0.2970, 0.0000, 0.0000, 1.0000, 0.0000, 1.0000),
    "relu_squared": (1.5000, 0.5000, 0.7979, 2.0000, 0.4082, 0.5000),
    "hardswish": (0.3316, 0.1662, 0.5000, 0.3585, 0.2887, 2.7892),
    "stablemax": (2.0043, 1.2064, 0.7064, 0.6138, 0.8521, 1.6291),
    "gaussian": (0.5774, 0.7071, 0.0000, 0.1925, 0.9306, 5.1962),
    "abs": (1.0000, 0.7979, 0.0000, 1.0000, 0.7979, 1.0000),
    "hermite3": (6.0000, 0.0000, 0.0000, 18.0000, 0.0000, 0.0556),
}
LIMITS = {"tanh": 0.881, "erf": 0.888, "sin": 1.186, "tempered_sigmoid": 0.881}


@pytest.mark.parametrize("name", CARD)
def test_activation_moments_match_the_card(name):
    record = get(name)
    m = record.gaussian_moments()
    found = (m.second, m.mean, m.slope_mean, m.slope_second, m.mean / math.sqrt(m.second))
    np.testing.assert_allclose(found, CARD[name][:5], atol=5.1e-5)
    assert 1.0 / m.slope_second == pytest.approx(CARD[name][5], abs=6e-5)


@pytest.mark.parametrize("name", CARD)
def test_activation_deep_limit_matches_the_card(name):
    limit = get(name).deep_limit()
    if name in LIMITS:
        assert limit.kind == "singular"
        assert limit.exponent == pytest.approx(LIMITS[name], abs=6e-4)
    else:
        assert limit.kind == ("1-NN" if name in ("gcu", "hermite3") else "majority vote")


@pytest.mark.parametrize("variance", [0.25, 4.0])
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "softshrink", "elu", "sine", "sign"])
def test_activation_moments_agree_with_quadrature(name, variance, exact):
    record = get(name) if name != "sine" else get("sine", omega=5.0)
    m = record.gaussian_moments(variance)
    sd = math.sqrt(variance)
    cuts = sorted({-12 * sd, -4 * sd, -2 * sd, 0.0, 2 * sd, 4 * sd, 12 * sd, *record.kinks})

    def expect(f):
        def integrand(x):
            return f(x) * mpmath.exp(-(x**2) / (2 * variance))

        return float(mpmath.quad(integrand, cuts) / mpmath.sqrt(2 * mpmath.pi * variance))

    with mpmath.workdps(20):
        assert m.mean == pytest.approx(expect(lambda x: exact.value(record, x)), abs=1e-9)
        assert m.second == pytest.approx(expect(lambda x: exact.value(record, x) ** 2), abs=1e-9)
        if not record.staircase:
            assert m.slope_mean == pytest.approx(expect(lambda x: exact.slope(record, x)), abs=1e-9)
    assert m.error < 1e-9


@pytest.mark.parametrize("name", names())
def test_activation_stein_identity(name):
    """E phi'(z) = E z phi(z) / variance holds for each activation that has moments."""
    from tangency.models.activations.moments import gaussian_integral

    record = get(name)
    if record.domain != (-math.inf, math.inf) or record.poles or name == "tan":
        with pytest.raises(InputError, match="whole line"):
            record.gaussian_moments()
        return
    m = record.gaussian_moments()
    breaks = (*record.kinks, *record.jumps, *np.arange(-14.0, 14.5, 0.5))
    stein, _ = gaussian_integral(lambda x: x * record(x), 1.0, breaks)
    assert m.slope_mean == pytest.approx(float(stein), abs=1e-9)


def test_activation_critical_initialisation():
    he = get("relu").critical_initialisation(3.0)
    assert (he.weight_variance, he.bias_variance, he.exists) == (2.0, 0.0, True)
    leaky = get("leaky_relu", negative_slope=0.5).critical_initialisation()
    assert leaky.weight_variance == pytest.approx(2.0 / 1.25)
    tanh = get("tanh").critical_initialisation(0.5)
    m = get("tanh").gaussian_moments(0.5)
    assert tanh.weight_variance * m.slope_second == pytest.approx(1.0)
    assert tanh.weight_variance * m.second + tanh.bias_variance == pytest.approx(0.5)
    assert not get("sigmoid").critical_initialisation().exists


def test_activation_moments_refuse_nonsense():
    with pytest.raises(InputError, match="positive"):
        get("relu").gaussian_moments(-1.0)
