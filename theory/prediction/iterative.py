"""Kernel ridge regression by conjugate gradients: products with a Gram matrix, and no factor.

The matrix is read by rows, in its own precision, so that it may be a float32 memory map larger than
the memory; the vectors are float64. Landmarks precondition the iteration (see
:mod:`tangency.gpu.gradients`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.ahead import bring, read_ahead
from tangency.gpu.bands import free_memory
from tangency.gpu.errors import PlanError
from tangency.gpu.gradients import nystrom, solve
from tangency.models.errors import InputError
from tangency.theory.prediction.cholesky import array_module
from tangency.theory.prediction.grams import ROWS, matrix, mean_diagonal
from tangency.theory.prediction.noise import check_ridge, noise_floor, warn_of_noise

__all__ = ["Iterated", "iterate"]


@dataclass(frozen=True)
class Iterated:
    """Solutions (N, C), the products taken, and the largest residual relative to a target."""

    weights: np.ndarray
    ridge: float
    mean_diagonal: float
    noise_floor: float
    steps: int
    residual: float


def iterate(
    gram: np.ndarray,
    columns: np.ndarray,
    ridge: float,
    *,
    error: float | None,
    landmarks: int | None,
    tol: float,
    max_products: int,
    device: str,
    stacklevel: int,
) -> Iterated:
    """``(gram + ridge * mean_diagonal * I)^-1 columns`` up to a residual.

    Raises
    ------
    InputError
        Without a positive ridge, for a matrix that is not positive definite, or where
        ``max_products`` products do not reach ``tol``.
    """
    xp = array_module(device)
    ridge = check_ridge(ridge)
    if ridge == 0:
        raise InputError("solver='cg' needs a ridge above 0: without one use solver='cholesky'")
    if not tol > 0 or max_products < 1:
        raise InputError(f"tol={tol}, max_products={max_products}: above 0, and from 1")
    floor, mean = noise_floor(gram, error=error), mean_diagonal(gram)
    warn_of_noise(ridge, ridge, floor, stacklevel + 1)
    whole = matrix(gram) if gram.ndim == 4 else gram
    n = len(whole)
    count = min(n, max(50, int(4 * np.sqrt(n)))) if landmarks is None else landmarks
    if not 0 <= count <= n:
        raise InputError(f"landmarks={landmarks}: from 0 to {n}, the samples")
    helper = None
    try:
        if count:
            chosen = np.sort(np.random.default_rng(0).choice(n, count, replace=False))
            # Rows for columns: the matrix is symmetric, and a file of it is read by rows. In its
            # own type, by which the preconditioner knows what of the core is rounding.
            rows = np.asarray(whole[chosen])
            helper = nystrom(xp.asarray(np.ascontiguousarray(rows.T)), chosen, xp)
        found = solve(
            _product(whole, xp), xp.asarray(columns), ridge=ridge * mean, preconditioner=helper,
            tolerance=tol, steps=max_products, xp=xp,
        )  # fmt: skip
    except PlanError as mistake:
        raise InputError(f"conjugate gradients: {mistake}") from mistake
    if not found.converged:
        raise InputError(
            f"conjugate gradients leave a residual of {found.residual:.2g} of the targets after "
            f"{found.steps} products: give a larger ridge, more landmarks (here {count}), a larger "
            "tol or solver='cholesky'"
        )
    weights = found.x if xp is np else xp.asnumpy(found.x)
    return Iterated(np.asarray(weights), ridge, mean, floor, found.steps, found.residual)


def _product(gram: np.ndarray, xp: Any) -> Callable[[Any], Any]:
    """``v -> gram v`` in float64, by rows that are read while those before are multiplied."""
    n = len(gram)
    pieces = [(slice(i, min(i + ROWS, n)), slice(0, n)) for i in range(0, n, ROWS)]
    # On a GPU the matrix stays there where it fits beside what the iteration needs.
    inside = xp is not np and 1.5 * gram.nbytes < free_memory(xp)
    where = bring(gram, xp, rows=ROWS) if inside else gram

    def product(v: Any) -> Any:
        out = xp.empty_like(v)
        for (rows, _), piece in zip(pieces, read_ahead(where, pieces, xp), strict=True):
            out[rows] = piece.astype(np.float64, copy=False) @ v
        return out

    return product
