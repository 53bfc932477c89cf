r"""Softmax, log-sum-exp and layer norm: entries divided by what they have in common.

*Softmax.* :math:`y_i = 1 / (1 + \sum_{j \ne i} e^{x_j - x_i})` falls in every :math:`x_j` and rises
in :math:`x_i`, so that its exact range has two known corners.

*Layer norm.* With :math:`d_i = x_i - \bar x` and :math:`V_i = \sum_{j \ne i} d_j^2`,

.. math:: y_i = d_i / \sqrt{(d_i^2 + V_i) / n + \epsilon}

rises in :math:`d_i` and shrinks towards zero as :math:`V_i` grows. Because the deviations sum to
zero, :math:`V_i \ge d_i^2 / (n - 1)`: so :math:`|y_i| \le \sqrt{n - 1}` on any box. The ranges of
:math:`d_i` are exact; :math:`d_i` and :math:`V_i` are bounded apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.ops import LayerNorm, LogSumExp, Shape, Softmax
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.enclosure import exclusive_sum, total
from tangency.verify.rigorous.registry import bounded_by, rule

__all__ = ["layer_norm", "log_sum_exp", "softmax"]

Params = Mapping[str, Any]
nx = interval_namespace


@rule(Softmax)
def softmax(op: Softmax, params: Params, x: Interval) -> Interval:
    """``exp(x) / sum exp(x)`` along one axis."""
    axis = normalise_axis(op.axis, len(x.shape) - 1) + 1
    low, high = np.moveaxis(x.lower, axis, -1), np.moveaxis(x.upper, axis, -1)
    least = _share(Interval(low), Interval(high)).lower
    most = _share(Interval(high), Interval(low)).upper
    return Interval(np.moveaxis(least, -1, axis), np.moveaxis(most, -1, axis))


def _share(own: Interval, others: Interval) -> Interval:
    """``1 / (1 + sum over j != i of exp(others_j - own_i))`` on the last axis, points."""
    top = others.lower.max(axis=-1, keepdims=True)
    rest = exclusive_sum(nx.exp(others - top))
    rest = bounded_by(rest, 0.0, np.inf)
    return bounded_by((1.0 + rest * nx.exp(top - own)).reciprocal(), 0.0, 1.0)


@rule(LogSumExp)
def log_sum_exp(op: LogSumExp, params: Params, x: Interval) -> Interval:
    """``log sum exp(x)``, which rises in every entry."""
    axes = tuple(normalise_axis(a, len(x.shape) - 1) + 1 for a in op.axes)

    def value(end: Any) -> Interval:
        top = end.max(axis=axes, keepdims=True)
        result: Interval = nx.log(total(nx.exp(Interval(end) - top), axes)) + top.squeeze(axes)
        return result

    return Interval(value(x.lower).lower, value(x.upper).upper)


@rule(LayerNorm)
def layer_norm(op: LayerNorm, params: Params, x: Interval) -> Interval:
    """``(x - mean) / sqrt(var + eps) * weight + bias``; RMS norm without the mean."""
    if op.eps < 0:
        raise InputError(f"eps is {op.eps:g}, it must be >= 0")
    rank = len(x.shape) - 1
    axes = tuple(sorted(normalise_axis(a, rank) + 1 for a in op.axes))
    flat, back = _flattened(x.shape, axes)
    d = Interval(flat(x.lower), flat(x.upper))
    if op.center:
        d = _deviations(d)
    y = _normed(d, op.eps, op.center)
    y = Interval(back(y.lower), back(y.upper))
    if "weight" in params:
        y = y * Interval(op.affine_part(params["weight"], rank))
    return y + Interval(op.affine_part(params["bias"], rank)) if "bias" in params else y


def _flattened(shape: Shape, axes: tuple[int, ...]) -> tuple[Callable[[Any], Any], Any]:
    """Maps that bring some axes together as the last one, and that undo it."""
    ends = tuple(range(len(shape) - len(axes), len(shape)))
    moved = np.moveaxis(np.empty(shape, dtype=bool), axes, ends).shape
    lead = moved[: len(shape) - len(axes)]

    def flat(v: Any) -> Any:
        return np.moveaxis(v, axes, ends).reshape((*lead, prod(shape[a] for a in axes)))

    def back(v: Any) -> Any:
        return np.moveaxis(v.reshape(moved), ends, axes)

    return flat, back


def _deviations(x: Interval) -> Interval:
    """``x_i - mean(x)``: both corners are known, as ``((n-1) x_i - sum of the others) / n``."""
    n = x.shape[-1]
    return (x * float(n - 1) - exclusive_sum(x)) / float(n)


def _normed(d: Interval, eps: float, centred: bool) -> Interval:
    n = d.shape[-1]
    others = bounded_by(exclusive_sum(d**2), 0.0, np.inf)
    if centred and n == 1:
        return Interval(np.zeros(d.shape))
    size = nx.sqrt(Interval(float(n - 1 if centred else n))).upper

    def value(end: Any, smallest: bool) -> Interval:
        """The norm at deviation ``end``, the others as small or as large as they can be."""
        own = Interval(end) ** 2
        rest = Interval(others.lower if smallest else others.upper)
        if centred and smallest:
            least = own / float(n - 1)
            rest = Interval(np.maximum(rest.lower, least.lower))
        root: Interval = nx.sqrt((own + rest) / float(n) + eps)
        return Interval(end) / root

    # Far from zero with small others, near to zero with large ones.
    high = np.where(d.upper >= 0, value(d.upper, True).upper, value(d.upper, False).upper)
    low = np.where(d.lower <= 0, value(d.lower, True).lower, value(d.lower, False).lower)
    return bounded_by(Interval(low, high), -size, size)
