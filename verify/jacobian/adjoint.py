r"""Interval vectors times the transpose of a linear map, with known signs kept.

For cotangents :math:`c \in [l, u]` the range of :math:`W^T c` is exact in real arithmetic and
rounded outwards by a-priori error terms (:mod:`tangency.verify.rigorous.enclosure`). Such terms
blur an entry that is known to be >= 0 into one that may be -1e-17, and a proof of monotonicity
would be lost; so signs are decided apart, without rounding: the entry can be negative only if some
product in its sum can, and those are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Op, Pad, Shape, numpy_backend
from tangency.verify.rigorous.enclosure import affine

__all__ = ["gathered_from", "pulled", "scattered", "signed", "window_index"]

Array = Any
Map = Callable[[Array], Array]


def pulled(
    cotangent: Interval,
    transpose: Callable[[Array], Map],
    weight: Array,
    terms: int,
    *,
    slack: Array | None = None,
) -> Interval:
    """Enclose ``W^T c``.

    Parameters
    ----------
    cotangent : Interval
        The vectors c, in whatever shape the map takes.
    transpose : callable
        ``weight -> (v -> W^T v)``, linear in the weight, which holds the entries of W.
    weight : array
        Those entries.
    terms : int
        At least the number of products in each sum.
    slack : array, optional
        The entries are known to within ``+-slack`` only, and none is negative.
    """
    size = np.abs(weight)
    if slack is None:
        result = affine(cotangent, transpose(weight), transpose(size), terms)
        rising, falling = weight > 0, weight < 0
    else:
        error = transpose(slack)
        result = affine(cotangent, transpose(weight), transpose(size + slack), terms, slack=error)
        rising, falling = size + slack > 0, np.zeros(weight.shape, dtype=bool)
    up = transpose(rising.astype(np.float64))
    down = transpose(falling.astype(np.float64)) if falling.any() else None
    below, above = _flags(cotangent)
    may_fall, may_rise = up(below), up(above)
    if down is not None:
        may_fall, may_rise = may_fall + down(above), may_rise + down(below)
    return signed(result, may_fall, may_rise)


def signed(x: Interval, may_fall: Array, may_rise: Array) -> Interval:
    """Cut at zero what cannot be negative (no term may fall) or positive (no term may rise)."""
    low = np.where(may_fall == 0, np.maximum(x.lower, 0.0), x.lower)
    high = np.where(may_rise == 0, np.minimum(x.upper, 0.0), x.upper)
    return Interval(low, high)


def _flags(x: Interval) -> tuple[Array, Array]:
    return (x.lower < 0).astype(np.float64), (x.upper > 0).astype(np.float64)


@lru_cache(maxsize=256)
def gathered_from(op: Op, shapes: tuple[Shape, ...], position: int) -> Array:
    """Where each output entry of an op that moves entries comes from.

    Returns
    -------
    integer array of the output's shape
        One more than the flat index in input ``position``; zero for what comes from elsewhere.
    """
    if isinstance(op, Pad):
        op = replace(op, value=0.0)
    inputs = [np.zeros((1, *s)) for s in shapes]
    inputs[position] = np.arange(1.0, inputs[position].size + 1).reshape(inputs[position].shape)
    return np.rint(op.apply(numpy_backend(), {}, *inputs)[0]).astype(np.int64)


@lru_cache(maxsize=256)
def window_index(
    shape: Shape,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> Array:
    """``(*out, K)``: one more than the flat index of each window's entries; zero for padding."""
    n = len(size)
    count = np.arange(1, int(np.prod(shape)) + 1).reshape((1, *shape))
    count = np.pad(count, ((0, 0),) * (count.ndim - n) + padding)
    windows = numpy_backend().windows(count, size, stride, dilation)[0]
    return windows.reshape((*windows.shape[:-n], -1))


def scattered(cotangent: Interval, index: Array, shape: Shape) -> Interval:
    """Add each entry of ``(N, S, *index.shape)`` to the input entry that it comes from."""
    lead, size = cotangent.shape[:2], int(np.prod(shape))
    flat = index.reshape(-1)
    order = np.argsort(flat, kind="stable")
    order = order[np.count_nonzero(flat == 0) :]
    places, starts, counts = np.unique(flat[order] - 1, return_index=True, return_counts=True)
    low = np.broadcast_to(cotangent.lower, (*lead, *index.shape)).reshape((*lead, -1))[..., order]
    high = np.broadcast_to(cotangent.upper, (*lead, *index.shape)).reshape((*lead, -1))[..., order]
    part = Interval(low, high)
    if counts.max(initial=1) > 1:

        def transpose(ones: Array) -> Map:
            del ones
            return lambda v: np.add.reduceat(v, starts, axis=-1)

        part = pulled(part, transpose, np.ones(1), int(counts.max()))
    results = []
    for end in (part.lower, part.upper):
        result = np.zeros((*lead, size))
        result[..., places] = end
        results.append(result.reshape((*lead, *shape)))
    return Interval(*results)
