r"""Affine ops transposed: linear functions of an op's output as functions of its inputs.

The rule of every affine op is the transpose of its own evaluation, taken by JAX. Two are written
by hand for speed: a dense layer after an identity is its weight, and a strided convolution goes
back by sub-pixels: with stride s, output phase p and tap t,

.. math:: y_{s q + p} = \sum_t c_{q - t} W_{p + s t},

a convolution of stride one from c to s (or s times s) phases, which are then laid side by side;
XLA's own transpose multiplies by the zeros between the entries of c, and is slow inside of loops.

References
----------
Shi et al., arXiv 1609.05158 (sub-pixel convolution).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import Conv, Dense, Op, Shape, jax_backend

__all__ = ["constant_part", "identity", "transposed"]

Array = Any


def transposed(op: Op, params: Mapping[str, Array], shapes: Sequence[Shape], coef: Array) -> Any:
    """Coefficients ``(N, S, *in)`` for each input from those ``(N, S, *out)`` of the output."""
    import jax
    import jax.numpy as jnp

    lead = coef.shape[:2]
    flat = coef.reshape((prod(lead), *coef.shape[2:]))
    if isinstance(op, Conv) and _plain(op, shapes[0]):
        parts = [_convolution(op, params["weight"], shapes[0], flat)]
    else:
        zeros = [jnp.zeros((flat.shape[0], *shape), coef.dtype) for shape in shapes]
        _, back = jax.vjp(lambda *xs: op.apply(jax_backend(), params, *xs), *zeros)
        parts = list(back(flat))
    return [v.reshape((*lead, *v.shape[1:])) for v in parts]


def constant_part(op: Op, params: Mapping[str, Array], shapes: Sequence[Shape], dtype: Any) -> Any:
    """The op's value at zero, ``(*out)``, or None where it has none."""
    import jax.numpy as jnp

    if "bias" not in params and op.kind not in ("batch_norm", "pad"):
        return None
    zeros = [jnp.zeros((1, *shape), dtype) for shape in shapes]
    return op.apply(jax_backend(), params, *zeros)[0]


def identity(op: Op, params: Mapping[str, Array], shapes: Sequence[Shape], out: Shape) -> Any:
    """Coefficients ``(1, n, *in)`` of all n entries of the output, for each input."""
    import jax.numpy as jnp

    if isinstance(op, Dense) and len(out) == 1:
        return [params["weight"][None]]
    n = prod(out)
    dtype = next((v.dtype for v in params.values()), jnp.zeros(0).dtype)
    return transposed(op, params, shapes, jnp.eye(n, dtype=dtype).reshape((1, n, *out)))


def _plain(op: Conv, shape: Shape) -> bool:
    """Whether sub-pixels are written for it: no groups, no dilation, no axes in front."""
    same = op.groups == 1 and set(op.dilation) == {1}
    return same and len(shape) == len(op.stride) + 1


def _convolution(op: Conv, weight: Array, shape: Shape, coef: Array) -> Array:
    import jax.numpy as jnp
    from jax import lax

    n, stride = len(op.stride), op.stride
    out_channels, channels, *kernel = weight.shape
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    extra = [(0, t * s - k) for t, s, k in zip(taps, stride, kernel, strict=True)]
    w = jnp.pad(weight, [(0, 0), (0, 0), *extra])
    w = w.reshape(out_channels, channels, *(v for ts in zip(taps, stride, strict=True) for v in ts))
    taps_at, phases_at = [2 + 2 * i for i in range(n)], [3 + 2 * i for i in range(n)]
    w = w.transpose(*taps_at, 0, *phases_at, 1)
    w = w.reshape(prod(taps) * out_channels, prod(stride) * channels)
    # As a matrix product: inside of a compiled loop XLA's convolutions on the CPU are slow.
    edges = [(t - 1, t - 1) for t in taps]
    c = jnp.pad(coef.transpose(0, *range(2, 2 + n), 1), [(0, 0), *edges, (0, 0)])
    places = [size + t - 1 for size, t in zip(coef.shape[2:], taps, strict=True)]
    shifts = np.ndindex(*taps)
    parts = [c[:, *map(_window, taps, shift, places)] for shift in shifts]
    y = jnp.concatenate(parts, axis=-1).reshape(-1, prod(taps) * out_channels) @ w
    y = y.reshape(coef.shape[0], *places, *stride, channels)
    pairs = [axis for i in range(n) for axis in (1 + i, 1 + n + i)]
    y = y.transpose(0, 1 + 2 * n, *pairs)
    y = y.reshape(y.shape[0], channels, *(p * s for p, s in zip(places, stride, strict=True)))
    # The padding is cut off; what no window reached is zero.
    for i, (size, (before, _)) in enumerate(zip(shape[1:], op.padding, strict=True)):
        y = lax.slice_in_dim(y, before, min(before + size, y.shape[2 + i]), axis=2 + i)
    missing = [(0, size - got) for size, got in zip(shape[1:], y.shape[2:], strict=True)]
    return jnp.pad(y, [(0, 0), (0, 0), *missing])


def _window(taps: int, shift: int, places: int) -> slice:
    """Entries that ``shift`` steps before lie at the places."""
    start = taps - 1 - shift
    return slice(start, start + places)
