"""Moving, cutting, joining and repeating entries."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, Const, reads
from tangency.models.ops import Gather, Pad, Slice
from tangency.models.ops.base import broadcast_shapes

__all__ = ["pick"]


def pick(call: Call, x: Value, axis: int, index: np.ndarray) -> Value:
    """Entries ``index`` of one axis, in that order: a slice where it is one."""
    b = call.builder
    if index.size == 0:
        call.wrong("nothing is left of its input")
    view = call.bounded((*x.shape[:axis], index.size, *x.shape[axis + 1 :]))
    if np.array_equal(index, np.arange(x.shape[axis])):
        return x
    if x.shape[axis] == 1:
        return b.broadcast(x, view)
    node, (own,) = b.aligned(x, axis)
    shape = b.nodes[node].shape
    step = int(index[1] - index[0]) if index.size > 1 else 1
    if step > 0 and (np.diff(index) == step).all():
        start, stop, steps = [0] * len(shape), list(shape), [1] * len(shape)
        start[own], stop[own], steps[own] = int(index[0]), int(index[-1]) + 1, step
        return b.emit(Slice(tuple(start), tuple(stop), tuple(steps)), [node], view=view)
    return b.emit(Gather(tuple(int(i) for i in index), own), [node], view=view)


@reads("Reshape")
def reshape(call: Call) -> Value:
    x = call.var(0)
    target = call.integers(1, "shape") or []
    if not call.attr("allowzero", 0):
        if any(t == 0 and i >= len(x.shape) for i, t in enumerate(target)):
            call.wrong(f"the shape {target} copies an axis that {x.shape} does not have")
        target = [x.shape[i] if t == 0 else t for i, t in enumerate(target)]
    if target.count(-1) > 1 or min(target, default=1) < -1:
        call.wrong(f"the shape is {target}")
    known = prod(t for t in target if t != -1)
    if -1 in target and known:
        target = [prod(x.shape) // known if t == -1 else t for t in target]
    if prod(target) != prod(x.shape) or -1 in target:
        call.wrong(f"{x.shape} cannot become {target}")
    return call.builder.reshape(x, target)


@reads("Flatten")
def flatten(call: Call) -> Value:
    x, axis = call.var(0), int(call.attr("axis", 1))
    rank = len(x.shape)
    if not -rank <= axis <= rank:
        call.wrong(f"axis {axis} is out of range for {x.shape}")
    axis = axis + rank if axis < 0 else axis
    return call.builder.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@reads("Squeeze")
def squeeze(call: Call) -> Value:
    x, axes = call.var(0), call.integers(1, "axes")
    if axes is None:
        gone = [i for i, s in enumerate(x.shape) if s == 1]
    else:
        gone = call.axes(axes, len(x.shape))
    if any(x.shape[i] != 1 for i in gone):
        call.wrong(f"axes {gone} of {x.shape} are not of size one")
    return call.builder.reshape(x, [s for i, s in enumerate(x.shape) if i not in gone])


@reads("Unsqueeze")
def unsqueeze(call: Call) -> Value:
    x, axes = call.var(0), call.integers(1, "axes") or []
    rank = len(x.shape) + len(axes)
    if rank > 64:
        call.wrong(f"its output would have {rank} axes")
    new, rest = call.axes(axes, rank), iter(x.shape)
    return call.builder.reshape(x, [1 if i in new else next(rest) for i in range(rank)])


@reads("Transpose")
def transpose(call: Call) -> Value:
    x = call.var(0)
    rank = len(x.shape)
    perm = [int(p) for p in call.attr("perm") or range(rank)[::-1]]
    if sorted(perm) != list(range(rank)):
        call.wrong(f"perm {perm} is not a permutation of the axes of {x.shape}")
    return call.builder.transpose(x, perm)


@reads("Slice")
def slice_(call: Call) -> Value:
    x = call.var(0)
    starts, ends = call.integers(1, "starts") or [], call.integers(2, "ends") or []
    axes = call.integers(3, "axes")
    axes = list(range(len(starts))) if axes is None else axes
    steps = call.integers(4, "steps") or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        call.wrong(f"starts {starts}, ends {ends}, axes {axes}, steps {steps} do not fit")
    call.axes(axes, len(x.shape))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = call.axis(axis, len(x.shape))
        x = pick(call, x, axis, np.arange(x.shape[axis])[start:end:step])
    return x


@reads("Split")
def split(call: Call) -> list[Value]:
    x = call.var(0)
    axis = call.axis(call.attr("axis", 0), len(x.shape))
    size, sizes = x.shape[axis], call.integers(1, "split")
    count = int(call.attr("num_outputs", len(call.used)))
    if sizes is None:
        if count < 1 or count != len(call.used):
            call.wrong(f"splits into {count} parts, but has {len(call.used)} outputs")
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
    if sum(sizes) != size or min(sizes, default=0) < 1 or len(sizes) < len(call.used):
        call.wrong(f"parts {sizes} do not fit axis {axis} of {x.shape}")
    edges = np.cumsum([0, *sizes])
    return [
        pick(call, x, axis, np.arange(lo, hi)) if used else x
        for lo, hi, used in zip(edges[:-1], edges[1:], call.used, strict=False)
    ]


@reads("Concat")
def concat(call: Call) -> Value:
    items = [call.given(i) for i in range(len(call.inputs))]
    rank = len(items[0].shape)
    axis = call.axis(call.attr("axis", 1), rank)
    rest = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in items}
    if len(rest) != 1 or any(len(x.shape) != rank for x in items):
        call.wrong(f"shapes {[x.shape for x in items]} differ off axis {axis}")
    kept = [x for x in items if x.shape[axis]]
    return call.builder.concat([call.value(x, i) for i, x in enumerate(kept)], axis)


@reads("Gather")
def gather(call: Call) -> Value:
    x = call.var(0)
    axis = call.axis(call.attr("axis", 0), len(x.shape))
    array = call.const(1, "indices").array
    size = x.shape[axis]
    if array.dtype.kind not in "iu" or array.size == 0:
        call.wrong(f"indices are {array.dtype} {array.shape}: some integers are needed")
    if array.min() < -size or array.max() >= size:
        call.wrong(f"indices reach from {array.min()} to {array.max()}, axis {axis} has {size}")
    index = np.where(array < 0, array + size, array).astype(np.int64).reshape(-1)
    y = pick(call, x, axis, index)
    return call.builder.reshape(y, (*x.shape[:axis], *array.shape, *x.shape[axis + 1 :]))


@reads("Pad")
def pad(call: Call) -> Value:
    x, b = call.var(0), call.builder
    rank, mode = len(x.shape), call.text("mode", "constant")
    pads = call.integers(1, "pads" if "pads" in call.attributes else "paddings") or []
    axes = call.integers(3, "axes")
    axes = list(range(rank)) if axes is None else [call.axis(a, rank) for a in axes]
    if len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        call.wrong(f"pads {pads} do not fit axes {axes} of {x.shape}")
    value: Any = call.attr("value", 0.0)
    if call.item(2) is not None:
        array = call.float_array(call.const(2, "value"))
        value = array.reshape(-1)[0] if array.size == 1 else np.nan
    if mode not in ("constant", "reflect", "edge", "wrap"):
        call.wrong(f"mode is {mode!r}")
    if mode == "constant" and not np.isfinite(value):
        call.wrong(f"pads with {value}; a finite number is needed")
    ends = list(zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True))
    around = [[0, 0] for _ in range(rank)]
    for axis, lo, hi in ends:
        size = x.shape[axis]
        call.bounded((*x.shape[:axis], size + lo + hi, *x.shape[axis + 1 :]))
        if mode != "constant":
            if mode == "reflect" and max(lo, hi) >= size:
                call.wrong(f"reflects {max(lo, hi)} entries of an axis of {size}")
            index = np.arange(size)[max(0, -lo) : size - max(0, -hi)]
            index = np.pad(index, (max(0, lo), max(0, hi)), mode=mode)  # type: ignore[call-overload]
            x = pick(call, x, axis, index)
            continue
        if lo < 0 or hi < 0:
            x = pick(call, x, axis, np.arange(size)[max(0, -lo) : size - max(0, -hi)])
        around[axis] = [max(0, lo), max(0, hi)]
    wide = [i for i in range(rank) if any(around[i])]
    if not wide:
        return x
    view = call.bounded([s + sum(p) for s, p in zip(x.shape, around, strict=True)])
    node, own = b.aligned(x, *wide)
    padding = [(0, 0)] * len(b.nodes[node].shape)
    for axis, i in zip(wide, own, strict=True):
        padding[i] = (around[axis][0], around[axis][1])
    return b.emit(Pad(tuple(padding), float(value)), [node], view=view)


@reads("Expand")
def expand(call: Call) -> Value:
    x, target = call.var(0), call.integers(1, "shape") or []
    shape = call.bounded(broadcast_shapes(x.shape, call.bounded(target)))
    return call.builder.broadcast(x, shape)


@reads("Tile")
def tile(call: Call) -> Value:
    x, counts = call.var(0), call.integers(1, "repeats") or []
    if len(counts) != len(x.shape) or min(counts, default=1) < 1:
        call.wrong(f"repeats {counts} do not fit {x.shape}")
    call.bounded([s * c for s, c in zip(x.shape, counts, strict=True)])
    for axis, count in enumerate(counts):
        x = pick(call, x, axis, np.tile(np.arange(x.shape[axis]), count))
    return x


@reads("Trilu")
def triangle(call: Call) -> Value:
    x = call.var(0)
    k = (call.integers(1, "k") or [0])[0]
    if len(x.shape) < 2:
        call.wrong(f"takes matrices, got {x.shape}")
    k = max(-max(x.shape) - 1, min(max(x.shape) + 1, k))
    ones = np.ones(x.shape[-2:], call.builder.dtype)
    mask = np.triu(ones, k) if call.attr("upper", 1) else np.tril(ones, k)
    return call.builder.scale(x, mask, key="triangle", trainable=False)


@reads("DepthToSpace", "SpaceToDepth")
def depth_to_space(call: Call) -> Value:
    x, b, size = call.var(0), call.builder, int(call.attr("blocksize", 0))
    if len(x.shape) != 4 or size < 1:
        call.wrong(f"blocksize {size} does not fit {x.shape}")
    n, c, h, w = x.shape
    if call.op == "SpaceToDepth":
        if h % size or w % size:
            call.wrong(f"blocksize {size} does not fit {x.shape}")
        x = b.reshape(x, (n, c, h // size, size, w // size, size))
        depth_first = call.text("mode", "DCR") == "CRD"
        x = b.transpose(x, (0, 1, 3, 5, 2, 4) if depth_first else (0, 3, 5, 1, 2, 4))
        return b.reshape(x, (n, c * size * size, h // size, w // size))
    if c % size**2:
        call.wrong(f"blocksize {size} does not fit {x.shape}")
    deep = c // size**2
    if call.text("mode", "DCR") == "DCR":
        x = b.transpose(b.reshape(x, (n, size, size, deep, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        x = b.transpose(b.reshape(x, (n, deep, size, size, h, w)), (0, 1, 4, 2, 5, 3))
    return b.reshape(x, (n, deep, h * size, w * size))


@reads("Constant")
def constant(call: Call) -> Const:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if name in call.attributes:
            value = call.attributes[name]
            if name != "value":
                kind = np.float32 if "float" in name else np.int64
                value = np.asarray(value, kind)
            return Const(np.asarray(value), call.name)
    call.refuse(f"holds {sorted(call.attributes)}; a dense tensor or number is needed")
