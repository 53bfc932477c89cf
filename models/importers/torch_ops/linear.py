"""Products with matrices: layers with weights, and products of two variables."""

from __future__ import annotations

from math import prod
from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, reads
from tangency.models.importers.torch_ops.operands import add, multiply

__all__ = ["affine", "product"]


def affine(call: Call, value: Value, weight: Const, bias: Const | None = None) -> Value:
    """``value @ weight.T + bias`` on the last axis: weight (out, in)."""
    reader = call.reader
    b = None if bias is None else reader.array(bias)
    plain = b is not None and b.shape == (weight.shape[0],)
    out = call.builder.dense(
        value,
        reader.array(weight),
        b if plain else None,
        keys=(reader.key(weight, "weight"), reader.key(bias, "bias") if bias else "bias"),
        trainable=(weight.trainable, bias is not None and bias.trainable),
    )
    return out if plain or bias is None else add(call, out, bias)


@reads("linear")
def linear(call: Call) -> Any:
    x, weight, bias = call["input"], call["weight"], call.get("bias")
    if isinstance(weight, Const) and isinstance(x, Value) and not isinstance(bias, Value):
        return affine(call, x, weight, bias)
    turned = (
        Const(weight.tensor.t(), weight.trainable)
        if isinstance(weight, Const)
        else call.builder.transpose(call.value(weight), (1, 0))
    )
    out = product(call, x, turned)
    return out if bias is None else add(call, out, bias)


@reads("mm", "bmm", "matmul", "mv", "dot", "inner", "__matmul__")
def matmul(call: Call) -> Any:
    second = next(call[n] for n in ("mat2", "other", "vec", "tensor") if n in call.args)
    call.require(call.name != "inner" or len(call["self"].shape) == 1, "inner of matrices")
    return product(call, call["self"], second)


@reads("outer", "ger")
def outer(call: Call) -> Any:
    x, y = call["self"], call.get("vec2", call.get("other"))
    return multiply(call, _reshaped(call, x, (*x.shape, 1)), y)


@reads("addmm", "addmv", "baddbmm", "addbmm")
def addmm(call: Call) -> Any:
    names = {"addmm": ("mat1", "mat2"), "addmv": ("mat", "vec")}
    x, y = (call[n] for n in names.get(call.name, ("batch1", "batch2")))
    call.require(call.name != "addbmm", "sums over its batch, which has no place")
    bias, plain = call["self"], call["alpha"] == 1 and call["beta"] == 1
    if plain and isinstance(y, Const) and isinstance(bias, Const) and len(y.shape) == 2:
        if isinstance(x, Value) and bias.shape == (y.shape[1],):
            return affine(call, x, Const(y.tensor.t(), y.trainable), bias)
    out = product(call, x, y)
    out = out if call["alpha"] == 1 else multiply(call, out, call["alpha"])
    if call["beta"] == 0:
        return out
    return add(call, out, bias if call["beta"] == 1 else multiply(call, bias, call["beta"]))


def _reshaped(call: Call, x: Value | Const, shape: tuple[int, ...]) -> Value | Const:
    if isinstance(x, Const):
        return Const(x.tensor.reshape(shape), x.trainable)
    return call.builder.reshape(x, shape)


def product(call: Call, x: Any, y: Any) -> Any:
    """``x @ y`` as torch's matmul has it, of variables and constants of any rank."""
    if isinstance(x, Const) and isinstance(y, Const):
        return Const(x.tensor @ y.tensor, x.trainable or y.trainable)
    x = x if isinstance(x, Const) else call.value(x)
    y = y if isinstance(y, Const) else call.value(y)
    if len(x.shape) == 1:
        out = product(call, _reshaped(call, x, (1, *x.shape)), y)
        cut = -1 if len(y.shape) == 1 else -2
        shape = list(out.shape)
        if len(y.shape) > 1:
            shape.pop(cut)
        else:
            shape = []
        return _reshaped(call, out, tuple(shape)) if out.shape != tuple(shape) else out
    if len(y.shape) == 1:
        if isinstance(y, Value) and isinstance(x, Const) and len(x.shape) == 2:
            return affine(call, y, x)
        out = product(call, x, _reshaped(call, y, (*y.shape, 1)))
        return _reshaped(call, out, out.shape[:-1])
    if isinstance(y, Const) and prod(y.shape[:-2]) == 1 and len(y.shape) <= len(x.shape):
        matrix = y.tensor.reshape(y.shape[-2:]) if len(y.shape) > 2 else y.tensor
        return affine(call, x, Const(matrix.t(), y.trainable))
    if isinstance(x, Const) and prod(x.shape[:-2]) == 1 and len(x.shape) <= len(y.shape):
        matrix = x.tensor.reshape(x.shape[-2:]) if len(x.shape) > 2 else x.tensor
        last = (*range(len(y.shape) - 2), len(y.shape) - 1, len(y.shape) - 2)
        turned = affine(call, call.builder.transpose(y, last), Const(matrix, x.trainable))
        return call.builder.transpose(turned, last)
    return call.builder.matmul(call.value(x), call.value(y))
