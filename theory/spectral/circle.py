r"""Spectral algorithms on the circle, in closed form: N equidistant samples, Fourier modes.

A translation-invariant kernel with eigenvalues ``(|l| + 1)^-nu`` and a target with
``|c_l|^2 = (|l| + 1)^(-kappa - 1)`` over frequencies ``l`` in Z, sampled at N equidistant points
with noise of variance ``sigma^2``. On the grid the frequencies ``k + N m`` are one, so that with
``g = h(l_hat) / l_hat`` the loss, averaged over shifts of the grid, is

.. math:: \frac12 \sum_{k<N} \Big[ C_k - 2 g_k S_k
          + g_k^2 \Lambda_k \Big( C_k + \frac{\sigma^2}{N} \Big) \Big],

``l_hat = sum lambda``, ``C = sum |c|^2``, ``S = sum lambda |c|^2``, ``Lambda = sum lambda^2``
over the aliases. These are Hurwitz zeta functions: N may be large. The loss is quadratic in
each ``g``, so the best profile is explicit, ``g = S / (Lambda (C + sigma^2 / N))``.

References
----------
Velikanov, Panov and Yarotsky, "Generalization error of spectral algorithms", ICLR 2024 (the
formula is derived here and tested against explicit regressions).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.spectral.profiles import CutOff, GradientFlow, Interpolation, Profile, Ridge

__all__ = ["CircleModel", "CircleOptimum"]

Array = np.ndarray[Any, np.dtype[np.float64]]

FAMILIES = ("ridge", "flow", "cut-off")


@dataclass(frozen=True)
class CircleOptimum:
    """The least loss in a family of profiles; ``profile`` is None for the best of all."""

    loss: float
    profile: Profile | None


class AliasSums(NamedTuple):
    """Sums over the aliases of each of N frequencies, and without the main one; all (N,)."""

    grid: Array
    power: Array
    cross: Array
    squares: Array
    first_value: Array
    first_power: Array
    rest_power: Array
    rest_cross: Array
    rest_squares: Array


@dataclass(frozen=True)
class CircleModel:
    """The model of the module's text.

    Attributes
    ----------
    eigenvalue_exponent : float
        ``nu > 1``.
    target_exponent : float
        ``kappa > 0``.
    noise : float
        Variance ``sigma^2`` of the label noise.
    """

    eigenvalue_exponent: float
    target_exponent: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 1 < self.eigenvalue_exponent < math.inf:
            raise InputError(f"eigenvalue_exponent={self.eigenvalue_exponent!r}: above 1")
        if not 0 < self.target_exponent < math.inf:
            raise InputError(f"target_exponent={self.target_exponent!r}: above 0")
        if not 0 <= self.noise < math.inf:
            raise InputError(f"noise={self.noise!r}: a variance >= 0")

    def loss(self, samples: int, profile: Profile) -> float:
        """The expected loss, half the mean squared error, of a spectral algorithm."""
        sums = self._sums(samples)
        return self._loss(samples, sums, profile.inverse(sums.grid))

    def optimal(self, samples: int, family: str = "any") -> CircleOptimum:
        """The least loss that any profile reaches, or one of a family with its best parameter.

        Parameters
        ----------
        samples : int
        family : {"any", "ridge", "flow", "cut-off"}
            The families with one parameter include interpolation, their limit.
        """
        sums = self._sums(samples)
        grid, power, cross, squares = sums[:4]
        if family == "any":
            best = cross / (squares * (power + self.noise / samples))
            return CircleOptimum(self._loss(samples, sums, best), None)
        if family not in FAMILIES:
            raise InputError(f"family={family!r}: 'any', {', '.join(map(repr, FAMILIES))}")
        interpolant = CircleOptimum(
            self._loss(samples, sums, Interpolation().inverse(grid)), Interpolation()
        )
        found = self._cut(samples, sums) if family == "cut-off" else self._tuned(samples, family)
        return min((found, interpolant), key=lambda optimum: optimum.loss)

    def observations(self, samples: int, profile: Profile) -> float:
        """The loss of the naive model of noisy observations: N coefficients seen with noise.

        ``1/2 sum_l [(1 - h(lambda_l))^2 |c_l|^2 + sigma^2 / N h(lambda_l)^2]`` over the N
        frequencies of the grid, and the power of all others: the circle without aliasing.
        """
        sizes = np.abs(np.fft.fftfreq(samples, 1.0 / samples)) + 1.0
        power = sizes ** (-self.target_exponent - 1)
        h = profile(sizes**-self.eigenvalue_exponent)
        tail = self._total() - float(power.sum())
        seen = (1 - h) ** 2 * power + self.noise / samples * h**2
        return 0.5 * (float(seen.sum()) + max(0.0, tail))

    def _total(self) -> float:
        from scipy.special import zeta

        return 2.0 * float(zeta(self.target_exponent + 1)) - 1.0

    def _tuned(self, samples: int, family: str) -> CircleOptimum:
        from scipy.optimize import minimize_scalar

        sums = self._sums(samples)

        def made(logarithm: float) -> Profile:
            if family == "ridge":
                return Ridge(math.exp(logarithm))
            return GradientFlow(math.exp(-logarithm))

        def at(logarithm: float) -> float:
            return self._loss(samples, sums, made(logarithm).inverse(sums.grid))

        low = 2.0 * math.log(float(sums.grid.min())) - 4.0
        places = np.linspace(low, 4.0, 61)
        best = int(np.argmin([at(float(p)) for p in places]))
        bounds = (places[max(0, best - 1)], places[min(60, best + 1)])
        found = minimize_scalar(at, bounds=bounds, method="bounded", options={"xatol": 1e-10})
        return CircleOptimum(float(found.fun), made(float(found.x)))

    def _cut(self, samples: int, sums: AliasSums) -> CircleOptimum:
        grid, power, cross, squares = sums[:4]
        inverse = 1.0 / grid
        change = inverse**2 * squares * (power + self.noise / samples) - 2.0 * inverse * cross
        order = np.argsort(-grid, kind="stable")
        totals = np.cumsum(change[order])
        # Eigenvalues come in equal pairs (k and N - k): a threshold can only cut between values.
        gaps = np.append(np.diff(grid[order]) < -1e-12 * grid[order][1:], True)
        totals = np.where(gaps, totals, np.inf)
        profile = CutOff(float(grid[order][int(np.argmin(totals))]) * (1 - 1e-13))
        return CircleOptimum(self._loss(samples, sums, profile.inverse(grid)), profile)

    def _loss(self, samples: int, sums: AliasSums, g: Array) -> float:
        # The main frequency and its aliases apart: C - 2 g S + g^2 Lambda C is a difference of
        # near numbers where a coefficient is learnt well, and here it is a square.
        main = g * sums.first_value
        each = sums.first_power * (1.0 - main) ** 2 + main**2 * sums.rest_power
        each += sums.rest_power - 2.0 * g * sums.rest_cross + g**2 * sums.rest_squares * sums.power
        each += g**2 * sums.squares * (self.noise / samples)
        return 0.5 * float(np.sum(each))

    def _sums(self, samples: int) -> AliasSums:
        if samples != int(samples) or samples < 2:
            raise InputError(f"samples={samples!r}: a whole number >= 2")
        return _alias_sums(self.eigenvalue_exponent, self.target_exponent, int(samples))


@functools.lru_cache(maxsize=16)
def _alias_sums(nu: float, kappa: float, n: int) -> AliasSums:
    from scipy.special import zeta

    k = np.arange(n, dtype=np.float64)
    least = np.minimum(k, n - k)  # the size of the main frequency of each alias class

    def first(exponent: float) -> Array:
        return np.asarray((least + 1.0) ** -exponent)

    def rest(exponent: float) -> Array:
        """``sum (|k + n m| + 1)^-exponent`` over all integers m but the main one's."""
        ends = zeta(exponent, (least + 1) / n + 1) + zeta(exponent, (n - least + 1) / n)
        return np.asarray(n**-exponent * ends)

    exponents = (nu, kappa + 1, nu + kappa + 1, 2 * nu)
    _, power, cross, squares = rests = [rest(e) for e in exponents]
    grids = [first(e) + other for e, other in zip(exponents, rests, strict=True)]
    return AliasSums(
        grid=grids[0],
        power=grids[1],
        cross=grids[2],
        squares=grids[3],
        first_value=first(nu),
        first_power=first(kappa + 1),
        rest_power=power,
        rest_cross=cross,
        rest_squares=squares,
    )
