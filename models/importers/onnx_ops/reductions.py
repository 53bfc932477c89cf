"""Sums, means, norms and extrema over axes, and running sums."""

from __future__ import annotations

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, reads
from tangency.models.ops import LogSumExp, Op, Reduce, ReduceExtremum

__all__: list[str] = []


def _reduced(call: Call, x: Value, axes: list[int], how: str, keep: bool) -> Value:
    b = call.builder
    view = tuple(1 if i in axes else s for i, s in enumerate(x.shape) if keep or i not in axes)
    long = [a for a in axes if x.shape[a] != 1]
    if not long:
        return b.reshape(x, view)
    node, own = b.aligned(x, *long)
    op: Op
    if how in ("max", "min"):
        op = ReduceExtremum(how, own)
    elif how == "log_sum_exp":
        op = LogSumExp(own)
    else:
        op = Reduce(how, own)
    return b.emit(op, [node], view=view)


@reads(
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
)
def reduce(call: Call) -> Value:
    x = call.var(0)
    given = call.integers(1, "axes")
    if not given and call.attr("noop_with_empty_axes", 0):
        axes: list[int] = []
    elif given:
        axes = call.axes(given, len(x.shape))
    else:
        axes = list(range(len(x.shape)))
    keep = bool(call.attr("keepdims", 1))
    kind = call.op.removeprefix("Reduce")
    if kind in ("L1",):
        x = call.activate(x, "abs")
    elif kind in ("L2", "SumSquare"):
        x = call.activate(x, "square")
    names = {"Mean": "mean", "Max": "max", "Min": "min", "LogSumExp": "log_sum_exp"}
    y = _reduced(call, x, axes, names.get(kind, "sum"), keep)
    if kind == "L2":
        return call.activate(y, "sqrt")
    return call.activate(y, "log") if kind == "LogSum" else y


@reads("CumSum")
def cumulative_sum(call: Call) -> Value:
    x = call.var(0)
    found = call.integers(1, "axis") or []
    if len(found) != 1:
        call.wrong("takes one axis")
    axis = call.axis(found[0], len(x.shape))
    n = x.shape[axis]
    call.bounded((n, n))
    matrix = np.tri(n, k=-1 if call.attr("exclusive", 0) else 0)
    return call.along(x, axis, matrix.T if call.attr("reverse", 0) else matrix, "running_sum")
