r"""Kinks away from 0, and jumps: sums of shifted ReLUs and steps, and their dual in closed form.

With ``a, b`` the kinks in units of the standard deviations, ``P(c) = P(u > a, v > b)`` comes from
Owen's T function, and ``B(c) = E[max(u - a, 0) max(v - b, 0)]`` has ``dB/dc = P``. Near ``c = 1``

.. math:: B(1) - B(\cos\theta) = \delta\, \Phi(-\max(a, b))
          - \frac{1}{2\pi} \int_0^\theta g(t) (\cos t - \cos\theta)\, dt,

where, in ``y = tan(t / 2)``, ``g`` is ``exp(-(a - b)^2 / 8y^2)`` times a power series in ``y^2``.

References
----------
Owen, "Tables for Computing Bivariate Normal Probabilities", Ann. Math. Statist. 27, 1956.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tangency.models.activations import Activation
from tangency.theory.kernels.duals_base import Array, Geometry, Sides
from tangency.theory.kernels.duals_kinks import KinkPair, Kinks, kink_at_zero

__all__ = ["Bends", "singular_part"]

_NEAR = 0.15  # tan(theta / 2) below which the series is used
_TERMS = 12
_MOST = 4  # kinks; the cost grows with their square


def singular_part(record: Activation, breaks: tuple[float, ...]) -> Kinks | Bends:
    """What is taken out of a record: its kink at 0, or its kinks wherever they are."""
    if record.staircase:
        return Kinks()
    kinks: dict[float, tuple[float, float]] = {}
    for t in breaks:
        eps = 1e-12 * max(1.0, abs(t))
        slopes = float(record.slope(t + eps)), float(record.slope(t - eps))
        jump = float(record(t + eps) - record(t - eps)) - eps * sum(slopes)
        bend = slopes[0] - slopes[1]
        jump, bend = (x if 1e-6 < abs(x) < math.inf else 0.0 for x in (jump, bend))
        if jump or bend:
            kinks[t] = (jump, bend)
    shifted = any(t != 0.0 or jump for t, (jump, _) in kinks.items())
    if shifted and len(kinks) <= _MOST:
        jumps, bends = (tuple(k[i] for k in kinks.values()) for i in (0, 1))
        return Bends(tuple(kinks), bends, jumps)
    return Kinks() if record.jumps else kink_at_zero(record)


@dataclass(frozen=True)
class Bends:
    """Ramps ``bends[j] max(x - points[j], 0)`` and steps ``jumps[j] 1[x > points[j]]``.

    Those at negative points face left, ``bends[j] max(points[j] - x, 0) - jumps[j] 1[x < ...]``,
    which differs by a straight line: small variances then meet nothing large that cancels.
    """

    points: tuple[float, ...]
    bends: tuple[float, ...]
    jumps: tuple[float, ...]

    def value(self, x: Array) -> Array:
        """``N(x)``."""
        total = np.zeros_like(x)
        for t, bend, jump in zip(self.points, self.bends, self.jumps, strict=True):
            sign = _facing(t)
            beyond = sign * (x - t)
            total += bend * np.maximum(beyond, 0.0) + sign * jump * (beyond > 0.0)
        return total

    def slope(self, x: Array) -> Array:
        """``N'(x)``, without the jumps."""
        total = np.zeros_like(x)
        for t, bend in zip(self.points, self.bends, strict=True):
            total += _facing(t) * bend * (_facing(t) * (x - t) > 0.0)
        return total

    def second(self, q: Array) -> Array:
        """``E N^2``."""
        return self._parallel(q, q)

    def _pieces(self, q: Array) -> list[tuple[float, Array, Array, float]]:
        """Per kink: its side, its place, and the bend and jump in front of unit Gaussians."""
        # A variance of 0 is no matter here: its kinks lie out of reach.
        root = np.sqrt(q)
        unit = np.maximum(root, 1e-100)
        terms = zip(self.points, self.bends, self.jumps, strict=True)
        return [
            (sign := _facing(t), np.clip(abs(t) / unit, 1e-300, 1e9), bend * root, sign * jump)
            for t, bend, jump in terms
        ]

    def _parallel(self, q1: Array, q2: Array) -> Array:
        total = np.zeros(1)
        for sign1, a, bend1, jump1 in self._pieces(q1):
            for sign2, b, bend2, jump2 in self._pieces(q2):
                if sign1 == sign2:  # the others never meet
                    total = total + bend1 * bend2 * _parallel(a, b)
                    step, ramp1, ramp2 = _parallel_steps(a, b)
                    total = total + jump1 * jump2 * step
                    total = total + bend1 * jump2 * ramp1 + jump1 * bend2 * ramp2
        return total

    def pair(self, g: Geometry) -> KinkPair:
        """The dual of ``N``."""
        value, slope, drop = (np.zeros_like(g.delta) for _ in range(3))
        mirror = Geometry(g.q1, g.q2, -g.s, 2.0 - g.delta)
        for x, (sign1, a, bend1, jump1) in zip(self.bends, self._pieces(g.q1), strict=True):
            for y, (sign2, b, bend2, jump2) in zip(self.bends, self._pieces(g.q2), strict=True):
                same = sign1 == sign2
                here = g if same else mirror
                above = _orthant(a, b, here)
                fall, rest = _ramps(a, b, here, above)
                value += bend1 * bend2 * rest
                slope += sign1 * sign2 * x * y * above
                drop += bend1 * bend2 * (fall if same else -rest)
                if jump1 or jump2:
                    step, ramp1, ramp2 = (x * same for x in _parallel_steps(a, b))
                    low1, low2 = _steps(a, b, here, above)
                    value += jump1 * jump2 * above + bend1 * jump2 * low1 + jump1 * bend2 * low2
                    drop += jump1 * jump2 * (step - above)
                    drop += bend1 * jump2 * (ramp1 - low1) + jump1 * bend2 * (ramp2 - low2)
        return KinkPair(value, slope, drop)

    def radial(self, g: Geometry, one: Sides, two: Sides, terms: int, shift: int) -> Array:
        """Radial part of ``r + N``; of ``N`` alone to 1e-15, as a difference."""
        left, right = (1.0 / np.sqrt(np.maximum(x.second, 1e-300)) for x in (one, two))
        total = np.zeros(np.broadcast_shapes(one.q.shape, two.q.shape))
        for i in range(terms):
            gap = one.rows[i] * left - two.rows[i] * right
            kink = one.rows[shift + i] * left - two.rows[shift + i] * right
            total += gap * (gap + 2.0 * kink)
        own = self.second(g.q1) * left**2 + self.second(g.q2) * right**2
        apart = np.maximum(own - 2.0 * self._parallel(g.q1, g.q2) * left * right, 0.0)
        return np.asarray(np.where(g.q1 == g.q2, 0.0, 0.5 * (total + apart)))


