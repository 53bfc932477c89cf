"""Whole networks: exact where theory promises it, rigorous where floats cancel, stored numbers."""

from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tangency.models import Builder, from_layers
from tangency.models.activations import get
from tangency.models.ops import (
    Activate,
    Add,
    Conv,
    Dense,
    GroupSort,
    Householder,
    LayerNorm,
    MatMul,
    Product,
    Reduce,
    Scale,
    Softmax,
    Transpose,
    numpy_backend,
)
from tangency.verify.bounds import Box, bound, margins
from tangency.verify.spec import margin_spec

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REFERENCE = DATA / "bounds_reference.npz"


def random_layers(rng, widths, *, dtype="float64", positive=False):
    layers = []
    for n, m in pairwise(widths):
        w, b = rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m)
        layers.append(((np.abs(w) if positive else w).astype(dtype), b.astype(dtype)))
    return layers


def mixed_network(rng):
    """A graph with branches, attention and most families of op."""
    b = Builder("float64")

    def w(*shape):
        return rng.normal(size=shape) / np.sqrt(shape[-1])

    x = b.input((1, 2, 6))
    h = b.emit(Conv((1,), ((1, 1),), (1,), 1), [x], {"weight": ("k", w(4, 2, 3))})
    h = b.emit(GroupSort(2, 0), [h])
    h = b.emit(Transpose((1, 0)), [h])  # (6, 4): six tokens
    q, k, v = (b.emit(Dense(), [h], {"weight": (n, w(4, 4))}) for n in "qkv")
    scores = b.emit(MatMul(), [q, b.emit(Transpose((1, 0)), [k])])
    scores = b.emit(Scale(), [scores], {"scale": ("s", np.array(0.5))})
    h = b.emit(Add(), [h, b.emit(MatMul(), [b.emit(Softmax(-1), [scores]), v])])
    h = b.emit(LayerNorm((-1,), 1e-5), [h], {"weight": ("g", w(4)), "bias": ("h", w(4))})
    gate = b.emit(Activate(get("sigmoid")), [b.emit(Dense(), [h], {"weight": ("u", w(4, 4))})])
    h = b.emit(Product(), [h, gate])
    h = b.emit(Householder(1), [h], {"vectors": ("o", np.array([[0.6, 0.8], [-0.8, 0.6]]))})
    h = b.emit(Reduce("mean", (0,)), [h])
    return b.finish([b.emit(Dense(), [h], {"weight": ("z", w(3, 4)), "bias": ("y", w(3))})])


def evaluate_long(network, x):
    weights = {k: w.astype(np.longdouble) for k, w in network.weights.items()}
    return network.structure.apply(numpy_backend(), weights, [x.astype(np.longdouble)])


def samples(rng, box, count):
    shape = (count, *box.shape)
    inner = rng.uniform(box.lower, box.upper, size=shape)
    corner = np.where(rng.random(shape) < 0.5, box.lower, box.upper)
    return np.where(rng.random((count, *(1,) * len(box.shape))) < 0.5, inner, corner)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), log_eps=st.floats(-9, 0))
def test_no_point_escapes_a_mixed_network(seed, log_eps):
    rng = np.random.default_rng(seed)
    network = mixed_network(rng)
    box = Box.around(rng.normal(size=(2, 6)), 10.0**log_eps)
    found = bound(network, box)
    y = evaluate_long(network, samples(rng, box, 2000))
    assert (found.lower <= y).all()
    assert (y <= found.upper).all()


@pytest.mark.parametrize("activation", ["relu", "maxmin", "tanh", "gelu", "softplus", "sin"])
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), log_eps=st.floats(-9, 1))
def test_no_point_escapes_a_dense_network(activation, seed, log_eps):
    rng = np.random.default_rng(seed)
    network = from_layers(random_layers(rng, (5, 8, 8, 3)), activation)
    box = Box.around(rng.normal(size=5), 10.0**log_eps)
    found = bound(network, box)
    y = network.evaluate(samples(rng, box, 2000))
    slack = 1e-14 * np.abs(y).max() * 10  # rounding of this evaluation, not of the bounds
    assert (found.lower <= y + slack).all()
    assert (y <= found.upper + slack).all()


@pytest.mark.parametrize("activation", ["relu", "maxmin", "tanh"])
def test_monotone_networks_are_exact(activation):
    """With weights >= 0 the two extreme corners attain the bounds."""
    rng = np.random.default_rng(0)
    network = from_layers(random_layers(rng, (20, 30, 30, 6), positive=True), activation)
    box = Box.around(rng.normal(size=(7, 20)), 0.3)
    found = bound(network, box)
    low, high = network.evaluate(box.lower), network.evaluate(box.upper)
    assert np.abs(found.lower - low).max() <= 1e-12 * np.abs(low).max()
    assert np.abs(found.upper - high).max() <= 1e-12 * np.abs(high).max()


