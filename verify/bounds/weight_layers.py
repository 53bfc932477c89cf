"""Layers whose weights are variables, written in ops of two variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import (
    BatchNorm,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    LayerNorm,
    MatMul,
    Op,
    Pad,
    Prelu,
    Product,
    Quotient,
    Reshape,
    Scale,
    Shape,
    numpy_backend,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.lowering_writer import Writer

__all__ = ["RULES", "Rule"]

Array = Any
Fixed = Mapping[str, Array]
Variables = Mapping[str, int]


@dataclass(frozen=True)
class Rule:
    """How an op is written when some of its parameters are variables.

    Attributes
    ----------
    roles : tuple of str
        Parameters in which it is linear (or, for a divisor, a quotient).
    build : callable (write, op, inputs, fixed, variables) -> node
        Writes it; the parameters are arrays, or nodes.
    """

    roles: tuple[str, ...]
    build: Callable[[Writer, Any, list[int], Fixed, Variables], int]


def _dense(write: Writer, op: Dense, inputs: list[int], fixed: Fixed, given: Variables) -> int:
    """``x W^T + b``."""
    (x,) = inputs
    shape = write.shape(x)
    if "weight" in given:
        w = write.transpose(given["weight"], (1, 0))
        rows = x if len(shape) > 1 else write.reshape(x, (1, *shape))
        y = write.add(MatMul(), rows, w)
        y = write.reshape(y, (*shape[:-1], write.shape(w)[1]))
    else:
        y = write.add(Dense(), x, weight=fixed["weight"])
    return _shifted(write, y, fixed, given, write.shape(y)[-1:])


def _convolution(
    write: Writer, op: Conv | ConvTranspose, inputs: list[int], fixed: Fixed, given: Variables
) -> int:
    """The kernel as a matrix, times the windows of the input as columns, group by group."""
    (x,), n = inputs, len(op.stride)
    if "weight" not in given:
        y = write.add(op, x, weight=fixed["weight"])
    else:
        w, shape = given["weight"], write.shape(x)
        kernel = write.shape(w)[2:]
        out = op.infer((shape,), {"weight": write.shape(w)})
        lead, entries = shape[: -n - 1], prod(shape[-n - 1 :])
        columns = _columns(op, shape[-n - 1 :], kernel)
        flat = write.reshape(x, (*lead, entries))
        if (columns == entries).any():
            flat = _padded(write, flat)
        flat = write.gather(flat, columns.reshape(-1).tolist(), len(lead))
        per_group = shape[-n - 1] // op.groups
        places = prod(out[-n:])
        flat = write.reshape(flat, (*lead, op.groups, per_group * prod(kernel), places))
        y = write.add(MatMul(), _matrix(write, op, w), flat)
        y = write.reshape(y, out)
    channels = write.shape(y)[-n - 1]
    return _shifted(write, y, fixed, given, (channels, *(1,) * n))


def _padded(write: Writer, x: int) -> int:
    """One zero more at the end of the last axis."""
    rank = len(write.shape(x))
    return write.add(Pad((*((0, 0),) * (rank - 1), (0, 1))), x)


def _matrix(write: Writer, op: Conv | ConvTranspose, w: int) -> int:
    """The kernel as ``(groups, outputs, inputs * taps)``."""
    first, second, *kernel = write.shape(w)
    g = op.groups
    if isinstance(op, Conv):
        return write.reshape(w, (g, first // g, second * prod(kernel)))
    split = write.reshape(w, (g, first // g, second, prod(kernel)))
    return write.reshape(
        write.transpose(split, (0, 2, 1, 3)), (g, second, first // g * prod(kernel))
    )


def _columns(op: Conv | ConvTranspose, shape: Shape, kernel: Shape) -> Array:
    """``(channels * taps, places)``: the flat index of what each tap sees; entries for nothing."""
    n, backend = len(kernel), numpy_backend()
    count = np.arange(1, prod(shape) + 1).reshape((1, *shape))
    if isinstance(op, Conv):
        count = np.pad(count, ((0, 0), (0, 0), *op.padding))
        windows = backend.windows(count, kernel, op.stride, op.dilation)
    else:
        # The transpose of a correlation is one with zeros between entries, the kernel turned round.
        count = backend.dilate(count, op.stride)
        reach = [d * (k - 1) for d, k in zip(op.dilation, kernel, strict=True)]
        ends = [
            (f - lo, f - hi + extra)
            for f, (lo, hi), extra in zip(reach, op.padding, op.output_padding, strict=True)
        ]
        pads = tuple((max(0, lo), max(0, hi)) for lo, hi in ends)
        count = np.pad(count, ((0, 0), (0, 0), *pads))
        cut = tuple(
            slice(max(0, -lo), size - max(0, -hi))
            for (lo, hi), size in zip(ends, count.shape[2:], strict=True)
        )
        count = count[(slice(None), slice(None), *cut)]
        windows = backend.windows(count, kernel, (1,) * n, op.dilation)
        windows = np.flip(windows, axis=tuple(range(-n, 0)))
    index = np.asarray(windows)[0]  # (C, *out, *K)
    order = (0, *range(1 + n, 1 + 2 * n), *range(1, 1 + n))
    index = index.transpose(order).reshape((shape[0] * prod(kernel), -1))
    return np.where(index == 0, prod(shape), index - 1)


def _scale(write: Writer, op: Scale, inputs: list[int], fixed: Fixed, given: Variables) -> int:
    """``x s`` or ``x / s``."""
    return write.add(Quotient() if op.inverse else Product(), inputs[0], given["scale"])


def _constant(
    write: Writer, op: Constant, inputs: list[int], fixed: Fixed, given: Variables
) -> int:
    """The variable itself, under the constant's name."""
    value = given["value"]
    return write.add(Reshape(write.shape(value)), value)


