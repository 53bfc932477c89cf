"""The attention layer, in the limit that :mod:`.attention` works out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.kernels.attention import MECHANISMS
from tangency.theory.kernels.layers import Layer
from tangency.theory.kernels.plan_builder import PlanBuilder

__all__ = ["Attention"]


@dataclass(frozen=True)
class Attention(Layer):
    """Multi-head self-attention in the linear-scaling limit, over all sites.

    Attributes
    ----------
    channels : int
    W_key_std, W_query_std, W_value_std, W_out_std : float
    b_std : float, optional
    mechanism : "softmax", "identity", "abs" or "relu"
        What makes weights of the scores.
    position : "none", "sum" or "concat"
        How positional embeddings enter.
    position_std : float
    position_decay : callable, optional
        Covariance of two embeddings as a function of the squared distance of their sites; by
        default embeddings are independent.
    position_channels : int, optional
        Width of the embeddings that are concatenated; by default that of the input.
    position_in_values : bool
        Whether values see the embeddings, as keys and queries do.
    """

    channels: int = 1
    W_key_std: float = 1.0
    W_query_std: float = 1.0
    W_value_std: float = 1.0
    W_out_std: float = 1.0
    b_std: float | None = None
    mechanism: str = "softmax"
    position: str = "none"
    position_std: float = 1.0
    position_decay: Callable[[Any], Any] | None = None
    position_channels: int | None = None
    position_in_values: bool = False

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        if self.mechanism not in MECHANISMS:
            raise InputError(f"mechanism {self.mechanism!r}: it is one of {sorted(MECHANISMS)}")
        if self.position not in ("none", "sum", "concat"):
            raise InputError(f"position {self.position!r}: it is 'none', 'sum' or 'concat'")
        before = plan.nodes[node]
        place, share = None, 1.0
        if self.position != "none":
            place = self.position_std**2 * self._covariance(before.sites)
        if place is not None and self.position == "concat":
            extra = self.position_channels or before.channels
            share = before.channels / (before.channels + extra)
            place = (1.0 - share) * place
        return plan.attention(
            node,
            self.channels,
            mechanism=self.mechanism,
            key_std=self.W_key_std * self.W_query_std,
            value=(self.W_value_std * self.W_out_std) ** 2,
            bias=0.0 if self.b_std is None else self.b_std**2,
            position=place,
            share=share,
            position_in_values=self.position_in_values,
        )

    def _covariance(self, space: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if self.position_decay is None:
            return np.eye(prod(space))
        where = np.stack(np.meshgrid(*(np.arange(n) for n in space), indexing="ij"), -1)
        where = where.reshape(-1, len(space)).astype(float)
        squared = ((where[:, None] - where[None, :]) ** 2).sum(axis=-1)
        return np.asarray(self.position_decay(squared), dtype=float)
