"""Weights that move in boxes: equal at the centre, no draw escapes, exact for one layer."""

from itertools import product

import numpy as np
import pytest

from tangency.models import Builder, InputError, UnsupportedError, from_layers
from tangency.models.ops import (
    Add,
    BatchNorm,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Householder,
    Input,
    LayerNorm,
    Prelu,
    Scale,
)
from tangency.verify.bounds import Box, bound, perturbed

METHODS = ("ibp", "crown-ibp", "crown", "forward")


def one_op(op, shape, dtype="float64", **params):
    b = Builder(dtype)
    x = b.input((1, *shape))
    b.scope = "it"
    return b.finish([b.emit(op, [x], {r: (r, np.asarray(a, dtype)) for r, a in params.items()})])


def constant_net(rng):
    b = Builder("float64")
    x = b.input((1, 3))
    c = b.emit(Constant(), [], {"value": ("value", rng.normal(size=(2, 3)))})
    return b.finish([b.emit(Add(), [x, c])])


def unit(rng, *shape):
    v = rng.normal(size=shape)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


# Each case: rng -> (network, whether some weight divides)
CASES = {
    "dense": lambda r: one_op(Dense(), (3,), weight=r.normal(size=(2, 3)), bias=r.normal(size=2)),
    "dense_rows": lambda r: one_op(Dense(), (4, 3), weight=r.normal(size=(2, 3))),
    "conv": lambda r: one_op(
        Conv((2, 1), ((1, 0), (1, 1)), (1, 2), 2),
        (4, 5, 6),
        weight=r.normal(size=(6, 2, 3, 2)),
        bias=r.normal(size=6),
    ),
    "conv_lead": lambda r: one_op(Conv((1,), ((0, 0),), (1,), 1), (2, 2, 5),
                                  weight=r.normal(size=(3, 2, 3))),
    "conv_transpose": lambda r: one_op(
        ConvTranspose((2, 2), ((1, 0), (1, 1)), (1, 1), 2, (1, 0)),
        (4, 3, 4),
        weight=r.normal(size=(4, 3, 3, 2)),
        bias=r.normal(size=6),
    ),
    "conv_transpose_cropped": lambda r: one_op(
        ConvTranspose((3,), ((2, 4),), (2,), 1, (2,)), (2, 5), weight=r.normal(size=(2, 3, 3))
    ),
    "batch_norm": lambda r: one_op(
        BatchNorm(0), (3, 2), mean=r.normal(size=3), var=r.uniform(0.5, 2, 3),
        weight=r.normal(size=3), bias=r.normal(size=3),
    ),
    "layer_norm": lambda r: one_op(
        LayerNorm((0, 2), 1e-2), (2, 3, 2), weight=r.normal(size=(2, 2)), bias=r.normal(size=(2, 2))
    ),
    "scale": lambda r: one_op(Scale(), (3, 1), scale=r.normal(size=(2, 3, 4))),
    "divisor": lambda r: one_op(Scale(True), (3,), scale=r.uniform(1, 2, size=(2, 1))),
    "prelu": lambda r: one_op(Prelu(0), (3, 2), slope=r.normal(size=3)),
    "constant": constant_net,
}  # fmt: skip


def movable(network):
    return [k for k in network.weights if k not in ("mean", "var")]


