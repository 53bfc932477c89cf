r"""Maxima, minima and sorting by ReLUs alone.

:math:`\max(x, y) = y + \mathrm{relu}(x - y)` and :math:`\min(x, y) = x - \mathrm{relu}(x - y)`.
Many entries are compared in pairs, their winners in pairs again; a sort is a network of
comparators in layers.

References
----------
Batcher, "Sorting networks and their applications", AFIPS 1968; Anil et al., arXiv 1811.05381
(GroupSort); Singla et al., arXiv 2108.04062 (Householder).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.ops import (
    Concat,
    Extremum,
    GroupSort,
    Householder,
    MaxPool,
    Reduce,
    ReduceExtremum,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.lowering_writer import Writer

__all__ = ["extremum", "group_sort", "householder", "max_pool", "reduce_extremum"]

Params = Mapping[str, Any]


def _better(write: Writer, how: str, x: int, y: int) -> int:
    rest = write.function("relu", write.minus(x, y))
    return write.plus(y, rest) if how == "max" else write.minus(x, rest)


def extremum(write: Writer, op: Extremum, params: Params, x: int, y: int) -> int:
    """``max(x, y)`` or ``min(x, y)``."""
    return _better(write, op.how, x, y)


def reduce_extremum(write: Writer, op: ReduceExtremum, params: Params, x: int) -> int:
    """Along each axis in turn, one half against the other."""
    shape = write.shape(x)
    axes = {normalise_axis(a, len(shape)) for a in op.axes}
    for axis in sorted(axes):
        while (n := write.shape(x)[axis]) > 1:
            half = n // 2
            ends = (write.gather(x, range(s, s + half), axis) for s in (0, half))
            won = _better(write, op.how, *ends)
            if n % 2:
                won = write.add(Concat(axis), won, write.gather(x, [n - 1], axis))
            x = won
    return write.reshape(x, [s for i, s in enumerate(shape) if i not in axes])


def max_pool(write: Writer, op: MaxPool, params: Params, x: int) -> int:
    """Along each axis in turn: the taps of all windows, compared in pairs."""
    rank, n = len(write.shape(x)), len(op.size)
    for i in range(n):
        axis = rank - n + i
        size, (before, after) = write.shape(x)[axis], op.padding[i]
        span = op.dilation[i] * (op.size[i] - 1) + 1
        starts = np.arange((size + before + after - span) // op.stride[i] + 1) * op.stride[i]
        places = starts[:, None] - before + np.arange(op.size[i]) * op.dilation[i]
        taps = [write.gather(x, column, axis) for column in _real(places, size).T]
        while len(taps) > 1:
            won = [_better(write, "max", a, b) for a, b in zip(taps[::2], taps[1::2], strict=False)]
            taps = won + taps[len(won) * 2 :]
        x = taps[0]
    return x


def _real(places: Any, size: int) -> Any:
    """Places of a window in the padding replaced by others of the same window."""
    inside = (places >= 0) & (places < size)
    if not inside.any(axis=1).all():
        raise UnsupportedError("max_pool: a window lies in the padding alone")
    first = places[np.arange(len(places)), inside.argmax(axis=1)]
    return np.where(inside, places, first[:, None])


def group_sort(write: Writer, op: GroupSort, params: Params, x: int) -> int:
    """A network of comparators along the entries of each group."""
    shape = write.shape(x)
    axis = normalise_axis(op.axis, len(shape))
    split = (*shape[:axis], shape[axis] // op.size, op.size, *shape[axis + 1 :])
    x, along = write.reshape(x, split), axis + 1
    for layer in _comparators(op.size):
        firsts, seconds = ([pair[k] for pair in layer] for k in (0, 1))
        a, b = write.gather(x, firsts, along), write.gather(x, seconds, along)
        rest = write.function("relu", write.minus(a, b))
        most, least = write.plus(b, rest), write.minus(a, rest)
        order = [*firsts, *seconds]
        parts = [most, least] if op.descending else [least, most]
        idle = [i for i in range(op.size) if i not in order]
        if idle:
            parts.append(write.gather(x, idle, along))
        order += idle
        x = write.add(Concat(along), *parts)
        x = write.gather(x, np.argsort(order).tolist(), along)
    return write.reshape(x, shape)


def _comparators(n: int) -> list[list[tuple[int, int]]]:
    """Layers of Batcher's odd-even merge sort; entries beyond n count as infinite."""
    layers = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            layer = [
                (i + j, i + j + k)
                for j in range(k % p, n - k, 2 * k)
                for i in range(min(k, n - j - k))
                if (i + j) // (2 * p) == (i + j + k) // (2 * p)
            ]
            if layer:
                layers.append(layer)
            k //= 2
        p *= 2
    return layers


def householder(write: Writer, op: Householder, params: Params, x: int) -> int:
    """``z + 2 v relu(-v.z)`` on each group."""
    shape, v = write.shape(x), params["vectors"]
    axis = normalise_axis(op.axis, len(shape))
    others = [i for i in range(len(shape)) if i != axis]
    moved = (*(shape[i] for i in others), shape[axis])
    groups = write.reshape(write.transpose(x, [*others, axis]), (*moved[:-1], *v.shape))
    along = write.add(Reduce("sum", (-1,)), write.times(groups, -v))
    side = write.function("relu", along)
    side = write.times(write.reshape(side, (*write.shape(side), 1)), 2 * v)
    last = write.reshape(write.plus(groups, side), moved)
    return write.transpose(last, np.argsort([*others, axis]).tolist())
