"""Linear relaxations and dual activations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.activations import Activation, get, names
from tangency.models.errors import InputError


def bounded_boxes(record):
    rng = np.random.default_rng(3)
    low = rng.normal(size=40) * 10.0 ** rng.integers(-2, 3, 40)
    high = low + np.abs(rng.normal(size=40)) * 10.0 ** rng.integers(-10, 2, 40)
    marks = np.array([*record.kinks, *record.jumps, 0.0])
    low, high = np.concatenate([low, marks - 1, marks]), np.concatenate([high, marks + 2, marks])
    if record.name == "tan":
        low, high = np.sort(np.stack([low % 1.4, high % 1.4]), axis=0)
    elif record.domain != (-np.inf, np.inf) or record.poles:
        low, high = np.sort(np.stack([np.abs(low) % 0.9, np.abs(high) % 0.9]) + 0.01, axis=0)
    return low, high


@pytest.mark.parametrize("name", names())
def test_activation_relaxation_is_sound(name, exact):
    record = get(name)
    low, high = bounded_boxes(record)
    lines = record.relaxation(low, high)
    for t in (0.0, 0.21, 0.5, 0.83, 1.0):
        x = np.clip(low + t * (high - low), low, high)
        for i, point in enumerate(x):
            y, p = exact.value(record, point), exact.namespace.mpf(point)
            assert exact.namespace.mpf(lines.a_l[i]) * p + lines.b_l[i] <= y, (low[i], high[i], t)
            assert exact.namespace.mpf(lines.a_u[i]) * p + lines.b_u[i] >= y, (low[i], high[i], t)


def test_activation_relaxation_of_relu_is_the_triangle():
    lines = get("relu").relaxation([-1.0, -2.0, 1.0, -3.0], [2.0, 1.0, 3.0, -1.0])
    np.testing.assert_allclose(lines.a_u, [2 / 3, 1 / 3, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(lines.b_u, [2 / 3, 2 / 3, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(lines.a_l, [1.0, 0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(lines.b_l, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "silu", "softplus", "exp", "square"])
def test_activation_relaxation_is_tight(name):
    """The height at the middle is within 2 % of the envelope (by dense sampling)."""
    record = get(name)
    low, high = np.sort(np.random.default_rng(0).uniform(-4, 4, (2, 40)), axis=0)
    low, high = low[high - low > 0.1], high[high - low > 0.1]
    lines = record.relaxation(low, high)
    for left, right, a_l, b_l, a_u, b_u in zip(
        low, high, lines.a_l, lines.b_l, lines.a_u, lines.b_u, strict=True
    ):
        x = np.linspace(left, right, 401)
        y, m = record(x), 0.5 * (left + right)
        slopes = np.linspace(record.slope(x).min(), record.slope(x).max(), 400)
        best_u = min(a * m + np.max(y - a * x) for a in slopes)
        best_l = max(a * m + np.min(y - a * x) for a in slopes)
        size = 0.02 * (y.max() - y.min()) + 1e-9
        assert a_u * m + b_u <= best_u + size
        assert a_l * m + b_l >= best_l - size


@settings(max_examples=30, deadline=None)
@given(st.floats(-50, 50), st.floats(0, 50), st.floats(0, 1))
def test_activation_relaxation_any_box(start, width, t):
    for name in ("gelu", "tanh", "gcu", "hardswish"):
        record = get(name)
        lines = record.relaxation(start, start + width)
        x = min(start + t * width, start + width)
        slack = 1e-12 * (1 + abs(x))
        assert lines.a_l * x + lines.b_l <= record(x) + slack
        assert lines.a_u * x + lines.b_u >= record(x) - slack


def test_activation_relaxation_of_a_users_record():
    record = Activation("wave", lambda nx, x: nx.sin(x) * x)
    lines = record.relaxation([-2.0, 40.0], [1.0, 42.0])
    for i, x in enumerate((np.linspace(-2.0, 1.0, 99), np.linspace(40.0, 42.0, 99))):
        assert (lines.a_u[i] * x + lines.b_u[i] >= record(x) - 1e-12).all()
        assert (lines.a_l[i] * x + lines.b_l[i] <= record(x) + 1e-12).all()
    with pytest.raises(InputError, match="bounded"):
        record.relaxation(-np.inf, 0.0)


def test_activation_dual_of_relu_and_erf():
    rho = np.linspace(-1.0, 1.0, 21)
    arc = (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / (2 * np.pi)
    relu = get("relu").dual(rho)
    assert (np.abs(relu.value - arc) <= relu.error).all()
    erf = get("erf").dual(rho)
    exact = 2 / np.pi * np.arcsin(2 * rho / 3)
    np.testing.assert_allclose(erf.value, exact, atol=1e-11)
    tanh = get("tanh").dual(0.0, 2.0)
    assert abs(tanh.value) <= tanh.error
    with pytest.raises(InputError, match="correlation"):
        get("relu").dual(1.5)
