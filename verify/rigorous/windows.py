"""Windows put back: the transposes of pooling and of convolution, in NumPy."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import Shape

__all__ = ["scatter_windows", "transposed_convolution"]

Array = Any
Pads = tuple[tuple[int, int], ...]

CHUNK = 2**18  # entries of windows that are formed at once


def scatter_windows(
    windows: Array, stride: Shape, padding: Pads, dilation: Shape, space: Shape
) -> Array:
    """Add entries of windows to the places they were taken from.

    Parameters
    ----------
    windows : (..., *K, *P) array
        One entry for each tap of each window.
    stride, padding, dilation : tuple
        Of the windows, as in a convolution.
    space : tuple of int
        Sizes of the axes that the windows were taken from.

    Returns
    -------
    (..., *space) array
    """
    return _added(windows[..., None], stride, padding, dilation, space)[..., 0]


def _added(windows: Array, stride: Shape, padding: Pads, dilation: Shape, space: Shape) -> Array:
    """``(..., *K, *P, M)`` to ``(..., *space, M)``."""
    n = len(space)
    shape = windows.shape
    lead, taps, places = shape[: -2 * n - 1], shape[-2 * n - 1 : -n - 1], shape[-n - 1 : -1]
    padded = tuple(size + sum(p) for size, p in zip(space, padding, strict=True))
    out: Any = np.zeros((*lead, *padded, shape[-1]))
    for tap in np.ndindex(*taps):
        place = tuple(
            slice(t * d, t * d + s * (p - 1) + 1, s)
            for t, d, s, p in zip(tap, dilation, stride, places, strict=True)
        )
        out[(..., *place, slice(None))] += windows[(*(slice(None),) * len(lead), *tap)]
    keep = tuple(slice(lo, lo + size) for (lo, _), size in zip(padding, space, strict=True))
    result: Array = out[(..., *keep, slice(None))]
    return result


def transposed_convolution(
    a: Array,
    w: Array,
    stride: Shape,
    padding: Pads,
    dilation: Shape,
    groups: int,
    space: Shape,
) -> Array:
    """Rows ``(M, O, *P)`` of outputs of a convolution as rows ``(M, C, *space)`` of its input.

    One product of matrices, then the taps are added up. The rows come last meanwhile, some at a
    time, so that every addition runs along memory that is still in the cache.
    """
    kernel, places = w.shape[2:], a.shape[2:]
    m, per_group, channels = a.shape[0], w.shape[0] // groups, groups * w.shape[1]
    taps = np.ascontiguousarray(w.reshape(groups, per_group, -1).transpose(0, 2, 1))
    given = a.reshape(m, groups, per_group, prod(places))
    result = np.empty((m, channels, *space))
    count = max(1, CHUNK // (channels * prod(kernel) * prod(places)))
    for start in range(0, m, count):
        some = given[start : start + count]
        last = np.ascontiguousarray(some.transpose(1, 2, 3, 0)).reshape(groups, per_group, -1)
        wins = np.matmul(taps, last).reshape((channels, *kernel, *places, len(some)))
        whole = _added(wins, stride, padding, dilation, space)
        result[start : start + count] = np.moveaxis(whole, -1, 0)
    return result
