r"""Empirical tangent kernels on tiles: layers as products, and random projections.

For a dense layer with inputs A and backpropagated Jacobians B the kernel is
``(A1 A2^T) o (B1 B2^T)``: two products and no gradient of a parameter. Where a layer shares its
weights over sites, entries of both are summed over pairs of sites. Projected features are
``G R / sqrt(k)`` of gradients G with random signs R that are generated column block by column
block, the same on every machine, and never held whole.

References
----------
Novak, Sohl-Dickstein, Schoenholz, "Fast Finite Width Neural Tangent Kernel", arXiv 2206.08720;
Achlioptas, "Database-friendly random projections", JCSS 2003.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["accumulate", "project"]

Array = Any  # of NumPy or of CuPy

_COLUMNS = 4096  # parameters whose signs are drawn at once


def accumulate(
    out: Array, a1: Array, b1: Array, a2: Array, b2: Array, *, bias: bool = False, xp: Any = np
) -> Array:
    """Add one layer's part to a tile, in place.

    Parameters
    ----------
    out : (n1, n2) array
    a1, a2 : (n1, [sites,] inputs), (n2, [sites,] inputs) arrays
        What the layer is given.
    b1, b2 : (n1, [sites,] outputs), (n2, [sites,] outputs) arrays
        Derivatives of the network's output by what the layer gives.
    bias : bool
        Whether the layer has a trained bias too.

    Returns
    -------
    ``out``

    Raises
    ------
    PlanError
        If the shapes do not belong together.
    """
    fits = a1.shape[:-1] == b1.shape[:-1] and a2.shape[:-1] == b2.shape[:-1]
    if not fits or a1.ndim not in (2, 3) or out.shape != (len(a1), len(a2)):
        raise PlanError(f"layers {a1.shape}, {b1.shape} and {a2.shape}, {b2.shape} in {out.shape}")
    if a1.ndim == 2:
        one = a1 @ a2.T
        if bias:
            one += 1
        one *= b1 @ b2.T
        out += one
        return out
    for i in range(len(a1)):  # a row at a time: pairs of sites are sites times larger
        one = xp.tensordot(a1[i], a2, axes=(1, 2))  # (sites, n2, sites)
        if bias:
            one += 1
        one *= xp.tensordot(b1[i], b2, axes=(1, 2))
        out[i] += one.sum(axis=(0, 2))
    return out


def project(gradients: Array, count: int, *, first: int = 0, seed: int = 0, xp: Any = np) -> Array:
    """Random features of gradients: ``E f f'^T`` is the kernel, its variance ``O(1 / count)``.

    Parameters
    ----------
    gradients : (n, parameters) array
        All, or those from parameter ``first`` on: features of parts add up.
    count : int
        Features.
    first : int
        A multiple of 4,096.
    seed : int

    Returns
    -------
    (n, count) array
    """
    if count < 1 or first % _COLUMNS:
        raise PlanError(f"count = {count}, first = {first}: from 1, and a multiple of {_COLUMNS}")
    out = xp.zeros((len(gradients), count), gradients.dtype)
    for start in range(0, gradients.shape[1], _COLUMNS):
        block = gradients[:, start : start + _COLUMNS]
        generator = np.random.default_rng([seed, (first + start) // _COLUMNS])
        signs = generator.integers(0, 2, size=(_COLUMNS, count), dtype=np.int8) * 2 - 1
        out += block @ xp.asarray(signs[: block.shape[1]]).astype(gradients.dtype)
    out /= np.sqrt(count)
    return out
