"""The duals of ``kernels/duals.cuh`` in arrays: variances of samples, and the plain reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError
from tangency.gpu.plans import Activation, Series

__all__ = ["dual", "hermite_rows", "slope_variance", "variance"]

Array = Any  # of NumPy or of CuPy


def dual(layer: Activation, q1: Array, q2: Array, s: Array, xp: Any = np) -> tuple[Array, Array]:
    """``E phi(u) phi(v)`` and ``E phi'(u) phi'(v)`` of variances q1, q2 and covariance s."""
    p, w = layer.parameters, xp.sqrt(q1) * xp.sqrt(q2)
    if layer.family == "rectified":
        a, b, n = p
        c = xp.clip(xp.where(w > 0, s / xp.where(w > 0, w, 1), 1), -1, 1)
        return _rectified(a, b, n, w, c, xp)
    if layer.family == "erf":
        a, b, c = p
        x1, x2, t = 2 * b * b * q1, 2 * b * b * q2, 2 * b * b * s
        norm = (1 + x1) * (1 + x2)
        value = a * a * 2 / math.pi * xp.arcsin(t / xp.sqrt(norm)) + c * c
        return value, a * a * b * b * 4 / math.pi / xp.sqrt(norm - t * t)
    if layer.family == "gelu":
        norm = (1 + q1) * (1 + q2)
        root2 = norm - s * s
        root, angle = xp.sqrt(root2), xp.arctan2(s, xp.sqrt(root2))
        value = (s * angle + (s * s + q1 * q2 * root2) / (norm * root)) / (2 * math.pi)
        rest = 1 / root2 + (1 - q1 * q2) / norm + 1
        return 0.25 * s + value, 0.25 + (angle + s / root * rest) / (2 * math.pi)
    if layer.family == "sine":
        a, b, c = p
        near = xp.exp(-0.5 * b * b * (q1 + q2 - 2 * s))
        far = math.cos(2 * c) * xp.exp(-0.5 * b * b * (q1 + q2 + 2 * s))
        return 0.5 * a * a * (near - far), 0.5 * a * a * b * b * (near + far)
    if layer.family == "exp":
        a, b = p
        value = a * a * xp.exp(0.5 * b * b * (q1 + q2 + 2 * s))
        return value, b * b * value
    raise PlanError(f"the family {layer.family!r} has no dual here")


def _rectified(a: float, b: float, n: float, w: Array, c: Array, xp: Any) -> tuple[Array, Array]:
    theta, sine = xp.arccos(c), xp.sqrt((1 - c) * (1 + c))
    kept = math.pi - theta
    j = [kept, sine + kept * c, 3 * sine * c + kept * (1 + 2 * c * c)]
    whole = [math.pi + 0 * c, math.pi * c, math.pi * (1 + 2 * c * c)]

    def order(m: int) -> Array:
        even, odd = (a * a + b * b) * j[m], 2 * a * b * (whole[m] - j[m])
        return w**m * (even + odd) / (2 * math.pi)

    m = int(n)
    return order(m), (m * m * order(m - 1) if m else 0 * c)


def variance(layer: Activation, q: Array) -> tuple[Array, Array]:
    """The dual and its slope of a sample with itself."""
    return dual(layer, q, q, q)


def hermite_rows(layer: Series, q: Array) -> Array:
    """``E[phi(sqrt(q) z) h_l(z)]``, an array (terms, n), by quadrature or from the caller."""
    if layer.rows:
        rows = np.asarray(layer.function(q), dtype=np.float64)
        if rows.shape != (layer.terms, len(q)):
            raise PlanError(f"rows of shape {rows.shape}, expected {(layer.terms, len(q))}")
        return rows
    # The trapezoid rule on a wide grid: for smooth functions it converges faster than any power,
    # and kinks cost it 1e-5 and no more.
    z = np.linspace(-13.0, 13.0, 4001)
    weight = np.exp(-0.5 * z * z) * ((z[1] - z[0]) / math.sqrt(2 * math.pi))
    polynomials = np.empty((layer.terms, len(z)))
    below, here = np.zeros_like(z), np.ones_like(z)
    for order in range(layer.terms):
        polynomials[order] = here
        above = (z * here - math.sqrt(order) * below) / math.sqrt(order + 1.0)
        below, here = here, above
    values = np.empty((len(q), len(z)))
    for i, root in enumerate(np.sqrt(q)):
        values[i] = layer.function(root * z)
    return np.asarray((polynomials * weight) @ values.T)


def slope_variance(layer: Series, q: Array, rows: Array) -> Array:
    """``E phi'(sqrt(q) z)^2``: from the caller, or from the coefficients, ``sum l a_l^2 / q``."""
    if layer.slopes is not None:
        return np.asarray(layer.slopes(q), dtype=np.float64)
    orders = layer.orders[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(q > 0.0, (orders * rows**2).sum(axis=0) / q, 0.0)
