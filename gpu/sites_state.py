"""What is held where the kernels on sites run: states of pairs, and tables of samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Side", "State", "Table"]

Array = Any  # of NumPy or of CuPy


@dataclass(frozen=True, eq=False)
class State:
    """Covariance and tangent kernel of a block of pairs behind one layer.

    Attributes
    ----------
    s : (pairs, entries) float64 array
        Entries are pairs of sites where ``full``, else equal ones.
    t : (pairs, entries) array or None
        In the type of the recursion; None where it is zero or not asked for.
    sites : int
    full : bool
    """

    s: Array
    t: Array | None
    sites: int
    full: bool


@dataclass(frozen=True, eq=False)
class Table:
    """What one layer needs of each sample alone.

    Attributes
    ----------
    roots : (n, sites, 2) float64 array, or None
        Standard deviations before an activation, and their inverses.
    rows : (2 + far + terms, n sites) float64 array, or None
        Of a series: means of its slope, roots of the mean square of it, and Hermite coefficients,
        those of far orders first.
    factors : (n, sites) float64 array, or None
        Of a norm.
    """

    roots: Array | None = None
    rows: Array | None = None
    factors: Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.roots, self.rows, self.factors)
        return sum(int(a.nbytes) for a in arrays if a is not None)


@dataclass(frozen=True, eq=False)
class Side:
    """The samples of one side of a pair; one object for both where a sample may meet itself.

    Attributes
    ----------
    features : (n, sites, channels) float64 array
    images : (n, channels, sites) array, or None
        The same for a stage that begins with images, in the type of the recursion.
    tables : dict
        By layer.
    stage_roots : dict
        ``(n, depth, sites, 2)`` arrays by the result of a stage, in the type of the recursion.
    """

    features: Array
    images: Array | None = None
    tables: dict[int, Table] = field(default_factory=dict)
    stage_roots: dict[int, Array] = field(default_factory=dict)
