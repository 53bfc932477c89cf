r"""Conjugate gradients for ``(K + ridge I) x = b`` with a Nystrom preconditioner.

The matrix is a product ``v -> K v``: tiles are computed as they are needed, and never kept. With
landmarks S, ``K ~ K[:, S] K[S, S]^-1 K[S, :] = U diag(lam) U^T``, and the preconditioner

.. math:: P^{-1} = U \,\mathrm{diag}\!\left(\frac{1}{\lambda + r}\right) U^T
          + \frac{1}{\lambda_{last} + r} (I - U U^T)

flattens what the landmarks see.

References
----------
Frangella, Tropp, Udell, "Randomized Nystrom Preconditioning", arXiv 2110.02820, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError
from tangency.gpu.tiles import one_ahead, tile_slices

__all__ = ["Nystrom", "Solution", "nystrom", "solve", "tiled_product"]

Array = Any  # of NumPy or of CuPy
Product = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Nystrom:
    """``U diag(values) U^T``, orthonormal ``U`` of shape (n, rank), falling values."""

    vectors: Array
    values: Array

    def apply_inverse(self, v: Array, ridge: float) -> Array:
        """The preconditioner's inverse, times ``v`` of shape (n, m)."""
        inside = self.vectors.T @ v
        last = self.values[-1] + ridge
        factors = 1.0 / (self.values + ridge) - 1.0 / last
        return self.vectors @ (factors[:, None] * inside) + v / last


@dataclass(frozen=True, eq=False)
class Solution:
    """What the iteration reached.

    Attributes
    ----------
    x : (n,) or (n, m) array
    residual : float
        The largest ``|b - (K + r I) x| / |b|`` of a column, recomputed at the end.
    steps : int
    converged : bool
    """

    x: Array
    residual: float
    steps: int
    converged: bool


def nystrom(columns: Array, landmarks: Any, xp: Any = np) -> Nystrom:
    """The approximation from columns ``K[:, landmarks]``, an (n, rank) array.

    Raises
    ------
    PlanError
        If the landmarks are no choice of rows.
    """
    landmarks = np.asarray(landmarks)
    n, rank = columns.shape
    if landmarks.shape != (rank,) or len(np.unique(landmarks)) != rank:
        raise PlanError(f"{rank} columns need as many different landmarks, got {landmarks.shape}")
    core = columns[xp.asarray(landmarks)].astype(np.float64)
    # The shift that keeps the factor real; it is taken off the values again.
    shift = float(np.finfo(np.dtype(columns.dtype)).eps) * float(xp.trace(core)) * np.sqrt(n)
    core = (core + core.T) / 2 + shift * xp.eye(rank)
    values, basis = xp.linalg.eigh(core)
    kept = xp.maximum(values, shift)
    half = (columns.astype(np.float64) @ basis) / xp.sqrt(kept)
    vectors, singular, _ = xp.linalg.svd(half, full_matrices=False)
    return Nystrom(vectors, xp.maximum(singular**2 - shift, 0.0))


def solve(
    product: Product,
    right: Array,
    *,
    ridge: float,
    preconditioner: Nystrom | None = None,
    tolerance: float = 1e-6,
    steps: int = 1000,
    xp: Any = np,
) -> Solution:
    """Conjugate gradients, all right-hand sides beside each other.

    Parameters
    ----------
    product : callable (n, m) -> (n, m)
        ``K v``; see :func:`tiled_product`.
    right : (n,) or (n, m) array
    ridge : float
    preconditioner : Nystrom, optional
    tolerance : float
        Of the residual relative to the right-hand side.
    steps : int
        At most.

    Raises
    ------
    PlanError
        If the matrix turns out not to be positive definite.
    """
    b = xp.asarray(right, dtype=np.float64)
    flat = b.ndim == 1
    b = b[:, None] if flat else b

    def precondition(v: Array) -> Array:
        return v if preconditioner is None else preconditioner.apply_inverse(v, ridge)

    x = xp.zeros_like(b)
    r = b.copy()
    z = precondition(r)
    p, rz = z, (r * z).sum(axis=0)
    size = xp.sqrt((b * b).sum(axis=0))
    size = xp.where(size > 0.0, size, 1.0)
    taken = 0
    while taken < steps:
        taken += 1
        q = product(p) + ridge * p
        curvature = (p * q).sum(axis=0)
        moving = rz > 0.0
        if bool((moving & (curvature <= 0.0)).any()):
            raise PlanError("the matrix is not positive definite: use a larger ridge or float64")
        alpha = xp.where(moving, rz / xp.where(moving, curvature, 1.0), 0.0)
        x = x + alpha * p
        r = r - alpha * q
        if float((xp.sqrt((r * r).sum(axis=0)) / size).max()) <= 0.5 * tolerance:
            break
        z = precondition(r)
        after = (r * z).sum(axis=0)
        p = z + xp.where(moving, after / xp.where(moving, rz, 1.0), 0.0) * p
        rz = after
    # What the recurrence calls the residual drifts from the truth.
    gap = b - product(x) - ridge * x
    residual = float((xp.sqrt((gap * gap).sum(axis=0)) / size).max())
    return Solution(x[:, 0] if flat else x, residual, taken, residual <= tolerance)


def tiled_product(
    compute: Callable[[slice, slice], Any], n: int, *, tile: int, xp: Any = np
) -> Product:
    """``v -> K v`` of a symmetric matrix whose tiles are computed anew at every call.

    Parameters
    ----------
    compute : callable (rows, columns) -> array, or -> callable () -> array
        As of :func:`tangency.gpu.tiles.fill`; only tiles on and above the diagonal are asked for.
        With :meth:`tangency.gpu.dense.DenseKernel.tiles` and ``host=False`` they stay on the
        device.
    n, tile : int
    xp : module
        NumPy or CuPy: of the vectors.
    """

    def product(v: Array) -> Array:
        out = xp.zeros_like(v)
        for (here, there), found in one_ahead(compute, tile_slices(n, n, tile, symmetric=True)):
            block = xp.asarray(found)
            out[here] += block @ v[there]
            if here != there:
                out[there] += block.T @ v[here]
        return out

    return product
