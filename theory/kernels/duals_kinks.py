r"""The kink of an activation at 0, and the dual of its singular part.

``N(x) = sum_m bends[m-1] max(x, 0)^m``, m = 1, 2, 3, has the jumps of the first three derivatives.
With ``D_mn(c) = E[max(u, 0)^m max(v, 0)^n]`` at unit variances, ``dD_mn/dc = m n D_{m-1,n-1}``, so

.. math:: D_{mn}(1) - D_{mn}(\cos\theta) = mn \int_0^\theta D_{m-1,n-1} \sin t\, dt
          = (1 - \cos\theta) E_{mn}(\theta),

with ``E_mn`` analytic for ``|theta| < 2 pi``: 28 Chebyshev terms on [0, pi] give it to rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.theory.kernels.duals_base import Array, Geometry, Sides

__all__ = ["KinkPair", "Kinks", "find_breaks", "kink_at_zero"]

_ORDER = 3
_CHEBYSHEV = 28
_PAIRS = ((1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3))


class KinkPair(NamedTuple):
    """``E[N N]``, the slope of it, and its drop from parallel inputs."""

    k: Array
    slope: Array
    drop: Array


@dataclass(frozen=True)
class Kinks:
    """``N(x) = sum_m bends[m - 1] max(x, 0)^m``; no bends: nothing is taken out."""

    bends: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.bends)

    def value(self, x: Array) -> Array:
        """``N(x)``."""
        positive, total = np.maximum(x, 0.0), np.zeros_like(x)
        for bend in reversed(self.bends):
            total = (total + bend) * positive
        return total

    def slope(self, x: Array) -> Array:
        """``N'(x)``, 0 at 0."""
        positive, total = np.maximum(x, 0.0), np.zeros_like(x)
        for m in range(len(self.bends), 0, -1):
            total = total * positive + m * self.bends[m - 1]
        return np.where(x > 0.0, total, 0.0)

    def _weights(self, q: Array) -> list[Array]:
        root = np.sqrt(q)
        return [bend * root ** (m + 1) for m, bend in enumerate(self.bends)]

    def second(self, q: Array) -> Array:
        """``E N^2``."""
        return _quadratic(self._weights(q))

    def pair(self, g: Geometry) -> KinkPair:
        """The dual of ``N``."""
        one, two = self._weights(g.q1), self._weights(g.q2)
        r1, r2 = np.sqrt(g.q1), np.sqrt(g.q2)
        curves = _curves(g.theta) * g.delta  # D_mn(1) - D_mn(c), a row a pair
        top, drop, slope = np.zeros(1), np.zeros_like(g.delta), np.zeros_like(g.delta)
        inner = _inner(g, curves)
        for m, bend1 in enumerate(self.bends, start=1):
            for n, bend2 in enumerate(self.bends, start=1):
                if bend1 and bend2:
                    row = _PAIRS.index((min(m, n), max(m, n)))
                    weight = one[m - 1] * two[n - 1]
                    top = top + weight * _moment(m + n)
                    drop += weight * curves[row]
                    factor = m * n * bend1 * bend2 * r1 ** (m - 1) * r2 ** (n - 1)
                    slope += factor * inner[row]
        return KinkPair(top - drop, slope, drop)

    def radial(self, g: Geometry, one: Sides, two: Sides, terms: int, shift: int) -> Array:
        """Radial part of ``r + N`` from the rows of ``r`` and of ``N``."""
        with np.errstate(divide="ignore"):
            left, right = (
                np.where(side.second > 0.0, 1.0 / np.sqrt(side.second), 0.0) for side in (one, two)
            )
        total = np.zeros(np.broadcast_shapes(one.q.shape, two.q.shape))
        for i in range(terms):
            gap = one.rows[i] * left - two.rows[i] * right
            kink = one.rows[shift + i] * left - two.rows[shift + i] * right
            total += gap * (gap + 2.0 * kink)
        weights = zip(self._weights(g.q1), self._weights(g.q2), strict=True)
        total += _quadratic([a * left - b * right for a, b in weights])
        return 0.5 * total


def find_breaks(record: Activation) -> tuple[float, ...]:
    """Points where the quadrature is split: those listed and those that intervals isolate."""
    points = [float(p) for p in (*record.kinks, *record.jumps)]
    try:
        found = record.inflections
        if found.lower.size <= 64:
            points += [float(m) for m in 0.5 * (found.lower + found.upper)]
    except InputError:
        pass  # too many to list: the lattice of the quadrature has to do
    kept: list[float] = []
    for p in (0.0 if abs(p) < 1e-12 else p for p in points):
        if all(abs(p - other) > 1e-11 * max(1.0, abs(p)) for other in kept):
            kept.append(p)  # listed ones first: they are exact
    return tuple(sorted(kept))


