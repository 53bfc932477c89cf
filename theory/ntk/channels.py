"""Convolutions whose channels stay apart up to the last dense layer.

Behind such a convolution come only activations, norms, sums and pooling of each channel on its own,
and then one dense layer W. The cotangent of output a in channel c is then ``W_ac`` times what is
the same for all outputs, so one gradient a channel serves all of them.
"""

from __future__ import annotations

from math import prod

from tangency.models.ops import (
    Activate,
    Add,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    MaxPool,
    Reduce,
    Reshape,
    Scale,
    Subtract,
)
from tangency.models.structure import Node, Structure

__all__ = ["channelwise"]


def channelwise(structure: Structure) -> frozenset[int]:
    """Indices of the convolutions whose channels stay apart up to the dense output.

    The channel axis is axis 0 of a sample throughout.
    """
    if len(structure.outputs) != 1:
        return frozenset()
    last = structure.outputs[0]
    head = structure.nodes[last]
    if not isinstance(head.op, Dense) or len(head.shape) != 1:
        return frozenset()
    apart = {last}
    found = set()
    for i in range(last - 1, -1, -1):
        node = structure.nodes[i]
        users = structure.consumers(i)
        if not users or not all(u in apart for u in users):
            continue
        if _keeps(structure, node):
            apart.add(i)
        op = node.op
        if isinstance(op, Conv) and op.groups == 1 and len(node.shape) == len(op.stride) + 1:
            found.add(i)
    return frozenset(found)


def _keeps(structure: Structure, node: Node) -> bool:
    """Whether channel c of the output depends on channel c of the inputs alone."""
    op, shapes = node.op, [structure.nodes[j].shape for j in node.inputs]
    if isinstance(op, (Add, Subtract)):
        return all(shape == node.shape for shape in shapes)
    if isinstance(op, Activate):
        return True
    if isinstance(op, BatchNorm):
        return op.axis % max(len(node.shape), 1) == 0
    if isinstance(op, Scale):
        return shapes[0] == node.shape and all(prod(p.shape) == 1 for p in node.params)
    if isinstance(op, (AveragePool, MaxPool)):
        return len(op.size) == len(node.shape) - 1
    if isinstance(op, Reduce):
        return all(a % len(shapes[0]) != 0 for a in op.axes)
    if isinstance(op, Reshape):
        return shapes[0][:1] == node.shape[:1] == (prod(node.shape),)
    return False
