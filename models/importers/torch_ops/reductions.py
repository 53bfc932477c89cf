"""Ops that take some axes together: sums, means, extrema, norms, softmax, running sums."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, prod
from typing import Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Missing, reads
from tangency.models.importers.torch_ops.operands import multiply
from tangency.models.ops import (
    LogSumExp,
    Op,
    Reduce,
    ReduceExtremum,
    Shape,
    Softmax,
    Subtract,
)

__all__ = ["reduced", "total"]


def reduced(call: Call, value: Value, axes: Iterable[int], shape: Shape, make: Any) -> Value:
    """An op that takes axes away; those of size one need no taking.

    ``make`` gives the op for the axes among those of the node.
    """
    long = [a for a in axes if value.shape[a] != 1]
    if not long:
        return call.builder.reshape(value, shape)
    node, places = call.builder.aligned(value, *long)
    op: Op = make(tuple(places))
    return call.builder.emit(op, [node], view=shape)


def total(call: Call, value: Value, axes: Iterable[int], shape: Shape, how: str = "sum") -> Value:
    """Sum or mean over axes."""
    return reduced(call, value, axes, shape, lambda places: Reduce(how, places))


def _axes(call: Call, name: str = "dim") -> tuple[int, ...]:
    return call.axes(call.get(name), len(call["self"].shape))


def _without(shape: Shape, axes: Iterable[int]) -> Shape:
    return tuple(s for i, s in enumerate(shape) if i not in set(axes))


def _kept(shape: Shape, axes: Iterable[int]) -> Shape:
    return tuple(1 if i in set(axes) else s for i, s in enumerate(shape))


@reads("sum", "mean")
def sum_(call: Call) -> Value:
    return total(call, call.value(), _axes(call), call.out(), call.name)


@reads("amax", "amin")
def amax(call: Call) -> Value:
    return _extremum(call, call.value(), _axes(call), call.out(), call.name[1:])


def _extremum(call: Call, value: Value, axes: Iterable[int], shape: Shape, how: str) -> Value:
    return reduced(call, value, axes, shape, lambda places: ReduceExtremum(how, places))


@reads("max", "min")
def max_(call: Call) -> Any:
    if "other" in call.args:
        from tangency.models.importers.torch_ops.choices import extremum

        return extremum(call)
    value = call.value()
    if "dim" not in call.args:
        return _extremum(call, value, range(len(value.shape)), (), call.name)
    axes = (call.axis(),)
    shape = (_kept if call["keepdim"] else _without)(value.shape, axes)
    return _extremum(call, value, axes, shape, call.name), Missing(f"the indices of {call.name}")


@reads("aminmax")
def aminmax(call: Call) -> Any:
    value, axes = call.value(), _axes(call)
    shape = (_kept if call["keepdim"] else _without)(value.shape, axes)
    return tuple(_extremum(call, value, axes, shape, how) for how in ("min", "max"))


@reads("logsumexp")
def logsumexp(call: Call) -> Value:
    return reduced(call, call.value(), _axes(call), call.out(), LogSumExp)


@reads("softmax", "_softmax", "special_softmax", "_safe_softmax")
def softmax(call: Call) -> Value:
    value, axis = call.value(), call.axis()
    node, (place,) = call.builder.aligned(value, axis)
    return call.builder.emit(Softmax(place), [node], view=value.shape)


@reads("log_softmax", "_log_softmax", "special_log_softmax")
def log_softmax(call: Call) -> Value:
    value, axis = call.value(), call.axis()
    kept = _kept(value.shape, (axis,))
    return call.builder.elementwise(
        Subtract(), value, reduced(call, value, (axis,), kept, LogSumExp)
    )


@reads("softmin")
def softmin(call: Call) -> Value:
    value, axis = call.builder.negate(call.value()), call.axis()
    node, (place,) = call.builder.aligned(value, axis)
    return call.builder.emit(Softmax(place), [node], view=value.shape)


@reads("var", "std", "var_mean", "std_mean")
def var(call: Call) -> Any:
    value, axes = call.value(), _axes(call)
    n = prod(value.shape[a] for a in axes)
    free = call.get("correction", 1) if "unbiased" not in call.args else int(call["unbiased"])
    call.require(n > free, f"{n} entries leave no degree of freedom")
    shape = (_kept if call.get("keepdim", False) else _without)(value.shape, axes)
    mean = total(call, value, axes, _kept(value.shape, axes), "mean")
    centred = call.builder.elementwise(Subtract(), value, mean)
    spread = total(call, call.apply("square", centred), axes, shape, "mean")
    if free:
        spread = multiply(call, spread, n / (n - free))
    spread = call.apply("sqrt", spread) if call.name.startswith("std") else spread
    return (spread, call.builder.reshape(mean, shape)) if "mean" in call.name else spread


@reads("linalg_vector_norm", "norm", "frobenius_norm")
def norm(call: Call) -> Value:
    order = call.get("ord", call.get("p", 2))
    value, axes, shape = call.value(), _axes(call), call.out()
    p = float(2 if order == "fro" else order)
    if abs(p) == inf:
        return _extremum(call, call.apply("abs", value), axes, shape, "max" if p > 0 else "min")
    if p == 1:
        return total(call, call.apply("abs", value), axes, shape)
    if p == 2:
        return call.apply("sqrt", total(call, call.apply("square", value), axes, shape))
    raise call.refuse(f"the norm of order {p:g} is not read; 1, 2 and infinity are")


@reads("cumsum")
def cumsum(call: Call) -> Value:
    value, axis, b = call.value(), call.axis(), call.builder
    n = value.shape[axis]
    last = [i for i in range(len(value.shape)) if i != axis] + [axis]
    turned = b.transpose(value, last)
    out = b.dense(
        turned,
        np.tril(np.ones((n, n), b.dtype)),
        keys=(f"{b.scope}.ones", ""),
        trainable=(False, False),
    )
    return b.transpose(out, np.argsort(last).tolist())


@reads("tril", "triu")
def triangle(call: Call) -> Value:
    import torch

    from tangency.models.importers.torch_ops.context import Const

    value = call.value()
    make = torch.tril if call.name == "tril" else torch.triu
    out: Value = multiply(
        call, value, Const(make(torch.ones(value.shape[-2:]), int(call["diagonal"])))
    )
    return out
