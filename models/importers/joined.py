"""Tensors joined along an axis, by any framework: GroupSort and one activation where it is that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tangency.models.builder import Builder, Value
from tangency.models.importers.pairs import sorted_pairs
from tangency.models.ops import Activate, Scale

__all__ = ["joined"]


def joined(
    builder: Builder, values: Sequence[Value], axis: int, *, name: str = ""
) -> tuple[Value, tuple[int, ...]]:
    """Values joined along an axis, and where each axis of the result lies in the value returned.

    Maxima and minima of the same pairs become GroupSort, which is called ``name``; an activation
    of a tensor beside the same activation of its multiple (concatenated ReLU, the "max-min" of
    deel-torchlip) becomes that activation of both, so that a chain of layers stays a chain.
    """
    found = sorted_pairs(builder, values, axis, name=name)
    if found is not None:
        return found
    plain = tuple(range(len(values[0].shape)))
    ops = [builder.nodes[v.node].op for v in values]
    if len(values) > 1 and all(isinstance(op, Activate) and op == ops[0] for op in ops):
        given = [replace(v, node=builder.nodes[v.node].inputs[0]) for v in values]
        if len({_multiple_of(builder, v.node) for v in given}) == 1:
            both = builder.concat(given, axis)
            return builder.emit(ops[0], [both], view=both.shape), plain
    return builder.concat(values, axis), plain


def _multiple_of(builder: Builder, index: int) -> int:
    node = builder.nodes[index]
    return node.inputs[0] if isinstance(node.op, Scale) else index
