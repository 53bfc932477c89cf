"""Ops that take some entries, or join and pad tensors."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tangency.models.builder import Builder, Value
from tangency.models.importers.joined import joined
from tangency.models.importers.torch_ops.context import Call, Const, reads
from tangency.models.ops import Gather, Pad, Slice

__all__ = ["cut", "take"]


def cut(builder: Builder, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Entries ``start:stop:step`` of one axis."""
    size = value.shape[axis]
    count = len(range(start, min(stop, size), step))
    view = (*value.shape[:axis], count, *value.shape[axis + 1 :])
    if count == size:
        return value
    node, (place,) = builder.aligned(value, axis)
    shape = builder.nodes[node].shape
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[place], stops[place], steps[place] = start, min(stop, size), step
    return builder.emit(Slice(tuple(starts), tuple(stops), tuple(steps)), [node], view=view)


def take(builder: Builder, value: Value, axis: int, indices: Any) -> Value:
    """Entries of one axis in a fixed order, which may come more than once."""
    size = value.shape[axis]
    listed = [int(i) % size for i in np.asarray(indices).reshape(-1)]
    view = (*value.shape[:axis], len(listed), *value.shape[axis + 1 :])
    if listed == list(range(size)):
        return value
    if len(listed) == 1:
        return cut(builder, value, axis, listed[0], listed[0] + 1)
    node, (place,) = builder.aligned(value, axis)
    return builder.emit(Gather(tuple(listed), place), [node], view=view)


@reads("slice", "narrow", "slice_copy")
def slice_(call: Call) -> Value:
    value, axis = call.value(), call.axis()
    size = value.shape[axis]
    start = int(call.get("start", 0))
    if call.name == "narrow":
        start %= size
        return cut(call.builder, value, axis, start, start + int(call["length"]))
    # A stop of sys.maxsize is the end; negative ones count from there.
    lo, hi, step = slice(start, call.get("end"), call.get("step", 1)).indices(size)
    call.require(lo < hi, f"nothing is left of axis {axis} of {size} entries")
    return cut(call.builder, value, axis, lo, hi, step)


@reads("select", "select_copy")
def select(call: Call) -> Value:
    value, axis = call.value(), call.axis()
    call.require(isinstance(call["index"], int), "the index is computed from the input")
    at = int(call["index"]) % value.shape[axis]
    piece = cut(call.builder, value, axis, at, at + 1)
    return call.builder.reshape(piece, value.shape[:axis] + value.shape[axis + 1 :])


@reads("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split", "unsafe_chunk")
def split(call: Call) -> list[Value]:
    value, axis, at, pieces = call.value(), call.axis(), 0, []
    for shape in call.shapes:
        pieces.append(cut(call.builder, value, axis, at, at + shape[axis]))
        at += shape[axis]
    return pieces


@reads("unbind")
def unbind(call: Call) -> list[Value]:
    value, axis = call.value(), call.axis()
    shape = value.shape[:axis] + value.shape[axis + 1 :]
    pieces = [cut(call.builder, value, axis, i, i + 1) for i in range(value.shape[axis])]
    return [call.builder.reshape(piece, shape) for piece in pieces]


@reads("index_select")
def index_select(call: Call) -> Value:
    return take(call.builder, call.value(), call.axis(), _indices(call, call["index"]))


def _indices(call: Call, item: Any) -> np.ndarray:
    call.require(isinstance(item, Const), "the indices are computed from the input")
    return np.asarray(item.tensor.detach().cpu().numpy())


@reads("index", "_unsafe_index")
def index(call: Call) -> Value:
    value, given = call.value(), list(call["indices"])
    used = [k for k, item in enumerate(given) if item is not None]
    first = _indices(call, given[used[0]]) if used else np.zeros(0)
    if len(used) == 1 and (first.ndim == 1 or first.dtype.kind == "i"):
        axis = used[0]
        places = np.nonzero(first)[0] if first.dtype.kind == "b" else first
        out = take(call.builder, value, axis, places)
        shape = (*value.shape[:axis], *places.shape, *value.shape[axis + 1 :])
        return call.builder.reshape(out, shape)
    return _scattered(call, value)


