"""Gradient flow of squared loss against descent, Euler, SciPy; Lanczos against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from tangency.models.errors import InputError
from tangency.theory.prediction import Grams, gradient_flow_mse, max_learning_rate


def network(seed=0, n=5, m=3, d=4, width=6):
    """Jacobians and outputs of a tanh network with two outputs, in plain NumPy."""
    rng = np.random.default_rng(seed)
    w, v = rng.standard_normal((width, d)), rng.standard_normal((2, width)) / np.sqrt(width)
    x = rng.standard_normal((n + m, d))
    hidden = np.tanh(x @ w.T)
    slope = 1 - hidden**2
    first = np.einsum("kh,ih,id->ikhd", v, slope, x).reshape(n + m, 2, -1)
    second = np.einsum("kl,ih->iklh", np.eye(2), hidden).reshape(n + m, 2, -1)
    jacobian = np.concatenate([first, second], -1)
    f0 = hidden @ v.T
    kernel = np.einsum("iap,jbp->ijab", jacobian, jacobian)
    grams = Grams(ntk=(kernel[:n, :n], kernel[n:, :n], kernel[n:, n:]))
    return grams, jacobian, f0, rng.standard_normal((n, 2)), n


@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("steps", [1, 7, 300])
def test_descent_on_the_weights_of_the_linearised_network(steps, ridge):
    grams, jacobian, f0, y, n = network()
    decay = ridge * np.einsum("ikp,ikp->", jacobian[:n], jacobian[:n]) / (2 * n)
    rate = 0.7 * max_learning_rate(grams.ntk)
    delta = np.zeros(jacobian.shape[-1])
    for _ in range(steps):
        f = f0 + jacobian @ delta
        delta -= rate * (np.einsum("ikp,ik->p", jacobian[:n], f[:n] - y) + decay * delta)
    f = f0 + jacobian @ delta
    options = {"f0": f0[:n], "f0_test": f0[n:], "learning_rate": rate, "ridge": ridge}
    got = gradient_flow_mse(grams, y, t=steps, discrete=True, **options)
    np.testing.assert_allclose(got.train, f[:n], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.test, f[n:], rtol=1e-9, atol=1e-9)


def test_euler_steps_converge_to_the_flow():
    grams, jacobian, f0, y, n = network(1)
    stop = 3.0 * max_learning_rate(grams.ntk)
    want = gradient_flow_mse(grams, y, t=stop, f0=f0[:n], f0_test=f0[n:]).test
    ends = []
    for steps in (400, 800):
        delta = np.zeros(jacobian.shape[-1])
        for _ in range(steps):
            f = f0 + jacobian @ delta
            delta -= stop / steps * np.einsum("ikp,ik->p", jacobian[:n], f[:n] - y)
        ends.append((f0 + jacobian @ delta)[n:])
    errors = [np.abs(end - want).max() for end in ends]
    assert 1.8 < errors[0] / errors[1] < 2.2  # first order, to this limit and no other
    np.testing.assert_allclose(2 * ends[1] - ends[0], want, atol=1e-4)


def test_scipy_integrates_to_the_closed_form():
    grams, _, f0, y, n = network(2)
    kernel = grams.ntk.train.transpose(0, 2, 1, 3).reshape(2 * n, 2 * n)
    times = np.array([0.01, 0.3, 1.0])
    done = solve_ivp(
        lambda _, f: -0.7 * kernel @ (f - y.ravel()),
        (0, 1),
        f0[:n].ravel(),
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    )
    options = {"f0": f0[:n], "f0_test": f0[n:], "learning_rate": 0.7}
    got = gradient_flow_mse(grams, y, t=times, **options)
    np.testing.assert_allclose(got.train.reshape(3, -1), done.y.T, atol=1e-7)


def test_learning_rate_is_the_edge_of_divergence():
    grams, _, _, y, _ = network(4)
    edge = max_learning_rate(grams.ntk)
    below, above = (
        gradient_flow_mse(grams, y, t=4000, learning_rate=edge * share, discrete=True).train
        for share in (0.99, 1.01)
    )
    assert np.abs(below).max() < 10 * np.abs(y).max()
    assert np.abs(above).max() > 1e10
    with pytest.raises(InputError, match="diverges"):
        gradient_flow_mse(grams, y, t=np.inf, learning_rate=edge * 1.01, discrete=True)


def test_lanczos_and_lapack_give_one_rate():
    features = np.random.default_rng(5).standard_normal((1100, 60))
    want = 2 / np.linalg.svd(features, compute_uv=False)[0] ** 2
    np.testing.assert_allclose(max_learning_rate(features @ features.T), want, rtol=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_lanczos_is_the_eigendecomposition(ridge, tmp_path):
    rng = np.random.default_rng(10)
    a = rng.standard_normal((240, 400))
    kernel = (a @ a.T / 400).astype(np.float32)
    n, y = 200, rng.standard_normal((200, 3))
    y[:, 1] = 0.0  # a column that is solved before it begins
    np.save(tmp_path / "train.npy", kernel[:n, :n])
    stored = np.load(tmp_path / "train.npy", mmap_mode="r")
    f0, f0_test = np.zeros((200, 3)), rng.standard_normal((40, 3))
    options = {"t": [0.0, 3.0, np.inf], "f0": f0, "f0_test": f0_test, "ridge": ridge}
    want = gradient_flow_mse(Grams(ntk=(kernel[:n, :n], kernel[n:, :n])), y, **options)
    got = gradient_flow_mse(
        Grams(ntk=(stored, kernel[n:, :n])), y, method="lanczos", tol=1e-9, **options
    )
    for name in ("train", "test", "coefficients"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), atol=1e-6)
    assert got.method.startswith("lanczos")
    with pytest.raises(InputError, match="defect"):
        gradient_flow_mse(Grams(ntk=stored), y, t=np.inf, method="lanczos", max_products=5)


def test_lanczos_ends_at_the_minimum_norm_solution_and_takes_pairs_of_outputs():
    grams, _, f0, y, n = network(6)
    options = {"f0": f0[:n], "f0_test": f0[n:]}
    for t in (0.2, np.inf):
        want = gradient_flow_mse(grams, y, t=t, ridge=0.1, **options)
        got = gradient_flow_mse(grams, y, t=t, ridge=0.1, method="lanczos", **options)
        np.testing.assert_allclose(got.test, want.test, atol=1e-7)
    features = np.random.default_rng(3).standard_normal((60, 3))
    y = np.random.default_rng(4).standard_normal(60)
    flow = gradient_flow_mse(
        Grams(ntk=features @ features.T), features[:, 0], t=np.inf, method="lanczos"
    )
    np.testing.assert_allclose(flow.train, features[:, 0], atol=1e-8)
    with pytest.raises(InputError, match="eigh"):
        gradient_flow_mse(grams, np.zeros((n, 2)), t=1, discrete=True, method="lanczos")
