"""Inner products of coefficients with vectors of the samples, and sums over broadcast axes.

Coefficients are ``(B, S, *shape)``: B is the batch, or 1 while all samples share them. Vectors
are ``(N or 1, *shape)``, or ``(N or 1, S or 1, *shape)`` where each specification has its own.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import Shape

__all__ = ["dot", "dot_each", "unbroadcast"]

Array = Any


def dot(coef: Array, vector: Array) -> Array:
    """``(N, S)``: every row of coefficients times the vector of its sample.

    Parameters
    ----------
    coef : (B, S, *shape) array
    vector : (N or 1, *shape) array
    """
    n = prod(coef.shape[2:])
    a = coef.reshape((*coef.shape[:2], n))
    v = vector.reshape((vector.shape[0], n))
    if a.shape[0] == 1:
        return v @ a[0].T
    if v.shape[0] == 1:
        return (a.reshape((-1, n)) @ v[0]).reshape(a.shape[:2])
    return np.matmul(a, v[:, :, None])[:, :, 0]


def dot_each(coef: Array, vector: Array) -> Array:
    """``(N, S)``: as :func:`dot` for vectors ``(N or 1, S or 1, *shape)``."""
    if vector.shape[1] == 1:
        return dot(coef, vector[:, 0])
    n = prod(coef.shape[2:])
    a = coef.reshape((*coef.shape[:2], n))
    v = vector.reshape((*vector.shape[:2], n))
    return np.einsum("nsi,nsi->ns", a, v)


def unbroadcast(coef: Array, shape: Shape) -> Array:
    """Sum ``(B, S, *out)`` over the axes along which ``shape`` was repeated."""
    extra = coef.ndim - 2 - len(shape)
    if extra:
        coef = coef.sum(axis=tuple(range(2, 2 + extra)))
    axes = tuple(i for i, (a, b) in enumerate(zip(coef.shape[2:], shape, strict=True), 2) if a != b)
    return coef.sum(axis=axes, keepdims=True) if axes else coef
