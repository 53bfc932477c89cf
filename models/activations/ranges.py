"""Ranges of ``phi`` and ``phi'`` on boxes, and the global slope range.

On a box the extremes of a function lie at its ends, at critical points inside (tables of
:mod:`.pieces`), or, if the box leaves the core, in a monotone tail. Where there is no table, or the
tails oscillate, interval branch and bound on each box takes over (:mod:`.search`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.pieces import Pieces, core_of, lift
from tangency.models.activations.search import search_range
from tangency.models.activations.tails import limit_of
from tangency.models.errors import InputError
from tangency.models.intervals import Array, Interval

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["at_points", "check_boxes", "has_tails", "range_on", "slope_range", "slopes_on"]


def check_boxes(record: "Activation", lower: Any, upper: Any) -> Interval:
    """Turn end points into an Interval inside of the domain, or raise InputError."""
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    if np.isnan(low).any() or np.isnan(high).any():
        raise InputError(f"a box for {record} holds NaN")
    low, high = np.broadcast_arrays(low, high)
    if np.any(low > high):
        raise InputError(f"a box for {record} has lower > upper")
    a, b = record.domain
    bad = (low < a) | (high > b)
    for pole in record.poles:
        bad |= (low <= pole) & (high >= pole)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        without = f" without {', '.join(map(str, record.poles))}" if record.poles else ""
        raise InputError(
            f"the box [{low.flat[i]}, {high.flat[i]}] leaves the domain of {record}: "
            f"[{a}, {b}]{without}"
        )
    box = Interval.__new__(Interval)  # a degenerate box [inf, inf] is a limit here, keep it
    box.lower, box.upper = low, high
    return box


def at_points(record: "Activation", order: int, x: Array) -> Interval:
    """Enclose ``phi`` (order 0) or ``phi'`` (order 1) at points, infinite ones included."""
    y = lift(record, order)(Interval(x))
    if record.limits is None:
        return y
    tails = record._tails
    for side, end in enumerate(core_of(record)):
        tail = tails.sides[side] if tails is not None and not tails.doubt else None
        beyond = x < end if side == 0 else x > end
        if tail is not None and beyond.any():
            bound = tail.bounds[order]
            low, high = np.maximum(y.lower, bound.lower), np.minimum(y.upper, bound.upper)
            y = Interval(np.where(beyond, low, y.lower), np.where(beyond, high, y.upper))
        last = x == record.domain[side]
        if last.any():
            limit = limit_of(record.limits[side][order])
            y = Interval._make(
                np.where(last, limit.lower, y.lower), np.where(last, limit.upper, y.upper)
            )
    return y


def _by_pieces(record: "Activation", pieces: Pieces, order: int, box: Interval) -> Interval:
    """Hull of the two ends and of the critical points inside."""
    left, right = box.lower, box.upper
    first = at_points(record, order, left)
    second = first if left is right else at_points(record, order, right)
    low, high = np.minimum(first.lower, second.lower), np.maximum(first.upper, second.upper)
    P, V = pieces.points, pieces.values
    spots = [(P.lower[i], P.upper[i], V.lower[i], V.upper[i]) for i in range(P.lower.size)]
    if record._tails is not None:
        spots += record._tails.spots(order)
    for end in pieces.core:  # the pieces on the two sides of a core end may differ in direction
        E = at_points(record, order, np.asarray(end))
        spots.append((end, end, E.lower, E.upper))
    for a, b, value_low, value_high in spots:
        inside = (a <= right) & (b >= left)
        if inside.any():
            low = np.where(inside, np.minimum(low, value_low), low)
            high = np.where(inside, np.maximum(high, value_high), high)
    return Interval._make(low, high)


def has_tails(record: "Activation") -> bool:
    """Whether the record's monotone tails, checked, say what happens beyond its core."""
    tails = None if record.oscillates else record._tails
    return tails is not None and not tails.doubt


