"""Affine maps between nodes of a graph: the matrix to each of several beginnings, and the bias.

A node may depend on several beginnings, as the sum of a residual block does. The matrix of each is
found with the others at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

import tangency.verify.rigorous.walk  # noqa: F401  (enters the rules of all ops)
from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import (
    Add,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    MatMul,
    Op,
    Pad,
    Product,
    Quotient,
    Reshape,
    Slice,
    Subtract,
    Transpose,
    numpy_backend,
)
from tangency.verify.certificate import Matrix
from tangency.verify.rigorous.registry import rule_of

__all__ = ["TooLargeError", "affine_map"]

#: Entries of the largest matrix that a layer is unrolled into.
LARGEST = 2**25
#: Ops that only move entries or fill in zeros: each output entry is one input entry or none.
MOVERS = (Reshape, Transpose, Slice, Pad, Concat)
MIXERS = (Dense, Conv, ConvTranspose)


class TooLargeError(InputError):
    """A layer has too many entries to become a matrix."""


def affine_map(
    network: Network, weights: Mapping[str, np.ndarray], begins: Sequence[int], end: int
) -> tuple[list[Matrix], np.ndarray]:
    """Return the matrices from each beginning to a node, enclosed, and the bias.

    Parameters
    ----------
    network : Network
    weights : mapping of str to float64 array
    begins : sequence of int
        Nodes that cut `end` from all inputs; between them only affine ops.
    end : int

    Returns
    -------
    matrices : list of (rows, columns of the beginning) Matrix
        With a radius unless each entry is one weight, untouched by rounding.
    bias : (rows,) array
        In float64, not enclosed: bounds do not read it.

    Raises
    ------
    TooLargeError
        If a matrix is.
    """
    nodes = network.structure.nodes
    path = network.structure.ancestors([end], stop=begins)
    backend = numpy_backend()
    values = {b: np.zeros((1, *nodes[b].shape)) for b in begins}
    for i in path:
        params = {p.role: weights[p.key] for p in nodes[i].params}
        values[i] = nodes[i].op.apply(backend, params, *(values[j] for j in nodes[i].inputs))
    bias = np.broadcast_to(values[end], (1, *nodes[end].shape)).reshape(-1)
    matrices = [_matrix(network, weights, path, begin, begins, end) for begin in begins]
    return matrices, bias


def _matrix(
    network: Network,
    weights: Mapping[str, np.ndarray],
    path: Sequence[int],
    begin: int,
    begins: Sequence[int],
    end: int,
) -> Matrix:
    nodes = network.structure.nodes
    rows, columns = prod(nodes[end].shape), prod(nodes[begin].shape)
    if rows * columns > LARGEST:
        raise TooLargeError(
            f"layer {nodes[end].name!r}: as a matrix it is {rows} x {columns}; layers are unrolled "
            f"up to {LARGEST:,} entries"
        )
    ours, others = _dependent(network, path, [begin]), _dependent(network, path, begins)
    if end not in ours:
        return Matrix(np.zeros((rows, columns)))
    basis = np.eye(columns).reshape(columns, *nodes[begin].shape)
    zeros = {i: np.broadcast_to(0.0, (columns, *nodes[i].shape)) for i in others if i not in ours}
    if _is_exact(network, path, ours):
        values = {**zeros, begin: basis}
        for i in path:
            if i not in values:
                op, params = _linear_part(network, i, weights)
                values[i] = op.apply(numpy_backend(), params, *(values[j] for j in nodes[i].inputs))
        return Matrix(values[end].reshape(columns, rows).T.copy())
    enclosures = {i: Interval(z, z) for i, z in zeros.items()}
    enclosures[begin] = Interval(basis, basis)
    for i in path:
        if i not in enclosures:
            op, params = _linear_part(network, i, weights)
            enclosures[i] = rule_of(op)(op, params, *(enclosures[j] for j in nodes[i].inputs))
    low, high = (
        np.broadcast_to(side, (columns, *nodes[end].shape)).reshape(columns, rows).T
        for side in (enclosures[end].lower, enclosures[end].upper)
    )
    midpoint = low / 2 + high / 2
    # The distance to both ends, rounded up: it covers the rounding of the midpoint too.
    radius = np.maximum(np.nextafter(high - midpoint, np.inf), np.nextafter(midpoint - low, np.inf))
    return Matrix(midpoint, np.where(high == low, 0.0, radius))


def _dependent(network: Network, path: Sequence[int], begins: Sequence[int]) -> set[int]:
    """Nodes of the path that depend on one of the beginnings, and these."""
    found = set(begins)
    for i in path:
        if found.intersection(network.structure.nodes[i].inputs):
            found.add(i)
    return found


def _is_exact(network: Network, path: Sequence[int], ours: set[int]) -> bool:
    """Whether each entry of the matrix is one weight, untouched by rounding.

    So it is for one dense layer or convolution among ops that only move entries or add zeros: on
    a basis vector every sum has one term that is not zero, unless the entry was doubled before.
    """
    nodes = network.structure.nodes
    mixers = 0
    for i in path:
        if i not in ours:
            continue
        node = nodes[i]
        variable = [j for j in node.inputs if j in ours]
        if isinstance(node.op, Add | Subtract):
            if len(variable) != 1 or nodes[variable[0]].shape != node.shape:
                return False
        elif isinstance(node.op, MIXERS):
            mixers += 1
        elif not isinstance(node.op, MOVERS) or len(variable) != 1:
            return False
    return mixers <= 1


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
