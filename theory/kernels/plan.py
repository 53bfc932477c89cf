"""The plan of an infinitely wide network: steps on covariances, one after another.

Layer combinators and imported Networks both become a Plan; the walk carries covariances through
it. A step knows its geometry; what it does to a covariance stands in :mod:`.walk`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tangency.theory.kernels.duals_base import DualFunction

__all__ = [
    "Activate",
    "Affine",
    "Attention",
    "BatchNorm",
    "Dropout",
    "Flatten",
    "Gather",
    "Linear",
    "Mix",
    "Norm",
    "Plan",
    "PlanNode",
    "Product",
    "Scale",
    "Source",
    "Step",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Step:
    """Base class; ``needs_full`` where single sites of the output need pairs of the input's."""

    needs_full: ClassVar[bool] = False


@dataclass(frozen=True)
class Source(Step):
    """Features of the input, ``(n, sites, channels)``; ``index`` says which of the extractors'."""

    index: int = 0


@dataclass(frozen=True, eq=False)
class Affine(Step):
    """Random weights (and a bias) at each site: ``weight/K sum_k s[table[., k]] + bias``.

    Attributes
    ----------
    weight, bias : float
        ``W_std^2`` and ``b_std^2``.
    weight_gain, bias_gain : float
        What training the weights (times the mean of ``s``) and the bias adds to the NTK.
    table : (sites out, K) int array, or None for a dense layer
        See :mod:`.spatial`.
    """

    weight: float
    bias: float
    weight_gain: float
    bias_gain: float
    table: Array | None = None


@dataclass(frozen=True)
class Activate(Step):
    """A function of one variable on every entry, through its dual."""

    dual: DualFunction


@dataclass(frozen=True)
class Mix(Step):
    """``sum_i weights[i] s_i`` of uncorrelated branches: a sum, or a mean (concatenation)."""

    weights: tuple[float, ...]


@dataclass(frozen=True)
class Product(Step):
    """The product of independent branches, entry by entry."""


@dataclass(frozen=True, eq=False)
class Linear(Step):
    """``M s M^T`` over sites: pooling, interpolation."""

    matrix: Array

    needs_full: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Gather(Step):
    """Sites ``table``, -1 for a zero: permutations, slices and zero padding."""

    table: Array


@dataclass(frozen=True)
class Flatten(Step):
    """The mean of ``s`` over equal sites: all entries become channels."""


@dataclass(frozen=True, eq=False)
class Norm(Step):
    """Division by the root of the mean variance (over ``groups`` of sites) plus ``eps``.

    ``gain`` and ``shift`` say that a gain and a bias a channel are trained after it, from 1 and 0.
    """

    eps: float
    groups: Array | None = None  # (sites, sites) averaging matrix; None: each site by itself
    gain: bool = False
    shift: bool = False


@dataclass(frozen=True)
class Dropout(Step):
    """Each entry kept with probability ``keep`` and divided by it."""

    keep: float


@dataclass(frozen=True)
class Scale(Step):
    """A fixed factor, ``square`` its square."""

    square: float


@dataclass(frozen=True)
class BatchNorm(Step):
    """A fixed factor, and a trained gain and bias a channel behind it, from 1 and 0."""

    square: float
    gain: bool
    shift: bool


@dataclass(frozen=True, eq=False)
class Attention(Step):
    """Self-attention in the linear-scaling limit; see :mod:`.attention`."""

    mechanism: str
    key_std: float
    value: float
    bias: float
    position: Array | None = None  # (sites, sites) covariance of positional embeddings, scaled
    share: float = 1.0  # weight of the input beside it
    position_in_values: bool = False

    needs_full: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class PlanNode:
    """A step, the nodes that it takes and what comes out of it.

    Attributes
    ----------
    step : Step
    inputs : tuple of int
        Earlier nodes.
    sites : tuple of int
        Spatial shape of the output, ``()`` where there is none.
    channels : int
        Width of the finite network here: concatenation and the standard parametrisation ask.
    gaussian : bool
        Whether the entries are Gaussian in the limit, as a nonlinearity wants them.
    origin : frozenset of int
        Nodes whose random weights this is linear in; branches without a common one are
        uncorrelated.
    full : bool
        Whether pairs of different sites are carried here.
    """

    step: Step
    inputs: tuple[int, ...]
    sites: tuple[int, ...]
    channels: int
    gaussian: bool
    origin: frozenset[int]
    full: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in order; the last node is the output, which has no sites left.

    Attributes
    ----------
    nodes : tuple of PlanNode
    extract : tuple of callables
        One for each Source: array ``(n, *input_shape) -> (n, sites, channels)`` in float64.
    input_shape : tuple of int
    parametrisation : {"ntk", "standard"}
    """

    nodes: tuple[PlanNode, ...]
    extract: tuple[Any, ...] = field(repr=False)
    input_shape: tuple[int, ...]
    parametrisation: str = "ntk"

    @property
    def chain(self) -> tuple[Step, ...] | None:
        """The steps after the source where each takes the one before it; else None."""
        straight = all(n.inputs == (i,) for i, n in enumerate(self.nodes[1:]))
        if not straight or not isinstance(self.nodes[0].step, Source):
            return None
        return tuple(n.step for n in self.nodes[1:])

    @property
    def fully_connected(self) -> bool:
        """Whether it is a chain of dense layers, activations and factors on vectors."""
        steps = self.chain
        return steps is not None and all(
            node.sites == () and isinstance(node.step, Source | Affine | Activate | Scale)
            for node in self.nodes
        )

    @property
    def stride_one_convolutional(self) -> bool:
        """Whether it is a chain in which every convolution keeps the grid (stride 1, zeros)."""
        steps = self.chain
        if steps is None or self.nodes[0].sites == ():
            return False
        allowed = Source | Affine | Activate | Scale | Flatten | Linear
        return all(isinstance(n.step, allowed) for n in self.nodes) and all(
            node.sites == self.nodes[node.inputs[0]].sites
            for node in self.nodes
            if isinstance(node.step, Affine) and node.step.table is not None
        )

    @property
    def widest_site_pair(self) -> int:
        """Numbers held for a pair of samples where most are: sites, or their pairs."""
        sizes = [int(np.prod(n.sites)) ** (2 if n.full else 1) for n in self.nodes]
        return max(sizes)
