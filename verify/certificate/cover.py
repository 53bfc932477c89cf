r"""Whether boxes part a box: a cut that goes through none of them, then each side by itself.

A box that was cut again and again has such a cut at every stage, and any cut will do: what it
leaves on either side was parted by the same cuts. In the end each part must be one piece, to the
last bit, so that the pieces are closed, cover the box, and no point has been left out.
"""

import numpy as np
import numpy.typing as npt

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.matrix import Array

__all__ = ["require_cover"]


def require_cover(lower: Array, upper: Array, low: Array, high: Array) -> None:
    """Prove that pieces cover a box, or raise.

    Parameters
    ----------
    lower, upper : (pieces, n) arrays
        The corners of the pieces, which must part the box by cuts.
    low, high : (n,) arrays
        The corners of the box.

    Raises
    ------
    NotProvedError
        Naming a part of the box that is not covered, or pieces that no cut parts.

    Examples
    --------
    >>> require_cover(np.array([[0.0], [0.5]]), np.array([[0.5], [1.0]]), np.zeros(1), np.ones(1))
    """
    low, high = low.reshape(-1), high.reshape(-1)
    if lower.shape != upper.shape or lower.ndim != 2 or lower.shape[1] != low.size:
        raise NotProvedError(f"the pieces are no boxes of {low.size} entries")
    waiting = [(np.arange(len(lower)), low, high)]
    while waiting:
        index, low, high = waiting.pop()
        if not index.size:
            raise NotProvedError(f"no piece covers {_shown(low, high)}")
        if index.size == 1:
            i = int(index[0])
            if not (np.array_equal(lower[i], low) and np.array_equal(upper[i], high)):
                raise NotProvedError(
                    f"piece {i + 1} is {_shown(lower[i], upper[i])}, which is not "
                    f"{_shown(low, high)}, the part of the box that is left for it"
                )
            continue
        axis, where, below = _cut(lower[index], upper[index], low, high)
        if axis < 0:
            raise NotProvedError(
                f"no cut parts the {index.size} pieces within {_shown(low, high)}, so that they "
                "are not proved to cover it"
            )
        top, bottom = high.copy(), low.copy()
        top[axis] = bottom[axis] = where
        waiting += [(index[~below], bottom, high), (index[below], low, top)]


def _cut(
    lower: Array, upper: Array, low: Array, high: Array
) -> tuple[int, float, npt.NDArray[np.bool_]]:
    """Return an axis, a place inside, and which pieces lie below; -1 where no cut goes."""
    for axis in np.flatnonzero(low < high):
        order = np.argsort(lower[:, axis], kind="stable")
        starts = lower[order, axis][1:]
        ends = np.maximum.accumulate(upper[order, axis])[:-1]
        inside = (ends <= starts) & (low[axis] < starts) & (starts < high[axis])
        places = np.flatnonzero(inside)
        if places.size:
            middle = int(places[places.size // 2])
            below = np.zeros(len(lower), dtype=np.bool_)
            below[order[: middle + 1]] = True
            return int(axis), float(starts[middle]), below
    return -1, 0.0, np.zeros(len(lower), dtype=np.bool_)


def _shown(low: Array, high: Array) -> str:
    """A box in words, the first of its edges alone where there are many."""
    edges = [f"[{a:.6g}, {b:.6g}]" for a, b in zip(low[:4], high[:4], strict=True)]
    return " x ".join(edges) + (" x ..." if low.size > 4 else "")
