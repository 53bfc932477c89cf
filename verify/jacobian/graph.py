r"""The Jacobian as a network: the backward pass of a lowered network, written as a graph.

Cotangents are values with one more axis in front, for the rows asked for. An affine op goes back
through its transpose, which is an affine op again; a product through products. A function of one
variable multiplies its cotangent by its slope, and that is

- the record's own derivative at the pre-activation, where it is continuous: then the slope moves
  with the input, and so does what the linear bounds know of it;
- an input of the new network, with the range of Clarke's slopes for a box, where it jumps.

Every coefficient is exact: a quotient stays a quotient, nothing is multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.models.ops import Activate, Constant, Input, Prelu, Product, Select, Shape
from tangency.models.structure import Node
from tangency.verify.jacobian.graph_rules import back, summed_to
from tangency.verify.jacobian.walk import live_nodes
from tangency.verify.rigorous.lowering_writer import Writer

__all__ = ["JacobianGraph", "jacobian_graph", "smooth_derivative"]


@dataclass
class JacobianGraph:
    """The backward pass as a network, and what its inputs are.

    Attributes
    ----------
    network : Network
        In float64. Its first nodes are those of the network that it differentiates; one output for
        each of that network's inputs, ``(S, *shape)``.
    seeded : int or None
        The input that takes the rows, where they differ from sample to sample.
    slopes : dict of int to (int, int)
        Inputs that stand for slopes: the node and the place of its input.
    products : dict of int to (int, int)
        Products of a cotangent and such an input: the two nodes.
    """

    network: Network
    seeded: int | None
    slopes: dict[int, tuple[int, int]] = field(default_factory=dict)
    products: dict[int, tuple[int, int]] = field(default_factory=dict)


def jacobian_graph(network: Network, rows: np.ndarray) -> JacobianGraph:
    """Write the backward pass of a lowered network of one output.

    Parameters
    ----------
    network : Network
        Of affine ops, Activate, Prelu, Product, MatMul and Select.
    rows : (N or 1, S, n_out) array
        Linear maps of the flattened output.
    """
    network = network.astype("float64")
    nodes, (end,) = network.structure.nodes, network.structure.outputs
    write = Writer(network)
    for node in nodes:
        write.copy(node, node.inputs, network.weights)
    inputs = list(network.structure.inputs)
    result = JacobianGraph(network, None)
    count, shape = rows.shape[1], nodes[end].shape

    def given(name: str, shape: Shape) -> int:
        write.nodes.append(Node(name, Input(), (), shape))
        inputs.append(len(write.nodes) - 1)
        return inputs[-1]

    live = live_nodes(network)
    if rows.shape[0] == 1:
        write.scope = "rows"
        seed = write.add(Constant(), value=rows[0].reshape((count, *shape)))
    else:
        seed = result.seeded = given("rows/input", (count, *shape))
    pending, found = {end: seed}, dict[int, int]()
    for i in range(end, -1, -1):
        node = nodes[i]
        if i not in pending or not live[i]:
            continue
        c = pending.pop(i)
        if isinstance(node.op, Input):
            found[i] = c
            continue
        write.scope = f"{node.name}'"
        if isinstance(node.op, Activate | Prelu | Select):
            parts: Sequence[int | None] = _slope(write, network, i, c, given, result)
        else:
            parts = back(write, network, node, c, [live[j] for j in node.inputs])
        for j, part in zip(node.inputs, parts, strict=True):
            if part is not None and live[j]:
                pending[j] = write.plus(pending[j], part) if j in pending else part
    ends = []
    for i in network.structure.inputs:
        write.scope = f"{nodes[i].name}'"
        if i not in found:
            found[i] = write.add(Constant(), value=np.zeros((count, *nodes[i].shape)))
        ends.append(found[i])
    result.network = write.finish(inputs, ends, network.source)
    return result


def _slope(
    write: Writer,
    network: Network,
    index: int,
    c: int,
    given: Callable[[str, Shape], int],
    result: JacobianGraph,
) -> list[int | None]:
    """The cotangent times the slope of a function of one variable, or times shares of two."""
    nodes = network.structure.nodes
    node = nodes[index]
    smooth = smooth_derivative(node.op.activation) if isinstance(node.op, Activate) else None
    if smooth is not None:
        return [write.add(Product(), c, write.add(Activate(smooth), node.inputs[0]))]
    parts: list[int | None] = []
    for k, j in enumerate(node.inputs):
        if isinstance(node.op, Select) and k < 2:  # what is compared only decides
            parts.append(None)
            continue
        slope = given(f"{node.name}'/slope{k}", node.shape)
        result.slopes[slope] = (index, k)
        product = write.add(Product(), c, slope)
        result.products[product] = (c, slope)
        parts.append(summed_to(write, product, nodes[j].shape))
    return parts


@lru_cache(maxsize=256)
def smooth_derivative(record: Activation) -> Activation | None:
    """The derivative as a record of its own, or None where it is not continuous.

    Kinks that the record does not list are found where its slope jumps: at an enclosure of an
    inflection that is far wider in slopes than in points.
    """
    if record.kinks or record.jumps or record.staircase:
        return None
    try:
        spots = record.inflections
        slopes = record.slopes_on(spots.lower, spots.upper)
    except InputError:  # too many to list: sin and its kind have no kinks to be told from
        return None
    if (slopes.upper - slopes.lower > 1e-6).any():
        return None
    return Activation(
        f"{record.name}'",
        record.proved_slope,
        params=record.params,
        formula=f"derivative of {record.formula or record.name}",
        domain=record.domain,
        poles=record.poles,
        period=record.period,
        core=record.core,
        single_use=("value",) if "slope" in record.single_use else (),
    )
