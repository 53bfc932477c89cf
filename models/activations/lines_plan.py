"""The stretches of an activation, and the bound that they prove for a line.

``sign phi(x) - slope x`` is bounded from above over a box, stretch by stretch:

- where ``sign phi`` is convex (or straight), by the two ends of the stretch;
- where it is concave, by the tangent at a point ``t`` near the touching point, whatever ``t`` is:
  ``phi(x) <= phi(t) + phi'(t)(x - t)``;
- in a tail where the sign is open, by either end and the range of the slopes;
- on the enclosures of inflections and corners, by the range of ``phi`` there.

Stretches and their signs are those that :mod:`.pieces` proved; only ``t`` is found in ordinary
floating point.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.lines_fast import newton
from tangency.models.activations.pieces import core_of, lift
from tangency.models.activations.ranges import at_points, has_tails
from tangency.models.intervals import Array, Interval
from tangency.models.namespace import numpy_namespace

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["Plan", "by_plan", "line", "make_plan", "signed"]

_Spot = tuple[float, float, Interval, float, float]


class Plan:
    """The stretches of a record, each with what bounds it.

    Attributes
    ----------
    reach : (float, float)
        Range that the stretches cover.
    spans : list of (start, stop, bend)
        Stretches with the proved sign of ``phi''``; NaN where it is open.
    spots : list of (start, stop, values, first, last)
        Enclosures of inflections and corners with the range of ``phi`` there, and the ends of the
        core. A spot counts for boxes that meet ``[first, last]``.
    """

    def __init__(self, record: "Activation") -> None:
        pieces = record._slope_pieces
        assert pieces is not None
        P, S = pieces.points, pieces.values
        tails = has_tails(record) and pieces.core == core_of(record)
        self.reach = pieces.core
        if tails and record._tails is not None:
            self.reach = record._tails.reach
        edges = [pieces.core[0], *np.stack([P.lower, P.upper], 1).ravel().tolist(), pieces.core[1]]
        self.spans = [
            (edges[2 * k], edges[2 * k + 1], float(sign)) for k, sign in enumerate(pieces.signs)
        ]
        values = _values(record, P, S)
        self.spots = [
            (low, high, values[i], low, high)
            for i, (low, high) in enumerate(zip(P.lower.tolist(), P.upper.tolist(), strict=True))
        ]
        if record.jumps:
            self.spots = [part for spot in self.spots for part in _beside_jump(record, spot)]
        for side, end in enumerate(pieces.core):
            if tails and end != record.domain[side]:
                value = at_points(record, 0, np.asarray(end))
                self.spots.append((end, end, value, end, end))
                beyond = (-np.inf, end) if side == 0 else (end, np.inf)
                self.spans += _tail_spans(record, side, *beyond)

    def holds(self, box: Interval) -> Any:
        """Where the stretches cover the box."""
        return (box.lower >= self.reach[0]) & (box.upper <= self.reach[1])


def make_plan(record: "Activation") -> Plan | None:
    """Stretches of a record, which keeps them as ``record._plan``; None where not known."""
    if record._slope_pieces is None or (record.staircase and not record.jumps):
        return None
    return Plan(record)


def _beside_jump(record: "Activation", spot: _Spot) -> list[_Spot]:
    """An enclosure that may hold a jump, cut there: a box up to it does not see what follows."""
    start, stop = spot[:2]
    for k in record.jumps:
        if start <= k <= stop:
            before, after = np.nextafter(k, -np.inf), np.nextafter(k, np.inf)
            parts = [
                (min(start, before), k, min(start, before), before),
                (k, k, k, k),
                (k, max(stop, after), after, max(stop, after)),
            ]
            value = lift(record, 0)
            return [(a, b, value(Interval(a, b)), *meets) for a, b, *meets in parts]
    return [spot]


def _values(record: "Activation", points: Interval, slopes: Interval) -> Interval:
    """Range of ``phi`` on enclosures of points: direct, and by the mean-value form."""
    direct = lift(record, 0)(points)
    if record.jumps or record.poles:
        return direct
    m = points.midpoint
    return direct.intersect(lift(record, 0)(Interval(m)) + slopes * (points - m))


def _tail_spans(
    record: "Activation", side: int, start: float, stop: float
) -> list[tuple[float, float, float]]:
    """A tail with its proved sign and, from the first open cell outwards, NaN."""
    tail = record._tails.sides[side] if record._tails is not None else None
    assert tail is not None
    if tail.open[1] is None:
        return [(start, stop, tail.bend)]
    if side == 0:
        cut = min(tail.open[1][1], stop)
        return [(cut, stop, tail.bend), (start, cut, np.nan)]
    cut = max(tail.open[1][0], start)
    return [(start, cut, tail.bend), (cut, stop, np.nan)]


def signed(x: Interval, sign: float) -> Interval:
    """``sign x``, without a rounding."""
    return x if sign > 0 else -x


def line(value: Interval, slope: Array, x: Any) -> Array:
    """Upper bound of ``value - slope x`` at points.

    Three roundings of at most ``2^-53 (|value| + |slope x|)`` are outdone by a margin of four;
    a product that underflows is made up for apart.
    """
    product = slope * x
    size = np.abs(product)
    margin = (np.abs(value.upper) + size) * 2.0**-51
    result: Array = value.upper - product + margin
    small = size < 1e-290
    if small.any():
        lost = small & (slope != 0.0) & (x != 0.0)
        result = np.where(lost, result + 1e-290, result)
    return result


def by_plan(record: "Activation", plan: Plan, box: Interval, sign: float, slope: Array) -> Array:
    """Upper bound of ``max sign phi(x) - slope x`` over boxes that the stretches cover."""
    at_ends = (at_points(record, 0, x) for x in (box.lower, box.upper))
    first, last = (signed(value, sign) for value in at_ends)
    best = np.maximum(line(first, slope, box.lower), line(last, slope, box.upper))
    for start, stop, value, first_in, last_in in plan.spots:
        inside = (box.lower <= last_in) & (box.upper >= first_in)
        if inside.any():
            here = line(signed(value, sign), slope, start)
            if start < stop:
                here = np.maximum(here, line(signed(value, sign), slope, stop))
            best = np.where(inside, np.maximum(best, here), best)
    for start, stop, bend in plan.spans:
        if not sign * bend >= 0:
            meets = np.broadcast_to((box.lower < stop) & (box.upper > start), best.shape)
            if meets.any():
                wide = np.broadcast_arrays(box.lower, box.upper, slope)
                low, high, c = (array[meets] for array in wide)
                a, b = np.maximum(low, start), np.minimum(high, stop)
                if np.isnan(bend):
                    found = _by_slopes(record, sign, c, a, b, side=int(stop == np.inf))
                else:
                    found = _under_tangent(record, sign, c, a, b)
                best[meets] = np.maximum(best[meets], found)
    return best


def _under_tangent(record: "Activation", sign: float, c: Array, a: Array, b: Array) -> Array:
    """Bound where ``sign phi`` is concave on ``[a, b]``."""
    t = np.clip(_touching(record, sign, c, a, b), a, b)
    T = Interval(t)
    value, tilt = (signed(at_points(record, order, t), sign) for order in (0, 1))
    tilt = tilt - c
    # tilt (x - t) is greatest at an end.
    gain = np.maximum((tilt * (Interval(a) - T)).upper, (tilt * (Interval(b) - T)).upper)
    top = line(value, c, t)
    found = np.where(gain == 0.0, top, np.nextafter(top + gain, np.inf))
    return np.where(np.isnan(found), np.inf, found)


def _by_slopes(record: "Activation", sign: float, c: Array, a: Array, b: Array, side: int) -> Array:
    """Bound in a tail: from either end on, ``sign phi(x) - c x`` gains at the rates of the tail."""
    tail = record._tails.sides[side] if record._tails is not None else None
    assert tail is not None
    rates = signed(tail.bounds[1], sign) - c
    best = np.full(np.shape(a), np.inf)
    for end, other in ((a, b), (b, a)):
        gain = rates * (Interval(other) - Interval(end))
        top = line(signed(at_points(record, 0, end), sign), c, end)
        best = np.fmin(best, np.nextafter(top + np.maximum(gain.upper, 0.0), np.inf))
    return best


def _touching(record: "Activation", sign: float, c: Array, a: Array, b: Array) -> Array:
    """The place near to where ``sign phi' = c``; no proof hangs on it."""
    known = record._outline
    places = known.touching(numpy_namespace, sign * c, -sign, a, b)
    if known.points is None:
        places = [newton(record, numpy_namespace, x, sign * c) for x in places]
    if len(places) == 1:
        return np.asarray(places[0])
    best, top = 0.5 * a + 0.5 * b, np.full(c.shape, -np.inf)
    for x in places:
        gain = sign * np.asarray(record(x)) - c * x
        best, top = np.where(gain > top, x, best), np.where(gain > top, gain, top)
    return best
