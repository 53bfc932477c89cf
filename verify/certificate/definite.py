r"""Positive definiteness, proved by one floating-point Cholesky factorisation.

If plain float64 Cholesky of a symmetric B runs to completion, then its factor satisfies
:math:`R^TR = B + \Delta` with :math:`|\Delta_{ij}| \le \tfrac{g}{1-g}\sqrt{b_{ii}b_{jj}}`,
:math:`g = \gamma_{n+c}` (Demmel 1989; Rump 2006), so that
:math:`B + n\tfrac{g}{1-g}\,\mathrm{diag}(b_{ii})` is positive definite. The test thus subtracts

.. math:: s_i = n\,\tfrac{g}{1-g}\,a_{ii} + \sum_j R_{ij} + \text{(underflow)}

from the diagonal of the midpoint, rounded downward, and asks whether Cholesky succeeds. The radius
enters by Gershgorin's theorem. Before, rows and columns are scaled by powers of two to a diagonal
in [1, 4), which is exact and makes the test independent of the scale of each variable.

Assumed of the machine: IEEE 754 binary64 with rounding to nearest and gradual underflow (no flush
to zero, which is tested); a LAPACK whose Cholesky forms each entry from the products and sums of
its definition, in any order and blocking, with or without fused multiply-add, and divides or
multiplies by a rounded reciprocal (no Strassen, no TF32). c = 8 leaves room for such reciprocals.
Nothing else is trusted: no status word, no residual, no eigenvalue.

References
----------
.. [1] J. W. Demmel, On floating point errors in Cholesky, LAPACK Working Note 14 (1989).
.. [2] S. M. Rump, Verification of positive definiteness, BIT 46 (2006) 433-452, theorem 2.3.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.directed import (
    ETA,
    down,
    gamma,
    require_gradual_underflow,
    row_sums_up,
    up,
)
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["Definiteness", "definiteness", "is_positive_definite"]

_SPARE = 8  # roundings an entry may take beyond those of the textbook algorithm
_EMPTY = np.zeros((0, 0))


@dataclass(frozen=True)
class Definiteness:
    """What the test found.

    Parameters
    ----------
    proved : bool
        Every matrix of the enclosure is positive definite. False says nothing.
    reason : str
        Why it is not proved; empty where it is.
    margin : float
        The smallest pivot of the factorisation over its diagonal entry: a measure of how far the
        matrix is from singular, computed in plain arithmetic (NaN where nothing was proved).
    """

    proved: bool
    reason: str = ""
    margin: float = float("nan")

    def __bool__(self) -> bool:
        return self.proved


def is_positive_definite(midpoint: npt.ArrayLike, radius: npt.ArrayLike | None = None) -> bool:
    """Return True only if every symmetric A with |A - midpoint| <= radius is positive definite.

    Parameters
    ----------
    midpoint : (n, n) array of float64
        Symmetric.
    radius : (n, n) array of float64, optional
        Symmetric, nonnegative; zero if not given.

    Returns
    -------
    bool
        False if it could not be proved, which includes NaN, infinite and asymmetric input.

    Examples
    --------
    >>> is_positive_definite([[2.0, 1.0], [1.0, 2.0]])
    True
    >>> is_positive_definite([[1.0, 1.0], [1.0, 1.0]])
    False
    """
    return definiteness(midpoint, radius).proved


def definiteness(midpoint: npt.ArrayLike, radius: npt.ArrayLike | None = None) -> Definiteness:
    """Return what `is_positive_definite` returns, with the reason and a margin.

    Parameters
    ----------
    midpoint : (n, n) array of float64
    radius : (n, n) array of float64, optional

    Returns
    -------
    Definiteness
    """
    require_gradual_underflow()
    centre, spread, reason = _read(midpoint, radius)
    if reason:
        return Definiteness(False, reason)
    n = centre.shape[0]
    if n == 0:
        return Definiteness(True, margin=1.0)
    if not (np.diagonal(centre) > 0).all():
        worst = int(np.argmin(np.diagonal(centre)))
        return Definiteness(False, f"diagonal entry {worst} is not positive")
    scaled, spread = _unit_diagonal(centre, spread)
    diagonal = np.diagonal(scaled).copy()
    if not np.isfinite(scaled).all() or np.abs(scaled).max() > 4:  # |a_ij| < sqrt(a_ii a_jj) < 4
        return Definiteness(False, "an off-diagonal entry exceeds its diagonal entries")
    g = gamma(n + _SPARE)
    factor = up(up(n * up(g / down(1.0 - g))))
    shift = up(up(diagonal * factor) + 16.0 * n * (n + _SPARE) * ETA)
    if spread is not None:
        if not np.isfinite(spread).all():
            return Definiteness(False, "the radius exceeds the range of float64")
        shift = up(shift + row_sums_up(spread))
    lowered = down(diagonal - shift)
    if not (lowered > 0).all():
        return Definiteness(False, "the radius or the rounding error exceeds a diagonal entry")
    np.fill_diagonal(scaled, lowered)
    try:
        pivots = np.diagonal(np.linalg.cholesky(scaled)) ** 2
    except np.linalg.LinAlgError:
        return Definiteness(False, "Cholesky factorisation of the shifted matrix breaks down")
    if not (np.isfinite(pivots).all() and (pivots > 0).all()):
        return Definiteness(False, "Cholesky factorisation of the shifted matrix is not finite")
    return Definiteness(True, margin=float((pivots / diagonal).min()))


def _read(midpoint: Any, radius: Any) -> tuple[Array, Array | None, str]:
    """Return both parts as float64 copies, or the reason why nothing can be proved of them."""
    try:
        # Never a lossy conversion: an integer or a long double that rounds would be another matrix.
        parts = [Matrix.of(midpoint, name="the midpoint").midpoint]
        if radius is not None:
            parts.append(Matrix.of(radius, name="the radius").midpoint)
    except ValueError as error:
        return _EMPTY, None, str(error)
    for name, part in zip(("midpoint", "radius"), parts, strict=False):
        if part.shape[0] != part.shape[1]:
            return _EMPTY, None, f"the {name} is not square: {part.shape}"
        if not np.array_equal(part, part.T):
            return _EMPTY, None, f"the {name} is not symmetric"
    if radius is None:
        return parts[0], None, ""
    if parts[1].shape != parts[0].shape:
        return _EMPTY, None, "the radius does not have the shape of the midpoint"
    if (parts[1] < 0).any():
        return _EMPTY, None, "the radius has a negative entry"
    return parts[0], parts[1], ""


def _unit_diagonal(centre: Array, spread: Array | None) -> tuple[Array, Array | None]:
    """Return the enclosure in variables scaled by powers of two: diagonal in [1, 4).

    What a scaling loses to underflow is added to the radius.
    """
    half = (np.frexp(np.diagonal(centre))[1] - 1) // 2  # 4**half <= a_ii < 4**(half + 1)
    exponents = -(half[:, None] + half[None, :])
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(centre, exponents)
        lost = np.ldexp(scaled, -exponents) != centre
        if spread is not None:
            spread = np.where(spread == 0, 0.0, up(np.ldexp(spread, exponents)))
    if lost.any():
        tiny = np.where(lost, ETA, 0.0)
        spread = tiny if spread is None else up(spread + tiny)
    return scaled, spread
