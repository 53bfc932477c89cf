"""Writing a graph again, with one op in place of each region that was recognised."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tangency.models.activations import Activation
from tangency.models.builder import Builder, Value
from tangency.models.importers._recognise.templates import Group
from tangency.models.ops import LayerNorm, LogSumExp, Prelu, Softmax, Subtract
from tangency.models.structure import Node

__all__ = ["Match", "rewritten"]

Match = tuple[int, Activation | Group | tuple[str, frozenset[int]]]
"""The entry of a region, and what it is: of a PReLU the parameter and its axes."""


def rewritten(
    builder: Builder,
    ends: Sequence[Value],
    needed: Sequence[int],
    found: dict[int, Match],
    *,
    named: bool,
) -> list[Value]:
    """The graph again, with an op in place of each region."""
    writer = _Writer(builder, named)
    nodes = builder.restart([i for i in needed if i not in found])
    place: dict[int, int] = {}
    for i in needed:
        if i in found:
            start, what = found[i]
            value = Value(place[start], (1, *nodes[start].shape))
            place[i] = builder.laid_out(writer.write(value, nodes[i], what), nodes[i].shape)
        else:
            place[i] = builder.copy(nodes[i], [place[j] for j in nodes[i].inputs])
    return [Value(place[v.node], v.shape) for v in ends]


class _Writer:
    """Writes what was recognised."""

    def __init__(self, builder: Builder, named: bool) -> None:
        self.builder, self.named = builder, named
        self.weights = builder.held_weights()

    def write(self, x: Value, end: Node, what: Any) -> Value:
        """One op of x, in place of the region that ends with a node."""
        if isinstance(what, Activation):
            self._scope(end, what.name)
            return self.builder.activation(x, what)
        if isinstance(what, Group):
            return self._group(x, end, what)
        key, axes = what
        self._scope(end, "prelu", key)
        base, array, trainable = self.weights[key]
        op = Prelu(min(axes, default=0))
        node = x.node if x.shape[1:] else self.builder.laid_out(x, (1,))
        params = {"slope": (base, array.reshape(-1))}
        return self.builder.emit(op, [node], params, view=x.shape, trainable=trainable)

    def _scope(self, end: Node, kind: str, *keys: str) -> None:
        prefixes = [p for p in (self.weights[k][0].rpartition(".")[0] for k in keys) if p]
        self.builder.scope = end.name if self.named else prefixes[0] if prefixes else kind

    def _group(self, x: Value, end: Node, what: Group) -> Value:
        b, axes, shape = self.builder, sorted(what.axes), x.shape
        self._scope(end, what.kind, *(key for _, key in what.roles))
        if what.kind == "softmax":
            # Over several axes: over one that they are made, the last.
            order = [d for d in range(len(shape)) if d - 1 not in axes] + [a + 1 for a in axes]
            if len(axes) == 1:
                return b.emit(Softmax(axes[0]), [x.node], view=shape)
            y = b.transpose(x, order)
            lead = y.shape[: len(shape) - len(axes)]
            flat = b.reshape(y, (*lead, prod(shape) // prod(lead)))
            node = b.laid_out(flat, flat.shape[1:])
            done = b.emit(Softmax(len(lead) - 1), [node], view=flat.shape)
            return b.transpose(
                b.reshape(done, y.shape), [order.index(d) for d in range(len(order))]
            )
        if what.kind == "layer_norm":
            sizes = tuple(shape[a + 1] for a in axes)
            held = {role: self.weights[key] for role, key in what.roles}
            params = {role: (k, array.reshape(sizes)) for role, (k, array, _) in held.items()}
            fixed = [role for role, (_, _, trainable) in held.items() if not trainable]
            op = LayerNorm(tuple(axes), what.eps, what.center)
            return b.emit(op, [x.node], params, view=shape, buffers=fixed)
        kept = tuple(1 if d - 1 in axes else s for d, s in enumerate(shape))
        if what.kind == "log_softmax" and not self.named:
            b.scope = "log_sum_exp"
        top = b.emit(LogSumExp(tuple(axes)), [x.node], view=kept)
        if what.kind == "log_sum_exp":
            return top
        self._scope(end, what.kind)
        return b.elementwise(Subtract(), x, top)
