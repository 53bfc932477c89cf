r"""How many directions a ridge leaves free, and what a Gram matrix says of a spectrum.

The effective dimension of a spectrum ``l`` at level ``t`` is ``sum l / (l + t)``; of order two,
``sum (l / (l + t))^2``. Kernel ridge regression behaves as if it had so many parameters.

References
----------
Caponnetto and De Vito, "Optimal Rates for the Regularized Least-Squares Algorithm", 2007;
Simon et al., arXiv 2311.14646, section 5 (exponents from ``1 / tr K^-1``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["EigenMeasurement", "effective_dimension", "measure_eigenstructure"]

Array = np.ndarray[Any, np.dtype[np.float64]]


def effective_dimension(spectrum: Any, level: float, *, order: int = 1) -> float:
    """``sum_i (l_i / (l_i + level))^order``.

    Parameters
    ----------
    spectrum : (m,) array of eigenvalues, or (n, n) Gram matrix
        Of a Gram matrix, the eigenvalues of ``K / n`` are taken.
    level : float
        At 0 the number of eigenvalues that are not zero.
    order : {1, 2}

    Raises
    ------
    InputError
        For what is neither, a negative level, or another order.

    Examples
    --------
    >>> round(effective_dimension([1.0, 0.5], 0.5), 6)
    1.166667
    """
    if order not in (1, 2):
        raise InputError(f"order={order!r}: 1 or 2")
    if not 0 <= level < np.inf:
        raise InputError(f"level={level!r}: a number >= 0")
    values = _eigenvalues(spectrum)
    values = values[values > 0]
    return float(((values / (values + level)) ** order).sum())


@dataclass(frozen=True)
class EigenMeasurement:
    """What a Gram matrix and its targets say of a kernel's eigenstructure.

    Attributes
    ----------
    eigenvalues : (n,) array
        Of ``K / n``, the largest first.
    powers : (n,) array
        ``(u_i . y)^2 / n``: the target's power along each eigenvector.
    sizes : (s,) array
        Sizes of the leading submatrices.
    kappa : (s,) array
        ``1 / tr K_s^-1`` of each: the implicit constant without a ridge, of order
        ``s^-exponent``.
    exponent : float
        The eigenvalue exponent, by least squares on the logarithms.
    """

    eigenvalues: Array
    powers: Array
    sizes: Array
    kappa: Array
    exponent: float


def measure_eigenstructure(
    gram: Any, y: Any, *, sizes: Sequence[int] | None = None
) -> EigenMeasurement:
    """Estimate eigenvalues, target powers and the eigenvalue exponent from one Gram matrix.

    Parameters
    ----------
    gram : (n, n) array
        Positive definite, of samples in random order.
    y : (n,) array
    sizes : sequence of int, optional
        At least two; eight sizes from n / 8 to n unless told.

    Raises
    ------
    InputError
        Where a submatrix is not positive definite, or shapes do not fit.
    """
    matrix = np.asarray(gram, np.float64)
    targets = np.asarray(y, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 8:
        raise InputError(f"gram has shape {matrix.shape}: (n, n) with n >= 8")
    n = len(matrix)
    if targets.shape != (n,):
        raise InputError(f"y has shape {targets.shape}: ({n},)")
    counts = np.unique(
        np.geomspace(n / 8, n, 8).round().astype(int) if sizes is None else np.asarray(sizes, int)
    )
    if len(counts) < 2 or counts[0] < 1 or counts[-1] > n:
        raise InputError(f"sizes={sizes!r}: at least two different sizes from 1 to {n}")
    values, vectors = np.linalg.eigh(matrix)
    kappa = np.array([_kappa(matrix[:s, :s]) for s in counts])
    slope = np.polyfit(np.log(counts), np.log(kappa), 1)[0]
    powers = (vectors.T @ targets) ** 2 / n
    return EigenMeasurement(values[::-1] / n, powers[::-1], counts, kappa, float(-slope))


def _kappa(matrix: Array) -> float:
    values = np.linalg.eigvalsh(matrix)
    if values[0] <= len(values) * np.finfo(np.float64).eps * values[-1]:
        raise InputError(
            f"the leading {len(values)} samples have a Gram matrix that is not positive definite "
            f"(least eigenvalue {values[0]:.3g})"
        )
    return float(1.0 / (1.0 / values).sum())


def _eigenvalues(spectrum: Any) -> Array:
    array = np.asarray(spectrum, np.float64)
    if array.ndim == 2 and array.shape[0] == array.shape[1] and len(array):
        array = np.linalg.eigvalsh(array) / len(array)
        # Rounding leaves eigenvalues of both signs where the matrix is singular.
        return np.where(array > len(array) * np.finfo(np.float64).eps * array[-1], array, 0.0)
    if array.ndim != 1 or not (array >= 0).all() or not np.isfinite(array).all():
        raise InputError(
            f"the spectrum has shape {array.shape}: (m,) eigenvalues >= 0 or an (n, n) Gram matrix"
        )
    return array
