r"""Linear relaxations: two lines that enclose ``phi`` on a box.

The best line above ``phi`` on ``[l, u]`` (least mean height) is tangent to the concave envelope at
the midpoint ``m``: its slope minimises ``a m + max_x (phi(x) - a x)``. The slope is searched in
ordinary floating point, on a grid and then by bisection where the tangent touches; no proof hangs
on it. The offset is then proved: ``max (phi(x) - a x)`` is enclosed piece by piece,

- where ``phi`` is convex, by the two ends of the piece,
- where it is concave, by the tangent at a point ``t``: ``phi(x) <= phi(t) + phi'(t)(x - t)``,
- on enclosures of inflections and kinks, and where nothing is known, by interval branch and bound.

So the lines hold in real arithmetic, whatever the slope. The line below is that of ``-phi``.

References
----------
Zhang et al., "Efficient Neural Network Robustness Certification with General Activation
Functions", arXiv 1811.00866; Shi et al., arXiv 2405.21063.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.pieces import Pieces, core_of, lift
from tangency.models.activations.ranges import at_points, check_boxes, range_on
from tangency.models.errors import InputError
from tangency.models.intervals import Array, Interval

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["Lines", "relaxation"]

_GRID = 33
_CUTS = 64


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines with ``a_l x + b_l <= phi(x) <= a_u x + b_u`` on each box (arrays of one shape)."""

    a_l: Array
    b_l: Array
    a_u: Array
    b_u: Array


def relaxation(record: "Activation", lower: Any, upper: Any) -> Lines:
    """Enclose ``phi`` on boxes between two lines.

    Parameters
    ----------
    lower, upper : array of any (common) shape
        Finite boxes.

    Returns
    -------
    Lines
        Sound in real arithmetic. Where the range is infinite the offset is infinite.

    Raises
    ------
    InputError
        If a box is unbounded or leaves the domain.
    """
    box = check_boxes(record, lower, upper)
    if not (np.isfinite(box.lower).all() and np.isfinite(box.upper).all()):
        raise InputError(f"a linear relaxation of {record} needs bounded boxes")
    shape = box.lower.shape
    flat = Interval(box.lower.ravel(), box.upper.ravel())
    R = range_on(record, flat.lower, flat.upper)
    grid, values = _samples(record, flat)
    lines = []
    for sign in (-1.0, 1.0):
        slope = _slope_above(flat, grid, sign * values)
        # A slope above needs its offset; where it cannot be proved the constant line serves.
        offset = _offset_above(record, flat, sign, slope)
        flat_line = R.upper if sign > 0 else -R.lower
        m = flat.midpoint
        with np.errstate(all="ignore"):
            worse = ~(slope * m + offset <= flat_line)
        slope, offset = np.where(worse, 0.0, slope), np.where(worse, flat_line, offset)
        lines += [(sign * slope).reshape(shape) + 0.0, (sign * offset).reshape(shape) + 0.0]
    return Lines(*lines)


def _samples(record: "Activation", box: Interval) -> tuple[Array, Array]:
    """Grid on each box, with kinks moved onto it, and values there (in plain floating point)."""
    t = np.linspace(0.0, 1.0, _GRID)
    x = box.lower[:, None] * (1.0 - t) + box.upper[:, None] * t
    x = np.clip(x, box.lower[:, None], box.upper[:, None])
    x[:, -1] = box.upper
    for k in record.kinks:
        inside = (box.lower < k) & (k < box.upper)
        nearest = np.argmin(np.abs(x[:, 1:-1] - k), axis=1) + 1
        x[inside, nearest[inside]] = k
    x.sort(axis=1)
    values = np.asarray(record(x), dtype=np.float64)
    return x, np.where(np.isfinite(values), values, 0.0)


def _slope_above(box: Interval, x: Array, y: Array) -> Array:
    """Slope of the concave envelope of the samples at the midpoint."""
    m = box.midpoint[:, None]
    left, right = x <= m, x > m
    # The envelope at m is the highest chord over it: fix one end at the current support point and
    # improve the other in turn; a few rounds reach the top (each round only ever rises).
    rows = np.arange(x.shape[0])
    i, j = np.zeros(rows.size, dtype=int), np.full(rows.size, x.shape[1] - 1)
    with np.errstate(all="ignore"):
        for _ in range(4):
            for fixed, side in ((i, right), (j, left)):
                x0, y0 = x[rows, fixed][:, None], y[rows, fixed][:, None]
                chord = y0 + (y - y0) * ((m - x0) / (x - x0))
                chord = np.where(side & (x != x0) & np.isfinite(chord), chord, -np.inf)
                best = np.argmax(chord, axis=1)
                if side is right:
                    j = best
                else:
                    i = best
        slope = (y[rows, j] - y[rows, i]) / (x[rows, j] - x[rows, i])
    result: Array = np.where(np.isfinite(slope), slope, 0.0)
    return result


