"""Scaled dot product attention, written out as products, a softmax and fixed masks."""

from __future__ import annotations

from math import sqrt
from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, Truth, reads
from tangency.models.importers.torch_ops.linear import product
from tangency.models.importers.torch_ops.operands import LOWEST, add, multiply
from tangency.models.importers.torch_ops.shapes import spread
from tangency.models.ops import Softmax

__all__: list[str] = []


@reads("scaled_dot_product_attention")
def attention(call: Call) -> Any:
    call.require(call["dropout_p"] == 0, "dropout makes it random; call module.eval()")
    query, key, value = (
        x if isinstance(x, Const) else call.value(x)
        for x in (call["query"], call["key"], call["value"])
    )
    if call.get("enable_gqa", False):
        key, value = (_repeated(call, x, query.shape[-3] // x.shape[-3]) for x in (key, value))
    scale = call.get("scale")
    scale = 1 / sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = multiply(call, product(call, query, _turned(call, key)), scale)
    mask = _mask(call, query.shape[-2], key.shape[-2])
    scores = scores if mask is None else add(call, scores, mask)
    if isinstance(scores, Const):
        weights: Any = Const(scores.tensor.softmax(-1), scores.trainable)
    else:
        node, (axis,) = call.builder.aligned(scores, -1)
        weights = call.builder.emit(Softmax(axis), [node], view=scores.shape)
    return product(call, weights, value)


def _turned(call: Call, key: Any) -> Any:
    if isinstance(key, Const):
        return Const(key.tensor.transpose(-1, -2), key.trainable)
    rank = len(key.shape)
    return call.builder.transpose(key, (*range(rank - 2), rank - 1, rank - 2))


def _repeated(call: Call, x: Any, times: int) -> Any:
    if isinstance(x, Const):
        return Const(x.tensor.repeat_interleave(times, -3), x.trainable)
    *lead, heads, length, width = x.shape
    before, after = (*lead, heads, 1, length, width), (*lead, heads, times, length, width)
    return spread(call, x, before, after, (*lead, heads * times, length, width))


def _mask(call: Call, rows: int, columns: int) -> Const | None:
    """What is added to the scores; a forbidden place gets -1e30, whose exponential is zero."""
    import torch

    given = call.get("attn_mask")
    allowed = None
    if call.get("is_causal", False):
        allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
    elif given is not None:
        call.require(not isinstance(given, Value | Truth), "a mask computed from the input")
        if given.tensor.dtype == torch.bool:
            allowed = given.tensor
        else:
            blocked = torch.isneginf(given.tensor).all(-1).any()
            call.require(not blocked, "a row of the mask allows nothing")
            return Const(given.tensor, given.trainable)
    if allowed is None:
        return None
    call.require(allowed.any(-1).all(), "a row of the mask allows nothing")
    dtype = getattr(torch, call.builder.dtype)
    return Const(torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, LOWEST))
