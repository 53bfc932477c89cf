r"""Directed rounding in NumPy: scalars rounded upward, and matrix products with error radii.

NumPy gives no access to the rounding mode, so an upper bound is the rounded-to-nearest result moved
to the next float, which lies above the true value even where the result underflows. A product of
matrices is one call of the BLAS, whose error is bounded a priori: with n terms a sum,

.. math:: |\mathrm{fl}(AB) - AB| \le \gamma_n |A||B| + n\eta, \qquad
          \gamma_n = \frac{nu}{1 - nu},\quad u = 2^{-53},\quad \eta = 2^{-1074},

for every order of summation, with or without fused multiply-add. Assumed of the machine: IEEE 754
binary64, round to nearest, gradual underflow (no flush to zero: `require_gradual_underflow` tests
it wherever a proof begins), and a BLAS that forms each entry of a product by the n products and the
additions of its definition (no Strassen, no TF32).

References
----------
.. [1] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. (2002), section 3.5.
"""

import math
from typing import TypeVar

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = [
    "ETA",
    "UNIT",
    "add_up",
    "congruence",
    "difference",
    "divide_up",
    "down",
    "gamma",
    "multiply_down",
    "multiply_up",
    "product",
    "require_gradual_underflow",
    "row_sums_up",
    "scale_rows",
    "sqrt_up",
    "total",
    "up",
]

Real = TypeVar("Real", float, Array)

UNIT = 2.0**-53
ETA = 2.0**-1074

#: Enough numbers for the vector instructions, by their bits: no arithmetic, which may flush them.
_LEAST_NORMAL = np.full(16, 1 << 52, dtype=np.int64).view(np.float64)
_LEAST_SUBNORMAL = np.full(16, 1, dtype=np.int64).view(np.float64)


def require_gradual_underflow() -> None:
    """Refuse to prove anything where this thread flushes subnormal numbers to zero.

    A library compiled for speed alone (``-ffast-math``) sets that mode of the processor for its
    whole thread when it is loaded. The error terms here are those of gradual underflow.

    Raises
    ------
    UnsupportedError
        If a result or an operand below 2**-1022 is taken for zero.
    """
    with np.errstate(all="ignore"):
        found = (
            (_LEAST_NORMAL * 0.5, 1 << 51),  # zero where results are flushed
            (_LEAST_SUBNORMAL * 2.0**52, 1 << 52),  # zero where operands are
            (np.full(1, ETA), 1),  # computed when this module was compiled
        )
    # By their bits: where operands are flushed, a subnormal compares equal to zero.
    if not all((values.view(np.int64) == bits).all() for values, bits in found):
        raise UnsupportedError(
            "this process flushes subnormal numbers to zero, so that nothing can be proved in its "
            "float64; a library compiled with -ffast-math sets this when it is loaded: run without"
        )


def up(value: Real) -> Real:
    """Return the next float above: no less than the true value of an operation rounded to nearest.

    Examples
    --------
    >>> up(1.0) - 1.0 == 2.0**-52
    True
    """
    result = np.nextafter(value, np.inf)
    return float(result) if isinstance(value, float) else result


def down(value: Real) -> Real:
    """Return the next float below."""
    result = np.nextafter(value, -np.inf)
    return float(result) if isinstance(value, float) else result


def add_up(a: float, b: float) -> float:
    """Return a float that is no less than a + b."""
    return up(a + b)


def multiply_up(a: float, b: float) -> float:
    """Return a float that is no less than a b."""
    return up(a * b)


def multiply_down(a: float, b: float) -> float:
    """Return a float that is no more than a b."""
    return down(a * b)


def divide_up(a: float, b: float) -> float:
    """Return a float that is no less than a / b, for b > 0."""
    return up(a / b)


def sqrt_up(a: float) -> float:
    """Return a float that is no less than the square root of a >= 0."""
    return up(math.sqrt(a))


