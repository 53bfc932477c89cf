"""Coefficients cut to the part of an image that they live on.

A row that begins at one place of a convolution's output meets a patch of its input, a larger patch
of the layer before, and so on. Where all rows of a block share a patch, the coefficients of a node
are kept on a window of its last axes alone: everything else is zero. Ops that cannot go on with a
window get the whole array back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import Shape

__all__ = ["Window", "crop", "expand", "support", "tiles"]

Array = Any
#: One slice for each of the last axes, with start and stop.
Window = tuple[slice, ...]


def crop(v: Array, window: Window | None) -> Array:
    """The part of an array whose last axes are those of the window."""
    return v if window is None else v[(..., *window)]


def expand(coef: Array, window: Window | None, shape: Shape) -> Array:
    """Coefficients ``(B, S, *shape)`` again, zero outside of the window."""
    if window is None:
        return coef
    whole: Array = np.zeros((*coef.shape[:2], *shape))
    whole[(..., *window)] = coef
    return whole


def support(coef: Array, axes: int) -> Window | None:
    """The window over the last axes outside of which ``(1, S, *shape)`` is zero; None if large."""
    there = (coef != 0).any(axis=tuple(range(coef.ndim - axes)))
    window = []
    for axis in range(axes):
        along = np.flatnonzero(there.any(axis=tuple(i for i in range(axes) if i != axis)))
        if along.size == 0:
            return None
        window.append(slice(int(along[0]), int(along[-1]) + 1))
    size = prod(s.stop - s.start for s in window)
    return tuple(window) if 2 * size <= there.size else None


def tiles(shape: Shape, ids: Array, most: int) -> list[Array]:
    """Entries ``ids`` of a flattened ``(C, *S)``, in groups of about ``most`` that lie together."""
    space = shape[1:]
    total = prod(space)
    per_place = max(1.0, len(ids) / total)
    side = max(1, int((most / per_place) ** (1.0 / len(space))))
    if side >= max(space):
        return [ids]
    places = np.unravel_index(ids % total, space)
    cells = [(p // side, -(-size // side)) for p, size in zip(places, space, strict=True)]
    return _grouped(ids, cells)


def _grouped(ids: Array, cells: Sequence[tuple[Array, int]]) -> list[Array]:
    code = np.zeros(len(ids), dtype=np.int64)
    for cell, count in cells:
        code = code * count + cell
    order = np.argsort(code, kind="stable")
    cuts = np.flatnonzero(np.diff(code[order])) + 1
    return np.split(ids[order], cuts)
