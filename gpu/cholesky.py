"""Blocked Cholesky factorisation in place, of a matrix that may lie in host memory or on disk.

Left-looking: a column panel is brought to the device, updated with the finished panels to its left
one by one, factorised and written back. While one finished panel is multiplied the next is read.
What is on the device at once are three panels of ``block`` columns, and one block, whatever n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.gpu.ahead import read_ahead
from tangency.gpu.errors import PlanError

__all__ = ["cholesky", "cholesky_solve"]

Array = Any  # of NumPy or of CuPy


def cholesky(matrix: Any, *, block: int = 4096, ridge: float = 0.0, xp: Any = np) -> Any:
    """Overwrite the lower triangle of ``matrix + ridge I`` by its Cholesky factor.

    Parameters
    ----------
    matrix : (n, n) array of NumPy, of ``xp``, memory map or zarr array
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
    inside = isinstance(matrix, xp.ndarray)  # on the device, or NumPy's anyhow
    home = xp if inside else np
    for k in range(0, n, block):
        stop = min(k + block, n)
        m = stop - k
        panel = xp.array(matrix[k:, k:stop])  # a copy: the matrix changes at the end alone
        diagonal = xp.arange(m)
        panel[diagonal, diagonal] += ridge
        finished = [(slice(k, n), slice(j, j + block)) for j in range(0, k, block)]
        for done in read_ahead(matrix, finished, xp):
            top = done[:m].T
            for i in range(0, n - k, block):  # by strips: a product of their size is held beside
                panel[i : i + block] -= done[i : i + block] @ top
        lower = _factor(panel[:m], k, xp)
        panel[:m] = lower
        if stop < n:
            panel[m:] = _solve_right(lower, panel[m:], xp)
        host = panel if inside or xp is np else xp.asnumpy(panel)
        if stop < n:
            matrix[stop:, k:stop] = host[m:]
        # The upper triangle of the block on the diagonal stays as it was.
        corner = home.array(matrix[k:stop, k:stop])
        matrix[k:stop, k:stop] = home.tril(host[:m]) + home.triu(corner, 1)
    return matrix


def cholesky_solve(factor: Any, right: Any, *, block: int = 4096, xp: Any = np) -> Array:
    """Solve ``L L^T x = right`` with a factor of :func:`cholesky`, panel after panel.

    Parameters
    ----------
    factor : (n, n) array of NumPy, of ``xp``, memory map or zarr array
    right : (n,) or (n, m) array

    Returns
    -------
    array of ``xp``, in the type of the factor
    """
    n = factor.shape[0]
    x = xp.array(xp.asarray(right), dtype=factor.dtype)
    panels = [(slice(k, n), slice(k, min(k + block, n))) for k in range(0, n, block)]
    for (_, here), panel in zip(panels, read_ahead(factor, panels, xp), strict=True):
        m = here.stop - here.start
        x[here] = _triangular(panel[:m], x[here], False, xp)
        x[here.stop :] -= panel[m:] @ x[here]
    panels.reverse()
    for (_, here), panel in zip(panels, read_ahead(factor, panels, xp), strict=True):
        m = here.stop - here.start
        x[here] -= panel[m:].T @ x[here.stop :]
        x[here] = _triangular(panel[:m], x[here], True, xp)
    return x


def _factor(square: Array, first: int, xp: Any) -> Array:
    """The factor of one block; NumPy and CuPy read its lower triangle alone."""
    try:
        if xp is np:
            lower = xp.linalg.cholesky(square)
        else:
            import cupyx

            # By itself CuPy does not ask cuSOLVER, which leaves the block half factorised.
            with cupyx.errstate(linalg="raise"):
                lower = xp.linalg.cholesky(square)
    except np.linalg.LinAlgError as error:
        raise _indefinite(first, len(square)) from error
    if not bool(xp.isfinite(lower).all()):
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
