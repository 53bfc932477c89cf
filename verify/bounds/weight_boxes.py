"""Weight perturbation boxes: a network whose weights are inputs, and the boxes they lie in.

A dense layer of a variable weight is a matrix product of two variables, a convolution the same on
the windows of its input: so every method that bounds products bounds perturbed weights, jointly
with perturbed inputs, and a weight that several layers share stays one variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.network import Network
from tangency.models.ops import Input
from tangency.models.structure import Node
from tangency.verify.bounds.weight_layers import RULES
from tangency.verify.rigorous.lowering_writer import Writer
from tangency.verify.sets import Box

__all__ = ["perturbed"]

Array = Any


def perturbed(
    network: Network, eps: Mapping[str, float | Array]
) -> tuple[Network, tuple[Box, ...]]:
    """Turn weights into inputs with boxes around their values.

    Parameters
    ----------
    network : Network
        Any.
    eps : mapping of str to float or array
        Radius >= 0 by weight key (those of ``network.weights``), for all entries or for each.

    Returns
    -------
    network : Network
        With the inputs of the given one and, behind them, one input for each key of ``eps``, in the
        weight's shape. At the weights themselves it equals the given network in real arithmetic.
    boxes : tuple of Box
        ``|w' - w| <= eps`` for each, without a batch: all samples share the weights.

    Raises
    ------
    InputError
        For a key that is not a weight, or a radius that does not fit it.
    UnsupportedError
        For a weight of an op that is not linear in it (the variance of a batch norm, the vectors of
        a Householder), by the name of its layer.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> from tangency.verify.bounds import Box, bound
    >>> net = from_layers([np.array([[2.0, -1.0]])])
    >>> (key,) = net.weights
    >>> wide, boxes = perturbed(net, {key: 0.5})
    >>> found = bound(wide, (Box.around(np.array([1.0, 0.0]), 0.0), *boxes))
    >>> found.lower.round(6), found.upper.round(6)
    (array([[1.5]]), array([[2.5]]))
    """
    if not isinstance(network, Network):
        raise InputError(f"network is a {type(network).__name__}: give a tangency Network")
    unknown = [key for key in eps if key not in network.weights]
    if unknown or not eps:
        known = ", ".join(network.weights)
        raise InputError(f"eps names {unknown or 'no weight'}: the weights are {known}")
    boxes = tuple(_box(key, network.weights[key], radius) for key, radius in eps.items())
    write = Writer(network)
    s = network.structure
    names = {node.name for node in s.nodes}
    heirs: dict[int, int] = {}
    for i in s.inputs:
        heirs[i] = write.copy(s.nodes[i], (), network.weights)
    variables: dict[str, int] = {}
    for key in eps:
        name = key if key not in names else f"{key}/weight"
        write.nodes.append(Node(name, Input(), (), network.weights[key].shape))
        variables[key] = len(write.nodes) - 1
    for i, node in enumerate(s.nodes):
        if i not in heirs:
            inputs = [heirs[j] for j in node.inputs]
            heirs[i] = _heir(write, network, node, inputs, variables)
    inputs = [heirs[i] for i in s.inputs] + list(variables.values())
    return write.finish(inputs, [heirs[i] for i in s.outputs], network.source), boxes


def _box(key: str, value: Array, radius: float | Array) -> Box:
    try:
        return Box.around(np.ascontiguousarray(value, dtype=np.float64), radius)
    except InputError as error:
        raise InputError(f"weight {key!r}: {error}") from None


def _heir(
    write: Writer, network: Network, node: Node, inputs: list[int], variables: Mapping[str, int]
) -> int:
    """The node itself, or what it becomes when some of its parameters are variables."""
    mine = {p.role: variables[p.key] for p in node.params if p.key in variables}
    if not mine:
        return write.copy(node, inputs, network.weights)
    rule = RULES.get(type(node.op))
    allowed = rule.roles if rule is not None else ()
    for role in mine:
        if role not in allowed:
            known = ", ".join(sorted(cls.kind for cls in RULES))
            raise UnsupportedError(
                f"layer {node.name!r} ({node.op.kind}): its {role!r} cannot be perturbed; weights "
                f"that enter linearly can, those of {known}"
            )
    assert rule is not None
    write.scope = node.name
    fixed = {p.role: network.weights[p.key] for p in node.params if p.role not in mine}
    result = rule.build(write, node.op, inputs, fixed, mine)
    write.rename(result, node.name)
    return result
