"""Slopes of least area: where the line that hugs ``phi`` best over a box gets its slope.

The area between ``phi`` and a line above it is least when the line is lowest at the midpoint ``m``,
that is when it supports the concave envelope of ``phi`` there. For a convex ``phi`` this is the
chord, for a concave one the tangent at ``m`` (so a ReLU has the triangle above and, below, slope 1
or 0 as ``u > -l`` or not). In general the height ``a m + max (phi(x) - a x)`` is convex in ``a``
and is brought down by cutting planes: the line through the two points touched last, one on either
side of ``m``, is the next to try.

References
----------
Zhang et al., "Efficient Neural Network Robustness Certification with General Activation
Functions", arXiv 1811.00866; Singh et al., "An abstract domain for certifying neural networks",
POPL 2019 (least area).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.lines_fast import extreme, held
from tangency.models.namespace import numpy_namespace

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["least_area"]

_ROUNDS = 9


def least_area(record: "Activation", nx: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
    """Slopes of the highest line below and of the lowest line above ``phi`` on each box."""
    known = record._outline
    if known.bend is not None or known.arcs or nx is numpy_namespace:
        below, above = (_slope(record, nx, lower, upper, sign) for sign in (-1.0, 1.0))
    else:  # both at once: half as much to compile
        both = np.array([-1.0, 1.0], str(lower.dtype)).reshape((2, *(1,) * lower.ndim))
        below, above = _slope(record, nx, lower, upper, both)
    return 0.0 - below, above


def _slope(record: "Activation", nx: Any, lower: Any, upper: Any, sign: Any) -> Any:
    """Slope of the lowest line above ``sign phi``; the sign may be an array."""
    known = record._outline
    middle = 0.5 * lower + 0.5 * upper
    tangent = _finite(nx, sign * record.derivative(nx, middle) + 0.0 * middle, 0.0)
    if known.bend is not None and sign * known.bend <= 0:
        return tangent
    if known.bend is not None:
        values = [sign * record.value(nx, x) for x in (lower, upper)]
        chord = _chord(nx, lower, values[0], upper, values[1], tangent)
        ends = [sign * record.derivative(nx, x) + 0.0 * x for x in (lower, upper)]
        inside = nx.minimum(nx.maximum(chord, ends[0]), ends[1])
        return _finite(nx, inside, tangent)
    left, right, flat = _search(
        record, nx, held(nx, lower), held(nx, upper), sign, held(nx, tangent)
    )
    if record.staircase or record.jumps:
        return flat
    # Held where they touch inside, moving with the box where they are its ends.
    left, right = (nx.minimum(nx.maximum(x, lower), upper) for x in (left, right))
    values = [sign * record.value(nx, x) for x in (left, right)]
    chord = _finite(nx, _chord(nx, left, values[0], right, values[1], tangent), 0.0)
    return nx.where(flat == tangent, tangent, chord)


def _chord(nx: Any, x0: Any, y0: Any, x1: Any, y1: Any, otherwise: Any) -> Any:
    apart = x1 > x0
    slope = (y1 - y0) / nx.where(apart, x1 - x0, 1.0)
    return nx.where(apart, _finite(nx, slope, otherwise), otherwise)


def _finite(nx: Any, x: Any, otherwise: Any) -> Any:
    return nx.where(x - x == 0.0, x, otherwise)


def _search(
    record: "Activation", nx: Any, lower: Any, upper: Any, sign: Any, tangent: Any
) -> tuple[Any, Any, Any]:
    """Touching points on the two sides of the middle, and the best slope; tangent is the first."""
    middle = 0.5 * lower + 0.5 * upper

    def cut(state: tuple[Any, ...]) -> tuple[Any, ...]:
        slope, x0, y0, x1, y1, lowest, best, left, right = state
        gain, x = extreme(record, nx, lower, upper, slope, sign, rough=True)
        gain = _finite(nx, gain, 1e30)
        better = gain + slope * middle < lowest
        lowest = nx.where(better, gain + slope * middle, lowest)
        best = nx.where(better, slope, best)
        left, right = nx.where(better, x0, left), nx.where(better, x1, right)
        first = x <= middle
        y = gain + slope * x
        x0, y0 = nx.where(first, x, x0), nx.where(first, y, y0)
        x1, y1 = nx.where(first, x1, x), nx.where(first, y1, y)
        return _chord(nx, x0, y0, x1, y1, slope), x0, y0, x1, y1, lowest, best, left, right

    y0, y1 = (_finite(nx, sign * record.value(nx, x), 0.0) for x in (lower, upper))
    none = 0.0 * tangent
    start = (tangent, lower + none, y0, upper + none, y1, none + np.inf, tangent)
    *_, best, left, right = _repeat(nx, _ROUNDS, cut, (*start, lower + none, upper + none))
    return left, right, best


def _repeat(nx: Any, count: int, step: Callable[[Any], Any], state: Any) -> Any:
    if nx is not numpy_namespace:
        from jax import lax

        return lax.fori_loop(0, count, lambda _, s: step(s), state)
    for _ in range(count):
        state = step(state)
    return state
