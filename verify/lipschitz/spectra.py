"""Largest eigenvalues and norms of large matrices, as near as a search needs them: not proved."""

import math

import numpy as np

from tangency.verify.certificate.matrix import Array

__all__ = ["spectral_norm", "top_eigenvalue"]

_SMALL = 160  # up to which a dense factorisation costs nothing
_STEPS = 20


def top_eigenvalue(matrix: Array, *, rtol: float = 1e-6) -> float:
    """Return the largest eigenvalue of a symmetric matrix, by Lanczos where it is large.

    Parameters
    ----------
    matrix : (n, n) array
        Positive semidefinite.
    rtol : float
        Accuracy, where n is large.

    Returns
    -------
    float
        NaN where the matrix is not finite or its eigenvalues do not converge.

    Examples
    --------
    >>> round(top_eigenvalue(np.diag([1.0, 3.0])), 12)
    3.0
    """
    n = len(matrix)
    if not np.isfinite(matrix).all():
        return math.nan
    if n > _SMALL:
        from scipy.sparse.linalg import ArpackError, eigsh

        try:
            start = np.cos(np.arange(n))  # no symmetry of a matrix that people make
            return float(eigsh(matrix, 1, tol=rtol, v0=start, return_eigenvectors=False)[0])
        except ArpackError:
            pass  # not convergent, or the start is in the kernel
    try:
        return float(np.linalg.eigvalsh(matrix)[-1])
    except np.linalg.LinAlgError:
        return math.nan


def spectral_norm(matrix: Array) -> float:
    """Return the spectral norm of a matrix, or a per cent or so less where it is large.

    Parameters
    ----------
    matrix : (n, m) array

    Examples
    --------
    >>> round(spectral_norm(np.array([[3.0, 4.0]])), 12)
    5.0
    """
    if min(matrix.shape) <= _SMALL:
        return float(np.linalg.norm(matrix, 2))
    v = np.cos(np.arange(matrix.shape[1]))
    for _ in range(_STEPS):
        size = float(np.linalg.norm(v))
        if size == 0.0:
            return float(np.linalg.norm(matrix, 2))
        v = matrix.T @ (matrix @ (v / size))
    return math.sqrt(float(np.linalg.norm(v)))
