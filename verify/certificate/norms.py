r"""A proved upper bound of the spectral norm of a matrix.

:math:`\|W\|_2 \le s` if :math:`s^2 I - WW^T` is positive definite. The guess for s comes from
Lanczos' iteration on the product, which is not trusted, and is raised until the proof succeeds: one
product and one Cholesky factorisation on the smaller side as a rule.
"""

import math
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.verify.certificate.definite import is_positive_definite
from tangency.verify.certificate.directed import (
    add_up,
    difference,
    multiply_down,
    multiply_up,
    product,
    require_gradual_underflow,
    row_sums_up,
    sqrt_up,
)
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["scale_exponent", "spectral_norm_bound"]

_DENSE, _LANCZOS = 160, 200  # rows up to which all eigenvalues cost nothing, and steps beyond


@np.errstate(all="ignore")  # what underflows is accounted for, what overflows is refused
def spectral_norm_bound(matrix: Any, radius: Any = None, *, crude: bool = False) -> float:
    """Return a number that the spectral norm of no matrix of the enclosure exceeds.

    Parameters
    ----------
    matrix : (m, n) array, or Matrix
    radius : (m, n) array, optional
        Componentwise, nonnegative. Its share of the bound is sqrt(|R|_1 |R|_inf).
    crude : bool
        The same of the matrix itself, or its Frobenius norm, at the cost of reading it twice.

    Returns
    -------
    float
        Within about 1e-10 relative of the norm for matrices up to a few hundred rows; infinite if
        the norm exceeds the range of float64.

    Raises
    ------
    InputError
        If the matrix is not a finite real matrix.

    Examples
    --------
    >>> 5.0 <= spectral_norm_bound([[3.0], [4.0]]) < 5.0 + 1e-12
    True
    """
    require_gradual_underflow()
    given = Matrix.of(matrix if radius is None else Matrix(np.asarray(matrix), np.asarray(radius)))
    exponent = scale_exponent(given.midpoint)
    scaled = given.scaled(-exponent)
    bound = _exact_norm(scaled.midpoint, crude)
    if scaled.radius is not None:
        bound = add_up(bound, _crude_norm(scaled.radius))
    if bound == 0.0:
        return 0.0
    try:
        value = math.ldexp(bound, exponent)
    except OverflowError:
        return math.inf
    # Only a result below the normal range is rounded at all.
    return value if value > 1e-300 else float(np.nextafter(value, np.inf))


def scale_exponent(values: Array) -> int:
    """Return e such that the largest entry of values / 2**e lies in [1/2, 1); 0 for zero.

    Examples
    --------
    >>> scale_exponent(np.array([[4.0, -1.0]]))
    3
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        raise InputError("the matrix holds a NaN or an infinite number")
    return math.frexp(largest)[1]


def _exact_norm(values: Array, crude: bool) -> float:
    """Bound the norm of an exact matrix with entries of order one."""
    if not values.any():
        return 0.0
    fallback = min(_crude_norm(values), _frobenius_norm(values))
    if crude or min(values.shape) == 1:
        return fallback
    thin = Matrix(values if values.shape[0] <= values.shape[1] else values.T)
    gram = product(thin, thin.transpose).mirrored()
    n = gram.shape[0]
    try:
        guess = math.sqrt(max(_top_eigenvalue(gram.midpoint), 0.0))
    except np.linalg.LinAlgError:
        return fallback
    inflation = 4e-16 * n * n  # what the test needs for a matrix of this size, to begin with
    while inflation < 1e-3:
        bound = guess * (1.0 + inflation)
        if bound >= fallback:
            break
        square = Matrix(multiply_down(bound, bound) * np.eye(n))
        rest = difference(square, gram)
        if is_positive_definite(rest.midpoint, rest.radius):
            return bound
        inflation *= 4.0
    return fallback


def _top_eigenvalue(gram: Array) -> float:
    """Guess the largest eigenvalue of a symmetric matrix; a poor guess costs tightness alone."""
    n = len(gram)
    if n <= _DENSE:
        return float(np.linalg.eigvalsh(gram)[-1])
    basis = np.zeros((_LANCZOS, n))
    vector = np.cos(np.arange(n))  # no symmetry of a matrix that people make
    middle = np.zeros((_LANCZOS, _LANCZOS))
    found = 0.0
    for k in range(_LANCZOS):
        length = float(np.linalg.norm(vector))
        if k and length <= 1e-14 * float(np.abs(middle).max()):  # the space is invariant
            return float(np.linalg.eigvalsh(middle[:k, :k])[-1])
        basis[k] = vector / length
        vector = gram @ basis[k]
        known = basis[: k + 1]
        middle[k, : k + 1] = middle[: k + 1, k] = known @ vector
        for _ in range(2):  # once is not enough for orthogonality to rounding errors
            vector = vector - (known @ vector) @ known
        if k % 8 == 7:
            before, found = found, float(np.linalg.eigvalsh(middle[: k + 1, : k + 1])[-1])
            if found - before <= 1e-14 * found:
                break
    return found


def _crude_norm(values: Array) -> float:
    """Return sqrt(|A|_1 |A|_inf), rounded upward."""
    sizes = np.abs(values)
    rows = float(row_sums_up(sizes).max(initial=0.0))
    columns = float(row_sums_up(sizes.T).max(initial=0.0))
    return sqrt_up(multiply_up(rows, columns)) if rows and columns else 0.0


def _frobenius_norm(values: Array) -> float:
    """Return the Frobenius norm, rounded upward."""
    squares = np.nextafter(values * values, np.inf).reshape(1, -1)
    return sqrt_up(float(row_sums_up(squares)[0]))
