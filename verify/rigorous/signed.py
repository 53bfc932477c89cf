"""Affine ops split by the signs of their coefficients: what lines and boxes are carried by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tangency.models.ops import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Pad,
    Scale,
    Subtract,
    numpy_backend,
)
from tangency.verify.rigorous.transpose import Linear

__all__ = ["Signed"]

Array = Any


class Signed:
    """An affine op split by the signs of its coefficients, without its constant."""

    def __init__(self, op: Any, params: Mapping[str, Array], linear: Linear) -> None:
        self.op, self.params, self.backend = op, params, numpy_backend()
        self.weights: tuple[Array, Array] | None = None
        if isinstance(op, Dense | Conv | ConvTranspose):
            w = params["weight"]
            self.weights = np.maximum(w, 0.0), np.minimum(w, 0.0)
        elif isinstance(op, Scale):
            s = params["scale"]
            s = 1.0 / s if op.inverse else s
            self.op, self.weights = Scale(), (np.maximum(s, 0.0), np.minimum(s, 0.0))
        elif isinstance(op, BatchNorm):
            self.gain = linear.pulls[0]
        elif isinstance(op, Pad):
            self.op = replace(op, value=0.0)

    def _apply(self, k: int, x: Array) -> Array:
        assert self.weights is not None
        role = "scale" if isinstance(self.op, Scale) else "weight"
        return self.op.apply(self.backend, {role: self.weights[k]}, x)

    def both(self, lows: list[Array], highs: list[Array]) -> tuple[Array, Array]:
        """``W+ L + W- U`` and ``W+ U + W- L``."""
        if self.weights is not None:
            (low,), (high,) = lows, highs
            return (
                self._apply(0, low) + self._apply(1, high),
                self._apply(0, high) + self._apply(1, low),
            )
        if isinstance(self.op, BatchNorm):
            first, second = (self.gain(v[None])[0] for v in (lows[0], highs[0]))
            rising = self._rising(lows[0])
            return np.where(rising, first, second), np.where(rising, second, first)
        if isinstance(self.op, Subtract):
            return (
                self.op.apply(self.backend, {}, lows[0], highs[1]),
                self.op.apply(self.backend, {}, highs[0], lows[1]),
            )
        return (
            self.op.apply(self.backend, self.params, *lows),
            self.op.apply(self.backend, self.params, *highs),
        )

    def _rising(self, like: Array) -> Array:
        return self.gain(np.ones((1, 1, *like.shape[1:])))[0] >= 0

    def magnitude(self, sizes: list[Array]) -> Array:
        """``sum over k of |W_k| s_k`` for ``s_k >= 0``."""
        if self.weights is not None:
            return self._apply(0, sizes[0]) - self._apply(1, sizes[0])
        if isinstance(self.op, BatchNorm):
            return np.abs(self.gain(sizes[0][None])[0])
        if isinstance(self.op, Subtract):
            return self.op.apply(self.backend, {}, sizes[0], -sizes[1])
        return self.op.apply(self.backend, self.params, *sizes)
