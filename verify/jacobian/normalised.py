r"""Derivatives of softmax, log-sum-exp and layer norm.

*Softmax*, p its value:

.. math:: (J^T c)_j = p_j \sum_{i \ne j} p_i (c_j - c_i),

bounded term by term, and as :math:`p_j (1 - p_j)` times the hull of :math:`c_j - c_i` (the other
weights, divided by :math:`1 - p_j`, sum to one).

*Layer norm*, :math:`\hat y = d / s` its value without weight and bias, with
:math:`s = \sqrt{\overline{d^2} + \epsilon}`:

.. math:: J^T c = \frac{1}{s} \bigl( c - \bar c - \hat y \, \overline{c \hat y} \bigr).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.ops import LayerNorm, LogSumExp, Shape, Softmax
from tangency.models.ops.base import normalise_axis
from tangency.verify.jacobian.registry import Place, lifted, rule
from tangency.verify.rigorous.enclosure import exclusive_sum, total
from tangency.verify.rigorous.registry import bounded_by
from tangency.verify.rigorous.registry import rule_of as interval_rule_of

__all__ = ["layer_norm", "log_sum_exp", "softmax"]

Cotangents = list[Interval | None]
nx = interval_namespace


@rule(Softmax)
def softmax(place: Place, c: Interval) -> Cotangents:
    """``p_j`` times the mean of ``c_j - c_i`` under p."""
    axis = normalise_axis(place.op.axis, len(c.shape) - 2)
    p = _map(lambda v: np.moveaxis(v, axis + 1, -1)[:, None], place.y)
    c = _map(lambda v: np.moveaxis(v, axis + 2, -1), c)
    n = c.shape[-1]
    if n == 1:
        result = Interval(np.zeros(c.shape))
    else:
        difference = c[..., :, None] - c[..., None, :]  # (.., j, i)
        others = ~np.eye(n, dtype=bool)
        terms = difference * p[..., None, :] * others.astype(np.float64)
        one = p * total(terms, (len(terms.shape) - 1,))
        low = np.where(others, difference.lower, np.inf).min(axis=-1)
        high = np.where(others, difference.upper, -np.inf).max(axis=-1)
        result = one.intersect(_variance(p) * Interval(low, high))
    return [_map(lambda v: np.moveaxis(v, -1, axis + 2), result)]


def _variance(p: Interval) -> Interval:
    """The exact range of ``p (1 - p)``, which is concave with its top at one half."""
    first = Interval(p.lower) * (1.0 - Interval(p.lower))
    second = Interval(p.upper) * (1.0 - Interval(p.upper))
    top = (p.lower <= 0.5) & (p.upper >= 0.5)
    high = np.where(top, 0.25, np.maximum(first.upper, second.upper))
    return bounded_by(Interval(np.minimum(first.lower, second.lower), high), 0.0, 0.25)


@rule(LogSumExp)
def log_sum_exp(place: Place, c: Interval) -> Cotangents:
    """``c`` times the softmax."""
    shape = place.shapes[0]
    axes = tuple(sorted(normalise_axis(a, len(shape)) for a in place.op.axes))
    flat, back = _flattened((place.xs[0].shape[0], *shape), tuple(a + 1 for a in axes))
    p = _map(back, interval_rule_of(Softmax())(Softmax(-1), {}, _map(flat, place.xs[0])))
    thin = (*c.shape[:2], *(1 if i in axes else s for i, s in enumerate(shape)))
    return [_map(lambda v: v.reshape(thin), c) * lifted(p, len(shape))]


@rule(LayerNorm)
def layer_norm(place: Place, c: Interval) -> Cotangents:
    """The cotangent less its part along the mean and along the output, divided by the scale."""
    op, x, rank = place.op, place.xs[0], len(place.shapes[0])
    axes = tuple(sorted(normalise_axis(a, rank) for a in op.axes))
    if "weight" in place.params:
        c = c * op.affine_part(place.params["weight"], rank)
    normed = interval_rule_of(op)(op, {}, x)
    flat, _ = _flattened(x.shape, tuple(a + 1 for a in axes))
    d, y = _map(flat, x), _map(flat, normed)
    if op.center:
        d = _deviations(d)
    n = d.shape[-1]
    variance = bounded_by(total(d**2, (len(d.shape) - 1,)), 0.0, np.inf) / float(n) + op.eps
    scale = nx.sqrt(variance)[:, None, ..., None]
    y = y[:, None]
    flat, back = _flattened(c.shape, tuple(a + 2 for a in axes))
    c = _map(flat, c)
    along = total(c * y, (len(c.shape) - 1,))[..., None] / float(n)
    inner = (_deviations(c) if op.center else c) - y * along
    return [_map(back, inner / scale)]


def _deviations(x: Interval) -> Interval:
    """``x_i - mean(x)`` on the last axis: both corners are known."""
    n = x.shape[-1]
    return (x * float(n - 1) - exclusive_sum(x)) / float(n)


def _map(function: Callable[[Any], Any], x: Interval) -> Interval:
    return Interval(function(x.lower), function(x.upper))


def _flattened(shape: Shape, axes: tuple[int, ...]) -> tuple[Callable[[Any], Any], Any]:
    """Maps that bring some axes together as the last one, and that undo it."""
    ends = tuple(range(len(shape) - len(axes), len(shape)))
    lead = tuple(s for i, s in enumerate(shape) if i not in axes)
    tail = tuple(shape[a] for a in axes)

    def flat(v: Any) -> Any:
        return np.moveaxis(v, axes, ends).reshape((*v.shape[:1], *lead[1:], prod(tail)))

    def back(v: Any) -> Any:
        return np.moveaxis(v.reshape((*v.shape[:1], *lead[1:], *tail)), ends, axes)

    return flat, back
