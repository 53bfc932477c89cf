r"""Functions made of the Gaussian distribution function: erf, probit, GELU.

The normalised value of a pair is split into ``1 - delta' = (1 - R)(1 - A / k(1))``: the radial
part ``R(q1, q2)`` is that of parallel inputs and of second order in ``q1 - q2``, and
``A = k(1) - k(cos)`` is of first order in delta. Both come from differences in closed form.

References
----------
Williams, "Computing with Infinite Networks", NIPS 1996; Tsuchida et al., "Avoiding Kernel Fixed
Points: Computing with ELU and GELU Infinite Networks", arXiv 2002.08517.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tangency.theory.kernels.duals_base import Array, DualFunction, Geometry, Parts, Sides

__all__ = ["Erf", "Gelu"]


@dataclass(frozen=True)
class Erf(DualFunction):
    """Dual of ``a erf(b x) + c``: ``a^2 (2/pi) arcsin rho + c^2``."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def _variance(self, q: Array) -> Array:
        return self._centred(q) + self.c**2

    def _centred(self, q: Array) -> Array:
        x = 2.0 * self.b**2 * q
        # arcsin(x / (1 + x)), whose cosine is sqrt(1 + 2x) / (1 + x)
        return np.asarray(self.a**2 * 2.0 / math.pi * np.arctan2(x, np.sqrt(1.0 + 2.0 * x)))

    def _slope_variance(self, q: Array) -> Array:
        x = 2.0 * self.b**2 * q
        return np.asarray((self.a * self.b) ** 2 * 4.0 / math.pi / np.sqrt(1.0 + 2.0 * x))

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        x1, x2 = 2.0 * self.b**2 * g.q1, 2.0 * self.b**2 * g.q2
        norm = (1.0 + x1) * (1.0 + x2)
        cross2 = (x1 * x2) * g.sin2
        root = np.sqrt(1.0 + x1 + x2 + cross2)  # sqrt(norm) cos(arcsin rho)
        t = 2.0 * self.b**2 * g.s
        angle = np.arctan2(t, root)
        slope = (self.a * self.b) ** 2 * 4.0 / math.pi / root
        # At cos = 1, then the drop from there: sin(x - y) = sin x cos y - cos x sin y, squared out.
        t1, root1 = 2.0 * self.b**2 * g.w, np.sqrt(1.0 + x1 + x2)
        top = np.arctan2(t1, root1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # t1^2 root^2 - t^2 root1^2 = norm (t1^2 - t^2)
            sine = np.where(
                t >= 0.0,
                cross2 / (t1 * root + t * root1),
                (t1 * root - t * root1) / norm,
            )
            drop = np.arctan2(sine, (root1 * root + t1 * t) / norm) / top
        delta = np.where(top > 0.0, drop, g.delta)
        if not g.equal:
            radial = _radial(
                _arcs(x1, x1, x2, top, t1, root1), _arcs(x2, x2, x1, top, t1, root1), top
            )
            delta = delta + radial - delta * radial
        k = self.a**2 * 2.0 / math.pi * angle
        if self.c == 0.0:
            return Parts(k, slope, delta)
        # A constant c adds c^2 to all three: what changes is an exact fraction of the rest.
        k1, k2, square = self._centred(g.q1), self._centred(g.q2), self.c**2
        mean, whole = np.sqrt(k1 * k2), np.sqrt(one.second * two.second)
        gap = (np.sqrt(k1) - np.sqrt(k2)) ** 2 * square / (whole + mean + square)
        return Parts(k + square, slope, (gap + mean * delta) / whole)


def _arcs(x: Array, mine: Array, other: Array, top: Array, t1: Array, root1: Array) -> Array:
    """``arcsin rho_ii - arcsin rho_12`` at cos = 1, without cancellation."""
    root = np.sqrt(1.0 + 2.0 * x)
    # sin of the difference is (x root1 - t1 root) / ((1 + x) sqrt(norm)), and
    # mine^2 root1^2 - t1^2 root^2 = mine (mine - other)(1 + mine)
    above = mine * (mine - other) * (1.0 + mine)
    with np.errstate(divide="ignore", invalid="ignore"):
        sine = above / (x * root1 + t1 * root)
    return np.arctan2(np.nan_to_num(sine, nan=0.0), root * root1 + x * t1)


def _radial(up: Array, down: Array, middle: Array) -> Array:
    """``1 - f12 / sqrt(f11 f22)`` from ``f11 - f12``, ``f22 - f12`` and ``f12``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log1p(up / middle) + np.log1p(down / middle)
    excess = np.nan_to_num(-np.expm1(-0.5 * logs), nan=0.0, posinf=0.0)
    return np.asarray(np.maximum(excess, 0.0))


@dataclass(frozen=True)
class Gelu(DualFunction):
    """Dual of ``x Phi(x)``."""

    def _variance(self, q: Array) -> Array:
        root = np.sqrt(1.0 + 2.0 * q)
        inner = q / ((1.0 + q) * root) + 0.5 * np.arctan2(q, root)
        return np.asarray(q * (0.25 + inner / math.pi))

    def _slope_variance(self, q: Array) -> Array:
        return _gelu_slope(q, (1.0 + q) ** 2, q * q, np.sqrt(1.0 + 2.0 * q), q)

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        q1, q2, s, w = g.q1, g.q2, g.s, g.w
        product = q1 * q2
        norm = (1.0 + q1) * (1.0 + q2)
        root1 = np.sqrt(1.0 + q1 + q2)
        root = np.sqrt(1.0 + q1 + q2 + product * g.sin2)
        angle, angle1 = np.arctan2(s, root), np.arctan2(w, root1)
        k = 0.25 * s + (s * angle + (s * s + product * root * root) / (norm * root)) / (
            2.0 * math.pi
        )
        slope = _gelu_slope(s, norm, product, root, angle, is_angle=True)
        # The drop k(1) - k, term by term; no term is a difference of near numbers.
        fall = w * g.delta
        wide = fall * (w + s) / (root + root1)  # root - root1
        turn = np.arctan2(
            np.where(s >= 0.0, fall * (w + s) / (w * root + s * root1 + 1e-300) * norm, 0.0)
            + np.where(s >= 0.0, 0.0, w * root - s * root1),
            root * root1 + w * s,
        )
        terms = angle1 * fall + s * turn + wide / (root * root1) + wide / norm
        drop = 0.25 * fall + (terms - product * wide / norm) / (2.0 * math.pi)
        first = 0.25 + (angle1 + w * (2.0 + q1 + q2) / (norm * root1)) / (2.0 * math.pi)
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = np.where(w > 0.0, drop / (w * first), 0.0)
        if not g.equal:
            up = _gelu_up(q1, q2, w, root1, norm)
            down = _gelu_up(q2, q1, w, root1, norm)
            radial = _radial(up, down, first)
            delta = delta + radial - delta * radial
        return Parts(k, slope, delta)


def _gelu_slope(
    s: Array, norm: Array, product: Array, root: Array, angle: Array, *, is_angle: bool = False
) -> Array:
    turn = angle if is_angle else np.arctan2(s, root)
    rest = 1.0 / (root * root) + (1.0 - product) / norm + 1.0
    return np.asarray(0.25 + (turn + s / root * rest) / (2.0 * math.pi))


def _gelu_up(mine: Array, other: Array, w: Array, root1: Array, norm: Array) -> Array:
    """``F(mine, mine) - F(mine, other)`` of ``F = k / sqrt(q1 q2)`` at cos = 1."""
    root = np.sqrt(1.0 + 2.0 * mine)
    gap = mine - other
    with np.errstate(divide="ignore", invalid="ignore"):
        # mine^2 root1^2 - w^2 root^2 = mine (mine - other)(1 + mine)
        sine = mine * gap * (1.0 + mine) / (mine * root1 + w * root)
        turn = np.arctan2(np.nan_to_num(sine, nan=0.0), root * root1 + mine * w)
        # The other term, w (2 + q1 + q2) / (norm root1), through the logarithm of a ratio.
        logs = 0.5 * np.log1p(gap / other) + np.log1p(-gap / (2.0 + mine + other))
        logs = logs + 0.5 * np.log1p(-gap / (1.0 + 2.0 * mine))
        term = w * (2.0 + mine + other) / (norm * root1)
        change = np.nan_to_num(term * np.expm1(logs), nan=0.0, posinf=0.0)
    return np.asarray((turn + change) / (2.0 * math.pi))
