"""The greatest value of a linear map of a ReLU network over a box, by branch and bound.

Each node of the search fixes some ReLUs to their active or their inactive side and relaxes the
others to triangles; a linear program bounds it from above, and the network at the program's point
attains a value from below. Exact when finished, up to the tolerance of the solver (1e-7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

from tangency.verify.tightness.pieces import Pieces

__all__ = ["Relaxation", "greatest"]

Array = Any
_NO_SIDE, _ACTIVE, _INACTIVE = 0, 1, -1


@dataclass
class Relaxation:
    """Triangles over a box of inputs, and the linear programs over them.

    Attributes
    ----------
    pieces : Pieces
        The network.
    box : (m, 2) array
        Sides of the box of inputs.
    low, high : (k,) array
        Bounds of the pre-activations.
    programs : int
        Linear programs solved so far.
    """

    pieces: Pieces
    box: Array
    low: Array
    high: Array
    programs: int = 0

    def tighten(self) -> None:
        """Replace the bounds of undecided pre-activations by those of their own programs, in order.

        Later rows see the triangles of the earlier ones, already tightened.
        """
        for k in range(len(self.low)):
            if self.low[k] < 0 < self.high[k]:
                row, offset = self.pieces.matrix[k], self.pieces.offset[k]
                sides = np.zeros(len(self.low), dtype=int)
                for sign in (1, -1):
                    found = self.solve(sign * row, sides, rows=k)
                    if found is not None and sign == 1:
                        self.high[k] = min(self.high[k], found[0] + offset + 1e-9)
                    elif found is not None:
                        self.low[k] = max(self.low[k], offset - found[0] - 1e-9)

    def solve(self, c: Array, sides: Array, rows: int | None = None) -> tuple[float, Array] | None:
        """Maximise ``c z`` with some ReLUs on fixed sides; None when no point is left.

        Only the first ``rows`` ReLUs are constrained when it is given: those behind do not matter
        to a row of the matrix.
        """
        from scipy.optimize import linprog

        p, m = self.pieces, self.pieces.inputs
        n = len(self.low) if rows is None else rows
        a, b, low, high = p.matrix[:n], p.offset[:n], self.low[:n], self.high[:n]
        side = np.where(low >= 0, _ACTIVE, np.where(high <= 0, _INACTIVE, sides[:n]))
        on, off = side == _ACTIVE, side == _INACTIVE
        free = ~(on | off)
        own = np.eye(len(self.low), p.matrix.shape[1], m)[:n]  # picks the output of each ReLU
        chord = (high / np.where(free, high - low, 1.0))[:, None]
        fixed = (sides[:n] != _NO_SIDE) & (low < 0) & (high > 0)
        above = [
            (a - own)[free],
            (own - chord * a)[free],
            -a[on & fixed],
            a[off & fixed],
        ]
        limits = [
            -b[free],
            (chord[:, 0] * (b - low))[free],
            b[on & fixed],
            -b[off & fixed],
        ]
        ends = np.zeros((p.matrix.shape[1], 2))
        ends[:m] = self.box
        ends[m:, 1] = np.maximum(self.high, 0.0)
        ends[m : m + n, 1][off] = 0.0
        equal, level = (own - a)[on], b[on]
        self.programs += 1
        result = linprog(
            -c,
            A_ub=np.concatenate(above),
            b_ub=np.concatenate(limits),
            A_eq=equal if len(equal) else None,
            b_eq=level if len(equal) else None,
            bounds=ends,
            method="highs",
        )
        return (-float(result.fun), result.x) if result.status == 0 else None


def greatest(
    relaxation: Relaxation,
    c: Array,
    constant: float,
    evaluate: Callable[[Array], float],
    *,
    tolerance: float,
    nodes: int,
) -> tuple[float, float]:
    """Enclose the greatest value of ``c z + constant`` over the network's graph.

    Parameters
    ----------
    relaxation : Relaxation
        Of the network on the box.
    c : (m + k,) array
        The map.
    constant : float
        Its offset.
    evaluate : callable of (m,) array
        The value that the network itself attains at a point.
    tolerance : float
        Gap at which the search ends.
    nodes : int
        Nodes at which it gives up.

    Returns
    -------
    (float, float)
        A value that is attained, and one that is not exceeded.
    """
    p, order = relaxation.pieces, count()
    begin = np.zeros(len(relaxation.low), dtype=int)
    best, heap = -np.inf, []  # type: float, list[tuple[float, int, Array, Array]]

    def enter(sides: Array) -> None:
        nonlocal best
        found = relaxation.solve(c, sides)
        if found is not None:
            best = max(best, evaluate(np.clip(found[1][: p.inputs], *relaxation.box.T)))
            heappush(heap, (-(found[0] + constant), next(order), sides, found[1]))

    enter(begin)
    done = 1
    while heap and -heap[0][0] > best + tolerance and done < nodes:
        _, _, sides, z = heappop(heap)
        gap = z[p.inputs :] - np.maximum(p.matrix @ z + p.offset, 0.0)
        gap[(sides != _NO_SIDE) | (relaxation.low >= 0) | (relaxation.high <= 0)] = -np.inf
        if not np.isfinite(gap).any():  # all sides are fixed: the program was exact
            continue
        k = int(np.argmax(gap))
        for side in (_ACTIVE, _INACTIVE):
            child = sides.copy()
            child[k] = side
            enter(child)
            done += 1
    return best, max(best, -heap[0][0]) if heap else best
