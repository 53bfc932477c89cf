r"""Gaussian averages of an activation, and how they change with the variance.

For any ``f``, with ``z = sqrt(K) t`` and ``t ~ N(0, 1)``,

.. math:: \frac{d}{dK} E f = \frac{E f (t^2 - 1)}{2K}, \qquad
          \frac{d^2}{dK^2} E f = \frac{E f (t^4 - 6 t^2 + 3)}{4K^2},

so that no derivative of ``f`` is needed, and kinks and jumps need no special case. The same holds
for Stein's ``E f' = E f t / sqrt(K)``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.activations import Activation, get
from tangency.models.activations.moments import gaussian_integral, gaussian_moments
from tangency.models.errors import InputError
from tangency.theory.kernels.duals_kinks import find_breaks

__all__ = ["Array", "average_slopes", "averages", "record_of", "slope_jumps"]

_REACH = 14.0  # standard deviations; beyond them N(0, 1) weighs 1e-44
_AGREE = 1e-13  # of two rules, relative to the average of the absolute value

Array = np.ndarray[Any, np.dtype[np.float64]]
_Polynomial = Callable[[Array], Array]

# Polynomials in t whose averages with f are f's average and its derivatives in 2K.
_EVEN: tuple[_Polynomial, ...] = (
    np.ones_like,
    lambda t: t**2 - 1.0,
    lambda t: t**4 - 6.0 * t**2 + 3.0,
)


def record_of(activation: Activation | str) -> Activation:
    """The record, by itself or by its name in the catalogue.

    Raises
    ------
    InputError
        If it is neither, or has no Gaussian moments.
    """
    record = get(activation) if isinstance(activation, str) else activation
    if not isinstance(record, Activation):
        raise InputError(
            f"{type(activation).__name__} is no activation: give a record or a name of the "
            "catalogue"
        )
    gaussian_moments(record, 1.0)  # refuses what is not defined on the whole line
    return record


@functools.lru_cache(maxsize=256)
def _breaks(record: Activation) -> tuple[float, ...]:
    return find_breaks(record)


def averages(
    record: Activation,
    variance: float,
    functionals: Callable[[Array, Array], list[Array]],
    order: int = 0,
) -> Array:
    """``E f(phi, phi')`` under N(0, variance), and its derivatives in the variance.

    Parameters
    ----------
    record : Activation
    variance : float
        Positive.
    functionals : callable ``(phi, phi') -> list of m arrays (p,)``
    order : 0, 1 or 2
        How many derivatives are wanted.

    Returns
    -------
    (order + 1, m) array

    Raises
    ------
    InputError
        If an average overflows.
    """
    scales = (2.0 * variance) ** -np.arange(order + 1.0)
    return _averages(record, variance, functionals, _EVEN[: order + 1]) * scales[:, None]


def average_slopes(
    record: Activation, variance: float, functionals: Callable[[Array, Array], list[Array]]
) -> Array:
    """``E df/dz`` of ``f(phi, phi')`` under N(0, variance): what kinks and jumps add is in.

    Parameters
    ----------
    record : Activation
    variance : float
        Positive.
    functionals : callable ``(phi, phi') -> list of m arrays (p,)``

    Returns
    -------
    (m,) array

    Raises
    ------
    InputError
        If an average overflows.
    """
    found = _averages(record, variance, functionals, (lambda t: t,))
    return np.asarray(found[0] / math.sqrt(variance))


def _averages(
    record: Activation,
    variance: float,
    functionals: Callable[[Array, Array], list[Array]],
    polynomials: tuple[_Polynomial, ...],
) -> Array:
    """Averages of ``f`` times each polynomial in ``t``, a (polynomials, m) array."""
    root = math.sqrt(variance)
    breaks = tuple(b / root for b in _breaks(record))
    panels = _panels(root, breaks)
    coarse, _ = _sums(record, root, functionals, polynomials, panels, 14)
    fine, size = _sums(record, root, functionals, polynomials, panels, 20)
    if not bool(np.isfinite(size).all()):
        raise InputError(f"an average of {record} at variance {variance:g} overflows")
    if not bool((np.abs(fine - coarse) <= _AGREE * size).all()):
        # a function that moves faster than the panels: the rule that refines them
        fine = _refined(record, root, functionals, polynomials, breaks)
    return fine


def _panels(root: float, breaks: tuple[float, ...]) -> Array:
    """Panels of the scale of the Gaussian and, near 0, of the scale of the activation."""
    near = np.linspace(-20.0, 20.0, 41) / root
    edges = np.concatenate([np.linspace(-_REACH, _REACH, 57), near, np.array(breaks)])
    return np.unique(edges[np.abs(edges) <= _REACH])


@functools.cache
def _legendre(nodes: int) -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(nodes)


def _sums(
    record: Activation,
    root: float,
    functionals: Callable[[Array, Array], list[Array]],
    polynomials: tuple[_Polynomial, ...],
    panels: Array,
    count: int,
) -> tuple[Array, Array]:
    """Averages with the polynomials, and with their absolute values, (polynomials, m) arrays."""
    nodes, weights = _legendre(count)
    half = np.diff(panels)[:, None] / 2.0
    t = (panels[:-1, None] + half + half * nodes).ravel()
    bell = np.exp(-0.5 * t**2) / math.sqrt(2.0 * math.pi) * (half * weights).ravel()
    z = root * t
    with np.errstate(over="ignore", invalid="ignore"):
        f = np.stack(functionals(np.asarray(record(z)), np.asarray(record.slope(z))))
        rows = np.stack([p(t) for p in polynomials], axis=-1) * bell[:, None]
        return (f @ rows).T, (np.abs(f) @ np.abs(rows)).T


def _refined(
    record: Activation,
    root: float,
    functionals: Callable[[Array, Array], list[Array]],
    polynomials: tuple[_Polynomial, ...],
    breaks: tuple[float, ...],
) -> Array:
    """The same by the catalogue's own rule."""

    def integrand(t: Array) -> Array:
        z = root * t
        f = np.stack(functionals(np.asarray(record(z)), np.asarray(record.slope(z))))
        return np.stack([p(t) for p in polynomials])[:, None, :] * f

    with np.errstate(over="ignore", invalid="ignore"):
        values, _ = gaussian_integral(integrand, 1.0, breaks)
    return values


def slope_jumps(record: Activation) -> tuple[tuple[float, float], ...]:
    """Points where ``phi'`` jumps, and by how much: ``((point, jump), ...)``."""
    found = []
    for point in _breaks(record):
        step = 1e-9 * max(1.0, abs(point))
        jump = float(record.slope(point + step)) - float(record.slope(point - step))
        if abs(jump) > 1e-6 * max(1.0, abs(float(record.slope(point + step)))):
            found.append((point, jump))
    return tuple(found)
