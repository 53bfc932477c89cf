"""One walk through the graph with intervals: what interval bound propagation is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# The rules enter themselves in the registry when their files are read.
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.certificate.directed import require_gradual_underflow
from tangency.verify.rigorous import arithmetic, groups, linear, moving, nonlinear, normalised
from tangency.verify.rigorous.registry import rule_of

__all__ = ["Walk", "walk"]

RULE_FILES = (arithmetic, groups, linear, moving, nonlinear, normalised)


@dataclass
class Walk:
    """What a walk brings home.

    Attributes
    ----------
    found : dict of int to Interval
        Bounds of the nodes asked for (or of all that were met), by index.
    widths : dict of str to float
        Mean width of the bounds of each node met, by name.
    """

    found: dict[int, Interval] = field(default_factory=dict)
    widths: dict[str, float] = field(default_factory=dict)


def walk(
    network: Network, inputs: Sequence[Interval], targets: Iterable[int], *, keep: bool = False
) -> Walk:
    """Bounds of the target nodes; other nodes' are dropped as soon as nobody needs them.

    Parameters
    ----------
    network : Network
        Its weights are widened to float64, without loss.
    inputs : sequence of Interval
        One for each input, ``(N, *shape)`` or ``(1, *shape)``.
    targets : iterable of int
        Indices of nodes.
    keep : bool
        Hold the bounds of every node met.

    Raises
    ------
    InputError
        Where a layer is not bounded on the box (a divisor that may be zero, an activation outside
        of its domain); the message names the layer.
    """
    require_gradual_underflow()
    nodes, wanted = network.structure.nodes, set(targets)
    needed = network.structure.ancestors(wanted)
    last_use = {j: i for i in needed for j in nodes[i].inputs}
    given = dict(zip(network.structure.inputs, inputs, strict=True))
    result, live = Walk(), dict[int, Interval]()
    for i in needed:
        node = nodes[i]
        if i in given:
            live[i] = given[i]
        else:
            params = {p.role: network.weights[p.key].astype(np.float64) for p in node.params}
            xs = [live[j] for j in node.inputs]
            live[i] = _apply(node.name, node.op, params, xs)
        with np.errstate(all="ignore"):
            result.widths[node.name] = float((live[i].upper - live[i].lower).mean())
        if keep or i in wanted:
            result.found[i] = live[i]
        for j in node.inputs:
            if last_use[j] == i:
                live.pop(j, None)
    return result


def _apply(name: str, op: Any, params: dict[str, Any], xs: Sequence[Interval]) -> Interval:
    try:
        with np.errstate(all="ignore"):
            return rule_of(op)(op, params, *xs)
    except UnsupportedError as error:
        raise UnsupportedError(f"layer {name!r}: {error}") from None
    except InputError as error:
        raise InputError(f"layer {name!r} ({op.kind}): {error}") from None
