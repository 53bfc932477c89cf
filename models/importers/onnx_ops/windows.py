"""Pooling, and the padding that windows of pools and convolutions have."""

from __future__ import annotations

from collections.abc import Sequence

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, reads
from tangency.models.ops import AveragePool, MaxPool, Reduce, ReduceExtremum, Shape

__all__ = ["window_padding"]

Padding = tuple[tuple[int, int], ...]


def window_padding(
    call: Call,
    space: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Padding:
    """(before, after) for each spatial axis, from ``pads`` or ``auto_pad``."""
    n, auto = len(kernel), call.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = call.ints("pads", 2 * n, 0, least=0)
        return tuple(zip(pads[:n], pads[n:], strict=True))
    if auto == "VALID":
        return ((0, 0),) * n
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        call.wrong(f"auto_pad is {auto!r}")
    padding = []
    for size, k, s, d in zip(space, kernel, stride, dilation, strict=True):
        spare = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        small, large = spare // 2, spare - spare // 2
        padding.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return tuple(padding)


@reads("MaxPool", "AveragePool")
def pool(call: Call) -> Value:
    x, b = call.var(0), call.builder
    n = len(x.shape) - 2
    if not 1 <= n <= 3:
        call.wrong(f"takes an input (N, C, *S) of one to three spatial axes, got {x.shape}")
    kernel = call.ints("kernel_shape", n, 0, least=1)
    stride = call.ints("strides", n, 1, least=1)
    dilation = call.ints("dilations", n, 1, least=1)
    padding = window_padding(call, x.shape[2:], kernel, stride, dilation)
    average = call.op == "AveragePool"
    counted = bool(call.attr("count_include_pad", 0))
    if average and set(dilation) != {1}:
        call.refuse(f"dilations {dilation} are not supported")
    if call.attr("ceil_mode", 0):
        padding = _ceiled(call, x.shape[2:], kernel, stride, dilation, padding)
    space = [
        (s + sum(p) - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(x.shape[2:], padding, dilation, kernel, stride, strict=True)
    ]
    view = call.bounded((*x.shape[:2], *space))
    if average:
        plain = AveragePool(kernel, stride, padding, counted or padding == ((0, 0),) * n)
        return b.emit(plain, [b.sample(x)], view=view)
    return b.emit(MaxPool(kernel, stride, padding, dilation), [b.sample(x)], view=view)


def _ceiled(
    call: Call,
    space: Shape,
    kernel: Shape,
    stride: Shape,
    dilation: Shape,
    padding: Padding,
) -> Padding:
    """Padding at the end that gives the last, partial window of ceil_mode where there is one."""
    wider = []
    for size, k, s, d, (lo, hi) in zip(space, kernel, stride, dilation, padding, strict=True):
        span = d * (k - 1) + 1
        spare = (size + lo + hi - span) % s
        more = s - spare if spare else 0
        start = size + lo + hi - span + more  # where the last window begins, padding counted
        if more and start >= size + lo:
            more = 0  # it would lie in the padding alone: left out
        if more and call.op == "AveragePool" and call.attr("count_include_pad", 0):
            call.refuse("ceil_mode with count_include_pad, where a window is cut off")
        if more and hi + more >= span:
            call.refuse("ceil_mode with a partial window that a padded one does not equal")
        wider.append((lo, hi + more))
    return tuple(wider)


@reads("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> Value:
    x, b = call.var(0), call.builder
    if len(x.shape) < 3:
        call.wrong(f"takes an input (N, C, *S), got {x.shape}")
    view = x.shape[:2] + (1,) * (len(x.shape) - 2)
    long = [i for i in range(2, len(x.shape)) if x.shape[i] != 1]
    if not long:
        return b.reshape(x, view)
    node, axes = b.aligned(x, *long)
    op = Reduce("mean", axes) if call.op == "GlobalAveragePool" else ReduceExtremum("max", axes)
    return b.emit(op, [node], view=view)
