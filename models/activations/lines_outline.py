"""What lines need to know of an activation, gathered once: its marks and its arcs.

A *mark* is a point where ``phi`` has a corner or a jump: a line may touch there. An *arc* is a
stretch on which ``phi`` is strictly convex or concave: a line of slope ``a`` touches it at most at
the one point with ``phi' = a``, which :meth:`Arc.touch` finds. Between marks and arcs ``phi`` is
straight, and a line touches at the ends of the box or nowhere. So the extreme of ``phi(x) - a x``
over a box lies at an end of the box, at a mark or at a touching point: a handful of candidates.

The numbers are plain floating point. No proof stands on them: :mod:`.lines_proof` proves offsets
from the enclosures of :mod:`.pieces`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.lines_tangents import Points, closed_form
from tangency.models.activations.pieces import Pieces, core_of
from tangency.models.activations.ranges import has_tails
from tangency.models.activations.registry import is_of_catalogue
from tangency.models.intervals import Array, Interval
from tangency.models.namespace import numpy_namespace

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["Arc", "Outline", "make_outline"]

_NEAR, _FAR = 32.0, 1e18
_EVEN, _RATIOS = 3001, 2000


@dataclass(frozen=True, eq=False)
class Arc:
    """A stretch on which ``phi`` is strictly convex (``bend`` +1) or concave (-1).

    Attributes
    ----------
    bend : float
        Sign of the second derivative.
    start, stop : float
        Ends; infinite for a tail.
    slopes, places : (k,) array
        ``phi'`` at some places of the arc, in increasing order of the slopes.
    """

    bend: float
    start: float
    stop: float
    slopes: Array
    places: Array

    def touch(self, nx: Any, slope: Any) -> Any:
        """Where ``phi' = slope`` on the arc, or its nearer end: an array like ``slope``."""
        if nx is numpy_namespace:
            return np.interp(slope, self.slopes, self.places).astype(slope.dtype, copy=False)
        import jax.numpy as jnp

        most = float(np.finfo(str(slope.dtype)).max)
        table = (np.clip(self.slopes, -most, most), self.places)
        return jnp.interp(slope, *(jnp.asarray(column, slope.dtype) for column in table))


@dataclass(frozen=True, eq=False)
class Outline:
    """Marks and touching points of an activation.

    Attributes
    ----------
    marks : tuple of (place, before, at, after)
        Corners and jumps, with ``phi`` there and its one-sided limits.
    arcs : tuple of Arc
        From left to right; none where ``points`` serves.
    points : callable or None
        Closed form of the touching points, see :mod:`.lines_tangents`.
    period : float or None
        Of ``phi'``: the touching points repeat.
    steps : float or None
        For a staircase with a jump by 1 at every integer plus this.
    bend : float or None
        +1 where ``phi`` is convex on the whole domain, -1 where concave, 0 where it is a line;
        None where it is neither.
    reach : (float, float)
        Range on which all this tells everything.
    """

    marks: tuple[tuple[float, float, float, float], ...] = ()
    arcs: tuple[Arc, ...] = ()
    points: Points | None = None
    period: float | None = None
    steps: float | None = None
    bend: float | None = None
    reach: tuple[float, float] = (0.0, 0.0)

    @property
    def straight(self) -> bool:
        """Whether ``phi`` is made of pieces of lines, so that its computed values are as good."""
        return not self.arcs and self.points is None and self.complete

    @property
    def complete(self) -> bool:
        """Whether nothing is left open on any box of the domain."""
        return self.reach == (-np.inf, np.inf)

    def touching(
        self, nx: Any, slope: Any, bend: float | None, lower: Any, upper: Any
    ) -> list[Any]:
        """Places in the boxes where ``phi' = slope``: at least those on arcs of a bend, or all."""
        if self.points is None:
            places = [arc.touch(nx, slope) for arc in self.arcs if bend in (None, arc.bend)]
        else:
            places = list(self.points(nx, slope))
        if self.period is not None:
            T, found = self.period, []
            for x in places:  # the first and the last in the box: between them the gain is linear
                found.append(x + T * nx.ceil((lower - x) / T))
                found.append(x + T * nx.floor((upper - x) / T))
            places = found
        return [nx.minimum(nx.maximum(x, lower), upper) for x in places]


_WAVES: dict[str, Callable[..., float]] = {
    "sin": lambda: 2.0 * np.pi,
    "cos": lambda: 2.0 * np.pi,
    "tan": lambda: 1.0 * np.pi,
    "sine": lambda omega: 2.0 * np.pi / omega,
    "snake": lambda a: np.pi / a,
}
_STEPS = {"floor": 0.0, "ceil": 0.0, "round": 0.5}


