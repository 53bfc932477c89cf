"""Softmax and normalisation over entries of one sample."""

from __future__ import annotations

from math import prod

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, Const, reads
from tangency.models.ops import LayerNorm, LogSumExp, Softmax, Subtract

__all__: list[str] = []


@reads("Softmax", "LogSoftmax")
def softmax(call: Call) -> Value:
    x, b = call.var(0), call.builder
    shape = x.shape
    if not shape:
        call.wrong("takes one axis or more, got a scalar")
    if call.opset < 13:  # over all axes from this one on, flattened
        start = call.axis(call.attr("axis", 1), len(shape))
        if prod(shape[start:]) != shape[-1]:
            x = b.reshape(x, (*shape[:start], prod(shape[start:])))
            axis = len(x.shape) - 1
        else:
            axis = len(shape) - 1
    else:
        axis = call.axis(call.attr("axis", -1), len(shape))
    node, (own,) = b.aligned(x, axis)
    if call.op == "Softmax":
        return b.reshape(b.emit(Softmax(own), [node], view=x.shape), shape)
    kept = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    top = b.emit(LogSumExp((own,)), [node], view=kept)
    return b.reshape(b.elementwise(Subtract(), x, top), shape)


def _normalised(call: Call, x: Value, axes: list[int], eps: float, center: bool = True) -> Value:
    node, own = call.builder.aligned(x, *axes)
    return call.builder.emit(LayerNorm(own, eps, center), [node], view=x.shape)


def _affine(call: Call, y: Value, scale: Const, bias: Const | None, rank: int) -> Value:
    """Scale and shift by the channel on axis 1."""
    b = call.builder

    def column(part: Const) -> np.ndarray:
        if part.shape != y.shape[1:2]:
            call.wrong(f"{part.key!r} {part.shape} does not fit {y.shape[1]} channels")
        return part.array.reshape(-1, *(1,) * (rank - 2))

    y = b.scale(y, column(scale), key=scale.key, trainable=scale.trainable)
    if bias is None:
        return y
    return b.shift(y, column(bias), key=bias.key, trainable=bias.trainable)


@reads("InstanceNormalization")
def instance_norm(call: Call) -> Value:
    x = call.var(0)
    if len(x.shape) < 3:
        call.wrong(f"takes an input (N, C, *S), got {x.shape}")
    axes = list(range(2, len(x.shape)))
    y = _normalised(call, x, axes, call.number("epsilon", 1e-5))
    return _affine(call, y, call.weight(1, "scale"), call.weight(2, "bias"), len(x.shape))


@reads("GroupNormalization")
def group_norm(call: Call) -> Value:
    x, b = call.var(0), call.builder
    groups = int(call.attr("num_groups", 0))
    if len(x.shape) < 3 or groups < 1 or x.shape[1] % groups:
        call.wrong(f"{groups} groups do not fit an input {x.shape}")
    eps = call.number("epsilon", 1e-5)
    flat = b.reshape(x, (x.shape[0], groups, prod(x.shape[1:]) // groups))
    y = b.reshape(_normalised(call, flat, [2], eps), x.shape)

    def each(part: Const) -> Const:
        if call.opset >= 21 or part.shape != (groups,):
            return part
        return Const(np.repeat(part.array, x.shape[1] // groups), part.key, part.trainable)

    scale, bias = each(call.weight(1, "scale")), each(call.weight(2, "bias"))
    return _affine(call, y, scale, bias, len(x.shape))


@reads("LayerNormalization", "RMSNormalization")
def layer_norm(call: Call) -> Value:
    x, b = call.var(0), call.builder
    start = call.axis(call.attr("axis", -1), len(x.shape))
    axes, normed = list(range(start, len(x.shape))), x.shape[start:]
    eps = call.number("epsilon", 1e-5)
    center = call.op == "LayerNormalization"
    parts = {"weight": call.weight(1, "scale")}
    if center and call.item(2) is not None:
        parts["bias"] = call.weight(2, "bias")
    node, own = b.aligned(x, *axes)
    params = {}
    for role, part in parts.items():
        if np.broadcast_shapes(part.shape, normed) != normed:
            call.wrong(f"{part.key!r} {part.shape} does not fit the normalised axes {normed}")
        params[role] = (part.key, np.ascontiguousarray(np.broadcast_to(part.array, normed)))
    op = LayerNorm(own, eps, center)
    fixed = [role for role, part in parts.items() if not part.trainable]
    return b.emit(op, [node], params, view=x.shape, buffers=fixed)
