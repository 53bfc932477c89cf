"""from_jax recognises what jax.nn and its users write as one activation, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tangency.models import from_jax
from tangency.models.network import precision

X = {d: np.zeros((1, 6), d) for d in ("float32", "float64")}


def steps(network):
    return [node.op.kind for node in network.structure.nodes[1:]]


def only_record(network):
    assert steps(network) == ["activation"]
    record = network.structure.nodes[1].op.activation
    return record.name, dict(record.params)


NN = {
    "relu": (jax.nn.relu, "relu", {}),
    "relu6": (jax.nn.relu6, "relu6", {}),
    "sigmoid": (jax.nn.sigmoid, "sigmoid", {}),
    "softplus": (jax.nn.softplus, "softplus", {"beta": 1.0}),
    "silu": (jax.nn.silu, "silu", {}),
    "swish": (jax.nn.swish, "silu", {}),
    "log_sigmoid": (jax.nn.log_sigmoid, "logsigmoid", {}),
    "leaky_relu": (jax.nn.leaky_relu, "leaky_relu", {"negative_slope": 0.01}),
    "leaky_relu 0.2": (
        lambda x: jax.nn.leaky_relu(x, 0.2),
        "leaky_relu",
        {"negative_slope": 0.2},
    ),
    "hard_sigmoid": (jax.nn.hard_sigmoid, "hardsigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hard_silu": (jax.nn.hard_silu, "hardswish", {}),
    "hard_tanh": (jax.nn.hard_tanh, "hardtanh", {"min_val": -1.0, "max_val": 1.0}),
    "elu": (jax.nn.elu, "elu", {"alpha": 1.0}),
    "elu 1.3": (lambda x: jax.nn.elu(x, 1.3), "elu", {"alpha": 1.3}),
    "celu": (jax.nn.celu, "elu", {"alpha": 1.0}),  # the same function
    "celu 1.3": (lambda x: jax.nn.celu(x, 1.3), "celu", {"alpha": 1.3}),
    "selu": (jax.nn.selu, "selu", {}),
    "gelu": (jax.nn.gelu, "gelu_tanh", {}),
    "gelu exact": (lambda x: jax.nn.gelu(x, approximate=False), "gelu", {}),
    "soft_sign": (jax.nn.soft_sign, "softsign", {}),
    "tanh": (jax.nn.tanh, "tanh", {}),
    "mish": (jax.nn.mish, "mish", {}),
    "sparse_plus": (jax.nn.sparse_plus, "smelu", {"beta": 1.0}),
}


@pytest.mark.parametrize("dtype", X)
@pytest.mark.parametrize("name", NN)
def test_functions_of_jax_nn(name, dtype):
    function, record, params = NN[name]
    if record != "hardsigmoid":  # whose 1/6 is JAX's division by 6; all else is JAX's own float
        params = {k: float(np.dtype(dtype).type(v)) for k, v in params.items()}
    assert only_record(from_jax(function, X[dtype])) == (record, params)


BY_HAND = {
    "relu max": (lambda x: jnp.maximum(0, x), "relu"),
    "relu where": (lambda x: jnp.where(x > 0, x, 0), "relu"),
    "relu product": (lambda x: x * (x > 0), "relu"),
    "relu abs": (lambda x: 0.5 * (x + jnp.abs(x)), "relu"),
    "relu6 clip": (lambda x: jnp.clip(x, 0, 6), "relu6"),
    "gelu erf": (lambda x: x * 0.5 * (1.0 + lax.erf(x / jnp.sqrt(2.0))), "gelu"),
    "gelu tanh": (
        lambda x: 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3))),
        "gelu_tanh",
    ),
    "quick gelu": (lambda x: x * jax.nn.sigmoid(1.702 * x), "quick_gelu"),
    "sigmoid": (lambda x: 1 / (1 + jnp.exp(-x)), "sigmoid"),
    "sigmoid tanh": (lambda x: 0.5 * (1 + jnp.tanh(x / 2)), "sigmoid"),
    "silu": (lambda x: x / (1 + jnp.exp(-x)), "silu"),
    "softplus": (lambda x: jnp.log(1 + jnp.exp(x)), "softplus"),
    "softplus beta": (lambda x: jax.nn.softplus(3.0 * x) / 3.0, "softplus"),
    "logaddexp": (lambda x: jnp.logaddexp(x, 0.0), "softplus"),
    "mish": (lambda x: x * jnp.tanh(jnp.log1p(jnp.exp(x))), "mish"),
    "elu": (lambda x: jnp.where(x > 0, x, jnp.expm1(jnp.minimum(x, 0))), "elu"),
    "leaky max": (lambda x: jnp.maximum(0.1 * x, x), "leaky_relu"),
    "softshrink": (lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.3, 0), "softshrink"),
    "hardshrink": (lambda x: jnp.where(jnp.abs(x) > 0.3, x, 0), "hardshrink"),
    "threshold": (lambda x: jnp.where(x > 0.5, x, 0.2), "threshold"),
    "tanhshrink": (lambda x: x - jnp.tanh(x), "tanhshrink"),
    "heaviside": (lambda x: (x > 0).astype(x.dtype), "heaviside"),
    "relu squared": (lambda x: jax.nn.relu(x) ** 2, "relu_squared"),
    "square": (lambda x: x * x, "square"),
    "cube": (lambda x: x * x * x, "cube"),
    "power": (lambda x: x**4, "power"),
    "reciprocal": (lambda x: 1 / x, "reciprocal"),
    "clip": (lambda x: jnp.clip(x, -0.3, 2.0), "hardtanh"),
    "floor at": (lambda x: jnp.maximum(x, 0.3), "clip"),
}


@pytest.mark.parametrize("dtype", X)
@pytest.mark.parametrize("name", BY_HAND)
def test_by_structure(name, dtype):
    function, record = BY_HAND[name]
    assert only_record(from_jax(function, X[dtype]))[0] == record


def relu(x):
    return jnp.minimum(jnp.maximum(x, 0), 1000.0)


def leaky_relu(x):
    return jnp.where(x > 0, x, 0.1 * x * x)


def softplus(x):
    return jnp.logaddexp(x, 0) + 1e-5


def gelu(x):
    return 0.5 * x * (1 + lax.erf(x / 1.5))


@pytest.mark.parametrize("impostor", [relu, leaky_relu, softplus, gelu])
def test_a_name_alone_is_not_believed(impostor):
    network = from_jax(jax.jit(impostor), X["float64"])
    assert steps(network) != ["activation"] or only_record(network)[0] != impostor.__name__
    x = np.linspace(-5, 2000, 6)[None]
    with precision("float64"):
        np.testing.assert_allclose(network.evaluate(x), impostor(x), rtol=1e-12)


@pytest.mark.parametrize("eps", [1e-3, 1e-8, 1e-12])
def test_a_small_constant_is_kept(eps):
    network = from_jax(lambda x: jnp.sqrt(jnp.maximum(x, 0) + eps), X["float64"])
    assert network.evaluate(np.zeros((1, 6)))[0, 0] == pytest.approx(eps**0.5)


def test_a_learned_slope_is_a_parameter():
    def model(p, x):
        return jnp.where(x >= 0, x, p["slope"] * x)

    scalar = from_jax(model, X["float32"], params={"slope": np.float32(0.3).reshape(())})
    each = from_jax(model, X["float32"], params={"slope": np.arange(6, dtype="float32")})
    assert steps(scalar) == steps(each) == ["prelu"]
    assert scalar.structure.trainable == ("slope",)
    assert each.weights["slope"].shape == (6,)


def test_a_fresh_bias_is_no_slope():
    # Zero biases before a ReLU look like a PReLU of slopes zero at the values they have.
    def model(p, x):
        return jax.nn.relu(jax.nn.sigmoid(x) * 2 + p["b"])

    network = from_jax(model, X["float32"], params={"b": np.zeros(6, "float32")})
    moved = network.replace({"b": np.full(6, -1.5, "float32")})
    assert moved.evaluate(np.zeros((1, 6), "float32")).max() == 0


@pytest.mark.parametrize("dtype", X)
def test_groups(dtype):
    x = np.zeros((1, 4, 6), dtype)
    assert steps(from_jax(lambda x: jax.nn.softmax(x, axis=1), x)) == ["softmax"]
    naive = from_jax(lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True), x)
    assert steps(naive) == ["softmax"]
    assert steps(from_jax(lambda x: jax.nn.logsumexp(x, axis=(1, 2))[:, None], x)) == [
        "log_sum_exp",
        "reshape",
    ]
    assert steps(from_jax(jax.nn.log_softmax, x)) == ["log_sum_exp", "reshape", "subtract"]
    (norm,) = from_jax(jax.nn.standardize, x).structure.nodes[1:]
    eps = float(np.dtype(dtype).type(1e-5))  # exactly the number that the model adds
    assert (norm.op.kind, norm.op.eps, norm.op.center) == ("layer_norm", eps, True)
    assert steps(from_jax(jax.nn.glu, x)) == ["slice", "slice", "activation", "product"]
    assert "activation" in steps(from_jax(jax.nn.squareplus, x))


def test_layer_norm_with_its_parameters():
    params = {"g": np.ones(6, "float32"), "b": np.zeros(6, "float32")}
    x = np.zeros((1, 4, 6), "float32")

    def model(p, x):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["g"] + p["b"]

    network = from_jax(model, x, params=params)
    (node,) = network.structure.nodes[1:]
    assert node.op.kind == "layer_norm"
    assert node.op.eps == float(np.float32(1e-6))
    assert {p.role: p.key for p in node.params} == {"weight": "g", "bias": "b"}

    def before(p, x):  # the gain acts before the norm: another function of it
        return model({"g": 1.0, "b": 0.0}, x * p["g"])

    network = from_jax(before, x, params={"g": params["g"]})
    assert steps(network) == ["scale", "layer_norm"]
