"""Nonlinear layers: activations, pooling and reduction by maximum, softmax, norms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from tangency.models.activations import Activation
from tangency.models.ops.backend import Backend
from tangency.models.ops.base import Op, Shape, normalise_axis, register_op
from tangency.models.ops.structure import pooled_shape

__all__ = [
    "Activate",
    "LayerNorm",
    "LogSumExp",
    "MaxPool",
    "Prelu",
    "ReduceExtremum",
    "Softmax",
]


@register_op
@dataclass(frozen=True)
class Activate(Op):
    """A function of one variable on every entry: an Activation record of the catalogue."""

    activation: Activation

    kind: ClassVar[str] = "activation"

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        return inputs[0]

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        return self.activation.value(backend.nx, inputs[0])

    def describe(self) -> str:
        return str(self.activation)


@register_op
@dataclass(frozen=True)
class Prelu(Op):
    """``max(x, 0) + slope min(x, 0)`` with one slope a channel of ``axis``, or one for all."""

    axis: int = 0

    kind: ClassVar[str] = "prelu"
    roles: ClassVar[tuple[str, ...]] = ("slope",)
    required: ClassVar[tuple[str, ...]] = ("slope",)

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,), slope = inputs, params["slope"]
        channels = shape[normalise_axis(self.axis, len(shape))] if shape else 1
        self.require(slope in ((1,), (channels,)), f"slope {slope} does not fit {shape}")
        return shape

    def slopes(self, slope: Any, rank: int) -> Any:
        """The slopes shaped to broadcast over a batch of samples of ``rank`` axes."""
        if slope.shape[0] == 1:
            return slope.reshape((1,) * (rank + 1))
        shape = [1] * (rank + 1)
        shape[normalise_axis(self.axis, rank) + 1] = slope.shape[0]
        return slope.reshape(shape)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,) = inputs
        return backend.xp.where(x > 0, x, x * self.slopes(params["slope"], x.ndim - 1))


@register_op
@dataclass(frozen=True)
class MaxPool(Op):
    """Maximum over windows of the last axes ``(..., *S)``; padding never wins."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...] = (1, 1)

    kind: ClassVar[str] = "max_pool"

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        return pooled_shape(self, inputs[0], self.size, self.stride, self.padding, self.dilation)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), n = inputs, len(self.size)
        pads = ((0, 0),) * (x.ndim - n) + self.padding
        x = backend.xp.pad(x, pads, constant_values=-float("inf"))
        wins = backend.windows(x, self.size, self.stride, self.dilation)
        return wins.max(axis=tuple(range(-n, 0)))


@register_op
@dataclass(frozen=True)
class ReduceExtremum(Op):
    """Maximum or minimum over some axes, which go away."""

    how: str = "max"
    axes: tuple[int, ...] = (0,)

    kind: ClassVar[str] = "reduce_extremum"

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        self.require(self.how in ("max", "min"), f"how is 'max' or 'min', got {self.how!r}")
        axes = {normalise_axis(a, len(inputs[0])) for a in self.axes}
        return tuple(size for i, size in enumerate(inputs[0]) if i not in axes)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,) = inputs
        axes = tuple(normalise_axis(a, x.ndim - 1) + 1 for a in self.axes)
        return x.max(axis=axes) if self.how == "max" else x.min(axis=axes)


@register_op
@dataclass(frozen=True)
class Softmax(Op):
    """``exp(x) / sum exp(x)`` along one axis."""

    axis: int = -1

    kind: ClassVar[str] = "softmax"

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        normalise_axis(self.axis, len(inputs[0]))
        return inputs[0]

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), xp = inputs, backend.xp
        axis = normalise_axis(self.axis, x.ndim - 1) + 1
        e = xp.exp(x - x.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)


@register_op
@dataclass(frozen=True)
class LogSumExp(Op):
    """``log sum exp(x)`` over some axes, which go away."""

    axes: tuple[int, ...] = (-1,)

    kind: ClassVar[str] = "log_sum_exp"

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        axes = {normalise_axis(a, len(inputs[0])) for a in self.axes}
        return tuple(size for i, size in enumerate(inputs[0]) if i not in axes)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), xp = inputs, backend.xp
        axes = tuple(normalise_axis(a, x.ndim - 1) + 1 for a in self.axes)
        top = x.max(axis=axes, keepdims=True)
        return xp.log(xp.exp(x - top).sum(axis=axes)) + top.squeeze(axes)


@register_op
@dataclass(frozen=True)
class LayerNorm(Op):
    """``(x - mean) / sqrt(var + eps)`` over some axes, then ``* weight + bias``.

    The variance is that of the entries (divisor n). Weight and bias have the shape of the
    normalised axes. With ``center=False`` the mean is neither taken away nor in the variance
    (RMS norm).
    """

    axes: tuple[int, ...] = (-1,)
    eps: float = 1e-5
    center: bool = True

    kind: ClassVar[str] = "layer_norm"
    roles: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,) = inputs
        axes = sorted(normalise_axis(a, len(shape)) for a in self.axes)
        normed = tuple(shape[a] for a in axes)
        self.require(prod(normed) > 0, f"nothing to normalise in {shape}")
        for role, got in params.items():
            self.require(got == normed, f"{role} {got} does not fit the normalised axes {normed}")
        return shape

    def affine_part(self, value: Any, rank: int) -> Any:
        """Weight or bias shaped to broadcast over a batch of samples of ``rank`` axes."""
        axes = sorted(normalise_axis(a, rank) for a in self.axes)
        shape = [1] * (rank + 1)
        for a, size in zip(axes, value.shape, strict=True):
            shape[a + 1] = size
        return value.reshape(shape)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), xp = inputs, backend.xp
        axes = tuple(normalise_axis(a, x.ndim - 1) + 1 for a in self.axes)
        if self.center:
            x = x - x.mean(axis=axes, keepdims=True)
        y = x / xp.sqrt((x * x).mean(axis=axes, keepdims=True) + self.eps)
        if "weight" in params:
            y = y * self.affine_part(params["weight"], x.ndim - 1)
        return y + self.affine_part(params["bias"], x.ndim - 1) if "bias" in params else y