def gamma(n: int) -> float:
    r"""Return an upper bound of :math:`\gamma_n = nu/(1-nu)`, for n u < 1/2.

    Examples
    --------
    >>> gamma(3) >= 3 * 2.0**-53
    True
    """
    return divide_up(n * UNIT, down(1.0 - n * UNIT))  # n * UNIT is exact


def row_sums_up(values: Array) -> Array:
    """Return upper bounds of the row sums of a matrix of nonnegative numbers.

    Parameters
    ----------
    values : (m, n) array
        Nonnegative.

    Returns
    -------
    (m,) array
    """
    # fl(s) >= (1 - gamma) s, and sums of floats do not underflow.
    growth = up(1.0 + up(2.0 * gamma(values.shape[1] + 1)))
    return up(np.asarray(values.sum(axis=1) * growth))


def product(a: Matrix, b: Matrix) -> Matrix:
    r"""Return an enclosure of the product of two interval matrices.

    .. math:: R = \gamma_n|A||B| + |A|R_B + R_A(|B| + R_B) + n\eta \quad\text{rounded upward.}

    Parameters
    ----------
    a : (m, n) Matrix
    b : (n, p) Matrix

    Returns
    -------
    (m, p) Matrix
    """
    n = a.midpoint.shape[1]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        midpoint = a.midpoint @ b.midpoint
        radius = _product_up(np.abs(a.midpoint), np.abs(b.midpoint))
        radius = up(up(radius * gamma(n)) + (n + 1) * ETA)
        if b.radius is not None:
            radius = up(radius + _product_up(np.abs(a.midpoint), b.radius))
        if a.radius is not None:
            size = np.abs(b.midpoint) if b.radius is None else up(np.abs(b.midpoint) + b.radius)
            radius = up(radius + _product_up(a.radius, size))
    return Matrix(midpoint, radius)


def scale_rows(factors: Array, matrix: Matrix) -> Matrix:
    """Return an enclosure of diag(factors) M, each entry one rounding.

    Parameters
    ----------
    factors : (m,) array
        Exact.
    matrix : (m, n) Matrix

    Returns
    -------
    (m, n) Matrix
    """
    column = factors[:, None]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        midpoint = column * matrix.midpoint
        radius = up(up(np.abs(midpoint) * (2 * UNIT)) + ETA)  # |fl(x)| 2u >= u |x|
        if matrix.radius is not None:
            radius = up(radius + up(np.abs(column) * matrix.radius))
    return Matrix(midpoint, radius)


def total(a: Matrix, b: Matrix) -> Matrix:
    """Return an enclosure of the sum of two interval matrices of one shape."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        midpoint = a.midpoint + b.midpoint
        radius = np.abs(midpoint) * (2 * UNIT)
        radius = up(radius + ETA)  # the sum is exact where this product could underflow
        for part in (a.radius, b.radius):
            if part is not None:
                radius = up(radius + part)
    return Matrix(midpoint, radius)


def difference(a: Matrix, b: Matrix) -> Matrix:
    """Return an enclosure of the difference of two interval matrices of one shape."""
    return total(a, Matrix(-b.midpoint, b.radius))


def congruence(weight: Matrix, middle: Matrix | Array) -> Matrix:
    """Return an enclosure of W^T M W, or of W^T diag(m) W, for a symmetric M.

    Parameters
    ----------
    weight : (m, n) Matrix
    middle : (m, m) Matrix, or (m,) array
        Symmetric, or the exact diagonal.

    Returns
    -------
    (n, n) Matrix
        With midpoint and radius symmetric.
    """
    inner = product(middle, weight) if isinstance(middle, Matrix) else scale_rows(middle, weight)
    return product(weight.transpose, inner).mirrored()


def _product_up(a: Array, b: Array) -> Array:
    """Return an upper bound of the product of two nonnegative matrices."""
    n = a.shape[1]
    growth = up(1.0 + up(2.0 * gamma(n)))
    return up(up(np.asarray((a @ b) * growth)) + (n + 1) * ETA)
