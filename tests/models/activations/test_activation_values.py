"""Values and derivatives: every namespace agrees, and JAX differentiates without NaN."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tangency.models.activations import get, names
from tangency.models.intervals import Interval
from tangency.models.namespace import jax_namespace

VARIANTS = [
    ("leaky_relu", {"negative_slope": 0.2}),
    ("elu", {"alpha": 0.5}),
    ("celu", {"alpha": 2.0}),
    ("swish", {"beta": 1.5}),
    ("softplus", {"beta": 3.0}),
    ("apa", {"lam": 0.5, "kappa": 2.0}),
    ("xgelu", {"alpha": 0.3}),
    ("xatlu", {"alpha": 0.2}),
    ("elephant", {"a": 0.5, "d": 2.5}),
    ("power", {"n": -2}),
    ("power", {"n": 5}),
    ("clip", {"min": -0.5, "max": float("inf")}),
    ("threshold", {"threshold": 0.5, "value": 20.0}),
    ("sau", {"alpha": 0.0, "sigma": 0.5}),
    ("kan_edge", {"base": 0.0}),
]
ALL = [get(name) for name in names()] + [get(name, **params) for name, params in VARIANTS]


def ordinary_points(record):
    """Points of the domain away from kinks, jumps and poles."""
    low, high = max(record.domain[0], -5.0), min(record.domain[1], 5.0)
    if record.name == "tan":
        low, high = -1.4, 1.4
    x = np.random.default_rng(0).uniform(low + 1e-3, high - 1e-3, 200)
    marks = (*record.kinks, *record.jumps, *record.poles)
    if record.staircase:
        marks += tuple(np.arange(-6.0, 6.5, 0.5))
    for k in marks:
        x = x[np.abs(x - k) > 1e-3]
    return x


@pytest.mark.parametrize("record", ALL, ids=str)
def test_activation_value_and_slope_agree_with_jax(record):
    x = ordinary_points(record)
    with jax.enable_x64(True):

        def function(t):
            return record.value(jax_namespace(), t)

        value = np.asarray(jax.vmap(function)(jnp.asarray(x)))
        slope = np.asarray(jax.vmap(jax.grad(function))(jnp.asarray(x)))
        again = np.asarray(record.slope(jnp.asarray(x)))
    np.testing.assert_allclose(record(x), value, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(record.slope(x), slope, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(again, slope, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("record", ALL, ids=str)
def test_activation_value_agrees_with_high_precision(record, exact):
    x = ordinary_points(record)[:12]
    value = np.array([float(exact.value(record, t)) for t in x])
    slope = np.array([float(exact.slope(record, t)) for t in x])
    np.testing.assert_allclose(record(x), value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(record.slope(x), slope, rtol=1e-11, atol=1e-12)
    assert record(Interval(x)).contains(value).all() or record.staircase


@pytest.mark.parametrize("record", ALL, ids=str)
def test_activation_keeps_float32(record):
    x = ordinary_points(record).astype(np.float32)
    assert record(x).dtype == np.float32
    assert record.slope(x).dtype == np.float32
    assert record(jnp.asarray(x)).dtype == jnp.float32


@pytest.mark.parametrize("record", ALL, ids=str)
def test_activation_gradient_is_never_nan(record):
    if record.domain != (-np.inf, np.inf) or record.poles:
        pytest.skip("not defined everywhere")
    big = 80.0 if record.name in ("exp", "expm1", "sinh", "cosh") else 1000.0
    x = jnp.asarray([-big, 0.0, big, *record.kinks, *record.jumps], jnp.float32)
    slope = jax.vmap(jax.grad(lambda t: record.value(jax_namespace(), t)))(x)
    assert not np.isnan(np.asarray(slope)).any()
    assert not np.isnan(np.asarray(record(x))).any()


@pytest.mark.parametrize("record", ALL, ids=str)
def test_activation_parity_and_homogeneity(record):
    x = ordinary_points(record)
    if record.parity:
        x = x[(-x >= record.domain[0]) & (-x <= record.domain[1])]
        sign = 1.0 if record.parity == "even" else -1.0
        np.testing.assert_allclose(record(-x), sign * record(x), rtol=1e-13, atol=1e-13)
    if record.homogeneous is not None:
        degree = record.homogeneous
        np.testing.assert_allclose(record(3.0 * x), 3.0**degree * record(x), rtol=1e-12)


def test_activation_smooth_joins_have_their_slope():
    for name in ("elu", "celu", "stablemax"):
        assert jax.grad(lambda t, n=name: get(n)(t))(0.0) == 1.0
    assert jax.grad(lambda t: get("relu")(t))(0.0) == 0.0


def test_activation_accepts_numbers_lists_and_integers():
    relu = get("relu")
    assert relu(3) == 3.0
    np.testing.assert_array_equal(relu([-1, 2]), [0.0, 2.0])
    assert np.isnan(relu(np.nan))


TORCH = [
    *("relu", "leaky_relu", "elu", "selu", "celu", "softplus", "mish", "relu6", "hardtanh"),
    *("hardsigmoid", "hardswish", "sigmoid", "tanh", "logsigmoid", "softsign", "tanhshrink"),
    *("softshrink", "hardshrink", "gelu", "silu"),
]


@pytest.mark.parametrize("name", TORCH)
def test_activation_agrees_with_torch(name):
    torch = pytest.importorskip("torch")
    x = np.linspace(-6.0, 6.0, 97)
    ours = get(name)(x)
    theirs = getattr(torch.nn.functional, name)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_activations_import_needs_numpy_alone():
    code = (
        "import sys, tangency.models.activations; "
        "assert not {'jax', 'scipy', 'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
