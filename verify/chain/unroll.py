"""A network unrolled: its affine segments as matrices, its nonlinearities as slopes.

What stands where in the graph is said here too: nonlinearities, what is an affine function of what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.namespace import numpy_namespace
from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    GroupSort,
    Householder,
    MatMul,
    MaxPool,
    Prelu,
    Product,
    Quotient,
)
from tangency.models.structure import Node
from tangency.verify.certificate import GroupSort as Sorting
from tangency.verify.certificate import Matrix, Slopes
from tangency.verify.chain.affine import TooLargeError, affine_map
from tangency.verify.chain.chain import Function

__all__ = [
    "TooLargeError",
    "Unrolled",
    "activation_of",
    "bends",
    "frontier",
    "is_plain",
    "order_of",
    "sources_of",
    "unroll",
]

#: Slopes that differ by less than this part of the layer's largest are set this far apart: the
#: multipliers grow as 1 / (b - a), and float64 has digits for so much.
NARROWEST = 1e-5


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
    sources = _sources(network, _nonlinearity, "prelu and group_sort")
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
            columns = order_of(node)
            orders.append(columns)
            matrix, bias = _take(matrix, columns, 0), bias[columns]
        matrices.append(matrix)
        biases.append(bias)
        begin = end
    return Unrolled(tuple(matrices), tuple(biases), tuple(ends), tuple(orders))


def order_of(node: Node) -> np.ndarray:
    """The entries of a nonlinearity with those of a group beside each other."""
    order = np.arange(prod(node.shape))
    if isinstance(node.op, GroupSort):
        return np.moveaxis(order.reshape(node.shape), node.op.axis, -1).reshape(-1)
    return order


def _nonlinearity(node: Node) -> bool:
    return isinstance(node.op, Activate | GroupSort | Prelu)


def is_plain(network: Network) -> bool:
    """Whether a network is a chain of affine segments and elementwise or sorting layers."""
    nodes = network.structure.nodes
    needed = set(network.structure.ancestors(network.structure.outputs))
    if any(isinstance(nodes[i].op, Householder | MaxPool) for i in needed):
        return False
    sources = sources_of(network)
    begin = network.structure.inputs[0]
    for end, node in enumerate(nodes):
        if end in needed and bends(node):
            if sources[node.inputs[0]] != {begin}:
                return False
            begin = end
    return sources[network.structure.outputs[0]] == {begin}


def bends(node: Node) -> bool:
    """Whether a node is a nonlinearity that a chain can hold."""
    return _nonlinearity(node) or isinstance(node.op, Householder | MaxPool)


def frontier(network: Network, stops: set[int]) -> set[int]:
    """The stops that the output depends on directly, through whatever is not a stop."""
    found: set[int] = set()
    seen: set[int] = set()
    stack = list(network.structure.outputs)
    while stack:
        i = stack.pop()
        if i in stops:
            found.add(i)
        elif i not in seen:
            seen.add(i)
            stack.extend(network.structure.nodes[i].inputs)
    return found


def sources_of(network: Network) -> list[set[int]]:
    """For each node, the input or nonlinearities that it is an affine function of."""
    return _sources(network, bends, "prelu, group_sort, householder and max_pool")


def _sources(network: Network, bends: Callable[[Node], bool], taken: str) -> list[set[int]]:
    """Return the sources where ``bends`` says which nodes are nonlinearities.

    ``taken`` names the last of them in the error.
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


def check_whole_line(name: str, record: Activation) -> None:
    """Refuse a global bound of what is defined on a part of the line: formulas do not end there.

    Raises
    ------
    InputError
        If the domain is not the whole line.
    """
    low, high = record.domain
    if np.isfinite([low, high]).any():
        raise InputError(
            f"layer {name!r}: {record} is defined on [{low:g}, {high:g}] alone, so the network has "
            "no global Lipschitz bound: give box="
        )


def activation_of(
    node: Node, network: Network, given: Interval | None
) -> tuple[Slopes | Sorting, Function | None]:
    """The constraint and the function of a nonlinearity."""
    op = node.op
    low: Any
    high: Any
    if isinstance(op, GroupSort):
        return Sorting(op.size, descending=op.descending), None
    if isinstance(op, Prelu):
        slope = network.weights[node.params[0].key].astype(np.float64)
        slope = op.slopes(slope, len(node.shape))[0]
        slope = np.broadcast_to(slope, node.shape).reshape(-1)
        low, high = np.minimum(slope, 1.0), np.maximum(slope, 1.0)
        if given is not None:
            left, right = given.upper <= 0.0, given.lower >= 0.0
            low = np.where(left, slope, np.where(right, 1.0, low))
            high = np.where(left, slope, np.where(right, 1.0, high))
        function = Function(
            lambda z: np.where(z > 0, z, slope * z), lambda z: np.where(z > 0, 1.0, slope), True
        )
        return Slopes(low, high), function
    assert isinstance(op, Activate)
    record = op.activation
    where = "" if given is None else " on the box"
    if given is None:
        low, high = record.slope_range
    else:
        slopes = record.slopes_on(given.lower, given.upper)
        low, high = _apart(slopes.lower, slopes.upper)
    if record.jumps or record.staircase or not np.isfinite([low, high]).all():
        hint = (
            "; a choice in its formula is not shown to be continuous: write it with maximum, "
            "minimum or abs"
        )
        raise InputError(
            f"layer {node.name!r}: {record} has no bounded slope{where} (range "
            f"[{np.min(low):g}, {np.max(high):g}]), so the network has no "
            f"{'global' if given is None else 'local'} Lipschitz bound"
            + ("" if record.continuous or record.jumps or record.staircase else hint)
        )
    if given is None:
        check_whole_line(node.name, record)
    function = Function(
        _elementwise(record.value), _elementwise(record.derivative), record.homogeneous == 1
    )
    return Slopes(low, high), function


def _apart(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widen slopes that are nearly, but not quite, equal."""
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return low, high
    largest = max(float(np.abs(low).max(initial=0.0)), float(np.abs(high).max(initial=0.0)))
    narrow = (high > low) & (high - low < NARROWEST * largest)
    half = NARROWEST * largest / 2
    return np.where(narrow, low - half, low), np.where(narrow, high + half, high)


def _elementwise(formula: Callable[[Any, Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    def function(z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(formula(numpy_namespace, z), float)

    return function
