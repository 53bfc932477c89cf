"""The kernels written plainly, pass after pass over whole arrays: what the fused ones must equal.

Textbook formulas in covariances, with no polynomial, no shares and no packing. One body serves
NumPy and CuPy; with CuPy it is what the fused kernels are timed against.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError
from tangency.gpu.families import dual, hermite_rows
from tangency.gpu.images_plan import ImageLayer
from tangency.gpu.plans import Activation, Dense, Layer, Norm, Scale, Series, Sum, checked

__all__ = ["dense_reference", "images_reference"]

Array = Any  # of NumPy or of CuPy


def dense_reference(plan: tuple[Layer, ...], x1: Array, x2: Array, xp: Any = np) -> tuple[Any, Any]:
    """NNGP and NTK of a dense plan, two (n1, n2) arrays, of samples (n1, d) and (n2, d)."""
    d = x1.shape[1]
    state = (
        (x1 * x1).sum(1)[:, None] / d,
        (x2 * x2).sum(1)[None, :] / d,
        (x1 @ x2.T) / d,
        xp.zeros((len(x1), len(x2)), x1.dtype),
    )
    states = {-1: state}
    for i, layer in enumerate(checked(plan)):
        states[i] = _dense_step(layer, states, xp)
    return states[len(plan) - 1][2], states[len(plan) - 1][3]


def _dense_step(layer: Layer, states: dict[int, Any], xp: Any) -> Any:
    if isinstance(layer, Sum):
        parts = [(w, states[k]) for w, k in zip(layer.weights, layer.sources, strict=True)]
        return tuple(sum(w * state[n] for w, state in parts) for n in range(4))
    q1, q2, s, t = states[layer.source]
    if isinstance(layer, Dense):
        w, b = layer.weight, layer.bias
        rate = layer.weight_gain * s + layer.bias_gain + w * t
        return w * q1 + b, w * q2 + b, w * s + b, rate
    if isinstance(layer, Activation):
        k, slope = dual(layer, q1, q2, s, xp)
        return dual(layer, q1, q1, q1, xp)[0], dual(layer, q2, q2, q2, xp)[0], k, t * slope
    if isinstance(layer, Series):
        return _series(layer, q1, q2, s, t, xp)
    if isinstance(layer, Norm):
        left, right = 1 / xp.sqrt(q1 + layer.eps), 1 / xp.sqrt(q2 + layer.eps)
        return q1 * left**2, q2 * right**2, s * left * right, t * left * right
    assert isinstance(layer, Scale)
    return tuple(layer.square * part for part in (q1, q2, s, t))


def _series(layer: Series, q1: Array, q2: Array, s: Array, t: Array, xp: Any) -> Any:
    def rows(q: Array) -> Array:
        host = q.ravel() if xp is np else xp.asnumpy(q.ravel())
        return xp.asarray(hermite_rows(layer, host))

    one, two, w = rows(q1), rows(q2), xp.sqrt(q1 * q2)
    c = xp.where(w > 0, s / xp.where(w > 0, w, 1), 0)
    k, slope, power = xp.zeros_like(s), xp.zeros_like(s), xp.ones_like(s)
    near = layer.terms - len(layer.far)
    for order in range(near):
        k = k + one[order][:, None] * two[order] * power
        if order + 1 < near:
            slope = slope + (order + 1) * one[order + 1][:, None] * two[order + 1] * power
            power = power * c
    for place, order in enumerate(layer.far, near):
        sign, p = xp.where(c < 0, layer.parity, 1), one[place][:, None] * two[place]
        k = k + sign * p * abs(c) ** order
        slope = slope + xp.where(c < 0, -layer.parity, 1) * p * order * abs(c) ** (order - 1)
    slope = xp.where(w > 0, slope / xp.where(w > 0, w, 1), 0)
    return (one**2).sum(0)[:, None], (two**2).sum(0)[None, :], k, t * slope


def images_reference(
    layers: tuple[ImageLayer, ...], x1: Array, x2: Array, xp: Any = np
) -> tuple[Array, Array]:
    """Covariance and tangent kernel of all pairs of sites of two images after the last layer.

    Parameters
    ----------
    layers : tuple of ImageLayer
    x1, x2 : (channels, H, W) arrays

    Returns
    -------
    (H, W, H, W) arrays
    """
    if x1.shape != x2.shape or x1.ndim != 3:
        raise PlanError(f"images are (channels, H, W) arrays, got {x1.shape} and {x2.shape}")
    c = x1.shape[0]
    s = xp.einsum("cij,ckl->ijkl", x1, x2) / c
    q1, q2 = (x1 * x1).sum(0) / c, (x2 * x2).sum(0) / c
    t = xp.zeros_like(s)
    for layer in layers:
        w, g = layer.weight / 9, layer.weight_gain / 9
        t = _box(w * t + g * s, xp) + layer.bias_gain
        s, q1, q2 = (_box(w * a, xp) + layer.bias for a in (s, q1, q2))
        if layer.half == 0.0:
            continue
        roots = xp.sqrt(q1)[:, :, None, None] * xp.sqrt(q2)
        safe = xp.where(roots > 0, roots, 1)
        theta = xp.arccos(xp.clip(xp.where(roots > 0, s / safe, 1), -1, 1))
        bend = layer.kink * math.pi
        s = layer.half * (s + bend / math.pi * roots * (xp.sin(theta) - theta * xp.cos(theta)))
        t = layer.half * t * (1 - bend * theta / math.pi)
        q1, q2 = layer.half * q1, layer.half * q2
    return s, t


def _box(a: Array, xp: Any) -> Array:
    """Sums over the 3 x 3 neighbours (p + s, q + s) of pairs (or sites), zeros outside."""
    pairs = a.ndim == 4
    h, w = a.shape[:2]
    padded = xp.pad(a, 1)
    total = xp.zeros_like(a)
    for i in range(3):
        for j in range(3):
            here = (slice(i, i + h), slice(j, j + w))
            total = total + padded[here + here if pairs else here]
    return total