def _facing(t: float) -> float:
    return -1.0 if t < 0.0 else 1.0


def _bell(x: Array) -> Array:
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))


def _parallel(a: Array, b: Array) -> Array:
    """``B(1)``: ``(1 + ab) Phi(-m) + (m - a - b) bell(m)``, ``m = max(a, b)``."""
    from scipy.special import ndtr

    m = np.maximum(a, b)
    return np.asarray((1.0 + a * b) * ndtr(-m) + (m - a - b) * _bell(m))


def _parallel_steps(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """At ``u = v``: ``P``, ``E[(u - a)+ 1(v > b)]`` and ``E[1(u > a) (v - b)+]``."""
    from scipy.special import ndtr

    m = np.maximum(a, b)
    tail, bell = ndtr(-m), _bell(m)
    return tail, bell - a * tail, bell - b * tail


def _steps(a: Array, b: Array, g: Geometry, above: Array) -> tuple[Array, Array]:
    """``E[(u - a)+ 1(v > b)]`` and ``E[1(u > a) (v - b)+]``."""
    from scipy.special import ndtr

    sine = np.sqrt(g.sin2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        at_a = _bell(a) * ndtr(-np.nan_to_num(((b - a) + g.delta * a) / sine, nan=0.0))
        at_b = _bell(b) * ndtr(-np.nan_to_num(((a - b) + g.delta * b) / sine, nan=0.0))
        low, high = at_a + g.cos * at_b - a * above, g.cos * at_a + at_b - b * above
    return np.nan_to_num(low, nan=0.0), np.nan_to_num(high, nan=0.0)


def _orthant(a: Array, b: Array, g: Geometry) -> Array:
    """``P(u > a, v > b)`` for ``a, b > 0``."""
    from scipy.special import ndtr, owens_t

    sine = np.sqrt(g.sin2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        one = ((b - a) + g.delta * a) / (a * sine)
        two = ((a - b) + g.delta * b) / (b * sine)
    turned = owens_t(a, np.nan_to_num(one, nan=0.0, posinf=np.inf, neginf=-np.inf))
    turned = turned + owens_t(b, np.nan_to_num(two, nan=0.0, posinf=np.inf, neginf=-np.inf))
    return np.asarray(np.maximum(0.5 * (ndtr(-a) + ndtr(-b)) - turned, 0.0))


def _ramps(a: Array, b: Array, g: Geometry, above: Array) -> tuple[Array, Array]:
    """``B(1) - B(c)`` and ``B(c)``."""
    from scipy.special import ndtr

    top = _parallel(a, b)
    sine = np.sqrt(g.sin2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        to_b = np.nan_to_num(((b - a) + g.delta * a) / sine, nan=0.0)
        to_a = np.nan_to_num(((a - b) + g.delta * b) / sine, nan=0.0)
        shape = np.exp(-0.5 * (a * a + to_b * to_b))
        value = (g.cos + a * b) * above + sine / (2.0 * math.pi) * shape
        value = value - a * _bell(b) * ndtr(-to_a) - b * _bell(a) * ndtr(-to_b)
    value = np.nan_to_num(value, nan=0.0)
    y2 = g.delta / np.maximum(2.0 - g.delta, 1e-3)
    near = (y2 < _NEAR**2) & ((a + b) ** 2 / 8.0 * y2 < 0.5)
    fall = top - value
    if near.any():
        y2, a, b, delta = (np.broadcast_to(x, near.shape)[near] for x in (y2, a, b, g.delta))
        fall = np.broadcast_to(fall, near.shape).copy()
        fall[near] = delta * ndtr(-np.maximum(a, b)) - _layer(a, b, y2)
        value = np.where(near, top - fall, value)
    return fall, value


def _layer(a: Array, b: Array, y2: Array) -> Array:
    """The integral of ``g (cos t - cos theta)`` over ``2 pi``, as a series in ``y``."""
    from scipy.special import erfc

    y, kappa = np.sqrt(y2), np.abs(a - b) / math.sqrt(8.0)
    bulge = np.minimum((a + b) ** 2 / 8.0, 1e3)  # beyond, all is lost in the scale
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.minimum(np.nan_to_num(kappa / y, nan=0.0), 1e3)
        decay = np.exp(-ratio * ratio)
    moment = np.maximum(y * decay - kappa * math.sqrt(math.pi) * erfc(ratio), 0.0)
    before, now = np.zeros_like(y), np.ones_like(y)
    power, total = y.copy(), np.zeros_like(y)
    for j in range(_TERMS):
        power = power * y2
        following = (power * decay - 2.0 * kappa * kappa * moment) / (2 * j + 3)
        total += now * (y2 * moment - following)
        before, now = now, -((j + bulge + 2.0) * now + bulge * before) / (j + 1)
        moment = following
    scale = np.exp(-0.25 * (a * a + b * b)) * 4.0 / (1.0 + y2)
    return np.asarray(scale * total / (2.0 * math.pi))
