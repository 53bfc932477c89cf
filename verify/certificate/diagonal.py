"""Interval matrices times diagonal ones: exact where the factors are powers of two."""

import numpy as np

from tangency.verify.certificate.directed import ETA, UNIT, down, scale_rows, up
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["diagonal", "reciprocal", "scaled", "times"]


def reciprocal(column: Matrix) -> Matrix:
    """Return an enclosure of 1 / c for positive (m, 1) numbers."""
    midpoint = 1.0 / column.midpoint
    radius = up(midpoint * (2 * UNIT)) + ETA
    mantissa = np.frexp(column.midpoint)[0]
    radius = np.where(mantissa == 0.5, 0.0, radius)  # powers of two
    if column.radius is not None:
        # |1/x - 1/c| <= r / (c (c - r)), as two quotients: c (c - r) would underflow for tiny c.
        least = down(column.midpoint - column.radius)
        share = up(column.radius / np.where(least > 0, least, 0.0)) / column.midpoint
        radius = up(radius + np.where(least > 0, up(share), np.inf))
    return Matrix(midpoint, radius)


def scaled(factors: Array, matrix: Matrix) -> Matrix:
    """Return an enclosure of diag(factors) M, exact where the factors are 0 or powers of two."""
    found = scale_rows(factors, matrix)
    mantissa = np.abs(np.frexp(factors)[0])
    exact = (mantissa == 0.5) | (factors == 0.0)
    zero = (matrix.midpoint == 0.0) | (factors == 0.0)[:, None]
    normal = bool((zero | (np.abs(found.midpoint) > 1e-290)).all())
    if matrix.radius is None and exact.all() and normal:
        return Matrix(found.midpoint)
    return found


def times(column: Matrix, matrix: Matrix) -> Matrix:
    """Return an enclosure of diag(c) M for an (m, 1) interval c."""
    found = scaled(column.midpoint[:, 0], matrix)
    if column.radius is None or not column.radius.any():
        return found
    size = np.abs(matrix.midpoint)
    if matrix.radius is not None:
        size = up(size + matrix.radius)
    extra = up(column.radius * size)
    return Matrix(found.midpoint, extra if found.radius is None else up(found.radius + extra))


def diagonal(column: Matrix) -> Matrix:
    """Return the diagonal matrix of an (m, 1) interval column."""
    radius = column.radius
    return Matrix(np.diag(column.midpoint[:, 0]), None if radius is None else np.diag(radius[:, 0]))
