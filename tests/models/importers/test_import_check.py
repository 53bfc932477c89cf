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


BOUND = np.full(5, 3e4, "float32")
X5 = np.zeros((1, 5), "float32")


def mean_beyond(bound):
    return lambda x, nx: x + nx.maximum(x.mean(0) - np.full(5, bound, "float32"), 0)


#: Models that mix their samples only far beyond the probes. At a batch of one each of them reads
#: as a function of one sample.
FAR = {
    "the first": lambda x, nx: x + nx.maximum(x[:1] - BOUND, 0),
    "the last": lambda x, nx: x + nx.maximum(x[-1:] - BOUND, 0),
    "one inside": lambda x, nx: x + nx.maximum(x[x.shape[0] // 2] - BOUND, 0),
    "the first, below": lambda x, nx: x + nx.maximum(-x[:1] - BOUND, 0),
    **{f"mean beyond {t:g}": mean_beyond(t) for t in (3e4, 3e5, 3e6, 3e7)},
    "maximum": lambda x, nx: x - nx.maximum(x.max() - np.float32(1e9), 0),
    "minimum of all": lambda x, nx: x + nx.maximum(x.min(0) - BOUND, 0),
    "maximum of all": lambda x, nx: x - nx.maximum(-BOUND - x.max(0), 0),
    "gate": lambda x, nx: x * nx.where(x.sum() > 1e30, np.float32(0), np.float32(1)),
    "gate below": lambda x, nx: x * nx.where(x.sum() < -1e30, np.float32(0), np.float32(1)),
    "band": lambda x, nx: x + nx.maximum(1 - nx.abs(x.max() / np.float32(1e12) - 1), 0),
    "a small step": lambda x, nx: x + nx.where(x.max() > 1e9, np.float32(1e-2), np.float32(0)),
    "to the first": lambda x, nx: (
        x + nx.maximum(x.max() - BOUND, 0) * (np.arange(len(x))[:, None] == 0).astype("f4")
    ),
    "not a number": lambda x, nx: x + 0 * x.sum(0),
}

#: The like; each of them is x + max(x - BOUND, 0) at a batch of one.
ORDER = {
    "sum of those before": lambda x, nx: x + nx.maximum(nx.cumsum(x, 0) - BOUND, 0),
    "sum of those behind": lambda x, nx: (
        x + nx.maximum(nx.flip(nx.cumsum(nx.flip(x, (0,)), 0), (0,)) - BOUND, 0)
    ),
    "rolled": lambda x, nx: x + nx.maximum(nx.roll(x, 1, 0) - BOUND, 0),
    "flipped": lambda x, nx: x + nx.maximum(nx.flip(x, (0,)) - BOUND, 0),
    "sorted": lambda x, nx: x + nx.maximum(nx.sort(x, 0) - BOUND, 0),
}


@pytest.mark.parametrize("name", [*FAR, *ORDER])
def test_a_model_that_mixes_its_samples_far_out_is_refused(name):
    model = (FAR | ORDER)[name]

    def quiet(x):
        with np.errstate(all="ignore"):
            return model(x, np)

    one = FAR.get(name, FAR["the first"])
    network = from_jax(lambda x: one(x, jnp), X5, check=False)
    with pytest.raises(UnsupportedError, match="mixes its samples"):
        check_import(network, quiet, batched=True)


@pytest.mark.parametrize("name", [*FAR, *ORDER])
def test_from_jax_refuses_what_mixes_far_out(name):
    match = "mixes its samples" if name in FAR else None
    with pytest.raises(UnsupportedError, match=match):
        from_jax(lambda x: (FAR | ORDER)[name](x, jnp), X5)


@pytest.mark.parametrize(
    "name", ["the first", "the last", "mean", "maximum", "minimum of all", "gate"]
)
def test_from_torch_refuses_what_mixes_far_out(name):
    torch = pytest.importorskip("torch")
    from tangency.models import from_torch

    relu = torch.relu
    forward = {
        "the first": lambda x: x + relu(x[:1] - 3e4),
        "the last": lambda x: x + relu(x[-1:] - 3e4),
        "mean": lambda x: x + relu(x.mean(0) - 3e7),
        "maximum": lambda x: x - relu(x.amax() - 1e9),
        "minimum of all": lambda x: x + relu(x.amin(0) - 3e4),
        "gate": lambda x: x * torch.where(x.sum() > 1e30, 0.0, 1.0),
    }[name]

    class Model(torch.nn.Module):
        def forward(self, x):
            return forward(x)

    with pytest.raises(UnsupportedError, match="mixes its samples"):
        from_torch(Model(), torch.zeros(1, 5))


@pytest.mark.parametrize("runtime", [True, False])
@pytest.mark.parametrize(("op", "bound"), [("ReduceMax", 1e9), ("ReduceMean", 3e4)])
def test_from_onnx_refuses_what_mixes_far_out(op, bound, runtime, monkeypatch):
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    from tangency.models import from_onnx
    from tangency.models.importers import onnx_reference

    if runtime:
        pytest.importorskip("onnxruntime")
    else:
        monkeypatch.setattr(onnx_reference, "_runtime", lambda model: 1 / 0)
    nodes = [
        helper.make_node(op, ["x"], ["m"], keepdims=1),
        helper.make_node("Sub", ["m", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("Sub", ["x", "r"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, 1, ["n", 5]) for n in "xy"]
    held = [numpy_helper.from_array(np.float32([bound]), "b")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsupportedError, match="mixes its samples"):
        from_onnx(model)


def test_a_large_number_that_is_not_chosen_makes_no_rounding():
    network = from_jax(
        lambda x: jnp.where(x > 1e30, 0.0, x) + jax.nn.relu(x - 1e9), X5, check=False
    )
    check_import(network, lambda x: x, batched=True)
    with pytest.raises(UnsupportedError, match="misread"):
        check_import(network, lambda x: x * np.float32(1.01), batched=True)


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


ORDINARY = {
    "convolutions, batch norm": lambda nn: (
        nn.Sequential(
            *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 3, 2), nn.Softplus(), nn.Flatten(), nn.Linear(3, 2), nn.Softmax(-1)),
        ),
        (1, 2, 6, 6),
    ),
    "transformer": lambda nn: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 4, 8)),
    "sines": lambda nn: (Sines(nn, 5), (1, 5)),
}


def Sines(nn, width):
    """Layers of sines at a high frequency, each of which loses digits."""
    import torch

    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(30 * x)

    linear = [nn.Linear(width, width) for _ in range(4)]
    return nn.Sequential(*(layer for part in linear for layer in (part, Sine())))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_models_of_torch_are_not_refused(name, dtype):
    torch = pytest.importorskip("torch")
    from tangency.models import from_torch

    torch.manual_seed(0)
    module, shape = ORDINARY[name](torch.nn)
    kind = getattr(torch, dtype)
    from_torch(module.to(kind).eval(), torch.zeros(shape, dtype=kind))


def test_ordinary_models_of_jax_are_not_refused():
    from_jax(lambda x: jnp.sin(30 * jnp.sin(30 * (jnp.sin(30 * x) @ W[:5, :5]))), X5)

    def attention(x):
        scores = jax.nn.softmax(x @ x.swapaxes(-1, -2), axis=-1)
        return jax.nn.logsumexp(scores @ x, axis=-1)

    from_jax(attention, np.zeros((1, 4, 5), "float32"))

    def recurrent(x):
        h = c = jnp.zeros((len(x), 5))
        for t in range(x.shape[1]):
            gates = x[:, t] @ W[:5, :20] + h @ W[5:10, :20]
            i, f, o, g = jnp.split(gates, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h

    from_jax(recurrent, np.zeros((1, 3, 5), "float32"))
