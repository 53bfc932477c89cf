r"""Rectified powers: ReLU, leaky ReLU, |x|, sign, step, and arc-cosine kernels of any order.

``phi(x) = a min(x, 0)^n + b max(x, 0)^n`` has, with ``w = sqrt(q1 q2)`` and ``c = cos theta``,

.. math:: k = w^n [(a^2 + b^2) J_n(\theta) + 2ab\, G_n(\theta)] / 2 pi,

where ``J_n`` is the arc-cosine function and ``G_n = pi P_n(c) - J_n``, of order
``theta^(2n+1)``, has a Taylor series of its own near 0. With ``P_n(c) = E[u^n v^n]`` at unit
variances,

.. math:: delta' = [P_n(1) - P_n(c)] / P_n(1) + (a-b)^2 G_n / ((a^2 + b^2) pi P_n(1)).

References
----------
Cho and Saul, "Kernel Methods for Deep Learning", NIPS 2009; Tsuchida et al., arXiv 1711.09090.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tangency.theory.kernels.duals_base import Array, DualFunction, Geometry, Parts, Sides

__all__ = ["Rectified"]

_NEAR = 1.0  # the angle below which G_n comes from its series
_TERMS = 12


@dataclass(frozen=True)
class Rectified(DualFunction):
    """Dual of ``a min(x, 0)^n + b max(x, 0)^n``."""

    n: int
    a: float
    b: float

    def _variance(self, q: Array) -> Array:
        top = float(math.prod(range(1, 2 * self.n, 2)))
        if self.n == 0:  # at q = 0 the sign and the step are 0
            return np.where(q > 0.0, (self.a**2 + self.b**2) / 2.0, 0.0)
        return np.asarray((self.a**2 + self.b**2) / 2.0 * top * q**self.n)

    def _slope_variance(self, q: Array) -> Array:
        if self.n == 0:
            return np.zeros_like(q)
        top = float(math.prod(range(1, 2 * self.n - 2, 2)))
        return np.asarray(self.n**2 * (self.a**2 + self.b**2) / 2.0 * top * q ** (self.n - 1))

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        squares, product = self.a**2 + self.b**2, self.a * self.b
        n, theta = self.n, g.theta

        def dual(order: int) -> tuple[Array, Array]:
            j, small = _arc_cosine(order, g, theta)
            factor = g.w**order if order else 1.0
            return factor / (2.0 * math.pi) * (squares * j + 2.0 * product * small), small

        k, small = dual(n)
        if n == 0:
            k = np.where(g.w > 0.0, k, 0.0)
        slope = n**2 * dual(n - 1)[0] if n else np.zeros_like(k)
        if squares == 0.0:
            return Parts(k, slope, np.zeros_like(k))
        top = float(math.prod(range(1, 2 * n, 2)))
        angle = (self.a - self.b) ** 2 / (squares * math.pi * top)
        quotient = _polynomial(_drop(n), g.cos)
        return Parts(k, slope, g.delta * quotient / top + angle * small)


def _arc_cosine(n: int, g: Geometry, theta: Array) -> tuple[Array, Array]:
    """``(J_n, G_n)`` at angles, each accurate where it is small."""
    p = _polynomial(_power_dual(n), g.cos)
    whole = math.pi * p
    if n == 0:
        return math.pi - theta, theta
    small = theta * p - _polynomial(_sine_factor(n), g.cos) * np.sqrt(g.sin2)
    j = np.asarray(whole - small)
    near = theta < _NEAR
    if near.any():
        small[near] = _series(n, theta[near])
        j[near] = whole[near] - small[near]
    far = theta > math.pi - _NEAR
    if far.any():
        j[far] = (-1) ** n * _series(n, math.pi - theta[far])
        small[far] = whole[far] - j[far]
    return j, small


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Horner's rule, lowest coefficient first."""
    total = np.full_like(x, coefficients[-1] if coefficients else 0.0)
    for c in coefficients[-2::-1]:
        total *= x
        if c:
            total += c
    return total


def _series(n: int, theta: Array) -> Array:
    return _polynomial(_small(n), theta**2) * theta ** (2 * n + 1)


@functools.cache
def _power_dual(n: int) -> tuple[float, ...]:
    """Coefficients of ``P_n(c) = E[u^n v^n]``."""
    c = [0.0] * (n + 1)
    for m in range(n // 2 + 1):
        power = n - 2 * m
        root = math.factorial(n) // (2**m * math.factorial(m) * math.factorial(power))
        c[power] = float(root**2 * math.factorial(power))
    return tuple(c)


@functools.cache
def _drop(n: int) -> tuple[float, ...]:
    """Coefficients of ``[P_n(1) - P_n(c)] / (1 - c)``: all of one sign."""
    p = _power_dual(n)
    return tuple(sum(p[j + 1 :]) for j in range(n)) or (0.0,)


@functools.cache
def _sine_factor(n: int) -> tuple[float, ...]:
    """Coefficients of ``Q_n`` in ``J_n = (pi - theta) P_n(c) + sin(theta) Q_n(c)``.

    From ``dJ_n/dc = n^2 J_{n-1}``: ``P_n + Q_n' (1 - c^2) - c Q_n = n^2 Q_{n-1} (1 - c^2)``.
    """
    if n == 0:
        return (0.0,)
    known = [-p for p in _power_dual(n)] + [0.0, 0.0]
    for i, below in enumerate(_sine_factor(n - 1)):
        known[i] += n**2 * below
        known[i + 2] -= n**2 * below
    q = [0.0] * (n + 3)
    for j in range(n, 0, -1):
        q[j - 1] = ((j + 1) * q[j + 1] - known[j]) / j
    return tuple(q[:n])


@functools.cache
def _exact_small(n: int) -> tuple[Fraction, ...]:
    """Taylor coefficients of ``G_n / theta^(2n+1)`` in ``theta^2``.

    ``G_0 = theta`` and ``dG_n/dtheta = -n^2 sin(theta) G_{n-1}``.
    """
    if n == 0:
        return (Fraction(1), *(Fraction(0) for _ in range(_TERMS - 1)))
    below = _exact_small(n - 1)
    sine = [Fraction((-1) ** j, math.factorial(2 * j + 1)) for j in range(_TERMS)]
    product = [
        sum((below[i] * sine[j - i] for i in range(j + 1)), Fraction(0)) for j in range(_TERMS)
    ]
    # theta^(2n-1) theta theta^(2j) integrates to theta^(2n+1+2j) / (2n+1+2j)
    return tuple(-(n**2) * c / (2 * n + 1 + 2 * j) for j, c in enumerate(product))


@functools.cache
def _small(n: int) -> tuple[float, ...]:
    return tuple(float(c) for c in _exact_small(n))
