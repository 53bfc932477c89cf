"""A ReLU network as linear constraints: every value is affine in the inputs and the ReLU outputs.

With z = (x, h), h the outputs of all ReLUs, a pre-activation is ``A z + c``. The network with its
inputs and its ReLU outputs set to the origin and to each unit vector, one batch, gives all the A
and c at once, whatever the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.activations.registry import is_called
from tangency.models.errors import UnsupportedError
from tangency.models.network import Network
from tangency.models.ops import Activate, Input, Prelu, numpy_backend

__all__ = ["LARGEST", "Pieces", "pieces"]

Array = Any

#: Inputs and ReLUs together: beyond, an exact search has no hope, and the matrices grow.
LARGEST = 2000


@dataclass(frozen=True, eq=False)
class Pieces:
    """The linear constraints of a network with m inputs and k bent entries.

    Attributes
    ----------
    matrix : (k, m + k) array
        Pre-activations ``matrix @ z + offset``; row i has no entry at or behind its own variable.
    offset : (k,) array
    output, output_offset : (n, m + k) array, (n,) array
        The flattened output, in the same variables.
    nodes : tuple of (int, int)
        Index of the input node of each activation, and its number of entries.
    inputs : int
        m.
    """

    matrix: Array
    offset: Array
    output: Array
    output_offset: Array
    nodes: tuple[tuple[int, int], ...]
    inputs: int


def pieces(network: Network) -> Pieces:
    """Write a network of one input, affine ops and ReLUs as linear constraints.

    A leaky ReLU (or PReLU) of slope s enters as ``s x + (1 - s) relu(x)``.

    Raises
    ------
    UnsupportedError
        For another op, by the name of its layer, or a network that is too large.
    """
    s, backend = network.structure, numpy_backend()
    m = prod(network.input_shape)
    bent = [i for i, node in enumerate(s.nodes) if isinstance(node.op, Activate | Prelu)]
    sizes = [prod(s.nodes[i].shape) for i in bent]
    count = m + sum(sizes)
    if count > LARGEST:
        raise UnsupportedError(
            f"true tightness searches networks of up to {LARGEST:,} inputs and ReLUs, this has "
            f"{count:,}: local_tightness takes any"
        )
    values: list[Array] = []
    rows: list[Array] = []
    nodes: list[tuple[int, int]] = []
    place = m
    for node in s.nodes:
        if isinstance(node.op, Input):
            values.append(_unit(count, 0, node.shape))
            continue
        params = {p.role: network.weights[p.key].astype(np.float64) for p in node.params}
        xs = [values[j] for j in node.inputs]
        if isinstance(node.op, Activate | Prelu):
            slope = _slope(node.name, node.op, params, len(node.shape))
            rows.append(_spread(xs[0], count, node.shape))
            nodes.append((node.inputs[0], prod(node.shape)))
            values.append(slope * xs[0] + (1 - slope) * _unit(count, place, node.shape))
            place += prod(node.shape)
        elif node.op.affine:
            values.append(node.op.apply(backend, params, *xs))
        else:
            raise UnsupportedError(
                f"layer {node.name!r} is a {node.op.kind}: true tightness takes affine layers, "
                "relu and leaky_relu"
            )
    end = s.outputs[0]
    output = _spread(values[end], count, s.nodes[end].shape)
    flat = np.concatenate(rows, axis=1) if rows else np.zeros((1 + count, 0))
    return Pieces(
        matrix=(flat[1:] - flat[0]).T,
        offset=flat[0],
        output=(output[1:] - output[0]).T,
        output_offset=output[0],
        nodes=tuple(nodes),
        inputs=m,
    )


def _unit(count: int, place: int, shape: tuple[int, ...]) -> Array:
    """The variables from ``place`` on, at the origin and each unit vector, (1 + count, *shape)."""
    size = prod(shape)
    values = np.zeros((1 + count, size))
    values[1 + place : 1 + place + size] = np.eye(size)
    return values.reshape(1 + count, *shape)


def _spread(value: Array, count: int, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(value, (1 + count, *shape)).reshape(1 + count, -1)


def _slope(name: str, op: Activate | Prelu, params: dict[str, Array], rank: int) -> Array:
    if isinstance(op, Prelu):
        return op.slopes(params["slope"], rank)
    record: Activation = op.activation
    if is_called(record, "relu"):
        return np.zeros(())
    slopes = dict(record.params)
    if is_called(record, "leaky_relu") and len(slopes) == 1:
        return np.asarray(next(iter(slopes.values())), dtype=np.float64)
    raise UnsupportedError(
        f"layer {name!r} is {record}: true tightness takes relu and leaky_relu, local_tightness any"
    )
