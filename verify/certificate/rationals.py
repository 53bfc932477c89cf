"""Matrices of rational numbers: NumPy's object arrays of python-flint's fractions."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tangency.models.errors import MissingPackageError

__all__ = [
    "Rational",
    "diagonal",
    "flint",
    "identity",
    "is_definite",
    "multiply",
    "number",
    "rational",
    "zeros",
]

Rational: TypeAlias = npt.NDArray[np.object_]


def flint() -> Any:
    """Return the package python-flint, or raise MissingPackageError."""
    try:
        import flint
    except ImportError:
        raise MissingPackageError(
            "exact arithmetic needs the package python-flint: pip install 'tangency[exact]'"
        ) from None
    return flint


def number(value: Fraction) -> Any:
    """Return a rational number."""
    return flint().fmpq(value.numerator, value.denominator)


def rational(values: npt.NDArray[np.float64]) -> Rational:
    """Return the exact numbers of an array of floats."""
    numbers = np.empty(values.size, dtype=object)
    numbers[:] = [number(Fraction(x)) for x in values.ravel().tolist()]
    return numbers.reshape(values.shape)


def zeros(m: int, n: int) -> Rational:
    """Return an (m, n) matrix of zeros."""
    return rational(np.zeros((m, n)))


def identity(n: int) -> Rational:
    """Return the (n, n) identity."""
    return rational(np.eye(n))


def diagonal(values: Iterable[Any]) -> Rational:
    """Return a diagonal matrix."""
    held = list(values)
    result = zeros(len(held), len(held))
    result[np.diag_indices(len(held))] = held
    return result


def multiply(first: Rational, *others: Rational) -> Rational:
    """Return a product of matrices."""
    result = _held(first)
    for other in others:
        result = result * _held(other)
    shape = (first.shape[0], others[-1].shape[1])
    return np.array(result.entries(), dtype=object).reshape(shape)


def is_definite(form: Rational) -> bool:
    """Whether a symmetric matrix is positive definite: its leading minors are positive.

    They are the pivots of fraction-free elimination of an integer multiple.
    """
    n = len(form)
    if not all(x > 0 for x in np.diagonal(form)):
        return False
    whole, _ = _held(form).numer_denom()
    exchange, _, _, upper = whole.fflu()
    # A row is exchanged only where a leading minor is zero.
    return all(exchange[i, i] == 1 and upper[i, i] > 0 for i in range(n))


def _held(values: Rational) -> Any:
    return flint().fmpq_mat(*values.shape, values.ravel().tolist())
