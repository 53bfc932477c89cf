"""Activations with coefficients: rational functions, polynomials of the ReLU, edges of KAN.

The core of a rational function holds all that bends it by exact algebra, so that its tails need no
further check.
"""

import itertools
import math
from fractions import Fraction
from typing import Any

from tangency.models.activations.parameters import check_numbers, check_tuple
from tangency.models.activations.record import Activation, Limit
from tangency.models.activations.registry import register
from tangency.models.activations.tails import exact
from tangency.models.errors import InputError

_INF = math.inf
_Polynomial = list[Fraction]  # coefficients, constant first

# Our own least-squares fit of degrees (5, 4) to the ReLU on [-3, 3], within 0.032. The odd part is
# exactly x/2 times the denominator, so that the function tends to a line quickly.
_NUMERATOR = (0.03125, 0.5, 1.65625, 2.0, 0.953125, 0.15625)
_DENOMINATOR = (0.0, 4.0, 0.0, 0.3125)


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    total = 0.0 * x + coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def _product(a: _Polynomial, b: _Polynomial) -> _Polynomial:
    total = [Fraction(0)] * (len(a) + len(b) - 1)
    for i, s in enumerate(a):
        for j, t in enumerate(b):
            total[i + j] += s * t
    return total


def _slope(a: _Polynomial) -> _Polynomial:
    return [i * c for i, c in enumerate(a)][1:] or [Fraction(0)]


def _combine(a: _Polynomial, b: _Polynomial, factor: int) -> _Polynomial:
    """``a + factor b``."""
    pairs = itertools.zip_longest(a, b, fillvalue=Fraction(0))
    return [s + factor * t for s, t in pairs]


def _has_no_root_beyond(c: _Polynomial, r: Fraction) -> bool:
    """Whether ``c`` is zero, or keeps its sign on ``[r, inf)``: Descartes' rule of signs.

    The coefficients of ``c(r + t)`` that are all of one sign leave no root ``t >= 0``; for a large
    enough ``r`` (above the real parts of all roots) they are.
    """
    shifted = list(c)
    for i in range(len(c)):
        for j in range(len(c) - 2, i - 1, -1):
            shifted[j] += r * shifted[j + 1]
    if not any(shifted):
        return True
    one_sign = all(t >= 0 for t in shifted) or all(t <= 0 for t in shifted)
    return bool(shifted[0]) and one_sign


def _bends(P: _Polynomial, D: _Polynomial) -> list[_Polynomial]:
    """Numerators of the first two derivatives of ``P / D``.

    The slope is ``N / D^2`` with ``N = P' D - P D'``, the second derivative
    ``(N' D - 2 N D') / D^3``.
    """
    first = _combine(_product(_slope(P), D), _product(P, _slope(D)), -1)
    second = _combine(_product(_slope(first), D), _product(first, _slope(D)), -2)
    return [first, second]


def _reach(name: str, polynomials: list[_Polynomial]) -> float:
    """Power of two beyond which, on either side, none of the polynomials has a root; exact."""
    found = list(polynomials)
    found += [[(-1) ** i * c for i, c in enumerate(polynomial)] for polynomial in found]
    for exponent in range(1023):
        r = Fraction(2**exponent)
        found = [c for c in found if not _has_no_root_beyond(c, r)]
        if not found:
            return float(r)
    raise InputError(
        f"{name} has a kink, a turning point or an inflection beyond the numbers of float64: its "
        "coefficients differ too much in size"
    )


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
    p = check_tuple("rational", "numerator", numerator)
    q = (0.0, *check_tuple("rational", "denominator", denominator, least=0))
    P, Q = [Fraction(c) for c in p], [Fraction(c) for c in q]
    branches = [_combine([Fraction(1)], Q, sign) for sign in (1, -1)]  # 1 + |Q| is one of them
    reach = _reach("rational", [Q, *(c for D in branches for c in _bends(P, D))])
    record = Activation(
        "rational",
        lambda nx, x: _horner(p, x) / (1.0 + nx.abs(_horner(q, x))),
        params=(("numerator", p), ("denominator", q[1:])),
        formula="P(x)/(1 + |Q(x)|)",
        source="arXiv 1907.06732",
        limits=(_end(p, q, -1), _end(p, q, 1)),
        core=(-reach, reach),
    )
    return exact(record)


@register
def cauchy(lam1: float = 1.0, lam2: float = 1.0, d: float = 1.0) -> Activation:
    """Build (lam1 x + lam2)/(x^2 + d^2), d != 0."""
    check_numbers("cauchy", least=-1e100, most=1e100, lam1=lam1, lam2=lam2)
    check_numbers("cauchy", factor=True, d=d)
    P, D = [Fraction(lam2), Fraction(lam1)], [Fraction(d) ** 2, Fraction(0), Fraction(1)]
    reach = _reach("cauchy", _bends(P, D))
    record = Activation(
        "cauchy",
        lambda nx, x: (lam1 * x + lam2) / (x**2 + nx.constant(d) ** 2),
        params=(("lam1", lam1), ("lam2", lam2), ("d", d)),
        formula="(lam1 x + lam2)/(x^2 + d^2)",
        source="arXiv 2409.19221",
        limits=((0.0, 0.0), (0.0, 0.0)),
        core=(-reach, reach),
        parity="even" if lam1 == 0.0 else ("odd" if lam2 == 0.0 else None),
    )
    return exact(record)


@register
def polyrelu(coefficients: tuple[float, ...] = (0.0, 1 / 3, 1 / 3, 1 / 3)) -> Activation:
    """Build sum_i a_i relu(x)^i."""
    a = check_tuple("polyrelu", "coefficients", coefficients)
    degree = max((i for i, c in enumerate(a) if c), default=0)
    slope = _slope([Fraction(c) for c in a])
    reach = _reach("polyrelu", [slope, _slope(slope)])
    top = math.copysign(_INF, a[degree]) if degree else a[0]

    def value(nx: Any, x: Any) -> Any:
        positive = nx.maximum(x, 0.0)
        total = 0.0 * positive + a[-1]
        for c in reversed(a[:-1]):
            total = total * positive + c
        return total

    record = Activation(
        "polyrelu",
        value,
        params=(("coefficients", a),),
        formula="sum_i a_i max(0, x)^i",
        source="arXiv 2411.03884",
        kinks=(0.0,) if len(a) > 1 and a[1] else (),
        limits=((a[0], 0.0), (top, top if degree > 1 else (a[1] if degree else 0.0))),
        core=(-reach, reach),
    )
    return exact(record)


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
    c = check_tuple("kan_edge", "coefficients", coefficients, least=4)
    check_numbers("kan_edge", least=-1e100, most=1e100, base=base, scale=scale)
    low_end, high_end, *more = check_tuple("kan_edge", "grid", grid, least=2)
    h = (high_end - low_end) / (len(c) - 3)
    if more or not 1e-100 <= h <= 1e100 or max(abs(low_end), abs(high_end)) > 1e100:
        raise InputError(f"kan_edge has grid = {grid}; it accepts (low, high) with low < high")

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
    # The splines end 3 h beyond the grid; silu bends for the last time at |x| = 2.4. The margin
    # outdoes the roundings of the centres and of the sum.
    reach = max(30.0, 1.001 * (max(abs(grid[0]), abs(grid[1])) + 3.0 * h))
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
