r"""Enclosures of sums and linear maps of intervals, true for every order of summation.

Let :math:`u = 2^{-53}` and :math:`\gamma_k = k u / (1 - k u)`. A sum of n products computed in
float64 in any order, with or without fused multiply-add, satisfies

.. math:: |fl(W c + b) - (W c + b)| \le \gamma_{n+1} (|W| |c| + |b|) + n 2^{-1074}

entry by entry (the last term is underflow). With :math:`[l, u] \subset [c - r, c + r]` the range
of :math:`W x + b` over the box lies within :math:`fl(W c + b) \pm T` for any

.. math:: T \ge |W| (r + \gamma_{n+1} |c|) + \gamma_{n+1} |b| + n 2^{-1074},

so one more product, with :math:`|W|` and the right-hand vector, gives a bound; its own rounding is
paid by a factor :math:`1/(1 - \gamma_{n+4})`. Here :math:`g = (n + 4) 2^{-52}`, about twice
:math:`\gamma_{n+4}`, stands for each :math:`\gamma`: the surplus covers the roundings of the few
operations around the products. In exact arithmetic the enclosure is the exact range.

Assumed of the machine: IEEE 754 binary64, round to nearest, gradual underflow, and a BLAS that
forms each entry of a product by the products and additions of its definition (no Strassen).

References
----------
N. J. Higham, Accuracy and Stability of Numerical Algorithms (2nd ed.), section 3.1.
S. M. Rump, "Fast and parallel interval arithmetic", BIT 39 (1999), for midpoint and radius.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.intervals import Interval

__all__ = ["affine", "exclusive_sum", "midpoint_radius", "total", "widened"]

Array = Any
Map = Callable[[Array], Array]

#: Pays, times ``1 + sum |x|``, for underflow in products that linear functions were formed with,
#: flushed to zero or not, up to 2^60 of them an entry.
UNDERFLOW = 2.0**-960

_SMALL = 1e-290  # radii below it are raised to it: no underflow, and no slow subnormal numbers


def relative_error(terms: int) -> float:
    """The factor g of a sum of ``terms`` products: exact in float64, about 2 gamma."""
    return (terms + 4) * 2.0**-52


def midpoint_radius(x: Interval) -> tuple[Array, Array]:
    """Floats c, r with ``x`` inside ``[c - r, c + r]`` in real arithmetic.

    Points keep r = 0; unbounded entries have c = 0 and r = inf.
    """
    low, high = x.lower, x.upper
    with np.errstate(all="ignore"):
        bounded = np.isfinite(low) & np.isfinite(high)
        c = np.where(bounded, np.where(low == high, low, 0.5 * low + 0.5 * high), 0.0)
        r = np.maximum(np.nextafter(c - low, np.inf), np.nextafter(high - c, np.inf))
    return c, np.where(low == high, 0.0, np.maximum(r, _SMALL))


def widened(center: Array, radius: Array, terms: int) -> Interval:
    """The interval ``center +- radius``, ``radius`` itself a computed sum of ``terms`` products."""
    g = relative_error(terms)
    with np.errstate(all="ignore"):
        t = (radius + (terms + 4) * 2.0**-1070) * (1.0 + g)
        low = np.nextafter(center - t, -np.inf)
        high = np.nextafter(center + t, np.inf)
    # An overflow on the way leaves inf or NaN in the centre: then nothing is known.
    known = np.isfinite(center) & np.isfinite(t)
    return Interval(np.where(known, low, -np.inf), np.where(known, high, np.inf))


def affine(
    x: Interval,
    linear: Map,
    magnitude: Map,
    terms: int,
    *,
    bias: Array | None = None,
    slack: Map | None = None,
) -> Interval:
    """Enclose ``W x + b``: the one rule of all layers with fixed weights.

    Parameters
    ----------
    x : Interval
        The box.
    linear, magnitude : callable
        ``v -> W v`` and ``v -> |W| v`` in float64, sums in any order.
    terms : int
        At least the number of products in each sum.
    bias : array, optional
        Added with NumPy's broadcasting.
    slack : callable, optional
        ``v -> D v`` when W is known to within ``+-D`` only; ``magnitude`` is then
        ``v -> (|W| + D) v``.
    """
    g = relative_error(terms + 1)
    c, r = midpoint_radius(x)
    with np.errstate(all="ignore"):
        s = (r + g * np.abs(c)) * (1.0 + 2.0**-51)
        s = np.where((r > 0) | (c != 0), np.maximum(s, _SMALL), 0.0)
        center, radius = linear(c), magnitude(s)
        if slack is not None:
            radius = radius + slack(np.abs(c)) * (1.0 + g)
        if bias is not None:
            center, radius = center + bias, radius + g * np.abs(bias)
    return widened(center, radius, terms + 2)


def total(x: Interval, axes: tuple[int, ...]) -> Interval:
    """Enclose the sum over some axes."""
    count = int(np.prod([x.shape[a] for a in axes]))
    g = relative_error(count)
    with np.errstate(all="ignore"):
        low, high = x.lower.sum(axis=axes), x.upper.sum(axis=axes)
        low_error = g * np.abs(x.lower).sum(axis=axes)
        high_error = g * np.abs(x.upper).sum(axis=axes)
    result = _between(widened(low, low_error, count), widened(high, high_error, count))
    # A known sign is kept: a square root or a logarithm may come next.
    low = np.where((x.lower >= 0).all(axis=axes), np.maximum(result.lower, 0.0), result.lower)
    high = np.where((x.upper <= 0).all(axis=axes), np.minimum(result.upper, 0.0), result.upper)
    return Interval(low, high)


def exclusive_sum(x: Interval) -> Interval:
    """Enclose, for each entry of the last axis, the sum of all the others; no cancellation."""
    count = x.shape[-1]
    g = relative_error(count)
    with np.errstate(all="ignore"):
        low, low_size = _others(x.lower), _others(np.abs(x.lower))
        high, high_size = _others(x.upper), _others(np.abs(x.upper))
        below, above = g * low_size, g * high_size
    return _between(widened(low, below, count), widened(high, above, count))


def _others(v: Array) -> Array:
    zero = np.zeros((*v.shape[:-1], 1))
    before = np.concatenate([zero, np.cumsum(v[..., :-1], axis=-1)], axis=-1)
    after = np.concatenate([np.cumsum(v[..., :0:-1], axis=-1)[..., ::-1], zero], axis=-1)
    return before + after


def _between(low: Interval, high: Interval) -> Interval:
    return Interval(low.lower, high.upper)
