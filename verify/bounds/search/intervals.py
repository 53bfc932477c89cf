"""Interval steps in plain floating point, for NumPy and JAX: estimates, not proofs.

Ops that only move, add or average entries are monotone, so that their value at the two ends is the
answer; layers with weights take midpoint and radius; functions of one variable take their extreme
values from lines of slope zero. All of it may be differentiated in JAX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tangency.models.activations.lines import intercepts
from tangency.models.activations.record import Activation
from tangency.models.activations.registry import is_called
from tangency.models.errors import UnsupportedError
from tangency.models.ops import (
    Activate,
    Backend,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    MatMul,
    Op,
    Prelu,
    Product,
    Scale,
    Select,
    Subtract,
)
from tangency.models.ops.base import same_rank

__all__ = ["cheap", "step"]

Array = Any
Pair = tuple[Array, Array]


def cheap(op: Op) -> bool:
    """Whether a step is a matter of moving and adding, not worth compiling."""
    if isinstance(op, Activate):
        return is_called(op.activation, "relu")
    return op.affine and not isinstance(op, (Dense, Conv, ConvTranspose))


def step(backend: Backend, op: Op, params: Mapping[str, Array], pairs: Sequence[Pair]) -> Pair:
    """Bounds of an op of a lowered network from those of its inputs, ``(N or 1, *shape)`` each."""
    xp = backend.xp
    if isinstance(op, (Dense, Conv, ConvTranspose)):
        ((low, high),) = pairs
        middle = op.apply(backend, params, (low + high) / 2)
        size = {"weight": xp.abs(params["weight"])}
        radius = op.apply(backend, size, (high - low) / 2)
        return middle - radius, middle + radius
    if isinstance(op, (Scale, BatchNorm)):
        return _hull(xp, [op.apply(backend, params, end) for end in pairs[0]])
    if isinstance(op, Subtract):
        (a, b), (c, d) = pairs
        return op.apply(backend, params, a, d), op.apply(backend, params, b, c)
    if op.affine:
        low, high = (op.apply(backend, params, *(p[end] for p in pairs)) for end in (0, 1))
        return low, high
    if isinstance(op, Activate):
        return _activation(backend, op.activation, *pairs[0])
    if isinstance(op, Prelu):
        low, high = pairs[0]
        ends = [op.apply(backend, params, v) for v in (low, high)]
        least, most = _hull(xp, ends)
        across = (low < 0) & (high > 0)  # the kink may be the lowest or the highest point
        least = xp.where(across, xp.minimum(least, 0.0), least)
        return least, xp.where(across, xp.maximum(most, 0.0), most)
    if isinstance(op, Product):
        (a, c), (b, d) = (same_rank(x, y) for x, y in zip(*pairs, strict=True))
        return _hull(xp, [a * c, a * d, b * c, b * d])
    if isinstance(op, MatMul):
        return _matmul(backend, *pairs)
    if isinstance(op, Select):
        return _select(xp, op, pairs)
    raise UnsupportedError(f"interval steps of the search have no rule for {op.kind!r}")


def _hull(xp: Any, values: Sequence[Array]) -> Pair:
    low = high = values[0]
    for v in values[1:]:
        low, high = xp.minimum(low, v), xp.maximum(high, v)
    return low, high


def _activation(backend: Backend, record: Activation, low: Array, high: Array) -> Pair:
    xp = backend.xp
    if is_called(record, "relu"):
        return xp.maximum(low, 0.0), xp.maximum(high, 0.0)
    flat = xp.zeros_like(low)
    least, most = intercepts(record, backend.nx, low, xp.maximum(low, high), flat, flat)
    # The margins of lines must not lead out of the range: a root or a logarithm may come next.
    bottom, top = _range(record)
    return xp.clip(least, bottom, top), xp.clip(most, bottom, top)


@lru_cache(maxsize=256)
def _range(record: Activation) -> tuple[float, float]:
    """All values that the function has, as far as that can be told."""
    low, high = record.domain
    if record.poles:
        return -np.inf, np.inf
    with np.errstate(all="ignore"):
        found = record.range_on(np.array([low]), np.array([high]))
    return float(found.lower[0]), float(found.upper[0])


def _matmul(backend: Backend, x: Pair, y: Pair) -> Pair:
    """Sum over k of the ranges of ``x[.., i, k] y[.., k, j]``, in memory of the result."""
    xp = backend.xp
    (a, c), (b, d) = (same_rank(p, q) for p, q in zip(x, y, strict=True))
    low: Any = 0.0
    high: Any = 0.0
    for k in range(a.shape[-1]):
        left = [v[..., :, k, None] for v in (a, b)]
        right = [v[..., k, None, :] for v in (c, d)]
        least, most = _hull(xp, [p * q for p in left for q in right])
        low, high = low + least, high + most
    return low, high


def _select(xp: Any, op: Select, pairs: Sequence[Pair]) -> Pair:
    (xl, yl, al, bl), (xh, yh, ah, bh) = (same_rank(*ends) for ends in zip(*pairs, strict=True))
    if op.strict:
        first, second = xl > yh, xh <= yl
    else:
        first, second = xl >= yh, xh < yl
    low = xp.where(first, al, xp.where(second, bl, xp.minimum(al, bl)))
    return low, xp.where(first, ah, xp.where(second, bh, xp.maximum(ah, bh)))
