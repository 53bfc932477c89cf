"""Network: evaluation, immutability, table, hash, file, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest

from tangency.models import Builder, InputError, Network, activations, from_layers
from tangency.models.activations import Activation, registry
from tangency.models.file import encode_op
from tangency.models.ops import OPS, Conv, GroupSort, MaxPool, Scale, Subtract

RNG = np.random.default_rng(1)


def mlp(dtype="float32"):
    shapes = [(8, 5), (8, 8), (3, 8)]
    layers = [
        (RNG.standard_normal(s).astype(dtype), RNG.standard_normal(s[0]).astype(dtype))
        for s in shapes
    ]
    return layers, from_layers(layers, ["relu", "tanh"])


def convnet():
    b = Builder("float32")
    x = b.input((1, 2, 8, 8))
    b.scope = "conv"
    w = RNG.standard_normal((4, 2, 3, 3)).astype("float32")
    x = b.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1), [x], {"weight": ("conv.weight", w)})
    x = b.activation(x, activations.get("leaky_relu", negative_slope=0.2))
    b.scope = "pool"
    x = b.emit(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), [x])
    b.scope = "head"
    x = b.dense(b.reshape(x, (1, 64)), RNG.standard_normal((3, 64)).astype("float32"))
    return b.finish([x])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_evaluation_agrees_with_plain_numpy(dtype):
    layers, network = mlp(dtype)
    x = RNG.standard_normal((7, 5)).astype(dtype)
    (w1, b1), (w2, b2), (w3, b3) = layers
    want = np.tanh(np.maximum(x @ w1.T + b1, 0) @ w2.T + b2) @ w3.T + b3
    tol = {"float32": 1e-5, "float64": 1e-13}[dtype]
    for got in (network(x), network.evaluate(x)):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=tol, atol=tol)
    np.testing.assert_allclose(network(x[0]), want[0], rtol=tol, atol=tol)
    assert network.evaluate(x[0]).shape == (3,)


def test_float64_leaves_jax_alone():
    import jax

    _, network = mlp("float64")
    network(np.zeros((1, 5)))
    assert not jax.config.jax_enable_x64
    assert jax.numpy.zeros(1).dtype == "float32"


def test_it_traces_in_jax():
    import jax

    _, network = mlp()
    x = RNG.standard_normal(5).astype("float32")
    jacobian = jax.jacrev(network)(x)
    step = 1e-2 * np.eye(5, dtype="float32")[0]
    numeric = (network(x + step) - network(x - step)) / 2e-2
    np.testing.assert_allclose(jacobian[:, 0], numeric, rtol=0.05, atol=0.05)


def test_it_is_immutable():
    _, network = mlp()
    with pytest.raises(AttributeError, match="immutable"):
        network.source = "elsewhere"
    with pytest.raises(TypeError):
        network.weights["layer0.weight"] = None
    with pytest.raises(ValueError, match="read-only"):
        network.weights["layer0.weight"][0, 0] = 1.0


def test_table_names_layers_shapes_and_parameters():
    text = str(convnet())
    assert "conv padding=1 " in text
    assert "leaky_relu(negative_slope=0.2)" in text
    assert "(N, 4, 8, 8)" in text
    assert "weight 3x64" in text
    assert "264 trainable parameters, float32" in text


def test_hash_is_of_graph_and_weights_alone():
    layers, network = mlp()
    again = from_layers(layers, ["relu", "tanh"], source="a copy")
    assert network.hash == again.hash
    assert network == again
    other = layers[0][0].copy()
    other[0, 0] = np.nextafter(other[0, 0], np.float32(9))
    changed = network.replace({"layer0.weight": other})
    assert len({network.hash, changed.hash, from_layers(layers, "relu").hash}) == 3
    assert network.astype("float64").hash != network.hash
    assert network.astype("float64").astype("float32") == network


def scaled(shape):
    """An elementwise factor for each entry of a (3, 3) input, broadcast from its shape."""
    b = Builder("float64")
    x = b.input((1, 3, 3))
    y = b.emit(Scale(), [x], {"scale": ("scale", np.array([1.0, 2.0, 3.0]).reshape(shape))})
    return b.finish([y])


def convolved(shape):
    b = Builder("float64")
    x = b.input((1, 1, 3, 3))
    pads = tuple((0, k - 1) for k in shape)
    kernel = np.array([1.0, 2.0]).reshape(1, 1, *shape)
    y = b.emit(Conv((1, 1), pads, (1, 1), 1), [x], {"weight": ("weight", kernel)})
    return b.finish([y])


def activated(record, dtype="float64"):
    return from_layers([np.eye(2, dtype=dtype)] * 2, record)


def own(name="wob", factor=1.0, **rest):
    return Activation(name, lambda nx, x: nx.sin(factor * x), **rest)


def outputs(*order):
    b = Builder("float64")
    x = b.input((1, 2))
    ends = [b.activation(x, activations.get(name)) for name in ("relu", "tanh")]
    return b.finish([ends[i] for i in order])


def difference(*order):
    b = Builder("float64")
    ends = [b.input((1, 2)), b.input((1, 2))]
    return b.finish([b.emit(Subtract(), [ends[i] for i in order])])


PAIRS = {
    "shape of a scale": (scaled((3, 1)), scaled((1, 3))),
    "shape of a kernel": (convolved((1, 2)), convolved((2, 1))),
    "user's formula": (activated(own()), activated(own(factor=3.0))),
    "user's slope": (activated(own()), activated(own(derivative=lambda nx, x: nx.cos(x)))),
    "a namesake of relu": (activated("relu"), activated(own("relu"))),
    "name": (activated("relu"), activated("tanh")),
    "parameter": tuple(
        activated(activations.get("leaky_relu", negative_slope=s))
        for s in (0.1, np.nextafter(0.1, 1))
    ),
    "dtype": (activated("relu"), activated("relu", "float32")),
    "order of outputs": (outputs(0, 1), outputs(1, 0)),
    "one output twice": (outputs(0, 1), outputs(0, 0)),
    "order of inputs": (difference(0, 1), difference(1, 0)),
}


@pytest.mark.parametrize(("one", "two"), PAIRS.values(), ids=PAIRS)
def test_two_functions_have_two_hashes(one, two):
    assert one.hash != two.hash
    assert one != two


def test_every_attribute_of_every_op_is_in_the_hash():
    """Changing one field of an op changes the text that is hashed."""
    for kind, cls in OPS.items():
        plain = cls(**{f.name: _some(f)[0] for f in fields(cls)})
        for f in fields(cls):
            other = replace(plain, **{f.name: _some(f)[1]})
            assert json.dumps(encode_op(plain)) != json.dumps(encode_op(other)), (kind, f.name)


def _some(field):
    """Two values of a field: what an encoding could confuse, a number and its tuple."""
    if field.type == "Activation":
        return own(), own(factor=2.0)
    return ((1, 2), (3,)), ((1,), (2, 3))


def test_equal_formulas_have_one_hash_in_another_process():
    code = """
    import numpy as np
    from tangency.models import from_layers
    from tangency.models.activations import Activation
    record = Activation("wob", lambda space, u: space.sin(2.0 * u))
    print(from_layers([np.eye(2)] * 2, record).hash)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == activated(own(factor=2.0)).hash


