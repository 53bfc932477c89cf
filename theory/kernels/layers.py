"""Layers of infinitely wide networks, to be put together with serial, residual and their kind.

Arrays are ``(n, *space, channels)``; the names of options are those of neural-tangents.

>>> from tangency.theory.kernels import Relu, serial
>>> net = serial(Dense(512, W_std=1.5, b_std=0.1), Relu(), Dense(1))
>>> len(net.layers)
3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.kernels import spatial
from tangency.theory.kernels.plan_builder import PlanBuilder

__all__ = [
    "AvgPool",
    "Conv",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Identity",
    "Layer",
    "LayerNorm",
]


@dataclass(frozen=True)
class Layer:
    """Base class: a layer writes itself into a plan."""

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add this layer behind a node and return the new node."""
        raise NotImplementedError(type(self).__name__)


@dataclass(frozen=True)
class Identity(Layer):
    """Nothing: the short branch of a residual block."""

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Return the node itself."""
        return node


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not (np.isfinite(value) and value >= 0.0):
            raise InputError(f"{name} = {value}: a finite number from 0")


@dataclass(frozen=True)
class Dense(Layer):
    """``W_std / sqrt(n) W x + b_std b`` on the channels.

    Attributes
    ----------
    width : int
        Channels of the output; the limit asks for them in the standard parametrisation and in
        concatenations alone.
    W_std : float
    b_std : float, optional
        None for no bias.
    """

    width: int = 1
    W_std: float = 1.0
    b_std: float | None = None

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        _positive(W_std=self.W_std, b_std=self.b_std)
        bias = None if self.b_std is None else self.b_std**2
        return plan.affine(node, self.width, self.W_std**2, bias)


@dataclass(frozen=True)
class Conv(Layer):
    """Convolution, with weights of variance ``W_std^2 / (taps * channels)``.

    Attributes
    ----------
    channels : int
    size : tuple of int
        One number for each spatial axis.
    stride, dilation : tuple of int, optional
    padding : "SAME", "VALID", "CIRCULAR" or (before, after) pairs
    W_std : float
    b_std : float, optional
    """

    channels: int = 1
    size: Sequence[int] = (3, 3)
    stride: Sequence[int] | None = None
    padding: spatial.Padding = "SAME"
    W_std: float = 1.0
    b_std: float | None = None
    dilation: Sequence[int] | None = None

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        _positive(W_std=self.W_std, b_std=self.b_std)
        space = plan.nodes[node].sites
        ones = (1,) * len(space)
        stride, dilation = tuple(self.stride or ones), tuple(self.dilation or ones)
        _rank("Conv", space, self.size, stride, dilation)
        reach = [d * (k - 1) + 1 for k, d in zip(self.size, dilation, strict=True)]
        pads = spatial.paddings(self.padding, space, reach, stride)
        circular = self.padding == "CIRCULAR"
        sites, table = spatial.conv_table(
            space, self.size, stride, pads, dilation=dilation, circular=circular
        )
        bias = None if self.b_std is None else self.b_std**2
        return plan.affine(node, self.channels, self.W_std**2, bias, sites=sites, table=table)


def _rank(name: str, space: Sequence[int], *options: Sequence[int]) -> None:
    for option in options:
        if len(option) != len(space) or not space or min(option) < 1:
            raise InputError(
                f"{name}: {tuple(option)} does not fit spatial axes {tuple(space)}: "
                "one number >= 1 an axis"
            )


@dataclass(frozen=True)
class AvgPool(Layer):
    """Mean over windows; ``normalize_edges`` leaves the padding out of the mean."""

    size: Sequence[int] = (2, 2)
    stride: Sequence[int] | None = None
    padding: spatial.Padding = "VALID"
    normalize_edges: bool = False

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        space = plan.nodes[node].sites
        stride = tuple(self.stride or (1,) * len(space))
        _rank("AvgPool", space, self.size, stride)
        sites, matrix = spatial.pool_matrix(
            space,
            self.size,
            stride,
            spatial.paddings(self.padding, space, self.size, stride),
            count_padding=not self.normalize_edges,
            circular=self.padding == "CIRCULAR",
        )
        return plan.linear(node, sites, matrix)


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """Mean over all sites."""

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        return plan.global_average(node)


@dataclass(frozen=True)
class Flatten(Layer):
    """All sites into the channels; a dense layer behind it needs equal sites alone."""

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        return plan.flatten(node)


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalisation over the channels, and over spatial ``axes`` too where given.

    ``gain`` and ``shift``: whether a gain and a bias a channel, from 1 and 0, are trained.
    """

    axes: Sequence[int] = ()
    eps: float = 1e-12
    gain: bool = False
    shift: bool = False

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        rank = len(plan.nodes[node].sites)
        if any(not 0 <= a < rank for a in self.axes):
            raise InputError(f"LayerNorm: axes {tuple(self.axes)}: spatial axes 0 to {rank - 1}")
        return plan.norm(node, self.axes, self.eps, gain=self.gain, shift=self.shift)


@dataclass(frozen=True)
class Dropout(Layer):
    """Entries kept with probability ``keep``: the kernel of the network while it trains.

    Two samples have masks of their own, so that the variances alone grow: the diagonal of
    ``kernel(x)``, not the entries of ``kernel(x, x.copy())``.
    """

    keep: float = 0.5

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        return plan.dropout(node, self.keep)
