"""Derivatives of functions of one entry, products, quotients and matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Activate, MatMul, Prelu, Product, Quotient
from tangency.verify.jacobian.adjoint import signed
from tangency.verify.jacobian.registry import Place, lifted, rule, summed_to
from tangency.verify.rigorous.registry import rule_of as interval_rule_of

__all__ = ["entrywise", "matmul", "product", "quotient", "slopes_of"]

Cotangents = list[Interval | None]


@rule(Activate, Prelu)
def entrywise(place: Place, c: Interval) -> Cotangents:
    """``c`` times the slopes on the box, Clarke's where there is a kink."""
    slopes = slopes_of(place.op, place.params, place.xs[0])
    return [c * lifted(slopes, len(c.shape) - 2)]


def slopes_of(op: Activate | Prelu, params: Mapping[str, Any], x: Interval) -> Interval:
    """Slopes of a function of one entry on boxes ``(N or 1, *shape)``."""
    if isinstance(op, Prelu):
        negative = np.broadcast_to(op.slopes(params["slope"], len(x.shape) - 1), x.shape)
        low = np.where(x.lower > 0, 1.0, np.minimum(negative, 1.0))
        high = np.where(x.lower > 0, 1.0, np.maximum(negative, 1.0))
        return Interval(np.where(x.upper < 0, negative, low), np.where(x.upper < 0, negative, high))
    return op.activation.slopes_on(x.lower, x.upper)


@rule(Product)
def product(place: Place, c: Interval) -> Cotangents:
    """``c y`` and ``c x``."""
    rank = len(c.shape) - 2
    x, y = (lifted(v, rank) for v in place.xs)
    return [
        summed_to(c * y, place.shapes[0]) if place.live[0] else None,
        summed_to(c * x, place.shapes[1]) if place.live[1] else None,
    ]


@rule(Quotient)
def quotient(place: Place, c: Interval) -> Cotangents:
    """``c / y`` and ``-c (x / y) / y``."""
    rank = len(c.shape) - 2
    y, z = lifted(place.xs[1], rank), lifted(place.y, rank)
    share = c / y
    return [
        summed_to(share, place.shapes[0]) if place.live[0] else None,
        summed_to(-(share * z), place.shapes[1]) if place.live[1] else None,
    ]


@rule(MatMul)
def matmul(place: Place, c: Interval) -> Cotangents:
    """``c y^T`` and ``x^T c``, intervals both."""
    rank = len(c.shape) - 2
    x, y = (lifted(v, rank) for v in place.xs)
    return [
        summed_to(_times(c, _turned(y)), place.shapes[0]) if place.live[0] else None,
        summed_to(_times(_turned(x), c), place.shapes[1]) if place.live[1] else None,
    ]


def _turned(x: Interval) -> Interval:
    return Interval(np.swapaxes(x.lower, -1, -2), np.swapaxes(x.upper, -1, -2))


def _times(x: Interval, y: Interval) -> Interval:
    """Enclose ``x @ y``, with known signs kept."""
    result = interval_rule_of(MatMul())(MatMul(), {}, x, y)
    x_falls, x_rises = _flags(x)
    y_falls, y_rises = _flags(y)
    may_fall = x_falls @ y_rises + x_rises @ y_falls
    may_rise = x_rises @ y_rises + x_falls @ y_falls
    return signed(result, may_fall, may_rise)


def _flags(x: Interval) -> tuple[Any, Any]:
    return (x.lower < 0).astype(np.float64), (x.upper > 0).astype(np.float64)
