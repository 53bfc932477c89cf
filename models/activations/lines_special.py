"""Proved bounds beyond the stretches: staircases, waves, and functions of which little is known."""

from typing import TYPE_CHECKING

import numpy as np

from tangency.models.activations.lines_plan import Plan, by_plan, line, signed
from tangency.models.activations.pieces import lift
from tangency.models.activations.ranges import range_on
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Array, Interval

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["by_cells", "by_period", "by_steps", "in_parts"]

_CUTS = 64
_CHUNK = 8192


def by_steps(
    record: "Activation", offset: float, box: Interval, sign: float, slope: Array
) -> Array:
    """A staircase with unit steps: from jump to jump the gain is linear.

    The first and the last two count: at an end of the box a jump shows one side only.
    """
    value = lift(record, 0)
    best = np.maximum(
        *(line(signed(value(Interval(x)), sign), slope, x) for x in (box.lower, box.upper))
    )
    first, last = np.ceil(box.lower - offset) + offset, np.floor(box.upper - offset) + offset
    for k in (first, first + 1.0, last - 1.0, last):
        inside = (box.lower <= k) & (k <= box.upper)
        sides = ((-0.25, box.lower < k), (0.0, inside), (0.25, box.upper > k))
        for side, also in sides:
            found = line(signed(value(Interval(k + side)), sign), slope, k)
            best = np.where(inside & also, np.maximum(best, found), best)
    return best


def by_period(
    record: "Activation", plan: "Plan", box: Interval, sign: float, slope: Array
) -> Array:
    """A wave: one period of the box is enough, moved to where the stretches are known.

    ``phi(x + T) = phi(x) + rise``: the gain over a period has one sign, so that the extreme lies in
    the first or in the last period of the box.
    """
    T, rise = _period(record)
    ahead = sign * rise >= slope  # exact: rise is 0 or T, compared as slopes
    first = np.maximum(box.lower, (Interval(box.upper) - T).lower)
    last = np.minimum(box.upper, (Interval(box.lower) + T).upper)
    low, high = np.where(ahead, first, box.lower), np.where(ahead, box.upper, last)
    turns = np.rint((0.5 * low + 0.5 * high) / T.midpoint)
    shift = T * turns
    moved = Interval((Interval(low) - shift).lower, (Interval(high) - shift).upper)
    fits = plan.holds(moved)
    result = np.empty(slope.shape)
    if fits.any():
        own = by_plan(record, plan, moved[fits], sign, slope[fits])
        drift = shift[fits] * (Interval(sign * rise) - slope[fits])
        result[fits] = (Interval(own) + drift).upper
    result[~fits] = by_cells(record, box[~fits], sign, slope[~fits])
    return result


def _period(record: "Activation") -> tuple[Interval, float]:
    """Enclosure of the period of ``phi'``, and the mean of ``phi'`` over it (0 or 1, exactly)."""
    pi, params = Interval.of(interval_namespace.pi), dict(record.params)
    if record.name == "snake":
        return pi / np.abs(np.asarray(params["a"])), 1.0
    if record.name == "sine":
        return pi * 2.0 / np.abs(np.asarray(params["omega"])), 0.0
    return (pi if record.name == "tan" else pi * 2.0), 0.0


def in_parts(
    record: "Activation", plan: "Plan | None", box: Interval, sign: float, slope: Array
) -> Array:
    """By stretches where they are known, by cells to the left and right of them."""
    start, stop = plan.reach if plan is not None else (np.inf, np.inf)
    best = np.full(slope.shape, -np.inf)
    for a, b in ((-np.inf, start), (start, stop), (stop, np.inf)):
        here = (box.lower <= b) & (box.upper >= a)
        if a < b and here.any():
            part = Interval(np.maximum(box.lower[here], a), np.minimum(box.upper[here], b))
            if plan is not None and (a, b) == (start, stop):
                found = by_plan(record, plan, part, sign, slope[here])
            else:
                found = by_cells(record, part, sign, slope[here])
            best[here] = np.maximum(best[here], found)
    return best


def by_cells(record: "Activation", box: Interval, sign: float, slope: Array) -> Array:
    """Without convexity: cut into cells; on each the range of ``phi`` minus the line."""
    low, high, slope = np.broadcast_arrays(box.lower, box.upper, slope)
    if low.size > _CHUNK:
        flat = [array.ravel() for array in (low, high, slope)]
        parts = [
            by_cells(
                record,
                Interval(*(x[s : s + _CHUNK] for x in flat[:2])),
                sign,
                flat[2][s : s + _CHUNK],
            )
            for s in range(0, low.size, _CHUNK)
        ]
        return np.concatenate(parts).reshape(low.shape)
    t = np.linspace(0.0, 1.0, _CUTS + 1)
    edges = low[..., None] * (1.0 - t) + high[..., None] * t
    edges = np.clip(edges, low[..., None], high[..., None])
    edges[..., 0], edges[..., -1] = low, high
    edges = np.maximum.accumulate(edges, axis=-1)
    X, c = Interval(edges[..., :-1], edges[..., 1:]), slope[..., None]
    if record.staircase:
        found = (range_on(record, X.lower, X.upper) * sign - X * c).upper
    else:
        found = (lift(record, 0)(X) * sign - X * c).upper
        if not record.jumps:  # the mean-value form: its error falls with the square of the cells
            m = Interval(X.midpoint)
            tilt = lift(record, 1)(X) * sign - c
            around = lift(record, 0)(m) * sign - m * c + tilt * (X - m)
            found = np.minimum(found, around.upper)
    result: Array = found.max(axis=-1, initial=-np.inf)
    return result
