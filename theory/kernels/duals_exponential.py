r"""Functions whose dual is made of exponentials: waves, exp, bells, Gabor's wavelet.

References
----------
Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", NIPS 2007; Shankar et al.,
"Neural Kernels Without Tangents", arXiv 2003.02237 (the normalised exponential).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tangency.theory.kernels.duals_base import Array, DualFunction, Geometry, Parts, Sides

__all__ = ["Bell", "Exponential", "Gabor", "NormalisedExponential", "Wave"]


@dataclass(frozen=True)
class Wave(DualFunction):
    """Dual of ``a sin(b x + c)``; ``a = sqrt 2, c = pi/4`` gives the RBF kernel.

    ``k = a^2/2 [e^-y - cos(2c) e^-z]`` with ``y, z = b^2 E(u -+ v)^2 / 2``.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    @property
    def _twice(self) -> float:
        """``cos 2c``, exact where ``c`` is a multiple of pi/4 up to rounding."""
        quarter = self.c * 4.0 / math.pi
        if abs(quarter - round(quarter)) < 1e-14 * max(1.0, abs(quarter)):
            return (1.0, 0.0, -1.0, 0.0)[round(quarter) % 4]
        return math.cos(2.0 * self.c)

    def _variance(self, q: Array) -> Array:
        x = -2.0 * self.b**2 * q
        cos = self._twice
        return np.asarray(self.a**2 / 2.0 * ((1.0 - cos) - cos * np.expm1(x)))

    def _slope_variance(self, q: Array) -> Array:
        cos = self._twice
        return np.asarray(
            (self.a * self.b) ** 2 / 2.0 * ((1.0 + cos) + cos * np.expm1(-2.0 * self.b**2 * q))
        )

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        half, cos = self.a**2 / 2.0, self._twice
        y, z = self.b**2 * g.distance2 / 2.0, self.b**2 * g.sum2 / 2.0
        near, far = np.exp(-y), np.exp(-z)
        rise = 2.0 * self.b**2 * g.s  # z - y
        between = np.where(rise < 1.0, far * np.expm1(np.minimum(rise, 1.0)), near - far)
        if cos > 0.0:
            k = half * ((1.0 - cos) * near + cos * between)
            slope = half * self.b**2 * (near + cos * far)
        else:
            k = half * (near - cos * far)
            slope = half * self.b**2 * ((1.0 + cos) * near - cos * between)
        # E (phi(u) - phi(v))^2 / 2, and from it the share of different norms
        grow = 1.0 + cos * far if cos >= 0.0 else (1.0 + cos) + cos * np.expm1(-z)
        x1, x2 = self.b**2 * g.q1, self.b**2 * g.q2
        e1, e2 = np.exp(-x1), np.exp(-x2)
        unlike = np.sign(x2 - x1) * np.maximum(e1, e2) * -np.expm1(-np.abs(x1 - x2))
        spread = half * (-np.expm1(-y) * grow - 0.5 * cos * unlike**2)
        whole = np.sqrt(one.second) * np.sqrt(two.second)
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = half * cos * unlike * (e1 + e2) / (np.sqrt(one.second) + np.sqrt(two.second))
            delta = np.where(whole > 0.0, (spread - 0.5 * np.nan_to_num(gap) ** 2) / whole, 0.0)
        return Parts(k, slope, delta)


@dataclass(frozen=True)
class Exponential(DualFunction):
    """Dual of ``a exp(b x)``."""

    a: float = 1.0
    b: float = 1.0

    def _variance(self, q: Array) -> Array:
        return np.asarray(self.a**2 * np.exp(2.0 * self.b**2 * q))

    def _slope_variance(self, q: Array) -> Array:
        return self.b**2 * self._variance(q)

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        square = self.b**2
        k = self.a**2 * np.exp(square * (0.5 * (g.q1 + g.q2) + g.s))
        return Parts(k, square * k, -np.expm1(-0.5 * square * g.distance2))


