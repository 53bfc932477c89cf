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


def autoencoder(p, x):
    return jnp.tanh(x @ p["a"] + p["b"]) @ p["a"].T


def residual(p, x):
    """At every step of a loop a weight, its half, and its transpose."""

    def step(h, _):
        return h - 0.5 * jnp.tanh(h @ p["a"] + p["b"]) @ (0.5 * p["a"].T), None

    return jax.lax.scan(step, x, None, length=3)[0] @ p["a"]


def overlapping(p, x):
    parts = [x[:, :3] @ p["a"][:3, :2], x @ p["a"], jnp.flip(x @ p["a"][:, 1:], -1)]
    return jnp.tanh(jnp.concatenate(parts, -1)) @ jnp.ones((7, 2), jnp.float32) + p["a"][0, :2]


def filters(p, x):
    """A convolution whose kernel is a dense layer's weight, too."""
    image = x.reshape(-1, 1, 2, 2)
    out = jnp.tanh(jax.lax.conv_general_dilated(image, p["k"], (1, 1), "SAME"))
    return out.reshape(len(x), -1)[:, :4] @ (-2.0 * p["k"]).reshape(2, 4).T


TIED = (autoencoder, residual, overlapping, filters)


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
        *((m, "full") for m in TIED),
        *((m, outputs) for m in (scaled, autoencoder) for outputs in ("trace", "sum")),
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
@pytest.mark.parametrize("model", [scaled, filters])
def test_every_way_of_holding_a_site_knows_the_gain(model, n):
    # Few samples are held as pairs, many as gradients.
    x = RNG.standard_normal((n, 4)).astype(np.float32)
    network = from_jax(model, X[:1], params=PARAMS)
    j = exact(model, PARAMS, x)
    want = np.einsum("iap,jbp->ijab", j, j)
    found = empirical_ntk(network, x, outputs="full").ntk
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("model", [scaled, residual])
def test_operator_features_and_linearisation(model):
    network = from_jax(model, X[:1], params=PARAMS)
    j = exact(model, PARAMS, X)
    j = j.reshape(-1, j.shape[2])
    v = RNG.standard_normal(len(j)).astype(np.float32)
    want = j @ (j.T @ v)
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(want).max()}
    np.testing.assert_allclose(NTKOperator(network, X) @ v, want, **close)
    features = project_ntk(network, X, features=20_000).features.reshape(len(j), -1)
    assert np.abs(features @ features.T - j @ j.T).max() < 0.05 * np.abs(j @ j.T).max()
    # Linearisation in held weights and in parameters is one function.
    step = {k: 0.1 * RNG.standard_normal(w.shape).astype(np.float32) for k, w in PARAMS.items()}
    there = {k: w + step[k] for k, w in PARAMS.items()}
    out, change = jax.jvp(lambda p: model(p, jnp.asarray(X)), (PARAMS,), (step,))
    found = linearise(network)(X, from_jax(model, X[:1], params=there))
    np.testing.assert_allclose(found, out + change, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        lambda p, x: jnp.tanh(x @ (p["a"] / jnp.linalg.norm(p["a"]))) @ p["c"],
        lambda p, x: jnp.tanh(x @ jnp.concatenate([p["a"], 2 * p["a"]], 1)),
        lambda p, x: jnp.tanh(x @ jnp.triu(p["a"])) @ p["c"],
        lambda p, x: jnp.tanh(x @ p["a"]) + jnp.tanh(x @ (p["a"] ** 2)),
        lambda p, x: x @ (p["c"][:1, :1] * jnp.ones((4, 2), jnp.float32)),
    ],
    ids=["normalised", "twice", "masked", "squared", "repeated"],
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


def test_tied_weights_survive_a_file_and_need_no_change_of_the_others(tmp_path):
    network = from_jax(residual, X[:1], params=PARAMS)
    network.save(tmp_path / "model.tangency")
    again = load(tmp_path / "model.tangency")
    assert again.structure == network.structure
    found = {p.key: p.entries for n in again.structure.nodes for p in n.params if p.trainable}
    assert found.pop("b") is None
    assert len(found) == 2
    assert all(place is not None for place in found.values())
    want = empirical_ntk(network, X, outputs="full").ntk
    np.testing.assert_array_equal(empirical_ntk(again, X, outputs="full").ntk, want)


@pytest.mark.parametrize("value", [np.eye(4), np.zeros((4, 4)), np.ones((4, 4))])
def test_entries_are_not_told_by_values(value):
    """Of a symmetric matrix a weight and its transpose are one weight, and two of its entries."""

    def model(p, x):
        return jnp.tanh(x @ p["w"]) @ p["w"].T + x @ (2 * p["w"])

    network = from_jax(model, X[:1], params={"w": value.astype(np.float32)})
    with pytest.raises(InputError, match="computes its weight 'w'"):
        empirical_ntk(network, X, outputs="full")


def test_in_double_precision():
    with jax.enable_x64(True):
        params = {k: v.astype(np.float64) for k, v in PARAMS.items()}
        x = X.astype(np.float64)
        network = from_jax(residual, x[:1], params=params)
        j = exact(residual, params, x)
    found = empirical_ntk(network, x, outputs="full").ntk
    np.testing.assert_allclose(found, np.einsum("iap,jbp->ijab", j, j), rtol=1e-10, atol=1e-10)


def test_gain_survives_a_file(tmp_path):
    network = from_jax(scaled, X[:1], params=PARAMS)
    network.save(tmp_path / "model.tangency")
    gains = {
        p.key: p.gain for n in load(tmp_path / "model.tangency").structure.nodes for p in n.params
    }
    assert gains == {"a": 0.5, "b": pytest.approx(0.1), "c": -1.5}
