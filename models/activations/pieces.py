"""Monotone pieces: where a function surely rises or falls, proved by interval branch and bound.

``phi'`` is enclosed on a cell ``[a, b]``. If the enclosure has one sign, ``phi`` is monotone there
and the cell is done; otherwise it is cut. What is left is a handful of cells about 1e-13 wide
around the zeros of ``phi'``; they are never argued away but kept as *enclosures of critical
points*: the range of ``phi`` on them is part of every range that touches them. The same with
``phi''`` and ``phi'`` gives the pieces on which the slope is monotone, that is ``phi`` convex or
concave. Nothing is sampled and no root finder is trusted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tangency.models.intervals import Array, Interval

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = [
    "Pieces",
    "core_of",
    "isolate",
    "lift",
    "narrow",
    "slope_pieces",
    "value_pieces",
]

Lifted = Callable[[Interval], Interval]

_CELLS = 256
_SPLIT = 8
_MOST_CELLS = 20_000
_MOST_POINTS = 200
_NEAR = 6.0


@dataclass(frozen=True, eq=False)
class Pieces:
    """Critical points on the core, and what happens between them.

    Attributes
    ----------
    points : Interval (n,)
        Disjoint, sorted enclosures; outside of them the derivative has one sign per gap.
    values : Interval (n,)
        Range of the function on each enclosure.
    signs : (n + 1,) array
        Sign of the derivative in the gaps, from left to right (0: constant).
    core : (float, float)
        The proved range.
    """

    points: Interval
    values: Interval
    signs: Array
    core: tuple[float, float]


def core_of(record: "Activation") -> tuple[float, float]:
    """Core of the record (or where to look first), cut to its domain."""
    low, high = record.core or (-30.0, 30.0)
    a, b = record.domain
    if not (low < b and high > a):  # nothing of it lies in the domain
        low, high = (a, a + 60.0) if np.isfinite(a) else (b - 60.0, b)
    return max(low, a), min(high, b)


def isolate(
    derivative: Lifted, core: tuple[float, float], special: tuple[float, ...] = ()
) -> tuple[Interval, Array] | None:
    """Enclose the sign changes of ``derivative`` on the core.

    Parameters
    ----------
    derivative : callable
        Interval extension.
    core : (float, float)
        Bounded range.
    special : tuple of float
        Points kept in any case, as enclosures one float wide on each side (kinks).

    Returns
    -------
    (points, signs) or None
        As in :class:`Pieces`; None if the zeros are too many or not isolated.
    """
    marks = [k for k in special if core[0] <= k <= core[1]]
    inner = np.array([np.nextafter(k, side) for k in marks for side in (-np.inf, np.inf)])
    edges = np.unique(np.clip(np.concatenate([np.linspace(*core, _CELLS + 1), inner]), *core))
    low, high = edges[:-1], edges[1:]
    kept = np.zeros(low.shape, dtype=bool)
    for k in marks:
        kept |= (low <= k) & (high >= k) & (high - low <= 4 * np.spacing(abs(k)))
    done_low, done_high, done_sign = [low[kept]], [high[kept]], [np.full(kept.sum(), np.nan)]
    low, high = low[~kept], high[~kept]
    scale: float | None = None
    while low.size:
        if low.size > _MOST_CELLS:
            return None
        F = derivative(Interval(low, high))
        up, down = F.lower >= 0, F.upper <= 0
        settled = up | down
        sign = np.where(up & down, 0.0, np.where(up, 1.0, -1.0))
        if scale is None:
            size = F.magnitude[np.isfinite(F.magnitude)]
            scale = float(size.max(initial=0.0))
        # What rounding alone keeps undecided (far out on a flat tail) does not move the function.
        with np.errstate(over="ignore"):
            flat = (F.magnitude <= 2.0**-46 * scale) & (F.magnitude * (high - low) <= 2.0**-50)
        flat &= high - low <= 2.0**-8 * np.maximum(1.0, np.abs(low))
        small = flat | (
            high - low <= 2.0**-44 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
        )
        stop = settled | small
        done_low.append(low[stop])
        done_high.append(high[stop])
        done_sign.append(np.where(settled, sign, np.nan)[stop])
        low, high = low[~stop], high[~stop]
        t = np.linspace(0.0, 1.0, _SPLIT + 1)
        grid = low[:, None] + (high - low)[:, None] * t
        grid[:, -1] = high
        low, high = grid[:, :-1].ravel(), grid[:, 1:].ravel()
    a, b, s = (np.concatenate(part) for part in (done_low, done_high, done_sign))
    order = np.argsort(a)
    return _merge(a[order], b[order], s[order])


def _merge(low: Array, high: Array, sign: Array) -> tuple[Interval, Array] | None:
    """Join neighbouring cells: NaN marks a critical cell, a change of sign a critical point."""
    points: list[list[float]] = []
    signs = [0.0]
    for a, b, s in zip(low.tolist(), high.tolist(), sign.tolist(), strict=True):
        if s != s:
            if points and points[-1][1] == a:
                points[-1][1] = b
            else:
                points.append([a, b])
                signs.append(0.0)
        elif s and signs[-1] == -s:
            points.append([a, a])
            signs.append(s)
        elif s:
            signs[-1] = s
    if len(points) > _MOST_POINTS:
        return None
    ends = np.array(points).reshape(-1, 2)
    return Interval(ends[:, 0], ends[:, 1]), np.array(signs)


def narrow(function: Lifted, derivative: Lifted, X: Interval) -> Interval:
    """Range on narrow intervals: direct, cut by the mean-value form ``f(m) + f'(X)(X - m)``."""
    direct = function(X)
    m = X.midpoint
    mean = function(Interval(m)) + derivative(X) * (X - m)
    return direct.intersect(mean)


def lift(record: "Activation", order: int) -> Lifted:
    """Interval extension of ``phi``, ``phi'`` or ``phi''``."""
    return lambda X: record.enclosure(order, X)


def _inflate(record: "Activation", points: Interval) -> Interval:
    """Widen by one float to each side: computed places of corners then lie inside, as a rule."""
    low, high = np.nextafter(points.lower, -np.inf), np.nextafter(points.upper, np.inf)
    return Interval(np.maximum(low, record.domain[0]), np.minimum(high, record.domain[1]))


def _isolate(
    record: "Activation", order: int
) -> tuple[tuple[Interval, Array] | None, tuple[float, float]]:
    """Isolate on the core or, where that is too hard (far tails of a quotient), near 0."""
    core = core_of(record)
    special = (*record.kinks, *record.jumps, *record.poles)
    found = isolate(lift(record, order), core, special)
    if found is None and core[0] < 0.0 < core[1]:
        core = (max(core[0], -_NEAR), min(core[1], _NEAR))
        found = isolate(lift(record, order), core, special)
    return found, core


def _pieces(record: "Activation", order: int) -> Pieces | None:
    """Monotone pieces of ``phi`` or ``phi'``."""
    found, core = _isolate(record, order + 1)
    if found is None:
        return None
    points, signs = _inflate(record, found[0]), found[1]
    values = narrow(lift(record, order), lift(record, order + 1), points)
    return Pieces(points, values, signs, core)


def value_pieces(record: "Activation") -> Pieces | None:
    """Monotone pieces of ``phi``."""
    return _pieces(record, 0)


def slope_pieces(record: "Activation") -> Pieces | None:
    """Monotone pieces of ``phi'``, that is convex and concave pieces of ``phi``."""
    return _pieces(record, 1)
