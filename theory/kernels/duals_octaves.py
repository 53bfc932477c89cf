r"""Tables of Hermite rows: what one activation gives at the variances of one octave.

The rows ``a_l(q) = E[phi(sqrt(q) z) h_l(z)]`` are analytic in ``log q`` whatever ``phi`` is (a
Gaussian of complex variance smooths it, up to an angle of pi/2), so that 18 Chebyshev points an
octave interpolate them to rounding. Each point is one quadrature, split at kinks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.models.namespace import numpy_namespace
from tangency.theory.kernels.duals_base import Array
from tangency.theory.kernels.duals_bends import Bends
from tangency.theory.kernels.duals_kinks import Kinks

__all__ = ["EXTRA", "FAR", "MOST", "POINTS", "Octave", "Source", "make_octave", "octave_of"]

MOST = 128
"""Terms of a series at most."""
POINTS = 18
"""Chebyshev points of an octave."""
EXTRA = 8
"""Rows behind the coefficients: see :class:`Octave`."""
FAR = (1024, 1 << 17)
"""Two more orders to which cut-off terms are moved."""

_ENOUGH = 1e-13  # of sqrt(E phi^2); products of rows are then far below rounding
_REACH = 13.0
_LEAST_OCTAVE, _LAST_OCTAVE = -1020, 100


@dataclass(frozen=True)
class Source:
    """An activation, its singular part, and where quadrature is split."""

    record: Activation
    kinks: Kinks | Bends
    breaks: tuple[float, ...]


@dataclass(frozen=True)
class Octave:
    """Chebyshev coefficients over ``log2 q`` in [j, j + 1]."""

    terms: int
    rows: Array
    """``(points, MOST + 1)`` of r_l; the last one is what the lump has to add to E phi^2."""
    kinks: Array
    """``(points, MOST + 1)`` of n_l; the last one is ``sum n_l^2`` over what is cut off."""
    extra: Array
    """``(points, EXTRA)``: E phi^2, E phi'^2, E phi', slope of what is cut off, error of the
    quadrature, square of the lump at FAR[0], sum of what is cut off, square at FAR[1]."""


def octave_of(q: Array) -> np.ndarray:
    """The octave of each variance: ``2^j <= q < 2^(j+1)``."""
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(q))
    return np.clip(exponent, _LEAST_OCTAVE, _LAST_OCTAVE).astype(np.int64)


def make_octave(source: Source, octave: int) -> Octave:
    """Integrate at the Chebyshev points of an octave, and choose the number of terms."""
    angles = (np.arange(POINTS) + 0.5) * math.pi / POINTS
    points = np.cos(angles)
    samples = [_integrate(source, 2.0 ** (octave + 0.5 * (x + 1.0))) for x in points]
    r, n, moments = (np.stack([s[i] for s in samples]) for i in range(3))
    second, inner = moments[:, 0], moments[:, 1]
    rr, rn = moments[:, 5], moments[:, 6]
    left = rr[:, None] - np.cumsum(r * r, axis=1)
    cross = rn[:, None] - np.cumsum(r * n, axis=1)
    scale = second[:, None]
    # Every row counts that is not negligible beside any row of another octave.
    tiny = np.abs(r) <= (1e-15 if source.kinks else _ENOUGH) * np.sqrt(scale)
    settled = np.flatnonzero(np.all(np.cumprod(tiny[:, ::-1], axis=1)[:, ::-1] > 0, axis=0))
    terms = int(settled[0]) if settled.size and settled[0] < MOST - 4 else MOST
    lump, far, farther, lump_cross, steep = (np.zeros(POINTS) for _ in range(5))
    if terms < MOST:
        r[:, terms:], n[:, terms:] = 0.0, 0.0
    else:
        # below rounding there is nothing left to lump
        lump = np.where(left[:, -1] > 1e-15 * second, left[:, -1], 0.0)
        if source.kinks:
            lump = left[:, -1] + 2.0 * cross[:, -1]
            lump_cross = np.maximum(moments[:, 7] - np.sum(n * n, axis=1), 0.0)
        steep = moments[:, 3] - np.sum(np.arange(MOST) * (r * r + 2.0 * r * n), axis=1)
        smooth = not (source.record.jumps or source.record.staircase)
        if smooth and not source.kinks:  # orders that have the sum and the slope of the tail
            low = MOST - 1 if source.record.parity == "odd" else MOST
            farther = np.clip((steep - FAR[0] * lump) / (FAR[1] - FAR[0]), 0.0, lump)
            left_over = steep - FAR[1] * farther - low * (lump - farther)
            far = np.clip(left_over / (FAR[0] - low), 0.0, lump - farther)
    # products of r and n change sign: what is cut off is judged by the last quarter's sizes
    last = np.sum(np.abs(r * n)[:, -MOST // 4 :], axis=1)
    tail = np.abs(lump) + 2.0 * last
    lump = lump - far - farther
    extra = np.stack(
        [second, inner, moments[:, 2], steep, moments[:, 4], far, tail, farther], axis=1
    )
    # Chebyshev coefficients from values at the points of the first kind
    to_series = np.cos(np.outer(np.arange(POINTS), angles)) * (2.0 / POINTS)
    to_series[0] /= 2.0
    return Octave(
        terms,
        to_series @ np.column_stack([r, lump]),
        to_series @ np.column_stack([n, lump_cross]),
        to_series @ extra,
    )


def _nodes(source: Source, root: float, split: int) -> tuple[Array, Array]:
    """Nodes in units of the standard deviation, and Gaussian weights."""
    lattice = np.linspace(-20.0, 20.0, 41 * split)
    if source.record.staircase:
        lattice = np.arange(-math.ceil(2 * _REACH * root), math.ceil(2 * _REACH * root) + 1) / 2.0
    panels = [np.linspace(-_REACH, _REACH, 52 * split + 1), lattice / root]
    edges = np.concatenate([*panels, np.array(source.breaks) / root, [0.0]])
    edges = np.unique(edges[np.abs(edges) <= _REACH])
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2.0
    z = (edges[:-1, None] + half + half * nodes).ravel()
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return z, (half * weights).ravel() * density


def _integrate(source: Source, q: float) -> tuple[Array, Array, Array]:
    """``r_l``, ``n_l`` for all l < MOST, and eight moments at one variance."""
    root = math.sqrt(q)
    coarse = math.nan
    for split in (1, 2):
        z, weight = _nodes(source, root, split)
        with np.errstate(all="ignore"):
            value = np.broadcast_to(source.record.value(numpy_namespace, root * z), z.shape)
            slope = np.broadcast_to(source.record.derivative(numpy_namespace, root * z), z.shape)
            second = float(np.sum(weight * value**2))
        coarse = second if split == 1 else coarse
    if not np.isfinite(second):
        raise InputError(f"E phi^2 of {source.record} at variance {q:g} is not finite")
    kinked = source.kinks.value(root * z)
    bent = source.kinks.slope(root * z)
    rest = value - kinked
    basis = _hermite_values(z, weight)
    n = basis @ kinked if source.kinks else np.zeros(MOST)
    r = basis @ rest
    parity = source.record.parity
    if parity is not None and not source.kinks:
        r[(1 if parity == "even" else 0) :: 2] = 0.0
    moments = [
        second,
        np.sum(weight * slope**2),
        np.sum(weight * slope),
        q * np.sum(weight * (slope**2 - bent**2)),
        abs(second - coarse) / second if second > 0.0 else 0.0,
        np.sum(weight * rest**2),
        np.sum(weight * rest * kinked),
        np.sum(weight * kinked**2),
    ]
    return r, n, np.array(moments)


def _hermite_values(z: Array, weight: Array) -> Array:
    """``(MOST, z)`` of weighted normalised Hermite polynomials."""
    h = np.empty((MOST, z.size))
    h[0] = weight
    h[1] = weight * z
    for k in range(1, MOST - 1):
        h[k + 1] = (z * h[k] - math.sqrt(k) * h[k - 1]) / math.sqrt(k + 1.0)
    return h
