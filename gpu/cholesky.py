"""Blocked Cholesky factorisation in place, of a matrix that may lie in host memory or on disk.

Left-looking: a column panel is brought to the device, updated with the finished panels to its left
one by one, factorised and written back. What is on the device at once are two panels, whatever n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["cholesky", "cholesky_solve"]

Array = Any  # of NumPy or of CuPy


def cholesky(matrix: Any, *, block: int = 4096, ridge: float = 0.0, xp: Any = np) -> Any:
    """Overwrite the lower triangle of ``matrix + ridge I`` by its Cholesky factor.

    Parameters
    ----------
    matrix : (n, n) array of NumPy, memory map or zarr array
        Its strict upper triangle is not read and not changed.
    block : int
        Columns of a panel.
    ridge : float
        Added to the diagonal.
    xp : module
        NumPy or CuPy: where the work is done, in the type of the matrix.

    Returns
    -------
    The matrix given.

    Raises
    ------
    PlanError
        If the matrix is not square, or not positive definite; the message says at which column.
    """
    n = matrix.shape[0]
    if tuple(matrix.shape) != (n, n) or block < 1:
        raise PlanError(f"a Cholesky factor of a matrix {matrix.shape} with block = {block}")
    for k in range(0, n, block):
        stop = min(k + block, n)
        panel = xp.array(matrix[k:, k:stop])  # a copy: the matrix changes at the end alone
        diagonal = xp.arange(stop - k)
        panel[diagonal, diagonal] += ridge
        for j in range(0, k, block):
            done = xp.asarray(matrix[k:, j : min(j + block, n)])
            panel -= done @ done[: stop - k].T
        square = panel[: stop - k]
        lower = _factor(square, k, xp)
        panel[: stop - k] = lower
        if stop < n:
            panel[stop - k :] = _solve_right(lower, panel[stop - k :], xp)
        host = panel if xp is np else xp.asnumpy(panel)
        if stop < n:
            matrix[stop:, k:stop] = host[stop - k :]
        # The upper triangle of the block on the diagonal stays as it was.
        corner = np.array(matrix[k:stop, k:stop])
        matrix[k:stop, k:stop] = np.tril(host[: stop - k]) + np.triu(corner, 1)
    return matrix


def cholesky_solve(factor: Any, right: Any, *, block: int = 4096, xp: Any = np) -> Array:
    """Solve ``L L^T x = right`` with a factor of :func:`cholesky`, panel after panel.

    Parameters
    ----------
    factor : (n, n) array, memory map or zarr array
    right : (n,) or (n, m) array
    """
    n = factor.shape[0]
    x = xp.array(right, dtype=factor.dtype)
    starts = range(0, n, block)
    for k in starts:
        stop = min(k + block, n)
        panel = xp.asarray(factor[k:, k:stop])
        x[k:stop] = _triangular(panel[: stop - k], x[k:stop], False, xp)
        x[stop:] -= panel[stop - k :] @ x[k:stop]
    for k in reversed(starts):
        stop = min(k + block, n)
        panel = xp.asarray(factor[k:, k:stop])
        x[k:stop] -= panel[stop - k :].T @ x[stop:]
        x[k:stop] = _triangular(panel[: stop - k], x[k:stop], True, xp)
    return x


def _factor(square: Array, first: int, xp: Any) -> Array:
    """The factor of one block; NumPy and CuPy read its lower triangle alone."""
    try:
        lower = xp.linalg.cholesky(square)
    except np.linalg.LinAlgError as error:
        raise _indefinite(first, len(square)) from error
    if not bool(xp.isfinite(lower).all()):  # CuPy's answer where NumPy raises
        raise _indefinite(first, len(square))
    return lower


def _indefinite(first: int, count: int) -> PlanError:
    return PlanError(
        f"the matrix is not positive definite (columns {first} to {first + count - 1}): "
        "add a ridge, or compute it in float64"
    )


def _triangular(lower: Array, right: Array, transposed: bool, xp: Any) -> Array:
    if xp is np:
        from scipy.linalg import solve_triangular
    else:
        from cupyx.scipy.linalg import solve_triangular
    return solve_triangular(lower, right, lower=True, trans=int(transposed), check_finite=False)


def _solve_right(lower: Array, below: Array, xp: Any) -> Array:
    """``below L^-T``."""
    return _triangular(lower, below.T, False, xp).T
