r"""The average error of kernel ridge regression and of random features, from the spectrum alone.

With eigenvalues ``l_i`` of the kernel, coefficients ``v_i`` of the target in its eigenfunctions,
``n`` samples, ``k`` features and ridge ``d`` (added to the Gram matrix), two constants solve

.. math:: \sum_i \frac{l_i}{l_i + \gamma} + \frac{d}{\kappa} = n, \qquad
          \sum_i \frac{l_i}{l_i + \gamma} + \frac{k \kappa}{\gamma} = k,

and with ``z = sum l/(l+g)`` and ``q = sum (l/(l+g))^2`` the error on fresh samples is

.. math:: \frac{1}{1-x} \Big[ \sum_i \Big( \frac{\gamma}{l_i+\gamma}
          - \frac{\kappa l_i}{(l_i+\gamma)^2} \frac{k}{k-q} \Big) v_i^2 + \sigma^2 \Big],
          \quad x = \frac{q (k - 2z) + z^2}{n (k - q)}.

The first factor is what overfitting the noise costs. ``k = inf`` is the kernel itself.

References
----------
Simon, Karkada, Ghosh and Belkin, "More is Better in Modern Machine Learning", arXiv 2311.14646;
Simon, Dickens, Karkada and DeWeese, "The Eigenlearning Framework", arXiv 2110.03922.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["Risk", "optimal_ridge", "power_law", "ridge_risk"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Risk:
    """Errors of ridge regression, averaged over samples and features.

    Attributes
    ----------
    test, train : float
        Mean squared errors on fresh and on training samples; both contain the noise.
    kappa, gamma : float
        The two implicit constants; equal where there are infinitely many features.
    learnability : (m,) array
        ``l_i / (l_i + gamma)``: how much of each eigenfunction is learnt.
    overfitting : float
        The factor ``1 / (1 - x)`` by which the noise counts.
    ridge : float
        The ridge, as given or as found by :func:`optimal_ridge`.
    """

    test: float
    train: float
    kappa: float
    gamma: float
    learnability: Array
    overfitting: float
    ridge: float

    @property
    def fitting_ratio(self) -> float:
        """``train / test``: near 0 where the training set is interpolated."""
        return self.train / self.test if self.test > 0 else math.nan


def power_law(exponent: float, count: int) -> Array:
    """``i^-exponent`` for i = 1..count, ``(count,)``.

    Raises
    ------
    InputError
        For a count below 1.
    """
    if count < 1:
        raise InputError(f"count={count}: a spectrum has at least one eigenvalue")
    return np.asarray(np.arange(1.0, count + 1.0) ** -float(exponent))


def ridge_risk(
    eigenvalues: Any,
    coefficients: Any,
    samples: float,
    *,
    features: float = math.inf,
    ridge: float = 0.0,
    noise: float = 0.0,
) -> Risk:
    """The expected errors of ridge regression with a kernel or with random features.

    Parameters
    ----------
    eigenvalues : (m,) array
        Of the kernel's integral operator, each as often as it occurs.
    coefficients : (m,) array
        Of the target in orthonormal eigenfunctions; what no eigenfunction carries is noise.
    samples : float
    features : float
        Random features, drawn as Gaussian combinations of the eigenfunctions.
    ridge : float
        Added to the Gram matrix, ``K + ridge I``, where ``K`` is a mean over features.
    noise : float
        Variance of the label noise.

    Raises
    ------
    InputError
        For what is no spectrum, and at ``samples == features`` without a ridge, where the error
        is infinite.
    """
    values, target = _spectrum(eigenvalues, coefficients)
    _check(samples, features, ridge, noise)
    kappa, gamma, quotient = _constants(values, float(samples), float(features), float(ridge))
    kept = values / (values + gamma)
    lost = gamma / (values + gamma) if gamma > 0 else np.zeros_like(values)
    z, q = float(kept.sum()), float((kept**2).sum())
    if math.isinf(features):
        bias, x = lost**2, q / samples
    elif features > q:
        # kappa l / (l+g)^2 k/(k-q), with kappa = g (k-z)/k: no power of k is left to overflow.
        bias = lost - kept * lost * max(0.0, features - z) / (features - q)
        x = (q * (features - 2 * z) + z**2) / (samples * (features - q))
    else:
        bias, x = np.zeros_like(values), q / samples
    if x >= 1.0:
        raise InputError(
            f"samples={samples:g}, features={features:g}, ridge={ridge:g}: the noise is amplified "
            "without bound; take a positive ridge"
        )
    over = 1.0 / (1.0 - x)
    test = over * (float(bias @ target**2) + noise)
    return Risk(test, (quotient / samples) ** 2 * test, kappa, gamma, kept, over, float(ridge))


def optimal_ridge(
    eigenvalues: Any,
    coefficients: Any,
    samples: float,
    *,
    features: float = math.inf,
    noise: float = 0.0,
) -> Risk:
    """The ridge with the least test error, and the errors at it.

    The test error has one valley in ``log(ridge)`` for most spectra but need not: a grid of 97
    ridges, from 1e-12 to 1e4 of the trace, finds the valley and a bounded search its floor.
    Arguments are as in :func:`ridge_risk`.
    """
    from scipy.optimize import minimize_scalar

    values, target = _spectrum(eigenvalues, coefficients)
    scale = math.log(float(values.sum()))
    grid = scale + np.linspace(math.log(1e-12), math.log(1e4), 97)

    def at(logarithm: float) -> Risk:
        return ridge_risk(
            values, target, samples, features=features, ridge=math.exp(logarithm), noise=noise
        )

    best = int(np.argmin([at(float(g)).test for g in grid]))
    low, high = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    found = minimize_scalar(lambda g: at(g).test, bounds=(low, high), method="bounded")
    return min((at(float(found.x)), at(float(grid[best]))), key=lambda risk: risk.test)


def _spectrum(eigenvalues: Any, coefficients: Any) -> tuple[Array, Array]:
    values = np.asarray(eigenvalues, np.float64)
    target = np.asarray(coefficients, np.float64)
    if values.ndim != 1 or values.size == 0 or not (values >= 0).all():
        raise InputError(f"eigenvalues have shape {values.shape}: (m,) numbers >= 0 are needed")
    if not np.isfinite(values).all() or not values.any():
        raise InputError("eigenvalues: finite numbers, not all zero, are needed")
    if target.shape != values.shape or not np.isfinite(target).all():
        raise InputError(f"coefficients have shape {target.shape}: finite, {values.shape}")
    return values, target


def _check(samples: float, features: float, ridge: float, noise: float) -> None:
    if not 0 < samples < math.inf:
        raise InputError(f"samples={samples!r}: a positive number")
    if not features > 0:
        raise InputError(f"features={features!r}: a positive number, or inf for the kernel")
    if not (0 <= ridge < math.inf and 0 <= noise < math.inf):
        raise InputError(f"ridge={ridge!r}, noise={noise!r}: numbers >= 0")


def _constants(values: Array, n: float, k: float, ridge: float) -> tuple[float, float, float]:
    """``(kappa, gamma, ridge / kappa)``; the last is finite also where kappa = ridge = 0."""
    rank = float(np.count_nonzero(values))

    def fitted(gamma: float) -> float:
        return float((values / (values + gamma)).sum())

    if ridge == 0.0:
        if rank <= min(n, k):  # every eigenfunction is determined
            return 0.0, 0.0, n - rank
        if n == k:
            raise InputError(f"samples = features = {n:g} without a ridge: the error is infinite")
        gamma = _root(lambda g: fitted(g) - min(n, k), values)
        return (0.0 if k < n else gamma * (1 - n / k)), gamma, max(0.0, n - k)

    def excess(gamma: float) -> float:
        free = 1.0 - fitted(gamma) / k
        return math.inf if free <= 0 else fitted(gamma) + ridge / (gamma * free) - n

    gamma = _root(excess, values)
    kappa = gamma * (1.0 - fitted(gamma) / k)
    # The difference is accurate where the quotient is not: kappa vanishes next to gamma at k < n.
    return kappa, gamma, n - fitted(gamma)


def _root(falling: Any, values: Array) -> float:
    """Where a function that falls from plus infinity to below zero is zero, on (0, inf)."""
    from scipy.optimize import brentq

    def bounded(logarithm: float) -> float:
        return min(float(falling(math.exp(logarithm))), 1e300)

    low = high = math.log(float(values.max()))
    while bounded(low) < 0:
        low -= 4.0
    while bounded(high) > 0:
        high += 4.0
    if low == high:
        return math.exp(low)
    return math.exp(brentq(bounded, low, high, xtol=1e-14, rtol=1e-14, maxiter=500))
