"""What a dense recursion needs of each sample alone: variances, shares, coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError
from tangency.gpu.families import hermite_rows, slope_variance, variance
from tangency.gpu.plans import Activation, Dense, Layer, Norm, Scale, Series, Sum

__all__ = ["Rows", "Slots", "prepare", "slots_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Slots:
    """Where the numbers of each layer begin among the shares and the float64 numbers."""

    shares: tuple[int, ...]
    wide: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """One batch, ready for tiles.

    Attributes
    ----------
    unit : (n, d) array
        The samples over their norms, float64.
    shares : (slots, n) array
        In the type of the recursion.
    wide : (slots, n) float64 array
    ends, tangents : (n,) arrays
        Standard deviations at the output, and the NTK of each sample with itself.
    """

    unit: Array
    shares: Array
    wide: Array
    ends: Array
    tangents: Array


def biased(layer: Dense) -> bool:
    """Whether a dense layer mixes what comes in with a constant."""
    return layer.bias != 0.0 or layer.bias_gain != 0.0 or layer.weight == 0.0


def widths(layer: Layer) -> tuple[int, int]:
    """How many shares and float64 numbers of each sample a layer reads."""
    if isinstance(layer, Dense):
        return (4 if biased(layer) else 0), 0
    if isinstance(layer, Activation):
        return 0, (2 if layer.kink is None else 0)
    if isinstance(layer, Series):
        return 0, layer.terms
    return (len(layer.sources) if isinstance(layer, Sum) else 0), 0


def slots_of(plan: tuple[Layer, ...]) -> Slots:
    """The first slot of each layer, and the totals behind the last."""
    sums = np.cumsum([(0, 0), *(widths(layer) for layer in plan)], axis=0)
    return Slots(tuple(map(int, sums[:, 0])), tuple(map(int, sums[:, 1])))


def prepare(plan: tuple[Layer, ...], x: Any, dtype: Any = np.float32) -> Rows:
    """Walk the plan with each sample beside itself.

    Parameters
    ----------
    plan : tuple of layers
    x : (n, d) array
    dtype : float32 or float64
        Of the shares.

    Raises
    ------
    PlanError
        If x is no finite matrix.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise PlanError(f"samples are a finite (n, d) array, got shape {x.shape}")
    norm = np.sqrt(np.einsum("ij,ij->i", x, x))
    unit = x / np.where(norm > 0.0, norm, 1.0)[:, None]
    shares: list[Array] = []
    wide: list[Array] = []
    states = {-1: (norm / math.sqrt(x.shape[1]), np.zeros(len(x)))}
    for i, layer in enumerate(plan):
        states[i] = _step(layer, states, shares, wide)
    ends, tangents = states[len(plan) - 1]
    empty = np.zeros((0, len(x)))
    return Rows(
        unit,
        np.ascontiguousarray(np.concatenate([empty, *shares]), dtype=dtype),
        np.ascontiguousarray(np.concatenate([empty, *wide])),
        ends,
        tangents,
    )


def _step(
    layer: Layer, states: dict[int, tuple[Array, Array]], shares: list[Array], wide: list[Array]
) -> tuple[Array, Array]:
    if isinstance(layer, Sum):
        parts = [
            math.sqrt(w) * states[k][0] for w, k in zip(layer.weights, layer.sources, strict=True)
        ]
        root = np.sqrt(sum(p**2 for p in parts))
        shares.append(_over(parts, root))
        terms = zip(layer.weights, layer.sources, strict=True)
        return root, np.asarray(sum(w * states[k][1] for w, k in terms))
    before, ntk = states[layer.source]
    q = before**2
    if isinstance(layer, Dense):
        root = np.sqrt(layer.weight * q + layer.bias)
        if biased(layer):
            one = np.ones_like(root)
            pairs = ((layer.weight, before), (layer.bias, one))
            gains = ((layer.weight_gain, before), (layer.bias_gain, one))
            shares.append(_over([math.sqrt(v) * part for v, part in pairs + gains], root))
        return root, layer.weight_gain * q + layer.bias_gain + layer.weight * ntk
    if isinstance(layer, Activation):
        second, slope = variance(layer, q)
        root = np.sqrt(second)
        if layer.kink is None:
            wide.append(np.stack([q, _over([np.ones_like(root)], root)[0]]))
        return root, ntk * slope
    if isinstance(layer, Series):
        rows = hermite_rows(layer, q)
        root = np.sqrt((rows**2).sum(axis=0))
        wide.append(_over(list(rows), root))
        return root, ntk * slope_variance(layer, q, rows)
    if isinstance(layer, Norm):
        factor = _over([np.ones_like(q)], q + layer.eps)[0]
        return before * np.sqrt(factor), ntk * factor
    assert isinstance(layer, Scale)
    return before * math.sqrt(layer.square), ntk * layer.square


def _over(parts: list[Array], root: Array) -> Array:
    """Shares of a standard deviation; none where there is no variance."""
    safe = np.where(root > 0.0, root, 1.0)
    return np.stack([np.where(root > 0.0, p / safe, 0.0) for p in parts])
