r"""Planes that enclose a nonlinear op over a box, for every nonlinear op of a lowered network.

On the box of its inputs :math:`x_1, ..., x_q` an element-wise op f satisfies

.. math:: \sum_k \alpha_k x_k + \beta \le f(x) \le \sum_k \alpha'_k x_k + \beta'.

The slopes may be any floats; the offsets are proved. For products and for choices between two
branches the difference of f and the plane takes its extremes at corners of the box, where interval
arithmetic evaluates it; the parametric ReLU has its kink besides; functions of one variable are
proved by :mod:`tangency.models.activations.lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from tangency.models.activations.lines import default_slopes, proved_intercepts
from tangency.models.intervals import Interval
from tangency.models.namespace import numpy_namespace
from tangency.models.ops import Activate, Prelu, Product, Select

__all__ = ["Planes", "planes_of"]

Array = Any


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes below and above the op, one pair for each entry.

    Attributes
    ----------
    below, above : tuple of arrays
        Slopes for each input, broadcastable to ``(N, S or 1, *shape)``.
    low, high : arrays
        Proved offsets, ``(N, S or 1, *shape)``.
    """

    below: tuple[Array, ...]
    above: tuple[Array, ...]
    low: Array
    high: Array


def planes_of(
    op: Any, params: Any, boxes: Sequence[Interval], slopes: tuple[Array, ...] | None = None
) -> Planes:
    """Relax an element-wise op over boxes ``(N or 1, *shape)`` of its inputs.

    ``slopes``, where given, are those below for each input, then those above.
    """
    wide = [Interval(x.lower[:, None], x.upper[:, None]) for x in boxes]  # room for the axis S
    with np.errstate(all="ignore"):
        if isinstance(op, Activate):
            return _activation(op, wide[0], slopes)
        if isinstance(op, Prelu):
            slope = op.slopes(params["slope"], wide[0].lower.ndim - 2)[:, None]
            return _prelu(slope, wide[0], slopes)
        wide = _same_rank(wide)
        if isinstance(op, Product):
            return _product(wide[0], wide[1], slopes)
        assert isinstance(op, Select)
        return _select(op, wide, slopes)


def _same_rank(boxes: Sequence[Interval]) -> list[Interval]:
    rank = max(x.lower.ndim for x in boxes)

    def lifted(end: Array) -> Array:
        return end.reshape((*end.shape[:2], *(1,) * (rank - end.ndim), *end.shape[2:]))

    return [Interval(lifted(x.lower), lifted(x.upper)) for x in boxes]


# --- one variable -----------------------------------------------------------------------------


def _activation(op: Activate, x: Interval, slopes: tuple[Array, ...] | None) -> Planes:
    record = op.activation
    low, high = x.lower, x.upper
    bounded = np.isfinite(low) & np.isfinite(high)
    if bounded.all():
        a, b = slopes or default_slopes(record, numpy_namespace, low, high)
        a, b = _finite(a), _finite(b)
        return Planes((a,), (b,), *proved_intercepts(record, low, high, a, b))
    # Nothing straight encloses a curve on an unbounded box but its range.
    whole = record.range_on(low, high)
    shape = low.shape
    a, b = np.zeros(shape), np.zeros(shape)
    below, above = np.array(whole.lower), np.array(whole.upper)
    if bounded.any():
        l, u = low[bounded], high[bounded]  # noqa: E741
        a[bounded], b[bounded] = default_slopes(record, numpy_namespace, l, u)
        below[bounded], above[bounded] = proved_intercepts(record, l, u, a[bounded], b[bounded])
    return Planes((a,), (b,), below, above)


def _finite(slope: Array) -> Array:
    return np.where(np.isfinite(slope), slope, 0.0)


def _prelu(s: Array, x: Interval, slopes: tuple[Array, ...] | None) -> Planes:
    """``max(x, 0) + s min(x, 0)``: the chord, and a line through the kink."""
    low, high = x.lower, x.upper
    if slopes is None:
        at_low, at_high = np.where(low < 0, s * low, low), np.where(high < 0, s * high, high)
        side = np.where(high > -low, 1.0, s)
        width = high - low
        chord = np.where(width > 0, (at_high - at_low) / np.where(width > 0, width, 1.0), side)
        one_sided = (low >= 0) | (high <= 0)
        chord = np.where(one_sided, np.where(low >= 0, 1.0, s), chord)
        side = np.where(one_sided, chord, side)
        convex = s <= 1
        slopes = (np.where(convex, side, chord), np.where(convex, chord, side))
    a, b = (_finite(v) for v in slopes)
    low, high = np.where(np.isinf(low), 0.0, low), np.where(np.isinf(high), 0.0, high)
    known = (low == x.lower) & (high == x.upper)
    ends = [(p, np.where(p < 0, s, 1.0)) for p in (low, high)]
    zero = (x.lower < 0) & (x.upper > 0)
    below = np.minimum(*((Interval(p) * t - Interval(p) * a).lower for p, t in ends))
    above = np.maximum(*((Interval(p) * t - Interval(p) * b).upper for p, t in ends))
    below = np.where(zero, np.minimum(below, 0.0), below)
    above = np.where(zero, np.maximum(above, 0.0), above)
    return Planes((a,), (b,), np.where(known, below, -np.inf), np.where(known, above, np.inf))


