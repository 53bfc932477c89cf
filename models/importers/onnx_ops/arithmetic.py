"""Arithmetic with broadcasting, extrema and choices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, Condition, Const, Item, reads
from tangency.models.ops import Add, Extremum, Product, Quotient, Select, Subtract
from tangency.models.ops.base import broadcast_shapes

__all__: list[str] = []


def _pair(call: Call) -> tuple[Item, Item]:
    """The two operands; before opset 7 the second is laid along the axis that it names."""
    x, y = call.given(0), call.given(1)
    for i, item in enumerate((x, y)):
        if isinstance(item, Const):
            call.float_array(item)
        elif isinstance(item, Condition):
            call.value(item, i)
    if call.opset < 7 and call.attr("broadcast", 0) and "axis" in call.attributes:
        rank, own = len(x.shape), len(y.shape)
        shape = y.shape + (1,) * (rank - own - call.axis(call.attr("axis"), rank))
        if isinstance(y, Const):
            y = Const(y.array.reshape(shape), y.key, y.trainable)
        elif isinstance(y, Value):
            y = call.builder.reshape(y, shape)
    call.bounded(broadcast_shapes(x.shape, y.shape))
    return x, y


@reads("Add")
def add(call: Call) -> Value:
    x, y = _pair(call)
    if isinstance(x, Const):
        x, y = y, x
    if isinstance(y, Const):
        return call.builder.shift(_value(x), y.array, key=y.key, trainable=y.trainable)
    if x == y:
        return call.builder.scale(_value(x), np.asarray(2, call.builder.dtype), trainable=False)
    return call.builder.elementwise(Add(), _value(x), _value(y))


@reads("Sub")
def subtract(call: Call) -> Value:
    x, y = _pair(call)
    if isinstance(y, Const):
        return call.builder.shift(_value(x), -y.array, key=y.key, trainable=y.trainable)
    if isinstance(x, Const):
        if not x.array.any() and broadcast_shapes(x.shape, y.shape) == y.shape:
            return call.builder.negate(_value(y))
        return call.builder.minus_from(x.array, _value(y), key=x.key)
    return call.builder.elementwise(Subtract(), _value(x), _value(y))


@reads("Mul")
def multiply(call: Call) -> Value:
    x, y = _pair(call)
    if isinstance(x, Const):
        x, y = y, x
    if isinstance(y, Const):
        return call.builder.scale(_value(x), y.array, key=y.key, trainable=y.trainable)
    if x == y:
        return call.activate(_value(x), "square")
    return call.builder.elementwise(Product(), _value(x), _value(y))


@reads("Div")
def divide(call: Call) -> Value:
    x, y = _pair(call)
    if isinstance(y, Const):
        return call.builder.scale(
            _value(x), y.array, inverse=True, key=y.key, trainable=y.trainable
        )
    if isinstance(x, Const):
        inverse = call.activate(_value(y), "reciprocal")
        return call.builder.scale(inverse, x.array, key=x.key, trainable=x.trainable)
    return call.builder.elementwise(Quotient(), _value(x), _value(y))


def _value(item: Item) -> Value:
    assert isinstance(item, Value)
    return item


@reads("Neg")
def negate(call: Call) -> Value:
    return call.builder.negate(call.var(0))


@reads("Sum", "Mean")
def total(call: Call) -> Value:
    b = call.builder
    variables = [x for x in call.inputs if isinstance(x, Value)]
    result = variables[0]
    for value in variables[1:]:
        result = b.elementwise(Add(), result, value)
    for item in call.inputs:
        if isinstance(item, Const):
            array = call.float_array(item)
            result = b.shift(result, array, key=item.key, trainable=item.trainable)
    if call.op == "Mean" and len(call.inputs) > 1:
        count = np.asarray(len(call.inputs), b.dtype)
        result = b.scale(result, count, inverse=True, trainable=False)
    return result


@reads("Max", "Min")
def extremum(call: Call) -> Value:
    b, how = call.builder, call.op.lower()
    items = [call.given(i) for i in range(len(call.inputs))]
    call.bounded(broadcast_shapes(*(x.shape for x in items)))
    values = [x for x in items if isinstance(x, Value)]
    result = values[0]
    for value in values[1:]:
        result = b.elementwise(Extremum(how), result, value)
    for i, item in enumerate(items):
        if isinstance(item, Const):
            array = call.float_array(item)
            fits = broadcast_shapes(result.shape, array.shape) == result.shape
            if how == "max" and fits and not array.any():
                result = call.activate(result, "relu")
            else:
                result = b.elementwise(Extremum(how), result, call.value(item, i))
        elif isinstance(item, Condition):
            call.value(item, i)
    return result


@reads("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def compare(call: Call) -> Condition:
    if call.opset < 7 and call.attr("broadcast", 0):
        call.refuse("broadcasting by the axis attribute of opsets before 7")
    x, y = call.var(0), call.var(1)
    shape = broadcast_shapes(x.shape, y.shape)
    if call.op.startswith("Less"):
        x, y = y, x
    return Condition(x, y, not call.op.endswith("OrEqual"), shape)


@reads("Not")
def negation(call: Call) -> Condition:
    condition = call.given(0)
    if not isinstance(condition, Condition):
        call.wrong("takes a comparison")
    return Condition(condition.y, condition.x, not condition.strict, condition.shape)


@reads("Where")
def where(call: Call) -> Any:
    condition, b = call.given(0), call.builder
    items = [call.given(1), call.given(2)]
    call.bounded(broadcast_shapes(condition.shape, items[0].shape, items[1].shape))
    if isinstance(condition, Condition):
        values = [call.value(x, i + 1) for i, x in enumerate(items)]
        return b.elementwise(Select(condition.strict), condition.x, condition.y, *values)
    if not isinstance(condition, Const) or condition.array.dtype != bool:
        call.wrong("its condition (input 0) is not a comparison")
    # A fixed mask: the sum of both sides, each with the entries of the other taken out.
    result: Value | None = None
    fixed = np.zeros((), b.dtype)
    for item, mask in zip(items, (condition.array, ~condition.array), strict=True):
        if isinstance(item, Const):
            array = call.float_array(item)
            if not np.isfinite(np.where(mask, array, 0)).all():
                call.wrong(f"{item.key!r} has a NaN or infinite entry that is chosen")
            fixed = fixed + np.where(mask, array, np.zeros((), b.dtype))
        else:
            part = b.scale(call.value(item), mask.astype(b.dtype), key="mask", trainable=False)
            result = part if result is None else b.elementwise(Add(), result, part)
    assert result is not None
    return b.shift(result, fixed, key="masked", trainable=False)
