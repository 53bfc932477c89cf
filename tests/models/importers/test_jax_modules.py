"""from_jax on parameters as pytrees, flax nnx and linen modules, equinox modules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from tangency.models import InputError, UnsupportedError, from_jax

V = np.zeros((1, 6), "float32")
SEQUENCE = np.zeros((1, 5, 4), "float32")
IMAGE = np.zeros((1, 8, 8, 3), "float32")
KEY = jax.random.key(0)


def steps(network):
    return [node.op.kind for node in network.structure.nodes[1:]]


def keys(network):
    return {
        node.name: {p.role: (p.key, p.trainable) for p in node.params}
        for node in network.structure.nodes
        if node.params
    }


# --- pytrees ------------------------------------------------------------------------------------


def mlp(p, x):
    for layer in p["layers"][:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ p["layers"][-1]["w"] + p["layers"][-1]["b"]


def mlp_params(dtype="float32"):
    rng = np.random.default_rng(0)
    sizes = [(6, 8), (8, 3)]
    return {
        "layers": [
            {"w": rng.normal(size=s).astype(dtype), "b": np.zeros(s[1], dtype)} for s in sizes
        ]
    }


def test_names_and_trainable_flags():
    network = from_jax(mlp, V, params=mlp_params())
    assert steps(network) == ["dense", "activation", "dense"]
    assert keys(network) == {
        f"layers.{i}": {
            "weight": (f"layers.{i}.w", True),
            "bias": (f"layers.{i}.b", True),
        }
        for i in range(2)
    }
    assert network.weights["layers.0.w"].shape == (8, 6)
    assert network.size == 6 * 8 + 8 + 8 * 3 + 3


def test_what_is_closed_over_is_constant():
    params = mlp_params()
    network = from_jax(lambda x: mlp(params, x), V)
    assert steps(network) == ["dense", "activation", "dense"]
    assert network.size == 0


def test_float64_leaves_the_global_setting_alone():
    assert not jax.config.jax_enable_x64
    network = from_jax(mlp, V.astype("float64"), params=mlp_params("float64"))
    assert network.dtype == "float64"
    assert not jax.config.jax_enable_x64
    assert jnp.ones(2).dtype == "float32"
    widened = from_jax(mlp, V.astype("float64"), params=mlp_params("float32"))
    assert widened.dtype == "float64"


def test_shared_weights_are_one():
    w = {"w": np.eye(6, dtype="float32") * 0.5}
    network = from_jax(lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"], V, params=w)
    assert network.structure.trainable == ("w",)


def test_masked_and_normed_weights_keep_their_names():
    params = {"v": np.ones((6, 2), "float32"), "g": np.ones(2, "float32")}

    def model(p, x):
        return x @ (p["g"] * p["v"] / jnp.linalg.norm(p["v"], axis=0))

    network = from_jax(model, V, params=params)
    assert steps(network) == ["dense"]


def test_custom_derivatives_are_looked_through():
    @jax.custom_vjp
    def loud(x):
        return jnp.tanh(x) * 2

    loud.defvjp(lambda x: (loud(x), x), lambda x, g: (g,))

    @jax.custom_jvp
    def sharp(x):
        return jnp.exp(x)

    sharp.defjvp(lambda primals, tangents: (sharp(*primals), tangents[0]))
    assert steps(from_jax(lambda x: sharp(loud(x)), V)) == ["activation", "scale", "activation"]


def test_attention_by_hand():
    rng = np.random.default_rng(1)
    params = {k: rng.normal(size=(4, 4)).astype("float32") for k in "qkvo"}

    def model(p, x):
        q, k, v = ((x @ p[c]).reshape(x.shape[0], -1, 2, 2).transpose(0, 2, 1, 3) for c in "qkv")
        scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(2.0)
        mask = jnp.tril(jnp.ones((5, 5), bool))
        scores = jnp.where(mask, scores, jnp.finfo(x.dtype).min)
        y = jax.nn.softmax(scores) @ v
        return y.transpose(0, 2, 1, 3).reshape(x.shape) @ p["o"]

    network = from_jax(model, SEQUENCE, params=params)
    assert steps(network).count("matmul") == 2
    assert "softmax" in steps(network)
    assert set(network.structure.trainable) == set("qkvo")


@pytest.mark.parametrize("causal", [True, False])
def test_dot_product_attention(causal):
    def model(x):
        heads = x.reshape(-1, 5, 2, 2)
        return jax.nn.dot_product_attention(heads, heads, 2 * heads, is_causal=causal)

    network = from_jax(model, SEQUENCE)
    assert steps(network).count("matmul") == 2
    assert steps(network).count("softmax") == 1


def test_residual_block():
    rng = np.random.default_rng(2)
    params = {k: rng.normal(size=(3, 3, 3, 3)).astype("float32") / 5 for k in "ab"}

    def model(p, x):
        dims = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, p["a"], (1, 1), "SAME", dimension_numbers=dims)
        y = jax.nn.relu(y)
        y = jax.lax.conv_general_dilated(y, p["b"], (1, 1), "SAME", dimension_numbers=dims)
        return jax.nn.relu(x + y)

    network = from_jax(model, IMAGE, params=params)
    assert steps(network) == [
        *("transpose", "conv", "activation", "conv", "add", "activation", "transpose")
    ]


# --- flax -----------------------------------------------------------------------------------------


class Mlp(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)])

    def __call__(self, x):
        return self.layers[1](nnx.relu(self.layers[0](x)))


class Cnn(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.conv2 = nnx.Conv(4, 4, (3, 3), strides=(1, 1), rngs=rngs)
        self.ln = nnx.LayerNorm(4, rngs=rngs)
        self.out = nnx.Linear(64, 2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.bn(self.conv1(x))), (2, 2), (2, 2))
        x = self.ln(nnx.gelu(self.conv2(x)) + x)
        return self.out(self.drop(x.reshape(x.shape[0], -1)))


@pytest.fixture
def cnn():
    model = Cnn(nnx.Rngs(0))
    model.bn.mean[...] = jnp.arange(4.0)
    model.bn.var[...] = jnp.arange(4.0) + 1
    return model


def test_nnx_mlp():
    network = from_jax(Mlp(nnx.Rngs(0)), V)
    assert steps(network) == ["dense", "activation", "dense"]
    assert [n.name for n in network.structure.nodes] == ["input", "layers.0", "relu", "layers.1"]
    assert network.structure.trainable[0] == "layers.0.kernel"


def test_nnx_cnn(cnn):
    cnn.eval()
    network = from_jax(cnn, IMAGE)
    assert steps(network) == [
        *("transpose", "conv", "batch_norm", "activation", "average_pool", "conv", "activation"),
        *("add", "layer_norm", "transpose", "reshape", "dense"),
    ]
    found = keys(network)
    assert found["bn"] == {
        "mean": ("bn.mean", False),
        "var": ("bn.var", False),
        "weight": ("bn.scale", True),
        "bias": ("bn.bias", True),
    }
    assert found["ln"]["weight"] == ("ln.scale", True)
    np.testing.assert_array_equal(network.weights["bn.var"], [1, 2, 3, 4])


def test_nnx_modules_in_training_are_refused(cnn):
    with pytest.raises(UnsupportedError, match=r"draws random numbers.*eval"):
        from_jax(cnn, IMAGE)
    norm = nnx.BatchNorm(6, rngs=nnx.Rngs(0))
    with pytest.raises(UnsupportedError):
        from_jax(norm, np.zeros((4, 6), "float32"))


NNX = {
    "attention": (
        lambda r: nnx.MultiHeadAttention(2, 4, decode=False, rngs=r),
        SEQUENCE,
        "softmax",
    ),
    "rms": (lambda r: nnx.RMSNorm(4, rngs=r), SEQUENCE, "layer_norm"),
    "group": (lambda r: nnx.GroupNorm(4, num_groups=2, rngs=r), SEQUENCE, "reduce"),
    "prelu": (lambda r: nnx.PReLU(), SEQUENCE, "prelu"),
    "transposed": (
        lambda r: nnx.ConvTranspose(3, 2, (3, 3), strides=(2, 2), rngs=r),
        IMAGE,
        "conv_transpose",
    ),
    "lstm": (lambda r: nnx.RNN(nnx.LSTMCell(4, 3, rngs=r)), SEQUENCE[:, :3], "product"),
}


@pytest.mark.parametrize("name", NNX)
def test_nnx_layers(name):
    make, x, kind = NNX[name]
    network = from_jax(make(nnx.Rngs(0)), x)
    assert kind in steps(network)
    assert network.size > 0


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.silu(linen.BatchNorm(use_running_average=True)(linen.Conv(4, (3, 3))(x)))
        return linen.LayerNorm()(linen.Dense(3)(x.mean((1, 2))))


def test_linen():
    model = LinenNet()
    variables = model.init(KEY, IMAGE)
    for network in (
        from_jax(model, IMAGE, params=variables),
        from_jax(model.apply, IMAGE, params=variables),
    ):
        assert steps(network) == [
            *("transpose", "conv", "batch_norm", "activation", "reduce", "dense", "layer_norm")
        ]
    assert keys(network)["params.BatchNorm_0"]["mean"] == ("batch_stats.BatchNorm_0.mean", False)
    with pytest.raises(InputError, match="params=variables"):
        from_jax(model, IMAGE)


# --- equinox --------------------------------------------------------------------------------------


def test_equinox_mlp():
    model = eqx.nn.MLP(6, 3, 8, 2, key=KEY)
    network = from_jax(model, V[0], batch_axis=None)
    assert steps(network) == ["dense", "activation"] * 2 + ["dense"]
    assert keys(network)["layers.1"] == {
        "weight": ("layers.1.weight", True),
        "bias": ("layers.1.bias", True),
    }
    many = from_jax(jax.vmap(model), V)
    assert steps(many) == steps(network)


def test_equinox_cnn():
    layers = [
        eqx.nn.Conv2d(3, 4, 3, padding=1, key=KEY),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.MaxPool2d(2, 2),
        eqx.nn.Conv2d(4, 2, 3, stride=2, key=KEY),
        eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(2, 3, key=KEY),
    ]
    network = from_jax(eqx.nn.Sequential(layers), np.zeros((3, 8, 8), "float32"), batch_axis=None)
    assert steps(network) == ["conv", "activation", "max_pool", "conv", "reshape", "dense"]
    assert keys(network)["layers.0"]["bias"] == ("layers.0.bias", True)


class SelfAttention(eqx.Module):
    attention: eqx.nn.MultiheadAttention

    def __call__(self, x):
        return self.attention(x, x, x)


class Cell(eqx.Module):
    cell: eqx.nn.LSTMCell

    def __call__(self, h, c, x):
        return self.cell(x, (h, c))


EQUINOX = {
    "attention": (
        lambda: SelfAttention(eqx.nn.MultiheadAttention(2, 4, key=KEY)),
        SEQUENCE[0],
        "softmax",
    ),
    "layer norm": (lambda: eqx.nn.LayerNorm(4), SEQUENCE[0, 0], "layer_norm"),
    "rms norm": (lambda: eqx.nn.RMSNorm(4), SEQUENCE[0, 0], "layer_norm"),
    "group norm": (lambda: eqx.nn.GroupNorm(2, 4), np.zeros((4, 5, 5), "float32"), "layer_norm"),
    "conv 1d": (lambda: eqx.nn.Conv1d(3, 4, 3, key=KEY), np.zeros((3, 8), "float32"), "conv"),
    "transposed": (
        lambda: eqx.nn.ConvTranspose2d(3, 4, 3, 2, output_padding=1, padding=1, key=KEY),
        np.zeros((3, 5, 5), "float32"),
        "conv_transpose",
    ),
    "one channel": (
        lambda: eqx.nn.Sequential([eqx.nn.Conv2d(1, 1, 3, key=KEY), eqx.nn.AvgPool2d(2, 2)]),
        np.zeros((1, 6, 6), "float32"),
        "average_pool",
    ),
    "no-op": (
        lambda: eqx.nn.Sequential([eqx.nn.Linear(6, 6, key=KEY), eqx.nn.Identity()]),
        V[0],
        "dense",
    ),
    "prelu": (lambda: eqx.nn.PReLU(), SEQUENCE[0], "prelu"),
    "lstm": (
        lambda: Cell(eqx.nn.LSTMCell(4, 3, key=KEY)),
        tuple(np.zeros(n, "float32") for n in (3, 3, 4)),
        "product",
    ),
    "gru": (
        lambda: eqx.nn.GRUCell(4, 3, key=KEY),
        tuple(np.zeros(n, "float32") for n in (4, 3)),
        "product",
    ),
}


@pytest.mark.parametrize("name", EQUINOX)
def test_equinox_layers(name):
    make, x, kind = EQUINOX[name]
    network = from_jax(make(), x, batch_axis=None)
    assert kind in steps(network)
    assert network.size > 0
