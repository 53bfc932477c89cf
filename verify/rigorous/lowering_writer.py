"""Writes the nodes of a lowered network, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from tangency.models import activations
from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    Add,
    Constant,
    Gather,
    Op,
    Reshape,
    Scale,
    Shape,
    Slice,
    Subtract,
    Transpose,
)
from tangency.models.structure import Node, Param, Structure

__all__ = ["Writer"]


class Writer:
    """Collects nodes and weights; every step is named after the layer that it is a part of."""

    def __init__(self, network: Network) -> None:
        self.nodes: list[Node] = []
        self.weights: dict[str, Any] = {}
        self.scope = ""
        self._dtype = network.dtype
        self._names = {node.name for node in network.structure.nodes}
        self._keys = set(network.weights)

    def shape(self, index: int) -> Shape:
        """Shape of a node, of one sample."""
        return self.nodes[index].shape

    def constant(self, index: int) -> Any:
        """Value of a node, an array of its shape, if it is a constant; else None."""
        node = self.nodes[index]
        return self.weights[node.params[0].key] if isinstance(node.op, Constant) else None

    def copy(self, node: Node, inputs: Sequence[int], weights: Mapping[str, Any]) -> int:
        """Append a node of the old network as it is, on its new inputs."""
        self.weights.update({p.key: weights[p.key] for p in node.params})
        self.nodes.append(replace(node, inputs=tuple(inputs)))
        return len(self.nodes) - 1

    def add(self, op: Op, *inputs: int, **params: Any) -> int:
        """Append an op; ``params`` are arrays by role."""
        held = []
        for role, value in params.items():
            array = np.asarray(value, dtype=self._dtype)
            key = _fresh(f"{self.scope}/{op.kind}.{role}", self._keys)
            self.weights[key] = array
            held.append(Param(role, key, array.shape, trainable=False))
        shapes = {p.role: p.shape for p in held}
        shape = tuple(op.infer(tuple(self.shape(i) for i in inputs), shapes))
        name = _fresh(f"{self.scope}/{op.kind}", self._names)
        self.nodes.append(Node(name, op, inputs, shape, tuple(held)))
        return len(self.nodes) - 1

    def rename(self, index: int, name: str) -> None:
        """Let a node bear the name of the layer whose value it holds."""
        self.nodes[index] = replace(self.nodes[index], name=name)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int], source: str) -> Network:
        """The network that was written."""
        structure = Structure(tuple(self.nodes), tuple(inputs), tuple(outputs), self._dtype)
        return Network(structure, self.weights, source=source)

    # -- the ops that rules are made of ------------------------------------------------------

    def function(self, name: str, x: int) -> int:
        """An activation of the catalogue, by name."""
        return self.add(Activate(activations.get(name)), x)

    def plus(self, x: int, y: int) -> int:
        """``x + y``, broadcast."""
        return self.add(Add(), x, y)

    def minus(self, x: int, y: int) -> int:
        """``x - y``, broadcast."""
        return self.add(Subtract(), x, y)

    def times(self, x: int, scale: Any) -> int:
        """``x * scale`` for an array."""
        return self.add(Scale(), x, scale=scale)

    def shifted(self, x: int, shift: Any) -> int:
        """``x + shift`` for an array."""
        return self.plus(x, self.add(Constant(), value=shift))

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        """Another shape; no node where it is the same."""
        shape = tuple(shape)
        return x if shape == self.shape(x) else self.add(Reshape(shape), x)

    def transpose(self, x: int, permutation: Sequence[int]) -> int:
        """Axes in another order; no node where it is the same."""
        permutation = tuple(permutation)
        same = permutation == tuple(range(len(permutation)))
        return x if same else self.add(Transpose(permutation), x)

    def gather(self, x: int, indices: Sequence[int], axis: int) -> int:
        """Entries along an axis: a slice where their steps are equal."""
        indices = tuple(int(i) for i in indices)
        steps = {b - a for a, b in pairwise(indices)} or {1}
        if len(steps) > 1 or min(steps) < 1:
            return self.add(Gather(indices, axis), x)
        step, shape = steps.pop(), self.shape(x)
        if len(indices) == shape[axis]:
            return x
        start, stop = [0] * len(shape), list(shape)
        start[axis], stop[axis] = indices[0], indices[-1] + 1
        strides = tuple(step if a == axis else 1 for a in range(len(shape)))
        return self.add(Slice(tuple(start), tuple(stop), strides), x)


def _fresh(base: str, taken: set[str]) -> str:
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    taken.add(name)
    return name
