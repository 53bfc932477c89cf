"""MaxMin written as maxima and minima of pairs, found again as GroupSort.

Each entry of such a composite is the larger or the smaller of two entries of one tensor. Which two
is computed by sending the numbers of the entries through the ops that move them; the composite is
GroupSort if these are exactly the pairs of one axis, each in its place, or its two halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops import Const, Item
from tangency.models.importers.pairs import Pairs, group_sort_of

if TYPE_CHECKING:
    from tangency.models.importers.onnx_trace import Tracer

__all__ = ["Graph", "maxmin"]

MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Identity")
#: Larger tensors are not looked at.
LIMIT = 2**20


@dataclass(frozen=True)
class _Pairs:
    """Entries that are the larger or smaller (``larger``) of entries ``a < b`` of a tensor."""

    source: str
    a: np.ndarray
    b: np.ndarray
    larger: np.ndarray


class Graph:
    """The nodes behind a name, and what names stand for by now.

    Parameters
    ----------
    tracer : Tracer
        Holds the graph and what its values are by now.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.producers = {o: node for node in tracer.graph.node for o in node.output}

    def item(self, name: str) -> Item | None:
        """What a name stands for by now."""
        return self.tracer.items.get(name)

    def made_by(self, name: str, *ops: str) -> Any:
        """The node that gives this name, if it is of one of these op types."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in ops else None

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        """An attribute of a node."""
        from onnx.helper import get_attribute_value

        for attribute in node.attribute:
            if attribute.name == name:
                return get_attribute_value(attribute)
        return default


def maxmin(graph: Graph, node: Any) -> Value | None:
    """The GroupSort that ends in this node, or None."""
    pairs = _pairs(graph, node.output[0], node)
    if pairs is None:
        return None
    value = graph.item(pairs.source)
    if not isinstance(value, Value):
        return None
    builder = graph.tracer.builder
    own = builder.nodes[value.node].shape
    place = group_sort_of(own, Pairs(pairs.a, pairs.b, pairs.larger))
    if place is None:
        return None
    shape, op, order, view = place
    index = builder.laid_out(Value(value.node, (1, *own)), shape)
    return builder.transpose(builder.emit(op, [index], view=view), order)


def _pairs(graph: Graph, name: str, node: Any = None, depth: int = 12) -> _Pairs | None:
    node = node if node is not None else graph.producers.get(name)
    if node is None or depth == 0:
        return None
    op = node.op_type
    if op in ("Max", "Min") and len(node.input) == 2:
        sides = [_numbers(graph, n) for n in node.input]
        if None in sides:
            return None
        (source, a), (other, b) = sides  # type: ignore[misc]
        if source != other or a.shape != b.shape:
            return None
        return _ordered(source, a, b, op == "Max")
    if op in ("ReduceMax", "ReduceMin"):
        return _reduced(graph, node)
    if op == "Concat":
        parts = [_pairs(graph, n, None, depth - 1) for n in node.input]
        whole = [p for p in parts if p is not None]
        if len(whole) != len(parts) or len({p.source for p in whole}) != 1:
            return None
        axis = graph.attribute(node, "axis", 1)
        a, b, larger = (
            np.concatenate([getattr(p, f) for p in whole], axis) for f in ("a", "b", "larger")
        )
        return _Pairs(whole[0].source, a, b, larger)
    if op in MOVES:
        inner = _pairs(graph, node.input[0], None, depth - 1)
        if inner is None:
            return None
        moved = [_moved(graph, node, name, m) for m in (inner.a, inner.b, inner.larger)]
        if any(m is None for m in moved):
            return None
        return _Pairs(inner.source, *moved)  # type: ignore[arg-type]
    return None


def _ordered(source: str, a: np.ndarray, b: np.ndarray, larger: bool) -> _Pairs:
    return _Pairs(source, np.minimum(a, b), np.maximum(a, b), np.full(a.shape, larger))


def _reduced(graph: Graph, node: Any) -> _Pairs | None:
    found = _numbers(graph, node.input[0])
    axes = graph.attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        given = graph.item(node.input[1])
        axes = given.array.reshape(-1) if isinstance(given, Const) else None
    if found is None or axes is None or len(axes) != 1:
        return None
    source, numbers = found
    axis = int(axes[0])
    if numbers.shape[axis] != 2:
        return None
    a, b = np.take(numbers, 0, axis), np.take(numbers, 1, axis)
    if graph.attribute(node, "keepdims", 1):
        a, b = np.expand_dims(a, axis), np.expand_dims(b, axis)
    return _ordered(source, a, b, node.op_type == "ReduceMax")


def _numbers(graph: Graph, name: str, depth: int = 12) -> tuple[str, np.ndarray] | None:
    """The tensor whose entries a name stands for, and which entry is where."""
    node = graph.made_by(name, *MOVES)
    if node is not None and depth:
        inner = _numbers(graph, node.input[0], depth - 1)
        if inner is not None:
            moved = _moved(graph, node, name, inner[1])
            if moved is not None:
                return inner[0], moved
    value = graph.item(name)
    if not isinstance(value, Value) or prod(value.shape) > LIMIT:
        return None
    return name, np.arange(prod(value.shape)).reshape(value.shape)


def _moved(graph: Graph, node: Any, name: str, array: np.ndarray) -> np.ndarray | None:
    """The array sent through an op that moves entries."""
    op = node.op_type
    known = graph.item(name)
    if op == "Transpose":
        return np.transpose(array, graph.attribute(node, "perm"))
    if op in ("Slice", "Split"):
        from tangency.models.importers.onnx_fold import fold

        inputs = [graph.item(n) if n else None for n in node.input[1:]]
        if any(i is not None and not isinstance(i, Const) for i in inputs):
            return None
        opsets = {"": graph.tracer.opset}
        parts = fold(node, name, [Const(array, name), *inputs], opsets)  # type: ignore[list-item]
        return parts[list(node.output).index(name)].array
    if isinstance(known, Value):
        return array.reshape(known.shape)
    target = graph.item(node.input[1]) if op == "Reshape" and len(node.input) > 1 else None
    if isinstance(target, Const) and target.array.size <= 32:
        shape = [int(s) for s in target.array.reshape(-1)]
        shape = [array.shape[i] if s == 0 else s for i, s in enumerate(shape)]
        return array.reshape(shape)
    if op == "Flatten":
        axis = graph.attribute(node, "axis", 1)
        return array.reshape(prod(array.shape[:axis]), -1)
    return None
