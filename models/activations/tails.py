"""What a record claims of its tails, checked against its formula before it is used.

A record with ``limits`` claims that beyond its core ``phi`` and ``phi'`` run monotonically from
their values at the core's end to the limits. Here the tail is cut into cells, octave by octave out
to the largest float, and ``phi``, ``phi'`` and ``phi''`` are enclosed on each:

- an enclosure that leaves no room for the claim contradicts it, and so do strict slopes or
  curvatures of both signs: an InputError that names the cell;
- where ``phi''`` has one sign, ``phi'`` is monotone, and where ``phi'`` has one, ``phi`` is;
- any other cell is *open*. There nothing is taken from the claim: the enclosure itself counts in
  every range that meets the open cells. Far out on a flat tail that is rounding (1e-15);
- where the enclosure of an open cell exceeds the claim by more than a thousandth, the claim could
  not be checked. It is then used nowhere: boxes are searched, and what needs the whole line (the
  global slope range) is refused.

So every result for a box of floats is proved from enclosures, but for one thing: where they show
that ``phi`` or ``phi'`` of a record of this package runs to within 1e-12 of its limit, it is taken
not to run beyond (a limit of a user's may be off by so much). For the
global slope range (and at infinite ends of boxes) ``limits`` is taken at its word beyond the
largest float, or beyond 2^500 where the arithmetic itself gives out (``x^2 e^(-x^2)``); boxes that
reach there are searched.

Neighbouring cells overlap by a float on either side, so that a kink on their border lies inside of
one and opens it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.pieces import core_of, lift
from tangency.models.errors import InputError
from tangency.models.intervals import Array, Interval

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation, Limit

__all__ = ["Spot", "Tail", "Tails", "check_tails", "exact", "limit_of"]

Spot = tuple[float, float, float, float]
"""Start, stop, and the range on the stretch between."""

_MAX = float(np.finfo(np.float64).max)
_ROUNDS, _SPLIT, _MOST_CELLS = 4, 8, 12_000
_FINE, _LOOSE = 1e-10, 1e-3  # cut an open cell that exceeds the claim by more; give it up
_HUGE = 2.0**500
_ROUNDING = 1e-12
_WHAT = ("values", "slopes")


@dataclass(frozen=True, eq=False)
class Tail:
    """One side beyond the core.

    Attributes
    ----------
    bounds : (Interval, Interval)
        Enclosures of ``phi`` and ``phi'`` on the whole tail.
    open : (Spot or None, Spot or None)
        For ``phi`` and for ``phi'`` the stretch that holds all open cells, with the range on them.
    bend : float
        Proved sign of ``phi''`` (0: straight) on the cells that are not open.
    doubt : str
        Why the claim could not be checked; empty if it was.
    reach : float
        Where the formula begins to overflow: the claim is checked up to there.
    """

    bounds: tuple[Interval, Interval]
    open: tuple[Spot | None, Spot | None]
    bend: float
    doubt: str
    reach: float


@dataclass(frozen=True, eq=False)
class Tails:
    """Both sides; None where the core reaches the end of the domain."""

    sides: tuple[Tail | None, Tail | None]

    @property
    def doubt(self) -> str:
        """Why the claim could not be checked; empty if it was."""
        return next((side.doubt for side in self.sides if side is not None and side.doubt), "")

    @property
    def reach(self) -> tuple[float, float]:
        """Range on which the claim was checked: everything, if no formula overflows."""
        low, high = (np.inf if side is None else side.reach for side in self.sides)
        return -low, high

    def spots(self, order: int) -> list[Spot]:
        """Stretches of open cells with the range of ``phi`` or ``phi'`` there."""
        found = [side.open[order] for side in self.sides if side is not None]
        return [spot for spot in found if spot is not None]


def exact(record: "Activation") -> "Activation":
    """Mark the tails of a record as proved otherwise (exact algebra on its coefficients).

    Contradictions are looked for all the same. A copy of the record with other fields loses the
    mark.
    """
    record.__dict__["_exact_tails"] = True
    return record


def limit_of(limit: "Limit") -> Interval:
    """A limit as an interval; ``[inf, inf]``, which an Interval would not keep, stays."""
    return limit if isinstance(limit, Interval) else _interval(limit, limit)


def _interval(low: float, high: float) -> Interval:
    made = Interval.__new__(Interval)
    made.lower, made.upper = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return made


