r"""Networks that are no plain chain, as chains: sums of branches, reflections, max pooling.

- A residual block x + G phi(W x), one nonlinearity, stays one layer (`Residual`).
- Other branches are carried past elementwise nonlinearities as neurons of slope one: the layer is
  [W; I] with slopes [a, b] and [1, 1], which is no relaxation.
- Max pooling and Householder are exact (`block_layers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Householder, MaxPool
from tangency.models.structure import Node
from tangency.verify.certificate import GroupSort, Matrix, Residual, Slopes
from tangency.verify.chain.affine import affine_map
from tangency.verify.chain.block_layers import (
    IDENTITY,
    Layer,
    carried_past,
    largest_of,
    reflection,
)
from tangency.verify.chain.chain import Chain
from tangency.verify.chain.layouts import along, beside, columns, rows, windows
from tangency.verify.chain.unroll import activation_of, bends, frontier, order_of, sources_of

__all__ = ["chain_of_blocks"]


def chain_of_blocks(network: Network, *, inputs: Mapping[int, Interval] | None = None) -> Chain:
    """Return the chain of a network with sums of branches, Householder layers and max pooling.

    Parameters
    ----------
    network : Network
        One input, one output.
    inputs : mapping of int to Interval, optional
        Bounds on the inputs of activations of one variable, by node and flattened: slopes are then
        those of the bounds.

    Returns
    -------
    Chain

    Raises
    ------
    UnsupportedError
        Naming the layer that has no place: a nonlinearity of several entries with a branch beside
        it that is no residual block, or an op without a rule.
    InputError
        If a matrix would be too large, or an activation has no bounded slope.
    """
    network.input_shape, network.output_shape  # noqa: B018  (one of each, or an error)
    assembly = _Assembly(network, {} if inputs is None else inputs)
    needed = set(network.structure.ancestors(network.structure.outputs))
    for i, node in enumerate(network.structure.nodes):
        if i in needed and bends(node) and i not in network.structure.inputs:
            assembly.take(i)
    return assembly.finish()


class _Assembly:
    """The layers so far, and the nodes whose values the last of them gives."""

    def __init__(self, network: Network, inputs: Mapping[int, Interval]) -> None:
        self.network = network
        self.inputs = inputs
        self.nodes = network.structure.nodes
        self.weights = {key: w.astype(np.float64) for key, w in network.weights.items()}
        self.sources = sources_of(network)
        begin = network.structure.inputs[0]
        self.live: list[tuple[int, np.ndarray]] = [(begin, self._entries(begin))]
        self.done = {begin}
        #: What a block adds beside x + G phi(W x), by node; the next biases take it in.
        self.shifts: dict[int, np.ndarray] = {}
        self.layers: list[Layer] = []

    def take(self, i: int) -> None:
        """Add the layer of a nonlinearity."""
        node = self.nodes[i]
        stop = node.inputs[0]
        met = frontier(self.network, self.done | {i})
        if any(b in met for b, _ in self.live):
            self._gather(i)
            met = frontier(self.network, self.done | {i})
        carried = [b for b, _ in self.live if b in met]
        matrix, bias = self._affine(stop)
        self.done.add(i)
        if isinstance(node.op, MaxPool):
            if carried:
                raise self._refused(node, carried)
            layer, kept = largest_of(matrix, bias, windows(node.op, self.nodes[stop].shape))
            self.layers.append(layer)
            self.live = [(i, kept)]
            return
        if isinstance(node.op, Householder):
            if carried:
                raise self._refused(node, carried)
            self._reflect(node, matrix, bias)
            self.live = [(i, np.asarray(along(node.op.axis, node.shape)))]
            return
        activation, function = activation_of(node, self.network, self.inputs.get(i))
        order = order_of(node)
        matrix, bias = rows(matrix, order), bias[order]
        block = self._block(i, order, carried)
        if block is not None:
            end, output, shift = block
            self.shifts[end] = shift + self.shifts.get(self.live[0][0], 0.0)
            assert isinstance(activation, Slopes | GroupSort)
            self.layers.append(Layer(matrix, bias, Residual(activation, output), function))
            self.done.add(end)
            self.live = [(end, self._entries(end))]
            return
        if not carried:
            self.layers.append(Layer(matrix, bias, activation, function))
            self.live = [(i, order)]
            return
        if not isinstance(activation, Slopes):
            raise self._refused(node, carried)
        self._carry(i, Layer(matrix, bias, activation, function), carried)

    def finish(self) -> Chain:
        """Return the chain, with the last affine segment."""
        matrix, bias = self._affine(self.network.structure.outputs[0])
        return Chain(
            (*(layer.matrix for layer in self.layers), matrix),
            tuple(layer.activation for layer in self.layers),
            (*(layer.bias for layer in self.layers), bias),
            tuple(layer.function for layer in self.layers),
        )

    def _affine(self, stop: int) -> tuple[Matrix, np.ndarray]:
        """The map from the last layer's output to a node."""
        begins = [b for b, _ in self.live]
        foreign = self.sources[stop] - set(begins)
        if foreign - self.done:  # pragma: no cover (an op before its inputs)
            raise UnsupportedError(f"layer {self.nodes[stop].name!r}: its inputs come later")
        matrices, bias = affine_map(self.network, self.weights, begins, stop)
        for b, m in zip(begins, matrices, strict=True):
            if b in self.shifts:
                bias = bias + m.midpoint @ self.shifts[b]
        parts = [columns(m, order) for m, (_, order) in zip(matrices, self.live, strict=True)]
        return beside(parts), bias

    def _gather(self, i: int) -> None:
        """Add an identity at the last node before i that everything later is a function of.

        A residual block begins there, often behind an affine layer.
        """
        for j in range(i - 1, -1, -1):
            if frontier(self.network, self.done | {j}) == {j} and self._reached(j):
                break
        else:
            return
        plain = len(self.live) == 1 and np.array_equal(self.live[0][1], self._entries(j))
        if j in self.done and plain:
            return
        matrix, bias = self._affine(j)
        self.layers.append(Layer(matrix, bias, Slopes(1.0, 1.0), IDENTITY))
        self.done.add(j)
        self.live = [(j, self._entries(j))]

    def _block(
        self, i: int, order: np.ndarray, carried: Sequence[int]
    ) -> tuple[int, Matrix, np.ndarray] | None:
        """The end of the residual block that a nonlinearity is in, its G and bias, if any."""
        if len(self.live) != 1 or len(carried) != 1:
            return None
        begin, given = self.live[0]
        assert np.array_equal(given, self._entries(begin))  # so _gather leaves it
        for j in range(i + 1, len(self.nodes)):
            if self._reached(j) != {begin, i}:
                continue
            if frontier(self.network, self.done | {j}) != {j}:
                continue
            (skip, output), shift = affine_map(self.network, self.weights, [begin, i], j)
            n = skip.shape[0]
            exact = skip.radius is None or not skip.radius.any()
            if exact and np.array_equal(skip.midpoint, np.eye(n, skip.shape[1])):
                square = n == skip.shape[1]
                return (j, columns(output, order), shift) if square else None
            return None
        return None

    def _reached(self, j: int) -> set[int]:
        """What a node depends on among the nodes whose layers stand."""
        found: set[int] = set()
        stack = [j]
        while stack:
            k = stack.pop()
            if k in self.done:
                found.add(k)
            elif bends(self.nodes[k]):
                return set()
            else:
                stack.extend(self.nodes[k].inputs)
        return found

    def _carry(self, i: int, layer: Layer, carried: Sequence[int]) -> None:
        """Add a layer beside which values pass unchanged."""
        total = sum(len(order) for _, order in self.live)
        place, passing, live = 0, [], [(i, self._entries(i))]
        for b, order in self.live:
            if b in carried:
                passing.append(np.eye(total)[place : place + len(order)])
                live.append((b, order))
            place += len(order)
        self.layers.append(carried_past(layer, np.concatenate(passing)))
        self.live = live

    def _reflect(self, node: Node, matrix: Matrix, bias: np.ndarray) -> None:
        """Add z + V g(V^T z) after z = matrix x."""
        assert isinstance(node.op, Householder)
        order = np.asarray(along(node.op.axis, node.shape))
        self.layers.append(Layer(rows(matrix, order), bias[order], Slopes(1.0, 1.0), IDENTITY))
        normals = self.weights[node.params[0].key]
        self.layers.append(reflection(normals, len(order) // normals.size))

    def _entries(self, i: int) -> np.ndarray:
        return np.arange(prod(self.nodes[i].shape))

    def _refused(self, node: Node, carried: Sequence[int]) -> UnsupportedError:
        names = ", ".join(repr(self.nodes[b].name) for b in carried)
        return UnsupportedError(
            f"layer {node.name!r}: {node.op.kind} stands beside a branch from {names} that is no "
            "residual block x + G phi(W x); only activations of one variable can"
        )
