"""Ops whose result does not depend on the entries of their first argument, or replaces them."""

from __future__ import annotations

from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, reads

__all__: list[str] = []


@reads("copy")
def copy(call: Call) -> Any:
    value, shape = call["src"], call["self"].shape
    if isinstance(value, Value):
        return call.builder.broadcast(value, shape)
    return Const(call.const(value).tensor.expand(shape))


@reads("fill", "zero")
def fill(call: Call) -> Any:
    value, shape = call.get("value", 0.0), call["self"].shape
    if isinstance(value, Value):
        return call.builder.broadcast(value, shape)
    return Const(call.const(value).tensor.to(_dtype(call)).expand(shape).clone())


@reads("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
def like(call: Call) -> Const:
    import torch

    dtype = call.get("dtype", _dtype(call))
    fill_value = {"z": 0, "o": 1}.get(call.name.removeprefix("new_")[0], call.get("fill_value"))
    return Const(torch.full(call.out(), fill_value, dtype=dtype))


def _dtype(call: Call) -> Any:
    import torch

    return getattr(torch, call.builder.dtype)
