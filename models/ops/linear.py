"""Affine layers with weights: dense, convolution, transposed convolution, batch norm, scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tangency.models.ops.backend import Backend
from tangency.models.ops.base import (
    Op,
    Shape,
    broadcast_shapes,
    normalise_axis,
    register_op,
    same_rank,
)

__all__ = ["BatchNorm", "Conv", "ConvTranspose", "Dense", "Scale"]


def _channels(x: Any, values: Any, axis: int) -> Any:
    """Reshape per-channel values to stand on sample axis ``axis`` of x, a batch of samples."""
    shape = [1] * x.ndim
    shape[axis + 1] = values.shape[0]
    return values.reshape(shape)


@register_op
@dataclass(frozen=True)
class Dense(Op):
    """``y = x W^T + b`` on the last axis: weight ``(out, in)``, bias ``(out,)``."""

    kind: ClassVar[str] = "dense"
    roles: ClassVar[tuple[str, ...]] = ("weight", "bias")
    required: ClassVar[tuple[str, ...]] = ("weight",)
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,), weight = inputs, params["weight"]
        self.require(len(weight) == 2, f"the weight is a matrix (out, in), got shape {weight}")
        self.require(
            len(shape) > 0 and shape[-1] == weight[1],
            f"weight {weight} takes {weight[1]} features on the last axis, the input is {shape}",
        )
        bias = params.get("bias", (weight[0],))
        self.require(bias == (weight[0],), f"bias {bias} does not fit weight {weight}")
        return (*shape[:-1], weight[0])

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        y = inputs[0] @ params["weight"].T
        return y + params["bias"] if "bias" in params else y


@register_op
@dataclass(frozen=True)
class Conv(Op):
    """Convolution (cross-correlation) of the last axes ``(..., C, *S)``; n = 1 or 2 dimensions.

    weight ``(O, C/groups, *K)``, bias ``(O,)``; ``padding`` gives (before, after) for each
    spatial axis, in zeros.
    """

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    kind: ClassVar[str] = "conv"
    roles: ClassVar[tuple[str, ...]] = ("weight", "bias")
    required: ClassVar[tuple[str, ...]] = ("weight",)
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,), weight = inputs, params["weight"]
        n = len(self.stride)
        self.require(
            len(weight) == n + 2 and len(shape) >= n + 1,
            f"a {n}-d convolution takes weight (O, C, {'K, ' * n}) and input (..., C, *S), "
            f"got {weight} and {shape}",
        )
        channels, space = shape[-n - 1], shape[-n:]
        self.require(
            channels == weight[1] * self.groups and weight[0] % self.groups == 0,
            f"weight {weight} in {self.groups} groups does not fit {channels} channels",
        )
        bias = params.get("bias", (weight[0],))
        self.require(bias == (weight[0],), f"bias {bias} does not fit weight {weight}")
        out = []
        for i in range(n):
            span = self.dilation[i] * (weight[2 + i] - 1) + 1
            size = (space[i] + sum(self.padding[i]) - span) // self.stride[i] + 1
            self.require(size > 0, f"the kernel {weight[2:]} is larger than the input {space}")
            out.append(size)
        return (*shape[: -n - 1], weight[0], *out)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), n = inputs, len(self.stride)
        lead = x.shape[: -n - 1]
        flat = x.reshape((-1, *x.shape[-n - 1 :]))
        y = backend.conv(
            flat, params["weight"], self.stride, self.padding, self.dilation, self.groups
        )
        if "bias" in params:
            y = y + _channels(y, params["bias"], 0)
        return y.reshape(lead + y.shape[1:])


@register_op
@dataclass(frozen=True)
class ConvTranspose(Op):
    """Transposed convolution of ``(..., C, *S)``: weight ``(C, O/groups, *K)``, bias ``(O,)``.

    The transpose of :class:`Conv` with the same stride, padding and dilation, plus
    ``output_padding`` zeros' worth of outputs at the end of each axis.
    """

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, ...] = (0, 0)

    kind: ClassVar[str] = "conv_transpose"
    roles: ClassVar[tuple[str, ...]] = ("weight", "bias")
    required: ClassVar[tuple[str, ...]] = ("weight",)
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,), weight = inputs, params["weight"]
        n = len(self.stride)
        self.require(
            len(weight) == n + 2 and len(shape) >= n + 1 and shape[-n - 1] == weight[0],
            f"weight {weight} does not fit an input {shape}",
        )
        self.require(
            weight[0] % self.groups == 0,
            f"weight {weight} cannot be split in {self.groups} groups",
        )
        channels = weight[1] * self.groups
        bias = params.get("bias", (channels,))
        self.require(bias == (channels,), f"bias {bias} does not fit weight {weight}")
        space = [
            (size - 1) * s - sum(p) + d * (k - 1) + 1 + extra
            for size, s, p, d, k, extra in zip(
                shape[-n:],
                self.stride,
                self.padding,
                self.dilation,
                weight[2:],
                self.output_padding,
                strict=True,
            )
        ]
        self.require(min(space) > 0, f"no output is left of an input {shape}")
        return (*shape[: -n - 1], channels, *space)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), w, n, xp = inputs, params["weight"], len(self.stride), backend.xp
        lead = x.shape[: -n - 1]
        flat = backend.dilate(x.reshape((-1, *x.shape[-n - 1 :])), self.stride)
        # The transpose of a correlation is a correlation with the kernel turned round.
        g, kernel = self.groups, w.shape[2:]
        w = xp.flip(w, axis=tuple(range(2, 2 + n))).reshape(g, w.shape[0] // g, w.shape[1], *kernel)
        w = xp.swapaxes(w, 1, 2).reshape(g * w.shape[2], -1, *kernel)
        full = [d * (k - 1) for d, k in zip(self.dilation, kernel, strict=True)]
        ends = [
            (f - lo, f - hi + extra)
            for f, (lo, hi), extra in zip(full, self.padding, self.output_padding, strict=True)
        ]
        # A padding beyond the kernel's reach crops instead.
        crop = [(max(0, -lo), max(0, -hi)) for lo, hi in ends]
        pads = tuple((max(0, lo), max(0, hi)) for lo, hi in ends)
        y = backend.conv(flat, w, (1,) * n, pads, self.dilation, g)
        cut = tuple(slice(lo, size - hi) for (lo, hi), size in zip(crop, y.shape[2:], strict=True))
        y = y[(slice(None), slice(None), *cut)]
        if "bias" in params:
            y = y + _channels(y, params["bias"], 0)
        return y.reshape(lead + y.shape[1:])


@register_op
@dataclass(frozen=True)
class BatchNorm(Op):
    """Batch norm in inference: ``weight (x - mean) / sqrt(var + eps) + bias`` on one axis."""

    axis: int = 0
    eps: float = 1e-5

    kind: ClassVar[str] = "batch_norm"
    roles: ClassVar[tuple[str, ...]] = ("mean", "var", "weight", "bias")
    required: ClassVar[tuple[str, ...]] = ("mean", "var")
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,) = inputs
        channels = shape[normalise_axis(self.axis, len(shape))]
        for role, got in params.items():
            self.require(got == (channels,), f"{role} {got} does not fit {channels} channels")
        return shape

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,) = inputs
        axis = normalise_axis(self.axis, x.ndim - 1)
        gain = 1.0 / backend.xp.sqrt(params["var"] + self.eps)
        y = (x - _channels(x, params["mean"], axis)) * _channels(x, gain, axis)
        if "weight" in params:
            y = y * _channels(x, params["weight"], axis)
        return y + _channels(x, params["bias"], axis) if "bias" in params else y


@register_op
@dataclass(frozen=True)
class Scale(Op):
    """Element-wise ``x * scale`` (or ``x / scale``), the parameter broadcast as in NumPy."""

    inverse: bool = False

    kind: ClassVar[str] = "scale"
    roles: ClassVar[tuple[str, ...]] = ("scale",)
    required: ClassVar[tuple[str, ...]] = ("scale",)
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        return broadcast_shapes(inputs[0], params["scale"])

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        x, scale = same_rank(inputs[0], params["scale"][None])
        return backend.divide(x, scale) if self.inverse else x * scale