def check_tails(record: "Activation") -> Tails | None:
    """Check both tails of a record, which keeps them as ``record._tails``; None without limits.

    Raises
    ------
    InputError
        If the formula contradicts the claim.
    """
    if record.limits is None or (record.staircase and not record.jumps):
        return None
    with np.errstate(all="ignore"):
        sides = [_Side(record, side).check() for side in (0, 1)]
    return Tails((sides[0], sides[1]))


class _Side:
    def __init__(self, record: "Activation", side: int) -> None:
        assert record.limits is not None
        self.record, self.side = record, side
        self.end, self.last = core_of(record)[side], record.domain[side]
        self.limits = tuple(limit_of(limit) for limit in record.limits[side])
        near = self._inflated(np.array(self.end), np.array(self.end))
        self.start = tuple(lift(record, order)(near) for order in (0, 1))
        self.far: list[Interval | None] = [None, None]  # what exceeds the claim at its far end
        self.claims = tuple(self._claim(order) for order in (0, 1))

    def _claim(self, order: int) -> tuple[float, float]:
        limit, start = self.limits[order], self.start[order]
        if self.record.oscillates:
            return float(limit.lower), float(limit.upper)
        return float(min(limit.lower, start.lower)), float(max(limit.upper, start.upper))

    def _inflated(self, low: Array, high: Array) -> Interval:
        # Not across the largest float: what is unbounded is enclosed apart.
        a, b = (max(min(end, _MAX), -_MAX) for end in self.record.domain)
        wide = (np.nextafter(low, -np.inf), np.nextafter(high, np.inf))
        return Interval(np.where(low <= a, low, wide[0]), np.where(high >= b, high, wide[1]))

    def check(self) -> Tail | None:
        last = max(min(self.last, _MAX), -_MAX)
        beyond = Interval(*sorted((last, self.last))) if last != self.last else None
        if beyond is None:  # a finite end of the domain
            inner = float(np.nextafter(self.last, self.end if self.end != self.last else 0.0))
            beyond = Interval(*sorted((inner, self.last)))
        for order in (0, 1):
            self._meets_the_limit(order, lift(self.record, order)(beyond), beyond)
        if self.end == self.last:
            return None
        X, F = self._enclose(last)
        if not self.record.oscillates:
            for order in (0, 1):
                self._one_direction(order, X, F[order + 1])
        is_open = [self._open(F[order + 1]) for order in (0, 1)]
        if self.record.__dict__.get("_exact_tails"):
            claimed = (self._bounds(0, None), self._bounds(1, None))
            return Tail(claimed, (None, None), self._turn(), "", np.inf)
        reach = np.inf
        if not self.record.oscillates:
            lost, reach = self._overflow(X, F, is_open)
            is_open = [cells & ~lost for cells in is_open]
            reach = self._end_of_runs(reach, last)
        spots: list[Spot | None] = [None, None]
        spots[1] = self._spot(X, F[1], is_open[1])
        slopes = self._bounds(1, spots[1])
        if slopes.lower < 0.0 < slopes.upper or self.record.oscillates:
            spots[0] = self._spot(X, F[0], is_open[0])
        # Where the enclosure is [0, tiny] the sign is not strict, and the tail not straight.
        up, down = (bool(found[~is_open[1]].any()) for found in (F[2].upper > 0, F[2].lower < 0))
        bend = np.nan if up and down else float(up) - float(down)
        doubts = [self._doubt(order, X, F[order], spots[order], is_open[order]) for order in (1, 0)]
        return Tail(
            (self._bounds(0, spots[0]), slopes),
            (spots[0], spots[1]),
            bend,
            doubts[0] or doubts[1],
            reach,
        )

    def _overflow(self, X: Interval, F: list[Interval], is_open: list[Any]) -> tuple[Any, float]:
        """Open cells beyond 2^500 where the claim is exceeded even by enclosures at points."""
        near, far = (pick(np.abs(X.lower), np.abs(X.upper)) for pick in (np.minimum, np.maximum))
        at = np.copysign(far, X.lower + X.upper)
        lost = np.zeros(far.shape, dtype=bool)
        for order in (0, 1):
            size = _LOOSE * self._scale(order)
            broken = (self._excess(order, F[order]) > size) & (near >= _HUGE)
            if broken.any():
                point = lift(self.record, order)(Interval(at[broken]))
                broken[broken] = self._excess(order, point) > size
            lost |= is_open[order] & broken
        return lost, float(near[lost].min(initial=np.inf))

    def _end_of_runs(self, reach: float, last: float) -> float:
        """Enclose ``phi`` and ``phi'`` where the last monotone stretch ends, and say how far it is.

        There they are no farther than the limit, up to rounding; if they seem to be, the stretch
        ends at 2^500, where ``1 + x`` does not overflow, or they count as they are.
        """
        for size in (min(reach, abs(last)), min(reach, abs(last), _HUGE)):
            point = Interval(np.asarray(np.copysign(size, last)))
            found = [lift(self.record, order)(point) for order in (0, 1)]
            excess = [self._excess(k, found[k]) / self._scale(k) for k in (0, 1)]
            slack = _ROUNDING if self.record._is_ours else 0.0
            self.far = [F if e > slack else None for F, e in zip(found, excess, strict=True)]
            if self.far == [None, None]:
                break
        return reach if size >= abs(last) else float(size)

    def _turn(self) -> float:
        """Sign of ``phi''`` from the slope at the core's end to its limit; NaN where they meet."""
        start, limit = self.start[1], self.limits[1]
        if start.lower == start.upper == limit.lower == limit.upper:
            return 0.0
        if start.lower <= limit.upper and limit.lower <= start.upper:
            return np.nan
        return 1.0 if bool(limit.lower > start.upper) == (self.side == 1) else -1.0

    def _open(self, D: Interval) -> Any:
        if self.record.oscillates:
            return np.ones(D.lower.shape, dtype=bool)
        return ~((D.lower >= 0) | (D.upper <= 0))

    def _enclose(self, last: float) -> tuple[Interval, list[Interval]]:
        """Cells from the core's end to ``last``, cut where they are open and loose."""
        low, high = _octaves(*sorted((self.end, last)))
        if self.record.oscillates and last != self.last:  # nothing is monotone in the rest
            low, high = np.append(low, min(last, self.last)), np.append(high, max(last, self.last))
        done: list[tuple[Array, ...]] = []
        for step in range(_ROUNDS):
            X = self._inflated(low, high)
            F = [lift(self.record, order)(X) for order in range(3)]
            loose = np.zeros(low.shape, dtype=bool)
            for order in (0, 1):
                self._inside(order, X, F[order])
                size = _FINE * self._scale(order)
                wide = self._excess(order, F[order]) > size
                if order == 1:  # the sign of phi'' is wanted for its own sake
                    wide |= F[1].upper - F[1].lower > size
                loose |= self._open(F[order + 1]) & wide
            final = step == _ROUNDS - 1 or loose.sum() * _SPLIT > _MOST_CELLS
            stop = np.ones(low.shape, dtype=bool) if final else ~loose
            ends = [(E.lower[stop], E.upper[stop]) for E in (X, *F)]
            done.append(tuple(array for pair in ends for array in pair))
            if stop.all():
                break
            t = np.linspace(0.0, 1.0, _SPLIT + 1)
            grid = low[~stop, None] * (1.0 - t) + high[~stop, None] * t
            grid[:, 0], grid[:, -1] = low[~stop], high[~stop]
            grid.sort(axis=1)  # of a cell a few floats wide, rounding may swap two points
            low, high = grid[:, :-1].ravel(), grid[:, 1:].ravel()
        columns = [np.concatenate(column) for column in zip(*done, strict=True)]
        X, *F = (Interval._make(columns[i], columns[i + 1]) for i in (0, 2, 4, 6))
        return X, F

    def _scale(self, order: int) -> float:
        return 1.0 + max((abs(c) for c in self.claims[order] if np.isfinite(c)), default=0.0)

    def _excess(self, order: int, F: Interval) -> Array:
        """By how much an enclosure leaves what is claimed."""
        low, high = self.claims[order]
        above = np.where(F.upper > high, F.upper - high, 0.0)
        below = np.where(F.lower < low, low - F.lower, 0.0)
        return np.maximum(above, below)

    def _bounds(self, order: int, spot: Spot | None) -> Interval:
        low, high = self.claims[order]
        if self.record.oscillates:
            assert spot is not None
            low, high = spot[2:]
            return _interval(low, high)
        far = self.far[order]
        if far is not None:
            low, high = min(low, float(far.lower)), max(high, float(far.upper))
        if spot is not None:
            low, high = min(low, spot[2]), max(high, spot[3])
        return _interval(low, high)

    @staticmethod
    def _spot(X: Interval, F: Interval, is_open: Any) -> Spot | None:
        if not is_open.any():
            return None
        start, low = (float(E.lower[is_open].min()) for E in (X, F))
        stop, high = (float(E.upper[is_open].max()) for E in (X, F))
        return start, stop, low, high

    def _doubt(self, order: int, X: Interval, F: Interval, spot: Spot | None, is_open: Any) -> str:
        if spot is None:
            return ""
        excess = np.where(is_open, self._excess(order, F), 0.0)
        i = int(np.argmax(excess))
        if excess[i] <= _LOOSE * self._scale(order):
            return ""
        return (
            f"the claim of {self.record} that beyond its core its {_WHAT[order]} stay in "
            f"{_text(*self.claims[order])} could not be checked on {_cell(X, i)}, where interval "
            f"arithmetic gives {_text(F.lower[i], F.upper[i])}: write the formula so "
            "that nothing overflows or cancels there, or bound the domain"
        )

    # -- contradictions ------------------------------------------------------------------------

    def _inside(self, order: int, X: Interval, F: Interval) -> None:
        low, high = self.claims[order]
        bad = (F.lower > high) | (F.upper < low)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            self._contradiction(
                f"its {_WHAT[order]} stay in {_text(low, high)}",
                f"on {_cell(X, i)} they lie in {_text(F.lower[i], F.upper[i])}",
            )

    def _one_direction(self, order: int, X: Interval, D: Interval) -> None:
        """Whether the derivative has only the sign that leads from the start to the limit."""
        limit, start = self.limits[order], self.start[order]
        sign = 1.0 if self.side else -1.0
        outward = limit.upper > start.lower, limit.lower < start.upper  # may it rise, may it fall?
        rises, falls = (D.lower > 0, D.upper < 0) if sign > 0 else (D.upper < 0, D.lower > 0)
        kind = ("rise", "fall")
        for allowed, found, word in zip(outward, (rises, falls), kind, strict=True):
            if found.any() and not allowed:
                i = int(np.flatnonzero(found)[0])
                self._contradiction(
                    f"its {_WHAT[order]} run from {_text(start.lower, start.upper)} at the core's "
                    f"end to {_text(limit.lower, limit.upper)}",
                    f"going outwards they {word} on {_cell(X, i)}",
                )
        if rises.any() and falls.any():
            i, j = int(np.flatnonzero(rises)[0]), int(np.flatnonzero(falls)[0])
            self._contradiction(
                f"its {_WHAT[order]} are monotone",
                f"going outwards they rise on {_cell(X, i)} and fall on {_cell(X, j)}",
            )

    def _meets_the_limit(self, order: int, F: Interval, X: Interval) -> None:
        limit = self.limits[order]
        if F.lower > limit.upper or F.upper < limit.lower:
            self._contradiction(
                f"its {_WHAT[order]} tend to {_text(limit.lower, limit.upper)} at {self.last:g}",
                f"on {_text(X.lower, X.upper)} they lie in {_text(F.lower, F.upper)}",
            )

    def _contradiction(self, claim: str, fact: str) -> None:
        where = "above" if self.side else "below"
        raise InputError(
            f"the record {self.record} contradicts its formula: it claims (by limits and core) "
            f"that {where} {self.end:g} {claim}, but {fact}; mend its limits or its core"
        )


def _octaves(a: float, b: float) -> tuple[Array, Array]:
    powers = 2.0 ** np.arange(-1074.0, 1024.0)
    marks = np.concatenate([-powers, [0.0], powers])
    inner = marks[(marks > a) & (marks < b)]
    if inner.size < _SPLIT:
        t = np.linspace(0.0, 1.0, _SPLIT + 1)[1:-1]
        inner = np.concatenate([inner, a * (1.0 - t) + b * t])
    edges = np.unique(np.concatenate([[a], inner, [b]]))
    return edges[:-1], edges[1:]


def _text(low: Any, high: Any) -> str:
    low, high = float(low), float(high)
    return f"{low:.6g}" if low == high else f"[{low:.6g}, {high:.6g}]"


def _cell(X: Interval, i: int) -> str:
    return f"[{X.lower[i]:.6g}, {X.upper[i]:.6g}]"
