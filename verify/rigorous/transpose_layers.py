"""Layers with weights, backwards: dense, both convolutions, batch norm, scale."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.ops import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Scale,
    Shape,
    numpy_backend,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.cropping import Window, crop, expand
from tangency.verify.rigorous.dots import unbroadcast
from tangency.verify.rigorous.enclosure import midpoint_radius, relative_error
from tangency.verify.rigorous.transpose import Linear, behind_batch, builds
from tangency.verify.rigorous.windows import transposed_convolution

__all__: list[str] = []

Array = Any
Params = Mapping[str, Array]


@builds(Dense)
def _dense(op: Dense, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    w, g = params["weight"], relative_error(params["weight"].shape[0])
    size = np.ascontiguousarray(np.abs(w).T)
    bias = params.get("bias")

    def pull(a: Array) -> Array:  # one product of two matrices, not one for each sample
        return (a.reshape((-1, w.shape[0])) @ w).reshape((*a.shape[:-1], w.shape[1]))

    return Linear(
        (pull,),
        (lambda m: g * (m @ size),),
        None if bias is None else np.broadcast_to(bias, shape),
    )


@builds(Conv)
def _conv(op: Conv, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    w, n, backend = params["weight"], len(op.stride), numpy_backend()
    size, space = np.abs(w), inputs[0][-n:]
    g = relative_error(w.shape[0] // op.groups * prod(w.shape[2:]))

    def pull(a: Array) -> Array:
        flat = a.reshape((-1, *a.shape[-n - 1 :]))
        x = transposed_convolution(flat, w, op.stride, op.padding, op.dilation, op.groups, space)
        return x.reshape((*a.shape[: -n - 1], *x.shape[1:]))

    def near(a: Array, window: Window) -> tuple[Array, Window | None]:
        if len(window) != n:
            return pull(expand(a, window, shape)), None
        flat = a.reshape((-1, *a.shape[-n - 1 :]))
        axes = zip(window, op.stride, op.padding, op.dilation, w.shape[2:], space, strict=True)
        pads, place = [], []
        for part, s, (lo, _), d, k, size in axes:
            first, last = part.start * s - lo, (part.stop - 1) * s - lo + d * (k - 1) + 1
            place.append(slice(max(first, 0), min(last, size)))
            pads.append((max(-first, 0), max(last - size, 0)))
        inner = tuple(p.stop - p.start for p in place)
        if min(inner) <= 0:  # all of it lies in the padding
            return pull(expand(a, window, shape)), None
        x = transposed_convolution(flat, w, op.stride, tuple(pads), op.dilation, op.groups, inner)
        return x.reshape((*a.shape[: -n - 1], *x.shape[1:])), tuple(place)

    return Linear(
        (pull,),
        (lambda m: g * op.apply(backend, {"weight": size}, m),),
        _channel_shift(params, n, shape),
        near=near,
    )


@builds(ConvTranspose)
def _conv_transpose(
    op: ConvTranspose, params: Params, inputs: tuple[Shape, ...], shape: Shape
) -> Linear:
    w, n, backend = params["weight"], len(op.stride), numpy_backend()
    size, space = np.abs(w), inputs[0][-n:]
    g = relative_error(w.shape[1] * prod(w.shape[2:]))
    cut = (slice(None), slice(None), *map(slice, space))

    def pull(a: Array) -> Array:
        flat = a.reshape((-1, *a.shape[-n - 1 :]))
        x = backend.conv(flat, w, op.stride, op.padding, op.dilation, op.groups)[cut]
        return x.reshape((*a.shape[: -n - 1], *x.shape[1:]))

    return Linear(
        (pull,),
        (lambda m: g * op.apply(backend, {"weight": size}, m),),
        _channel_shift(params, n, shape),
    )


def _channel_shift(params: Params, n: int, shape: Shape) -> Array | None:
    if "bias" not in params:
        return None
    return np.broadcast_to(params["bias"].reshape((-1, *(1,) * n)), shape)


@builds(BatchNorm)
def _batch_norm(op: BatchNorm, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    spread = Interval(params["var"]) + op.eps
    if not (spread.lower > 0).all():
        raise InputError("the variance + eps of a channel is not > 0")
    gain = Interval(params.get("weight", np.ones_like(params["var"])))
    gain = gain / interval_namespace.sqrt(spread)
    shift = Interval(params.get("bias", np.zeros_like(params["var"]))) - gain * params["mean"]
    place = [1] * len(shape)
    place[normalise_axis(op.axis, len(shape))] = -1
    (w, dw), (v, dv) = (
        tuple(np.reshape(part, place) for part in midpoint_radius(x)) for x in (gain, shift)
    )
    size = relative_error(1) * np.abs(w) + dw
    return Linear(
        (lambda a: a * w,),
        (lambda m: m * size,),
        np.broadcast_to(v, shape),
        np.broadcast_to(dv, shape),
        near=lambda a, window: (a * crop(np.broadcast_to(w, shape), window), window),
    )


@builds(Scale)
def _scale(op: Scale, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    s = params["scale"]
    if op.inverse and not s.all():
        raise InputError("division by a constant that has a zero")
    size = relative_error(prod(shape) // prod(inputs[0]) + 1)
    size = size / np.abs(s) if op.inverse else size * np.abs(s)
    s = s.reshape((*(1,) * (len(shape) - s.ndim), *s.shape))
    return Linear(
        (lambda a: unbroadcast(a / s if op.inverse else a * s, inputs[0]),),
        (lambda m: np.broadcast_to(behind_batch(m, len(shape)) * size, (len(m), *shape)),),
    )
