"""Layouts: a tensor of the model is a node's value seen through a permutation of its axes.

A transpose is only noted down. Element-wise ops, reductions, pooling, slices and convolutions act
on the axes as they lie; a Transpose enters the graph where an op needs the entries in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tangency.models.builder import Builder, Value
from tangency.models.ops import Broadcast, Pad, Reshape, Slice

__all__ = ["Laid", "Layouts"]

Perm = tuple[int, ...]


@dataclass(frozen=True)
class Laid:
    """A tensor whose axis i is axis ``perm[i]`` of ``value``."""

    value: Value
    perm: Perm

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that the model sees."""
        return tuple(self.value.shape[p] for p in self.perm)


class Layouts:
    """Moves axes on behalf of the rules; ``builder`` gets a node only where one is needed."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._transposed: dict[tuple[Value, Perm], Value] = {}

    def plain(self, value: Value) -> Laid:
        """A value with its axes as they are."""
        return Laid(value, tuple(range(len(value.shape))))

    def tidy(self, value: Value, perm: Sequence[int]) -> Laid:
        """The same, without a permutation that moves axes of size one alone."""
        long = [p for p in perm if value.shape[p] != 1]
        if long == sorted(long):
            return self.plain(Value(value.node, tuple(value.shape[p] for p in perm)))
        return Laid(value, tuple(perm))

    def transposed(self, value: Value, perm: Sequence[int]) -> Value:
        """The value with its axes really in another order; each order is made once."""
        key = (value, tuple(perm))
        if key not in self._transposed:
            scope, self.builder.scope = self.builder.scope, "transpose"
            self._transposed[key] = self._transpose(value, perm)
            self.builder.scope = scope
        return self._transposed[key]

    def _transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """Without the axes of size one, which need not move: the others lie as few as they are."""
        long = [i for i, s in enumerate(value.shape) if s != 1]
        lead = (1,) if len(long) < len(value.shape) else ()
        short = self.builder.reshape(value, (*lead, *(value.shape[i] for i in long)))
        order = [len(lead) + long.index(p) for p in perm if value.shape[p] != 1]
        moved = self.builder.transpose(short, (*range(len(lead)), *order))
        return self.builder.reshape(moved, tuple(value.shape[p] for p in perm))

    def cost(self, x: Laid, axes: Sequence[int]) -> int:
        """1 if the model's axes in the order given take a Transpose, else 0."""
        long = [x.perm[a] for a in axes if x.shape[a] != 1]
        return int(long != sorted(long))

    def in_order(self, x: Laid) -> Value:
        """The value with its axes as the model sees them."""
        return self.transposed(x.value, x.perm)

    def in_frame(self, x: Laid, perm: Perm) -> Value:
        """The value such that ``perm`` gives the model's order of axes."""
        if x.perm == perm:
            return x.value
        return self.transposed(x.value, [x.perm[i] for i in np.argsort(perm)])

    def arranged(self, x: Laid, axes: Sequence[int]) -> Value:
        """The value with the model's axes in the order given."""
        return self.transposed(x.value, [x.perm[a] for a in axes])

    def last(self, x: Laid, axes: Sequence[int]) -> tuple[Value, tuple[int, ...]]:
        """The value with some axes last, and the model's axis for each axis of it.

        The other axes stay in the order in which they lie, so that as few as possible move.
        """
        own = np.argsort(x.perm)  # the model's axis of each axis of the value
        order = [int(a) for a in own if a not in axes] + list(axes)
        return self.arranged(x, order), tuple(order)

    def reshaped(self, x: Laid, shape: tuple[int, ...]) -> Laid:
        """The same entries in the model's order, under another shape."""
        if x.perm == tuple(range(len(x.perm))):
            return self.plain(self.builder.reshape(x.value, shape))
        found = _regrouped(x, shape)
        if found is None:
            return self.plain(self.builder.reshape(self.in_order(x), shape))
        view, perm = found
        return self.tidy(self.builder.reshape(x.value, view), perm)

    # --- ops on single axes of a value --------------------------------------------------------

    def sliced(self, value: Value, cuts: Mapping[int, tuple[int, int, int]]) -> Value:
        """Entries start:stop:step along some axes."""
        cuts = {a: c for a, c in cuts.items() if c[0] > 0 or c[1] < value.shape[a] or c[2] != 1}
        cuts = {a: c for a, c in cuts.items() if value.shape[a] != 1}
        if not cuts:
            return value
        node, axes = self.builder.aligned(value, *cuts)
        shape = self.builder.nodes[node].shape
        start, stop, step = [0] * len(shape), list(shape), [1] * len(shape)
        view = list(value.shape)
        for mine, axis in zip(axes, cuts, strict=True):
            start[mine], stop[mine], step[mine] = cuts[axis]
            view[axis] = len(range(*cuts[axis]))
        op = Slice(tuple(start), tuple(stop), tuple(step))
        return self.builder.emit(op, [node], view=tuple(view))

    def padded(self, value: Value, pads: Mapping[int, tuple[int, int]], fill: float) -> Value:
        """Constants around some axes; a negative count cuts off."""
        cuts = {
            a: (max(0, -lo), value.shape[a] - max(0, -hi), 1)
            for a, (lo, hi) in pads.items()
            if min(lo, hi) < 0
        }
        value = self.sliced(value, cuts)
        pads = {a: (max(0, lo), max(0, hi)) for a, (lo, hi) in pads.items() if max(lo, hi) > 0}
        if not pads:
            return value
        node, axes = self.builder.aligned(value, *pads)
        padding = [(0, 0)] * len(self.builder.nodes[node].shape)
        view = list(value.shape)
        for mine, axis in zip(axes, pads, strict=True):
            padding[mine] = pads[axis]
            view[axis] += sum(pads[axis])
        return self.builder.emit(Pad(tuple(padding), fill), [node], view=tuple(view))

    def dilated(self, value: Value, axis: int, step: int, fill: float) -> Value:
        """``step - 1`` constants between the entries of an axis."""
        shape, size = value.shape, value.shape[axis]
        if step == 1 or size == 1:
            return value
        wide = self.builder.reshape(value, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        drop = 1 if wide.shape[0] == 1 and axis > 0 else 0
        node = self.builder.emit(Reshape(wide.shape[drop:]), [wide.node], view=wide.shape).node
        padding = [(0, 0)] * (len(wide.shape) - drop)
        padding[axis + 1 - drop] = (0, step - 1)
        view = (*shape[:axis], size * step, *shape[axis + 1 :])
        value = self.builder.emit(Pad(tuple(padding), fill), [node], view=view)
        return self.sliced(value, {axis: (0, (size - 1) * step + 1, 1)})

    def repeated(self, value: Value, shape: tuple[int, ...]) -> Value:
        """Axes of size one repeated to a larger shape of the same rank."""
        grown = [i for i, (a, b) in enumerate(zip(value.shape, shape, strict=True)) if a != b]
        if not grown:
            return value
        # Without the axes of size one in front, the batch axis among them.
        lead = next((i for i, s in enumerate(shape) if s != 1), len(shape))
        lead = min(lead, len(shape) - 1)
        node = self.builder.laid_out(value, value.shape[lead:])
        return self.builder.emit(Broadcast(shape[lead:]), [node], view=shape)


def _regrouped(x: Laid, shape: tuple[int, ...]) -> tuple[tuple[int, ...], list[int]] | None:
    """View and permutation of x under another shape, if axes that lie apart stay apart.

    An axis may be cut, and axes that lie side by side in the model's order may be joined. Axes of
    size one lie in front.
    """
    blocks: list[list[int]] = []  # axes of the value that lie as they do in the model
    long = [p for p in x.perm if x.value.shape[p] != 1]
    rank = {p: i for i, p in enumerate(sorted(long))}
    for p in long:
        if blocks and rank[p] == rank[blocks[-1][-1]] + 1:
            blocks[-1].append(p)
        else:
            blocks.append([p])
    ones = [i for i, s in enumerate(shape) if s == 1]
    rest = [i for i, s in enumerate(shape) if s != 1]
    parts: list[tuple[int, list[int]]] = []  # where each block lies, the model's axes made of it
    for block in blocks:
        size, taken = prod(x.value.shape[p] for p in block), []
        while size > 1 and rest and size % shape[rest[0]] == 0:
            size //= shape[rest[0]]
            taken.append(rest.pop(0))
        if size > 1:
            return None
        parts.append((block[0], taken))
    order = [*ones, *(i for _, taken in sorted(parts) for i in taken)]
    return tuple(shape[i] for i in order), [order.index(i) for i in range(len(shape))]
