"""Graphs with branches, reflections and max pooling: the chain is the same function."""

from pathlib import Path

import numpy as np
import pytest

from tangency.models import Builder, UnsupportedError, activations, load
from tangency.models.ops import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    GroupSort,
    Householder,
    MaxPool,
    Product,
    Softmax,
)
from tangency.verify.certificate import Residual, Slopes, spectral_norm_bound
from tangency.verify.chain.blocks import chain_of_blocks
from tangency.verify.chain.unroll import is_plain
from tangency.verify.checking import check as proved_file
from tangency.verify.checking import write_certificate
from tangency.verify.lipschitz import bound_chain, lipschitz_bound

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "maxmin"


class Net:
    """A Builder with random weights."""

    def __init__(self, shape, seed=0, scale=1.0):
        self.rng = np.random.default_rng(seed)
        self.scale = scale
        self.builder = Builder("float64")
        self.input = self.builder.input((1, *shape))
        self.count = 0

    def normal(self, *shape):
        return self.scale * self.rng.standard_normal(shape)

    def dense(self, x, rows, columns):
        self.count += 1
        keys = (f"d{self.count}.weight", f"d{self.count}.bias")
        weight = self.normal(rows, columns) / np.sqrt(columns)
        return self.builder.dense(x, weight, self.normal(rows), keys=keys)

    def conv(self, x, rows, columns):
        self.count += 1
        weight = self.normal(rows, columns, 3, 3) / (3 * np.sqrt(columns))
        key = f"c{self.count}"
        params = {"weight": (f"{key}.weight", weight), "bias": (f"{key}.bias", self.normal(rows))}
        return self.builder.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1), [x], params)

    def relu(self, x):
        return self.builder.activation(x, activations.get("relu"))

    def add(self, *xs):
        return self.builder.elementwise(Add(), *xs)

    def flat(self, x, size):
        return self.builder.reshape(x, (1, size))

    def finish(self, x):
        return self.builder.finish([x], source="test")


def act(activation, function, z):
    if function is not None:
        return function.value(z)
    return np.sort(z.reshape(len(z), -1, activation.size), axis=-1)[..., ::-1].reshape(z.shape)


def replay(chain, x):
    for k, (w, bias) in enumerate(zip(chain.weights, chain.biases, strict=True)):
        z = x @ w.midpoint.T + (0 if bias is None else bias)
        if k == len(chain.activations):
            return z
        activation, function = chain.activations[k], chain.functions[k]
        if isinstance(activation, Residual):
            y = act(activation.inner, function, z)
            x = x + (y if activation.output is None else y @ activation.output.midpoint.T)
        else:
            x = act(activation, function, z)


def check(network, **options):
    """The chain is the network, and its bound exceeds sampled quotients; the chain and bound."""
    assert not is_plain(network)
    chain = chain_of_blocks(network)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, *network.input_shape))
    y = x + 1e-4 * rng.standard_normal(x.shape)
    flat = x.reshape(40, -1)
    f, g = (np.asarray(network(v)).reshape(40, -1) for v in (x, y))
    np.testing.assert_allclose(replay(chain, flat), f, atol=1e-9)
    quotients = np.linalg.norm(f - g, axis=1) / np.linalg.norm((x - y).reshape(40, -1), axis=1)
    bound = bound_chain(chain, **options)
    assert bound.certified
    assert bound.upper >= quotients.max() * (1 - 1e-6)
    assert bound.upper <= bound.product
    return chain, bound


@pytest.mark.parametrize("sorting", [False, True])
def test_residual_blocks(sorting):
    net = Net((3,))
    x = net.dense(net.input, 6, 3)
    for _ in range(2):
        inner = net.dense(x, 6, 6)
        inner = net.builder.emit(GroupSort(2), [inner], {}) if sorting else net.relu(inner)
        inner = inner if sorting else net.dense(inner, 6, 6)
        x = net.add(x, inner)
    chain, bound = check(net.finish(net.dense(x, 2, 6)))
    assert [type(a) for a in chain.activations] == [Slopes, Residual, Residual]
    assert bound.method == "lipsdp"
    assert all(w.radius is None for w in chain.weights)


def test_the_sum_of_a_linear_block_is_exact():
    """x + G x with a slope of one: the bound is the norm of the matrix."""
    net = Net((3,))
    inner = net.dense(net.input, 3, 3)
    inner = net.builder.activation(inner, activations.get("leaky_relu", negative_slope=1.0))
    network = net.finish(net.add(net.input, inner))
    _, bound = check(network)
    matrix = np.eye(3) + network.weights["d1.weight"]
    assert bound.upper == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-6)


def test_blocks_of_two_layers_carry_their_input():
    net = Net((4,), seed=2)
    x = net.relu(net.dense(net.input, 5, 4))
    inner = net.relu(net.dense(net.relu(net.dense(x, 6, 5)), 7, 6))
    x = net.relu(net.add(x, net.dense(inner, 5, 7)))
    chain, bound = check(net.finish(net.dense(x, 2, 5)))
    assert chain.sizes == (4, 5, 11, 12, 5, 2)
    assert bound.lower is not None
    assert bound.ratio < 1.6


def test_projections_concatenations_and_parallel_branches():
    net = Net((4,), seed=3)
    left = net.relu(net.dense(net.input, 3, 4))
    right = net.relu(net.dense(net.input, 5, 4))
    both = net.builder.emit(Concat(0), [left, right, net.input], {})
    x = net.add(net.dense(net.relu(net.dense(both, 4, 12)), 2, 4), net.dense(both, 2, 12))
    check(net.finish(x))


