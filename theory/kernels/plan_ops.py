"""One rule for each op of the graph: what it does to channels and sites in the limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.activations import get
from tangency.models.activations.registry import is_called
from tangency.models.errors import UnsupportedError
from tangency.models.ops.base import normalise_axis
from tangency.models.structure import Node
from tangency.theory.kernels import spatial
from tangency.theory.kernels.duals import dual_of
from tangency.theory.kernels.plan_network import Compiler, Tensor
from tangency.theory.kernels.plan_ops_sites import SITE_RULES

__all__ = ["RULES"]


def _affine(c: Compiler, node: Node, x: Tensor, **geometry: Any) -> int:
    has_bias = any(p.role == "bias" for p in node.params)
    return c.plan.affine(
        x.node,
        node.shape[geometry.pop("axis")],
        c.weight_variance,
        c.bias_variance if has_bias else None,
        trained=(c.trained(node, "weight"), c.trained(node, "bias")),
        **geometry,
    )


def _dense(c: Compiler, node: Node) -> Tensor:
    x = c.tensor(node.inputs[0], -1)
    if x.channel != len(x.shape) - 1:
        raise UnsupportedError(f"it mixes axis {len(x.shape) - 1}, the channels are {x.channel}")
    return Tensor(_affine(c, node, x, axis=-1), node.shape, x.channel)


def _conv(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    n = len(op.stride)
    x = c.tensor(node.inputs[0], -n - 1)
    if op.groups != 1:
        raise UnsupportedError("convolutions in groups have few weights a channel: no limit")
    if x.channel != len(x.shape) - n - 1:
        raise UnsupportedError(
            f"it takes axis {len(x.shape) - n - 1}, the channels are {x.channel}"
        )
    lead = (1,) * x.channel
    weight = next(p for p in node.params if p.role == "weight")
    window, stride = (*lead, *weight.shape[2:]), (*lead, *op.stride)
    padding = (*((0, 0) for _ in lead), *op.padding)
    dilation = (*lead, *op.dilation)
    if op.kind == "conv":
        sites, table = spatial.conv_table(x.sites, window, stride, padding, dilation=dilation)
    else:
        extra = (*(0 for _ in lead), *op.output_padding)
        sites, table = spatial.conv_transpose_table(
            x.sites, window, stride, padding, dilation=dilation, output_padding=extra
        )
    grown = _affine(c, node, x, axis=x.channel, sites=sites, table=table)
    return Tensor(grown, node.shape, x.channel)


def _activation(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    record = op.activation
    if is_called(record, "identity"):
        return x
    return Tensor(c.plan.activate(x.node, dual_of(record)), x.shape, x.channel)


def _prelu(c: Compiler, node: Node) -> Tensor:
    x, slopes = c.tensor(node.inputs[0]), np.unique(c.params(node)["slope"])
    if len(slopes) > 1 or c.trained(node, "slope"):
        raise UnsupportedError("slopes that are trained or differ between channels")
    dual = dual_of(get("prelu", slope=float(slopes[0])))
    return Tensor(c.plan.activate(x.node, dual), x.shape, x.channel)


def _meeting(c: Compiler, node: Node) -> list[Tensor]:
    known = next(c.tensors[j] for j in node.inputs if j in c.tensors)
    inputs = [c.tensor(j, known.channel - len(known.shape)) for j in node.inputs]
    if any(x.channel != known.channel or len(x.shape) != len(known.shape) for x in inputs):
        raise UnsupportedError(f"its inputs {[x.shape for x in inputs]} lie in different layouts")
    return inputs


def _sum(c: Compiler, node: Node) -> Tensor:
    nodes = c.network.structure.nodes
    for j in node.inputs:
        if nodes[j].op.kind == "constant":
            raise UnsupportedError("a constant added to random values: use the layer's own bias")
    inputs = _meeting(c, node)
    if len({x.shape for x in inputs}) > 1:
        raise UnsupportedError(f"a sum that broadcasts {[x.shape for x in inputs]}")
    first = inputs[0]
    return Tensor(c.plan.add([x.node for x in inputs]), first.shape, first.channel)


def _product(c: Compiler, node: Node) -> Tensor:
    if not all(j in c.tensors for j in node.inputs):
        raise UnsupportedError(
            "a product with the input or a constant: its channels are not random"
        )
    inputs = _meeting(c, node)
    if len({x.shape for x in inputs}) > 1:
        raise UnsupportedError(f"a product that broadcasts {[x.shape for x in inputs]}")
    first = inputs[0]
    return Tensor(c.plan.product([x.node for x in inputs]), first.shape, first.channel)


def _concat(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    inputs = _meeting(c, node)
    first = inputs[0]
    if normalise_axis(op.axis, len(first.shape)) != first.channel:
        raise UnsupportedError("a concatenation of sites; of channels there is a limit")
    return Tensor(c.plan.concat([x.node for x in inputs]), node.shape, first.channel)


def _layer_norm(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    axes = {normalise_axis(a, len(x.shape)) for a in op.axes}
    if x.channel not in axes:
        raise UnsupportedError("it leaves the channels out: there is no limit without them")
    sites = [x.site_axis(a) for a in sorted(axes - {x.channel})]
    gain, shift = c.trained(node, "weight"), c.trained(node, "bias")
    grown = c.plan.norm(x.node, sites, op.eps, gain=gain, shift=shift)
    return Tensor(grown, x.shape, x.channel)


def _batch_norm(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x = c.tensor(node.inputs[0])
    if normalise_axis(op.axis, len(x.shape)) != x.channel:
        raise UnsupportedError("batch norm on an axis that is not the channels")
    gain, shift = c.trained(node, "weight"), c.trained(node, "bias")
    grown = c.plan.batch_norm(x.node, op.eps, gain=gain, shift=shift)
    return Tensor(grown, x.shape, x.channel)


def _scale(c: Compiler, node: Node) -> Tensor:
    op: Any = node.op
    x, scale = c.tensor(node.inputs[0]), c.params(node)["scale"]
    if scale.size != 1 or c.trained(node, "scale"):
        raise UnsupportedError("factors that are trained or differ between entries")
    factor = float(scale.ravel()[0])
    grown = c.plan.scale(x.node, 1.0 / factor if op.inverse else factor)
    return Tensor(grown, x.shape, x.channel)


RULES: dict[str, Callable[[Compiler, Node], Tensor]] = {
    **SITE_RULES,
    "activation": _activation,
    "add": _sum,
    "batch_norm": _batch_norm,
    "concat": _concat,
    "conv": _conv,
    "conv_transpose": _conv,
    "dense": _dense,
    "layer_norm": _layer_norm,
    "prelu": _prelu,
    "product": _product,
    "scale": _scale,
    "subtract": _sum,
}
"""Rules by the kind of op."""
