"""Parametrisations and residual limits: the theorems' exponents, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tangency.models.errors import InputError
from tangency.theory.propagation import (
    Parametrisation,
    feature_movement,
    linear_feature_limit,
    parametrisation,
    residual_flow,
    sample_residual,
)


@pytest.mark.parametrize(
    ("name", "regime", "exponent"),
    [
        ("mup", "feature learning", 0.0),
        ("ntk", "kernel", 0.5),
        ("standard", "unstable", -1.0),
        ("standard, small steps", "kernel", 0.5),
    ],
)
def test_the_rule_of_regimes(name, regime, exponent):
    found = parametrisation(name)
    assert found.regime == regime
    assert found.feature_exponent == pytest.approx(exponent)


def test_the_symmetry_of_parametrisations():
    """Lemma of the paper: a + theta, b - theta, c - 2 theta is the same network and training."""
    ntk = parametrisation("ntk")
    for theta in (-0.5, 0.3, 1.0):
        moved = Parametrisation(
            "moved",
            tuple(a + theta for a in ntk.a),
            tuple(b - theta for b in ntk.b),
            ntk.c - 2.0 * theta,
        )
        assert moved.regime == ntk.regime
        assert moved.feature_exponent == pytest.approx(ntk.feature_exponent)
        one, two = (feature_movement("tanh", p, (16, 32), steps=3, seeds=2) for p in (ntk, moved))
        assert np.allclose(one.features, two.features, rtol=1e-9)
        assert np.allclose(one.outputs, two.outputs, rtol=1e-9)


def test_a_trivial_parametrisation():
    slow = Parametrisation("slow", (0.0, 0.5, 0.5), (0.0, 0.0, 0.0), 1.0)
    assert slow.regime == "trivial"


def test_feature_movement_by_width():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((8, 16))
    options = {"inputs": x, "targets": np.sign(x[:, 0]), "probe": x[0], "steps": 2, "seeds": 16}
    widths = (64, 128, 256, 512)
    found = {name: feature_movement("tanh", name, widths, **options) for name in ("ntk", "mup")}
    slope, error = found["ntk"].feature_slope
    assert abs(slope + 0.5) < 4.0 * error
    assert slope < -0.25
    slope, error = found["mup"].feature_slope
    assert abs(slope) < 4.0 * error
    assert abs(slope) < 0.1
    assert all(abs(moved.output_slope[0]) < 0.25 for moved in found.values())


def test_gradient_step_against_finite_differences():
    """One step of a width-6 network moves the loss as its gradient says."""
    from tangency.models.activations import get
    from tangency.theory.propagation.features import _Net

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((3, 4)), np.array([1.0, -1.0, 0.5])

    def make() -> _Net:
        scheme = parametrisation("mup")
        return _Net(get("tanh"), scheme, 6, 2, 4, np.random.default_rng(7))

    def loss(net) -> float:
        return float(np.mean((net._forward(x)[-1] - y) ** 2) / 2.0)

    net = make()
    before = [w.copy() for w in net.weights]
    net.step(x, y, 1.0)
    for i, j in ((0, (1, 2)), (1, (3, 0)), (2, (0, 4))):
        sides = []
        for sign in (1.0, -1.0):
            other = make()
            other.weights[i][j] += sign * 1e-6
            sides.append(loss(other))
        gradient = (sides[0] - sides[1]) / 2e-6
        assert before[i][j] - net.weights[i][j] == pytest.approx(gradient, rel=1e-5)


def test_linear_limit_is_the_network_s_own_training():
    """The recursion of second moments, against muP training of the network itself."""
    from tangency.models.activations import get
    from tangency.theory.propagation.features import _Net

    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((5, 3)), rng.standard_normal(5)
    n = 40
    net = _Net(get("identity"), parametrisation("mup"), n, 1, 3, np.random.default_rng(0))
    rows = np.concatenate(
        [
            net.weights[1].T * np.sqrt(n),
            net.weights[0] * np.sqrt(n) / np.sqrt(3),
        ],
        axis=1,
    )
    # inputs enter as x / sqrt(d), so that the learning rate of the first layer is 1/d of it
    scaled = x / np.sqrt(3)
    start = np.concatenate([rows[:, :1], rows[:, 1:] * np.sqrt(3)], axis=1)
    found, _ = linear_feature_limit(
        scaled, y, steps=6, learning_rate=0.2, moments=start.T @ start / n
    )
    for step in range(7):
        want = net._forward(x)[-1][0]
        assert np.allclose(scaled @ found[step], want, atol=1e-10)
        net.step(x, y, 0.2)


def test_linear_limit_fits_the_targets():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6))
    y = rng.standard_normal(4)
    found, _ = linear_feature_limit(x, y, steps=3000, learning_rate=0.05)
    assert np.allclose(x @ found[-1], y, atol=1e-6)


def test_residual_flow_closed_forms():
    flow = residual_flow("relu", covariance=0.2)
    assert np.allclose(flow.first, np.exp(flow.times / 2.0), rtol=1e-8)
    assert flow.covariance[-1] == pytest.approx(0.4966, abs=1e-4)
    assert flow.correlation[-1] == pytest.approx(0.3012, abs=1e-4)
    linear = residual_flow("identity", weight_variance=0.7, first=2.0, second=1.0, covariance=-0.5)
    assert np.allclose(linear.covariance, -0.5 * np.exp(0.7 * linear.times), rtol=1e-8)


def test_residual_networks_tend_to_the_flow():
    flow = residual_flow("relu", covariance=0.2)
    errors = []
    for n in (32, 128):
        found = sample_residual("relu", n, n, covariance=0.2, draws=400, seed=n)
        errors.append(np.sqrt(np.mean((found.covariance - flow.covariance[-1]) ** 2)) * n**0.5)
        assert found.first.mean() == pytest.approx(math.sqrt(math.e), abs=5.0 / n)
    assert max(errors) / min(errors) < 1.4
    exact = (1.0 + 1.0 / 64.0) ** 32  # depth 32 at infinite width
    deep = sample_residual("relu", 128, 32, draws=2000, seed=1)
    spread = deep.first.std() / math.sqrt(2000)
    assert abs(deep.first.mean() - exact) < 5.0 * spread


def test_branches_of_one_over_depth_are_trivial():
    found = sample_residual("relu", 128, 128, branch_power=1.0, covariance=0.2, draws=50)
    assert found.first.mean() == pytest.approx(1.0, abs=0.02)
    assert found.covariance.mean() == pytest.approx(0.2, abs=0.02)


def test_what_is_refused():
    with pytest.raises(InputError, match="mup"):
        parametrisation("mu")
    with pytest.raises(InputError, match="widths"):
        feature_movement("tanh", "ntk", (16,))
    with pytest.raises(InputError, match="of no two inputs"):
        residual_flow("relu", covariance=1.5)
    with pytest.raises(InputError, match="width"):
        sample_residual("relu", 1, 4)
