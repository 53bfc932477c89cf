"""MaxMin written by hand, found again as GroupSort, whatever the framework.

Every entry of such a composite is the larger or the smaller of two entries of one tensor. Which
two is computed, not guessed: the numbers of the entries go through the ops that move them. The
composite is GroupSort, exactly, if the pairs are those of one axis; a permutation of axes between
the sorted pairs and the result (the pairs stacked in front, channels last) may remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tangency.models.builder import Builder, Value
from tangency.models.ops import (
    Concat,
    Extremum,
    Gather,
    GroupSort,
    Op,
    ReduceExtremum,
    Reshape,
    Select,
    Shape,
    Slice,
    Transpose,
    numpy_backend,
)

__all__ = ["Pairs", "group_sort_of", "sorted_pairs"]

_MOVES = (Reshape, Transpose, Slice, Gather)
_CHOICES = (Extremum, ReduceExtremum, Select)
#: Larger tensors are not looked at, nor composites of more nodes.
_LIMIT = 2**22
_LONGEST = 48


@dataclass(frozen=True)
class Pairs:
    """Entries that are the larger or the smaller of entries ``low <= high`` of a tensor.

    Attributes
    ----------
    low, high : int arrays of one shape
        Numbers of the two entries, in row-major order; equal where an entry is merely moved.
    larger : bool array of that shape
        Whether the larger of the two is meant.
    """

    low: np.ndarray
    high: np.ndarray
    larger: np.ndarray

    @property
    def plain(self) -> bool:
        """Whether entries are merely moved."""
        return bool((self.low == self.high).all())

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Pairs:
        """The same, moved."""
        return Pairs(move(self.low), move(self.high), move(self.larger))


def sorted_pairs(
    builder: Builder, values: Sequence[Value], axis: int, *, name: str = ""
) -> tuple[Value, tuple[int, ...]] | None:
    """MaxMin, when values to be joined along an axis are the maxima and minima of pairs.

    Returns
    -------
    (Value, permutation) or None
        Axis i of the values, joined, is axis ``permutation[i]`` of the value. ``name`` is the
        name of the new node, by default that of the layer being read.
    """
    total = sum(prod(v.shape) for v in values)
    if total > _LIMIT or total % 2:
        return None
    for root in _roots(builder, [v.node for v in values], total):
        found = [_described(builder, v.node, root) for v in values]
        parts = [
            p.moved(lambda array, shape=v.shape: array.reshape(shape))  # type: ignore[misc]
            for p, v in zip(found, values, strict=True)
            if p is not None
        ]
        if len(parts) < len(values):
            continue
        place = group_sort_of(builder.nodes[root].shape, _joined(parts, axis))
        if place is not None:
            shape, op, order, view = place
            builder.scope = name or builder.scope
            source = Value(root, (1, *builder.nodes[root].shape))
            return builder.emit(op, [builder.laid_out(source, shape)], view=view), order
    return None


def group_sort_of(
    own: Shape, pairs: Pairs
) -> tuple[Shape, GroupSort, tuple[int, ...], Shape] | None:
    """The GroupSort of a tensor of shape ``own`` that makes the pairs.

    Returns
    -------
    (shape, op, permutation, view) or None
        ``op`` acts on the tensor under ``shape``; its result under ``view`` has the pairs' axis i
        as axis ``permutation[i]``.
    """
    low, high, total = pairs.low, pairs.high, prod(own)
    if low.size != total or total < 2:
        return None
    stride = int((high - low).flat[0])
    if stride < 1 or (high - low != stride).any() or (low // stride % 2).any():
        return None
    if total % (2 * stride):
        return None
    for descending in (True, False):
        # The place of each entry among the sorted: the first of a pair is the larger, or smaller.
        order = _axis_order(np.where(pairs.larger == descending, low, high))
        if order is None:
            continue
        view = tuple(low.shape[i] for i in order)
        permutation = tuple(order.index(i) for i in range(low.ndim))
        for axis, size in enumerate(own):
            if prod(own[axis + 1 :]) == stride and size % 2 == 0:
                return own, GroupSort(2, axis, descending), permutation, view
        lead = total // (2 * stride)  # two halves of an axis are an axis of two before it
        shape = (*((lead,) if lead > 1 else ()), 2, stride)
        return shape, GroupSort(2, len(shape) - 2, descending), permutation, view
    return None


def _axis_order(places: np.ndarray) -> list[int] | None:
    """The axes from slow to fast, if ``places`` is 0, 1, 2, ... with its axes transposed."""
    steps = {}
    for axis, size in enumerate(places.shape):
        index = tuple(1 if i == axis else 0 for i in range(places.ndim))
        steps[axis] = int(places[index] - places.flat[0]) if size > 1 else places.size
    order = sorted(steps, key=lambda axis: -steps[axis])
    count = np.arange(places.size).reshape([places.shape[i] for i in order])
    return order if (places.transpose(order) == count).all() else None


def _joined(parts: Sequence[Pairs], axis: int) -> Pairs:
    fields = [[p.low for p in parts], [p.high for p in parts], [p.larger for p in parts]]
    return Pairs(*(np.concatenate(field, axis) for field in fields))


def _roots(builder: Builder, ends: Sequence[int], size: int) -> list[int]:
    """Nodes of a size that the ends may be computed from, the first of the graph first."""
    seen: set[int] = set()
    stack, choices = list(ends), False
    while stack:
        i = stack.pop()
        op = builder.nodes[i].op
        if i in seen:
            continue
        seen.add(i)
        if len(seen) > _LONGEST:
            return []
        choices = choices or isinstance(op, _CHOICES)
        if isinstance(op, (*_MOVES, *_CHOICES, Concat)):
            stack.extend(builder.nodes[i].inputs)
    return [i for i in sorted(seen) if prod(builder.nodes[i].shape) == size] if choices else []


def _described(builder: Builder, index: int, root: int) -> Pairs | None:
    """What the entries of a node are, in terms of the root's."""
    node = builder.nodes[index]
    if index == root:
        numbers = np.arange(prod(node.shape)).reshape(node.shape)
        return Pairs(numbers, numbers, np.ones(node.shape, bool))
    if index < root or not isinstance(node.op, (*_MOVES, *_CHOICES, Concat)):
        return None
    inputs = [_described(builder, i, root) for i in node.inputs]
    given = [p for p in inputs if p is not None]
    if len(given) < len(inputs):
        return None
    op = node.op
    if isinstance(op, _MOVES):
        return given[0].moved(lambda array: _applied(op, array))
    if isinstance(op, Concat):
        return _joined(given, op.axis)
    return _chosen(op, given) if all(p.plain for p in given) else None


