"""Builder: writes a graph op by op for the importers, and keeps it tidy as it goes.

Importers trace a model at a batch of one and speak to the builder in the framework's full shapes,
batch axis included. A :class:`Value` is a node seen under such a shape: a reshape costs nothing
until an op needs entries laid out so, and axes of size one (the batch axis first of all) never
reach the graph. What comes out is the graph of one sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    Add,
    Broadcast,
    Concat,
    Constant,
    Dense,
    Input,
    MatMul,
    Op,
    Reshape,
    Scale,
    Shape,
    Subtract,
    Transpose,
)
from tangency.models.ops.base import broadcast_shapes, normalise_axis
from tangency.models.structure import Node, Param, Structure

__all__ = ["Builder", "Value"]


@dataclass(frozen=True)
class Value:
    """A variable of the traced model: node ``node`` of the graph, seen under ``shape``.

    ``shape`` is the framework's, with the batch axis of size one; its entries are those of the
    node in row-major order.
    """

    node: int
    shape: Shape


def _strip(shape: Shape) -> Shape:
    """The shape of one sample: without a leading axis of size one, if another axis is left."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


class Builder:
    """Collects nodes and weights, then makes a Network of them.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Type of the network. Weights of less precision are widened; others are refused.
    batched : bool
        Whether axis 0 of the model's inputs and outputs is the batch, traced at size one.
    """

    def __init__(self, dtype: str = "float32", *, batched: bool = True) -> None:
        self.dtype = dtype
        self.batched = batched
        self.nodes: list[Node] = []
        self.inputs: list[int] = []
        self.weights: dict[str, np.ndarray] = {}
        self._trainable: dict[str, bool] = {}
        self._names: dict[str, int] = {}
        #: Name that the next nodes take, set by importers to the layer being read.
        self.scope = ""

    # --- weights, inputs, constants ---------------------------------------------------------

    def weight(self, key: str, array: Any, *, trainable: bool = True) -> str:
        """Enter a weight and return its key; the same key with the same array is shared."""
        array = np.asarray(array)
        if array.dtype.kind == "f" and array.dtype.itemsize <= np.dtype(self.dtype).itemsize:
            array = np.ascontiguousarray(array, self.dtype).reshape(array.shape)
        else:
            raise InputError(
                f"weight {key!r} is {array.dtype}: the network is {self.dtype}, "
                "weights are floating-point of no more precision"
            )
        if not np.isfinite(array).all():
            raise InputError(f"weight {key!r} has a NaN or infinite entry")
        base, n = key, 1
        while key in self.weights and not _same(self.weights[key], array):
            n += 1
            key = f"{base}#{n}"
        self.weights[key] = array
        self._trainable[key] = self._trainable.get(key, False) or trainable
        return key

    def input(self, shape: Sequence[int], *, name: str = "input") -> Value:
        """An input of the model, in the framework's shape."""
        shape = tuple(int(s) for s in shape)
        sample = shape[1:] if self.batched else shape
        if self.batched and (not shape or shape[0] != 1):
            raise InputError(f"input {name!r}: trace at a batch of one, got shape {shape}")
        self.nodes.append(Node(self._name(name), Input(), (), sample))
        self.inputs.append(len(self.nodes) - 1)
        return Value(len(self.nodes) - 1, shape)

    def constant(self, array: Any, *, key: str = "constant", trainable: bool = False) -> Value:
        """A fixed tensor as a node of its own."""
        array = np.asarray(array)
        if array.dtype.kind in "iub":
            array = array.astype(self.dtype)
        stripped = array.reshape(_strip(array.shape))
        value = self.emit(Constant(), [], {"value": (key, stripped)}, trainable=trainable)
        return Value(value.node, array.shape)

    # --- nodes ------------------------------------------------------------------------------

    def emit(
        self,
        op: Op,
        inputs: Iterable[int | Value],
        params: dict[str, tuple[str, Any]] | None = None,
        *,
        view: Shape | None = None,
        trainable: bool = True,
        buffers: Iterable[str] = (),
    ) -> Value:
        """Append a node that takes nodes as they lie, and return its value.

        ``params`` maps a role to (key, array); roles in ``buffers`` are not trainable. ``view``
        is the framework's shape of the result; by default the sample's with a batch axis of one.
        """
        indices = tuple(v.node if isinstance(v, Value) else v for v in inputs)
        held = []
        for role, (key, array) in (params or {}).items():
            fixed = role in set(buffers) or not trainable
            name = self.weight(key, array, trainable=not fixed)
            held.append(Param(role, name, self.weights[name].shape, not fixed))
        shapes = {p.role: p.shape for p in held}
        try:
            shape = tuple(op.infer(tuple(self.nodes[i].shape for i in indices), shapes))
        except InputError as error:
            raise InputError(f"layer {self.scope or op.kind!r}: {error}") from None
        base = self.scope or op.kind
        if self.scope and isinstance(op, Reshape | Constant):  # what a layer needs beside itself
            base = f"{base}.{op.kind}"
        self.nodes.append(Node(self._name(base), op, indices, shape, tuple(held)))
        view = (1, *shape) if view is None else tuple(view)
        if prod(view) != prod(shape):
            raise InputError(
                f"layer {self.nodes[-1].name!r} ({op.kind}): gives {shape}, expected {view}"
            )
        return Value(len(self.nodes) - 1, view)

    def _name(self, base: str) -> str:
        base = re.sub(r"\s+", "_", base) or "node"
        n = self._names.get(base, 0) + 1
        while n > 1 and f"{base}_{n}" in self._names:  # a layer of the model may bear that name
            n += 1
        self._names[base] = n
        name = base if n == 1 else f"{base}_{n}"
        self._names.setdefault(name, 1)
        return name

    def laid_out(self, value: Value, shape: Shape) -> int:
        """Index of a node with the value's entries in exactly this shape."""
        node = self.nodes[value.node]
        if node.shape == shape:
            return value.node
        source = value.node
        if isinstance(node.op, Reshape):
            source = node.inputs[0]
            if self.nodes[source].shape == shape:
                return source
        return self.emit(Reshape(shape), [source]).node

    def sample(self, value: Value) -> int:
        """Index of a node laid out as the value without its batch axis."""
        return self.laid_out(value, _strip(value.shape))

    def aligned(self, value: Value, *axes: int) -> tuple[int, tuple[int, ...]]:
        """A node that carries the value, and where these axes of the value are among its own.

        No node is added when the value and its node differ by axes of size one alone and each
        axis asked for is there.
        """
        wanted = tuple(normalise_axis(a, len(value.shape)) for a in axes)
        own = self.nodes[value.node].shape
        if own == value.shape:
            return value.node, wanted
        if own == value.shape[1:] and 0 not in wanted:
            return value.node, tuple(a - 1 for a in wanted)
        seen = [i for i, s in enumerate(value.shape) if s != 1]
        kept = [i for i, s in enumerate(own) if s != 1]
        if [value.shape[i] for i in seen] == [own[i] for i in kept] and set(wanted) <= set(seen):
            where = dict(zip(seen, kept, strict=True))
            return value.node, tuple(where[a] for a in wanted)
        if value.shape[0] == 1 and len(value.shape) > 1 and 0 not in wanted:
            return self.laid_out(value, value.shape[1:]), tuple(a - 1 for a in wanted)
        return self.laid_out(value, value.shape), wanted

    # --- ops that importers share -----------------------------------------------------------

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
        if record.name == "identity":
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
            node = self.laid_out(value, _strip(value.shape))
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

    # --- the end ----------------------------------------------------------------------------

    def finish(self, outputs: Sequence[Value], *, source: str = "") -> Network:
        """The Network: only nodes that an output needs, outputs laid out as samples.

        Raises
        ------
        UnsupportedError
            When an output does not depend on any input.
        """
        self.scope = "output"
        ends = []
        for value in outputs:
            node = value.node
            shape = value.shape
            if self.batched:
                if not shape or shape[0] != 1:
                    raise UnsupportedError(
                        f"the model's output has shape {shape} at a batch of one: its axis 0 is "
                        "not the batch; give batch_axis=None with an example of one sample"
                    )
                shape = shape[1:]
            ends.append(self.laid_out(value, shape) if shape != self.nodes[node].shape else node)
        needed: set[int] = set(self.inputs)
        stack = list(ends)
        while stack:
            i = stack.pop()
            if i not in needed or i in self.inputs:
                needed.add(i)
                stack.extend(j for j in self.nodes[i].inputs if j not in needed)
        if not any(i in self._ancestors(ends) for i in self.inputs):
            raise UnsupportedError("the output does not depend on any input of the model")
        order = sorted(needed)
        place = {old: new for new, old in enumerate(order)}
        nodes = tuple(
            replace(self.nodes[i], inputs=tuple(place[j] for j in self.nodes[i].inputs))
            for i in order
        )
        structure = Structure(
            nodes,
            tuple(place[i] for i in self.inputs),
            tuple(place[i] for i in ends),
            self.dtype,
        )
        weights = {key: self.weights[key] for key in structure.param_shapes}
        return Network(structure, weights, source=source)

    def _ancestors(self, ends: Iterable[int]) -> set[int]:
        seen: set[int] = set()
        stack = list(ends)
        while stack:
            i = stack.pop()
            if i not in seen:
                seen.add(i)
                stack.extend(self.nodes[i].inputs)
        return seen


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool((a == b).all())
