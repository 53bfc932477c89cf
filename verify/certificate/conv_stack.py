"""Positive definiteness of many Hermitian matrices at once: the test of `definite`, batched."""

import numpy as np

from tangency.verify.certificate.definite import _SPARE
from tangency.verify.certificate.directed import (
    ETA,
    down,
    gamma,
    require_gradual_underflow,
    row_sums_up,
    up,
)
from tangency.verify.certificate.matrix import Array

__all__ = ["embedded", "stack_failure"]


def embedded(real: Array, imag: Array) -> Array:
    """Return [[A, -B], [B, A]], real and symmetric, of Hermitian matrices A + i B.

    It is positive definite exactly where the Hermitian matrix is.

    Parameters
    ----------
    real, imag : (f, n, n) arrays

    Returns
    -------
    (f, 2n, 2n) array
    """
    return np.concatenate(
        [np.concatenate([real, -imag], axis=2), np.concatenate([imag, real], axis=2)], axis=1
    )


def stack_failure(midpoint: Array, radius: Array) -> str:
    """Return "" only if every symmetric A with |A - midpoint| <= radius is positive definite.

    Parameters
    ----------
    midpoint, radius : (f, n, n) arrays

    Returns
    -------
    str
        Why it is not proved, otherwise.

    Examples
    --------
    >>> stack_failure(np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.zeros((1, 2, 2)))
    ''
    """
    require_gradual_underflow()
    count, n, _ = midpoint.shape
    with np.errstate(all="ignore"):
        if not (np.isfinite(midpoint).all() and np.isfinite(radius).all()):
            return "an entry or a radius is not finite"
        for part in (midpoint, radius):
            if not np.array_equal(part, part.swapaxes(1, 2)):
                return "a matrix is not symmetric"
        if (radius < 0).any():
            return "a radius is negative"
        diagonal = np.diagonal(midpoint, axis1=1, axis2=2)
        if not (diagonal > 0).all():
            return "a diagonal entry is not positive"
        half = (np.frexp(diagonal)[1] - 1) // 2  # 4**half <= a_ii < 4**(half + 1)
        exponents = -(half[:, :, None] + half[:, None, :])
        scaled = np.ldexp(midpoint, exponents)
        lost = np.ldexp(scaled, -exponents) != midpoint
        spread = np.where(radius == 0, 0.0, up(np.ldexp(radius, exponents)))
        spread = np.where(lost, up(spread + ETA), spread)
        if not np.isfinite(scaled).all() or np.abs(scaled).max() > 4:
            return "an off-diagonal entry exceeds its diagonal entries"
        if not np.isfinite(spread).all():
            return "the radius exceeds the range of float64"
        diagonal = np.diagonal(scaled, axis1=1, axis2=2).copy()
        g = gamma(n + _SPARE)
        factor = up(up(n * up(g / down(1.0 - g))))
        shift = up(up(diagonal * factor) + 16.0 * n * (n + _SPARE) * ETA)
        shift = up(shift + row_sums_up(spread.reshape(-1, n)).reshape(count, n))
        lowered = down(diagonal - shift)
        if not (lowered > 0).all():
            return "the radius or the rounding error exceeds a diagonal entry"
        index = np.arange(n)
        scaled[:, index, index] = lowered
        try:
            factors = np.linalg.cholesky(scaled)
        except np.linalg.LinAlgError:
            return "Cholesky factorisation of the shifted matrix breaks down"
        pivots = np.diagonal(factors, axis1=1, axis2=2)
        if not (np.isfinite(pivots).all() and (pivots > 0).all()):
            return "Cholesky factorisation of the shifted matrix is not finite"
    return ""
