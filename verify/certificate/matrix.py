"""Interval matrices by midpoint and radius, scaled by powers of two without error."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tangency.models.errors import InputError

__all__ = ["Array", "Matrix"]

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Matrix:
    """All real matrices A with ``|A - midpoint| <= radius``, entry by entry.

    Parameters
    ----------
    midpoint : (m, n) array of float64
    radius : (m, n) array of float64, optional
        Nonnegative; without it the matrix is the midpoint, exactly.
    """

    midpoint: Array
    radius: Array | None = None

    @classmethod
    def of(cls, values: Any, *, name: str = "the matrix") -> "Matrix":
        """Return the exact matrix of an array, or check one that is a Matrix already.

        Raises
        ------
        InputError
            If it is not a finite real matrix, or not exact in float64.

        Examples
        --------
        >>> Matrix.of([[1, 2]]).shape
        (1, 2)
        """
        if isinstance(values, Matrix):
            midpoint = _finite(values.midpoint, name)
            if values.radius is None:
                return cls(midpoint)
            radius = _finite(values.radius, f"the radius of {name}")
            if radius.shape != midpoint.shape or (radius < 0).any():
                raise InputError(f"the radius of {name} must be nonnegative, {midpoint.shape}")
            return cls(midpoint, radius)
        return cls(_finite(values, name))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.midpoint.shape
        return rows, columns

    @property
    def transpose(self) -> "Matrix":
        """The transpose, sharing memory."""
        return Matrix(self.midpoint.T, None if self.radius is None else self.radius.T)

    def rows(self, index: npt.NDArray[Any]) -> "Matrix":
        """Return the rows that an index or a mask selects."""
        return Matrix(self.midpoint[index], None if self.radius is None else self.radius[index])

    def mirrored(self) -> "Matrix":
        """Return the lower triangle and its mirror image.

        An enclosure of a symmetric matrix stays one: entry (i, j) encloses entry (j, i) too.
        """
        return Matrix(_mirror(self.midpoint), None if self.radius is None else _mirror(self.radius))

    def scaled(self, exponent: int) -> "Matrix":
        """Return an enclosure of the matrix times 2**exponent, exact but for underflow."""
        with np.errstate(over="ignore", under="ignore"):
            midpoint = np.ldexp(self.midpoint, exponent)
            lost = np.ldexp(midpoint, -exponent) != self.midpoint
            radius = None if self.radius is None else np.ldexp(self.radius, exponent)
        if radius is not None:
            radius = np.where(self.radius == 0, 0.0, np.nextafter(radius, np.inf))
        if lost.any():
            tiny = np.where(lost, 2.0**-1074, 0.0)
            radius = tiny if radius is None else np.nextafter(radius + tiny, np.inf)
        return Matrix(midpoint, radius)


def _mirror(values: Array) -> Array:
    return np.tril(values) + np.tril(values, -1).T


def _finite(values: Any, name: str) -> Array:
    """Return a finite real matrix as float64, or refuse."""
    try:
        given = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from None
    if given.ndim != 2:
        raise InputError(f"{name} must be a matrix, not an array of shape {given.shape}")
    if given.dtype.kind not in "fiub":
        raise InputError(f"{name} must hold real numbers, not {given.dtype}")
    array = given.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds a NaN or an infinite number")
    large = given.dtype.kind in "iu" and np.abs(array).max(initial=0.0) >= 2.0**53
    if large or (given.dtype.kind == "f" and (array != given).any()):
        raise InputError(f"{name} holds {given.dtype} numbers that are not exact in float64")
    return array