@reads("gather", "take", "diagonal", "unfold", "rot90", "take_along_dim", "diag", "diagonal_copy")
def scattered(call: Call) -> Value:
    return _scattered(call, call.value())


def _scattered(call: Call, value: Value) -> Value:
    """Any op that only picks entries: it is asked where they come from, on their numbers."""
    import torch

    numbers = torch.arange(prod(value.shape)).reshape(value.shape)
    plain = [_unwrapped(call, item) for item in call.args.values()]
    picked = call.run([numbers, *plain[1:]])
    flat = call.builder.reshape(value, (1, prod(value.shape)))
    out = take(call.builder, flat, 1, picked.numpy())
    return call.builder.reshape(out, tuple(picked.shape))


def _unwrapped(call: Call, item: Any) -> Any:
    if isinstance(item, list | tuple):
        return [_unwrapped(call, i) for i in item]
    return item.tensor if isinstance(item, Const) else item


@reads("flip", "fliplr", "flipud")
def flip(call: Call) -> Value:
    value = call.value()
    for axis in call.get("dims", [1 if call.name == "fliplr" else 0]):
        axis %= len(value.shape)
        value = take(call.builder, value, axis, np.arange(value.shape[axis])[::-1])
    return value


@reads("roll")
def roll(call: Call) -> Value:
    value = call.value()
    shifts, dims = list(call["shifts"]), list(call.get("dims", []))
    flat = not dims
    moved = call.builder.reshape(value, (1, prod(value.shape))) if flat else value
    for shift, dim in zip(shifts, [1] if flat else dims, strict=True):
        axis = dim % len(moved.shape)
        moved = take(call.builder, moved, axis, np.roll(np.arange(moved.shape[axis]), shift))
    return call.builder.reshape(moved, value.shape)


@reads("cat", "concat", "concatenate")
def cat(call: Call) -> Value:
    items = [item for item in call["tensors"] if tuple(item.shape) != (0,)]
    values = [call.value(item) for item in items]
    axis = int(call["dim"]) % len(values[0].shape)
    return call.builder.transpose(*joined(call.builder, values, axis))


@reads("stack")
def stack(call: Call) -> Value:
    values = [call.value(item) for item in call["tensors"]]
    axis = int(call["dim"]) % (len(values[0].shape) + 1)
    shape = (*values[0].shape[:axis], 1, *values[0].shape[axis:])
    values = [call.builder.reshape(v, shape) for v in values]
    return call.builder.transpose(*joined(call.builder, values, axis))


@reads(
    *("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d"),
    *("replication_pad1d", "replication_pad2d"),
)
def pad(call: Call) -> Value:
    value, b = call.value(), call.builder
    flat = [int(p) for p in call.get("pad", call.get("padding"))]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))  # the last axis first
    modes = {"constant": "constant", "reflection": "reflect", "replication": "replicate"}
    mode = call.get("mode", modes.get(call.name.split("_")[0], "constant"))
    ways: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    rank = len(value.shape)
    if mode != "constant":
        call.require(mode in ways, f"mode {mode!r} is not read")
        for i, pair in enumerate(pairs):
            axis = rank - 1 - i
            where = np.pad(np.arange(value.shape[axis]), pair, mode=ways[mode])
            value = take(b, value, axis, where)
        return value
    for i, (lo, hi) in enumerate(pairs):
        axis = rank - 1 - i
        value = cut(b, value, axis, max(0, -lo), value.shape[axis] - max(0, -hi))
    grown = {rank - 1 - i: (max(lo, 0), max(hi, 0)) for i, (lo, hi) in enumerate(pairs)}
    grown = {axis: pair for axis, pair in grown.items() if any(pair)}
    if not grown:
        return value
    node, places = b.aligned(value, *grown)
    padding = [(0, 0)] * len(b.nodes[node].shape)
    for place, pair in zip(places, grown.values(), strict=True):
        padding[place] = pair
    view = [s + sum(grown.get(axis, (0, 0))) for axis, s in enumerate(value.shape)]
    fill = float(call.get("value", 0.0))
    return b.emit(Pad(tuple(padding), fill), [node], view=tuple(view))
