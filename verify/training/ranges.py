"""The range of an activation on boxes, in JAX: traced, differentiable, and not rounded outwards.

Training needs the range and its gradient, fast; what is printed as certified comes from
:mod:`tangency.verify.rigorous`. Here the ends and the turning points of the record are enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import UnsupportedError

__all__ = ["activation_range"]

Array = Any


def activation_range(record: Activation, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Least and greatest value of an activation on each box.

    Parameters
    ----------
    record : Activation
        Of the catalogue or the user's.
    lower, upper : JAX array of any shape
        Boxes inside the domain of the activation.

    Raises
    ------
    UnsupportedError
        For an activation with a pole, or one that oscillates for ever without a period.
    """
    import jax.numpy as jnp

    from tangency.models.namespace import jax_namespace

    falls, rises = record.slope_range
    # What repeats and yet never turns, as tan, jumps back through a pole.
    pole = record.poles or (record.period is not None and (falls > 0 or rises < 0))
    if pole or (record.oscillates and record.period is None):
        why = "has poles" if pole else "oscillates for ever without a period"
        raise UnsupportedError(f"{record}: its range is not computed in training, for it {why}")
    nx = jax_namespace()
    at_lower, at_upper = record.value(nx, lower), record.value(nx, upper)
    if falls >= -1e-12:
        return at_lower, at_upper
    if rises <= 1e-12:
        return at_upper, at_lower
    low, high = jnp.minimum(at_lower, at_upper), jnp.maximum(at_lower, at_upper)
    for point, value in _turns(record):
        if record.period is None:
            inside = (lower < point) & (point < upper)
        else:  # the first of its copies that is not before the box
            first = point + record.period * jnp.ceil((lower - point) / record.period)
            inside = first <= upper
        low = jnp.where(inside, jnp.minimum(low, value), low)
        high = jnp.where(inside, jnp.maximum(high, value), high)
    return low, high


def _turns(record: Activation) -> list[tuple[float, float]]:
    """Turning points, one of each period where there is one, and the values there."""
    ends = record.turning_points
    points = np.asarray(ends.lower) / 2 + np.asarray(ends.upper) / 2
    if record.period is not None:
        points = np.unique(np.round(np.mod(points, record.period), 9))
    # A jump counts with both its sides: the value just before and just after.
    near = [side for p in points for side in (np.nextafter(p, -np.inf), p, np.nextafter(p, np.inf))]
    values = np.asarray(record(np.array(near)), dtype=np.float64)
    return [(float(p), float(v)) for p, v in zip(near, values, strict=True)]