# --- several variables ------------------------------------------------------------------------


def _corners(
    boxes: Sequence[Interval],
    value: Callable[..., Interval],
    slopes: Sequence[Array],
    *,
    above: bool,
) -> Array:
    """Extreme of ``value - plane`` over the corners of the boxes."""
    best: Array | None = None
    for ends in product((0, 1), repeat=len(boxes)):
        at = [Interval(x.upper if e else x.lower) for x, e in zip(boxes, ends, strict=True)]
        gap = value(*at)
        for x, slope in zip(at, slopes, strict=True):
            gap = gap - x * slope
        end = gap.upper if above else gap.lower
        pick = np.maximum if above else np.minimum
        best = end if best is None else pick(best, end)
    return best


def _product(x: Interval, y: Interval, slopes: tuple[Array, ...] | None) -> Planes:
    """``x y``: of McCormick's two planes on each side the flatter one over the box.

    Both meet at the centre of the box, so that the flatter one has the better extreme there; where
    they are alike it is their average. For every pair of slopes the gap is bilinear: its extremes
    lie at corners.
    """
    if slopes is None:
        (xl, xu), (yl, yu) = (x.lower, x.upper), (y.lower, y.upper)
        below = _flatter(x, y, (yl, xl), (yu, xu))
        slopes = (*below, *_flatter(x, y, (yu, xl), (yl, xu)))
    slopes = tuple(_finite(s) for s in slopes)

    def value(p: Interval, q: Interval) -> Interval:
        return p * q

    return Planes(
        slopes[:2],
        slopes[2:],
        _corners((x, y), value, slopes[:2], above=False),
        _corners((x, y), value, slopes[2:], above=True),
    )


def _flatter(
    x: Interval, y: Interval, first: tuple[Array, Array], second: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Of two pairs of slopes the one that varies less over the box, or the mean of equals."""
    wide, tall = x.upper - x.lower, y.upper - y.lower
    one, two = (np.abs(a) * wide + np.abs(b) * tall for a, b in (first, second))
    share = np.where(one < 0.999 * two, 1.0, np.where(two < 0.999 * one, 0.0, 0.5))
    a, b = (share * p + (1.0 - share) * q for p, q in zip(first, second, strict=True))
    return a, b


def _select(op: Select, boxes: Sequence[Interval], slopes: tuple[Array, ...] | None) -> Planes:
    """The branch taken where that is decided, else planes of both branches' min and max.

    ``min(a, b)`` is concave and ``max(a, b)`` convex: the gap to a plane that encloses them has its
    extreme at a corner.
    """
    x, y, a, b = boxes
    truth = x > y if op.strict else x >= y
    shape = np.broadcast_shapes(*(v.lower.shape for v in boxes))
    first, second = (np.broadcast_to(v, shape) for v in (truth.surely, ~truth.possibly))
    if slopes is None:
        gap = a - b
        width = gap.upper - gap.lower
        share = np.where(width > 0, gap.upper / np.where(width > 0, width, 1.0), 0.5)
        share = np.broadcast_to(_finite(np.clip(share, 0.0, 1.0)), shape)
        slopes = (1.0 - share, share, share, 1.0 - share)
    below_a, below_b, above_a, above_b = slopes

    def fixed(slope: Array, own: Array, other: Array) -> Array:
        return np.where(own, 1.0, np.where(other, 0.0, _finite(slope)))

    below = (fixed(below_a, first, second), fixed(below_b, second, first))
    above = (fixed(above_a, first, second), fixed(above_b, second, first))

    def least(p: Interval, q: Interval) -> Interval:
        return Interval(np.minimum(p.lower, q.lower), np.minimum(p.upper, q.upper))

    def most(p: Interval, q: Interval) -> Interval:
        return Interval(np.maximum(p.lower, q.lower), np.maximum(p.upper, q.upper))

    decided = first | second
    low = np.where(decided, 0.0, _corners((a, b), least, below, above=False))
    high = np.where(decided, 0.0, _corners((a, b), most, above, above=True))
    none = np.zeros(shape)
    return Planes((none, none, *below), (none, none, *above), low, high)
