"""Normalisation: batch norm in inference, layer, group, instance and RMS norm."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, Missing, identity, reads
from tangency.models.importers.torch_ops.operands import add, multiply
from tangency.models.ops import BatchNorm, LayerNorm

__all__: list[str] = []


@reads(
    *(
        "batch_norm",
        "native_batch_norm",
        "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm",
    ),
    *("_native_batch_norm_legit",),
)
def batch_norm(call: Call) -> Any:
    training = call.get("training", call.get("train", False))
    mean, var = call.get("running_mean"), call.get("running_var")
    call.require(
        not training and mean is not None,
        "it takes the mean over the batch (training mode), which mixes the samples; "
        "call module.eval() and keep running statistics",
    )
    roles = {"mean": mean, "var": var, "weight": call.get("weight"), "bias": call.get("bias")}
    names = {"mean": "running_mean", "var": "running_var"}
    params = {r: call.param(c, names.get(r, r)) for r, c in roles.items() if c is not None}
    value = call.value("input")
    node, (axis,) = call.builder.aligned(value, 1)
    op = BatchNorm(axis, float(call["eps"]))
    out = call.builder.emit(op, [node], params, view=value.shape, buffers=call.fixed(**roles))
    if call.name in ("batch_norm", "instance_norm"):
        return out
    return out, Missing("the mean of batch norm"), Missing("the variance of batch norm")


@reads("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm")
def layer_norm(call: Call) -> Any:
    value, centre = call.value("input"), "layer" in call.name
    rank, k = len(value.shape), len(call["normalized_shape"])
    eps = call.get("eps")
    if eps is None:  # torch takes the machine's
        eps = np.finfo(call.builder.dtype).eps
    roles = {"weight": call.get("weight"), "bias": call.get("bias")}
    params = {r: call.param(c, r) for r, c in roles.items() if c is not None}
    node, axes = call.builder.aligned(value, *range(rank - k, rank))
    op = LayerNorm(tuple(axes), float(eps), centre)
    out = call.builder.emit(op, [node], params, view=value.shape, buffers=call.fixed(**roles))
    if not call.name.startswith(("native", "_")):
        return out
    return out, Missing("the mean of layer norm"), Missing("the deviation of layer norm")


@reads("group_norm")
def group_norm(call: Call) -> Value:
    return _grouped(call, int(call["num_groups"]))


@reads("instance_norm")
def instance_norm(call: Call) -> Any:
    if call.get("use_input_stats", True):
        return _grouped(call, call["input"].shape[1])
    return batch_norm(call)


def _grouped(call: Call, groups: int) -> Value:
    """Layer norm of each group of channels with all places, then weight and bias a channel."""
    value, b = call.value("input"), call.builder
    n, channels, *space = value.shape
    call.require(n == 1 or groups, "takes a batch in front")
    flat = b.reshape(value, (n, groups, channels // groups * prod(space)))
    node, (axis,) = b.aligned(flat, 2)
    out: Any = b.emit(LayerNorm((axis,), float(call["eps"])), [node], view=value.shape)
    for role, join in (("weight", multiply), ("bias", add)):
        given = call.get(role)
        if given is not None:
            wide = Const(given.tensor.reshape(channels, *(1,) * len(space)), given.trainable)
            known = call.reader.names.get(identity(given.tensor))
            if known:  # the same entries of the parameter under another shape
                call.reader.names.setdefault(identity(wide.tensor), known)
            out = join(call, out, wide)
    return Value(out.node, value.shape)