def make_outline(record: "Activation") -> Outline:
    """Outline of a record; it keeps it as ``record._outline``."""
    everywhere = (-np.inf, np.inf)
    if record.staircase and not record.jumps:
        own = record.name in _STEPS and is_of_catalogue(record)
        steps = _STEPS[record.name] if own else None
        return Outline(steps=steps, reach=everywhere if own else (0.0, 0.0))
    points, period = closed_form(record), slope_period(record)
    if points is not None and period is not None:
        return Outline(points=points, period=period, reach=everywhere)
    pieces = record._slope_pieces
    if pieces is None:
        return Outline()
    tails = has_tails(record) and pieces.core == core_of(record)
    middles = pieces.points.midpoint
    corners = [_is_corner(record, pieces, i) for i in range(middles.size)]
    return Outline(
        marks=tuple(_mark(record, float(middles[i])) for i in np.flatnonzero(corners)),
        arcs=() if points else _arcs(record, pieces, corners, tails),
        points=points,
        bend=_bend(record, pieces, corners, tails),
        reach=record._tails.reach if tails and record._tails is not None else pieces.core,
    )


def slope_period(record: "Activation") -> float | None:
    """Period of ``phi'`` for the catalogue's waves; a user's record is not taken at its word."""
    if record.name not in _WAVES or not is_of_catalogue(record):
        return None
    return abs(_WAVES[record.name](**dict(record.params)))


def _sides(record: "Activation", place: float, order: int) -> tuple[float, float]:
    """``phi`` or ``phi'`` just before and just after a point."""
    function = record if order == 0 else record.slope
    step = 2.0**-30 if order else 2.0**-50
    near = step * max(abs(place), 2.0**-20 if order else 1e-300)
    return float(function(place - near)), float(function(place + near))


def _is_corner(record: "Activation", pieces: Pieces, i: int) -> bool:
    place = float(pieces.points.midpoint[i])
    if place in record.poles:
        return False
    if place in record.kinks or place in record.jumps:
        return True
    before, after = _sides(record, place, 1)
    return not abs(before - after) <= 1e-6 * (1.0 + abs(before) + abs(after))


def _mark(record: "Activation", place: float) -> tuple[float, float, float, float]:
    value = float(record(place))
    before, after = _sides(record, place, 0) if record.jumps else (value, value)
    return place, before, value, after


def _arcs(
    record: "Activation", pieces: Pieces, corners: list[bool], tails: bool
) -> tuple[Arc, ...]:
    P, ends = pieces.points, record.domain
    # What is open next to an end of the domain, where the slope has no bound, is that end.
    middles = [
        next((end for end in ends if a <= end <= b), m)
        for a, b, m in zip(P.lower.tolist(), P.upper.tolist(), P.midpoint.tolist(), strict=True)
    ]
    low, high = record.domain if tails else pieces.core
    edges = [low, *middles, high]
    spans: list[list[float]] = []
    for k, bend in enumerate(pieces.signs.tolist()):
        joins = spans and spans[-1][1] == edges[k] and spans[-1][2] == bend
        if joins and not corners[k - 1] and edges[k] not in record.poles:
            spans[-1][1] = edges[k + 1]
        elif bend:
            spans.append([edges[k], edges[k + 1], bend])
    made = (_arc(record, *span) for span in spans)
    return tuple(arc for arc in made if arc is not None)


def _arc(record: "Activation", start: float, stop: float, bend: float) -> Arc | None:
    # Evenly near zero, by ratios far out: a touching point is wanted to a relative precision.
    a, b = max(start, -_FAR), min(stop, _FAR)
    even = np.linspace(max(a, -_NEAR), min(b, _NEAR), _EVEN)
    ratios = np.geomspace(_NEAR, _FAR, _RATIOS)
    places = np.concatenate([-ratios, even, ratios])
    for end in (start, stop):  # by ratios towards an end, too; closely where phi' has no bound
        if np.isfinite(end):
            steep = end in (*record.domain, *record.poles)
            near = np.geomspace(2.0**-60, 1.0, _RATIOS if steep else 60)
            places = np.concatenate([places, end + near if end == start else end - near])
    places = np.unique(places[(places > start) & (places < stop)])
    slopes = np.asarray(record.slope(places), dtype=np.float64)
    keep = np.isfinite(slopes)
    places, slopes = places[keep], slopes[keep]
    if bend < 0:
        places, slopes = places[::-1], slopes[::-1]
    if not slopes.size:
        return None
    # Rounding leaves ties, or worse, where the slope hardly changes: there any place will do.
    rising = slopes > np.concatenate([[-np.inf], np.maximum.accumulate(slopes)[:-1]])
    return Arc(bend, start, stop, slopes[rising], places[rising])


def _bend(record: "Activation", pieces: Pieces, corners: list[bool], tails: bool) -> float | None:
    """Sign of the bend of the whole function, if it has one."""
    if not tails or record.jumps or record.poles or record.limits is None:
        return None
    bends = set(pieces.signs.tolist())
    for i in np.flatnonzero(corners):
        before, after = _sides(record, float(pieces.points.midpoint[i]), 1)
        bends.add(float(np.sign(after - before)))
    for side in (0, 1):  # from the slope at the end of the core to its limit
        end = pieces.core[side]
        if end != record.domain[side]:
            far, near = Interval.of(record.limits[side][1]), float(record.slope(end))
            change = float(far.midpoint) - near if np.isfinite(far.magnitude) else float(far.lower)
            if abs(change) > 1e-9 * (1.0 + abs(near)):
                bends.add(float(np.sign(change)) * (1.0 if side else -1.0))
    bends.discard(0.0)
    if len(bends) > 1:
        return None
    return bends.pop() if bends else 0.0
