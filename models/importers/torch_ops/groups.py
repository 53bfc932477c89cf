"""Sorting in groups: ``sort`` and ``topk``."""

from __future__ import annotations

from tangency.models.builder import Builder, Value
from tangency.models.importers.torch_ops.context import Call, Missing, reads
from tangency.models.ops import GroupSort, Shape

__all__ = ["group_sort"]


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
