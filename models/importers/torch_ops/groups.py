"""Sorting in groups: ``sort`` and ``topk``, and the max-min pairs that people write by hand."""

from __future__ import annotations

from math import prod

from tangency.models.builder import Builder, Value
from tangency.models.importers.torch_ops.context import Call, Missing, reads
from tangency.models.ops import Extremum, GroupSort, ReduceExtremum, Reshape, Shape, Slice
from tangency.models.structure import Node

__all__ = ["sorted_pair"]


@reads("sort", "msort")
def sort(call: Call) -> tuple[Value, Missing] | Value:
    axis = int(call.get("dim", 0 if call.name == "msort" else -1))
    value = group_sort(call.builder, call.value(), axis, bool(call.get("descending", False)))
    return value if call.name == "msort" else (value, Missing("the indices of sort"))


@reads("topk")
def topk(call: Call) -> tuple[Value, Missing]:
    from tangency.models.importers.torch_ops.indexing import cut

    axis = call.axis()
    ordered = group_sort(call.builder, call.value(), axis, bool(call["largest"]))
    return cut(call.builder, ordered, axis, 0, int(call["k"])), Missing("the indices of topk")


def group_sort(builder: Builder, value: Value, axis: int, descending: bool) -> Value:
    """All entries of an axis sorted; groups that a reshape made are sorted where they lay."""
    rank, shape = len(value.shape), value.shape
    if rank == 0 or shape[axis % rank] == 1:
        return value
    axis %= rank
    size, own = shape[axis], builder.nodes[value.node].shape
    place = _merged(own, shape, axis)
    node = value.node
    if place is None:
        node, (place,) = builder.aligned(value, axis)
    return builder.emit(GroupSort(size, place, descending), [node], view=shape)


def _merged(own: Shape, shape: Shape, axis: int) -> int | None:
    """Where in ``own`` the axes before ``axis`` and itself lie as one axis, if they do."""
    if axis == 0 or shape[axis - 1] == 1:
        return None
    whole = (*shape[: axis - 1], shape[axis - 1] * shape[axis], *shape[axis + 1 :])
    for drop in range(axis):
        if whole[:drop] == (1,) * drop and whole[drop:] == own:
            return axis - 1 - drop
    return None


def sorted_pair(builder: Builder, values: list[Value], axis: int) -> Value | None:
    """MaxMin, when two values to be joined along an axis are its two halves; else None.

    They are the larger and the smaller of the same pairs: maximum and minimum over an axis of two
    entries, or of the two slices that take every second entry.
    """
    if len(values) != 2 or values[0].shape != values[1].shape or values[0].shape[axis] != 1:
        return None
    first, second = (builder.nodes[v.node] for v in values)
    hows = [str(getattr(n.op, "how", "")) for n in (first, second)]
    if sorted(hows) != ["max", "min"] or type(first.op) is not type(second.op):
        return None
    if isinstance(first.op, ReduceExtremum):
        found = _over_two(builder, first, second)
    else:
        found = _every_second(builder, first, second)
    shape = values[0].shape
    if found is None:
        return None
    node, place = found
    own = builder.nodes[node].shape
    # The joined axis must stand where the pairs did: as many entries before as it had pairs.
    if prod(own[: place + 1]) != 2 * prod(shape[:axis]):
        return None
    view = (*shape[:axis], 2, *shape[axis + 1 :])
    if own[place] > 2:
        return builder.emit(GroupSort(2, place, hows[0] == "max"), [node], view=view)
    before = builder.nodes[node]
    source = before.inputs[0] if isinstance(before.op, Reshape) else node
    ordered = group_sort(builder, Value(source, (1, *own)), place + 1, hows[0] == "max")
    return Value(ordered.node, view)


def _over_two(builder: Builder, first: Node, second: Node) -> tuple[int, int] | None:
    axes: tuple[int, ...] = getattr(first.op, "axes", ())
    same = _origin(builder, first.inputs[0]) == _origin(builder, second.inputs[0])
    same = same and axes == getattr(second.op, "axes", ())
    if not same or len(axes) != 1 or builder.nodes[first.inputs[0]].shape[axes[0]] != 2:
        return None
    return first.inputs[0], axes[0]


def _origin(builder: Builder, index: int) -> object:
    """The node, or where it is cut from and how: models cut and reshape the same thing twice."""
    node = builder.nodes[index]
    if isinstance(node.op, Reshape | Slice):
        return node.op, _origin(builder, node.inputs[0])
    return index


def _every_second(builder: Builder, first: Node, second: Node) -> tuple[int, int] | None:
    if not isinstance(first.op, Extremum):
        return None
    given = [{_origin(builder, i) for i in node.inputs} for node in (first, second)]
    halves = [builder.nodes[i] for i in first.inputs]
    ops = [h.op for h in halves if isinstance(h.op, Slice)]
    sources = {_origin(builder, h.inputs[0]) for h in halves if h.inputs}
    if given[0] != given[1] or len(ops) != 2 or len(sources) != 1:
        return None
    source = halves[0].inputs[0]
    own = builder.nodes[source].shape
    cuts = [[range(*s) for s in zip(op.start, op.stop, op.step, strict=True)] for op in ops]
    differ = [k for k in range(len(own)) if cuts[0][k] != cuts[1][k]]
    if len(differ) != 1:
        return None
    (k,) = differ
    pairs = {tuple(cuts[0][k]), tuple(cuts[1][k])} == {
        tuple(range(0, own[k], 2)),
        tuple(range(1, own[k], 2)),
    }
    whole = all(cuts[0][j] == range(own[j]) for j in range(len(own)) if j != k)
    return (source, k) if pairs and whole and own[k] % 2 == 0 else None
