"""Arithmetic between variables and constants, in whichever order the model has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, Truth
from tangency.models.ops import Add, Op, Product, Quotient, Shape, Subtract
from tangency.models.ops.base import broadcast_shapes

__all__ = ["add", "divide", "elementwise", "multiply", "negate", "subtract"]

#: Stands for minus infinity in a constant that is added: its exponential is zero all the same.
LOWEST = -1e30


def _sorted_out(call: Call, item: Any) -> Value | Const:
    if isinstance(item, Value):
        return item
    return call.value(item) if isinstance(item, Truth) else call.const(item)


def add(call: Call, x: Any, y: Any) -> Any:
    """``x + y``."""
    x, y = _sorted_out(call, x), _sorted_out(call, y)
    if isinstance(x, Const) and isinstance(y, Const):
        return Const(x.tensor + y.tensor, x.trainable or y.trainable)
    if isinstance(x, Const):
        x, y = y, x
    if isinstance(y, Value):
        return elementwise(call, Add(), x, y)
    array = call.reader.array(y)
    if not y.trainable:
        array = np.where(np.isneginf(array), np.asarray(LOWEST, array.dtype), array)
    shape = broadcast_shapes(x.shape, array.shape)
    key = call.reader.key(y, "shift")
    out = call.builder.shift(x, array, key=key, trainable=y.trainable)
    return out if out.shape == shape else call.builder.broadcast(out, shape)


def subtract(call: Call, x: Any, y: Any) -> Any:
    """``x - y``."""
    x, y = _sorted_out(call, x), _sorted_out(call, y)
    if isinstance(y, Const):
        return add(call, x, Const(-y.tensor, y.trainable))
    if isinstance(x, Const) and x.tensor.numel() == 1 and not x.tensor.any():
        return negate(call, y) if len(x.shape) <= len(y.shape) else negate(call, add(call, y, x))
    return elementwise(call, Subtract(), x, y)


def negate(call: Call, x: Value) -> Value:
    """``-x``."""
    return call.builder.negate(x)


def multiply(call: Call, x: Any, y: Any) -> Any:
    """``x * y``; a variable times itself is its square."""
    x, y = _sorted_out(call, x), _sorted_out(call, y)
    if isinstance(x, Const) and isinstance(y, Const):
        return Const(x.tensor * y.tensor, x.trainable or y.trainable)
    if isinstance(x, Const):
        x, y = y, x
    if isinstance(y, Value):
        return call.apply("square", x) if x == y else elementwise(call, Product(), x, y)
    return _scaled(call, x, y, inverse=False)


def divide(call: Call, x: Any, y: Any) -> Any:
    """``x / y``."""
    x, y = _sorted_out(call, x), _sorted_out(call, y)
    if isinstance(y, Const):
        if isinstance(x, Const):
            return Const(x.tensor / y.tensor, x.trainable or y.trainable)
        return _scaled(call, x, y, inverse=True)
    if isinstance(x, Const):
        return multiply(call, call.apply("reciprocal", y), x)
    return elementwise(call, Quotient(), x, y)


def _scaled(call: Call, x: Value, y: Const, *, inverse: bool) -> Value:
    key, array = call.param(y, "scale")
    shape = broadcast_shapes(x.shape, array.shape)
    out = call.builder.scale(x, array, inverse=inverse, key=key, trainable=y.trainable)
    return out if out.shape == shape else call.builder.broadcast(out, shape)


def elementwise(call: Call, op: Op, *operands: Any) -> Value:
    """An op of several operands, some of which may be constants, with NumPy's broadcasting."""
    builder = call.builder
    items = [_sorted_out(call, item) for item in operands]
    values = [item for item in items if isinstance(item, Value)]
    view: Shape = broadcast_shapes(*(item.shape for item in items))
    rank = len(view)
    alike = len({builder.nodes[v.node].shape for v in values}) == 1
    direct = alike and all(
        v.shape == view if isinstance(v, Value) else v.tensor.numel() == 1 for v in items
    )
    nodes = []
    for item in items:
        shape = (1,) * (rank - len(item.shape)) + item.shape
        shape = shape[1:] if rank > 1 and view[0] == 1 else shape
        if isinstance(item, Value):
            nodes.append(item.node if direct else builder.laid_out(item, shape))
            continue
        while shape and shape[0] == 1:
            shape = shape[1:]
        key, array = call.param(item, "constant")
        constant = builder.constant(array.reshape(shape), key=key, trainable=item.trainable)
        nodes.append(constant.node)
    return builder.emit(op, nodes, view=view)
