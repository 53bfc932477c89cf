"""What a checker must know of a layer: slope bounds, sorting, reflections, residual blocks."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tangency.models.errors import InputError
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["Activation", "GroupSort", "Householder", "Residual", "Slopes", "output_width"]


@dataclass(frozen=True, eq=False)
class Slopes:
    """Elementwise functions whose difference quotients lie in [lower, upper], neuron by neuron.

    Parameters
    ----------
    lower, upper : float, or (n,) array
        Bounds of the slope that hold in real arithmetic.

    Examples
    --------
    >>> Slopes(0.0, 1.0).arrays(2)
    (array([0., 0.]), array([1., 1.]))
    """

    lower: float | Array
    upper: float | Array

    def arrays(self, size: int, *, name: str = "the activation") -> tuple[Array, Array]:
        """Return both bounds for a layer of a given size.

        Raises
        ------
        InputError
            If they are not finite, do not fit, or lower > upper.
        """
        lower, upper = (_column(part, size, name) for part in (self.lower, self.upper))
        if (lower > upper).any():
            raise InputError(f"{name}: a lower slope exceeds its upper slope")
        return lower, upper

    def lipschitz(self) -> float:
        """Return the largest slope in absolute value."""
        return float(max(np.abs(self.lower).max(initial=0.0), np.abs(self.upper).max(initial=0.0)))


@dataclass(frozen=True)
class GroupSort:
    """Sorting within groups of `size` adjacent entries; MaxMin is size 2.

    Each group's map is 1-Lipschitz and keeps its sum, whichever way it sorts.

    Parameters
    ----------
    size : int
        Must divide the width of the layer.
    descending : bool
        Largest first (the order of MaxMin). Only a search for a lower bound looks at this.
    """

    size: int = 2
    descending: bool = True

    def groups(self, width: int, *, name: str = "the activation") -> int:
        """Return the number of groups in a layer of a given width.

        Raises
        ------
        InputError
            If the size does not divide the width.
        """
        if self.size < 1 or width % self.size:
            raise InputError(f"{name}: groups of {self.size} do not fit {width} entries")
        return width // self.size

    def lipschitz(self) -> float:
        """Return 1: sorting is nonexpansive."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Householder:
    """Reflections: each group x with v^T x <= 0 becomes (I - 2 v v^T / v^T v) x.

    The map is 1-Lipschitz and keeps the part of each group that is orthogonal to its normal v.

    Parameters
    ----------
    normals : (groups, size) array
        v of each group of `size` adjacent entries, of any length but zero.
    """

    normals: Array

    @property
    def size(self) -> int:
        """Entries in a group."""
        return int(np.shape(self.normals)[1])

    def groups(self, width: int, *, name: str = "the activation") -> int:
        """Return the number of groups in a layer of a given width.

        Raises
        ------
        InputError
            If the normals do not fit the width, or one is zero or not finite.
        """
        normals = np.asarray(self.normals)
        if normals.dtype != np.float64 or normals.ndim != 2 or normals.size != width:
            raise InputError(
                f"{name}: the normals must be (groups, size) floats of {width} entries"
            )
        if not np.isfinite(normals).all() or not normals.any(axis=1).all():
            raise InputError(f"{name}: a normal is zero or not finite")
        return int(normals.shape[0])

    def lipschitz(self) -> float:
        """Return 1: a reflection of a half space onto the other is nonexpansive."""
        return 1.0


@dataclass(frozen=True, eq=False)
class Residual:
    """A residual block x + G phi(W x), W the weight of the layer.

    Parameters
    ----------
    inner : Slopes, GroupSort or Householder
        phi.
    output : (p, n) Matrix, optional
        G; the identity if not given.
    """

    inner: "Slopes | GroupSort | Householder"
    output: Matrix | None = None

    def lipschitz(self) -> float:
        """Return the constant of phi alone."""
        return self.inner.lipschitz()


Activation: TypeAlias = Slopes | GroupSort | Householder | Residual


def output_width(activation: Activation, weight: Matrix) -> int:
    """Return the entries that a layer gives: the rows of its weight, or what a block takes."""
    return weight.shape[1] if isinstance(activation, Residual) else weight.shape[0]


def _column(values: Any, size: int, name: str) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.shape not in ((), (1,), (size,)):
        raise InputError(f"{name}: slopes must be a number or {size} numbers")
    exact = array.astype(np.float64)
    if not np.isfinite(exact).all():
        raise InputError(f"{name}: a slope is not finite")
    return np.broadcast_to(exact, (size,)).copy()
