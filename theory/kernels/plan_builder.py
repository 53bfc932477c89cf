"""PlanBuilder: writes a plan step by step and refuses what has no infinite-width limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels.duals_base import DualFunction
from tangency.theory.kernels.plan import (
    Activate,
    Affine,
    Attention,
    BatchNorm,
    Dropout,
    Flatten,
    Gather,
    Linear,
    Mix,
    Norm,
    Plan,
    PlanNode,
    Product,
    Scale,
    Source,
    Step,
)
from tangency.theory.kernels.plan_pairs import pairs_needed

__all__ = ["PlanBuilder"]

Array = np.ndarray[Any, Any]


class PlanBuilder:
    """Collects nodes; each method adds one and returns its number.

    Parameters
    ----------
    parametrisation : {"ntk", "standard"}
        ``ntk``: ``f = W_std / sqrt(fan in) W x + b_std b`` with W, b ~ N(0, 1).
        ``standard``: the same function with the factors in the initial weights, which training
        then moves at their full size.
    """

    def __init__(self, parametrisation: str = "ntk") -> None:
        if parametrisation not in ("ntk", "standard"):
            raise InputError(f"parametrisation {parametrisation!r}: it is 'ntk' or 'standard'")
        self.parametrisation = parametrisation
        self.nodes: list[PlanNode] = []
        self.extract: list[Callable[[Array], Array]] = []

    def _add(self, step: Step, inputs: Sequence[int], **changes: Any) -> int:
        base = self.nodes[inputs[0]]
        self.nodes.append(replace(base, step=step, inputs=tuple(inputs), **changes))
        return len(self.nodes) - 1

    def source(
        self, sites: tuple[int, ...], channels: int, extract: Callable[[Array], Array]
    ) -> int:
        """The input, or something computed from it without random weights."""
        step = Source(len(self.extract))
        self.extract.append(extract)
        self.nodes.append(PlanNode(step, (), sites, channels, False, frozenset({-1})))
        return len(self.nodes) - 1

    # --- layers with random weights ---------------------------------------------------------

    def affine(
        self,
        node: int,
        channels: int,
        weight_variance: float,
        bias_variance: float | None,
        *,
        sites: tuple[int, ...] | None = None,
        table: Array | None = None,
        trained: tuple[bool, bool] = (True, True),
    ) -> int:
        """A dense layer or, with a table, a convolution."""
        before = self.nodes[node]
        bias = 0.0 if bias_variance is None else bias_variance
        fan_in = before.channels * (1 if table is None else table.shape[1])
        gains = (weight_variance, bias) if self.parametrisation == "ntk" else (float(fan_in), 1.0)
        step = Affine(
            weight_variance,
            bias,
            gains[0] if trained[0] else 0.0,
            gains[1] if trained[1] and bias_variance is not None else 0.0,
            table,
        )
        return self._add(
            step,
            [node],
            sites=before.sites if sites is None else sites,
            channels=channels,
            gaussian=True,
            origin=frozenset({len(self.nodes)}),
        )

    def attention(self, node: int, channels: int, **options: Any) -> int:
        """Self-attention over all sites."""
        if not self.nodes[node].sites:
            raise UnsupportedError("attention needs sites to attend to: the input has none")
        origin = frozenset({len(self.nodes)})
        step = Attention(**options)
        return self._add(step, [node], channels=channels, gaussian=True, origin=origin)

    # --- without weights ----------------------------------------------------------------------

    def activate(self, node: int, dual: DualFunction) -> int:
        """A nonlinearity; on a concatenation it goes to each of the branches."""
        before = self.nodes[node]
        if self._is_concatenation(before):
            return self.concat([self.activate(i, dual) for i in before.inputs])
        if not before.gaussian:
            raise UnsupportedError(
                f"a nonlinearity after {type(before.step).__name__} has no closed limit: its "
                "input must be Gaussian; put a dense, convolution or attention layer before it"
            )
        return self._add(Activate(dual), [node], gaussian=False)

    def _is_concatenation(self, node: PlanNode) -> bool:
        """Whether the node joins channels: what works channel by channel goes to the branches."""
        widths = [self.nodes[i].channels for i in node.inputs]
        return isinstance(node.step, Mix) and len(widths) > 1 and sum(widths) == node.channels

    def add(self, nodes: Sequence[int]) -> int:
        """The sum of uncorrelated branches; all but one have mean zero."""
        branches = self._branches(nodes, "a sum")
        channels = {b.channels for b in branches}
        if len(channels) > 1:
            raise InputError(f"a sum of branches of {sorted(channels)} channels")
        if sum(not b.gaussian for b in branches) > 1:
            raise UnsupportedError(
                "a sum of several branches that end in a nonlinearity or in the input has means "
                "that are not carried: put a dense or convolution layer at the end of all but one"
            )
        origin = frozenset().union(*(b.origin for b in branches))
        gaussian = all(b.gaussian for b in branches)
        return self._add(Mix((1.0,) * len(nodes)), nodes, origin=origin, gaussian=gaussian)

    def concat(self, nodes: Sequence[int]) -> int:
        """Branches side by side in the channels."""
        if len(nodes) == 1:
            return nodes[0]
        branches = [self.nodes[i] for i in nodes]
        if len({b.sites for b in branches}) > 1:
            raise InputError(f"a concatenation of spatial shapes {[b.sites for b in branches]}")
        total = sum(b.channels for b in branches)
        weights = tuple(b.channels / total for b in branches)
        origin = frozenset().union(*(b.origin for b in branches))
        return self._add(Mix(weights), nodes, origin=origin, gaussian=False, channels=total)

    def product(self, nodes: Sequence[int]) -> int:
        """The product of independent branches."""
        branches = self._branches(nodes, "a product")
        if any(b.origin == frozenset({-1}) for b in branches):
            raise UnsupportedError("a product with the input itself: its channels are not random")
        # It is a function of all their weights, yet linear in none alone: none may come again.
        origin = frozenset().union(*(b.origin for b in branches))
        return self._add(Product(), nodes, origin=origin, gaussian=len(nodes) == 1)

    def _branches(self, nodes: Sequence[int], what: str) -> list[PlanNode]:
        branches = [self.nodes[i] for i in nodes]
        if len({b.sites for b in branches}) > 1:
            raise InputError(f"{what} of spatial shapes {[b.sites for b in branches]}")
        if sum(len(b.origin) for b in branches) > len(
            frozenset().union(*(b.origin for b in branches))
        ):
            raise UnsupportedError(
                f"{what} of branches that share random weights: their covariance is not "
                "carried; each branch needs a dense or convolution layer of its own"
            )
        return branches

    def linear(self, node: int, sites: tuple[int, ...], matrix: Array) -> int:
        """A fixed linear map of the sites."""
        if not self.nodes[node].sites:
            raise InputError("pooling needs spatial axes: the input has none")
        return self._add(Linear(np.asarray(matrix, dtype=float)), [node], sites=sites)

    def global_average(self, node: int) -> int:
        """The mean over all sites."""
        count = prod(self.nodes[node].sites)
        return self.linear(node, (), np.full((1, count), 1.0 / count))

    def gather(self, node: int, sites: tuple[int, ...], table: Array) -> int:
        """Sites in another order, some left out, -1 for a zero."""
        return self._add(Gather(np.asarray(table, dtype=int)), [node], sites=sites)

    def flatten(self, node: int) -> int:
        """All sites into the channels."""
        before = self.nodes[node]
        count = prod(before.sites)
        if count == 1:
            return self.reshape(node, ())
        channels = before.channels * count
        return self._add(Flatten(), [node], sites=(), channels=channels, gaussian=False)

    def reshape(self, node: int, sites: tuple[int, ...]) -> int:
        """The same sites under another spatial shape."""
        count = prod(self.nodes[node].sites)
        return self._add(Gather(np.arange(count)), [node], sites=sites)

    def norm(
        self, node: int, axes: Sequence[int], eps: float, *, gain: bool = False, shift: bool = False
    ) -> int:
        """Layer norm over the channels and the spatial ``axes``."""
        before = self.nodes[node]
        if not before.gaussian:
            raise UnsupportedError(
                "a layer norm after a nonlinearity or on the input is not carried: its input "
                "must be Gaussian with mean zero; put a dense or convolution layer before it"
            )
        groups = None
        if axes:
            if gain or shift:
                raise UnsupportedError("a layer norm over sites with a trained gain a site")
            matrices = [
                np.full((size, size), 1.0 / size) if a in axes else np.eye(size)
                for a, size in enumerate(before.sites)
            ]
            groups = np.ones((1, 1))
            for m in matrices:
                groups = np.kron(groups, m)
        # A gain and a bias that are trained leave the values alone: they start at 1 and 0.
        return self._add(Norm(float(eps), groups, gain, shift), [node])

    def dropout(self, node: int, keep: float) -> int:
        """Dropout while training."""
        if not 0.0 < keep <= 1.0:
            raise InputError(f"keep = {keep}: a probability in (0, 1]")
        if self.nodes[node].origin == frozenset({-1}):
            raise UnsupportedError("dropout on the input itself: its channels are not random")
        return self._add(Dropout(float(keep)), [node], gaussian=False)

    def scale(self, node: int, factor: float) -> int:
        """A fixed factor."""
        return self._add(Scale(float(factor) ** 2), [node])

    def batch_norm(self, node: int, eps: float, *, gain: bool, shift: bool) -> int:
        """Batch norm in inference with running mean 0 and variance 1."""
        before = self.nodes[node]
        if self._is_concatenation(before):
            ends = [self.batch_norm(i, eps, gain=gain, shift=shift) for i in before.inputs]
            return self.concat(ends)
        return self._add(BatchNorm(1.0 / (1.0 + eps), gain, shift), [node])

    # --- the end ------------------------------------------------------------------------------

    def finish(self, node: int, input_shape: tuple[int, ...]) -> Plan:
        """The plan that ends at a node: only what it needs, full covariances where needed."""
        if self.nodes[node].sites:
            raise UnsupportedError(
                f"the output has sites {self.nodes[node].sites} left: end with Flatten() or "
                "GlobalAvgPool() and a Dense layer"
            )
        if self.nodes[node].origin == frozenset({-1}):
            raise UnsupportedError("the network has no random weights between input and output")
        needed = pairs_needed(self.nodes, node)
        order = sorted(needed)
        place = {old: new for new, old in enumerate(order)}
        nodes = tuple(
            replace(
                self.nodes[i],
                inputs=tuple(place[j] for j in self.nodes[i].inputs),
                full=needed[i] and prod(self.nodes[i].sites) > 1,
            )
            for i in order
        )
        return Plan(nodes, tuple(self.extract), tuple(input_shape), self.parametrisation)
