"""Sums, products and quotients of two variables, choices between them, and matrix products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.ops import Add, MatMul, Product, Quotient, Select, Subtract
from tangency.verify.rigorous.enclosure import affine, relative_error, widened
from tangency.verify.rigorous.registry import aligned, rule

__all__ = ["add", "matmul", "product", "quotient", "select", "subtract"]

Params = Mapping[str, Any]


@rule(Add)
def add(op: Add, params: Params, x: Interval, y: Interval) -> Interval:
    """``x + y``."""
    x, y = aligned(x, y)
    return x + y


@rule(Subtract)
def subtract(op: Subtract, params: Params, x: Interval, y: Interval) -> Interval:
    """``x - y``."""
    x, y = aligned(x, y)
    return x - y


@rule(Product)
def product(op: Product, params: Params, x: Interval, y: Interval) -> Interval:
    """``x * y``: the hull of the four corners; a square where both are one node."""
    if x is y:
        return x**2
    x, y = aligned(x, y)
    return x * y


@rule(Quotient)
def quotient(op: Quotient, params: Params, x: Interval, y: Interval) -> Interval:
    """``x / y`` for y bounded away from zero."""
    across = (y.lower <= 0) & (y.upper >= 0)
    if across.any():
        index = tuple(int(i) for i in np.argwhere(across)[0])
        low, high = float(y.lower[index]), float(y.upper[index])
        raise InputError(
            f"the divisor may be zero: it is bounded by [{low:g}, {high:g}] in sample {index[0]} "
            f"at {index[1:]}; a smaller box may keep it away from zero"
        )
    x, y = aligned(x, y)
    return x / y


@rule(Select)
def select(
    op: Select, params: Params, x: Interval, y: Interval, a: Interval, b: Interval
) -> Interval:
    """The branch taken where the comparison is decided, else the hull of both."""
    if x is y:  # one node on both sides: equal, whatever its value
        shape = np.broadcast_shapes(*(v.shape for v in aligned(x, a, b)))
        taken = aligned(b if op.strict else a, x)[0]
        return Interval(np.broadcast_to(taken.lower, shape), np.broadcast_to(taken.upper, shape))
    x, y, a, b = aligned(x, y, a, b)
    truth = x > y if op.strict else x >= y
    result: Interval = interval_namespace.where(truth, a, b)
    return result


@rule(MatMul)
def matmul(op: MatMul, params: Params, x: Interval, y: Interval) -> Interval:
    """``x @ y``: affine and exact where one factor is a point, else four corners a product."""
    x, y = aligned(x, y)
    terms = x.shape[-1]
    if _is_point(y):
        w, size = y.lower, np.abs(y.lower)
        return affine(x, lambda v: v @ w, lambda v: v @ size, terms)
    if _is_point(x):
        w, size = x.lower, np.abs(x.lower)
        return affine(y, lambda v: w @ v, lambda v: size @ v, terms)
    return _four_corners(x, y)


def _is_point(x: Interval) -> bool:
    return bool((x.lower == x.upper).all())


def _four_corners(x: Interval, y: Interval) -> Interval:
    """Sum over k of the exact ranges of ``x[.., i, k] y[.., k, j]``, in memory of the result."""
    terms = x.shape[-1]
    g = relative_error(terms)
    low: Any = 0.0
    high: Any = 0.0
    low_size: Any = 0.0
    high_size: Any = 0.0
    with np.errstate(all="ignore"):
        for k in range(terms):
            a, b = x.lower[..., :, k, None], x.upper[..., :, k, None]
            c, d = y.lower[..., k, None, :], y.upper[..., k, None, :]
            ac, ad, bc, bd = a * c, a * d, b * c, b * d
            least = np.minimum(np.minimum(ac, ad), np.minimum(bc, bd))
            most = np.maximum(np.maximum(ac, ad), np.maximum(bc, bd))
            low, low_size = low + least, low_size + np.abs(least)
            high, high_size = high + most, high_size + np.abs(most)
        below = widened(low, g * low_size, terms)
        above = widened(high, g * high_size, terms)
    return Interval(below.lower, above.upper)
