"""The sets of inputs that claims speak of, in words and numbers that determine them.

A person compares what is printed with what he believes was proved. So a number is printed rounded
in the direction that keeps the sentence true, sizes are taken in exact arithmetic, and the rest is
a whole sha256: one of few digits could be met on purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.matrix import Array

__all__ = [
    "Region",
    "decimal",
    "digest",
    "edges_as_data",
    "edges_in_words",
    "half_edges",
    "is_at_most",
    "listed",
]


@dataclass(frozen=True, eq=False)
class Region:
    """The box that a local claim speaks about: all x with ``lower <= x <= upper``.

    Parameters
    ----------
    lower, upper : (*input_shape) arrays
        Corners, kept to the last bit.
    """

    lower: Array
    upper: Array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """The sha256 of shape and corners."""
        return digest(self.lower, self.upper)

    def as_dict(self) -> dict[str, Any]:
        """The box as data, for programs."""
        return {"sets": 1, "kind": "box"} | edges_as_data(self.lower, self.upper)

    def __str__(self) -> str:
        """Name the box by its edges and its digest.

        Examples
        --------
        >>> print(Region(np.zeros(2), np.array([0.5, 0.25])))
        the box of 2 entries with half-edges between 0.125 and 0.25 and corners with sha256 \
16caf1c3892388bf891cd36ef439445adb224d5d4d7b7d16ba260493e3c5d671
        """
        return f"the box of {self.lower.size} entries with {edges_in_words(self.lower, self.upper)}"


def digest(*arrays: npt.NDArray[Any]) -> str:
    """Return the sha256 of arrays: of each its shape, then its numbers as 64 bits."""
    found = sha256()
    for array in arrays:
        found.update(repr(array.shape).encode())
        wide = "<i8" if array.dtype.kind in "iu" else "<f8"
        found.update(np.ascontiguousarray(array, dtype=wide).tobytes())
    return found.hexdigest()


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return s and e with ``s + e`` the exact sum, s its nearest float (Knuth).

    Where a float overflows e is NaN, so that no comparison with it holds.
    """
    with np.errstate(all="ignore"):
        s = a + b
        t = s - a
        return s, (a - (s - t)) + (b - t)


def is_at_most(a: Array, b: Array, c: Array) -> npt.NDArray[np.bool_]:
    """Whether a <= b + c, in exact arithmetic; False where a float overflows.

    Examples
    --------
    >>> bool(is_at_most(np.array(0.1 + 0.2), np.array(0.1), np.array(0.2)))  # it was rounded up
    False
    """
    s, e = _two_sum(b, c)
    found: npt.NDArray[np.bool_] = (a < s) | ((a == s) & (e >= 0))
    return found


def half_edges(low: Array, high: Array) -> tuple[Fraction, Fraction]:
    """Return the least and the largest half-edge of boxes, exactly.

    The order of exact sums is that of (s, e) in :func:`_two_sum`, as rounding to nearest is
    monotone.

    Examples
    --------
    >>> least, largest = half_edges(np.array([0.0, 0.25]), np.array([1.0, 0.5]))
    >>> largest, least
    (Fraction(1, 2), Fraction(1, 8))
    """
    s, e = _two_sum(high.reshape(-1), -low.reshape(-1))
    if not np.isfinite(e).all():  # beyond the range of float64
        ends = zip(high.reshape(-1).tolist(), low.reshape(-1).tolist(), strict=True)
        widths = [Fraction(b) - Fraction(a) for b, a in ends]
        return min(widths) / 2, max(widths) / 2
    first, last = s.min(), s.max()
    least = Fraction(float(first)) + Fraction(float(e[s == first].min()))
    largest = Fraction(float(last)) + Fraction(float(e[s == last].max()))
    return least / 2, largest / 2


def decimal(value: float | Fraction, *, up: bool, digits: int = 17) -> str:
    """Return a number in decimals, rounded in one direction.

    Examples
    --------
    >>> decimal(0.1, up=False), decimal(0.1, up=True), decimal(Fraction(1, 3), up=True, digits=3)
    ('0.1', '0.10000000000000001', '0.334')
    """
    exact = Fraction(value)
    context = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    rounded = context.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    return format(rounded.normalize(), "g")


def edges_in_words(low: Array, high: Array) -> str:
    """Name boxes by the range of their half-edges and the digest of their corners."""
    least, largest = half_edges(low, high)
    return (
        f"half-edges between {decimal(least, up=False)} and {decimal(largest, up=True)} and "
        f"corners with sha256 {digest(low, high)}"
    )


def edges_as_data(low: Array, high: Array) -> dict[str, Any]:
    """The same for programs; the half-edges as decimals, which no float would hold."""
    least, largest = half_edges(low, high)
    return {
        "half_edges": [decimal(least, up=False), decimal(largest, up=True)],
        "corners_sha256": digest(low, high),
    }


def listed(numbers: Sequence[int], most: int = 24) -> str:
    """Return whole numbers with runs put together, the first of them where they are many.

    Examples
    --------
    >>> listed([0, 1, 2, 5, 7, 8, 9])
    '0-2, 5, 7-9'
    >>> listed(range(0, 20, 2), most=3)
    '0, 2, 4, ... (10 in all)'
    """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    words = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:most]]
    return ", ".join(words) + (f", ... ({len(numbers)} in all)" if len(runs) > most else "")
