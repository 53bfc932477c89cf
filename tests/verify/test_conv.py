"""Convolutions in the frequency domain: norms, the relaxation, the checker, whole networks."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tangency.models import Builder, InputError, NotProvedError, UnsupportedError, activations
from tangency.models.ops import Add, AveragePool, BatchNorm, Conv, Dense, Reshape, numpy_backend
from tangency.verify.certificate import GroupSort, Slopes
from tangency.verify.certificate.conv import check_conv
from tangency.verify.certificate.conv_norm import conv_norm_bound
from tangency.verify.certificate.conv_symbol import ConvLayer, _turns, frequencies, symbol
from tangency.verify.certificate.conv_witness import common_torus
from tangency.verify.lipschitz import Chain, lipschitz_bound
from tangency.verify.lipschitz.conv import conv_bound
from tangency.verify.lipschitz.conv import network as conv_rooms
from tangency.verify.lipschitz.conv.curvature import hessian
from tangency.verify.lipschitz.conv.recursion import Problem
from tangency.verify.lipschitz.conv.repair import prove
from tangency.verify.lipschitz.conv.search import minimise
from tangency.verify.lipschitz.engine.search import engine_bound

SAME = ((1, 1), (1, 1))
GRID = [
    ((1, 1), SAME, (1, 1), 1, (5, 6), (3, 3)),
    ((2, 2), ((1, 1), (0, 2)), (1, 1), 1, (7, 6), (3, 3)),
    ((2, 3), ((1, 2), (2, 2)), (2, 1), 2, (8, 9), (3, 4)),
    ((1, 1), ((0, 0), (0, 0)), (1, 1), 4, (6, 6), (2, 2)),
    ((3, 1), ((0, 3), (2, 0)), (1, 2), 1, (4, 5), (2, 3)),
]


def unrolled(layer, size):
    """The matrix of a layer."""
    channels = layer.channels[0]
    basis = np.eye(channels * size[0] * size[1])
    images = basis.reshape(-1, channels, *size)
    out = numpy_backend().conv(
        images, layer.weight, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return out.reshape(len(basis), -1).T


def circulant(layer, torus):
    """The matrix of the layer on the torus, with its own offsets."""
    channels = layer.channels[0]
    x = np.eye(channels * torus[0] * torus[1]).reshape(-1, channels, *torus)
    y = sum(
        np.einsum("oi,bixy->boxy", layer.weight[:, :, a, b], np.roll(x, (1 - a, 1 - b), (2, 3)))
        for a in range(3)
        for b in range(3)
    )
    return y.reshape(len(x), -1).T


def random_run(rng, channels, kernel=(3, 3), padding=SAME):
    return [
        ConvLayer(rng.standard_normal((o, i, *kernel)) / np.sqrt(4 * i), padding=padding)
        for i, o in pairwise(channels)
    ]


def bounded(layers, acts, size, **options):
    problem = Problem(layers, acts, size)
    found = minimise(problem, **options)
    return prove(problem, found.theta)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 15, 96])
def test_turns_are_within_half_an_ulp(n):
    mp = pytest.importorskip("mpmath")
    with mp.workdps(60):
        for table, function in zip(_turns(n), (mp.cos, mp.sin), strict=True):
            for m, value in enumerate(table.tolist()):
                error = abs(function(2 * mp.pi * m / n) - value)
                assert error <= abs(value) * mp.mpf(2) ** -53 + mp.mpf(2) ** -180


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups", "size", "kernel"), GRID)
def test_norm_bound_against_the_matrix(stride, padding, dilation, groups, size, kernel):
    rng = np.random.default_rng(0)
    layer = ConvLayer(
        rng.standard_normal((4, 4 // groups, *kernel)), stride, padding, dilation, groups
    )
    exact = np.linalg.norm(unrolled(layer, size), 2)
    bound = conv_norm_bound(layer, size)
    assert exact * (1 - 1e-13) <= bound <= 1.4 * exact


def test_circular_norm_is_exact():
    rng = np.random.default_rng(1)
    layer = ConvLayer(rng.standard_normal((3, 2, 3, 3)))
    exact = np.linalg.norm(circulant(layer, (5, 6)), 2)
    bound = conv_norm_bound(layer.weight, (5, 6), padding="circular")
    assert exact * (1 - 1e-13) <= bound <= exact * (1 + 1e-9)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e150])
def test_norm_bound_is_relative(scale):
    weight = np.random.default_rng(2).standard_normal((2, 2, 3, 3))
    one = conv_norm_bound(weight, (6, 6), padding=SAME)
    assert conv_norm_bound(scale * weight, (6, 6), padding=SAME) == pytest.approx(
        scale * one, rel=1e-9
    )
    assert conv_norm_bound(0 * weight, (6, 6)) == 0.0


def test_symbol_encloses_the_fft():
    layer = random_run(np.random.default_rng(3), (3, 2))[0]
    torus = (6, 7)
    kernel = np.zeros((2, 3, *torus))
    for a in range(3):
        for b in range(3):
            kernel[:, :, (1 - a) % 6, (1 - b) % 7] += layer.weight[:, :, a, b]
    expected = np.fft.fft2(kernel)
    found = symbol(layer, torus)
    at = [expected[:, :, a, b] for a, b in frequencies(torus)]
    assert np.abs(found.real + 1j * found.imag - at).max() < 1e-13
    assert found.real_radius.max() < 1e-13


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (-0.2, 1.1)])
def test_equal_to_the_unrolled_engine_on_a_torus(slopes):
    # By convexity, multipliers shared by a channel are optimal where every shift is a symmetry.
    layers = random_run(np.random.default_rng(4), (2, 3, 3, 2))
    acts = [Slopes(*slopes)] * 2
    torus = common_torus(layers, (3, 3))
    assert torus == (4, 4)
    bound, _ = bounded(layers, acts, (3, 3), rtol=1e-6)
    chain = Chain.from_matrices([circulant(layer, torus) for layer in layers], acts)
    peer = engine_bound(chain, rtol=1e-7).witness.bound
    assert peer * (1 - 1e-6) <= bound <= peer * (1 + 1e-4)


@pytest.mark.parametrize(("channels", "size"), [((1, 2, 1), 4), ((2, 2, 2), 6), ((1, 2, 2, 1), 9)])
def test_above_the_unrolled_bound_and_below_the_product(channels, size):
    layers = random_run(np.random.default_rng(5), channels)
    acts = [Slopes(0.0, 1.0)] * (len(layers) - 1)
    bound, _ = bounded(layers, acts, (size, size))
    matrices = [unrolled(layer, (size, size)) for layer in layers]
    peer = engine_bound(Chain.from_matrices(matrices, acts), rtol=1e-4).witness.bound
    product = np.prod([conv_norm_bound(layer, (size, size)) for layer in layers])
    assert peer * (1 - 3e-4) <= bound <= 1.6 * peer
    assert bound < product


def test_derivatives_against_differences():
    rng = np.random.default_rng(6)
    layers = random_run(rng, (2, 3, 4, 6, 2))
    problem = Problem(layers, [Slopes(-0.3, 1.0), GroupSort(2), GroupSort(3)], (4, 5))
    theta, mu = problem.start() + 0.3 + 0.1 * rng.random(problem.size_theta), 1e-2
    state = problem.evaluate(theta, mu)
    slope, _ = problem.gradient(state, mu)
    way = rng.standard_normal(problem.size_theta)
    ends = [problem.evaluate(theta + h * way, mu) for h in (1e-5, -1e-5)]
    assert slope @ way == pytest.approx((ends[0].value - ends[1].value) / 2e-5, rel=1e-6)
    matrix, mixed = hessian(problem, state, mu)
    whole = matrix - np.outer(mixed, mixed) / state.stiffness
    whole += np.diag(slope - mu * problem.widths)
    bend = (problem.gradient(ends[0], mu)[0] - problem.gradient(ends[1], mu)[0]) / 2e-5
    assert np.abs(whole @ way - bend).max() <= 1e-5 * np.abs(bend).max()


def test_tampered_witnesses_are_refused():
    layers = random_run(np.random.default_rng(7), (1, 2, 1))
    acts, size = [Slopes(0.0, 1.0)], (5, 5)
    bound, witness = bounded(layers, acts, size, rtol=1e-8)
    assert check_conv(layers, acts, size, witness) == bound
    storage, strength = witness.storage[0], witness.multipliers[0]
    skew = storage.copy()
    skew[0, 0, 1] += 1.0
    bad = [
        (replace(witness, square=witness.square * (1 - 1e-6)), "layer 1: not proved"),
        (replace(witness, square=float("nan")), "positive number"),
        (replace(witness, multipliers=(strength * [1, -1],)), "numbers >= 0"),
        (replace(witness, multipliers=(0.5 * strength,)), "not proved positive definite"),
        (replace(witness, storage=(skew,)), "Hermitian"),
        (replace(witness, storage=(0.99 * storage,)), "layer 2: not proved"),
        (replace(witness, storage=()), "one multiplier and storage"),
        (replace(witness, torus=(5, 6)), "too small"),
        (replace(witness, exponents=(0,)), "one multiplier and storage"),
    ]
    for forged, reason in bad:
        with pytest.raises(NotProvedError, match=reason):
            check_conv(layers, acts, size, forged)
    other = [ConvLayer(1.01 * layers[0].weight, padding=SAME), layers[1]]
    with pytest.raises(NotProvedError, match="layer 1"):
        check_conv(other, acts, size, witness)
    with pytest.raises(InputError, match="must hold zero"):
        check_conv(layers, [Slopes(0.1, 1.0)], size, witness)


def convolutional(channels, size, name="relu", head=True, seed=8):
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    x = b.input((1, channels[0], *size))
    for k, (i, o) in enumerate(pairwise(channels)):
        params = {
            "weight": (f"w{k}", rng.standard_normal((o, i, 3, 3)) * np.sqrt(2 / (9 * i))),
            "bias": (f"b{k}", 0.1 * rng.standard_normal(o)),
        }
        x = b.activation(b.emit(Conv((1, 1), SAME), [x], params), activations.get(name))
    if head:
        x = b.emit(AveragePool((2, 2), (2, 2), ((0, 0), (0, 0))), [x])
        scale = {key: (key, rng.random(channels[-1]) + 0.5) for key in ("mean", "var", "weight")}
        x = b.emit(BatchNorm(), [x], scale)
        stride = {"weight": ("s", rng.standard_normal((2, channels[-1], 3, 3)))}
        x = b.emit(Conv((2, 2), SAME), [x], stride)
        width = int(np.prod(b.nodes[x.node].shape))
        x = b.emit(Reshape((width,)), [x])
        x = b.emit(Dense(), [x], {"weight": ("d", rng.standard_normal((3, width)) / 4)})
    return b.finish([x])


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "silu", "tanh"])
def test_networks_against_the_unrolled_bound_and_sampled_pairs(name):
    network = convolutional((2, 3, 3), (6, 8), name)
    found = conv_bound(network, time_limit=None)
    peer = lipschitz_bound(network, attack=False, time_limit=None, rtol=1e-3)
    assert found.certified
    assert found.lower <= peer.upper * (1 + 1e-9)
    assert peer.upper <= found.upper * (1 + 2e-3)
    assert found.upper <= found.product
    rng = np.random.default_rng(9)
    x = rng.standard_normal((50, *network.input_shape))
    y = x + 1e-3 * rng.standard_normal(x.shape)
    moved = np.linalg.norm(network.evaluate(x) - network.evaluate(y), axis=-1)
    assert (moved <= found.upper * np.linalg.norm((x - y).reshape(50, -1), axis=1)).all()


def test_what_has_no_place_is_named():
    b = Builder("float64")
    x = b.input((1, 2, 6, 6))
    with pytest.raises(UnsupportedError, match="add"):
        conv_bound(b.finish([b.emit(Add(), [x, b.activation(x, activations.get("relu"))])]))
    network = convolutional((2, 2), (4, 4), head=False)
    with pytest.raises(InputError, match="time_limit"):
        conv_bound(network, time_limit=0.0)
    single = conv_bound(network, attack=False)
    assert single.method == "product"
    assert single.lower is None
    assert single.witnesses == ()


def test_a_deep_network_stays_far_below_the_product():
    network = convolutional((3, *[8] * 8), (10, 10), head=False)
    found = conv_bound(network, time_limit=None)
    assert found.method == "conv"
    assert found.finished
    assert found.gap < 1e-4
    assert found.lower < found.upper < 0.07 * found.product


def normed(gains, scale=1.0):
    """Return convolutions with a batch norm of each pair of gains and relu behind them."""
    rng, b = np.random.default_rng(0), Builder("float64")
    x = b.input((1, 2, 5, 5))
    for k, gain in enumerate((*gains, None)):
        weight = scale * rng.standard_normal((2, 2, 3, 3))
        x = b.emit(Conv((1, 1), SAME), [x], {"weight": (f"w{k}", weight)})
        if gain is not None:
            values = {"mean": np.zeros(2), "var": np.ones(2), "weight": np.array(gain)}
            x = b.emit(
                BatchNorm(eps=0.0), [x], {key: (f"{key}{k}", v) for key, v in values.items()}
            )
            x = b.activation(x, activations.get("relu"))
    return b.finish([x])


@pytest.mark.parametrize("gains", [[(0.0, 0.0)] * 2, [(1.0, 1.0), (0.0, 0.0)]])
def test_a_batch_norm_of_zero_leaves_a_constant(gains):
    found = conv_bound(normed(gains))
    assert (found.upper, found.product, found.lower) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("power", [-300, -600, 300])
def test_gains_of_any_size_only_scale_the_bound(power):
    plain = conv_bound(normed([(1.0, 0.0), (0.5, 2.0)]))
    found = conv_bound(normed([(1.0, 0.0), (0.5 * 2.0**power, 2.0 * 2.0**power)]))
    assert found.method == "conv"
    for name in ("upper", "product", "lower"):
        assert np.ldexp(getattr(found, name), -power) == pytest.approx(
            getattr(plain, name), rel=1e-4
        )


@pytest.mark.parametrize("power", [-300, 200, 300])
def test_weights_of_any_size_only_scale_the_lower_bound(power):
    gains = [(1.0, 1.0), (1.0, 1.0)]
    plain, found = (conv_bound(normed(gains, 2.0**p)) for p in (0, power))
    assert 0.0 < found.lower < found.upper
    assert np.ldexp(found.lower, -3 * power) == pytest.approx(plain.lower, rel=1e-9)
    assert np.ldexp(found.upper, -3 * power) == pytest.approx(plain.upper, rel=1e-4)


def test_a_lower_bound_above_the_upper_one_is_refused(monkeypatch):
    network = convolutional((2, 2), (4, 4), head=False)
    upper = conv_bound(network, attack=False).upper
    monkeypatch.setattr(conv_rooms, "jacobian_norm", lambda *_, **__: upper * (1.0 + 1e-12))
    assert conv_bound(network).lower == upper
    monkeypatch.setattr(conv_rooms, "jacobian_norm", lambda *_, **__: 2.0 * upper)
    with pytest.raises(NotProvedError, match="contradicts"):
        conv_bound(network)
