"""The order in which a layer's entries stand in a chain: groups, windows, what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.ops import MaxPool, numpy_backend
from tangency.verify.certificate import Matrix

__all__ = ["along", "beside", "columns", "rows", "windows"]


def along(axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """Flat entries with those along an axis beside each other."""
    found = np.moveaxis(np.arange(prod(shape)).reshape(shape), axis, -1).reshape(-1)
    return np.asarray(found)


def windows(op: MaxPool, shape: tuple[int, ...]) -> np.ndarray:
    """The flat entries (windows, size) of each window; padding repeats an entry."""
    n = len(op.size)
    entries = np.arange(prod(shape), dtype=np.float64).reshape(1, *shape)
    pads = ((0, 0),) * (entries.ndim - n) + op.padding
    padded = np.pad(entries, pads, constant_values=-1.0)
    found = numpy_backend().windows(padded, op.size, op.stride, op.dilation)
    flat = np.asarray(found).reshape(-1, prod(op.size)).astype(np.int64)
    if (flat.max(axis=1) < 0).any():
        raise UnsupportedError("a window of max_pool holds nothing but padding: it is -infinity")
    return np.where(flat < 0, flat.max(axis=1, keepdims=True), flat)


def rows(matrix: Matrix, order: np.ndarray) -> Matrix:
    """The rows in an order."""
    if np.array_equal(order, np.arange(matrix.shape[0])):
        return matrix
    return matrix.rows(order)


def columns(matrix: Matrix, order: np.ndarray) -> Matrix:
    """The columns in an order; zeros where it says -1."""
    if np.array_equal(order, np.arange(matrix.shape[1])):
        return matrix

    def taken(part: np.ndarray) -> np.ndarray:
        return np.where(order < 0, 0.0, part[:, np.maximum(order, 0)])

    return Matrix(taken(matrix.midpoint), None if matrix.radius is None else taken(matrix.radius))


def beside(parts: Sequence[Matrix]) -> Matrix:
    """Matrices of as many rows, side by side."""
    if len(parts) == 1:
        return parts[0]
    midpoint = np.hstack([p.midpoint for p in parts])
    if all(p.radius is None for p in parts):
        return Matrix(midpoint)
    radii = [np.zeros(p.shape) if p.radius is None else p.radius for p in parts]
    return Matrix(midpoint, np.hstack(radii))
