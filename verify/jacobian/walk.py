"""One walk back through the graph with interval cotangents: the Jacobian over a box.

By Clarke's chain rule the generalised Jacobian of a composition lies in the convex hull of the
products of the generalised Jacobians; an entrywise enclosure is convex, so that enclosing every
factor on the box encloses every element of Clarke's Jacobian at every point of the box.

References
----------
F. H. Clarke, Optimization and Nonsmooth Analysis (1983), theorem 2.6.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Input

# The rules enter themselves in the registry when their files are read.
from tangency.verify.jacobian import affine_rules, choices, normalised, pointwise
from tangency.verify.jacobian.registry import Place, rule_of
from tangency.verify.rigorous.walk import walk

__all__ = ["live_nodes", "node_intervals", "place_of", "pull_back"]

RULE_FILES = (affine_rules, choices, normalised, pointwise)


def node_intervals(network: Network, inputs: Sequence[Interval]) -> dict[int, Interval]:
    """Interval bounds of every node that the output needs."""
    return walk(network, inputs, network.structure.outputs, keep=True).found


def pull_back(
    network: Network, known: Mapping[int, Interval], seed: Interval
) -> tuple[Interval, ...]:
    """Enclose ``seed @ J`` for all elements J of Clarke's Jacobian at all points of the box.

    Parameters
    ----------
    network : Network
        With one output.
    known : mapping of int to Interval
        Bounds of the nodes' values on the box, ``(N or 1, *shape)`` each.
    seed : Interval, (N or 1, S, *output_shape)
        Linear maps of the output.

    Returns
    -------
    tuple of Interval
        One for each input of the network, ``(N or 1, S, *input_shape)``.

    Raises
    ------
    UnsupportedError
        For an op whose derivative is not bounded, by the name of its layer.
    """
    nodes, (end,) = network.structure.nodes, network.structure.outputs
    live = live_nodes(network)
    pending: dict[int, Interval] = {end: seed}
    found: dict[int, Interval] = {}
    for i in range(end, -1, -1):
        c = pending.pop(i, None)
        if c is None or not live[i]:
            continue
        node = nodes[i]
        if isinstance(node.op, Input):
            found[i] = c
            continue
        place = place_of(network, i, known, live)
        for j, part in zip(node.inputs, _apply(node.name, place, c), strict=True):
            if part is not None and live[j]:
                pending[j] = pending[j] + part if j in pending else part
    lead = seed.shape[:2]
    return tuple(
        found[i] if i in found else Interval(np.zeros((*lead, *nodes[i].shape)))
        for i in network.structure.inputs
    )


def place_of(
    network: Network, index: int, known: Mapping[int, Interval], live: Sequence[bool]
) -> Place:
    """What a rule is told of a node."""
    nodes = network.structure.nodes
    node = nodes[index]
    return Place(
        op=node.op,
        params={p.role: network.weights[p.key].astype(np.float64) for p in node.params},
        inputs=node.inputs,
        shapes=tuple(nodes[j].shape for j in node.inputs),
        live=tuple(live[j] for j in node.inputs),
        xs=tuple(known[j] for j in node.inputs),
        y=known[index],
    )


def _apply(name: str, place: Place, c: Interval) -> Sequence[Interval | None]:
    try:
        with np.errstate(all="ignore"):
            return rule_of(place.op)(place, c)
    except UnsupportedError as error:
        raise UnsupportedError(f"layer {name!r}: {error}") from None
    except InputError as error:
        raise InputError(f"layer {name!r} ({place.op.kind}): {error}") from None


def live_nodes(network: Network) -> list[bool]:
    """Which nodes depend on an input."""
    live: list[bool] = []
    for node in network.structure.nodes:
        live.append(isinstance(node.op, Input) or any(live[j] for j in node.inputs))
    return live
