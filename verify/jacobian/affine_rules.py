"""Derivatives of affine ops: interval cotangents go through the transpose of each."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.ops import (
    Add,
    AveragePool,
    BatchNorm,
    Broadcast,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Gather,
    Pad,
    Reduce,
    Reshape,
    Scale,
    Slice,
    Subtract,
    Transpose,
    Upsample,
    numpy_backend,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.jacobian.adjoint import gathered_from, pulled, scattered, window_index
from tangency.verify.jacobian.registry import Place, lifted, rule, summed_to

__all__ = ["add", "average_pool", "batch_norm", "convolution", "dense", "moving", "reduce", "scale"]

Cotangents = list[Interval | None]


@rule(Dense)
def dense(place: Place, c: Interval) -> Cotangents:
    """``c W``."""
    w = place.params["weight"]
    return [pulled(c, lambda m: lambda v: v @ m, w, w.shape[0])]


@rule(Conv, ConvTranspose)
def convolution(place: Place, c: Interval) -> Cotangents:
    """Each is the transpose of the other, with the same kernel."""
    op, w, shape = place.op, place.params["weight"], place.shapes[0]
    space = shape[-len(op.stride) :]
    back = _transposed(op, w.shape, c.shape, space)

    def transpose(m: Any) -> Any:
        def apply(v: Any) -> Any:
            # The map takes one batch axis: N and S go through it as one.
            y = back.apply(numpy_backend(), {"weight": m}, v.reshape((-1, *v.shape[2:])))
            y = y[(..., *(slice(0, s) for s in space))]
            return y.reshape((*v.shape[:2], *shape))

        return apply

    terms = prod(w.shape[2:]) * (w.shape[0] if isinstance(op, Conv) else w.shape[1])
    return [pulled(c, transpose, w, terms)]


def _transposed(op: Any, kernel: tuple[int, ...], out: tuple[int, ...], space: Any) -> Any:
    if isinstance(op, ConvTranspose):
        return Conv(op.stride, op.padding, op.dilation, op.groups)
    n = len(op.stride)
    sizes = zip(space, out[-n:], op.stride, op.padding, op.dilation, kernel[2:], strict=True)
    extra = tuple(size - ((o - 1) * s - sum(p) + d * (k - 1) + 1) for size, o, s, p, d, k in sizes)
    return ConvTranspose(op.stride, op.padding, op.dilation, op.groups, extra)


@rule(BatchNorm)
def batch_norm(place: Place, c: Interval) -> Cotangents:
    """``c`` times an enclosure of ``weight / sqrt(var + eps)``."""
    op, params = place.op, place.params
    spread = Interval(params["var"]) + op.eps
    if not (spread.lower > 0).all():
        raise InputError(f"variance + eps is {spread.lower.min():g} in a channel, not > 0")
    gain = Interval(params.get("weight", np.ones_like(params["var"])))
    gain = gain / interval_namespace.sqrt(spread)
    shape = [1] * len(c.shape)
    shape[normalise_axis(op.axis, len(c.shape) - 2) + 2] = -1
    return [c * Interval(gain.lower.reshape(shape), gain.upper.reshape(shape))]


@rule(Scale)
def scale(place: Place, c: Interval) -> Cotangents:
    """``c * scale`` or ``c / scale``."""
    factor = lifted(Interval(place.params["scale"][None]), len(c.shape) - 2)
    return [summed_to(c / factor if place.op.inverse else c * factor, place.shapes[0])]


@rule(Add, Subtract)
def add(place: Place, c: Interval) -> Cotangents:
    """``c`` to both, with a minus sign to what is subtracted."""
    second = -c if isinstance(place.op, Subtract) else c
    return [summed_to(c, place.shapes[0]), summed_to(second, place.shapes[1])]


@rule(Broadcast, Concat, Gather, Pad, Reshape, Slice, Transpose)
def moving(place: Place, c: Interval) -> Cotangents:
    """Every entry goes back to where it came from."""
    return [
        scattered(c, gathered_from(place.op, place.shapes, i), shape) if live else None
        for i, (shape, live) in enumerate(zip(place.shapes, place.live, strict=True))
    ]


@rule(Reduce)
def reduce(place: Place, c: Interval) -> Cotangents:
    """The cotangent of a sum goes to every entry; that of a mean is divided by their number."""
    shape = place.shapes[0]
    axes = {normalise_axis(a, len(shape)) for a in place.op.axes}
    if place.op.how == "mean":
        c = c / float(prod(shape[a] for a in axes))
    thin = (*c.shape[:2], *(1 if i in axes else s for i, s in enumerate(shape)))
    whole = (*c.shape[:2], *shape)
    return [
        Interval(
            np.broadcast_to(c.lower.reshape(thin), whole),
            np.broadcast_to(c.upper.reshape(thin), whole),
        )
    ]


@rule(AveragePool)
def average_pool(place: Place, c: Interval) -> Cotangents:
    """Each window gives its share to each of its entries."""
    op, shape = place.op, place.shapes[0]
    n = len(op.size)
    share = c / op.counts(shape[-n:])
    index = window_index(shape, op.size, op.stride, op.padding, (1,) * n)
    wide = Interval(share.lower[..., None], share.upper[..., None])
    return [scattered(wide, index, shape)]


@rule(Upsample)
def upsample(place: Place, c: Interval) -> Cotangents:
    """The transpose of one small matrix after another, each known to a few units in the last place.

    The interpolation matrices have no negative entries, whatever their rounding.
    """
    op, shape = place.op, place.shapes[0]
    if op.how == "nearest":
        return [scattered(c, gathered_from(op, place.shapes, 0), shape)]
    rank, n = len(shape), len(op.size)
    for axis, new in zip(range(rank - n, rank), op.size, strict=True):
        old = shape[axis]
        matrix = op.matrix(old, new)
        there = np.pad(matrix != 0, ((0, 0), (1, 1)))
        near = there[:, :-2] | there[:, 1:-1] | there[:, 2:]
        slack = near * (16 * 2.0**-53 * (old + new))
        c = pulled(c, _along(axis + 2), matrix, new, slack=slack)
    return [c]


def _along(axis: int) -> Any:
    def transpose(m: Any) -> Any:
        return lambda v: np.moveaxis(np.tensordot(v, m, axes=([axis], [0])), -1, axis)

    return transpose
