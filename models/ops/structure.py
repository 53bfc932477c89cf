"""Affine ops without weights: moving, cutting, joining, summing and averaging entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from tangency.models.ops.backend import Backend
from tangency.models.ops.base import Op, Shape, normalise_axis, register_op

__all__ = [
    "AveragePool",
    "Broadcast",
    "Concat",
    "Gather",
    "Pad",
    "Reduce",
    "Reshape",
    "Slice",
    "Transpose",
    "Upsample",
]


@register_op
@dataclass(frozen=True)
class Reshape(Op):
    """The same entries in row-major order under another shape (of one sample)."""

    shape: Shape

    kind: ClassVar[str] = "reshape"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        self.require(prod(inputs[0]) == prod(self.shape), f"{inputs[0]} cannot become {self.shape}")
        return self.shape

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        return inputs[0].reshape((inputs[0].shape[0], *self.shape))


@register_op
@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order: output axis i is input axis ``permutation[i]``."""

    permutation: tuple[int, ...]

    kind: ClassVar[str] = "transpose"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,) = inputs
        self.require(
            sorted(self.permutation) == list(range(len(shape))),
            f"{self.permutation} is not a permutation of the axes of {shape}",
        )
        return tuple(shape[i] for i in self.permutation)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        return inputs[0].transpose((0, *(i + 1 for i in self.permutation)))


@register_op
@dataclass(frozen=True)
class Slice(Op):
    """Every ``step``-th entry from ``start`` to before ``stop`` along each axis (steps > 0)."""

    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    kind: ClassVar[str] = "slice"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,) = inputs
        rank_ok = len(shape) == len(self.start) == len(self.stop) == len(self.step)
        self.require(rank_ok, f"a slice of {len(self.start)} axes does not fit {shape}")
        for size, lo, hi, step in zip(shape, self.start, self.stop, self.step, strict=True):
            self.require(
                0 <= lo < hi <= size and step > 0, f"{lo}:{hi}:{step} leaves nothing of {size}"
            )
        return tuple(
            -(-(hi - lo) // step)
            for lo, hi, step in zip(self.start, self.stop, self.step, strict=True)
        )

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        cut = tuple(map(slice, self.start, self.stop, self.step))
        return inputs[0][(slice(None), *cut)]


@register_op
@dataclass(frozen=True)
class Gather(Op):
    """Entries ``indices`` along one axis, in that order; an index may come more than once."""

    indices: tuple[int, ...]
    axis: int = 0

    kind: ClassVar[str] = "gather"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,) = inputs
        axis = normalise_axis(self.axis, len(shape))
        size = shape[axis]
        self.require(
            len(self.indices) > 0 and all(0 <= i < size for i in self.indices),
            f"indices must lie in 0..{size - 1} and there must be some",
        )
        return (*shape[:axis], len(self.indices), *shape[axis + 1 :])

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,) = inputs
        axis = normalise_axis(self.axis, x.ndim - 1) + 1
        return backend.xp.take(x, np.asarray(self.indices), axis=axis)


@register_op
@dataclass(frozen=True)
class Pad(Op):
    """``value`` added around: (before, after) entries for each axis."""

    padding: tuple[tuple[int, int], ...]
    value: float = 0.0

    kind: ClassVar[str] = "pad"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,) = inputs
        self.require(
            len(shape) == len(self.padding) and all(min(p) >= 0 for p in self.padding),
            f"padding {self.padding} does not fit {shape}: pairs of counts >= 0, one an axis",
        )
        return tuple(size + sum(p) for size, p in zip(shape, self.padding, strict=True))

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        return backend.xp.pad(inputs[0], ((0, 0), *self.padding), constant_values=self.value)


@register_op
@dataclass(frozen=True)
class Concat(Op):
    """Inputs joined along one axis."""

    axis: int = 0

    kind: ClassVar[str] = "concat"
    arity: ClassVar[tuple[int, int | None]] = (1, None)
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        axis = normalise_axis(self.axis, len(inputs[0]))
        rest = {(*s[:axis], *s[axis + 1 :]) for s in inputs}
        self.require(len(rest) == 1, f"shapes {inputs} differ off axis {axis}")
        first = inputs[0]
        return (*first[:axis], sum(s[axis] for s in inputs), *first[axis + 1 :])

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        axis = normalise_axis(self.axis, inputs[0].ndim - 1) + 1
        batch = max(x.shape[0] for x in inputs)  # a constant among the inputs has batch one
        xs = [backend.xp.broadcast_to(x, (batch, *x.shape[1:])) for x in inputs]
        return backend.xp.concatenate(xs, axis=axis)


@register_op
@dataclass(frozen=True)
class Reduce(Op):
    """Sum or mean over some axes, which go away."""

    how: str = "sum"
    axes: tuple[int, ...] = (0,)

    kind: ClassVar[str] = "reduce"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        self.require(self.how in ("sum", "mean"), f"how is 'sum' or 'mean', got {self.how!r}")
        axes = {normalise_axis(a, len(inputs[0])) for a in self.axes}
        return tuple(size for i, size in enumerate(inputs[0]) if i not in axes)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,) = inputs
        axes = tuple(normalise_axis(a, x.ndim - 1) + 1 for a in self.axes)
        return x.sum(axis=axes) if self.how == "sum" else x.mean(axis=axes)


