"""The empirical NTK against finite differences, a closed form, torch.func, and its own tiles."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tangency.models import InputError, from_layers
from tangency.theory import empirical_ntk

RNG = np.random.default_rng(2)


def mlp(dtype="float64", sizes=(4, 6, 5, 3), activation="tanh"):
    layers = [
        (RNG.standard_normal((m, n)).astype(dtype), RNG.standard_normal(m).astype(dtype))
        for n, m in pairwise(sizes)
    ]
    return from_layers(layers, activation)


def test_full_kernel_against_central_differences():
    network, x = mlp(), RNG.standard_normal((3, 4))
    columns = []
    step = 1e-6
    for key, w in network.weights.items():
        for index in np.ndindex(w.shape):
            ends = []
            for sign in (1, -1):
                moved = w.copy()
                moved[index] += sign * step
                ends.append(network.replace({key: moved}).evaluate(x))
            columns.append((ends[0] - ends[1]) / (2 * step))
    jacobian = np.stack(columns, -1)  # (n, K, p)
    want = np.einsum("iap,jbp->ijab", jacobian, jacobian)
    got = empirical_ntk(network, x, outputs="full")
    np.testing.assert_allclose(got.ntk, want, rtol=1e-6, atol=1e-6)
    trace = empirical_ntk(network, x).ntk
    np.testing.assert_allclose(trace, np.einsum("ijaa->ij", want) / 3, rtol=1e-6, atol=1e-6)
    diagonal = empirical_ntk(network, x, outputs="diagonal").ntk
    np.testing.assert_allclose(diagonal, np.einsum("ijaa->ija", want), rtol=1e-6, atol=1e-6)


def test_linear_network_has_the_closed_form():
    # f = W2 W1 x with one output: Theta = (W1 x).(W1 y) + |W2|^2 x.y
    w1, w2 = RNG.standard_normal((5, 4)), RNG.standard_normal((1, 5))
    network = from_layers([w1, w2], "identity")
    x, y = RNG.standard_normal((6, 4)), RNG.standard_normal((2, 4))
    want = (x @ w1.T) @ (y @ w1.T).T + (w2 @ w2.T).item() * x @ y.T
    np.testing.assert_allclose(empirical_ntk(network, x, y).ntk, want, rtol=1e-12)


def test_against_torch_func_on_a_conv_net_with_batch_norm():
    torch = pytest.importorskip("torch")
    from tangency.models import from_torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, padding=1),
        torch.nn.BatchNorm2d(3),
        torch.nn.GELU(),
        torch.nn.Flatten(),
        torch.nn.Linear(48, 2),
    ).eval()
    x = torch.randn(4, 2, 4, 4)
    params = {k: v.detach() for k, v in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def one(p, sample):
        return torch.func.functional_call(module, {**p, **buffers}, (sample[None],))[0]

    jacobians = torch.func.vmap(torch.func.jacrev(one), (None, 0))(params, x)
    flat = torch.cat([j.flatten(2) for j in jacobians.values()], -1)
    want = torch.einsum("iap,jbp->ijab", flat, flat).numpy()
    got = empirical_ntk(from_torch(module, x), x.numpy(), outputs="full").ntk
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("outputs", ["trace", "full", "diagonal"])
def test_tiles_equal_the_whole(outputs):
    network, x = mlp(), RNG.standard_normal((7, 4))
    calls = []
    whole = empirical_ntk(network, x, x, outputs=outputs, batch_size=7).ntk
    tiles = empirical_ntk(
        network, x, outputs=outputs, batch_size=3, progress=lambda i, n: calls.append((i, n))
    )
    np.testing.assert_allclose(tiles.ntk, whole, rtol=1e-12, atol=1e-12)
    assert calls == [(i, 6) for i in range(1, 7)]
    assert tiles.symmetric


def test_kernel_is_positive_semidefinite_and_symmetric():
    result = empirical_ntk(mlp(), RNG.standard_normal((12, 4)), outputs="full", batch_size=5)
    matrix = result.matrix
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * matrix.max())
    assert result.eigenvalues[-1] >= -1e-12 * result.eigenvalues[0]
    assert result.as_dict()["largest"] == pytest.approx(result.eigenvalues[0])


def test_buffers_do_not_enter():
    from tangency.models import Builder

    b = Builder("float64")
    x = b.input((1, 3))
    y = b.shift(b.scale(x, np.full(3, 2.0), trainable=False), np.ones(3), trainable=False)
    y = b.dense(y, np.ones((1, 3)))
    data = RNG.standard_normal((2, 3))
    got = empirical_ntk(b.finish([y]), data).ntk
    np.testing.assert_allclose(got, (2 * data + 1) @ (2 * data + 1).T)


def test_what_is_refused():
    network, x = mlp(), np.zeros((2, 4))
    for bad, says in [
        (x[:0], "x1 is empty"),
        (x[:, :3].copy(), r"the network takes \(n, 4\)"),
        (x.astype(int), "x1 is int64"),
        (np.full((2, 4), np.nan), "x1 has a NaN"),
        (x[0], "has shape"),
    ]:
        with pytest.raises(InputError, match=says):
            empirical_ntk(network, bad)
    with pytest.raises(InputError, match="outputs='logits'"):
        empirical_ntk(network, x, outputs="logits")
    with pytest.raises(InputError, match="batch_size=0"):
        empirical_ntk(network, x, batch_size=0)
    with pytest.raises(InputError, match="leave x2 out"):
        empirical_ntk(network, x, x + 1).eigenvalues  # noqa: B018
    with pytest.raises(InputError, match="float64 and the network float32"):
        empirical_ntk(mlp("float32"), x)


def test_plot_shows_kernel_and_spectrum():
    figure = empirical_ntk(mlp(), RNG.standard_normal((5, 4))).plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert "empirical NTK" in titles
    assert "spectrum" in titles
