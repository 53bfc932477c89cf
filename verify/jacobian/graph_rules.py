"""How a cotangent goes back through each op of a lowered network, in ops of the same kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.network import Network
from tangency.models.ops import (
    Add,
    AveragePool,
    BatchNorm,
    Broadcast,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Gather,
    MatMul,
    Op,
    Pad,
    Product,
    Reduce,
    Reshape,
    Scale,
    Shape,
    Slice,
    Subtract,
    Transpose,
    Upsample,
)
from tangency.models.ops.base import normalise_axis
from tangency.models.structure import Node
from tangency.verify.jacobian.adjoint import gathered_from, window_index
from tangency.verify.rigorous.lowering_writer import Writer

__all__ = ["back", "summed_to"]

Array = Any
Parts = list[int | None]
MOVING = (Broadcast, Concat, Gather, Pad, Reshape, Slice, Transpose)


def back(write: Writer, network: Network, node: Node, c: int, live: Sequence[bool]) -> Parts:
    """Cotangents of a node's inputs from its own, ``(S, *shape)``; UnsupportedError by name."""
    shapes = tuple(network.structure.nodes[j].shape for j in node.inputs)
    params = {p.role: network.weights[p.key] for p in node.params}
    op = node.op
    if isinstance(op, MOVING) or (isinstance(op, Upsample) and op.how == "nearest"):
        return [
            _scatter(write, c, gathered_from(op, shapes, k), shape) if live[k] else None
            for k, shape in enumerate(shapes)
        ]
    if isinstance(op, Product | MatMul):
        rule = _product if isinstance(op, Product) else _matmul
        return rule(write, node, shapes, c, live)
    if type(op) not in _RULES:
        raise UnsupportedError(
            f"layer {node.name!r}: linear bounds of a Jacobian have no rule for {op.kind!r}"
        )
    return _RULES[type(op)](write, op, params, shapes, c)


def _dense(write: Writer, op: Dense, params: Any, shapes: Any, c: int) -> Parts:
    return [write.add(Dense(), c, weight=np.ascontiguousarray(params["weight"].T))]


def _conv(write: Writer, op: Conv, params: Any, shapes: Any, c: int) -> Parts:
    kernel, n = params["weight"].shape[2:], len(op.stride)
    space, out = shapes[0][-n:], write.shape(c)[-n:]
    sizes = zip(space, out, op.stride, op.padding, op.dilation, kernel, strict=True)
    extra = tuple(size - ((o - 1) * s - sum(p) + d * (k - 1) + 1) for size, o, s, p, d, k in sizes)
    turned = ConvTranspose(op.stride, op.padding, op.dilation, op.groups, extra)
    return [write.add(turned, c, weight=params["weight"])]


def _conv_transpose(write: Writer, op: ConvTranspose, params: Any, shapes: Any, c: int) -> Parts:
    turned = Conv(op.stride, op.padding, op.dilation, op.groups)
    c = write.add(turned, c, weight=params["weight"])
    shape, n = write.shape(c), len(op.stride)
    if shape[-n:] != shapes[0][-n:]:
        stop = (*shape[:-n], *shapes[0][-n:])
        c = write.add(Slice((0,) * len(shape), stop, (1,) * len(shape)), c)
    return [c]


def _batch_norm(write: Writer, op: BatchNorm, params: Any, shapes: Any, c: int) -> Parts:
    held = {"mean": np.zeros_like(params["mean"]), "var": params["var"]}
    if "weight" in params:
        held["weight"] = params["weight"]
    axis = normalise_axis(op.axis, len(shapes[0])) + 1
    return [write.add(replace(op, axis=axis), c, **held)]


def _scale(write: Writer, op: Scale, params: Any, shapes: Any, c: int) -> Parts:
    return [summed_to(write, write.add(op, c, scale=params["scale"]), shapes[0])]


def _add(write: Writer, op: Op, params: Any, shapes: Any, c: int) -> Parts:
    second = write.times(c, np.asarray(-1.0)) if isinstance(op, Subtract) else c
    return [summed_to(write, c, shapes[0]), summed_to(write, second, shapes[1])]


def _reduce(write: Writer, op: Reduce, params: Any, shapes: Any, c: int) -> Parts:
    (shape,), rows = shapes, write.shape(c)[0]
    axes = {normalise_axis(a, len(shape)) for a in op.axes}
    if op.how == "mean":
        count = float(prod(shape[a] for a in axes))
        c = write.add(Scale(True), c, scale=np.asarray(count))
    thin = (rows, *(1 if i in axes else s for i, s in enumerate(shape)))
    return [write.add(Broadcast((rows, *shape)), write.reshape(c, thin))]


