"""Functions of one variable that torch writes as two ops: softsign, tanhshrink, swish by hand."""

from __future__ import annotations

from tangency.models.builder import Builder, Value
from tangency.models.ops import Activate, Add

__all__ = ["is_activation", "is_one_plus_abs"]


def is_activation(builder: Builder, value: Value, name: str, of: Value) -> bool:
    """Whether ``value`` is the activation ``name`` of ``of``, entry by entry."""
    node = builder.nodes[value.node]
    named = isinstance(node.op, Activate) and node.op.activation.name == name
    return named and node.inputs == (of.node,) and value.shape == of.shape


def is_one_plus_abs(builder: Builder, value: Value, of: Value) -> bool:
    """Whether ``value`` is ``1 + |of|``."""
    node = builder.nodes[value.node]
    if not isinstance(node.op, Add) or value.shape != of.shape or len(node.inputs) != 2:
        return False
    inner, one = node.inputs
    array = [builder.weights[p.key] for p in builder.nodes[one].params]
    alone = len(array) == 1 and array[0].size == 1 and bool(array[0] == 1)
    return alone and is_activation(builder, Value(inner, of.shape), "abs", of)