def draws(rng, box, count):
    low, high = box.lower, box.upper
    part = rng.random((count, *low.shape))
    part[: count // 2] = part[: count // 2].round()  # half of them corners
    return np.clip(low + part * (high - low), low, high)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_network_at_the_weights(name):
    rng = np.random.default_rng(0)
    network = CASES[name](rng)
    keys = movable(network)
    x = rng.normal(size=(3, *network.input_shape))
    for chosen in (keys, keys[:1], keys[-1:]):
        wide, boxes = perturbed(network, dict.fromkeys(chosen, 0.1))
        assert len(boxes) == len(chosen) == len(wide.input_shapes) - 1
        held = [np.repeat(network.weights[k][None], 3, axis=0) for k in chosen]
        np.testing.assert_allclose(wide.evaluate(x, *held), network.evaluate(x), atol=1e-12)
        assert not set(chosen) & set(wide.weights)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_no_draw_of_the_weights_escapes(name, method):
    rng = np.random.default_rng(1)
    network = CASES[name](rng)
    keys = movable(network)
    eps = {k: rng.uniform(0, 0.2, size=network.weights[k].shape) for k in keys}
    wide, boxes = perturbed(network, eps)
    centre = rng.normal(size=network.input_shape)
    inputs = Box.around(centre, 0.1)
    found = bound(wide, (inputs, *boxes), method=method)
    points = draws(rng, inputs, 200)
    weights = [draws(rng, b, 200) for b in boxes]
    values = wide.evaluate(points, *weights)
    assert (found.lower - 1e-9 <= values).all()
    assert (values <= found.upper + 1e-9).all()
    # The draws reach a fair part of the way, so that the bounds are not empty words.
    reach = values.max(axis=0) - values.min(axis=0)
    assert (found.upper - found.lower <= 8 * reach[None] + 1e-9).all()


def test_one_layer_is_exact():
    """Against all corners of weights, bias and inputs: the range of a sum of products."""
    rng = np.random.default_rng(2)
    network = from_layers([(rng.normal(size=(1, 3)), rng.normal(size=1))])
    keys = list(network.weights)
    wide, boxes = perturbed(network, dict.fromkeys(keys, 0.3))
    inputs = Box.around(rng.normal(size=3), 0.5)
    found = bound(wide, (inputs, *boxes), method="ibp")
    ends = [np.stack([b.lower, b.upper]).reshape(2, -1) for b in (inputs, *boxes)]
    columns = np.concatenate([e.T for e in ends])  # (7, 2)
    corners = np.array(list(product(*columns)))
    x, rest = np.ascontiguousarray(corners[:, :3]), corners[:, 3:]
    sizes = [b.lower.size for b in boxes]
    parts = np.split(rest, np.cumsum(sizes)[:-1], axis=1)
    held = [
        np.ascontiguousarray(p).reshape(-1, *b.shape) for p, b in zip(parts, boxes, strict=True)
    ]
    values = wide.evaluate(x, *held)
    np.testing.assert_allclose(found.lower[0], values.min(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.upper[0], values.max(axis=0), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_layers(method):
    rng = np.random.default_rng(3)
    layers = [(rng.normal(size=s) / 2, rng.normal(size=s[0])) for s in ((8, 4), (8, 8), (2, 8))]
    network = from_layers(layers, "relu")
    wide, boxes = perturbed(network, dict.fromkeys(network.weights, 0.02))
    x = rng.normal(size=(3, 4))
    found = bound(wide, (Box.around(x, 0.05), *boxes), method=method)
    for _ in range(50):
        moved = {k: w + rng.choice([-0.02, 0.02], size=w.shape) for k, w in network.weights.items()}
        y = network.replace(moved).evaluate(x + rng.uniform(-0.05, 0.05, x.shape))
        assert (found.lower <= y).all()
        assert (y <= found.upper).all()
    if method == "crown":
        loose = bound(wide, (Box.around(x, 0.05), *boxes), method="ibp")
        assert (found.upper - found.lower).sum() < 0.9 * (loose.upper - loose.lower).sum()


def test_a_shared_weight_is_one_variable():
    b = Builder("float64")
    v = b.input((1, 2))
    w = np.array([[0.5, 1.0], [-1.0, 0.25]])
    for _ in range(2):
        v = b.dense(v, w, keys=("shared", "none"))
    network = b.finish([v])
    wide, (box,) = perturbed(network, {"shared": 0.1})
    assert sum(isinstance(n.op, Input) for n in wide.structure.nodes) == 2
    x, moved = np.array([[1.0, 2.0]]), (w + 0.1)[None]
    np.testing.assert_allclose(wide.evaluate(x, moved), x @ moved[0].T @ moved[0].T)
    assert box.shape == (2, 2)


def test_float32_weights_are_kept():
    rng = np.random.default_rng(4)
    network = one_op(Dense(), (3,), "float32", weight=rng.normal(size=(2, 3)))
    wide, (box,) = perturbed(network, {"weight": 0.0})
    assert wide.dtype == "float32"
    assert (box.lower == network.weights["weight"]).all()


def test_what_is_refused():
    rng = np.random.default_rng(5)
    network = CASES["batch_norm"](rng)
    with pytest.raises(InputError, match="'no such'"):
        perturbed(network, {"no such": 0.1})
    with pytest.raises(InputError, match="no weight"):
        perturbed(network, {})
    with pytest.raises(InputError, match="weight 'bias'"):
        perturbed(network, {"bias": -1.0})
    with pytest.raises(InputError, match="weight 'bias'"):
        perturbed(network, {"bias": np.ones(7)})
    with pytest.raises(UnsupportedError, match=r"'it'.*'var'"):
        perturbed(network, {"var": 0.1})
    turned = one_op(Householder(0), (4,), vectors=unit(rng, 2, 2))
    with pytest.raises(UnsupportedError, match="'vectors'"):
        perturbed(turned, {"vectors": 0.1})
