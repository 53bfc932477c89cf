"""Affine layers with weights: matrix products, convolutions, batch norm."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, Const, reads
from tangency.models.importers.onnx_ops.windows import window_padding
from tangency.models.ops import Add, BatchNorm, Conv, ConvTranspose, Reduce

__all__ = ["swap_last"]


def swap_last(call: Call, value: Value) -> Value:
    """The value with its last two axes exchanged."""
    rank = len(value.shape)
    return call.builder.transpose(value, [*range(rank - 2), rank - 1, rank - 2])


@reads("MatMul")
def matmul(call: Call) -> Value:
    x, y, b = call.given(0), call.given(1), call.builder
    for item in (x, y):
        if not item.shape:
            call.wrong("takes operands of one axis or more, got a scalar")
    if isinstance(y, Const) and prod(y.shape[:-2]) == 1:
        return _times_constant(call, call.value(x), y)
    if isinstance(x, Const) and x.array.ndim <= 2:
        return _constant_times(call, x, call.value(y))
    a, c = call.var(0), call.var(1)
    ends = len(a.shape) == 1, len(c.shape) == 1
    if ends[0]:
        a = b.reshape(a, (1, *a.shape))
    if ends[1]:
        c = b.reshape(c, (*c.shape, 1))
    if a.shape[-1] != c.shape[-2]:
        call.wrong(f"shapes {x.shape} and {y.shape} do not fit")
    out = b.matmul(a, c)
    shape = list(out.shape)
    if ends[0]:
        del shape[-2]
    if ends[1]:
        del shape[-1]
    return b.reshape(out, shape)


def _times_constant(call: Call, x: Value, c: Const) -> Value:
    array = call.float_array(c)
    matrix = array.reshape(array.shape[-2:]) if array.ndim > 1 else array[:, None]
    if x.shape[-1] != matrix.shape[0]:
        call.wrong(f"input {x.shape} does not fit the weight {c.key!r} {c.shape}")
    weight = np.ascontiguousarray(matrix.T)
    y = call.builder.dense(x, weight, keys=(c.key, ""), trainable=(c.trainable, True))
    if array.ndim == 1:
        return call.builder.reshape(y, y.shape[:-1])
    lead = (1,) * (array.ndim - max(2, len(x.shape)))
    return call.builder.reshape(y, (*lead, *y.shape))


def _constant_times(call: Call, c: Const, y: Value) -> Value:
    b, matrix = call.builder, call.float_array(c)
    rows = matrix if matrix.ndim == 2 else matrix[None]
    tall = len(y.shape) > 1
    if y.shape[-2 if tall else -1] != rows.shape[1]:
        call.wrong(f"the weight {c.key!r} {c.shape} does not fit an input {y.shape}")
    turned = swap_last(call, y) if tall else y
    out = b.dense(
        turned, np.ascontiguousarray(rows), keys=(c.key, ""), trainable=(c.trainable, True)
    )
    out = swap_last(call, out) if tall else out
    if matrix.ndim == 2:
        return out
    shape = (*out.shape[:-2], out.shape[-1]) if tall else out.shape[:-1]
    return b.reshape(out, shape)


@reads("Gemm")
def gemm(call: Call) -> Value:
    b = call.builder
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    left, right = call.given(0), call.given(1)
    if len(left.shape) != 2 or len(right.shape) != 2:
        call.wrong(f"takes matrices, got {left.shape} and {right.shape}")
    turn_left, turn_right = bool(call.attr("transA", 0)), bool(call.attr("transB", 0))
    if isinstance(right, Const):
        x = call.value(left)
        weight = call.float_array(right) if turn_right else call.float_array(right).T
        x = swap_last(call, x) if turn_left else x
        if x.shape[-1] != weight.shape[1]:
            call.wrong(f"input {x.shape} does not fit the weight {right.key!r} {right.shape}")
        out = _dense(call, x, weight, right, alpha)
    elif isinstance(left, Const):
        y = call.value(right)
        weight = call.float_array(left).T if turn_left else call.float_array(left)
        y = y if turn_right else swap_last(call, y)
        if y.shape[-1] != weight.shape[1]:
            call.wrong(f"input {y.shape} does not fit the weight {left.key!r} {left.shape}")
        out = swap_last(call, _dense(call, y, weight, left, alpha))
    else:
        x = swap_last(call, call.var(0)) if turn_left else call.var(0)
        y = swap_last(call, call.var(1)) if turn_right else call.var(1)
        if x.shape[1] != y.shape[0]:
            call.wrong(f"shapes {x.shape} and {y.shape} do not fit")
        out = b.scale(b.matmul(x, y), np.asarray(alpha, b.dtype), trainable=False)
    added = call.item(2)
    if added is None or beta == 0:
        return out
    if isinstance(added, Const):
        array = call.float_array(added)
        array = array if beta == 1 else array * array.dtype.type(beta)
        if array.ndim == 2 and array.shape[0] == 1:
            array = array[0]
        wide = np.broadcast_shapes(array.shape, out.shape)
        if wide != out.shape:
            call.wrong(f"the addend {added.key!r} {added.shape} does not fit {out.shape}")
        if array.ndim <= 1 and array.shape != out.shape[-1:]:
            array = np.broadcast_to(array, out.shape[-1:])
        return b.shift(out, array, key=added.key, trainable=added.trainable)
    scaled = b.scale(call.var(2), np.asarray(beta, b.dtype), trainable=False)
    return b.elementwise(Add(), out, scaled)


def _dense(call: Call, x: Value, weight: np.ndarray, c: Const, alpha: float) -> Value:
    weight = weight if alpha == 1 else weight * weight.dtype.type(alpha)
    return call.builder.dense(
        x, np.ascontiguousarray(weight), keys=(c.key, ""), trainable=(c.trainable, True)
    )


def _kernel(call: Call, x: Value) -> tuple[Const, int, tuple[int, ...]]:
    """Weight, number of spatial axes and kernel size of a convolution."""
    weight = call.weight(1, "weight")
    n = weight.array.ndim - 2
    if not 1 <= n <= 3 or len(x.shape) != n + 2 or 0 in weight.shape:
        call.wrong(
            f"input {x.shape} and weight {weight.shape}: (N, C, *S) and (O, C, *K) with "
            "one to three spatial axes are needed"
        )
    kernel = tuple(weight.shape[2:])
    stated = call.attr("kernel_shape")
    if stated and tuple(int(k) for k in stated) != kernel:
        call.wrong(f"kernel_shape {tuple(stated)} is not that of the weight {weight.shape}")
    return weight, n, kernel


def _with_bias(call: Call, weight: Const) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    params: dict[str, tuple[str, Any]] = {"weight": (weight.key, weight.array)}
    fixed = [] if weight.trainable else ["weight"]
    if call.item(2) is not None:
        bias = call.weight(2, "bias")
        params["bias"] = (bias.key, bias.array)
        fixed += [] if bias.trainable else ["bias"]
    return params, fixed


@reads("Conv")
def conv(call: Call) -> Value:
    x, b = call.var(0), call.builder
    weight, n, kernel = _kernel(call, x)
    stride = call.ints("strides", n, 1, least=1)
    dilation = call.ints("dilations", n, 1, least=1)
    padding = window_padding(call, x.shape[2:], kernel, stride, dilation)
    groups = int(call.attr("group", 1))
    if groups < 1:
        call.wrong(f"group is {groups}")
    space = [
        (s + sum(p) - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
    ]
    view = call.bounded((x.shape[0], weight.shape[0], *space))
    params, fixed = _with_bias(call, weight)
    op = Conv(stride, padding, dilation, groups)
    return b.emit(op, [b.sample(x)], params, view=view, buffers=fixed)


@reads("ConvTranspose")
def conv_transpose(call: Call) -> Value:
    x, b = call.var(0), call.builder
    weight, n, kernel = _kernel(call, x)
    stride = call.ints("strides", n, 1, least=1)
    dilation = call.ints("dilations", n, 1, least=1)
    extra = call.ints("output_padding", n, 0, least=0)
    groups, auto = int(call.attr("group", 1)), call.text("auto_pad", "NOTSET")
    if groups < 1 or weight.shape[0] % groups:
        call.wrong(f"group is {groups} for a weight {weight.shape}")
    full = [
        (s - 1) * t + d * (k - 1) + 1 + e
        for s, t, d, k, e in zip(x.shape[2:], stride, dilation, kernel, extra, strict=True)
    ]
    target = call.attr("output_shape")
    if target is None and auto.startswith("SAME"):
        target = [s * t for s, t in zip(x.shape[2:], stride, strict=True)]
    if target is not None:
        target = [int(t) for t in target][-n:]
        spare = [f - t for f, t in zip(full, target, strict=True)]
        if min(spare) < 0:
            call.refuse(f"an output_shape {target} larger than the full one {full}")
        halves = [(s // 2, s - s // 2) for s in spare]
        padding = tuple(h if auto == "SAME_UPPER" else h[::-1] for h in halves)
    elif auto == "VALID":
        padding = ((0, 0),) * n
    else:
        pads = call.ints("pads", 2 * n, 0, least=0)
        padding = tuple(zip(pads[:n], pads[n:], strict=True))
    space = [f - sum(p) for f, p in zip(full, padding, strict=True)]
    view = call.bounded((x.shape[0], weight.shape[1] * groups, *space))
    params, fixed = _with_bias(call, weight)
    op = ConvTranspose(stride, padding, dilation, groups, extra)
    return b.emit(op, [b.sample(x)], params, view=view, buffers=fixed)


@reads("BatchNormalization")
def batch_norm(call: Call) -> Value:
    x, b = call.var(0), call.builder
    if call.attr("training_mode", 0) or (call.opset < 7 and not call.attr("is_test", 0)):
        call.refuse("is in training mode; export the model in evaluation mode")
    if call.opset < 9 and not call.attr("spatial", 1):
        call.refuse("spatial=0 (statistics for each entry) is not supported")
    if len(x.shape) < 2:
        call.wrong(f"takes an input (N, C, ...), got {x.shape}")
    names = ("weight", "bias", "mean", "var")
    parts = {name: call.weight(i, name) for i, name in enumerate(names, 1)}
    if (parts["var"].array < 0).any():
        call.wrong(f"the variance {parts['var'].key!r} has a negative entry")
    node, (axis,) = b.aligned(x, 1)
    fixed = ["mean", "var", *(n for n in names[:2] if not parts[n].trainable)]
    params = {name: (part.key, part.array) for name, part in parts.items()}
    op = BatchNorm(axis, call.number("epsilon", 1e-5))
    return b.emit(op, [node], params, view=x.shape, buffers=fixed)


@reads("Einsum")
def einsum(call: Call) -> Value:
    b = call.builder
    text = call.text("equation", "").replace(" ", "")
    terms, arrow, out = text.partition("->")
    labels = terms.split(",")
    every = "".join(labels)
    if not arrow:
        out = "".join(sorted(c for c in set(every) if every.count(c) == 1))
    plain = every.isalpha() and set(out) <= set(every)
    if not plain or len(labels) > 2 or any(len(set(t)) != len(t) for t in (*labels, out)):
        call.refuse(f"equation {text!r}: one or two operands without repeated labels or '...' only")
    if len(labels) == 1:
        return _einsum_of_one(call, every, out)
    x, y = call.var(0), call.var(1)
    a, c = labels
    if len(a) != len(x.shape) or len(c) != len(y.shape):
        call.wrong(f"equation {text!r} does not fit {x.shape} and {y.shape}")
    size = dict(zip(a, x.shape, strict=True))
    for label, s in zip(c, y.shape, strict=True):
        if size.setdefault(label, s) != s:
            call.wrong(f"equation {text!r} does not fit {x.shape} and {y.shape}")
    shared = [t for t in a if t in c and t in out]
    summed = [t for t in a if t in c and t not in out]
    rows, columns = [t for t in a if t not in c], [t for t in c if t not in a]
    if not set(rows) | set(columns) <= set(out):
        call.refuse(f"equation {text!r} sums over a label of one operand alone")

    def arrange(v: Value, own: str, groups: list[list[str]]) -> Value:
        order = [own.index(t) for group in groups for t in group]
        shape = [size[t] for t in groups[0]]
        shape += [prod(size[t] for t in group) for group in groups[1:]]
        return b.reshape(b.transpose(v, order), shape)

    left = arrange(x, a, [shared, rows, summed])
    right = arrange(y, c, [shared, summed, columns])
    product = b.matmul(left, right)
    order = [*shared, *rows, *columns]
    product = b.reshape(product, [size[t] for t in order])
    return b.transpose(product, [order.index(t) for t in out])


def _einsum_of_one(call: Call, labels: str, out: str) -> Value:
    """Axes summed over and put in order."""
    x, b = call.var(0), call.builder
    if len(labels) != len(x.shape):
        call.wrong(f"the equation {labels}->{out} does not fit {x.shape}")
    summed = [i for i, t in enumerate(labels) if t not in out]
    kept = [t for t in labels if t in out]
    if summed:
        node, axes = b.aligned(x, *summed)
        view = tuple(s for i, s in enumerate(x.shape) if i not in summed)
        x = b.emit(Reduce("sum", axes), [node], view=view)
    return b.transpose(x, [kept.index(t) for t in out])
