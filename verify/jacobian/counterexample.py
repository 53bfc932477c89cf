"""Two points whose outputs stand in the wrong order, proved in real arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.rigorous.enclosure import total
from tangency.verify.rigorous.walk import walk

__all__ = ["Claim", "refuting_pair"]

Array = Any

_STEPS = 48


@dataclass(frozen=True, eq=False)
class Claim:
    """``sign * (row @ output)`` never falls as input ``index`` grows."""

    row: Array
    index: int
    sign: int


def refuting_pair(
    network: Network, point: Array, claim: Claim, low: Array, high: Array
) -> tuple[Array, Array] | None:
    """Two points of the box that differ in one input and contradict a claim.

    Parameters
    ----------
    point : (n,) array
        Where the partial derivative has the wrong sign.
    low, high : (n,) array
        The box, of finite or infinite ends.

    Returns
    -------
    (array, array) or None
        In the shape of the network's input, the lower one first; None if no step is proved.
    """
    i, x = claim.index, point[claim.index]
    unit = max(1.0, abs(float(x)))
    up = min(float(high[i]) - x, unit)
    down = min(x - float(low[i]), unit)
    halving = 0.5 ** np.arange(_STEPS)
    ends = np.concatenate([x + up * halving, x - down * halving])
    ends = np.clip(ends, low[i], high[i])
    others = np.repeat(point[None], len(ends) + 1, axis=0)
    others[1:, i] = ends
    values = _values(network, others, claim)
    start, end = values[:1], values[1:]
    # Larger inputs must not have smaller values: those that surely have refute the claim.
    wrong = np.where(ends > x, end.upper < start.lower, end.lower > start.upper) & (ends != x)
    if not wrong.any():
        return None
    best = int(np.argmax(np.where(wrong, np.abs(ends - x), -1.0)))
    pair = (point, others[1 + best])
    first, second = pair if ends[best] > x else pair[::-1]
    shape = network.input_shape
    return first.reshape(shape).copy(), second.reshape(shape).copy()


def _values(network: Network, points: Array, claim: Claim) -> Interval:
    """Enclosures of ``sign * (row @ f(x))`` at points."""
    (end,) = network.structure.outputs
    x = Interval(points.reshape((-1, *network.input_shape)))
    y = walk(network, [x], [end]).found[end]
    flat = Interval(y.lower.reshape((y.shape[0], -1)), y.upper.reshape((y.shape[0], -1)))
    return total(flat * claim.row, (1,)) * float(claim.sign)
