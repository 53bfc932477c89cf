"""Linear functions of the output, joined to the last layer where it is dense.

The margin ``C y`` of logits ``y = W h + b`` is bounded as ``(C W) h + C b`` over the box of h, not
as C times the box of y: logits that rise together then cancel ("elision of the last layer").

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", arXiv 1810.12715, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Dense, Reshape
from tangency.verify.rigorous.enclosure import affine, relative_error

__all__ = ["elided", "entrance", "on_last_layer", "on_output", "specified"]

Array = Any


def elided(network: Network) -> int | None:
    """Index of the dense layer whose flattened output the network returns, if there is one."""
    nodes = network.structure.nodes
    i = network.structure.outputs[0]
    while isinstance(nodes[i].op, Reshape):
        i = nodes[i].inputs[0]
    plain = isinstance(nodes[i].op, Dense) and len(nodes[i].shape) == 1
    return i if plain else None


def entrance(network: Network) -> int:
    """The node whose box bounds a specification: a last dense layer's input, or the output."""
    last = elided(network)
    return network.structure.outputs[0] if last is None else network.structure.nodes[last].inputs[0]


def specified(network: Network, spec: Array, box: Interval) -> Interval:
    """Enclose ``spec @ f`` by one interval step from the box ``(N, *shape)`` of the entrance."""
    last = elided(network)
    with np.errstate(all="ignore"):
        if last is None:
            flat = (box.shape[0], -1)
            return on_output(spec, Interval(box.lower.reshape(flat), box.upper.reshape(flat)))
        node = network.structure.nodes[last]
        params = {p.role: network.weights[p.key].astype(np.float64) for p in node.params}
        return on_last_layer(spec, params["weight"], params.get("bias"), box)


def on_output(spec: Array, y: Interval) -> Interval:
    """Enclose ``spec @ y`` for a box of flattened outputs ``(N, n)``."""
    size = np.abs(spec)
    return affine(y, _times(spec), _times(size), spec.shape[-1])


def on_last_layer(spec: Array, weight: Array, bias: Array | None, h: Interval) -> Interval:
    """Enclose ``spec @ (weight @ h + bias)``, the two matrices multiplied first.

    The product is known up to rounding, ``|spec W - fl(spec W)| <= gamma_n |spec| |W|``, a slack
    that :func:`affine` takes into account; the bias is one more column, times one.
    """
    columns = [weight, (np.zeros(weight.shape[0]) if bias is None else bias)[:, None]]
    whole = np.concatenate(columns, axis=1)
    merged = spec @ whole
    slack = relative_error(weight.shape[0]) * (np.abs(spec) @ np.abs(whole)) + 1e-290
    one = np.ones((h.shape[0], 1))
    h = Interval(
        np.concatenate([h.lower, one], axis=1),
        np.concatenate([h.upper, one], axis=1),
    )
    size = np.abs(merged) + slack
    return affine(h, _times(merged), _times(size), whole.shape[1], slack=_times(slack))


def _times(matrix: Array) -> Any:
    if matrix.shape[0] == 1:
        return lambda v: v @ matrix[0].T
    return lambda v: (matrix @ v[..., None])[..., 0]
