"""Activations with coefficients: rational functions (PAU) and the edge functions of KAN."""

import math
from typing import Any

import numpy as np

from tangency.models.activations.record import Activation, Limit
from tangency.models.activations.registry import register
from tangency.models.errors import InputError

_INF = math.inf

# Our own least-squares fit of degrees (5, 4) to the ReLU on [-3, 3], within 0.032. The odd part is
# exactly x/2 times the denominator, so that the function tends to a line quickly.
_NUMERATOR = (0.03125, 0.5, 1.65625, 2.0, 0.953125, 0.15625)
_DENOMINATOR = (0.0, 4.0, 0.0, 0.3125)


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    total = 0.0 * x + coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def _root_bound(p: Any, q: Any) -> float:
    """Radius beyond which (p/q)' and (p/q)'' have no zero: Cauchy's bound of their numerators."""
    P, Q = np.polynomial.Polynomial(p), np.polynomial.Polynomial(q)
    first = P.deriv() * Q - P * Q.deriv()
    second = first.deriv() * Q - 2.0 * first * Q.deriv()
    bound = 1.0
    for polynomial in (first, second):
        # Leading terms that cancel algebraically (always, if deg P - deg Q is 0 or 1) leave noise.
        size = float(np.max(np.abs(polynomial.coef), initial=0.0))
        c = np.trim_zeros(
            np.where(np.abs(polynomial.coef) < 1e-13 * size, 0.0, polynomial.coef), "b"
        )
        if c.size > 1:
            bound = max(bound, 1.0 + float(np.max(np.abs(c[:-1] / c[-1]))))
    return bound


def _end(p: tuple[float, ...], q: tuple[float, ...], side: int) -> tuple[Limit, Limit]:
    """Limits of p / (1 + |q|) and of its slope at side * inf; q without its constant."""
    from tangency.models.intervals import Interval

    m = max((i for i, c in enumerate(p) if c), default=0)
    n = max((i for i, c in enumerate(q) if c), default=0)
    lead = Interval(p[m]) / (abs(q[n]) if n else 1.0) * float(side**m)
    if m < n:
        return (0.0, 0.0)
    if m == n:
        return (lead, 0.0)
    sign = math.copysign(1.0, p[m]) * side**m
    return (sign * _INF, lead * float(side) if m == n + 1 else sign * side * _INF)


@register
def rational(
    numerator: tuple[float, ...] = _NUMERATOR, denominator: tuple[float, ...] = _DENOMINATOR
) -> Activation:
    """Build the safe Pade unit ``P(x) / (1 + |Q(x)|)``.

    Parameters
    ----------
    numerator : tuple of float
        ``a_0, a_1, ...``.
    denominator : tuple of float
        ``b_1, b_2, ...`` of ``Q(x) = b_1 x + b_2 x^2 + ...``.
    """
    p, q = tuple(numerator), (0.0, *denominator)
    reach = max(30.0, *(1.01 * _root_bound(p, (1.0, *(s * c for c in q[1:]))) for s in (1, -1)))
    return Activation(
        "rational",
        lambda nx, x: _horner(p, x) / (1.0 + nx.abs(_horner(q, x))),
        params=(("numerator", p), ("denominator", q[1:])),
        formula="P(x)/(1 + |Q(x)|)",
        source="arXiv 1907.06732",
        limits=(_end(p, q, -1), _end(p, q, 1)),
        core=(-reach, reach),
    )


@register
def kan_edge(
    coefficients: tuple[float, ...] = (0.0, 0.1, -0.2, 0.3, -0.3, 0.2, -0.1, 0.0),
    grid: tuple[float, ...] = (-1.0, 1.0),
    base: float = 1.0,
    scale: float = 1.0,
) -> Activation:
    """Build ``base silu(x) + scale sum_i c_i B_i(x)`` with cubic B-splines on a uniform grid.

    ``grid`` is cut into ``len(coefficients) - 3`` cells; ``B_i`` is centred at
    ``grid[0] + (i - 1) h`` and reaches two cells to either side.
    """
    c = tuple(coefficients)
    if len(c) < 4 or len(grid) != 2 or not grid[0] < grid[1]:
        raise InputError("kan_edge needs at least 4 coefficients and a grid (low, high)")
    h = (grid[1] - grid[0]) / (len(c) - 3)

    def value(nx: Any, x: Any) -> Any:
        total = base * (x * nx.sigmoid(x))
        for i, weight in enumerate(c):
            # a cubic B-spline by its two arcs, |t| < 1 and 1 < |t| < 2
            t = nx.abs((x - (grid[0] + (i - 1) * h)) / h)
            inner = (4.0 - 6.0 * t**2 + 3.0 * t**3) / 6.0
            outer = nx.maximum(2.0 - t, 0.0) ** 3 / 6.0
            total = total + scale * (weight * nx.where(t < 1.0, inner, outer))
        return total

    low: Limit = -0.0 * base
    reach = max(30.0, 4.0 * abs(grid[0]), 4.0 * abs(grid[1]))
    top = base * _INF if base else 0.0
    return Activation(
        "kan_edge",
        value,
        params=(("coefficients", c), ("grid", tuple(grid)), ("base", base), ("scale", scale)),
        formula="base silu(x) + scale sum_i c_i B_i(x)",
        source="arXiv 2404.19756",
        limits=((low, 0.0), (top, base)),
        core=(-reach, reach),
    )
