"""Propagation invariance: when interval bounds of a deep linear network are exact.

The entry (i, j) of ``W_L ... W_1`` is a sum over paths from input j to output i, and that of
``|W_L| ... |W_1|`` the sum of their absolute values. The two boxes agree at output i exactly when
for each j all paths that are not zero have one sign. Signs multiply without rounding, so that the
test is exact, at any depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["PathSigns", "opposed_minors", "path_signs"]

Array = Any


@dataclass(frozen=True, eq=False)
class PathSigns:
    """Which signs the paths between each input and output have.

    Attributes
    ----------
    positive, negative : (outputs, inputs) array of bool
        Whether some path is positive, or negative.
    """

    positive: Array = field(repr=False)
    negative: Array = field(repr=False)

    @property
    def mixed(self) -> Array:
        """(outputs, inputs) array of bool: paths of both signs, which intervals add up apart."""
        return self.positive & self.negative

    @property
    def invariant(self) -> bool:
        """Whether interval bounds are exact for every box: tau = 1 at every output."""
        return not bool(self.mixed.any())

    @property
    def signs(self) -> Array:
        """(outputs, inputs) array of int: 1 or -1 where all paths agree, 0 where none or mixed."""
        return self.positive.astype(int) - self.negative.astype(int)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "invariant": self.invariant,
            "mixed": int(self.mixed.sum()),
            "entries": int(self.mixed.size),
            "signs": self.signs.tolist(),
        }

    def plot(self) -> Any:
        """The sign of each entry, mixed ones grey: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 4.0), layout="constrained")
        axes = figure.add_subplot()
        shown = np.ma.masked_where(self.mixed, self.signs)
        axes.set_facecolor("grey")
        axes.imshow(shown, cmap="coolwarm", vmin=-1.5, vmax=1.5, interpolation="nearest")
        axes.set(xlabel="input", ylabel="output", title="signs of the paths (grey: mixed)")
        return figure


def path_signs(matrices: Sequence[Array]) -> PathSigns:
    """Signs of all paths of a deep linear network ``W_L ... W_1``.

    For two layers this is the criterion of the paper: for every (i, j), all the products
    ``W_2[i, k] W_1[k, j]`` are >= 0, or all are <= 0.

    Parameters
    ----------
    matrices : sequence of (m, n) array
        The weights, first layer first. Zero the rows of units that are off to ask about a ReLU
        network at a point.

    Returns
    -------
    PathSigns

    Raises
    ------
    InputError
        For no matrices, shapes that do not follow each other, or entries that are not finite.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> first = np.array([[1.0, 1.0], [1.0, -1.0]])
    >>> path_signs([first, np.array([[1.0, 1.0]])]).mixed
    array([[False,  True]])
    """
    chain = _chain(matrices)
    size = chain[0].shape[1]
    positive, negative = np.eye(size, dtype=bool), np.zeros((size, size), dtype=bool)
    for matrix in chain:
        up, down = matrix > 0, matrix < 0
        positive, negative = (
            (up @ positive) | (down @ negative),
            (up @ negative) | (down @ positive),
        )
    return PathSigns(positive, negative)


def opposed_minors(first: Array, second: Array) -> Array:
    r"""Witnesses that two layers are not invariant, by the signs of the product's 2x2 minors.

    Let ``W = second first``. When a unit k has none of ``second[i, k]``, ``second[i', k]``,
    ``first[k, j]``, ``first[k, j']`` zero, while ``W_ij W_ij' W_i'j W_i'j' < 0``, the two layers
    are not invariant: in invariant ones each entry of W that is not zero has the sign of each of
    its paths that is not, and the four paths through k multiply to a square. (A minor of negative
    product alone tells nothing: with ``second`` the identity every ``first`` is invariant.) So
    invariance for wide layers without zeros forces W to the sign pattern of a matrix of rank one.

    Parameters
    ----------
    first : (w, n) array
        Weights of the first layer.
    second : (m, w) array
        Weights of the second.

    Returns
    -------
    (count, 4) array of int
        All (i, i', j, j') with i < i' and j < j' that are such witnesses.

    Raises
    ------
    InputError
        As :func:`path_signs`, or for a product whose minors are too many to list.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, section 3.
    """
    first, second = _chain([first, second])
    signs = _exact_signs(first, second)
    (m, n), (outer, inner) = signs.shape, (second != 0, first != 0)
    if (m * n) ** 2 > 10**7:
        raise InputError(f"the product is {m} x {n}: minors are listed up to m n = 3,000")
    rows = [(i, k) for i in range(m) for k in range(i + 1, m)]
    found = []
    for i, k in rows:
        products = np.outer(signs[i] * signs[k], signs[i] * signs[k])
        shared = inner[outer[i] & outer[k]].astype(int)
        together = (shared.T @ shared) > 0  # some unit reaches both outputs from both inputs
        for a, b in np.argwhere(np.triu((products < 0) & together, 1)):
            found.append((i, k, int(a), int(b)))
    return np.array(found, dtype=int).reshape(-1, 4)


def _exact_signs(first: Array, second: Array) -> Array:
    """Signs of ``second first``, by exact arithmetic where rounding could change them."""
    from fractions import Fraction

    product, size = second @ first, np.abs(second) @ np.abs(first)
    signs = np.sign(product).astype(int)
    tiny = np.finfo(np.float64).tiny * first.shape[0]
    unsure = np.abs(product) <= 1e-15 * (2 + first.shape[0]) * size + tiny
    for i, j in np.argwhere(unsure):
        terms = zip(second[i].tolist(), first[:, j].tolist(), strict=True)
        exact = sum((Fraction(a) * Fraction(b) for a, b in terms), start=Fraction(0))
        signs[i, j] = (exact > 0) - (exact < 0)
    return signs


def _chain(matrices: Sequence[Array]) -> list[Array]:
    chain = [np.asarray(m, dtype=np.float64) for m in matrices]
    if not chain or any(m.ndim != 2 or m.size == 0 for m in chain):
        raise InputError("matrices: give the weights of one layer or more, first layer first")
    for i, (a, b) in enumerate(pairwise(chain)):
        if b.shape[1] != a.shape[0]:
            raise InputError(f"matrix {i + 1} is {b.shape}, the one before it gives {a.shape[0]}")
    if not all(np.isfinite(m).all() for m in chain):
        raise InputError("matrices: an entry is NaN or infinite")
    return chain