def kink_at_zero(record: Activation) -> Kinks:
    """The kink at 0 that is taken out, by the jumps of three derivatives."""
    right, left = _derivatives(record, 1.0), _derivatives(record, -1.0)
    for side, sign in ((right, 1.0), (left, -1.0)):
        slope = float(record.slope(sign * 1e-15))
        if abs(slope - side[1]) < 1e-9:  # the fit knows it to 1e-13 only
            side[1] = slope
    bends = []
    for m in range(1, _ORDER + 1):
        jump, size = right[m] - left[m], max(abs(right[m]), abs(left[m]))
        # smooth functions show rounding here; what is left in by mistake costs only terms
        noise = 1e-6 * max(1.0, size) * 10.0 ** (m - 1)
        bends.append(float(jump) / math.factorial(m) if noise < abs(jump) < 1e6 else 0.0)
    return Kinks(tuple(bends)) if any(bends) else Kinks()


def _derivatives(record: Activation, side: float) -> Array:
    """``phi, phi', phi'', phi'''`` at 0 from one side, by a Chebyshev fit over a quarter."""
    reach = 0.25
    nodes = 0.5 * reach * (1.0 + np.cos((np.arange(12) + 0.5) * math.pi / 12))
    fit = np.polynomial.Chebyshev.fit(nodes, record(side * nodes), 11, domain=[0.0, reach])
    orders = range(1, _ORDER + 1)
    slopes = [side**m * float(fit.deriv(m)(0.0)) for m in orders]
    return np.array([float(fit(0.0)), *slopes])


@functools.cache
def _moment(n: int) -> float:
    """``E max(z, 0)^n``."""
    odd = math.prod(range(n - 1, 0, -2))
    return odd / 2.0 if n % 2 == 0 else odd / math.sqrt(2.0 * math.pi)


def _quadratic(weights: list[Array]) -> Array:
    total = np.zeros(1)
    for m, a in enumerate(weights, start=1):
        for n, b in enumerate(weights, start=1):
            total = total + a * b * _moment(m + n)
    return total


def _inner(g: Geometry, drops: Array) -> list[Array]:
    """``D_{m-1,n-1}`` for the six pairs, from the closed ones and from drops."""
    first = _moment(1) - g.delta / (2.0 * math.sqrt(2.0 * math.pi))
    turn = g.theta - np.sqrt(g.sin2) * (1.0 - g.delta)
    return [
        0.5 - g.theta / (2.0 * math.pi),
        first,
        0.5 - turn / (2.0 * math.pi),
        _moment(2) - drops[0],
        _moment(3) - drops[1],
        _moment(4) - drops[3],
    ]


def _curves(theta: Array) -> Array:
    """``E_mn(theta)`` for the six pairs, ``(6, *theta.shape)``."""
    x = np.ravel(theta) * (2.0 / math.pi) - 1.0
    basis = np.empty((_CHEBYSHEV, x.size))
    basis[0], basis[1] = 1.0, x
    for i in range(2, _CHEBYSHEV):
        basis[i] = 2.0 * x * basis[i - 1] - basis[i - 2]
    return (_tables() @ basis).reshape(len(_PAIRS), *theta.shape)


@functools.cache
def _tables() -> Array:
    """Chebyshev coefficients of ``E_mn`` on [0, pi], by the integral that defines it."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    angles = (np.arange(_CHEBYSHEV) + 0.5) * math.pi / _CHEBYSHEV
    theta = 0.5 * math.pi * (1.0 + np.cos(angles))
    t = 0.5 * theta[:, None] * (1.0 + nodes)
    delta_t = 2.0 * np.sin(0.5 * t) ** 2
    to_series = np.cos(np.outer(np.arange(_CHEBYSHEV), angles)) * (2.0 / _CHEBYSHEV)
    to_series[0] /= 2.0

    rows: list[Array] = []

    def drop(row: int) -> Array:
        return np.asarray(
            np.polynomial.chebyshev.chebval(t * 2.0 / math.pi - 1.0, rows[row]) * delta_t
        )

    below: tuple[Callable[[], Array], ...] = (
        lambda: 0.5 - t / (2.0 * math.pi),
        lambda: _moment(1) - delta_t / (2.0 * math.sqrt(2.0 * math.pi)),
        lambda: 0.5 - (t - np.sin(t) * np.cos(t)) / (2.0 * math.pi),
        lambda: _moment(2) - drop(0),
        lambda: _moment(3) - drop(1),
        lambda: _moment(4) - drop(3),
    )
    for (m, n), integrand in zip(_PAIRS, below, strict=True):
        whole = np.sum(integrand() * np.sin(t) * weights, axis=1) * 0.5 * theta * m * n
        rows.append(to_series @ (whole / (2.0 * np.sin(0.5 * theta) ** 2)))
    return np.array(rows)
