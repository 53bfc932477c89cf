"""Linearisation against closed forms, differences and the order of its error."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models import Builder, InputError, from_layers
from tangency.theory.ntk import empirical_ntk, linearise

RNG = np.random.default_rng(7)


def network():
    layers = [(RNG.standard_normal((m, n)), RNG.standard_normal(m)) for n, m in ((3, 5), (5, 2))]
    return from_layers(layers, "tanh")


def moved(net, step, seed=0):
    rng = np.random.default_rng(seed)
    return net.replace({k: w + step * rng.standard_normal(w.shape) for k, w in net.weights.items()})


def torch_pair(net):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    keys = list(net.weights)

    def fill(target, source):
        with torch.no_grad():
            for p, key in zip(target.parameters(), keys, strict=True):
                p.copy_(torch.tensor(source.weights[key]))
        return target

    return module, fill


def test_the_value_at_the_start_is_the_networks():
    net, x = network(), RNG.standard_normal((4, 3))
    np.testing.assert_allclose(linearise(net)(x, net), net.evaluate(x), rtol=1e-12)


def test_the_directional_derivative_is_that_of_central_differences():
    net, x = network(), RNG.standard_normal((4, 3))
    ahead, behind = moved(net, 1e-5), moved(net, -1e-5)
    difference = (ahead.evaluate(x) - behind.evaluate(x)) / 2
    got = linearise(net)(x, ahead) - net.evaluate(x)
    np.testing.assert_allclose(got, difference, rtol=1e-6, atol=1e-12)


def test_a_network_linear_in_its_weights_is_its_linearisation():
    net = from_layers([(RNG.standard_normal((2, 3)), RNG.standard_normal(2))], "identity")
    x = RNG.standard_normal((4, 3))
    other = moved(net, 1.0)
    np.testing.assert_allclose(linearise(net)(x, other), other.evaluate(x), rtol=1e-12)
    assert linearise(net).error(x, [net, other]).error.max() < 1e-12


def test_the_error_is_of_second_order():
    net, x = network(), RNG.standard_normal((6, 3))
    steps = np.array([1e-1, 1e-2, 1e-3])
    found = linearise(net).error(x, [moved(net, s) for s in steps])
    norm = np.sqrt(sum(np.sum(w**2) for w in net.weights.values()))
    rng = np.random.default_rng(0)
    size = np.sqrt(sum(np.sum(rng.standard_normal(w.shape) ** 2) for w in net.weights.values()))
    np.testing.assert_allclose(found.distance, steps * size / norm, rtol=1e-9)
    slope = np.log10(found.error[:-1] / found.error[1:])
    assert slope[-1] == pytest.approx(2, abs=0.1)
    assert np.log10(found.relative[-2] / found.relative[-1]) == pytest.approx(1, abs=0.1)
    assert found.plot().axes[0].get_title() == "linearisation error"


def test_one_step_of_descent_moves_the_outputs_by_the_kernel():
    # w - w0 = -J^T g  =>  f_lin - f = -Theta g
    net, x = network(), RNG.standard_normal((4, 3))
    g = RNG.standard_normal(8)
    pytest.importorskip("jax")
    from tangency.theory.ntk.products import JaxProducts

    step = JaxProducts(net).back(x, g.reshape(4, 2), None)
    weights = {k: net.weights[k] - np.asarray(v) for k, v in step.items()}
    got = linearise(net)(x, weights) - net.evaluate(x)
    want = -empirical_ntk(net, x, outputs="full").matrix @ g
    np.testing.assert_allclose(got.reshape(-1), want, rtol=1e-10)


def test_torch_and_jax_agree_and_the_expansion_stays_where_it_was():
    torch = pytest.importorskip("torch")
    net, x = network(), RNG.standard_normal((4, 3))
    module, fill = torch_pair(net)
    expansion = linearise(fill(module, net))
    path = [moved(net, s) for s in (0.0, 0.1, 0.5)]
    other = linearise(net)
    checkpoints = (fill(module, point) for point in path)  # one module, trained on
    got, want = expansion.error(torch.tensor(x), checkpoints), other.error(x, path)
    for name in ("distance", "error", "relative"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(expansion(torch.tensor(x), module), other(x, path[-1]), rtol=1e-10)
    state = {k: v for k, v in module.state_dict().items() if k.startswith("2")}
    partial = expansion(torch.tensor(x), state)
    assert np.abs(partial - other(x, path[-1])).max() > 1e-3


def test_what_is_refused():
    net, x = network(), RNG.standard_normal((4, 3))
    expansion = linearise(net)
    for weights, says in [
        ({"nothing": np.ones(2)}, "no weight 'nothing'"),
        ({next(iter(net.weights)): np.ones(2)}, r"has shape \(2,\)"),
        (3.0, "weights are a float"),
    ]:
        with pytest.raises(InputError, match=says):
            expansion(x, weights)
    with pytest.raises(InputError, match="the path is empty"):
        expansion.error(x, [])
    b = Builder("float64")
    y = b.scale(b.input((1, 3)), np.full(3, 2.0), key="buffer", trainable=False)
    fixed = b.finish([b.dense(y, np.ones((1, 3)))])
    changed = fixed.replace({"buffer": np.full(3, 3.0)})
    with pytest.raises(InputError, match="buffer is no trainable weight and has changed"):
        linearise(fixed)(x, changed)
