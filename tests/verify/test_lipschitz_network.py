"""Networks as chains: the matrices are the layers, and bounds hold for the network itself."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models import Builder, InputError, UnsupportedError, activations, from_layers
from tangency.models.ops import (
    Activate,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Gather,
    GroupSort,
    Pad,
    Prelu,
    Product,
    Reduce,
    Slice,
    Softmax,
)
from tangency.verify.chain.unroll import unroll
from tangency.verify.lipschitz import chain_of, lipschitz_bound

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape).astype("float32")


def replay(chain, x):
    """The chain evaluated on a batch (n, d)."""
    for k, (w, bias) in enumerate(zip(chain.weights, chain.biases, strict=True)):
        x = x @ w.midpoint.T + (0 if bias is None else bias)
        if k < len(chain.activations):
            function = chain.functions[k]
            if function is not None:
                x = function.value(x)
            else:
                size = chain.activations[k].size
                x = np.sort(x.reshape(len(x), -1, size), axis=-1)[..., ::-1].reshape(x.shape)
    return x


def convolutional():
    b = Builder("float32")
    x = b.input((1, 2, 6, 6))
    x = b.emit(
        Conv((2, 2), ((1, 1), (1, 1)), (1, 1), 1),
        [x],
        {"weight": ("c.weight", normal(3, 2, 3, 3)), "bias": ("c.bias", normal(3))},
    )
    x = b.activation(x, activations.get("leaky_relu", negative_slope=0.3))
    return b, x


def build_plain():
    b, x = convolutional()
    return b.finish([b.dense(b.reshape(x, (1, 27)), normal(4, 27), normal(4))])


def build_rich():
    b, x = convolutional()
    params = {
        "mean": ("n.mean", normal(3)),
        "var": ("n.var", np.abs(normal(3))),
        "weight": ("n.weight", normal(3)),
        "bias": ("n.bias", normal(3)),
    }
    x = b.emit(BatchNorm(), [x], params)
    x = b.emit(Prelu(0), [x], {"slope": ("p", normal(3))})
    x = b.emit(Pad(((0, 0), (1, 0), (0, 1)), 2.0), [x])
    x = b.emit(AveragePool((2, 2), (2, 2), ((0, 0), (0, 0))), [x])
    x = b.emit(
        ConvTranspose((2, 2), ((0, 0), (0, 0)), (1, 1), 1, (0, 0)),
        [x],
        {"weight": ("t", normal(3, 4, 2, 2))},
    )
    x = b.emit(GroupSort(2, 0), [x], view=x.shape)  # groups of channels: not adjacent when flat
    y = b.emit(Slice((0, 0, 0), (4, 2, 4), (1, 1, 2)), [x])
    z = b.emit(Gather((3, 1), 2), [x])
    z = b.emit(Slice((0, 0, 0), (4, 2, 2), (1, 1, 1)), [z])
    x = b.emit(Concat(1), [b.emit(Add(), [y, z]), z])
    x = b.shift(b.scale(x, normal(4, 1, 1)), normal(2))
    return b.finish([b.emit(Reduce("mean", (2,)), [x])])


@pytest.mark.parametrize("build", [build_plain, build_rich])
def test_chain_is_the_network(build):
    network = build().astype("float64")
    chain = chain_of(network)
    x = RNG.standard_normal((20, *network.input_shape))
    want = network.evaluate(x).reshape(20, -1)
    np.testing.assert_allclose(replay(chain, x.reshape(20, -1)), want, rtol=1e-12, atol=1e-12)


def test_exact_and_enclosed_matrices():
    chain = chain_of(build_plain())
    assert all(w.radius is None for w in chain.weights)
    entries = set(np.abs(chain.weights[0].midpoint).ravel()) - {0.0}
    weights = build_plain().astype("float64").weights
    assert len(entries) == weights["c.weight"].size
    rich = chain_of(build_rich())
    assert all(w.radius is None or (w.radius < 1e-12).all() for w in rich.weights)
    assert any(w.radius is not None and w.radius.any() for w in rich.weights)


@pytest.mark.parametrize("method", ["product", "lipsdp"])
@pytest.mark.parametrize("build", [build_plain, build_rich])
def test_bounds_hold_for_sampled_pairs(build, method):
    network = build()
    bound = lipschitz_bound(network, method=method)
    assert bound.certified
    assert bound.lower <= bound.upper
    wide = network.astype("float64")
    x = RNG.standard_normal((500, *network.input_shape))
    y = x + RNG.standard_normal(x.shape) * 10.0 ** RNG.uniform(-3, 1, (500, 1, 1, 1))
    change = np.linalg.norm((wide.evaluate(x) - wide.evaluate(y)).reshape(500, -1), axis=1)
    ratio = change / np.linalg.norm((x - y).reshape(500, -1), axis=1)
    assert ratio.max() <= bound.upper
    assert ratio.max() <= bound.product


def test_a_doubled_entry_is_summed_with_its_rounding():
    b = Builder("float64")
    x = b.input((1, 2))
    x = b.emit(Concat(0), [x, x])
    network = b.finish([b.dense(x, np.array([[1.0, 0.0, 2.0**-60, 0.0]]))])
    (matrix,) = chain_of(network).weights
    assert matrix.radius is not None
    assert matrix.midpoint[0, 0] - matrix.radius[0, 0] <= 1.0
    assert matrix.radius[0, 0] >= 2.0**-60  # 1 + 2^-60 is no float64
    assert lipschitz_bound(network).upper > 1.0


def test_known_answers():
    def orthogonal(n):
        return np.linalg.qr(RNG.standard_normal((n, n)))[0]

    w = RNG.standard_normal((5, 4))
    for network, want in [
        (from_layers([orthogonal(4)] * 4, "maxmin"), 1.0),
        (from_layers([w]), np.linalg.norm(w, 2)),
        (from_layers([w, RNG.standard_normal((3, 5))], "identity"), None),
    ]:
        bound = lipschitz_bound(network)
        if want is None:
            want = np.linalg.norm(chain_of(network).weights[0].midpoint, 2)
        assert want * (1 - 1e-12) <= bound.upper <= want * (1 + 1e-6)
        assert bound.lower == pytest.approx(want, rel=1e-6)


def test_what_is_refused():
    eye = np.eye(4)
    with pytest.raises(InputError, match=r"activation0.*relu_squared.*no bounded slope"):
        lipschitz_bound(from_layers([eye, eye], "relu_squared"))
    with pytest.raises(InputError, match=r"activation0.*sign"):
        lipschitz_bound(from_layers([eye, eye], "sign"))
    b = Builder("float64")
    network = b.finish([b.emit(Softmax(), [b.input((1, 4))])])
    with pytest.raises(UnsupportedError, match="no place for softmax"):
        lipschitz_bound(network)
    b = Builder("float64")
    x = b.input((1, 4))
    squared = b.finish([b.elementwise(Product(), x, x)])
    with pytest.raises(UnsupportedError, match="product"):
        lipschitz_bound(squared)
    b = Builder("float64")
    x = b.input((1, 4))
    y = b.emit(Activate(activations.get("relu")), [b.dense(x, eye).node])
    residual = b.finish([b.elementwise(Add(), x, y)])
    assert lipschitz_bound(residual).upper == pytest.approx(2.0, rel=1e-6)
    with pytest.raises(UnsupportedError, match="residual networks have no local bound yet"):
        unroll(residual)
    with pytest.raises(UnsupportedError, match="norm"):
        lipschitz_bound(from_layers([eye]), norm=3)


@pytest.mark.parametrize("last", ["relu", "sort"])
def test_the_output_may_be_an_activation(last):
    b = Builder("float32")
    x = b.dense(b.input((1, 5)), normal(6, 5), normal(6))
    if last == "relu":
        x = b.activation(x, activations.get("relu"))
    else:
        x = b.emit(GroupSort(2, 0, False), [x.node], view=x.shape)
    network = b.finish([x])
    chain = chain_of(network)
    assert len(chain.weights) == 2
    np.testing.assert_array_equal(chain.weights[1].midpoint, np.eye(6))
    norm = np.linalg.norm(network.weights["weight"].astype(float), 2)
    bound = lipschitz_bound(network, method="product")
    assert bound.lower <= bound.upper
    assert bound.upper == pytest.approx(norm, rel=1e-6)


def test_a_convolution_too_large_to_unroll_goes_by_frequencies(monkeypatch):
    from tangency.verify.chain import affine
    from tangency.verify.lipschitz.conv import ConvBound

    b = Builder("float32")
    x = b.input((1, 2, 6, 6))
    for k in range(2):
        kernel = {"weight": (f"{k}.weight", normal(2, 2, 3, 3) / 3)}
        x = b.emit(Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1), [x], kernel)
        x = b.activation(x, activations.get("relu"))
    network = b.finish([x])
    unrolled = lipschitz_bound(network)
    monkeypatch.setattr(affine, "LARGEST", 1000)
    large = lipschitz_bound(network, time_limit=None)
    assert isinstance(large, ConvBound)
    assert large.certified
    assert unrolled.upper * (1 - 1e-6) <= large.upper <= 2 * unrolled.upper
    with pytest.raises(InputError, match="as a matrix it is 72 x 72"):
        lipschitz_bound(network, norm=1)


@pytest.mark.parametrize("norm", [1, 2, "inf"])
@pytest.mark.parametrize("output", [1, "inf", ("margin", 0, 2)])
def test_every_norm_has_both_sides(norm, output):
    # A linear map: the constant is the operator norm, attained everywhere.
    w = RNG.standard_normal((3, 4))
    bound = lipschitz_bound(from_layers([np.eye(4), w], "identity"), norm=norm, output=output)
    assert bound.certified
    assert 0 < bound.lower <= bound.upper
    relu = lipschitz_bound(from_layers([w, w.T.copy()], "relu"), norm=norm, output=output)
    assert 0 < relu.lower <= relu.upper
