"""Layers of convolutional kernels, and the tables that each image brings to a pair.

A layer is a 3 x 3 convolution of stride 1 with zero padding and a piecewise linear activation
behind it. The kernel carries S and T times the share that the next convolution takes of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["ImageLayer", "constants", "root_tables"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ImageLayer:
    """A 3 x 3 convolution and ``a min(x, 0) + b max(x, 0)`` behind it.

    Attributes
    ----------
    weight, bias, weight_gain, bias_gain : float
        As of :class:`tangency.gpu.plans.Dense`; ``weight`` is divided by the 9 sites.
    negative, positive : float
        The slopes a and b: 0 and 1 are a ReLU; 1 and 1, no activation.
    """

    weight: float = 2.0
    bias: float = 0.0
    weight_gain: float = 2.0
    bias_gain: float = 0.0
    negative: float = 0.0
    positive: float = 1.0

    @property
    def half(self) -> float:
        """``(a^2 + b^2) / 2``, the factor of a variance."""
        return (self.negative**2 + self.positive**2) / 2

    @property
    def kink(self) -> float:
        """``(a - b)^2 / ((a^2 + b^2) pi)``."""
        return (self.negative - self.positive) ** 2 / (2 * self.half * math.pi)


def constants(layers: tuple[ImageLayer, ...], dtype: Any) -> tuple[float, Array]:
    """The share of the first convolution, and (layers, 5) constants of the kernel.

    Raises
    ------
    PlanError
        If there are no layers, or one has no weight or slope.
    """
    if not layers:
        raise PlanError("the plan has no convolution: give a tuple of ImageLayer")
    for i, layer in enumerate(layers):
        if not (layer.weight > 0.0 and layer.half > 0.0 and layer.bias >= 0.0):
            raise PlanError(
                f"layer {i}: weight and slopes are positive, the bias variance not negative"
            )
    after = [*(layer.weight / 9 for layer in layers[1:]), 1.0]
    rows = [
        (
            layer.half * share,
            layer.half * share * layer.kink,
            layer.weight_gain / layer.weight,
            layer.bias,
            layer.bias_gain,
        )
        for layer, share in zip(layers, after, strict=True)
    ]
    return layers[0].weight / 9, np.array(rows, dtype=dtype)


def root_tables(layers: tuple[ImageLayer, ...], images: Any, dtype: Any) -> Array:
    """Standard deviations before each activation and their inverses, ``(n, layers, H, W, 2)``."""
    images = np.asarray(images, dtype=np.float64)
    q = (images**2).mean(axis=1)
    out = np.empty((len(images), len(layers), *q.shape[1:], 2), dtype)
    for k, layer in enumerate(layers):
        padded = np.pad(q, ((0, 0), (1, 1), (1, 1)))
        rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        q = layer.weight / 9 * (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) + layer.bias
        root = np.sqrt(q)
        out[:, k, :, :, 0] = root
        out[:, k, :, :, 1] = np.where(root > 0.0, 1.0 / np.where(root > 0.0, root, 1.0), 0.0)
        q = layer.half * q
    return out
