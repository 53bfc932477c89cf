r"""The one kind of layer that the engine knows, in plain float64.

Every activation here reads :math:`z = Wx` and returns, for differences of two inputs,

.. math:: dy = A\,dx + B\,dw, \qquad
          \sum_{i \in j}(dw_i - a_i\,dz_i)(b_i\,dz_i - dw_i) \ge 0 \text{ for each multiplier } j,

with free coordinates z = W x, slopes in [a, b], and a linear part A: neurons with a = b, the
sums that sorting keeps, the identity of a residual block. In the basis of sums and complements a
GroupSort layer is linear in the sums and has slopes [-1, 1] in the complement, with one multiplier
a group ([1]_, lemma 1; the sums are eliminated exactly); a Householder layer alike.

References
----------
.. [1] P. Pauli et al., ICLR 2024, arXiv 2401.14033, lemmas 1 and 2.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.matrix import Array

__all__ = ["Index", "Layer"]

Index = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer from x of p entries to y of n entries with m free coordinates.

    Parameters
    ----------
    weight : (m, p) array
        W of the free coordinates.
    lower, upper : (m,) arrays
        a and b.
    linear : (n, p) array or None
        A; None where it is zero.
    spread : (n, m) array or None
        B; None for the identity.
    free : (m,) index array or None
        Where B selects entries of y: B = I[:, free].
    group : (m,) index array or None
        Which multiplier a free coordinate has; None for one each.
    count : int
        The number of multipliers.
    """

    weight: Array
    lower: Array
    upper: Array
    linear: Array | None = None
    spread: Array | None = None
    free: Index | None = None
    group: Index | None = None
    count: int = 0

    @property
    def width(self) -> int:
        """The number of free coordinates."""
        return int(self.weight.shape[0])

    def expand(self, values: Array) -> Array:
        """Return the multiplier of each free coordinate."""
        return values if self.group is None else values[self.group]

    def collect(self, values: Array) -> Array:
        """Return sums over the coordinates of each multiplier, its transpose."""
        if self.group is None:
            return values
        return np.bincount(self.group, weights=values, minlength=self.count).astype(np.float64)

    def inner(self, storage: Array) -> Array:
        """Return B^T Y B, a fresh array."""
        if self.spread is not None:
            return np.asarray(self.spread.T @ (storage @ self.spread))
        if self.free is not None:
            return storage[np.ix_(self.free, self.free)]
        return storage.copy()

    def inner_left(self, values: Array) -> Array:
        """Return B^T V for an (n, p) array."""
        if self.spread is not None:
            return np.asarray(self.spread.T @ values)
        return values if self.free is None else values[self.free]

    def outer_left(self, values: Array) -> Array:
        """Return A + B V for an (m, p) array: the map from dx to dy where dw = V dx."""
        if self.spread is not None:
            result = self.spread @ values
            return result if self.linear is None else result + self.linear
        if self.free is None:
            return values
        assert self.linear is not None
        result = self.linear.copy()
        result[self.free] += values
        return result

    def outer_sum(self, total: Array, values: Array) -> None:
        """Add B V B^T to an (n, n) array in place."""
        if self.spread is not None:
            total += self.spread @ values @ self.spread.T
        elif self.free is None:
            total += values
        else:
            total[np.ix_(self.free, self.free)] += values

    def outer_right(self, values: Array) -> Array:
        """Return B V for an (m, q) array."""
        if self.spread is not None:
            return np.asarray(self.spread @ values)
        if self.free is None:
            return values
        assert self.linear is not None
        result = np.zeros((self.linear.shape[0], values.shape[1]))
        result[self.free] = values
        return result