def test_convolutional_block_with_batch_norm():
    net = Net((2, 4, 4), seed=4)
    x = net.relu(net.conv(net.input, 3, 2))
    inner = net.conv(net.relu(net.conv(x, 3, 3)), 3, 3)
    params = {
        "weight": ("bn.weight", np.array([0.5, 1.0, 2.0])),
        "bias": ("bn.bias", np.zeros(3)),
        "mean": ("bn.mean", np.ones(3)),
        "var": ("bn.var", np.array([0.3, 1.0, 2.0])),
    }
    inner = net.builder.emit(BatchNorm(), [inner], params, buffers=("mean", "var"))
    x = net.add(inner, x)
    x = net.builder.emit(AveragePool((2, 2), (2, 2), ((0, 0), (0, 0))), [x], {})
    network = net.finish(net.dense(net.flat(x, 12), 2, 12))
    check(network, method="product")


@pytest.mark.parametrize(
    ("size", "stride", "padding", "multiplicity"),
    [(1, 2, 0, 1), (2, 2, 0, 1), (2, 1, 0, 4), (3, 2, 0, 4), (3, 1, 1, 9), (3, 2, 1, 4)],
)
def test_max_pooling(size, stride, padding, multiplicity):
    net = Net((2, 5, 5), seed=5)
    op = MaxPool((size,) * 2, (stride,) * 2, ((padding,) * 2,) * 2)
    x = net.builder.emit(op, [net.input], {})
    network = net.finish(x)
    chain, bound = check(network, method="product")
    if not padding:  # a window cut by padding repeats an entry
        assert bound.upper <= np.sqrt(multiplicity) * (1 + 1e-9)
    assert spectral_norm_bound(chain.weights[0]) <= bound.upper * (1 + 1e-9)
    windows = chain.weights[0].midpoint
    assert np.array_equal(windows.sum(axis=1), np.ones(len(windows)))


def test_max_pooling_between_layers():
    net = Net((1, 4, 4), seed=6)
    x = net.relu(net.conv(net.input, 2, 1))
    x = net.builder.emit(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), [x], {})
    network = net.finish(net.dense(net.flat(x, 8), 2, 8))
    _, bound = check(network)
    assert bound.method == "lipsdp"
    assert bound.lower is not None


@pytest.mark.parametrize("shape", [(6,), (6, 2)])
def test_householder_of_any_length(shape):
    """Float normals have no unit length; a normal twice as long has slope -7 on one side."""
    net = Net(shape, seed=7)
    normals = np.array([[0.6, 0.8], [1.2, 1.6], [0.0, -1.0]])
    x = net.builder.emit(Householder(), [net.input], {"vectors": ("h.vectors", normals)})
    network = net.finish(x)
    _, bound = check(network)
    assert bound.upper == pytest.approx(7.0, rel=1e-4)
    exact = Net(shape, seed=7)
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    y = exact.builder.emit(Householder(), [exact.input], {"vectors": ("h.vectors", unit)})
    assert check(exact.finish(y))[1].upper == pytest.approx(1.0, rel=1e-4)


def test_certificates_of_networks_with_blocks(tmp_path):
    net = Net((2, 4, 4), seed=8)
    x = net.conv(net.input, 2, 2)
    x = net.add(x, net.relu(net.conv(x, 2, 2)))
    x = net.builder.emit(MaxPool((2, 2), (2, 2), ((0, 0), (0, 0))), [x], {})
    network = net.finish(net.dense(net.flat(x, 8), 2, 8))
    for method in ("lipsdp", "product"):
        bound = lipschitz_bound(network, method=method)
        certificate = write_certificate(tmp_path / "c.cert", bound, network)
        assert proved_file(certificate, network)
        larger = {key: 1.01 * w for key, w in network.weights.items()}
        other = network.replace(larger)
        assert not proved_file(certificate, other)


def test_plain_networks_are_recognised():
    net = Net((4,))
    x = net.dense(net.relu(net.dense(net.input, 3, 4)), 2, 3)
    network = net.finish(x)
    assert is_plain(network)
    chain = chain_of_blocks(network)
    assert chain.sizes == (4, 3, 2)


def test_refusals():
    net = Net((4,))
    inner = net.builder.emit(GroupSort(2), [net.dense(net.input, 4, 4)], {})
    network = net.finish(net.dense(net.add(inner, net.dense(net.input, 4, 4)), 2, 4))
    with pytest.raises(UnsupportedError, match="group_sort stands beside a branch from 'input'"):
        chain_of_blocks(network)
    net = Net((4,))
    product = net.builder.elementwise(Product(), net.input, net.relu(net.dense(net.input, 4, 4)))
    with pytest.raises(UnsupportedError, match="no place for product"):
        chain_of_blocks(net.finish(product))
    net = Net((1, 1))
    op = MaxPool((2,), (1,), ((1, 2),), (3,))
    with pytest.raises(UnsupportedError, match="nothing but padding"):
        chain_of_blocks(net.finish(net.builder.emit(op, [net.input], {})))
    net = Net((4,))
    network = net.finish(net.builder.emit(Softmax(0), [net.input], {}))
    with pytest.raises(UnsupportedError, match="no place for softmax"):
        chain_of_blocks(network)


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data/maxmin")
def test_the_trained_residual_network():
    network = load(DATA / "resweights_5_32.mat", residual=True)
    chain = chain_of_blocks(network)
    assert [type(a) for a in chain.activations] == [Slopes, Residual, Residual, Residual]
    bound = lipschitz_bound(network)
    assert bound.certified
    assert bound.product == pytest.approx(55.65, abs=0.01)
    assert bound.upper <= 29.75
    assert bound.upper == pytest.approx(20.61476, rel=2e-4)