def _prelu(write: Writer, op: Prelu, inputs: list[int], fixed: Fixed, given: Variables) -> int:
    """``relu(x) - slope relu(-x)``."""
    (x,) = inputs
    slope, rank = given["slope"], len(write.shape(inputs[0]))
    shape = op.slopes(np.empty(write.shape(slope)), rank).shape[1:]
    negative = write.function("relu", write.times(x, np.asarray(-1.0)))
    product = write.add(Product(), negative, write.reshape(slope, shape))
    return write.minus(write.function("relu", x), product)


def _normed(
    write: Writer,
    op: BatchNorm | LayerNorm,
    inputs: list[int],
    fixed: Fixed,
    given: Variables,
) -> int:
    """The norm without what is variable, then times the weight, plus the bias."""
    (x,) = inputs
    inside = {role: v for role, v in fixed.items() if role in ("mean", "var")}
    y = write.add(op, x, **inside)
    rank, sizes = len(write.shape(x)), {role: v.shape for role, v in fixed.items()}
    sizes |= {role: write.shape(v) for role, v in given.items()}
    shapes = {r: _affine_shape(op, sizes[r], rank) for r in ("weight", "bias") if r in sizes}
    if "weight" in given:
        y = write.add(Product(), y, write.reshape(given["weight"], shapes["weight"]))
    elif "weight" in fixed:
        y = write.times(y, fixed["weight"].reshape(shapes["weight"]))
    return _shifted(write, y, fixed, given, shapes.get("bias", ()))


def _affine_shape(op: BatchNorm | LayerNorm, size: Shape, rank: int) -> Shape:
    if isinstance(op, LayerNorm):
        shape: Shape = op.affine_part(np.empty(size), rank).shape[1:]
        return shape
    axis = normalise_axis(op.axis, rank)
    return tuple(size[0] if i == axis else 1 for i in range(rank))


def _shifted(write: Writer, y: int, fixed: Fixed, given: Variables, shape: Shape) -> int:
    """Plus the bias, in the shape given, if there is one."""
    if "bias" in given:
        return write.plus(y, write.reshape(given["bias"], shape))
    return write.shifted(y, fixed["bias"].reshape(shape)) if "bias" in fixed else y


RULES: dict[type[Op], Rule] = {
    BatchNorm: Rule(("weight", "bias"), _normed),
    Constant: Rule(("value",), _constant),
    Conv: Rule(("weight", "bias"), _convolution),
    ConvTranspose: Rule(("weight", "bias"), _convolution),
    Dense: Rule(("weight", "bias"), _dense),
    LayerNorm: Rule(("weight", "bias"), _normed),
    Prelu: Rule(("slope",), _prelu),
    Scale: Rule(("scale",), _scale),
}
