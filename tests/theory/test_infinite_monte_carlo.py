"""Kernels against averages over wide finite networks, one case a layer type."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tangency.theory.kernels import (
    Activation,
    Attention,
    AvgPool,
    Conv,
    Dense,
    Dropout,
    Erf,
    Flatten,
    GlobalAvgPool,
    Identity,
    LayerNorm,
    Relu,
    concat,
    infinite_kernel,
    product,
    residual,
    serial,
)
from tangency.theory.kernels.layers_branches import Branches, Serial
from tangency.theory.kernels.spatial import paddings

SEEDS = 40
#: Compiling takes longer than running: no effort is spent on it.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def finite(layer, key, x, params):
    """The output of a finite network in the NTK parametrisation; the key is for dropout alone."""
    match layer:
        case Serial(layers):
            for i, inner in enumerate(layers):
                x = finite(inner, jax.random.fold_in(key, i), x, params)
            return x
        case Branches(branches, how):
            ends = [
                finite(b, jax.random.fold_in(key, 100 + i), x, params)
                for i, b in enumerate(branches)
            ]
            if how == "concat":
                return jnp.concatenate(ends, axis=-1)
            return functools.reduce(jnp.add if how == "sum" else jnp.multiply, ends)
        case Identity():
            return x
        case Dense():
            w = params.take((x.shape[-1], layer.width))
            y = layer.W_std / np.sqrt(x.shape[-1]) * x @ w
            return _biased(layer, y, params)
        case Conv():
            taps = int(np.prod(layer.size))
            shape = (*layer.size, x.shape[-1], layer.channels)
            w = params.take(shape)
            stride = layer.stride or (1,) * len(layer.size)
            pads = paddings(layer.padding, x.shape[1:-1], layer.size, stride)
            if layer.padding == "CIRCULAR":
                x, pads = jnp.pad(x, ((0, 0), *pads, (0, 0)), mode="wrap"), "VALID"
            spec = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=spec)
            return _biased(layer, layer.W_std / np.sqrt(taps * x.shape[-1]) * y, params)
        case Activation():
            return {"relu": jax.nn.relu}.get(layer.function, jax.lax.erf)(x)
        case AvgPool():
            window = (1, *layer.size, 1)
            stride = (1, *(layer.stride or (1, 1)), 1)
            total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, stride, layer.padding)
            return total / np.prod(layer.size)
        case GlobalAvgPool():
            return x.mean(axis=tuple(range(1, x.ndim - 1)))
        case Flatten():
            return x.reshape(len(x), -1)
        case LayerNorm():
            axes = (*(a + 1 for a in layer.axes), -1)
            y = (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + layer.eps)
            if layer.gain:
                y = y * params.take(x.shape[-1:], fill=1.0)
            return y + params.take(x.shape[-1:], fill=0.0) if layer.shift else y
        case Dropout():
            kept = jax.random.bernoulli(key, layer.keep, x.shape)
            return jnp.where(kept, x / layer.keep, 0.0)
        case Attention():
            n, space, c = len(x), x.shape[1:-1], x.shape[-1]
            heads, wide = 24, 24
            tokens = x.reshape(n, -1, c)
            wk, wv = (params.take((heads, c, wide)) for _ in range(2))
            wo = params.take((heads * wide, layer.channels))
            keys = jnp.einsum("npc,hcd->nhpd", tokens, wk)
            scores = jnp.einsum("nhpd,nhqd->nhpq", keys, keys) / (c * wide)
            weights = jax.nn.softmax(layer.W_key_std * layer.W_query_std * scores, axis=-1)
            values = jnp.einsum("npc,hcd->nhpd", tokens, wv)
            mixed = jnp.einsum("nhpq,nhqd->nphd", weights, values).reshape(n, -1, heads * wide)
            out = layer.W_value_std * layer.W_out_std / np.sqrt(c * heads * wide) * mixed @ wo
            return _biased(layer, out.reshape(n, *space, -1), params)
    raise AssertionError(layer)


def _biased(layer, y, params):
    if layer.b_std is None:
        return y
    return y + layer.b_std * params.take(y.shape[-1:])


class Weights:
    """Weights in the order of their use; where there are none yet, a record of their shapes."""

    def __init__(self, held=None):
        self.held, self.asked = held, []

    def take(self, shape, fill=None):
        self.asked.append((shape, fill))
        return jnp.zeros(shape) if self.held is None else self.held[len(self.asked) - 1]


def shapes(layer, x):
    """Shapes of all weights, and what the ones that are not random begin with."""
    record = Weights()
    jax.eval_shape(lambda x: finite(layer, jax.random.key(0), x, record), x)
    return record.asked


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def sampled(layer, key, x, weights):
    """Outputs ``(n, width)`` and the NTK of the first output ``(n, n)`` of one network."""

    def outputs(weights):
        out = finite(layer, key, x, Weights(weights))
        return out[:, 0], out

    rows, out = jax.jacrev(outputs, has_aux=True)(weights)
    ntk = sum(jnp.einsum("na,ma->nm", r.reshape(len(x), -1), r.reshape(len(x), -1)) for r in rows)
    return out, ntk


W = 96
WIDE = Conv(W, (3, 3), W_std=1.4, b_std=0.3)
END = Dense(64, 1.2, 0.4)
CASES = {
    "dense": ("vectors", serial(Dense(256, 1.4, 0.3), Relu(), Dense(256, 1.3), Erf(), END)),
    "conv_same": ("images", serial(WIDE, Relu(), WIDE, Relu(), GlobalAvgPool(), END)),
    "conv_valid_stride": (
        "images",
        serial(Conv(W, (2, 2), (2, 1), "VALID", 1.3), Relu(), WIDE, Relu(), Flatten(), END),
    ),
    "conv_circular": (
        "images",
        serial(Conv(W, (3, 2), padding="CIRCULAR"), Relu(), WIDE, Relu(), GlobalAvgPool(), END),
    ),
    "avg_pool": (
        "images",
        serial(WIDE, Relu(), AvgPool((2, 2), (2, 2), "VALID"), WIDE, Relu(), Flatten(), END),
    ),
    "residual": (
        "vectors",
        serial(Dense(200, 1.3, 0.2), residual(serial(Relu(), Dense(200, 1.2, 0.1))), Erf(), END),
    ),
    "concat": (
        "vectors",
        serial(
            concat(serial(Dense(100), Relu()), serial(Dense(300, 1.5, 0.2), Relu())),
            Dense(200, 1.2),
            Relu(),
            END,
        ),
    ),
    "product": (
        "vectors",
        serial(
            product(serial(Dense(300, 1.2, 0.2), Relu()), serial(Dense(300, 0.8, 0.5), Erf())), END
        ),
    ),
    "layer_norm": (
        "vectors",
        serial(Dense(256, 1.4, 0.3), LayerNorm(eps=1e-3, gain=True, shift=True), Relu(), END),
    ),
    "layer_norm_sites": (
        "images",
        serial(WIDE, LayerNorm((0, 1), 1e-3), Relu(), GlobalAvgPool(), END),
    ),
    "dropout": (
        "vectors",
        serial(Dense(256, 1.4, 0.3), Relu(), Dropout(0.7), Dense(256, 1.2, 0.1), Relu(), END),
    ),
    "attention": (
        "images",
        serial(WIDE, Relu(), Attention(W, 2.0, 1.0, 1.2, 1.0, 0.2), Relu(), GlobalAvgPool(), END),
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_average_over_wide_networks(name):
    kind, layers = CASES[name]
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 6) if kind == "vectors" else (2, 3, 4, 2))
    x[1] = 0.7 * x[0] + 0.6 * x[1]
    gram = infinite_kernel(layers)(x)
    few = x.astype(np.float32)
    needed, outs, ntks = shapes(layers, few), [], []
    for seed in range(SEEDS):
        draws = np.random.default_rng(seed)
        weights = [
            draws.normal(size=s).astype(np.float32) if fill is None else np.full(s, fill, "float32")
            for s, fill in needed
        ]
        out, ntk = sampled(layers, jax.random.key(seed), few, weights)
        out = np.asarray(out)
        outs.append(out @ out.T / out.shape[1])
        ntks.append(np.asarray(ntk))
    for draws, exact in ((outs, gram.nngp), (ntks, gram.ntk)):
        mean = np.mean(draws, axis=0)
        spread = np.std(draws, axis=0, ddof=1) / np.sqrt(SEEDS)
        # Five standard errors, and the bias of finite width, which is of order 1/width.
        allowed = 5.0 * spread + 2.0 / W * np.abs(exact)
        assert (np.abs(mean - exact) < allowed).all()
        assert (5.0 * spread < 0.25 * np.abs(exact)).all()  # the comparison says something


@pytest.mark.slow
def test_convergence_with_width():
    """The deviation of one network's NTK falls like width^(-1/2)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 8))
    layers = serial(Dense(1, 2**0.5), Relu(), Dense(1, 2**0.5), Relu(), Dense(1))
    exact = infinite_kernel(layers)(x, get="ntk")
    widths, errors = 2 ** np.arange(6, 11), []
    for width in widths:
        squares = []
        for _ in range(24):
            w0, w1 = rng.normal(size=(8, width)), rng.normal(size=(width, width))
            w2 = rng.normal(size=width)
            a0 = x @ w0 * np.sqrt(2 / 8)
            h0 = np.maximum(a0, 0)
            a1 = h0 @ w1 * np.sqrt(2 / width)
            h1 = np.maximum(a1, 0)
            b1 = w2 / np.sqrt(width) * (a1 > 0)
            b0 = b1 @ w1.T * np.sqrt(2 / width) * (a0 > 0)
            ntk = h1 @ h1.T / width
            ntk += 2 / width * (h0 @ h0.T) * (b1 @ b1.T) + 2 / 8 * (x @ x.T) * (b0 @ b0.T)
            squares.append(np.sum((ntk - exact) ** 2))
        errors.append(np.sqrt(np.mean(squares)))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.07
