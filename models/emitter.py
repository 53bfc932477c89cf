"""Emitter: nodes and weights of a graph as it is written, and the Network at the end.

Importers trace a model at a batch of one and speak in the framework's full shapes, batch axis
included. A :class:`Value` is a node seen under such a shape: a reshape costs nothing until an op
needs entries laid out so, and axes of size one (the batch axis first of all) never reach the
graph. What comes out is the graph of one sample.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.gains import Entries, Gains
from tangency.models.network import Network
from tangency.models.ops import Constant, Input, Op, Reshape, Shape
from tangency.models.ops.base import normalise_axis
from tangency.models.structure import Node, Param, Structure

__all__ = ["Emitter", "Value", "strip"]


@dataclass(frozen=True)
class Value:
    """A variable of the traced model: node ``node`` of the graph, seen under ``shape``.

    ``shape`` is the framework's, with the batch axis of size one; its entries are those of the
    node in row-major order.
    """

    node: int
    shape: Shape


def strip(shape: Shape) -> Shape:
    """The shape of one sample: without a leading axis of size one, if another axis is left."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


class Emitter:
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
        self._named: dict[str, str] = {}
        #: How weights depend on the model's parameters, where an importer has noted it.
        self.gains = Gains()
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
        self._named[key] = base
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
        stripped = array.reshape(strip(array.shape))
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
        return self.laid_out(value, strip(value.shape))

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

    # --- writing the graph again --------------------------------------------------------------

    def held_weights(self) -> dict[str, tuple[str, np.ndarray, bool]]:
        """By key: the key that a weight was entered under, its array, whether it is trainable."""
        return {k: (self._named[k], a, self._trainable[k]) for k, a in self.weights.items()}

    def restart(self, kept: Iterable[int]) -> list[Node]:
        """Take all nodes out and return them; names and weights of some stay reserved."""
        nodes, self.nodes, self.inputs = self.nodes, [], []
        staying = [nodes[i] for i in kept]
        keys = {p.key for node in staying for p in node.params}
        self._names = {node.name: 1 for node in staying}
        self.weights = {k: a for k, a in self.weights.items() if k in keys}
        return nodes

    def copy(self, node: Node, inputs: Iterable[int]) -> int:
        """Append a node as it was, of other inputs; its index."""
        self.nodes.append(replace(node, inputs=tuple(inputs)))
        if isinstance(node.op, Input):
            self.inputs.append(len(self.nodes) - 1)
        return len(self.nodes) - 1

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
        learnt = {p.key for i in order for p in self.nodes[i].params if p.trainable}
        gains = self.gains.settled(Counter(self._named[key] for key in learnt))
        nodes = tuple(
            replace(
                self.nodes[i],
                inputs=tuple(place[j] for j in self.nodes[i].inputs),
                params=tuple(
                    replace(p, gain=gains[self._named[p.key]]) if p.key in learnt else p
                    for p in self.nodes[i].params
                ),
            )
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

    def held(self, key: str) -> list[tuple[Entries, float]]:
        """Which entries of the parameters a weight may hold, with their factors."""
        return self.gains.held(self._named.get(key, key))

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
