"""Interval branch and bound on boxes: the rule of last resort, for any formula."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.pieces import lift
from tangency.models.intervals import Array, Interval

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["search_range"]

_ROUNDS = 14
_SPLIT = 4
_WORK = (200_000, 40)  # cells enclosed in all: this many, and so many more for each box
_CHUNK = 20_000
_GAP = 1e-9  # relative gap between bound and attained value at which a cell is done


def search_range(record: "Activation", order: int, box: Interval) -> Interval:
    """Enclose ``phi`` (order 0) or ``phi'`` (order 1) on each box.

    Each cell is enclosed three ways (direct, mean-value form, by its ends where the derivative has
    one sign); cells that might hold the extreme are cut in four until the enclosure agrees with a
    value attained at a midpoint, to 1e-9, or the budget ends. What is left uncut is counted as it
    stands, so the result is an enclosure whenever the search stops.

    The mean-value form and the ends are as good for slopes as for values, since enclosures of
    derivatives hold what happens on both sides of every point of a closed cell (:mod:`.jets`).
    Where ``phi'`` may jump, at an end of the cell too, the enclosure of ``phi''`` is the whole
    line, so that the direct one alone counts; and where ``phi''`` has one sign, the slopes of the
    cell, of either side, lie between those at its ends.
    """

    def enclose(X: Interval) -> Interval:
        return _enclose(record, order, X)

    flat = Interval._make(box.lower.ravel(), box.upper.ravel())
    low, high = np.empty(flat.lower.size), np.empty(flat.lower.size)
    for start in range(0, low.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        high[part] = _maximum(enclose, flat[part])
        low[part] = -_maximum(lambda X: -enclose(X), flat[part])
    assert (low <= high).all(), "an enclosure is not empty"
    return Interval._make(low.reshape(box.lower.shape), high.reshape(box.lower.shape))


def _enclose(record: "Activation", order: int, X: Interval) -> Interval:
    function, slope = lift(record, order), lift(record, order + 1)
    direct = function(X)
    D = slope(X)
    m = X.midpoint
    mean = function(Interval(m)) + D * (X - m)
    best = direct.intersect(mean)
    one_sign = ((D.lower >= 0) | (D.upper <= 0)) & np.isfinite(X.lower) & np.isfinite(X.upper)
    if one_sign.any():
        by_ends = function(Interval(X.lower)).hull(function(Interval(X.upper)))
        low, high = np.maximum(best.lower, by_ends.lower), np.minimum(best.upper, by_ends.upper)
        best = Interval(np.where(one_sign, low, best.lower), np.where(one_sign, high, best.upper))
    return best


def _maximum(enclose: Callable[[Interval], Interval], box: Interval) -> Array:
    """Upper bound of the maximum on each of the boxes."""
    low, high = box.lower, box.upper
    owner: Any = np.arange(low.size)
    result = np.full(low.size, -np.inf)  # over cells that are done
    attained = np.full(low.size, -np.inf)
    work = _WORK[0] + _WORK[1] * box.lower.size
    for step in range(_ROUNDS):
        E = enclose(Interval._make(low, high)).upper
        middle = enclose(Interval(Interval._make(low, high).midpoint)).lower
        np.maximum.at(attained, owner, middle)
        goal = attained[owner]
        slack = _GAP * np.maximum(1e-3, np.abs(np.where(np.isfinite(goal), goal, 0.0)))
        with np.errstate(over="ignore"):
            width = np.where(np.isfinite(high - low), high - low, 0.0)
        # unbounded cells are not cut again; neither are those that are a few floats wide
        stuck = (width <= 1e-15 * np.maximum(np.abs(low), np.abs(high))) & (step > 0)
        stuck |= low == high  # a point has no parts
        done = (goal + slack >= E) | stuck | (step == _ROUNDS - 1)
        work -= low.size
        if work < 0:
            done[:] = True
        np.maximum.at(result, owner[done], E[done])
        low, high, owner = low[~done], high[~done], owner[~done]
        if not low.size:
            break
        low, high, owner = _cut(low, high, owner)
    return result


def _cut(low: Array, high: Array, owner: Any) -> tuple[Array, Array, Any]:
    # An unbounded cell is cut at +-1e3 (or at twice its finite end) into a bounded part and a rest.
    ends = [np.where(np.isfinite(x), np.minimum(np.abs(x), 2.0**1020), 0.0) for x in (low, high)]
    reach = 1e3 + 2.0 * (ends[0] + ends[1])
    a, b = np.maximum(low, -reach), np.minimum(high, reach)
    t = np.linspace(0.0, 1.0, _SPLIT + 1)
    grid = a[:, None] * (1.0 - t) + b[:, None] * t  # a + (b - a) t could overflow
    grid[:, 0], grid[:, -1] = a, b
    grid = np.concatenate([low[:, None], grid, high[:, None]], axis=1)
    left, right = grid[:, :-1].ravel(), grid[:, 1:].ravel()
    who = np.repeat(owner, grid.shape[1] - 1)
    keep = left < right
    return left[keep], right[keep], who[keep]
