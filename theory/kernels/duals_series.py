r"""Duals as power series in the cosine: ``k = sum_l a_l(q1) a_l(q2) cos^l``.

The rows ``a_l(q) = E[phi(sqrt(q) z) h_l(z)]`` depend on one variance alone. With ``p_l`` their
products, Horner's rule gives ``P = sum p_l c^l``, its derivative, and the quotient
``(P(1) - P(c)) / (1 - c)``, whose coefficients are sums of the ``p_l`` behind: no cancellation
near ``c = 1``. The radial part is ``|a(q1)/|a(q1)| - a(q2)/|a(q2)||^2 / 2``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tangency.theory.kernels.duals_base import Array, DualFunction, Geometry, Parts, Sides

__all__ = ["Polynomial", "hermite_polynomial", "radial_of_rows", "series"]


def series(product: Callable[[int], Array], terms: int, c: Array) -> tuple[Array, Array, Array]:
    """``P(c)``, ``P'(c)`` and ``(P(1) - P(c)) / (1 - c)`` of ``P = sum_l product(l) c^l``."""
    value, slope, quotient = np.zeros_like(c), np.zeros_like(c), np.zeros_like(c)
    behind = np.zeros_like(product(0))
    for order in range(terms - 1, -1, -1):
        p = product(order)
        slope *= c
        slope += value
        value *= c
        value += p
        quotient *= c
        quotient += behind
        behind = behind + p
    return value, slope, quotient


def radial_of_rows(one: Sides, two: Sides, terms: int) -> Array:
    """Half the squared distance of the two normalised rows."""
    total = np.zeros(np.broadcast_shapes(one.q.shape, two.q.shape))
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (
            np.where(side.second > 0.0, 1.0 / np.sqrt(side.second), 0.0) for side in (one, two)
        )
    for order in range(terms):
        gap = one.rows[order] * left - two.rows[order] * right
        total += gap * gap
    return 0.5 * total


@dataclass(frozen=True)
class Polynomial(DualFunction):
    """Dual of ``sum_n coefficients[n] x^n``: a finite series, at any variances."""

    coefficients: tuple[float, ...] = (0.0, 1.0)

    def _variance(self, q: Array) -> Array:
        return np.asarray(np.sum(_rows(self.coefficients, q) ** 2, axis=0))

    def _slope_variance(self, q: Array) -> Array:
        return np.asarray(np.sum(_rows(_derivative(self.coefficients), q) ** 2, axis=0))

    def _prepare(self, q: Array) -> Array:
        inner = _rows(_derivative(self.coefficients), q)
        return np.concatenate([_rows(self.coefficients, q), inner])

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        n = len(self.coefficients)
        k, _, quotient = series(lambda i: one.rows[i] * two.rows[i], n, g.cos)
        inner = len(one.rows) - n
        slope, _, _ = series(lambda i: one.rows[n + i] * two.rows[n + i], inner, g.cos)
        whole = np.sqrt(one.second) * np.sqrt(two.second)
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = np.where(whole > 0.0, quotient * g.delta / whole, 0.0)
        if not g.equal:
            delta = delta + np.where(whole > 0.0, radial_of_rows(one, two, n), 0.0)
        return Parts(k, slope, delta)


def hermite_polynomial(degree: int) -> tuple[float, ...]:
    """Coefficients of the Hermite polynomial of norm 1 under N(0, 1)."""
    he = np.polynomial.hermite_e.herme2poly([0.0] * degree + [1.0])
    return tuple(float(c) for c in he / math.sqrt(math.factorial(degree)))


def _derivative(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(n * c for n, c in enumerate(coefficients))[1:] or (0.0,)


def _rows(coefficients: tuple[float, ...], q: Array) -> Array:
    """``E[phi(sqrt(q) z) h_l(z)]`` for all l: ``x^n = sum n!/(2^m m! l!) He_l``, ``l + 2m = n``."""
    root = np.sqrt(q)
    rows = np.zeros((len(coefficients), *q.shape))
    for n, coefficient in enumerate(coefficients):
        if coefficient:
            for m in range(n // 2 + 1):
                order = n - 2 * m
                weight = math.factorial(n) / (2**m * math.factorial(m) * math.factorial(order))
                rows[order] += coefficient * weight * math.sqrt(math.factorial(order)) * root**n
    return rows
