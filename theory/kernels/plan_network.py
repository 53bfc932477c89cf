"""The plan of an imported Network: its architecture, with all weights random.

What lies before the first random weights is evaluated as it stands (patches, transposes, fixed
normalisation); from there on each op becomes a step. Batch norm is that of inference at
initialisation: running mean 0 and variance 1, gain 1 and bias 0, both trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models import Network
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.ops import Shape, numpy_backend
from tangency.models.structure import Node
from tangency.theory.kernels.plan import Plan
from tangency.theory.kernels.plan_builder import PlanBuilder

__all__ = ["Compiler", "Tensor", "plan_of_network"]

Array = np.ndarray[Any, Any]

#: Ops whose weights are random in the limit; others' weights stand as they are.
RANDOM = ("dense", "conv", "conv_transpose")


@dataclass(frozen=True)
class Tensor:
    """A random value: its node in the plan, its shape and which axis is the wide one."""

    node: int
    shape: Shape
    channel: int

    @property
    def sites(self) -> Shape:
        """The axes but the channels."""
        return self.shape[: self.channel] + self.shape[self.channel + 1 :]

    def site_axis(self, axis: int) -> int:
        """Where an axis, not the channels, stands among the sites."""
        return axis - (axis > self.channel)


class Compiler:
    """Walks the ops of a Network and writes the plan.

    Parameters
    ----------
    network : Network
    plan : PlanBuilder
    weight_variance, bias_variance : float
    """

    def __init__(
        self, network: Network, plan: PlanBuilder, weight_variance: float, bias_variance: float
    ) -> None:
        self.network, self.plan = network, plan
        self.weight_variance, self.bias_variance = weight_variance, bias_variance
        self.tensors: dict[int, Tensor] = {}
        self.fixed: set[int] = set()  # nodes without random weights before them
        self._sources: dict[tuple[int, int], Tensor] = {}

    def compile(self) -> Plan:
        """The plan of the network."""
        from tangency.theory.kernels.plan_ops import RULES

        structure = self.network.structure
        if len(structure.inputs) != 1 or len(structure.outputs) != 1:
            raise InputError("an infinite kernel needs a network of one input and one output")
        uses = Counter(p.key for n in structure.nodes if n.op.kind in RANDOM for p in n.params)
        for node in structure.nodes:
            if any(uses[p.key] > 1 for p in node.params):
                raise UnsupportedError(
                    f"layer {node.name!r} shares its weights with another: the limit that is "
                    "carried has independent weights in every layer"
                )
        for i, node in enumerate(structure.nodes):
            known = all(j in self.fixed for j in node.inputs)
            if known and node.op.kind not in RANDOM:
                self._require_untrained(node)
                self.fixed.add(i)
                continue
            rule = RULES.get(node.op.kind)
            if rule is None:
                raise UnsupportedError(
                    f"layer {node.name!r} ({node.op.kind}) has no infinite-width limit here; "
                    f"there are rules for {', '.join(sorted(RULES))}"
                )
            try:
                self.tensors[i] = rule(self, node)
            except (InputError, UnsupportedError) as error:
                raise type(error)(f"layer {node.name!r} ({node.op.kind}): {error}") from None
        end = structure.outputs[0]
        if end in self.fixed:
            raise UnsupportedError("the network has no random weights between input and output")
        last = self.tensors[end]
        final = self.plan.reshape(last.node, ()) if set(last.sites) == {1} else last.node
        return self.plan.finish(final, self.network.input_shape)

    def _require_untrained(self, node: Node) -> None:
        if any(p.trainable for p in node.params):
            raise UnsupportedError(
                f"layer {node.name!r} ({node.op.kind}) has trained parameters before the first "
                "random weights: what they add to the tangent kernel is not carried"
            )

    def tensor(self, i: int, channel: int | None = None) -> Tensor:
        """The value of node i; one without random weights becomes a source.

        ``channel`` is the axis, counted from the end, that the caller takes for the channels.
        """
        if i in self.tensors:
            return self.tensors[i]
        shape = self.network.structure.nodes[i].shape
        if channel is None or len(shape) < -channel:
            raise UnsupportedError("it stands on the input alone, whose channels are unknown here")
        axis = len(shape) + channel
        if (i, axis) not in self._sources:
            sites = shape[:axis] + shape[axis + 1 :]
            extract = _Prefix(self.network, i, axis)
            node = self.plan.source(sites, shape[axis], extract)
            self._sources[i, axis] = Tensor(node, shape, axis)
        return self._sources[i, axis]

    def params(self, node: Node) -> Mapping[str, Array]:
        """The node's parameters by role."""
        return {p.role: self.network.weights[p.key] for p in node.params}

    @staticmethod
    def trained(node: Node, role: str) -> bool:
        """Whether the node has this parameter and training changes it."""
        return any(p.role == role and p.trainable for p in node.params)


class _Prefix:
    """The part of a network before its random weights, as a function of the input."""

    def __init__(self, network: Network, end: int, axis: int) -> None:
        self.network, self.end, self.axis = network, end, axis
        self.order = network.structure.ancestors([end])

    def __call__(self, x: Array) -> Array:
        """``(n, *input_shape) -> (n, sites, channels)``."""
        values: dict[int, Array] = {}
        backend, nodes = numpy_backend(), self.network.structure.nodes
        for i in self.order:
            node = nodes[i]
            if i in self.network.structure.inputs:
                values[i] = x
                continue
            params = {p.role: self.network.weights[p.key].astype(np.float64) for p in node.params}
            values[i] = node.op.apply(backend, params, *(values[j] for j in node.inputs))
        value = np.broadcast_to(values[self.end], (len(x), *values[self.end].shape[1:]))
        moved = np.moveaxis(value, self.axis + 1, -1)
        return np.ascontiguousarray(moved.reshape(len(x), -1, moved.shape[-1]))


Rule = Callable[[Compiler, Node], Tensor]


def plan_of_network(
    network: Network, *, parametrisation: str, weight_variance: float, bias_variance: float
) -> Plan:
    """The plan of a network's architecture."""
    builder = PlanBuilder(parametrisation)
    return Compiler(network, builder, weight_variance, bias_variance).compile()
