"""The structure of a network: a hashable graph of ops, without the values of its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.ops import Backend, Constant, Input, Op, Shape

__all__ = ["Node", "Param", "Structure"]

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Param:
    """One parameter of a node.

    Attributes
    ----------
    role : str
        What it is for the op: ``weight``, ``bias``, ``mean``, ...
    key : str
        Its name among the network's weights; two nodes with the same key share it.
    shape : tuple of int
        Its shape.
    trainable : bool
        Whether training changes it: False for running statistics, masks and constants.
    gain : float or None
        The weight is this number times entries of the model's own parameters that no other weight
        holds: 1 where it is a parameter, 0.5 where the model computes ``a / 2`` from its a. None
        where it is computed in another way, so that derivatives by the weight are none by the
        parameters.
    entries : tuple of int or None
        Where other weights hold entries of the same parameters (a matrix and its transpose): the
        number of the weight's first entry, of all parameters numbered through, and the strides
        of its axes. None where no other weight does.
    """

    role: str
    key: str
    shape: Shape
    trainable: bool = True
    gain: float | None = 1.0
    entries: tuple[int, ...] | None = None

    def places(self) -> Any:
        """The numbers of the entries, ``shape``, of a weight that has them."""
        assert self.entries is not None
        offset, *strides = self.entries
        steps = [np.arange(n) * s for n, s in zip(self.shape, strides, strict=True)]
        return offset + sum(np.ix_(*steps)) if steps else np.array(offset)


@dataclass(frozen=True)
class Node:
    """One op of the graph.

    Attributes
    ----------
    name : str
        Name of the layer, unique in the network.
    op : Op
        The op and its attributes.
    inputs : tuple of int
        Indices of the nodes that it takes, all smaller than its own.
    shape : tuple of int
        Shape of its output for one sample: the batch axis stands before it.
    params : tuple of Param
        Its parameters.
    """

    name: str
    op: Op
    inputs: tuple[int, ...]
    shape: Shape
    params: tuple[Param, ...] = ()


@dataclass(frozen=True)
class Structure:
    """An immutable, hashable graph; two networks with equal structures share compiled code.

    Attributes
    ----------
    nodes : tuple of Node
        In an order in which every node comes after its inputs.
    inputs, outputs : tuple of int
        Indices of the input nodes, in call order, and of the nodes whose values are returned.
    dtype : {"float32", "float64"}
        Type of the weights and of the evaluation.

    Raises
    ------
    InputError
        When shapes, wiring or parameters do not fit; the message names the node.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r}: a network is float32 or float64")
        names: set[str] = set()
        for i, node in enumerate(self.nodes):
            if node.name in names:
                raise InputError(f"two nodes are called {node.name!r}")
            names.add(node.name)
            self._check(i, node)
        ends = (*self.inputs, *self.outputs)
        if not self.outputs or not all(0 <= i < len(self.nodes) for i in ends):
            raise InputError("inputs and outputs must be indices of nodes, with one output or more")
        wanted = tuple(i for i, node in enumerate(self.nodes) if isinstance(node.op, Input))
        if sorted(self.inputs) != list(wanted):
            raise InputError("the inputs of a network are its input nodes, each once")
        self.param_shapes  # noqa: B018  (raises when two nodes disagree)

    def _check(self, i: int, node: Node) -> None:
        op, where = node.op, f"node {node.name!r} ({node.op.kind})"
        least, most = op.arity
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            raise InputError(f"{where}: has {len(node.inputs)} inputs, takes {op.arity}")
        if not all(0 <= j < i for j in node.inputs):
            raise InputError(f"{where}: inputs {node.inputs} must come before node {i}")
        shapes = {p.role: p.shape for p in node.params}
        unknown = set(shapes) - set(op.roles)
        missing = set(op.required) - set(shapes)
        if unknown or missing or len(shapes) != len(node.params):
            raise InputError(
                f"{where}: takes parameters {op.roles}, needs {op.required}, got {list(shapes)}"
            )
        if isinstance(op, Input):
            return
        try:
            shape = op.infer(tuple(self.nodes[j].shape for j in node.inputs), shapes)
        except InputError as error:
            raise InputError(f"layer {node.name!r}: {error}") from None
        if tuple(shape) != tuple(node.shape):
            raise InputError(f"{where}: its shape is {shape}, not {node.shape}")

    @cached_property
    def param_shapes(self) -> dict[str, Shape]:
        """Shape of each weight by its key."""
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            for p in node.params:
                if shapes.setdefault(p.key, p.shape) != p.shape:
                    raise InputError(
                        f"node {node.name!r}: weight {p.key!r} is {shapes[p.key]} elsewhere, "
                        f"{p.shape} here"
                    )
        return shapes

    @cached_property
    def trainable(self) -> tuple[str, ...]:
        """Keys of the weights that training changes, in graph order."""
        keys = {p.key: None for node in self.nodes for p in node.params if p.trainable}
        return tuple(keys)

    def consumers(self, index: int) -> tuple[int, ...]:
        """Indices of the nodes that take node ``index`` as an input."""
        return tuple(i for i, node in enumerate(self.nodes) if index in node.inputs)

    def ancestors(self, targets: Iterable[int], *, stop: Collection[int] = ()) -> list[int]:
        """The targets and all nodes that they depend on, in graph order.

        ``stop`` are nodes that are left out, with what only they lead to.
        """
        seen, stack = set[int](), list(targets)
        while stack:
            i = stack.pop()
            if i not in seen and i not in stop:
                seen.add(i)
                stack.extend(self.nodes[i].inputs)
        return sorted(seen)

    def values(
        self, backend: Backend, weights: Mapping[str, Any], inputs: Sequence[Any]
    ) -> list[Any]:
        """Value of every node for a batch: arrays ``(N, *shape)``; constants have N = 1."""
        given = dict(zip(self.inputs, inputs, strict=True))
        values: list[Any] = []
        for i, node in enumerate(self.nodes):
            if i in given:
                values.append(given[i])
                continue
            params = {p.role: weights[p.key] for p in node.params}
            values.append(node.op.apply(backend, params, *(values[j] for j in node.inputs)))
        return values

    def apply(self, backend: Backend, weights: Mapping[str, Any], inputs: Sequence[Any]) -> Any:
        """Output for a batch, or the tuple of outputs when there are several."""
        values = self.values(backend, weights, inputs)
        batch = inputs[0].shape[0] if inputs else 1
        outputs = []
        for i in self.outputs:
            y = values[i]
            if isinstance(self.nodes[i].op, Constant) or y.shape[0] != batch:
                y = backend.xp.broadcast_to(y, (batch, *y.shape[1:]))
            outputs.append(y)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)
