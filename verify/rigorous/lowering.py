"""Any network as an equal one of affine ops and five simple nonlinear ones.

Linear bounds need a relaxation for each nonlinear op. Most ops are made of simpler ones (a maximum
is affine ops and a ReLU), so that five are enough: functions of one variable, the parametric ReLU,
products, matrix products and selections. The lowered network is equal to the given one in real
arithmetic. Interval rules of the old ops stay useful, being exact for many: ``origin`` tells where
an old node's value lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    Constant,
    Extremum,
    GroupSort,
    Householder,
    Input,
    LayerNorm,
    LogSumExp,
    MatMul,
    MaxPool,
    Op,
    Prelu,
    Product,
    Quotient,
    ReduceExtremum,
    Reshape,
    Select,
    Softmax,
)
from tangency.models.structure import Node
from tangency.verify.rigorous import lowering_extrema as extrema
from tangency.verify.rigorous import lowering_normalised as normalised
from tangency.verify.rigorous.lowering_writer import Writer

__all__ = ["SIMPLE", "Lowered", "lowered"]

#: Nonlinear ops that stay as they are.
SIMPLE: tuple[type[Op], ...] = (Activate, Prelu, Product, MatMul, Select)

_RULES: dict[type[Op], Callable[..., int]] = {
    Extremum: extrema.extremum,
    GroupSort: extrema.group_sort,
    Householder: extrema.householder,
    LayerNorm: normalised.layer_norm,
    LogSumExp: normalised.log_sum_exp,
    MatMul: normalised.matmul,
    MaxPool: extrema.max_pool,
    Product: normalised.product,
    Quotient: normalised.quotient,
    ReduceExtremum: extrema.reduce_extremum,
    Softmax: normalised.softmax,
}


@dataclass(frozen=True, eq=False)
class Lowered:
    """An equal network of simple ops.

    Attributes
    ----------
    network : Network
        Inputs and outputs as in the given one; heirs of old nodes bear their names, the steps
        between are called ``name/step``.
    origin : dict of int to int
        ``origin[new] = old`` for the nodes that hold the value of an old node.
    """

    network: Network
    origin: dict[int, int]


def lowered(network: Network) -> Lowered:
    """Lower a network; one that is simple already comes back as it is.

    The same network always gives the same result, node by node.

    Raises
    ------
    UnsupportedError
        For an op that has no rule.
    InputError
        For an op that cannot be evaluated (a layer norm with a negative eps).
    """
    nodes = network.structure.nodes
    if all(_is_simple(node, nodes) for node in nodes):
        return Lowered(network, {i: i for i in range(len(nodes))})
    write = Writer(network)
    heirs: list[int] = []
    for node in nodes:
        inputs = [heirs[j] for j in node.inputs]
        if _is_simple(node, nodes):
            heirs.append(write.copy(node, inputs, network.weights))
        else:
            heirs.append(_lower(write, node, inputs, network))
    s = network.structure
    made = write.finish([heirs[i] for i in s.inputs], [heirs[i] for i in s.outputs], network.source)
    return Lowered(made, {new: old for old, new in enumerate(heirs)})


def _is_simple(node: Node, nodes: Sequence[Node]) -> bool:
    op = node.op
    if isinstance(op, Product | MatMul):
        constant = any(isinstance(nodes[j].op, Constant) for j in node.inputs)
        square = isinstance(op, Product) and node.inputs[0] == node.inputs[1]
        return not (constant or square)
    return op.affine or isinstance(op, (Input, *SIMPLE))


def _lower(write: Writer, node: Node, inputs: list[int], network: Network) -> int:
    if type(node.op) not in _RULES:
        raise UnsupportedError(
            f"layer {node.name!r}: linear bounds have no rule for {node.op.kind!r}"
        )
    write.scope = node.name
    params: dict[str, Any] = {p.role: network.weights[p.key] for p in node.params}
    before = len(write.nodes)
    try:
        result = _RULES[type(node.op)](write, node.op, params, *inputs)
    except (InputError, UnsupportedError) as error:
        raise type(error)(f"layer {node.name!r}: {error}") from None
    if result < before:  # nothing to do (a maximum over one entry): the heir is a node of its own
        result = write.add(Reshape(write.shape(result)), result)
    write.rename(result, node.name)
    return result