@dataclass(frozen=True)
class Bell(DualFunction):
    """Dual of ``a exp(b x^2)``, ``b < 0``."""

    a: float = 1.0
    b: float = -1.0

    def _variance(self, q: Array) -> Array:
        return np.asarray(self.a**2 / np.sqrt(1.0 - 4.0 * self.b * q))

    def _slope_variance(self, q: Array) -> Array:
        return np.asarray((2.0 * self.a * self.b) ** 2 * q / (1.0 - 4.0 * self.b * q) ** 1.5)

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        x1, x2 = -2.0 * self.b * g.q1, -2.0 * self.b * g.q2
        turn = x1 * x2 * g.sin2
        det = 1.0 + x1 + x2 + turn
        k = self.a**2 / np.sqrt(det)
        slope = (2.0 * self.a * self.b) ** 2 * g.s / (det * np.sqrt(det))
        # det / sqrt((1 + 2 x1)(1 + 2 x2)) - 1, where (1 + x1 + x2)^2 exceeds the product of the
        # two by (x1 - x2)^2
        own = np.sqrt((1.0 + 2.0 * x1) * (1.0 + 2.0 * x2))
        excess = ((x1 - x2) ** 2 / (1.0 + x1 + x2 + own) + turn) / own
        return Parts(k, slope, -np.expm1(-0.5 * np.log1p(excess)))


@dataclass(frozen=True)
class Gabor(DualFunction):
    """Dual of ``exp(-x^2) sin x``."""

    def _variance(self, q: Array) -> Array:
        det = 1.0 + 4.0 * q
        return np.asarray(-np.expm1(-2.0 * q / det) / (2.0 * np.sqrt(det)))

    def _slope_variance(self, q: Array) -> Array:
        return _gabor_slope(q, 2.0 * q, q * q, np.zeros_like(q), np.zeros_like(q), 4.0 * q)

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        area = 4.0 * g.w**2 * g.sin2  # 4 (q1 q2 - s^2)
        total = g.q1 + g.q2
        det = 1.0 + 2.0 * total + area
        near, far = (g.distance2 + area) / (2.0 * det), (g.sum2 + area) / (2.0 * det)
        rise = 2.0 * g.s / det
        lift = np.exp(-far) * np.expm1(np.minimum(rise, 1.0))
        k = np.where(rise < 1.0, lift, np.exp(-near) - np.exp(-far))
        k = k / (2.0 * np.sqrt(det))
        slope = _gabor_slope(g.s, total, g.w**2, area, g.distance2, g.sum2)
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = 1.0 - k / (np.sqrt(one.second) * np.sqrt(two.second))
            # log of the ratio, as a sum of differences each in closed form
            norm = (1.0 + 4.0 * g.q1) * (1.0 + 4.0 * g.q2)
            level = 1.0 + 2.0 * total
            own = np.sqrt(norm)
            excess = (4.0 * (g.q1 - g.q2) ** 2 / (level + own) + area) / own
            logs = -near - 0.5 * np.log1p(excess)
            for q, step in ((g.q1, g.step), (g.q2, -g.step)):
                root, det1 = np.sqrt(q), 1.0 + 4.0 * q
                lift = -step - 2.0 * root * step**2 - root * area
                lift = root * lift - g.w * g.delta * det1  # s det1 - q det
                change = np.exp(-rise) * np.expm1(2.0 * lift / (det * det1))
                logs = logs + 0.5 * np.log1p(-change / np.expm1(-2.0 * q / det1))
            exact = -np.expm1(logs)
        delta = np.where((g.s > 0.0) & (delta < 0.5), exact, delta)
        return Parts(k, slope, np.nan_to_num(delta, nan=0.0))


def _gabor_slope(
    s: Array, total: Array, product: Array, area: Array, distance2: Array, sum2: Array
) -> Array:
    det = 1.0 + 2.0 * total + area
    shared = 1.0 + 2.0 * total + 4.0 * (s * s + product)
    twist = 4.0 * s * (area + 3.0 * total + 2.0)
    near = np.exp(-(distance2 + area) / (2.0 * det)) * (shared + twist)
    far = np.exp(-(sum2 + area) / (2.0 * det)) * (shared - twist)
    return np.asarray((near + far) / (2.0 * det**2.5))


@dataclass(frozen=True)
class NormalisedExponential(DualFunction):
    """``sqrt(q1 q2) exp(gamma (cos + shift))``: a kernel that keeps norms, of no one function."""

    gamma: float = 1.0
    shift: float = -1.0

    def _variance(self, q: Array) -> Array:
        return np.asarray(q * math.exp(self.gamma * (1.0 + self.shift)))

    def _slope_variance(self, q: Array) -> Array:
        return np.full_like(q, self.gamma * math.exp(self.gamma * (1.0 + self.shift)))

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        bell = math.exp(self.gamma * (1.0 + self.shift)) * np.exp(-self.gamma * g.delta)
        return Parts(g.w * bell, self.gamma * bell, -np.expm1(-self.gamma * g.delta))
