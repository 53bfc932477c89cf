"""Affine functions of the inputs around a node, and their way through nonlinear ops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Shape
from tangency.verify.rigorous.enclosure import UNDERFLOW, midpoint_radius, relative_error
from tangency.verify.rigorous.relaxations import Planes

__all__ = ["Lines", "Reach"]

Array = Any


@dataclass(frozen=True, eq=False)
class Lines:
    """Affine functions around a node.

    Attributes
    ----------
    low, high : (N, D, *shape) arrays
        Coefficients; the last of the D is the constant.
    error : (N, *shape) array
        What rounding may have cost on either side.
    """

    low: Array
    high: Array
    error: Array


@dataclass(frozen=True, eq=False)
class Reach:
    """How large inputs are, and what rounding costs because of that.

    Attributes
    ----------
    magnitude : (N, D) array
        Greatest ``|x|`` of each input entry, and 1 for the constant.
    """

    magnitude: Array

    @property
    def spill(self) -> Array:
        """What underflow may cost, ``(N,)``."""
        return UNDERFLOW * (1.0 + self.magnitude.sum(axis=1))

    def size(self, lines: Lines) -> Array:
        """Greatest size ``(N, *shape)`` of the sums of absolute terms of either function."""
        low = np.einsum("nd...,nd->n...", np.abs(lines.low), self.magnitude)
        high = np.einsum("nd...,nd->n...", np.abs(lines.high), self.magnitude)
        return np.maximum(low, high) * (1.0 + 2.0**-20)

    def through_planes(self, planes: Planes, given: list[Lines], shape: Shape) -> Lines:
        """The lines of an element-wise op, from its planes and the lines of its inputs."""
        rank = len(shape)
        samples, columns = self.magnitude.shape
        low: Array = 0.0
        high: Array = 0.0
        error: Array = self.spill.reshape((samples, *(1,) * rank))
        for x, a, b in zip(given, planes.below, planes.above, strict=True):
            lower, upper = (_lifted(v, rank, 2) for v in (x.low, x.high))
            low = low + np.maximum(a, 0.0) * lower + np.minimum(a, 0.0) * upper
            high = high + np.maximum(b, 0.0) * upper + np.minimum(b, 0.0) * lower
            steep = np.maximum(np.abs(a), np.abs(b))[:, 0]
            cost = _lifted(x.error + relative_error(4) * self.size(x), rank, 1)
            error = error + steep * cost
        full = (samples, columns, *shape)
        low, high = np.broadcast_to(low, full).copy(), np.broadcast_to(high, full).copy()
        low[:, -1] += planes.low[:, 0]
        high[:, -1] += planes.high[:, 0]
        error = error + 2.0**-50 * sum(
            np.abs(np.where(np.isfinite(v), v, 0.0))
            for v in (low[:, -1], high[:, -1], planes.low[:, 0], planes.high[:, 0])
        )
        return Lines(low, high, np.broadcast_to(error, (samples, *shape)))

    def through_product(self, boxes: list[Interval], given: list[Lines]) -> Lines:
        """The lines of a product of matrices, by the centres of the boxes of its factors."""
        rank = max(len(x.lower.shape) for x in boxes) - 1
        (c, rx), (d, ry) = (
            tuple(_lifted(v, rank, 1)[:, None] for v in midpoint_radius(x)) for x in boxes
        )
        x, y = ([_lifted(v, rank, 2) for v in (z.low, z.high)] for z in given)

        def positive(v: Array) -> Array:
            return np.maximum(v, 0.0)

        def negative(v: Array) -> Array:
            return np.minimum(v, 0.0)

        low = x[0] @ positive(d) + x[1] @ negative(d) + positive(c) @ y[0] + negative(c) @ y[1]
        high = x[1] @ positive(d) + x[0] @ negative(d) + positive(c) @ y[1] + negative(c) @ y[0]
        middle, spread = (c @ d)[:, 0], (rx @ ry)[:, 0]
        low[:, -1] += -middle - spread
        high[:, -1] += spread - middle
        g = relative_error(4 * c.shape[-1] + 8)
        cost = [_lifted(z.error + g * self.size(z), rank, 1) for z in given]
        error = cost[0] @ np.abs(d[:, 0]) + np.abs(c[:, 0]) @ cost[1]
        error = error + g * (np.abs(c[:, 0]) @ np.abs(d[:, 0]) + spread)
        error = error + 2.0**-50 * (np.abs(low[:, -1]) + np.abs(high[:, -1]))
        return Lines(low, high, error + self.spill.reshape((-1, *(1,) * rank)))


def _lifted(v: Array, rank: int, lead: int) -> Array:
    """Axes of size one behind the first ``lead`` ones, up to ``rank`` axes after them."""
    return v.reshape((*v.shape[:lead], *(1,) * (rank + lead - v.ndim), *v.shape[lead:]))
