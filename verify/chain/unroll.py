"""A network unrolled: between two nonlinearities every affine segment becomes one matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.network import Network
from tangency.models.ops import Activate, GroupSort, MatMul, Prelu, Product, Quotient
from tangency.models.structure import Node
from tangency.verify.certificate import Matrix
from tangency.verify.chain.affine import TooLargeError, affine_map

__all__ = ["TooLargeError", "Unrolled", "sources_of", "unroll"]


@dataclass(frozen=True, eq=False)
class Unrolled:
    """The affine segments of a network and where its nonlinearities stand.

    Parameters
    ----------
    matrices : tuple of l (n_k, n_{k-1}) Matrix
        Enclosures of the segments' matrices.
    biases : tuple of l (n_k,) arrays
    ends : tuple of l - 1 int
        Nodes of the nonlinearities.
    orders : tuple of l - 1 (n_k,) int arrays
        The entries of each nonlinearity, flattened, in the order of the matrices' rows.
    """

    matrices: tuple[Matrix, ...]
    biases: tuple[np.ndarray, ...]
    ends: tuple[int, ...]
    orders: tuple[np.ndarray, ...]


def unroll(network: Network) -> Unrolled:
    """Return the segments of a network that is a chain.

    Parameters
    ----------
    network : Network
        One input, one output; affine ops with activations, prelu and group_sort between them.

    Raises
    ------
    UnsupportedError
        Naming the layer that a chain has no place for.
    InputError
        If a matrix would be too large.
    """
    nodes = network.structure.nodes
    network.input_shape, network.output_shape  # noqa: B018  (one of each, or an error)
    weights = {key: w.astype(np.float64) for key, w in network.weights.items()}
    sources = sources_of(network)
    needed = network.structure.ancestors(network.structure.outputs)
    ends = [i for i, node in enumerate(nodes) if _nonlinearity(node) and i in needed]
    matrices, biases, orders = [], [], []
    begin = network.structure.inputs[0]
    columns = np.arange(prod(network.input_shape))
    for k, end in enumerate([*ends, network.structure.outputs[0]]):
        node = nodes[end]
        nonlinear = k < len(ends)  # the last segment may be empty, behind an activation
        stop = node.inputs[0] if nonlinear else end
        if sources[stop] != {begin}:
            raise UnsupportedError(
                f"layer {node.name!r}: it takes {sorted(nodes[i].name for i in sources[stop])}, "
                f"not {nodes[begin].name!r} alone: the network is no chain (residual networks "
                "have no local bound yet)"
            )
        (matrix,), bias = affine_map(network, weights, [begin], stop)
        matrix = _take(matrix, columns, 1)
        columns = np.arange(prod(node.shape))
        if nonlinear:
            columns = _order(node)
            orders.append(columns)
            matrix, bias = _take(matrix, columns, 0), bias[columns]
        matrices.append(matrix)
        biases.append(bias)
        begin = end
    return Unrolled(tuple(matrices), tuple(biases), tuple(ends), tuple(orders))


def _order(node: Node) -> np.ndarray:
    """The entries of a nonlinearity with those of a group beside each other."""
    order = np.arange(prod(node.shape))
    if isinstance(node.op, GroupSort):
        return np.moveaxis(order.reshape(node.shape), node.op.axis, -1).reshape(-1)
    return order


def _nonlinearity(node: Node) -> bool:
    return isinstance(node.op, Activate | GroupSort | Prelu)


def sources_of(
    network: Network,
    bends: Callable[[Node], bool] = _nonlinearity,
    taken: str = "prelu and group_sort",
) -> list[set[int]]:
    """For each node, the input or nonlinearities that it is an affine function of.

    ``bends`` says which nodes are nonlinearities, ``taken`` names the last of them in the error.
    """
    sources: list[set[int]] = []
    for i, node in enumerate(network.structure.nodes):
        if i in network.structure.inputs or bends(node):
            sources.append({i})
            continue
        inputs = [sources[j] for j in node.inputs]
        variable = [k for k, s in enumerate(inputs) if s]
        scaled = isinstance(node.op, MatMul | Product) and len(variable) < 2
        scaled = scaled or (isinstance(node.op, Quotient) and variable in ([], [0]))
        if variable and not (node.op.affine or scaled):
            raise UnsupportedError(
                f"layer {node.name!r}: Lipschitz bounds have no place for {node.op.kind}; they "
                f"take affine layers, activations of one variable, {taken}"
            )
        sources.append(set().union(*inputs))
    return sources


def _take(matrix: Matrix, order: np.ndarray, axis: int) -> Matrix:
    if (order == np.arange(len(order))).all():
        return matrix
    radius = matrix.radius
    return Matrix(
        matrix.midpoint.take(order, axis), None if radius is None else radius.take(order, axis)
    )