def test_affine_networks_are_exact():
    """One affine map: the range is ``W x + b +- |W| eps``."""
    rng = np.random.default_rng(1)
    w, b, x = rng.normal(size=(9, 40)), rng.normal(size=9), rng.normal(size=(5, 40))
    found = bound(from_layers([(w, b)]), Box.around(x, 0.25))
    centre, radius = x @ w.T + b, 0.25 * np.abs(w).sum(axis=1)
    assert np.abs(found.lower - (centre - radius)).max() <= 1e-12 * np.abs(centre).max()
    assert np.abs(found.upper - (centre + radius)).max() <= 1e-12 * np.abs(centre).max()


def test_points_of_deep_networks_are_tight():
    rng = np.random.default_rng(2)
    network = from_layers(random_layers(rng, (30,) + (60,) * 5 + (4,)), "relu")
    x = rng.normal(size=(6, 30))
    found = bound(network, Box(x, x))
    y = network.evaluate(x)
    assert (found.upper - found.lower).max() <= 1e-9 * np.abs(y).max()
    assert (found.lower <= y).all()
    assert (y <= found.upper).all()


# --- floating point ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_network_that_float32_loses(dtype):
    """relu(relu(x + 2^25) + 1) - 2^25 on |x| <= 1/4 has the range [3/4, 5/4]."""
    one, big = np.ones((1, 1), dtype), np.array([2.0**25], dtype)
    layers = [(one, big), (one, np.ones(1, dtype)), (one, -big)]
    found = bound(from_layers(layers, "relu"), Box(np.array([-0.25]), np.array([0.25])))
    assert found.lower[0, 0] <= 0.75
    assert found.upper[0, 0] >= 1.25
    assert found.lower[0, 0] == pytest.approx(0.75, abs=1e-6)
    assert found.upper[0, 0] == pytest.approx(1.25, abs=1e-6)


def exact_relu_network(layers, x):
    """The network in rational arithmetic."""
    h = [Fraction(float(v)) for v in x]
    for i, (w, b) in enumerate(layers):
        h = [
            sum((Fraction(float(a)) * v for a, v in zip(row, h, strict=True)), Fraction(float(c)))
            for row, c in zip(w, b, strict=True)
        ]
        if i < len(layers) - 1:
            h = [max(v, Fraction(0)) for v in h]
    return h


def cancelling_layers(rng, dtype):
    """Huge weights of both signs whose sums nearly vanish; what is left lives in the last bits."""
    big = 10.0 ** rng.uniform(6, 14, size=(6, 3))
    first = rng.normal(size=(6, 3)) * big
    first = np.concatenate([first, first * (1 + rng.normal(size=(6, 3)) * 5 * np.finfo(dtype).eps)])
    shift = np.tile(rng.normal(size=6) * 10.0 ** rng.uniform(-8, 14, size=6), 2)
    pairs = np.eye(6)
    second = np.concatenate([pairs, -pairs], axis=1) * 10.0 ** rng.uniform(-3, 3, size=(6, 1))
    last = rng.normal(size=(2, 6))
    layers = [(first, shift), (second, rng.normal(size=6)), (last, rng.normal(size=2))]
    return [(w.astype(dtype), b.astype(dtype)) for w, b in layers]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("radius", [0.0, 1e-13, 0.1])
def test_catastrophic_cancellation_against_rational_arithmetic(dtype, radius):
    rng = np.random.default_rng(11)
    missed = 0
    for _ in range(12):
        layers = cancelling_layers(rng, dtype)
        network = from_layers(layers, "relu")
        x = rng.normal(size=3).astype(dtype)
        box = Box.around(x, radius)
        found = bound(network, box)
        points = [x, *(np.array(c) for c in product(*zip(box.lower, box.upper, strict=True)))]
        for p in points:
            for k, y in enumerate(exact_relu_network(layers, p)):
                assert Fraction(float(found.lower[0, k])) <= y <= Fraction(float(found.upper[0, k]))
                plain = network.evaluate(p.astype(dtype))[k]
                missed += abs(Fraction(float(plain)) - y) > abs(y) / 1000
    assert missed > 0  # the networks are as bad as they are meant to be


def test_affine_maps_enclose_rational_arithmetic_at_all_scales():
    rng = np.random.default_rng(4)
    for n in (1, 3, 50):
        w = rng.normal(size=(4, n)) * 10.0 ** rng.uniform(-300, 3, size=(4, n))
        b = rng.normal(size=4) * 10.0 ** rng.uniform(-320, 0, size=4)
        x = rng.normal(size=n) * 10.0 ** rng.uniform(-200, 3, size=n)
        found = bound(from_layers([(w, b)]), Box(x, x))
        for k, y in enumerate(exact_relu_network([(w, b)], x)):
            assert Fraction(float(found.lower[0, k])) <= y <= Fraction(float(found.upper[0, k]))


