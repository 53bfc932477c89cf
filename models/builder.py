"""Builder: the ops that importers share, on top of :class:`.emitter.Emitter`.

It keeps the graph tidy as it is written: transposes that undo each other vanish, a bias joins its
dense layer, an op that changes nothing adds no node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.activations.registry import is_called
from tangency.models.emitter import Emitter, Value, strip
from tangency.models.errors import InputError
from tangency.models.ops import (
    Activate,
    Add,
    Broadcast,
    Concat,
    Constant,
    Dense,
    MatMul,
    Op,
    Scale,
    Shape,
    Subtract,
    Transpose,
)
from tangency.models.ops.base import broadcast_shapes, normalise_axis
from tangency.models.structure import Node

__all__ = ["Builder", "Value"]


class Builder(Emitter):
    """Writes a graph op by op: see :class:`.emitter.Emitter` for its parameters."""

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The value under another shape: no node until one is needed."""
        shape = tuple(int(s) for s in shape)
        if prod(shape) != prod(value.shape):
            raise InputError(f"{self.scope}: {value.shape} cannot become {shape}")
        return replace(value, shape=shape)

    def transpose(self, value: Value, permutation: Sequence[int]) -> Value:
        """Axes in another order; moving only axes of size one adds no node."""
        perm = tuple(normalise_axis(int(p), len(value.shape)) for p in permutation)
        view = tuple(value.shape[p] for p in perm)
        long = [p for p in perm if value.shape[p] != 1]
        if long == sorted(long):
            return Value(value.node, view)
        order = sorted(long)
        squeezed = tuple(value.shape[p] for p in order)
        own = self.nodes[value.node]
        if isinstance(own.op, Transpose) and tuple(s for s in own.shape if s != 1) == squeezed:
            # Two transposes are one, or none.
            before = self.nodes[own.inputs[0]].shape
            inner = [p for p in own.op.permutation if before[p] != 1]
            combined = [inner[order.index(p)] for p in long]
            if combined == sorted(combined):
                return Value(own.inputs[0], view)
        if own.shape == squeezed:
            node, axes = value.node, tuple(order.index(p) for p in long)
        elif own.shape == value.shape[1:] and perm[0] == 0:
            node, axes = value.node, tuple(p - 1 for p in perm[1:])
        elif value.shape[0] == 1 and perm[0] == 0 and len(perm) > 1:
            node = self.laid_out(value, value.shape[1:])
            axes = tuple(p - 1 for p in perm[1:])
        else:
            node = self.laid_out(value, squeezed)
            axes = tuple(order.index(p) for p in long)
        return self.emit(Transpose(axes), [node], view=view)

    def activation(self, value: Value, record: Activation) -> Value:
        """A function of one variable on every entry."""
        if is_called(record, "identity"):
            return value
        return self.emit(Activate(record), [value.node], view=value.shape)

    def elementwise(self, op: Op, *values: Value) -> Value:
        """An op of several variables with NumPy's broadcasting."""
        view = broadcast_shapes(*(v.shape for v in values))
        shapes = {v.shape for v in values}
        if len(shapes) == 1 and len({self.nodes[v.node].shape for v in values}) == 1:
            return self.emit(op, [v.node for v in values], view=view)
        rank = len(view)
        padded = [(1,) * (rank - len(v.shape)) + v.shape for v in values]
        if rank > 1 and view[0] == 1:
            padded = [s[1:] for s in padded]
        nodes = [self.laid_out(v, s) for v, s in zip(values, padded, strict=True)]
        return self.emit(op, nodes, view=view)

    def _against(self, value: Value, array: np.ndarray) -> tuple[Value, np.ndarray, Shape]:
        """Lay a value and a constant out so that they broadcast as samples."""
        view = broadcast_shapes(value.shape, array.shape)
        if array.size == 1:
            return value, array.reshape(()), view
        rank = len(view)
        shape = (1,) * (rank - len(value.shape)) + value.shape
        wide = array.reshape((1,) * (rank - array.ndim) + array.shape)
        if rank > 1 and view[0] == 1:
            shape, wide = shape[1:], wide[0]
        value = Value(self.laid_out(value, shape), value.shape)
        while wide.ndim > 1 and wide.shape[0] == 1:
            wide = wide[0]
        return value, wide, view

    def shift(
        self, value: Value, array: Any, *, key: str = "shift", trainable: bool = True
    ) -> Value:
        """``value + array``: the bias of the dense layer before it where it can be."""
        array = np.asarray(array)
        before = self.nodes[value.node]
        width = before.shape[-1:]
        if (
            isinstance(before.op, Dense)
            and len(before.params) == 1
            and value.shape[-1:] == width
            and (array.size,) == width == (array.shape[-1:] or (1,))
            and broadcast_shapes(value.shape, array.shape) == value.shape
        ):
            kept = before.params[0]
            arrays = {"weight": (kept.key, self.weights[kept.key]), "bias": (key, array.ravel())}
            self._forget_name(before)
            buffers = [r for r, t in (("weight", kept.trainable), ("bias", trainable)) if not t]
            return self.emit(before.op, before.inputs, arrays, view=value.shape, buffers=buffers)
        value, array, view = self._against(value, array)
        if not array.any() and not trainable and prod(view) == prod(value.shape):
            return Value(value.node, view)
        constant = self.emit(Constant(), [], {"value": (key, array)}, trainable=trainable)
        return self.emit(Add(), [value.node, constant.node], view=view)

    def _forget_name(self, node: Node) -> None:
        """Let the next node take the name of one that it stands for."""
        i = self.nodes.index(node)
        self.nodes[i] = replace(node, name=self._name(f"{node.name}_without_bias"))
        self._names.pop(node.name, None)
        self.scope = node.name

    def negate(self, value: Value) -> Value:
        """``-value``."""
        return self.scale(value, np.asarray(-1.0, self.dtype), trainable=False)

    def minus_from(self, array: Any, value: Value, *, key: str = "minuend") -> Value:
        """``array - value`` for a constant array."""
        value, array, view = self._against(value, np.asarray(array))
        constant = self.emit(Constant(), [], {"value": (key, array)}, trainable=False)
        return self.emit(Subtract(), [constant.node, value.node], view=view)

    def scale(
        self,
        value: Value,
        array: Any,
        *,
        inverse: bool = False,
        key: str = "scale",
        trainable: bool = True,
    ) -> Value:
        """``value * array``, or ``value / array``."""
        array = np.asarray(array)
        if array.dtype.kind in "iub":
            array = array.astype(self.dtype)
        value, array, view = self._against(value, array)
        if inverse and not array.all():
            raise InputError(f"layer {self.scope!r}: division by a constant that is zero")
        if not trainable and (array == 1).all() and prod(view) == prod(value.shape):
            return Value(value.node, view)
        params = {"scale": (key, array)}
        return self.emit(Scale(inverse), [value.node], params, view=view, trainable=trainable)

    def dense(
        self,
        value: Value,
        weight: Any,
        bias: Any = None,
        *,
        keys: tuple[str, str] = ("weight", "bias"),
        trainable: tuple[bool, bool] = (True, True),
    ) -> Value:
        """``value @ weight.T + bias`` on the last axis: weight (out, in), bias (out,) or None."""
        weight = np.asarray(weight)
        view = (*value.shape[:-1], weight.shape[0])
        node, (axis,) = self.aligned(value, -1)
        if axis != len(self.nodes[node].shape) - 1:
            node = self.laid_out(value, strip(value.shape))
        params = {"weight": (keys[0], weight)}
        if bias is not None:
            params["bias"] = (keys[1], bias)
        buffers = [r for r, t in zip(("weight", "bias"), trainable, strict=True) if not t]
        return self.emit(Dense(), [node], params, view=view, buffers=buffers)

    def matmul(self, x: Value, y: Value) -> Value:
        """``x @ y`` of two variables (or constants as nodes), as in NumPy for rank >= 2."""
        view = (*broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])

        def squeezed(v: Value) -> int:
            shape = (1,) * (len(view) - len(v.shape)) + v.shape
            while len(shape) > 2 and shape[0] == 1:
                shape = shape[1:]
            return self.laid_out(v, shape)

        return self.emit(MatMul(), [squeezed(x), squeezed(y)], view=view)

    def broadcast(self, value: Value, shape: Sequence[int]) -> Value:
        """Entries repeated to a larger shape; new axes of size one add no node."""
        shape = tuple(int(s) for s in shape)
        if prod(shape) == prod(value.shape):
            return replace(value, shape=shape)
        padded = (1,) * (len(shape) - len(value.shape)) + value.shape
        target = shape
        if len(shape) > 1 and shape[0] == 1:
            padded, target = padded[1:], shape[1:]
        return self.emit(Broadcast(target), [self.laid_out(value, padded)], view=shape)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Values joined along one axis of theirs."""
        rank = len(values[0].shape)
        axis = normalise_axis(axis, rank)
        view = list(values[0].shape)
        view[axis] = sum(v.shape[axis] for v in values)
        if len(values) == 1:
            return values[0]
        drop = rank > 1 and axis != 0 and view[0] == 1
        nodes = [self.laid_out(v, v.shape[1:] if drop else v.shape) for v in values]
        return self.emit(Concat(axis - 1 if drop else axis), nodes, view=tuple(view))
