"""Rules for the ops that move, pick, pool or interpolate sites."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.ops.base import normalise_axis
from tangency.models.structure import Node
from tangency.theory.kernels import spatial
from tangency.theory.kernels.plan_network import Compiler, Tensor

__all__ = ["SITE_RULES"]

Array = np.ndarray[Any, Any]


def _reshape(c: Compiler, node: Node) -> Tensor:
    x, shape = c.tensor(node.inputs[0]), node.shape
    before, width = prod(x.shape[: x.channel]), x.shape[x.channel]
    for axis, size in enumerate(shape):
        if size == width and prod(shape[:axis]) == before:
            sites = shape[:axis] + shape[axis + 1 :]
            return Tensor(c.plan.reshape(x.node, sites), shape, axis)
    if max(shape) == prod(shape):
        axis = shape.index(max(shape))
        flat = c.plan.flatten(x.node)
        return Tensor(c.plan.reshape(flat, (1,) * (len(shape) - 1)), shape, axis)
    raise UnsupportedError(f"{x.shape} to {shape} splits the channels (axis {x.channel})")


def _transpose(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    channel = op.permutation.index(x.channel)
    order = [x.site_axis(a) for a in op.permutation if a != x.channel]
    table = np.arange(prod(x.sites)).reshape(x.sites).transpose(order).ravel()
    sites = tuple(x.sites[a] for a in order)
    return Tensor(c.plan.gather(x.node, sites, table), node.shape, channel)


def _lines(c: Compiler, node: Node, lines: dict[int, list[int]]) -> Tensor:
    """Other sites along some axes of the input."""
    x = c.tensor(node.inputs[0])
    moved = {a: line for a, line in lines.items() if line != list(range(x.shape[a]))}
    if x.channel in moved:
        raise UnsupportedError("it picks or pads channels: each of them is random")
    full = [moved.get(a, list(range(size))) for a, size in enumerate(x.shape) if a != x.channel]
    table = spatial.site_table(x.sites, full)
    sites = tuple(len(line) for line in full)
    return Tensor(c.plan.gather(x.node, sites, table), node.shape, x.channel)


def _slice(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    ranges = zip(op.start, op.stop, op.step, strict=True)
    return _lines(c, node, {a: list(range(*r)) for a, r in enumerate(ranges)})


def _gather(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    return _lines(c, node, {normalise_axis(op.axis, len(x.shape)): list(op.indices)})


def _pad(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    if op.value != 0.0:
        raise UnsupportedError(f"padding with {op.value}; with zeros there is a limit")
    x = c.tensor(node.inputs[0])
    sized = enumerate(zip(x.shape, op.padding, strict=True))
    return _lines(
        c, node, {a: [-1] * lo + list(range(n)) + [-1] * hi for a, (n, (lo, hi)) in sized}
    )


def _along(c: Compiler, node: Node, matrices: dict[int, Array]) -> Tensor:
    """A matrix (out, in) on some axes of the input; an axis of one entry stays, or goes."""
    x = c.tensor(node.inputs[0])
    if x.channel in matrices:
        raise UnsupportedError("it mixes the channels themselves without random weights")
    axes = [a for a in range(len(x.shape)) if a != x.channel]
    full = [matrices.get(a, np.eye(x.shape[a])) for a in axes]
    sites = tuple(len(m) for m in full)
    return Tensor(c.plan.linear(x.node, sites, spatial.kron(full)), node.shape, x.channel)


def _reduce(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    axes = {normalise_axis(a, len(x.shape)) for a in op.axes}
    one = {a: np.ones((1, x.shape[a])) for a in axes}
    if op.how == "mean":
        one = {a: m / m.size for a, m in one.items()}
    whole = _along(c, node, one)
    channel = x.channel - sum(a < x.channel for a in axes)
    sites = node.shape[:channel] + node.shape[channel + 1 :]
    return Tensor(c.plan.reshape(whole.node, sites), node.shape, channel)


def _average_pool(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    first = len(x.shape) - len(op.size)
    matrices = {}
    for i, (k, stride, pads) in enumerate(zip(op.size, op.stride, op.padding, strict=True)):
        counted = op.count_padding
        _, matrix = spatial.pool_matrix(
            x.shape[first + i : first + i + 1], (k,), (stride,), (pads,), count_padding=counted
        )
        matrices[first + i] = matrix
    return _along(c, node, matrices)


def _upsample(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    first = len(x.shape) - len(op.size)
    return _along(
        c, node, {first + i: op.matrix(x.shape[first + i], n) for i, n in enumerate(op.size)}
    )


SITE_RULES: dict[str, Callable[[Compiler, Node], Tensor]] = {
    "average_pool": _average_pool,
    "gather": _gather,
    "pad": _pad,
    "reduce": _reduce,
    "reshape": _reshape,
    "slice": _slice,
    "transpose": _transpose,
    "upsample": _upsample,
}
"""Rules by the kind of op."""
