"""The differential of the tangent kernel: finite differences, exact laws, and the recursions."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models.activations import get
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.propagation import DepthMap, finite_width, sample_dntk
from tangency.theory.propagation.differential import _contractions

RATES = (0.7, 1.3)  # lambda_W / n of the weights and lambda_b of the biases


def walk(w, b, x):
    """Outputs, tangent kernel and gradients of a tanh network, by hand in NumPy."""
    n = len(x)
    z, phi = w[0] @ x + b[0], x
    grad_w = [np.einsum("ab,j->abj", np.eye(n), phi)]
    grad_b = [np.eye(n)]
    for level in range(1, len(w)):
        phi, slope = np.tanh(z), 1.0 - np.tanh(z) ** 2
        carry = w[level] * slope
        grad_w = [np.einsum("ab,bij->aij", carry, g) for g in grad_w]
        grad_b = [carry @ g for g in grad_b]
        grad_w.append(np.einsum("ab,j->abj", np.eye(n), phi))
        grad_b.append(np.eye(n))
        z = w[level] @ phi + b[level]
    kernel = RATES[0] * sum(np.einsum("aij,bij->ab", g, g) for g in grad_w)
    kernel = kernel + RATES[1] * sum(g @ g.T for g in grad_b)
    return z, kernel, np.stack(grad_w, axis=1), np.stack(grad_b, axis=1)


def test_contractions_are_finite_differences_of_the_tangent_kernel():
    """Steps along gradients: along that of z_k, H_ij moves by dH_ijk + dH_jik."""
    import jax

    rng = np.random.default_rng(0)
    n, eps = 4, 1e-5
    w, b = rng.standard_normal((3, n, n)) / 2.0, rng.standard_normal((3, n)) / 3.0
    x = rng.standard_normal(n)
    z, kernel, grad_w, grad_b = walk(w, b, x)
    moved = np.empty((n, n, n))
    for k in range(n):
        step_w, step_b = eps * RATES[0] * grad_w[k], eps * RATES[1] * grad_b[k]
        ahead, behind = walk(w + step_w, b + step_b, x)[1], walk(w - step_w, b - step_b, x)[1]
        moved[:, :, k] = (ahead - behind) / (2.0 * eps)
    # as Christoffel's symbols follow from a metric: the last two indices of dH commute
    d = (moved + moved.transpose(0, 2, 1) - moved.transpose(2, 0, 1)) / 2.0
    assert np.allclose(d, d.transpose(0, 2, 1), atol=1e-8)
    with jax.enable_x64(True):
        found = [float(s[0]) for s in _contractions(get("tanh"))(w[None], b[None], x, RATES)]
    assert found[0] == pytest.approx(np.trace(kernel) / n, rel=1e-10)
    assert found[1] == pytest.approx(np.einsum("ijj,i->", d, z), rel=1e-6)
    assert found[2] == pytest.approx(np.einsum("iij,j->", d, z), rel=1e-6)


def linear_law(n, depth, c, rate, bias, variance, *, orthogonal):
    """``H``, ``P`` and ``Q`` of linear networks at any width: moments of ``W^T W`` in full."""
    first = variance / c
    m2 = n * variance  # E |z|^2, E |z|^4, E z^T H z and E |z|^2 tr H
    m4 = m2**2 * (1.0 if orthogonal else 1.0 + 2.0 / n)
    h = bias + rate * first
    r, t, p, q = h * m2, n * h * m2, 0.0, 0.0
    for _ in range(depth - 1):
        spread = 0.0 if orthogonal else 1.0
        p, q = (
            c**2 * (p + spread * 2.0 * q / n),
            c**2 * (q + spread * (p + q) / n) + rate * c * r / n,
        )
        h = bias + rate * m2 / n + c * h
        r, t = (
            bias * c * m2 + rate * c * m4 / n + c**2 * (r + spread * (r + t) / n),
            n * bias * c * m2 + rate * c * m4 + c**2 * (t + spread * 2.0 * r / n),
        )
        m2, m4 = c * m2, c**2 * m4 * (1.0 + spread * 2.0 / n)
    return h, p, q


def test_orthogonal_linear_networks_are_deterministic():
    n, depths = 6, (2, 4)
    layer = DepthMap("identity", 1.3)
    options = {"variance": 0.8, "ntk_bias": 0.4, "ntk_weight": 0.9}
    found = sample_dntk(layer, n, depths, weights="orthogonal", draws=3000, seed=1, **options)
    law = [linear_law(n, d, 1.3, 0.9, 0.4, 0.8, orthogonal=True) for d in depths]
    for values, wanted in zip((found.ntk, found.p, found.q), zip(*law, strict=True), strict=True):
        assert np.allclose(values, wanted, rtol=1e-10, atol=1e-10)
    assert found.q_error.max() < 1e-10
    assert found.q[1] > found.q[0] > 0.1


def test_gaussian_linear_networks_follow_their_exact_law():
    n, depths = 6, (2, 4)
    options = {"variance": 0.8, "ntk_bias": 0.4, "ntk_weight": 0.9}
    found = sample_dntk(DepthMap("identity", 0.9), n, depths, draws=3000, seed=2, **options)
    law = [linear_law(n, d, 0.9, 0.9, 0.4, 0.8, orthogonal=False) for d in depths]
    _, p, q = (np.array(values) for values in zip(*law, strict=True))
    assert (np.abs(found.p - p) < 4.0 * found.p_error + 1e-12).all()
    assert (np.abs(found.q - q) < 4.0 * found.q_error).all()
    assert p[1] > 6.0 * found.p_error[1]  # it could fail
    assert q[1] > 6.0 * found.q_error[1]
    # and the first order in 1/n is that of the recursions
    wide = linear_law(10**6, 4, 0.9, 0.9, 0.4, 0.8, orthogonal=False)
    theory = finite_width(DepthMap("identity", 0.9), 4, **options)
    assert theory.q[-1] == pytest.approx(wide[2], rel=1e-5)
    assert theory.p[-1] == pytest.approx(0.0, abs=1e-12)


def test_one_hidden_layer_is_exact_at_every_width():
    """Gaussian preactivations, or a coordinate of the sphere: one-dimensional averages."""
    n, c, k, rate, bias = 6, 1.2, 0.9, 0.8, 0.3
    layer = DepthMap("tanh", c)
    options = {"variance": k, "ntk_bias": bias, "ntk_weight": rate}
    h = bias + rate * k / c
    u = np.linspace(-1.0, 1.0, 20_001)
    density = (1.0 - u**2) ** ((n - 3) / 2.0)
    phi = np.tanh(np.sqrt(n * k) * u)
    slope, bend = 1.0 - phi**2, -2.0 * phi * (1.0 - phi**2)
    kept = (c * h) ** 2 * np.sum(density * phi * slope**2 * bend) / density.sum() * n / (n + 2.0)
    crossed = rate * c * h * np.sum(density * (phi * slope) ** 2) / density.sum()
    theory = finite_width(layer, 2, **options)
    wanted = {
        "gaussian": (theory.p[1], theory.q[1]),
        "orthogonal": (kept, kept + crossed),
    }
    for weights, (p, q) in wanted.items():
        found = sample_dntk(layer, n, [2], weights=weights, draws=3000, seed=3, **options)
        assert abs(found.p[0] - p) < 4.0 * found.p_error[0] < 0.3 * abs(p), weights
        assert abs(found.q[0] - q) < 4.0 * found.q_error[0] < 0.3 * abs(q), weights
    assert abs(wanted["gaussian"][0] - kept) > 0.1 * abs(kept)  # the two are told apart


def test_recursions_match_random_networks():
    n, options = 32, {"variance": 0.9, "ntk_bias": 0.6, "ntk_weight": 0.8}
    layer = DepthMap("silu", 1.6, 0.2)
    theory = finite_width(layer, 4, **options)
    found = sample_dntk(layer, n, [4], draws=400, seed=4, **options)
    size = max(abs(theory.p[3]), abs(theory.q[3]))
    for value, error, wanted in (
        (found.p[0], found.p_error[0], theory.p[3]),
        (found.q[0], found.q_error[0], theory.q[3]),
    ):
        # the next order in 1/n is some multiples of 1/32 of the larger of the two
        slack = 4.0 * error + 0.1 * size
        assert abs(value - wanted) < slack < 0.5 * size


def test_orthogonal_weights_stop_the_growth():
    found = {
        kind: sample_dntk(DepthMap("tanh", 1.0), 16, [20], weights=kind, draws=100, seed=5)
        for kind in ("gaussian", "orthogonal")
    }
    ratio = {kind: float((s.p / s.ntk**2)[0]) for kind, s in found.items()}
    assert -0.4 < ratio["orthogonal"] < -0.25
    assert ratio["gaussian"] < 2.5 * ratio["orthogonal"]


def test_what_is_refused():
    layer = DepthMap("tanh", 1.0)
    with pytest.raises(InputError, match="width"):
        sample_dntk(layer, 1, [2])
    with pytest.raises(InputError, match="depths"):
        sample_dntk(layer, 4, [])
    with pytest.raises(InputError, match="gaussian"):
        sample_dntk(layer, 4, [2], weights="sparse")
    with pytest.raises(UnsupportedError, match="kink"):
        sample_dntk(DepthMap("hardtanh", 1.0), 4, [2])
    with pytest.raises(UnsupportedError, match="jump"):
        sample_dntk(DepthMap("sign", 1.0), 4, [2])
