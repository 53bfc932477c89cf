"""Compiled steps of the fully connected recursion, on one tile of pairs at a time.

The state of a pair is ``delta = 1 - cos`` and ``tau = ntk / sqrt(q1 q2)``, so that a homogeneous
activation and a dense layer without bias need no variances at all. What depends on one sample
alone comes as a vector a side. Tiles are changed in place, row after row, so that a row of
``delta`` and ``tau`` stays in the first-level cache through all layers of a chain.

Numba is imported here: import this module where a kernel is computed, not before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.theory.kernels.fused_angle import angle_and_gap
from tangency.theory.kernels.fused_numba import compiled

__all__ = ["affine", "begin", "chain", "finish", "mix", "refine"]

Array = np.ndarray[Any, Any]


@compiled
def begin(products: Array, delta: Array, tau: Array, nothing: Any, near: float) -> int:
    """``delta = 1 - cos`` in [0, 2] from float64 products of unit vectors, and ``tau = 0``.

    Returns how many are below ``near``.
    """
    count = 0
    for i in range(products.shape[0]):
        row, d, t = products[i], delta[i], tau[i]
        for j in range(row.shape[0]):
            gap = 1.0 - row[j]
            gap = gap if gap > 0.0 else 0.0
            count += 1 if gap < near else 0
            d[j] = gap if gap < 2.0 else 2.0
            t[j] = nothing
    return count


@compiled
def refine(unit1: Array, unit2: Array, delta: Array, near: float) -> None:
    """Recompute ``delta`` below ``near`` as half the squared distance of the unit vectors."""
    for i in range(delta.shape[0]):
        d = delta[i]
        for j in range(d.shape[0]):
            if d[j] < near:
                total = 0.0
                for k in range(unit1.shape[1]):
                    step = unit1[i, k] - unit2[j, k]
                    total += step * step
                d[j] = 0.5 * total


@compiled
def chain(delta: Array, tau: Array, gains: Array, kinks: Array, one: Any) -> None:
    """Dense layers without bias and kinked linear activations, in turn.

    ``gains[l]`` is what training layer l adds in units of the covariance, and ``kinks[l]`` is
    ``(a - b)^2 / ((a^2 + b^2) pi)`` of the activation after it, 0 where there is none.
    """
    for i in range(delta.shape[0]):
        d, t = delta[i], tau[i]
        for layer in range(gains.shape[0]):
            gain, kink = gains[layer], kinks[layer]
            if kink == 0.0:
                for j in range(d.shape[0]):
                    t[j] = t[j] + gain * (one - d[j])
            else:
                for j in range(d.shape[0]):
                    theta, gap = angle_and_gap(d[j])
                    t[j] = (t[j] + gain * (one - d[j])) * (one - kink * theta)
                    d[j] = d[j] - kink * gap


@compiled
def affine(delta: Array, tau: Array, left: Array, right: Array, one: Any, half: Any) -> None:
    """A dense layer with a bias.

    The rows of ``left`` and ``right`` are, for each sample, the shares of the old standard
    deviation and of the bias in the new one (their squares sum to 1), and of what training adds.
    """
    a2, b2, g2, h2 = right[0], right[1], right[2], right[3]
    for i in range(delta.shape[0]):
        d, t = delta[i], tau[i]
        a1, b1, g1, h1 = left[0, i], left[1, i], left[2, i], left[3, i]
        for j in range(d.shape[0]):
            a, b = a1 - a2[j], b1 - b2[j]
            share = a1 * a2[j]
            t[j] = g1 * g2[j] * (one - d[j]) + h1 * h2[j] + share * t[j]
            d[j] = half * (a * a + b * b) + share * d[j]


@compiled
def mix(
    delta: Array, tau: Array, more: Array, rate: Array, left: Array, right: Array, half: Any
) -> None:
    """Add a branch ``(more, rate)`` to sums begun at zero; shares of standard deviations."""
    for i in range(delta.shape[0]):
        d, t, e, u = delta[i], tau[i], more[i], rate[i]
        for j in range(d.shape[0]):
            a = left[i] - right[j]
            share = left[i] * right[j]
            d[j] = d[j] + half * a * a + share * e[j]
            t[j] = t[j] + share * u[j]


@compiled
def finish(state: Array, left: Array, right: Array, out: Array, base: Any, sign: Any) -> None:
    """``out = sqrt(q1 q2) (base + sign state)``: base 1, sign -1 of delta is the NNGP."""
    for i in range(state.shape[0]):
        row, scale, target = state[i], left[i], out[i]
        for j in range(row.shape[0]):
            target[j] = scale * right[j] * (base + sign * row[j])
