"""The empirical kernel is in the model's parameters, also where it computes weights from them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tangency.models import from_jax, from_torch, load
from tangency.models.errors import InputError
from tangency.theory.ntk import NTKOperator, empirical_ntk, linearise, project_ntk

RNG = np.random.default_rng(8)
X = RNG.standard_normal((5, 4)).astype(np.float32)
PARAMS = {
    "a": RNG.standard_normal((4, 3)).astype(np.float32),
    "b": RNG.standard_normal(3).astype(np.float32),
    "c": RNG.standard_normal((3, 2)).astype(np.float32),
    "k": RNG.standard_normal((2, 1, 2, 2)).astype(np.float32),
}


def scaled(p, x):
    return jnp.tanh(x @ (p["a"] / 2) + 0.1 * p["b"]) @ (-1.5 * p["c"])


def sliced(p, x):
    parts = [x @ p["a"][:, :1], x @ p["a"][:, 1:]]
    return jnp.tanh(jnp.concatenate(parts, -1) + p["b"]) @ p["c"]


def stacked(p, x):
    rolled = jnp.concatenate([p["a"][:, 1:], p["a"][:, :1]], 1)
    return jnp.tanh(x @ jnp.concatenate([rolled, p["k"].reshape(4, 2)], 1)) @ jnp.ones((5, 2))


def moved(p, x):
    return jnp.tanh((p["a"].T @ x.T).T + jnp.flip(p["b"])) @ p["c"].reshape(2, 3).T


def convolved(p, x):
    image = x.reshape(-1, 1, 2, 2)
    out = jax.lax.conv_general_dilated(image, p["k"] * 0.3, (1, 1), "SAME")
    return jnp.tanh(out).reshape(len(x), -1)


def recurrent(p, x):
    """One weight at every step of a loop, which starts from zeros."""

    def step(h, part):
        return jnp.tanh(h @ p["c"].T[:, 1:] + p["b"][:2] + part @ p["k"][:, 0, 0]), None

    parts = x.reshape(-1, 2, 2).swapaxes(0, 1)
    return jax.lax.scan(step, jnp.zeros((len(x), 2), x.dtype), parts)[0]


def exact(model, params, x):
    """(n, K, p): all derivatives by the parameters themselves."""
    jacobian = jax.jacobian(lambda p: model(p, jnp.asarray(x)))(params)
    shape = jax.eval_shape(lambda: model(params, jnp.asarray(x))).shape
    flat = [np.asarray(j, np.float64).reshape(*shape, -1) for j in jax.tree.leaves(jacobian)]
    return np.concatenate(flat, -1)


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        *((m, "full") for m in (scaled, sliced, stacked, moved, convolved, recurrent)),
        *((scaled, outputs) for outputs in ("trace", "sum")),
    ],
)
def test_kernel_in_the_parameters(model, outputs):
    network = from_jax(model, X[:1], params=PARAMS)
    j = exact(model, PARAMS, X)
    full = np.einsum("iap,jbp->ijab", j, j)
    size = j.shape[1]
    want = {
        "full": full,
        "trace": np.einsum("ijaa->ij", full) / size,
        "sum": full.sum((2, 3)) / size,
    }[outputs]
    found = empirical_ntk(network, X, outputs=outputs).ntk
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("n", [1, 5, 40])
def test_every_way_of_holding_a_site_knows_the_gain(n):
    # Few samples are held as pairs, many as gradients.
    x = RNG.standard_normal((n, 4)).astype(np.float32)
    network = from_jax(scaled, X[:1], params=PARAMS)
    j = exact(scaled, PARAMS, x)
    want = np.einsum("iap,jbp->ijab", j, j)
    found = empirical_ntk(network, x, outputs="full").ntk
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


def test_operator_features_and_linearisation():
    network = from_jax(scaled, X[:1], params=PARAMS)
    j = exact(scaled, PARAMS, X).reshape(10, -1)
    v = RNG.standard_normal(10).astype(np.float32)
    np.testing.assert_allclose(NTKOperator(network, X) @ v, j @ (j.T @ v), rtol=1e-4)
    features = project_ntk(network, X, features=20_000).features.reshape(10, -1)
    assert np.abs(features @ features.T - j @ j.T).max() < 0.05 * np.abs(j @ j.T).max()
    # Linearisation in held weights and in parameters is one function.
    step = {k: 0.1 * RNG.standard_normal(w.shape).astype(np.float32) for k, w in PARAMS.items()}
    there = {k: w + step[k] for k, w in PARAMS.items()}
    out, change = jax.jvp(lambda p: scaled(p, jnp.asarray(X)), (PARAMS,), (step,))
    found = linearise(network)(X, from_jax(scaled, X[:1], params=there))
    np.testing.assert_allclose(found, out + change, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        lambda p, x: jnp.tanh(x @ p["a"]) @ p["a"].T,
        lambda p, x: jnp.tanh(x @ (p["a"] / jnp.linalg.norm(p["a"]))) @ p["c"],
        lambda p, x: jnp.tanh(x @ jnp.concatenate([p["a"], 2 * p["a"]], 1)),
        lambda p, x: jnp.tanh(x @ jnp.triu(p["a"])) @ p["c"],
        lambda p, x: jnp.tanh(x @ p["a"]) + jnp.tanh(x @ (2 * p["a"])),
        lambda p, x: x @ (p["c"][:1, :1] * jnp.ones((4, 2), jnp.float32)),
    ],
    ids=["tied", "normalised", "twice", "masked", "two gains", "repeated"],
)
def test_computed_weights_are_refused_by_name(model, tmp_path):
    network = from_jax(model, X[:1], params=PARAMS)
    network.save(tmp_path / "model.tangency")
    for held in (network, load(tmp_path / "model.tangency")):
        for call in (empirical_ntk, project_ntk, NTKOperator):
            with pytest.raises(InputError, match=r"computes its weight '[ac]'"):
                call(held, X)
        with pytest.raises(InputError, match="computes its weight"):
            linearise(held)


def test_torch_weights_that_are_computed_or_tied():
    torch = pytest.importorskip("torch")

    class Tied(torch.nn.Module):
        def __init__(self, half):
            super().__init__()
            self.w = torch.nn.Parameter(torch.as_tensor(PARAMS["a"].T.copy()))
            self.half = half

        def forward(self, x):
            if self.half:
                parts = [torch.tanh(x @ self.w[:1].t()), torch.tanh(x @ self.w[1:].t())]
                return torch.cat(parts, -1)
            return torch.tanh(x @ self.w.t()) @ self.w

    example = torch.zeros(1, 4)
    normed = torch.nn.Linear(4, 3)
    torch.nn.utils.parametrizations.spectral_norm(normed)
    for module in (Tied(False), normed.eval()):
        with pytest.raises(InputError, match=r"torch\.nn\.Module itself"):
            empirical_ntk(from_torch(module, example), X)
        assert empirical_ntk(module, torch.as_tensor(X)).ntk.shape == (5, 5)
    # Parts of one parameter that do not overlap are as good as two parameters.
    module = Tied(True)
    want = empirical_ntk(module, torch.as_tensor(X), outputs="full").ntk
    found = empirical_ntk(from_torch(module, example), X, outputs="full").ntk
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_gain_survives_a_file(tmp_path):
    network = from_jax(scaled, X[:1], params=PARAMS)
    network.save(tmp_path / "model.tangency")
    gains = {
        p.key: p.gain for n in load(tmp_path / "model.tangency").structure.nodes for p in n.params
    }
    assert gains == {"a": 0.5, "b": pytest.approx(0.1), "c": -1.5}
