"""The check of an import: what it refuses, and what it must not refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tangency.models import UnsupportedError, from_jax, from_layers
from tangency.models.importers.check import check_import

EYE = np.eye(3, dtype="float32")
X = np.zeros((1, 3), "float32")

#: An activation that a network has, and models that are the same function near zero or between
#: their constants.
OTHERS = {
    "clipped far out": ("relu", lambda x: np.clip(x, 0, 5000)),
    "another slope from 40 on": ("relu", lambda x: np.maximum(x, 0) - np.maximum(x / 10 - 4, 0)),
    "zero from 50 on": ("relu", lambda x: np.where(x * x > 2500, 0, np.maximum(x, 0))),
    "saturates": ("identity", lambda x: 1e5 * np.tanh(1e-5 * x)),
    "rational": ("identity", lambda x: x / (1 + 1e-9 * x * x)),
    "one entry of many": (
        "tanh",
        lambda x: np.tanh(x) + 1e-3 * np.maximum(x - 500, 0) * (np.arange(3) == 1),
    ),
    "a small tail": ("exp", lambda x: np.maximum(np.exp(x), 1e-4)),
    "not a number at zero": ("relu", lambda x: np.maximum(x, 0) + 0 * np.log(np.abs(x))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_function_is_refused(name):
    record, model = OTHERS[name]
    network = from_layers([EYE, EYE], record)

    def quiet(x):
        with np.errstate(all="ignore"):
            return model(x)

    with pytest.raises(UnsupportedError, match=r"output 0, entry \(\d,\), at .*: the model gives"):
        check_import(network, quiet, batched=True)


def test_a_bump_at_a_constant_of_the_model():
    network = from_layers([EYE, EYE], "relu")

    def model(x):
        return np.maximum(x, 0) + np.maximum(0, 1 - np.abs(x - 731.25))

    with pytest.raises(UnsupportedError, match="constants of the model"):
        check_import(network, model, batched=True, constants=[731.25])


def test_the_network_not_a_number_where_the_model_is_one():
    def norm(x, nx=np, least=1e-8):
        x = x - x.mean(-1, keepdims=True)
        return x / nx.sqrt(nx.maximum((x * x).mean(-1, keepdims=True), least))

    network = from_jax(lambda x: norm(x, jnp, 0.0), X, check=False)
    assert np.isnan(network.evaluate(X)).all()
    with pytest.raises(UnsupportedError, match="the network nan"):
        check_import(network, norm, batched=True)


MIXED = {
    "maximum": lambda x: x - jax.nn.relu(x.max() - 90),
    "flip": lambda x: jnp.flip(x, 0),
    "products of samples": lambda x: x @ x.T,
    "mean of what is large": lambda x: x + jax.nn.relu(x - 200).mean(axis=0),
    "centred": lambda x: x - x.mean(axis=0),
    "far from the first": lambda x: x + jax.nn.relu(jnp.abs(x[:1] - x) - 1000),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_model_that_mixes_its_samples_is_refused(name):
    with pytest.raises(UnsupportedError, match="mixes its samples") as error:
        from_jax(MIXED[name], X)
    assert "report" not in str(error.value)


def test_rolled_samples_are_refused():
    with pytest.raises(UnsupportedError):
        from_jax(lambda x: jnp.roll(x, 1, axis=0), X)
    with pytest.raises(UnsupportedError, match="mixes its samples"):
        check_import(
            from_layers([EYE, EYE], "identity"), lambda x: np.roll(x, 1, axis=0), batched=True
        )


def test_a_model_that_changes_from_call_to_call_is_refused():
    calls = [0]

    def counter(x):
        calls[0] += 1
        return np.maximum(x, 0) + (calls[0] > 1)

    rng = np.random.default_rng(0)

    def noise(x):
        return np.maximum(x, 0) * rng.integers(0, 2, x.shape)

    network = from_layers([EYE, EYE], "relu")
    with pytest.raises(UnsupportedError, match="from call to call"):
        check_import(network, noise, batched=True)
    for batched in (True, False):
        calls[0] = 0
        with pytest.raises(UnsupportedError):
            check_import(network, counter, batched=batched)


def test_a_batch_size_written_in_the_model():
    def single(x):
        if x.shape[0] != 1:
            raise ValueError("one sample")
        return np.maximum(x, 0)

    network = from_layers([EYE, EYE], "relu")
    check_import(network, single, batched=True)
    with pytest.raises(UnsupportedError, match="misread, please report it"):
        check_import(network, lambda x: np.minimum(single(x), 3000), batched=True)


W = np.random.default_rng(0).standard_normal((40, 40)).astype("float32") / 3

#: Models that lose digits, or overflow on the way: the same functions as their imports.
LOSSY = {
    "cancels": lambda x: (x @ W + 1e4) - 1e4,
    "naive softmax": lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
    "naive softplus": lambda x: jnp.log(1 + jnp.exp(x)),
    "centred twice": lambda x: (lambda y: y - y.mean(-1, keepdims=True))(x - x.mean(-1)[:, None]),
    "layer norm": jax.nn.standardize,
    "deep": lambda x: jnp.tanh(jnp.tanh(jnp.tanh(x @ W) @ W * 30) @ W * 30) @ W,
    "quantised": lambda x: jnp.floor(x * 3.7) / 3.7,
    "division": lambda x: jnp.floor(x / 7.0),
    "logarithm": lambda x: jnp.log(x),
    "power": lambda x: x**5,
    "sine": lambda x: jnp.sin(30 * x),
    "normal density": lambda x: jnp.exp(-x * x / 2),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSY)
def test_rounding_is_not_refused(name, dtype):
    from_jax(LOSSY[name], np.zeros((1, 40), dtype))


@pytest.mark.parametrize("divisor", [3.0, 7.0, 0.3, 0.1])
def test_both_evaluations_divide_exactly(divisor):
    network = from_jax(lambda x: jnp.floor(x / divisor), np.zeros((1, 1), "float32"))
    c = np.float32(divisor)
    x = (np.arange(-500, 500, dtype="float32") * c)[:, None]
    assert np.array_equal(network.evaluate(x), np.floor(x / c))
    assert np.array_equal(np.asarray(network(x)), np.floor(x / c))


OLD_OPSETS = {
    "softmax over all behind": ("Softmax", 12, (2, 3, 4), (), {"axis": 1}, True),
    "log softmax over all behind": ("LogSoftmax", 12, (2, 3, 4), (), {"axis": 1}, True),
    "padding at the front": (
        *("MaxPool", 12, (2, 5, 5), ()),
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        False,
    ),
    "momentum": ("BatchNormalization", 9, (2, 5, 5), ([1, 2], [0, 1], [3, 1], [1, 2]), {}, True),
}


@pytest.mark.parametrize(
    ("name", "runtime"),
    [(n, r) for n, case in OLD_OPSETS.items() for r in ((True, False) if case[-1] else (True,))],
)
def test_where_the_evaluator_of_onnx_is_wrong(name, runtime, monkeypatch):
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    from tangency.models import from_onnx
    from tangency.models.importers import onnx_reference

    op, opset, shape, params, attributes, _ = OLD_OPSETS[name]
    if runtime:
        pytest.importorskip("onnxruntime")
    else:
        monkeypatch.setattr(onnx_reference, "_runtime", lambda model: 1 / 0)
    if op == "BatchNormalization":
        attributes = {"momentum": 0.9}
    names = [f"p{i}" for i in range(len(params))]
    held = [numpy_helper.from_array(np.float32(p), n) for p, n in zip(params, names, strict=True)]
    ends = [helper.make_tensor_value_info(n, 1, ["n", *s]) for n, s in (("x", shape), ("y", "abc"))]
    node = helper.make_node(op, ["x", *names], ["y"], **attributes)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], held)
    opsets = [helper.make_opsetid("", opset)]
    assert from_onnx(helper.make_model(graph, opset_imports=opsets, ir_version=7)) is not None
