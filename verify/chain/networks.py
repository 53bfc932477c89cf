"""A Network as a chain of matrices and activations, everywhere or over a box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Activate, Prelu
from tangency.verify.chain.blocks import chain_of_blocks
from tangency.verify.chain.chain import Chain
from tangency.verify.chain.pairs import settle_pairs
from tangency.verify.chain.unroll import Unrolled, activation_of, is_plain, unroll
from tangency.verify.rigorous.walk import walk
from tangency.verify.sets import Box, input_intervals

__all__ = ["chain_of", "local_chain"]


def chain_of(
    network: Network,
    *,
    unrolled: Unrolled | None = None,
    inputs: Sequence[Interval] | None = None,
) -> Chain:
    """The chain of matrices and activations that a network is.

    Parameters
    ----------
    network : Network
        As :func:`tangency.verify.lipschitz_bound` takes it.
    unrolled : Unrolled, optional
        Of the same network, to spend no time on it again.
    inputs : sequence of Interval, optional
        Bounds on the inputs of the nonlinearities, each of its flattened node: slopes are then
        those of the bounds. Without it they hold everywhere.

    Raises
    ------
    UnsupportedError, InputError
        As :func:`tangency.verify.lipschitz_bound` does.
    """
    if unrolled is None and inputs is None and not is_plain(network):
        return chain_of_blocks(network)
    parts = unroll(network) if unrolled is None else unrolled
    nodes = network.structure.nodes
    activations, functions = [], []
    for k, end in enumerate(parts.ends):
        given = None if inputs is None else inputs[k]
        activation, function = activation_of(nodes[end], network, given)
        activations.append(activation)
        functions.append(function)
    return Chain(parts.matrices, tuple(activations), parts.biases, tuple(functions))


def local_chain(network: Network, box: Box, *, unrolled: Unrolled | None = None) -> Chain:
    """Return the chain of a network with the slopes that its activations have over a box.

    Parameters
    ----------
    network : Network
    box : Box
        Of the shape of the input or (1, *shape).
    unrolled : Unrolled, optional
        Of the same network.

    Raises
    ------
    InputError
        If the box does not fit or a slope is not bounded on it.
    UnsupportedError
        If the network is no chain, of residual blocks or otherwise.

    Examples
    --------
    >>> from tangency.models import from_layers
    >>> network = from_layers([np.array([[1.0], [-1.0]]), np.ones((1, 2))], "relu")
    >>> chain = local_chain(network, Box(np.array([1.0]), np.array([2.0])))
    >>> chain.activations[0].lower, chain.activations[0].upper
    (array([1., 0.]), array([1., 0.]))
    """
    inputs = input_intervals(network, box)
    if inputs[0].shape[0] != 1:
        raise InputError(
            f"box of shape {box.shape}: a local Lipschitz bound takes one box at a time"
        )
    if unrolled is None and not is_plain(network):
        return _local_blocks(network, inputs)
    parts = unroll(network) if unrolled is None else unrolled
    nodes = network.structure.nodes
    before = [nodes[end].inputs[0] for end in parts.ends]
    found = walk(network, inputs, before).found if before else {}
    ordered = [
        Interval(*(side[order] for side in _flat(found[i], nodes[i].shape)))
        for i, order in zip(before, parts.orders, strict=True)
    ]
    return settle_pairs(chain_of(network, unrolled=parts, inputs=ordered), ordered)


def _local_blocks(network: Network, inputs: list[Interval]) -> Chain:
    """Return the chain of residual blocks, Householder layers and max pooling over a box.

    Slopes are those of the box; what sorts or reflects keeps its constraint of everywhere.
    """
    nodes = network.structure.nodes
    bent = [i for i, node in enumerate(nodes) if isinstance(node.op, Activate | Prelu)]
    before = {i: nodes[i].inputs[0] for i in bent}
    found = walk(network, inputs, list(before.values())).found if bent else {}
    slopes = {i: Interval(*_flat(found[j], nodes[j].shape)) for i, j in before.items()}
    return chain_of_blocks(network, inputs=slopes)


def _flat(given: Interval, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Both ends of a node's interval over one box, flattened."""
    return tuple(
        np.broadcast_to(side, (1, *shape)).reshape(-1) for side in (given.lower, given.upper)
    )
