"""Geometry of layers on a grid: where the windows of a convolution or a pool reach.

The sites of a sample are numbered in row-major order. A convolution is a table ``(sites out,
taps)`` of site numbers, with -1 where a tap lies in the zero padding; a pool is a matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = [
    "Padding",
    "conv_table",
    "conv_transpose_table",
    "paddings",
    "pool_matrix",
    "site_table",
]

Padding = str | Sequence[tuple[int, int]]
Array = np.ndarray[Any, Any]
Pairs = tuple[tuple[int, int], ...]


def paddings(
    padding: Padding, space: Sequence[int], window: Sequence[int], stride: Sequence[int]
) -> Pairs:
    """(before, after) for each axis of "SAME", "VALID", "CIRCULAR" or explicit pairs.

    ``SAME`` gives ``ceil(size / stride)`` outputs, the odd entry of padding at the end.
    """
    if not isinstance(padding, str):
        pairs = tuple((int(lo), int(hi)) for lo, hi in padding)
        if len(pairs) != len(space):
            raise InputError(f"padding {pairs} does not fit {len(space)} spatial axes")
        return pairs
    if padding == "VALID":
        return ((0, 0),) * len(space)
    if padding not in ("SAME", "CIRCULAR"):
        raise InputError(
            f"padding {padding!r}: it is 'SAME', 'VALID', 'CIRCULAR' or a (before, after) an axis"
        )
    pairs = ()
    for size, k, step in zip(space, window, stride, strict=True):
        total = max((-(-size // step) - 1) * step + k - size, 0)
        pairs = (*pairs, (total // 2, total - total // 2))
    return pairs


def conv_table(
    space: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    padding: Pairs,
    *,
    dilation: Sequence[int] | None = None,
    circular: bool = False,
) -> tuple[tuple[int, ...], Array]:
    """The spatial shape after a convolution, and its table ``(sites out, taps)``."""
    dilation = dilation or (1,) * len(space)
    lines = []
    for size, k, step, (lo, hi), gap in zip(space, window, stride, padding, dilation, strict=True):
        count = (size + lo + hi - gap * (k - 1) - 1) // step + 1
        if count < 1:
            raise InputError(f"a window {tuple(window)} does not fit an input of {tuple(space)}")
        where = np.arange(count)[:, None] * step - lo + gap * np.arange(k)[None, :]
        if circular:
            lines.append(where % size)
        else:
            lines.append(np.where((where >= 0) & (where < size), where, -1))
    return tuple(len(line) for line in lines), _outer(lines, space)


def conv_transpose_table(
    space: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    padding: Pairs,
    *,
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> tuple[tuple[int, ...], Array]:
    """The same of a transposed convolution."""
    lines = []
    for size, k, step, (lo, hi), gap, extra in zip(
        space, window, stride, padding, dilation, output_padding, strict=True
    ):
        count = (size - 1) * step - lo - hi + gap * (k - 1) + 1 + extra
        where = np.arange(count)[:, None] + lo - gap * np.arange(k)[None, :]
        whole = (where % step == 0) & (where >= 0) & (where < size * step)
        lines.append(np.where(whole, where // step, -1))
    return tuple(len(line) for line in lines), _outer(lines, space)


def site_table(space: Sequence[int], lines: Sequence[Sequence[int]]) -> Array:
    """Site numbers of the grid ``lines[0] x lines[1] x ...``; -1 in a line is a zero."""
    return _outer([np.asarray(line, dtype=int)[:, None] for line in lines], space)[:, 0]


def _outer(lines: list[Array], space: Sequence[int]) -> Array:
    """Site numbers of all combinations of the axes' tables ``(out, taps)``."""
    table = np.zeros((1, 1), dtype=int)
    for line, size in zip(lines, space, strict=True):
        left, right = table[:, None, :, None], line[None, :, None, :]
        joined = np.where((left < 0) | (right < 0), -1, left * size + right)
        table = joined.reshape(table.shape[0] * line.shape[0], -1)
    return table


def pool_matrix(
    space: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    padding: Pairs,
    *,
    count_padding: bool = True,
    circular: bool = False,
) -> tuple[tuple[int, ...], Array]:
    """The spatial shape after average pooling, and its matrix ``(sites out, sites in)``.

    With ``count_padding`` each window divides by its full size, else by the real entries in it.
    """
    out, table = conv_table(space, window, stride, padding, circular=circular)
    matrix = np.zeros((len(table), prod(space) + 1))
    rows = np.broadcast_to(np.arange(len(table))[:, None], table.shape)
    np.add.at(matrix, (rows, table), 1.0)
    matrix = matrix[:, :-1]  # the last column gathered the padding
    total = np.full((len(table), 1), float(prod(window)))
    return out, matrix / (total if count_padding else matrix.sum(axis=1, keepdims=True))


def kron(matrices: Sequence[Array]) -> Array:
    """The matrix on row-major sites of a matrix for each axis."""
    combine: Callable[[Array, Array], Array] = np.kron
    return functools.reduce(combine, matrices, np.ones((1, 1)))