@register_op
@dataclass(frozen=True)
class Broadcast(Op):
    """Entries repeated to a larger shape by NumPy's rules."""

    shape: Shape

    kind: ClassVar[str] = "broadcast"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,), rank = inputs, len(self.shape)
        padded = (1,) * (rank - len(shape)) + shape
        fits = len(padded) == rank and all(
            a in (1, b) for a, b in zip(padded, self.shape, strict=True)
        )
        self.require(fits, f"{shape} does not broadcast to {self.shape}")
        return self.shape

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,) = inputs
        lead = (1,) * (len(self.shape) + 1 - x.ndim)
        x = x.reshape((x.shape[0], *lead, *x.shape[1:]))
        return backend.xp.broadcast_to(x, (x.shape[0], *self.shape))


@register_op
@dataclass(frozen=True)
class AveragePool(Op):
    """Mean over windows of the last axes ``(..., *S)``.

    With ``count_padding`` a window that reaches into the padding divides by its full size,
    otherwise by the number of real entries in it.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    count_padding: bool = True

    kind: ClassVar[str] = "average_pool"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        return pooled_shape(self, inputs[0], self.size, self.stride, self.padding)

    def counts(self, space: Shape) -> np.ndarray:
        """Divisor of each window, an array of the output's spatial shape."""
        total = np.ones(())
        for size, k, s, (lo, hi) in zip(space, self.size, self.stride, self.padding, strict=True):
            starts = np.arange((size + lo + hi - k) // s + 1) * s - lo
            real = np.minimum(starts + k, size) - np.maximum(starts, 0)
            line = np.full(len(starts), k) if self.count_padding else real
            total = np.multiply.outer(total, line)
        return total

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), n = inputs, len(self.size)
        space = x.shape[-n:]
        x = backend.xp.pad(x, ((0, 0),) * (x.ndim - n) + self.padding)
        wins = backend.windows(x, self.size, self.stride, (1,) * n)
        total = wins.sum(axis=tuple(range(-n, 0)))
        return total / self.counts(space).astype(total.dtype)


def pooled_shape(
    op: Op,
    shape: Shape,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...] | None = None,
) -> Shape:
    """Shape after pooling the last axes; InputError (naming op) when a window does not fit."""
    n = len(size)
    op.require(len(shape) >= n, f"windows {size} need {n} axes, the input is {shape}")
    dilation = dilation or (1,) * n
    ranks = {n, len(stride), len(padding), len(dilation)}
    op.require(len(ranks) == 1, f"size {size}, stride {stride}, padding, dilation differ in rank")
    out = []
    for length, k, s, (lo, hi), d in zip(shape[-n:], size, stride, padding, dilation, strict=True):
        op.require(max(lo, hi) < max(d * (k - 1) + 1, 1), f"padding {padding} exceeds {size}")
        count = (length + lo + hi - d * (k - 1) - 1) // s + 1
        op.require(count > 0, f"a window {size} does not fit an input {shape}")
        out.append(count)
    return (*shape[: len(shape) - n], *out)


@register_op
@dataclass(frozen=True)
class Upsample(Op):
    """Larger last axes: ``nearest`` repeats entries, ``linear`` interpolates between them.

    ``size`` is the output's size on each of the last ``len(size)`` axes. With ``align_corners``
    the outermost entries of input and output coincide (linear only), else pixel areas do.
    """

    size: tuple[int, ...]
    how: str = "nearest"
    align_corners: bool = False

    kind: ClassVar[str] = "upsample"
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,), n = inputs, len(self.size)
        self.require(self.how in ("nearest", "linear"), f"how is nearest or linear: {self.how!r}")
        self.require(len(shape) >= n and min(self.size) > 0, f"{self.size} does not fit {shape}")
        return (*shape[: len(shape) - n], *self.size)

    def matrix(self, old: int, new: int) -> np.ndarray:
        """The (new, old) interpolation matrix of one axis, float64; rows sum to one."""
        i = np.arange(new)
        if self.how == "nearest":
            matrix = np.zeros((new, old))
            matrix[i, np.minimum(i * old // new, old - 1)] = 1.0
            return matrix
        if self.align_corners:
            where = i * ((old - 1) / (new - 1)) if new > 1 else np.zeros(1)
        else:
            where = np.clip((i + 0.5) * (old / new) - 0.5, 0, old - 1)
        low = np.minimum(np.floor(where).astype(int), old - 1)
        part = where - low
        matrix = np.zeros((new, old))
        np.add.at(matrix, (i, low), 1.0 - part)
        np.add.at(matrix, (i, np.minimum(low + 1, old - 1)), part)
        return matrix

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), n = inputs, len(self.size)
        for i, new in enumerate(self.size):
            axis = x.ndim - n + i
            m = self.matrix(x.shape[axis], new).astype(x.dtype)
            x = backend.xp.moveaxis(backend.xp.tensordot(x, m.T, axes=([axis], [0])), -1, axis)
        return x
