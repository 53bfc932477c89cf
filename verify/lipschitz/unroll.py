"""A network unrolled: between two nonlinearities every affine segment becomes one matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    GroupSort,
    MatMul,
    Op,
    Pad,
    Prelu,
    Product,
    Quotient,
    Reshape,
    Slice,
    Transpose,
    numpy_backend,
)
from tangency.models.structure import Node
from tangency.verify.certificate import Matrix
from tangency.verify.rigorous.registry import rule_of

__all__ = ["TooLargeError", "Unrolled", "sources_of", "unroll"]

#: Entries of the largest matrix that a layer is unrolled into.
LARGEST = 2**25
#: Ops that only move entries or fill in zeros: each output entry is one input entry or none.
MOVERS = (Reshape, Transpose, Slice, Pad, Concat)
MIXERS = (Dense, Conv, ConvTranspose)


class TooLargeError(InputError):
    """A layer has too many entries to become a matrix."""


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
    needed = _needed(network)
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
        matrix, bias = _segment(network, weights, begin, stop)
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


def _needed(network: Network) -> set[int]:
    """Nodes that the output depends on."""
    seen: set[int] = set()
    stack = list(network.structure.outputs)
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            stack.extend(network.structure.nodes[i].inputs)
    return seen


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


def _segment(
    network: Network, weights: Mapping[str, np.ndarray], begin: int, end: int
) -> tuple[Matrix, np.ndarray]:
    """The affine map from node ``begin`` to node ``end``: an enclosure of its matrix, its bias."""
    nodes = network.structure.nodes
    rows, columns = prod(nodes[end].shape), prod(nodes[begin].shape)
    if rows * columns > LARGEST:
        raise TooLargeError(
            f"layer {nodes[end].name!r}: as a matrix it is {rows} x {columns}; layers are unrolled "
            f"up to {LARGEST:,} entries"
        )
    path = _path(network, begin, end)
    zero = np.zeros((1, *nodes[begin].shape))
    values = {begin: zero}
    for i in path:
        values[i] = _evaluate(nodes[i], weights, values)
    bias = np.broadcast_to(values[end], (1, *nodes[end].shape)).reshape(-1)
    basis = np.eye(columns).reshape(columns, *nodes[begin].shape)
    if _is_exact(nodes, path):
        values = {begin: basis}
        for i in path:
            op, params = _linear_part(network, i, weights)
            values[i] = op.apply(numpy_backend(), params, *(values[j] for j in nodes[i].inputs))
        return Matrix(values[end].reshape(columns, rows).T.copy()), bias
    enclosures = {begin: Interval(basis, basis)}
    for i in path:
        op, params = _linear_part(network, i, weights)
        enclosures[i] = rule_of(op)(op, params, *(enclosures[j] for j in nodes[i].inputs))
    low, high = (
        np.broadcast_to(side, (columns, *nodes[end].shape)).reshape(columns, rows).T
        for side in (enclosures[end].lower, enclosures[end].upper)
    )
    midpoint = low / 2 + high / 2
    # The distance to both ends, rounded up: it covers the rounding of the midpoint too.
    radius = np.maximum(np.nextafter(high - midpoint, np.inf), np.nextafter(midpoint - low, np.inf))
    return Matrix(midpoint, np.where(high == low, 0.0, radius)), bias


def _path(network: Network, begin: int, end: int) -> list[int]:
    """Nodes between ``begin`` and ``end`` in order, ``end`` among them (unless it is begin)."""
    needed, stack = set(), [end]
    while stack:
        i = stack.pop()
        if i != begin and i not in needed:
            needed.add(i)
            stack.extend(network.structure.nodes[i].inputs)
    return sorted(needed)


def _evaluate(
    node: Node, weights: Mapping[str, np.ndarray], values: Mapping[int, np.ndarray]
) -> np.ndarray:
    params = {p.role: weights[p.key] for p in node.params}
    out: np.ndarray = node.op.apply(numpy_backend(), params, *(values[j] for j in node.inputs))
    return out


def _linear_part(
    network: Network, index: int, weights: Mapping[str, np.ndarray]
) -> tuple[Op, dict[str, np.ndarray]]:
    """Op and parameters without what is added: no bias, a mean of zero, zeros as padding."""
    node = network.structure.nodes[index]
    op, params = node.op, {p.role: weights[p.key] for p in node.params}
    params.pop("bias", None)
    if isinstance(op, Pad):
        op = Pad(op.padding)
    elif isinstance(op, BatchNorm):
        params["mean"] = np.zeros_like(params["mean"])
    elif isinstance(op, Constant) and not _is_factor(network, index):
        params["value"] = np.zeros_like(params["value"])
    return op, params


def _is_factor(network: Network, index: int) -> bool:
    """Whether a constant multiplies or divides what it meets."""
    nodes = network.structure.nodes
    users = [nodes[i] for i in network.structure.consumers(index)]
    return any(isinstance(n.op, MatMul | Product | Quotient) for n in users)


def _is_exact(nodes: tuple[Node, ...], path: list[int]) -> bool:
    """Whether each entry of the matrix is one weight, untouched by rounding.

    So it is for one dense layer or convolution among ops that only move entries: on a basis
    vector every sum in it has one term that is not zero, unless the entry was doubled before.
    """
    mixers = [i for i in path if isinstance(nodes[i].op, MIXERS)]
    doubled = any(isinstance(nodes[i].op, Concat) and i < max(mixers, default=0) for i in path)
    movers = all(isinstance(nodes[i].op, MOVERS + MIXERS) for i in path)
    return len(mixers) <= 1 and movers and not doubled
