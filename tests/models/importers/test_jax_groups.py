"""from_jax on MaxMin and GroupSort written by hand: one node in place."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tangency
from tangency.models import from_jax
from tangency.models.ops import GroupSort

ROOT = Path(__file__).resolve().parents[3]
RNG = np.random.default_rng(0)
V = np.zeros((1, 6), "float32")


def pairs(x):
    return x.reshape(*x.shape[:-1], -1, 2)


def halves(x, order=(jnp.maximum, jnp.minimum)):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([f(a, b) for f in order], -1)


def alternating(x, order=(jnp.maximum, jnp.minimum)):
    a, b = x[..., ::2], x[..., 1::2]
    return jnp.stack([f(a, b) for f in order], -1).reshape(x.shape)


def chosen(x):
    a, b = x[..., ::2], x[..., 1::2]
    return jnp.stack([jnp.where(a > b, a, b), jnp.where(a > b, b, a)], -1).reshape(x.shape)


DESCENDING = {
    "stack": lambda x: jnp.stack([pairs(x).max(-1), pairs(x).min(-1)], -1).reshape(x.shape),
    "keepdims": lambda x: jnp.concatenate(
        [pairs(x).max(-1, keepdims=True), pairs(x).min(-1, keepdims=True)], -1
    ).reshape(x.shape),
    "alternating": alternating,
    "chosen": chosen,
    "flipped": lambda x: jnp.flip(jnp.sort(pairs(x), axis=-1), -1).reshape(x.shape),
    "reversed": lambda x: jnp.sort(pairs(x), axis=-1)[..., ::-1].reshape(x.shape),
    "descending": lambda x: jnp.sort(pairs(x), axis=-1, descending=True).reshape(x.shape),
}
ASCENDING = {
    "sort": lambda x: jnp.sort(pairs(x), axis=-1).reshape(x.shape),
    "stack": lambda x: jnp.stack([pairs(x).min(-1), pairs(x).max(-1)], -1).reshape(x.shape),
    "alternating": lambda x: alternating(x, (jnp.minimum, jnp.maximum)),
}


def kinds(network):
    return [node.op.kind for node in network.structure.nodes]


def dense_net(activation, width=6, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [(6, width), (width, width), (width, 3)]
    params = [
        {"w": rng.standard_normal(s).astype("float32"), "b": rng.standard_normal(s[1]).astype("f")}
        for s in sizes
    ]

    def model(p, x):
        for layer in p[:-1]:
            x = activation(x @ layer["w"] + layer["b"])
        return x @ p[-1]["w"] + p[-1]["b"]

    return model, params


def agrees(network, model, *shape):
    x = RNG.standard_normal((5, *shape)).astype("float32")
    want = np.asarray(model(x))
    return np.abs(np.asarray(network(x)) - want).max() <= 1e-5 * np.abs(want).max()


def sorted_between_dense(form, width=6):
    """The op, when a network with this activation is a chain of dense layers and GroupSort."""
    model, params = dense_net(form, width)
    network = from_jax(model, V, params=params)
    assert kinds(network) == ["input", *("dense", "group_sort") * 2, "dense"]
    assert agrees(network, lambda x: model(params, x), 6)
    assert sorted(network.weights) == [f"{i}.{k}" for i in range(3) for k in "bw"]
    return network.structure.nodes[2].op


@pytest.mark.parametrize("name", list(DESCENDING))
def test_maxmin_by_hand_is_one_node(name):
    assert sorted_between_dense(DESCENDING[name]) == GroupSort(2, 0, descending=True)


@pytest.mark.parametrize("name", list(ASCENDING))
def test_the_other_order(name):
    assert sorted_between_dense(ASCENDING[name]) == GroupSort(2, 0, descending=False)


@pytest.mark.parametrize("size", [3, 4, 12])
def test_groups_of_any_size(size):
    def ordered(x):
        return jnp.sort(x.reshape(*x.shape[:-1], -1, size), axis=-1).reshape(x.shape)

    assert sorted_between_dense(ordered, 12) == GroupSort(size, 0, descending=False)


@pytest.mark.parametrize("descending", [True, False])
def test_halves_are_sorted_across_an_axis_of_two(descending):
    order = (jnp.maximum, jnp.minimum) if descending else (jnp.minimum, jnp.maximum)
    model, params = dense_net(lambda x: halves(x, order))
    network = from_jax(model, V, params=params)
    between = ["dense", "reshape", "group_sort", "reshape"]
    assert kinds(network) == ["input", *between, *between, "dense"]
    assert network.structure.nodes[3].op == GroupSort(2, 0, descending)
    assert agrees(network, lambda x: model(params, x), 6)


IMAGE = np.zeros((1, 5, 5, 3), "float32")
KERNELS = [RNG.standard_normal(s).astype("float32") for s in [(3, 3, 3, 6), (2, 2, 6, 4)]]


def conv_net(activation):
    def model(x):
        for i, kernel in enumerate(KERNELS):
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = activation(x) if i == 0 else x
        return x.reshape(x.shape[0], -1)

    return model


@pytest.mark.parametrize("name", list(DESCENDING))
def test_channels_that_lie_last(name):
    model = conv_net(DESCENDING[name])
    network = from_jax(model, IMAGE)
    ops = [node.op for node in network.structure.nodes if node.op.kind == "group_sort"]
    assert ops == [GroupSort(2, 0, descending=True)]
    assert agrees(network, model, 5, 5, 3)
    first = kinds(network).index("conv")
    assert kinds(network)[first : first + 3] == ["conv", "group_sort", "conv"]


def test_halves_of_channels_that_lie_last():
    model = conv_net(halves)
    network = from_jax(model, IMAGE)
    assert "extremum" not in kinds(network)
    assert kinds(network).count("group_sort") == 1
    assert agrees(network, model, 5, 5, 3)


NOT_MAXMIN = {
    "both maxima": lambda x: alternating(x, (jnp.maximum, jnp.maximum)),
    "overlapping": lambda x: jnp.concatenate(
        [jnp.maximum(x[..., :-1], x[..., 1:]), jnp.minimum(x[..., :1], x[..., -1:])], -1
    ),
    "crosswise": lambda x: jnp.concatenate(
        [jnp.maximum(x[..., :3], x[..., :2:-1]), jnp.minimum(x[..., :3], x[..., :2:-1])], -1
    ),
    "two tensors": lambda x: jnp.stack(
        [jnp.maximum(x[..., :3], 2 * x[..., 3:]), jnp.minimum(x[..., :3], x[..., 3:])], -1
    ).reshape(x.shape),
    "joined in a mixed order": lambda x: jnp.concatenate(
        [alternating(x)[..., :1], alternating(x)[..., :0:-1]], -1
    ),
}


@pytest.mark.parametrize("name", list(NOT_MAXMIN))
def test_what_only_looks_like_it_stays_what_it_is(name):
    model = NOT_MAXMIN[name]
    network = from_jax(model, V)
    assert agrees(network, model, 6)
    if name != "joined in a mixed order":
        assert "group_sort" not in kinds(network)


def test_concatenated_relu_is_one_activation():
    model, params = dense_net(lambda x: jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], -1))
    params[1]["w"], params[2]["w"] = (np.concatenate([p["w"], p["w"]]) for p in params[1:])
    network = from_jax(model, V, params=params)
    between = ["dense", "scale", "concat", "activation"]
    assert kinds(network) == ["input", *between, *between, "dense"]
    assert agrees(network, lambda x: model(params, x), 6)
    assert tangency.lipschitz_bound(network, method="product").certified


@pytest.fixture(scope="module")
def digits():
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import digits

        yield digits
    finally:
        sys.path.pop(0)


def test_the_example_is_the_same_chain_in_every_framework(digits):
    params = dict(np.load(ROOT / "examples" / "digits_maxmin.npz"))
    x = np.zeros((1, 64), "float32")
    network = tangency.from_jax(digits.jax_model("digits_maxmin"), x, params=params)
    chain = ["input", *("dense", "group_sort") * 2, "dense"]
    assert kinds(network) == chain
    others = []
    if (ROOT / "examples" / "digits_maxmin.onnx").exists():
        pytest.importorskip("onnx")
        others.append(tangency.from_onnx(ROOT / "examples" / "digits_maxmin.onnx"))
    torch = pytest.importorskip("torch")
    module = digits.torch_model("digits_maxmin")
    state = {k: torch.from_numpy(np.array(v)) for k, v in params.items()}
    module.load_state_dict(state)
    others.append(tangency.from_torch(module, torch.zeros(1, 64)))
    bound = tangency.lipschitz_bound(network, method="product")
    assert bound.certified
    for other in others:
        assert kinds(other) == chain
        same = tangency.lipschitz_bound(other, method="product")
        assert same.upper == pytest.approx(bound.upper, rel=1e-6)