def _applied(op: Op, array: np.ndarray) -> np.ndarray:
    return np.asarray(op.apply(numpy_backend(), {}, array[None])[0])


def _chosen(op: Op, given: Sequence[Pairs]) -> Pairs | None:
    """The larger or smaller of two, as three ops say it."""
    if isinstance(op, ReduceExtremum):
        (axis,) = op.axes if len(op.axes) == 1 else (None,)
        if axis is None or given[0].low.shape[axis] != 2:
            return None
        a, b = (np.take(given[0].low, k, axis) for k in (0, 1))
        return _ordered(a, b, op.how == "max")
    numbers = [p.low for p in given]
    if len({n.shape for n in numbers}) > 1:
        return None
    if isinstance(op, Extremum) and len(numbers) == 2:
        return _ordered(numbers[0], numbers[1], op.how == "max")
    if isinstance(op, Select):  # x > y ? a : b
        x, y, a, b = numbers
        same, crossed = [(x == p).all() and (y == q).all() for p, q in ((a, b), (b, a))]
        return _ordered(x, y, bool(same)) if same or crossed else None
    return None


def _ordered(a: np.ndarray, b: np.ndarray, larger: bool) -> Pairs:
    return Pairs(np.minimum(a, b), np.maximum(a, b), np.full(a.shape, larger))
