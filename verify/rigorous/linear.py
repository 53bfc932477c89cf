"""Layers with fixed coefficients: exact ranges, rounded outwards."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.ops import (
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Reduce,
    Scale,
    Upsample,
    numpy_backend,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.enclosure import affine, total
from tangency.verify.rigorous.registry import aligned, rule

__all__ = ["average_pool", "batch_norm", "convolution", "dense", "reduce", "scale", "upsample"]

Params = Mapping[str, Any]
_HALF_ULP = 2.0**-53


@rule(Dense)
def dense(op: Dense, params: Params, x: Interval) -> Interval:
    """``x W^T + b``."""
    w = params["weight"]
    size = np.abs(w)
    return affine(x, lambda v: v @ w.T, lambda v: v @ size.T, w.shape[1], bias=params.get("bias"))


@rule(Conv, ConvTranspose)
def convolution(op: Conv | ConvTranspose, params: Params, x: Interval) -> Interval:
    """Both convolutions: the op itself with W and with ``|W|``."""
    w, backend, n = params["weight"], numpy_backend(), len(op.stride)
    size = np.abs(w)
    channels = w.shape[1] if isinstance(op, Conv) else w.shape[0] // op.groups
    bias = params["bias"].reshape((-1, *(1,) * n)) if "bias" in params else None
    return affine(
        x,
        lambda v: op.apply(backend, {"weight": w}, v),
        lambda v: op.apply(backend, {"weight": size}, v),
        channels * prod(w.shape[2:]),
        bias=bias,
    )


@rule(BatchNorm)
def batch_norm(op: BatchNorm, params: Params, x: Interval) -> Interval:
    """``gain (x - mean) + bias`` with an enclosure of ``gain = weight / sqrt(var + eps)``."""
    rank = len(x.shape)
    shape = [1] * rank
    shape[normalise_axis(op.axis, rank - 1) + 1] = -1
    spread = Interval(params["var"]) + op.eps
    if not (spread.lower > 0).all():
        channel = int(np.argmin(spread.lower))
        raise InputError(
            f"variance + eps is {spread.lower[channel]:g} in channel {channel}, not > 0"
        )
    gain = Interval(params.get("weight", np.ones_like(params["var"])))
    gain = gain / interval_namespace.sqrt(spread)
    gain = Interval(gain.lower.reshape(shape), gain.upper.reshape(shape))
    y = (x - Interval(params["mean"].reshape(shape))) * gain
    return y + Interval(params["bias"].reshape(shape)) if "bias" in params else y


@rule(Scale)
def scale(op: Scale, params: Params, x: Interval) -> Interval:
    """``x * scale`` or ``x / scale``."""
    x, factor = aligned(x, Interval(params["scale"][None]))
    if not op.inverse:
        return x * factor
    if not params["scale"].all():
        raise InputError("division by a constant that has a zero")
    return x / factor


@rule(Reduce)
def reduce(op: Reduce, params: Params, x: Interval) -> Interval:
    """Sum or mean over axes."""
    axes = tuple(normalise_axis(a, len(x.shape) - 1) + 1 for a in op.axes)
    result = total(x, axes)
    return result / float(prod(x.shape[a] for a in axes)) if op.how == "mean" else result


@rule(AveragePool)
def average_pool(op: AveragePool, params: Params, x: Interval) -> Interval:
    """Sums over windows, divided by the counts."""
    backend, n = numpy_backend(), len(op.size)

    def windows(v: Any) -> Any:
        v = np.pad(v, ((0, 0),) * (v.ndim - n) + op.padding)
        wins = backend.windows(v, op.size, op.stride, (1,) * n)
        return wins.reshape((*wins.shape[: v.ndim], -1))

    sums = total(Interval(windows(x.lower), windows(x.upper)), (len(x.shape),))
    return sums / op.counts(x.shape[-n:])


@rule(Upsample)
def upsample(op: Upsample, params: Params, x: Interval) -> Interval:
    """Repetition is exact; interpolation is a small matrix on each axis in turn.

    The positions between entries are computed in float64, so that a coefficient is known to within
    a few units in the last place of the position: that error too is enclosed.
    """
    rank, n = len(x.shape), len(op.size)
    for axis, new in zip(range(rank - n, rank), op.size, strict=True):
        old = x.shape[axis]
        matrix = op.matrix(old, new)
        if op.how == "nearest":
            pick = matrix.argmax(axis=1)
            x = Interval(x.lower.take(pick, axis), x.upper.take(pick, axis))
            continue
        slack = _near(matrix) * (16 * _HALF_ULP * (old + new))
        x = affine(
            x,
            _along(matrix, axis),
            _along(np.abs(matrix) + slack, axis),
            old,
            slack=_along(slack, axis),
        )
    return x


def _near(matrix: Any) -> Any:
    """Ones where a coefficient or a neighbour of it is not zero, else zeros."""
    there = np.pad(matrix != 0, ((0, 0), (1, 1)))
    return (there[:, :-2] | there[:, 1:-1] | there[:, 2:]).astype(np.float64)


def _along(matrix: Any, axis: int) -> Any:
    return lambda v: np.moveaxis(np.tensordot(v, matrix.T, axes=([axis], [0])), -1, axis)