def _offset_above(record: "Activation", box: Interval, sign: float, slope: Array) -> Array:
    """Upper bound of ``max over the box of sign phi(x) - slope x``."""
    pieces = record._slope_pieces
    core = core_of(record)
    known = pieces is not None and pieces.core == core and not record.jumps and not record.staircase
    if not known or pieces is None:
        return _offset_by_cells(record, box, sign, slope)
    tails = record.limits is not None and not record.oscillates
    inside = np.full(slope.shape, tails) | ((box.lower >= core[0]) & (box.upper <= core[1]))
    result = np.empty(slope.shape)
    if inside.any():
        result[inside] = _offset_by_pieces(record, pieces, box[inside], sign, slope[inside])
    if not inside.all():
        result[~inside] = _offset_by_cells(record, box[~inside], sign, slope[~inside])
    return result


def _offset_by_pieces(
    record: "Activation", pieces: Pieces, box: Interval, sign: float, slope: Array
) -> Array:
    P = pieces.points
    n = P.lower.size
    starts = np.concatenate([[-np.inf], P.upper])
    stops = np.concatenate([P.lower, [np.inf]])
    signs = sign * pieces.signs
    # A tail beyond the core is convex or concave too (phi' is monotone there), but not proved to
    # be so in the same sense as its neighbour: treat it as a piece of its own.
    spans = [(starts[k], stops[k], signs[k]) for k in range(n + 1)]
    tail_signs = [sign * _tail_sign(record, side) for side in (0, 1)]
    first, last = spans[0], spans[-1]
    if n == 0:
        spans = [(pieces.core[0], pieces.core[1], first[2])]
    else:
        spans[0] = (pieces.core[0], first[1], first[2])
        spans[-1] = (last[0], pieces.core[1], last[2])
    spans = [
        (-np.inf, pieces.core[0], tail_signs[0]),
        *spans,
        (pieces.core[1], np.inf, tail_signs[1]),
    ]
    best = np.full(slope.shape, -np.inf)
    for start, stop, bend in spans:
        a, b = np.maximum(box.lower, start), np.minimum(box.upper, stop)
        here = a <= b
        if here.any():
            part = (record, sign, slope[here], a[here], b[here])
            if not bend < 0:
                best[here] = np.maximum(best[here], _convex(*part))
            if not bend >= 0:  # also if the bend is unknown: the larger bound holds for both
                best[here] = np.maximum(best[here], _concave(*part))
    for k in range(n):
        a, b = np.maximum(box.lower, P.lower[k]), np.minimum(box.upper, P.upper[k])
        here = a <= b
        if here.any():
            X = Interval(a[here], b[here])
            V = range_on(record, X.lower, X.upper) * sign
            best[here] = np.maximum(best[here], (V - X * slope[here]).upper)
    return best


def _tail_sign(record: "Activation", side: int) -> float:
    """Sign of ``phi''`` in a tail, from the slope at the core's end towards its limit.

    NaN where rounding leaves it open (a tail that is straight to 16 digits).
    """
    end = core_of(record)[side]
    if record.limits is None or end == record.domain[side]:
        return np.nan
    far = Interval.of(record.limits[side][1])
    near = lift(record, 1)(Interval(end))
    if near.lower <= far.upper and far.lower <= near.upper:
        return np.nan
    return 1.0 if bool(far.lower > near.upper) == (side == 1) else -1.0


def _convex(record: "Activation", sign: float, slope: Array, a: Array, b: Array) -> Array:
    ends = [(at_points(record, 0, x) * sign - Interval(x) * slope).upper for x in (a, b)]
    return np.maximum(ends[0], ends[1])


def _concave(record: "Activation", sign: float, slope: Array, a: Array, b: Array) -> Array:
    """Tangent where ``sign phi'`` crosses the slope (found by bisection, proved by intervals)."""
    low, high = a.copy(), b.copy()
    with np.errstate(all="ignore"):
        for _ in range(50):
            t = 0.5 * low + 0.5 * high
            steeper = sign * np.asarray(record.slope(t)) > slope
            low, high = np.where(steeper, t, low), np.where(steeper, high, t)
    best = np.full(slope.shape, np.inf)
    for t in (low, high):
        T = Interval(t)
        value, tangent = at_points(record, 0, t) * sign, at_points(record, 1, t) * sign - slope
        start = value - T * slope
        gain = [(tangent * (Interval(x) - T)).upper for x in (a, b)]
        rise = (start + Interval(np.maximum(gain[0], gain[1]))).upper
        best = np.minimum(best, rise)
    return best


def _offset_by_cells(record: "Activation", box: Interval, sign: float, slope: Array) -> Array:
    """Without convexity: cut into cells; on each the range of ``phi`` minus the line."""
    t = np.linspace(0.0, 1.0, _CUTS + 1)
    edges = box.lower[:, None] * (1.0 - t) + box.upper[:, None] * t
    edges = np.clip(edges, box.lower[:, None], box.upper[:, None])
    edges[:, 0], edges[:, -1] = box.lower, box.upper
    edges = np.maximum.accumulate(edges, axis=1)
    X = Interval(edges[:, :-1], edges[:, 1:])
    V = range_on(record, X.lower, X.upper) * sign
    result: Array = (V - X * slope[:, None]).upper.max(axis=1)
    return result
