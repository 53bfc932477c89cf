"""Offsets of lines that hold in real arithmetic, for any slopes.

``max (sign phi(x) - slope x)`` over a box is bounded by what is proved of the activation: its
convex and concave stretches (:mod:`.lines_plan`), else what :mod:`.lines_special` has for
staircases, waves and the unknown. Everything that bounds is interval arithmetic; points found in
ordinary floating point only say where to look.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.lines_outline import slope_period
from tangency.models.activations.lines_plan import by_plan
from tangency.models.activations.lines_special import by_period, by_steps, in_parts
from tangency.models.activations.ranges import check_boxes
from tangency.models.errors import InputError
from tangency.models.intervals import Array, Interval

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["proved_intercepts"]


def proved_intercepts(
    record: "Activation", lower: Any, upper: Any, a_l: Any, a_u: Any
) -> tuple[Array, Array]:
    """Offsets of lines of the given slopes that enclose ``phi``, sound in real arithmetic.

    Parameters
    ----------
    lower, upper : arrays
        Bounded boxes.
    a_l, a_u : arrays that broadcast with the boxes
        Any finite slopes.

    Returns
    -------
    (b_l, b_u) : float64 arrays of the broadcast shape
        ``-inf`` and ``inf`` where nothing finite can be proved.

    Raises
    ------
    InputError
        If a box is unbounded or leaves the domain, or a slope is not finite.
    """
    box = check_boxes(record, lower, upper)
    if not (np.isfinite(box.lower).all() and np.isfinite(box.upper).all()):
        raise InputError(f"a linear relaxation of {record} needs bounded boxes")
    slopes = [np.asarray(a, np.float64) for a in (a_l, a_u)]
    if not all(np.isfinite(a).all() for a in slopes):
        raise InputError(f"a linear relaxation of {record} needs finite slopes")
    shape = np.broadcast_shapes(box.lower.shape, *(a.shape for a in slopes))
    box = Interval(np.atleast_1d(box.lower), np.atleast_1d(box.upper))
    with np.errstate(all="ignore"):
        below = -_greatest(record, box, -1.0, np.atleast_1d(-slopes[0]))
        above = _greatest(record, box, 1.0, np.atleast_1d(slopes[1]))
    wide = shape or (1,)
    both = (np.broadcast_to(end, wide).reshape(shape) + 0.0 for end in (below, above))
    return tuple(both)  # type: ignore[return-value]


def _greatest(record: "Activation", box: Interval, sign: float, slope: Array) -> Array:
    """Upper bound of ``max over the box of sign phi(x) - slope x``; inf where there is none."""
    steps = record._outline.steps
    if steps is not None and (box.magnitude < 2.0**50).all():
        best = by_steps(record, steps, box, sign, slope)
    else:
        plan = record._plan
        if plan is not None and plan.holds(box).all():
            best = by_plan(record, plan, box, sign, slope)
        else:
            low, high, slope = np.broadcast_arrays(box.lower, box.upper, slope)
            box = Interval(low, high)
            if plan is not None and slope_period(record) is not None:
                best = by_period(record, plan, box, sign, slope)
            else:
                best = in_parts(record, plan, box, sign, slope)
    return np.where(np.isnan(best), np.inf, best)