def test_a_formula_that_cannot_be_followed_has_no_hash():
    network = activated(Activation("branching", lambda nx, x: np.vectorize(abs)(x)))
    np.testing.assert_array_equal(network.evaluate(np.array([[-1.0, 2.0]])), [[1.0, 2.0]])
    with pytest.raises(InputError, match=r"'branching'.*cannot be followed"):
        _ = network.hash
    assert "no sha256" in str(network)


def test_structure_is_shared_and_hashable():
    (_, a), (_, b) = mlp(), mlp()
    assert a.structure == b.structure
    assert hash(a.structure) == hash(b.structure)
    assert a != b


@pytest.mark.parametrize("make", [lambda: mlp()[1], lambda: mlp("float64")[1], convnet])
def test_file_keeps_every_bit(tmp_path, make):
    network = make()
    network.save(tmp_path / "net.tangency")
    again = Network.load(tmp_path / "net.tangency")
    assert again.hash == network.hash
    assert again.structure == network.structure
    assert str(again) == str(network)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "net.tangency"
    network = mlp()[1]
    network.save(path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"net.tangency"):
            Network.load(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("structure.json", '{"format": "tangency-network", "version": 99}')
    with pytest.raises(InputError, match="version 99"):
        Network.load(path)
    other = mlp()[1]
    other.save(path)
    header = zipfile.ZipFile(path).read("structure.json").decode()
    network.save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["structure.json"] = header.encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(InputError, match="do not have the hash"):
        Network.load(path)


def test_an_unregistered_activation_is_not_saved(tmp_path):
    own = activations.Activation("own_softening", lambda nx, x: x / (1.0 + nx.abs(x)))
    eye = np.eye(2, dtype="float32")
    network = from_layers([eye, eye], own)
    with pytest.raises(InputError, match=r"own_softening.*register"):
        network.save(tmp_path / "net")


def test_a_file_names_the_formula_that_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))
    with pytest.raises(InputError, match=r"'relu' is not what the catalogue has"):
        activated(own("relu")).save(tmp_path / "net")
    record = activations.register(own(factor=2.0))
    network = activated(record)
    network.save(tmp_path / "net")
    assert Network.load(tmp_path / "net") == network
    with pytest.raises(InputError, match=r"'wob' is not what the catalogue has"):
        activated(own(factor=3.0)).save(tmp_path / "other")
    # in a process where somebody else's function has that name
    del registry._FACTORIES["wob"]
    with pytest.raises(InputError, match="no activation is called 'wob'"):
        Network.load(tmp_path / "net")
    activations.register(own(factor=3.0))
    with pytest.raises(InputError, match="'wob' that is registered is another function"):
        Network.load(tmp_path / "net")


