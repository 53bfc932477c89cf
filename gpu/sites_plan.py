"""Layer plans on sites as plain data: convolutions, poolings and what stands between them.

A plan is a tuple of layers, each of which takes the outputs of earlier ones by their place in the
tuple, -1 for the input. Those of :mod:`.plans` that act on every site alike (Dense, Activation,
Series, Sum) are taken as they are. Sites are numbered; a grid of any number of axes is tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError
from tangency.gpu.plans import Activation, Dense, Series, Sum, check_family, check_far

__all__ = [
    "Convolution",
    "Factor",
    "Flattening",
    "Pooling",
    "Product",
    "SiteLayer",
    "SiteNorm",
    "SitesPlan",
    "window_table",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Convolution:
    """Random weights on a window: ``weight / taps`` times the sum over it, and a bias.

    Attributes
    ----------
    source : int
    table : (sites out, taps) int array
        The sites that each output takes, -1 for a zero outside.
    weight, bias, weight_gain, bias_gain : float
        As of :class:`tangency.gpu.plans.Dense`; both weights are divided by the taps.
    grid : (height, width), optional
        Of the output. A 3 x 3 window on it with stride 1 and zero padding may then go through
        the layers behind it in registers.
    """

    source: int
    table: Array
    weight: float = 1.0
    bias: float = 0.0
    weight_gain: float = 1.0
    bias_gain: float = 0.0
    grid: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Pooling:
    """A fixed linear map of the sites, ``M s M^T`` with a ``(sites out, sites in)`` matrix."""

    source: int
    matrix: Array


@dataclass(frozen=True)
class Flattening:
    """The mean over equal sites: all entries become channels."""

    source: int


@dataclass(frozen=True)
class Product:
    """The product of independent branches, entry by entry."""

    sources: tuple[int, ...]


@dataclass(frozen=True)
class Factor:
    """A fixed factor, ``square`` its square; a gain and a bias trained behind it; dropout.

    ``keep`` is the probability with which dropout keeps an entry: the variances of a sample's
    sites with themselves alone are divided by it.
    """

    source: int
    square: float = 1.0
    gain: float = 0.0
    shift: float = 0.0
    keep: float = 1.0


@dataclass(frozen=True, eq=False)
class SiteNorm:
    """Division by the root of the variance plus ``eps``; gain and shift as of :class:`Factor`.

    ``groups`` is a (sites, sites) matrix that averages variances, or None: each site by itself.
    """

    source: int
    eps: float = 0.0
    groups: Array | None = None
    gain: float = 0.0
    shift: float = 0.0


SiteLayer = (
    Dense | Activation | Series | Sum | Convolution | Pooling | Flattening | Product | Factor
    | SiteNorm
)  # fmt: skip


def sources_of(layer: SiteLayer) -> tuple[int, ...]:
    """The layers that a layer takes."""
    return layer.sources if isinstance(layer, Sum | Product) else (layer.source,)


@dataclass(frozen=True, eq=False)
class SitesPlan:
    """Checked layers and their geometry.

    Attributes
    ----------
    layers : tuple of SiteLayer
        The last one has one site.
    sites : int
        Of the input.

    Raises
    ------
    PlanError
        If a layer is none of this module's, takes one behind it, does not fit the sites of what it
        takes, or sites are left at the end.
    """

    layers: tuple[SiteLayer, ...]
    sites: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or self.sites < 1:
            raise PlanError("a plan has a layer or more, and an input of a site or more")
        if self.sites_of[len(self.layers) - 1] != 1:
            raise PlanError("the last layer has sites left: pool or flatten them")
        if max(self.sites_of.values()) > 46340:
            raise PlanError("more than 46,340 sites: their pairs are numbered in 32 bits")

    @cached_property
    def sites_of(self) -> dict[int, int]:
        """Sites behind each layer, -1 for the input."""
        found = {-1: self.sites}
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, SiteLayer):
                raise PlanError(f"layer {i} is {layer!r}: it is one of {SiteLayer}")
            before = sources_of(layer)
            if not before or any(not -1 <= k < i for k in before):
                raise PlanError(f"layer {i} takes {before}: earlier layers have -1 to {i - 1}")
            if len({found[k] for k in before}) > 1:
                raise PlanError(f"layer {i} joins {[found[k] for k in before]} sites")
            found[i] = _sites_behind(i, layer, found[before[0]])
        return found

    def needed(self, ends: Iterable[int]) -> dict[int, bool]:
        """The layers that some depend on, and whether each holds pairs of different sites.

        Pooling takes pairs of sites, flattening equal ones alone; others, what they give.
        """
        full = dict.fromkeys(ends, False)
        for i in range(len(self.layers) - 1, -1, -1):
            if i not in full:
                continue
            layer = self.layers[i]
            pairs = isinstance(layer, Pooling) or (full[i] and not isinstance(layer, Flattening))
            for k in sources_of(layer):
                full[k] = full.get(k, False) or (pairs and self.sites_of[k] > 1)
        return full


def _sites_behind(i: int, layer: SiteLayer, before: int) -> int:
    if isinstance(layer, Convolution):
        table = layer.table
        if table.ndim != 2 or not table.size or table.min() < -1 or table.max() >= before:
            raise PlanError(f"layer {i}: a table (sites out, taps) of -1 to {before - 1} is needed")
        return len(table)
    if isinstance(layer, Pooling):
        if layer.matrix.ndim != 2 or layer.matrix.shape[1] != before:
            raise PlanError(f"layer {i}: a matrix of {layer.matrix.shape} on {before} sites")
        return len(layer.matrix)
    if isinstance(layer, Flattening):
        return 1
    if isinstance(layer, Activation):
        check_family(i, layer)
    if isinstance(layer, Series):
        check_far(i, layer)
    if isinstance(layer, Sum) and len(layer.weights) != len(layer.sources):
        raise PlanError(f"layer {i}: {len(layer.weights)} weights, {len(layer.sources)} sources")
    return before


def window_table(grid: tuple[int, int]) -> Array:
    """The table of a 3 x 3 window of stride 1 with zero padding."""
    height, width = grid
    rows, columns = np.divmod(np.arange(height * width), width)
    steps = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    i, j = rows[:, None] + steps[:, 0], columns[:, None] + steps[:, 1]
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return np.where(inside, i * width + j, -1)
