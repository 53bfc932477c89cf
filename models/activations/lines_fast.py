"""Offsets of lines in ordinary floating point, in NumPy or JAX: for searches, not for proofs.

For a line of slope ``a`` above ``phi`` the least offset is ``max (phi(x) - a x)`` over the box.
Its candidates are known (see :mod:`.lines_outline`), so that it takes a few evaluations of
``phi``; where an activation is not known in full, a grid with a margin stands in.

The offset is differentiable: by the envelope theorem its derivative is ``-x*`` in the slope and,
where ``x*`` is an end of the box, ``phi'(x*) - a`` in that end. The touching point itself is held
fixed.
"""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.lines_outline import Outline
from tangency.models.namespace import numpy_namespace

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["extreme", "held", "newton", "quiet", "stacked"]

_ULPS = 8.0
_KINK = 2.0**-42  # places of kinks are known to 2^-44
_GRID = 128


def held(nx: Any, x: Any) -> Any:
    """``x`` as a constant for differentiation."""
    if nx is numpy_namespace:
        return x
    from jax import lax

    return lax.stop_gradient(x)


def quiet(nx: Any) -> Any:
    """Context in which NumPy lets values overflow to inf in silence."""
    return np.errstate(all="ignore") if nx is numpy_namespace else nullcontext()


def stacked(nx: Any, arrays: list[Any]) -> Any:
    """Arrays of one shape along a new first axis."""
    if nx is numpy_namespace:
        return np.stack(arrays)
    import jax.numpy as jnp

    return jnp.stack(arrays)


def extreme(
    record: "Activation",
    nx: Any,
    lower: Any,
    upper: Any,
    slope: Any,
    sign: Any,
    *,
    rough: bool = False,
) -> tuple[Any, Any]:
    """Return ``max`` over the box of ``sign phi(x) - slope x``, and where it is attained.

    Parameters
    ----------
    nx : namespace
        Of NumPy or JAX.
    lower, upper, slope : arrays that broadcast together
        Boxes and slopes.
    sign : {1.0, -1.0}, or an array of them
        Of ``phi``.
    rough : bool
        Six digits are enough.
    """
    known = record._outline
    best, place = sign * record.value(nx, lower) - slope * lower, lower + 0.0 * slope
    size = nx.maximum(nx.abs(slope * lower), nx.abs(best))

    def offer(gain: Any, x: Any, valid: Any) -> None:
        # Of candidates that differ by rounding alone the later one counts, and it is never an end
        # of the box: where a line lies along the function (a slope at the end of its range, as
        # most are when a search is done) end and kink tie, and every slope from there into the
        # range touches at the kink. The value stays the greatest, the derivative is the kink's.
        nonlocal best, place, size
        size = nx.where(valid, nx.maximum(size, nx.abs(gain)), size)
        better = valid & (gain >= best - size * max(_ULPS * _precision(best), _KINK))
        gain = gain + held(nx, nx.maximum(best - gain, 0.0))
        best, place = nx.where(better, gain, best), nx.where(better, x, place)

    last = sign * record.value(nx, upper) - slope * upper
    offer(last, upper + 0.0 * slope, last > best)
    for k, before, here, after in known.marks:
        x, c = k + 0.0 * slope, slope * k
        offer(sign * here - c, x, (lower <= k) & (upper >= k))
        if record.jumps:
            offer(sign * before - c, x, (lower < k) & (upper >= k))
            offer(sign * after - c, x, (lower <= k) & (upper > k))
    if known.steps is not None:
        for k, before, here, after in _steps(record, nx, known.steps, lower, upper):
            inside, x, c = (lower <= k) & (upper >= k), k + 0.0 * slope, slope * k
            offer(sign * here - c, x, inside)
            offer(sign * before - c, x, inside & (lower < k))
            offer(sign * after - c, x, inside & (upper > k))
    # Arcs that bend the other way touch no line from this side.
    places = _touching(record, nx, known, sign, slope, lower, upper, rough)
    if places:  # one evaluation of phi for all: a long formula is traced once
        together = stacked(nx, places)
        gains = sign * record.value(nx, together) - slope * together
        inside = (together > lower) & (together < upper)  # at an end it is no other candidate
        for i in range(len(places)):
            offer(gains[i], together[i], inside[i])
    if not known.complete:
        gain, x = _on_grid(record, nx, known, lower, upper, slope, sign)
        offer(gain, x, gain > best)
    size = nx.maximum(size, nx.abs(slope * upper))
    ulps = 1.0 if known.straight else _ULPS
    return best + held(nx, size) * (ulps * _precision(best)), place