def _on_boxes(record: "Activation", order: int, box: Interval) -> Interval:
    pieces = record._value_pieces if order == 0 else record._slope_pieces
    core = core_of(record)
    if pieces is not None and pieces.core != core:
        core, tails = pieces.core, False
    else:
        tails = has_tails(record)
    covered = np.full(box.lower.shape, pieces is not None)
    start, stop = core
    if tails and record._tails is not None:
        start, stop = record._tails.reach
    covered &= (box.lower >= start) & (box.upper <= stop)
    if covered.all() and pieces is not None:
        return _by_pieces(record, pieces, order, box)
    low, high = np.empty(box.lower.shape), np.empty(box.lower.shape)
    if covered.any() and pieces is not None:
        part = _by_pieces(record, pieces, order, box[covered])
        low[covered], high[covered] = part.lower, part.upper
    rest = Interval._make(box.lower[~covered], box.upper[~covered])
    found = search_range(record, order, rest)
    low[~covered], high[~covered] = found.lower, found.upper
    return Interval._make(low, high)


@np.errstate(all="ignore")  # interval arithmetic meets infinities
def range_on(record: "Activation", lower: Any, upper: Any) -> Interval:
    """Enclose ``phi`` on boxes; see :meth:`Activation.range_on`."""
    box = check_boxes(record, lower, upper)
    if record.staircase:
        if not record._rises:
            raise InputError(
                f"{record} is said to be a staircase, and its formula is not shown to rise: leave "
                "the field staircase out"
            )
        first, second = (at_points(record, 0, x) for x in (box.lower, box.upper))
        return Interval._make(first.lower, second.upper)
    if "value" in record.single_use:
        found = record.enclosure(0, Interval._make(box.lower, box.upper))
        if np.isinf(found.lower).any() or np.isinf(found.upper).any():
            i = int(np.flatnonzero(np.isinf(found.lower) | np.isinf(found.upper))[0])
            raise InputError(
                f"the box [{box.lower.flat[i]}, {box.upper.flat[i]}] leaves the domain of "
                f"{record}: {record.formula}"
            )
        return found
    return _on_boxes(record, 0, box)


@np.errstate(all="ignore")  # interval arithmetic meets infinities
def slopes_on(record: "Activation", lower: Any, upper: Any) -> Interval:
    """Enclose ``phi'`` on boxes; see :meth:`Activation.slopes_on`."""
    box = check_boxes(record, lower, upper)
    if record.staircase or "slope" in record.single_use:
        if "value" in record.single_use:
            range_on(record, lower, upper)  # raises where there is a pole
        return record.enclosure(1, Interval._make(box.lower, box.upper))
    return _on_boxes(record, 1, box)


@np.errstate(all="ignore")
def slope_range(record: "Activation") -> tuple[float, float]:
    """Enclose all slopes; see :attr:`Activation.slope_range`."""
    if record.staircase or "slope" in record.single_use:
        found = record.enclosure(1, Interval(*record.domain))
        return float(found.lower), float(found.upper)
    if record.limits is None:
        raise InputError(
            f"the slope range of {record} needs its tails: give the field "
            "limits=((phi, phi') at -inf, (phi, phi') at +inf) and the field core=(low, high), "
            "beyond which phi and phi' are monotone"
        )
    core = core_of(record)
    assert record._tails is not None
    if record._tails.doubt:
        raise InputError(record._tails.doubt)
    parts = [tail.bounds[1] for tail in record._tails.sides if tail is not None]
    parts += [limit_of(limit) for _, limit in record.limits]
    if record.poles:
        # Closed cells: their slopes are of both sides of a pole, so that a jump is not cut out.
        marks = sorted(pole for pole in record.poles if core[0] <= pole <= core[1])
        parts.append(lift(record, 1)(Interval([core[0], *marks], [*marks, core[1]])))
    elif record._slope_pieces is None or record._slope_pieces.core != core:
        parts.append(search_range(record, 1, Interval([core[0]], [core[1]])))
    else:
        parts.append(record._slope_pieces.values)
        parts.append(at_points(record, 1, np.asarray(core)))
    low = min(float(np.min(part.lower, initial=np.inf)) for part in parts)
    high = max(float(np.max(part.upper, initial=-np.inf)) for part in parts)
    return low + 0.0, high + 0.0  # no -0.0