def test_ball_is_rounded_outwards():
    rng = np.random.default_rng(5)
    x = rng.normal(size=200) * 10.0 ** rng.uniform(-10, 10, size=200)
    box = Box.around(x, 0.1)
    for low, high, centre in zip(box.lower, box.upper, x, strict=True):
        assert Fraction(float(low)) <= Fraction(float(centre)) - Fraction(0.1)
        assert Fraction(float(high)) >= Fraction(float(centre)) + Fraction(0.1)


# --- specifications ---------------------------------------------------------------------------


def test_margins_merge_the_last_layer_exactly():
    rng = np.random.default_rng(6)
    layers = random_layers(rng, (10, 16, 5))
    network = from_layers(layers, "relu")
    labels = np.array([0, 2, 4])
    box = Box.around(rng.normal(size=(3, 10)), 0.1)
    spec = margin_spec(labels, 5)
    hidden = bound(from_layers([layers[0], np.eye(16)], "relu"), box)
    merged = spec @ layers[1][0]
    centre, radius = (hidden.lower + hidden.upper) / 2, (hidden.upper - hidden.lower) / 2
    wanted = np.einsum("nsi,ni->ns", merged, centre) - np.einsum("nsi,ni->ns", abs(merged), radius)
    wanted = wanted + spec @ layers[1][1]
    got = margins(network, box, labels)
    assert np.abs(got - wanted).max() <= 1e-12
    plain = bound(network, box)
    own = np.take_along_axis(plain.lower, labels[:, None], 1)
    others = np.stack([np.delete(u, k) for u, k in zip(plain.upper, labels, strict=True)])
    assert (got >= own - others - 1e-12).all()


def test_spec_is_shared_or_by_sample_and_holds_without_a_dense_end():
    rng = np.random.default_rng(8)
    network = mixed_network(rng)
    box = Box.around(rng.normal(size=(4, 2, 6)), 0.01)
    spec = rng.normal(size=(2, 3))
    shared = bound(network, box, spec=spec)
    each = bound(network, box, spec=np.repeat(spec[None], 4, axis=0))
    assert np.allclose(shared.lower, each.lower, rtol=1e-10)
    b = Builder("float64")
    network = b.finish([b.emit(Softmax(-1), [b.dense(b.input((1, 4)), rng.normal(size=(3, 4)))])])
    box = Box.around(rng.normal(size=4), 0.5)
    found = bound(network, box, spec=spec)
    y = evaluate_long(network, samples(rng, box, 2000)) @ spec.T
    assert (found.lower <= y).all()
    assert (y <= found.upper).all()


# --- stored numbers ---------------------------------------------------------------------------


def reference_network(data, name):
    weights = [
        (data[f"{name}/W{i}"], data[f"{name}/b{i}"])
        for i in range(sum(k.startswith(f"{name}/W") for k in data))
    ]
    if name != "cnn":
        return from_layers(weights, "relu")
    b = Builder("float32")
    h = b.input((1, 1, 28, 28))
    for i, (w, bias) in enumerate(weights[:2]):
        params = {"weight": (f"W{i}", w), "bias": (f"b{i}", bias)}
        h = b.emit(Conv((2, 2), ((1, 1), (1, 1))), [h], params)
        h = b.emit(Activate(get("relu")), [h])
    h = b.reshape(h, (1, weights[2][0].shape[1]))
    for i, (w, bias) in enumerate(weights[2:], 2):
        h = b.dense(h, w, bias, keys=(f"W{i}", f"b{i}"))
        if i < len(weights) - 1:
            h = b.emit(Activate(get("relu")), [h])
    return b.finish([h])


@pytest.mark.skipif(not REFERENCE.exists(), reason="shared data not present")
@pytest.mark.parametrize("name", ["mlp", "cnn", "mnistfc2"])
def test_equal_to_stored_bounds(name):
    with np.load(REFERENCE) as data:
        network = reference_network(data, name)
        box = Box(data[f"{name}/xl"], data[f"{name}/xu"])
        stored = {k: data[f"{name}/IBP/{k}"] for k in ("lb", "ub", "mlb")}
        spec, labels = data[f"{name}/C"], data[f"{name}/y"]
    found = bound(network, box)
    scale = max(np.abs(stored["lb"]).max(), np.abs(stored["ub"]).max())
    assert np.abs(found.lower - stored["lb"]).max() <= 1e-4 * scale
    assert np.abs(found.upper - stored["ub"]).max() <= 1e-4 * scale
    got = bound(network, box, spec=spec).lower
    assert np.abs(got - stored["mlb"]).max() <= 1e-4 * np.abs(stored["mlb"]).max()
    mine = np.sort(margins(network, box, labels), axis=1)
    assert np.abs(mine - np.sort(stored["mlb"], axis=1)).max() <= 1e-4 * np.abs(mine).max()