def _precision(x: Any) -> float:
    return 2.0**-52 if str(x.dtype) == "float64" else 2.0**-23


def _touching(
    record: "Activation",
    nx: Any,
    known: Outline,
    sign: Any,
    slope: Any,
    lower: Any,
    upper: Any,
    rough: bool,
) -> list[Any]:
    """Candidates inside, held."""
    wanted, low, high = sign * held(nx, slope), held(nx, lower), held(nx, upper)
    bend = -sign if isinstance(sign, float) else None
    places = known.touching(nx, wanted, bend, low, high)
    if known.points is None and not rough and _precision(lower) < 1e-12:
        # The table is good to six digits, one step of Newton to twelve.
        places = [newton(record, nx, x, wanted) for x in places]
    return [nx.minimum(nx.maximum(x, low), high) for x in places]


def newton(record: "Activation", nx: Any, x: Any, slope: Any) -> Any:
    """One step towards ``phi'(x) = slope``, where it is a small one."""
    step = (record.derivative(nx, x) - slope) / record.second_derivative(nx, x)
    return nx.where(nx.abs(step) <= 0.01 * nx.maximum(nx.abs(x), 1.0), x - step, x)


def _steps(
    record: "Activation", nx: Any, offset: float, lower: Any, upper: Any
) -> list[tuple[Any, Any, Any, Any]]:
    """First and last two jumps of a staircase in the box, as marks.

    One alone is not enough: at an end of the box a jump shows one side only.
    """
    first, last = nx.ceil(lower - offset) + offset, nx.floor(upper - offset) + offset
    places = (first, first + 1.0, last - 1.0, last)
    return [
        (k, *(record.value(nx, k + side) for side in (-0.25, 0.0, 0.25)))
        for k in (held(nx, place) for place in places)
    ]


def _on_grid(
    record: "Activation",
    nx: Any,
    known: Outline,
    lower: Any,
    upper: Any,
    slope: Any,
    sign: Any,
) -> tuple[Any, Any]:
    """Greatest value at grid points, plus what a smooth or rising function may gain between."""
    shape = (-1, *(1,) * (lower + slope).ndim)
    t = np.linspace(0.0, 1.0, _GRID + 1).reshape(shape).astype(str(lower.dtype))
    x = held(nx, nx.minimum(nx.maximum((1.0 - t) * lower[None] + t * upper[None], lower), upper))
    phi = record.value(nx, x)
    gain = sign * phi - slope * x
    if record.staircase:
        # phi rises: on a cell it is at most its value at the right end, at least at the left.
        reached = nx.where(sign > 0, phi[1:], -phi[:-1])
        gain = reached + nx.maximum(-slope * x[1:], -slope * x[:-1])
        x = x[1:]
    best = gain.max(axis=0)
    place = nx.where(gain >= best, x, -np.inf).max(axis=0)
    if not record.staircase:
        turn = record.derivative(nx, x)
        margin = nx.abs(turn[1:] - turn[:-1]).max(axis=0) * ((upper - lower) / (8.0 * _GRID))
        outside = (lower < known.reach[0]) | (upper > known.reach[1])
        best = best + nx.where(outside, held(nx, margin), 0.0)
    return best, place