def _average_pool(write: Writer, op: AveragePool, params: Any, shapes: Any, c: int) -> Parts:
    (shape,), n = shapes, len(op.size)
    c = write.add(Scale(True), c, scale=op.counts(shape[-n:]))
    index = window_index(shape, op.size, op.stride, op.padding, (1,) * n)
    out = write.shape(c)
    c = write.add(Broadcast((*out, index.shape[-1])), write.reshape(c, (*out, 1)))
    return [_scatter(write, c, index, shape)]


def _upsample(write: Writer, op: Upsample, params: Any, shapes: Any, c: int) -> Parts:
    """Interpolation along one axis after another: integers, divided by one integer."""
    (shape,), n = shapes, len(op.size)
    rank = len(shape)
    for axis, new in zip(range(rank - n, rank), op.size, strict=True):
        whole, divisor = _interpolation(shape[axis], new, op.align_corners)
        swap = list(range(rank + 1))
        swap[axis + 1], swap[rank] = rank, axis + 1
        c = write.add(Dense(), write.transpose(c, swap), weight=np.ascontiguousarray(whole.T))
        c = write.transpose(c, swap)
        c = write.add(Scale(True), c, scale=np.asarray(float(divisor)))
    return [c]


def _interpolation(old: int, new: int, align_corners: bool) -> tuple[Array, int]:
    """The (new, old) matrix of :class:`Upsample` as integers, and what they are divided by."""
    i = np.arange(new)
    if align_corners:
        divisor = max(new - 1, 1)
        where = i * (old - 1)
    else:
        divisor = 2 * new
        where = np.clip((2 * i + 1) * old - new, 0, (old - 1) * divisor)
    low = np.minimum(where // divisor, old - 1)
    part = where - low * divisor
    matrix = np.zeros((new, old))
    np.add.at(matrix, (i, low), divisor - part)
    np.add.at(matrix, (i, np.minimum(low + 1, old - 1)), part)
    return matrix, divisor


_RULES: dict[type[Op], Callable[[Writer, Any, Any, Any, int], Parts]] = {
    Add: _add,
    AveragePool: _average_pool,
    BatchNorm: _batch_norm,
    Conv: _conv,
    ConvTranspose: _conv_transpose,
    Dense: _dense,
    Reduce: _reduce,
    Scale: _scale,
    Subtract: _add,
    Upsample: _upsample,
}


def _product(write: Writer, node: Node, shapes: Any, c: int, live: Sequence[bool]) -> Parts:
    """``c y`` and ``c x``; y and x themselves are the nodes of the forward pass."""
    x, y = node.inputs
    parts = zip((y, x), shapes, live, strict=True)
    return [summed_to(write, write.add(Product(), c, v), s) if on else None for v, s, on in parts]


def _matmul(write: Writer, node: Node, shapes: Any, c: int, live: Sequence[bool]) -> Parts:
    """``c y^T`` and ``x^T c``."""
    x, y = node.inputs

    def turned(v: int) -> int:
        rank = len(write.shape(v))
        return write.transpose(v, (*range(rank - 2), rank - 1, rank - 2))

    return [
        summed_to(write, write.add(MatMul(), c, turned(y)), shapes[0]) if live[0] else None,
        summed_to(write, write.add(MatMul(), turned(x), c), shapes[1]) if live[1] else None,
    ]


def summed_to(write: Writer, c: int, shape: Shape) -> int:
    """Sums over the axes along which ``shape`` was broadcast."""
    rows, *out = write.shape(c)
    padded = (1,) * (len(out) - len(shape)) + shape
    axes = tuple(
        i + 1 for i, (a, b) in enumerate(zip(padded, out, strict=True)) if a == 1 and b != 1
    )
    if axes:
        c = write.add(Reduce("sum", axes), c)
    return write.reshape(c, (rows, *shape))


def _scatter(write: Writer, c: int, index: Array, shape: Shape) -> int:
    """Each entry of ``(S, *index.shape)`` added to the entry that it comes from.

    ``index`` counts input entries from one; zero is nowhere. Every input entry gathers what comes
    from it, short lists filled up with a zero.
    """
    rows, size = write.shape(c)[0], prod(shape)
    flat = index.reshape(-1)
    if flat.size == size and (flat == np.arange(1, size + 1)).all():
        return write.reshape(c, (rows, *shape))
    order = np.argsort(flat, kind="stable")[np.count_nonzero(flat == 0) :]
    home = flat[order] - 1
    counts = np.bincount(home, minlength=size)
    starts = np.cumsum(counts) - counts
    width = max(int(counts.max()), 1)
    lists = np.full((size, width), flat.size)
    lists[home, np.arange(len(home)) - starts[home]] = order
    c = write.reshape(c, (rows, flat.size))
    if (lists == flat.size).any():
        c = write.add(Pad(((0, 0), (0, 1))), c)
    c = write.gather(c, lists.reshape(-1).tolist(), 1)
    if width > 1:
        c = write.add(Reduce("sum", (2,)), write.reshape(c, (rows, size, width)))
    return write.reshape(c, (rows, *shape))