def test_inputs_that_are_refused():
    _, network = mlp()
    good = np.zeros((4, 5), "float32")
    for bad, says in [
        (good.astype(int), "int64.*float32"),
        (good.astype("float64"), "float64 and the network float32"),
        (good.astype("float16"), "float16"),
        (good[:, :4].copy(), r"takes \(N, 5\), got \(4, 4\)"),
        (np.zeros((5, 4), "float32").T, "not contiguous"),
        ([0.0] * 5, "is a list"),
    ]:
        for call in (network, network.evaluate):
            with pytest.raises(InputError, match=says):
                call(bad)
    with pytest.raises(InputError, match="takes 1 inputs"):
        network(good, good)


def test_weights_that_are_refused():
    _, network = mlp()
    w = network.weights["layer1.weight"]
    for bad, says in [
        (np.where(w == w[0, 0], np.nan, w), "'layer1.weight' has a NaN"),
        (np.where(w == w[0, 0], np.inf, w), "'layer1.weight' has a NaN or infinite"),
        (w[:4], r"shape \(4, 8\), its layer takes \(8, 8\)"),
        (w.astype("float64"), "float64, the network is float32"),
    ]:
        with pytest.raises(InputError, match=says):
            network.replace({"layer1.weight": bad})
    with pytest.raises(InputError, match="not in the graph"):
        network.replace({"layer9.weight": w})
    with pytest.raises(InputError, match=r"missing: \['layer0.bias'"):
        Network(network.structure, {})


def test_from_layers_names_the_layer():
    eye = np.eye(4)
    for layers, says in [
        ([], "at least one"),
        ([eye, np.ones((2, 3))], "layer1.*takes 3 features"),
        ([eye, np.ones((2, 4), int)], "layer 1: the weight is int64"),
        ([eye, np.ones((4, 2)).T], "layer 1: the weight is not contiguous"),
        ([(eye, np.ones(3))], r"layer 0: bias \(3,\)"),
        ([np.full((4, 4), np.nan)], "layer 0: the weight has a NaN"),
        ([eye, eye.astype("float32")], "mixed"),
    ]:
        with pytest.raises(InputError, match=says):
            from_layers(layers)
    with pytest.raises(InputError, match="reluu"):
        from_layers([eye, eye], "reluu")
    with pytest.raises(InputError, match="groups of 3"):
        from_layers([eye, eye], "groupsort3")


def test_builder_gives_a_tidy_graph():
    b = Builder("float64")
    x = b.input((1, 2, 3))
    y = b.transpose(b.reshape(x, (1, 2, 3, 1)), (0, 2, 1, 3))
    y = b.activation(b.reshape(y, (1, 3, 2)), activations.get("tanh"))
    y = b.transpose(y, (0, 2, 1))
    network = b.finish([y])
    kinds = [n.op.kind for n in network.structure.nodes]
    assert kinds == ["input", "transpose", "activation", "transpose"]
    z = b.transpose(b.transpose(x, (0, 2, 1)), (0, 2, 1))
    assert z.node == x.node
    # Moving only axes of size one is no op at all, and a bias joins its dense layer.
    w = np.eye(3)
    d = b.shift(b.dense(b.transpose(b.reshape(x, (2, 1, 3)), (1, 0, 2)), w), np.ones(3))
    nodes = b.finish([d]).structure.nodes
    assert [n.op.kind for n in nodes] == ["input", "dense"]
    assert [p.role for p in nodes[1].params] == ["weight", "bias"]


def test_group_sort_of_an_inner_axis():
    b = Builder("float64")
    x = b.input((1, 4, 3))
    network = b.finish([b.emit(GroupSort(2, 0), [x], view=x.shape)])
    data = RNG.standard_normal((5, 4, 3))
    want = -np.sort(-data.reshape(5, 2, 2, 3), axis=2).reshape(5, 4, 3)
    np.testing.assert_array_equal(network.evaluate(data), want)
