r"""Householder activations: the exact range of each entry over a box.

With :math:`t = v^T z` the entry i is :math:`f_i = z_i + 2 v_i \max(-t, 0)`, that is
:math:`\max(z_i, B_i)` for :math:`v_i > 0` and :math:`\min(z_i, B_i)` for :math:`v_i < 0`, where
:math:`B = (I - 2 v v^T) z`. For :math:`v_i > 0` the maximum over the box is the larger of the two
maxima, and the minimum is, by duality,

.. math:: \max_{0 \le \lambda \le 1} \min_z\; z_i - 2 \lambda v_i t,

a concave function of :math:`\lambda` with its only kink at :math:`1 / (2 v_i^2)`: the best of the
ends, :math:`\min z_i` and :math:`\min B_i`, and of the kink (if it is below 1), where it is
:math:`-v_i^{-1} \sum_{j \ne i} \max v_j z_j`. Negative :math:`v_i` mirror this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Householder
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.enclosure import exclusive_sum, total
from tangency.verify.rigorous.registry import rule

__all__ = ["householder"]


@rule(Householder)
def householder(op: Householder, params: Mapping[str, Any], x: Interval) -> Interval:
    """``z`` where ``v.z > 0``, else ``z - 2 v (v.z)``, group by group."""
    v = params["vectors"]
    axis = normalise_axis(op.axis, len(x.shape) - 1) + 1
    last = np.moveaxis(x.lower, axis, -1).shape
    shape = (*last[:-1], *v.shape)

    def grouped(end: Any) -> Any:
        return np.moveaxis(end, axis, -1).reshape(shape)

    y = _range(v, Interval(grouped(x.lower), grouped(x.upper)))
    return Interval(
        np.moveaxis(y.lower.reshape(last), -1, axis),
        np.moveaxis(y.upper.reshape(last), -1, axis),
    )


def _range(v: Any, z: Interval) -> Interval:
    along = z * v
    t = total(along, (along.lower.ndim - 1,))
    t_low, t_high = t.lower[..., None], t.upper[..., None]
    matrix = _reflection(v)
    terms = Interval(z.lower[..., None, :], z.upper[..., None, :]) * matrix
    reflected = total(terms, (terms.lower.ndim - 1,))
    both = _both(v, z, reflected, exclusive_sum(along).upper)
    low = np.where(t_low >= 0, z.lower, np.where(t_high <= 0, reflected.lower, both.lower))
    high = np.where(t_low >= 0, z.upper, np.where(t_high <= 0, reflected.upper, both.upper))
    return Interval(low, high)


def _reflection(v: Any) -> Interval:
    """``I - 2 v v^T`` of each group, for the vectors as they are stored (of length about 1)."""
    outer = Interval(v[:, :, None]) * Interval(2.0 * v[:, None, :])
    return Interval(np.eye(v.shape[1])) - outer


def _both(v: Any, z: Interval, reflected: Interval, others: Any) -> Interval:
    """The range where both sides of the hyperplane are in reach."""
    with np.errstate(all="ignore"):
        kink = -others / v  # rounded to nearest: moved outwards below
        inside = 2.0 * v * v > 1.0 + 1e-12  # a kink at 1 is an end: nothing is lost
    rising = np.maximum(z.lower, reflected.lower)
    rising = np.where(inside, np.maximum(rising, np.nextafter(kink, -np.inf)), rising)
    falling = np.minimum(z.upper, reflected.upper)
    falling = np.where(inside, np.minimum(falling, np.nextafter(kink, np.inf)), falling)
    low = np.where(v > 0, rising, np.where(v < 0, np.minimum(z.lower, reflected.lower), z.lower))
    high = np.where(v < 0, falling, np.where(v > 0, np.maximum(z.upper, reflected.upper), z.upper))
    return Interval(low, high)
