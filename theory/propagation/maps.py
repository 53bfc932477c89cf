r"""The maps of variance and correlation from one layer of an infinitely wide network to the next.

For weights ``N(0, C_W / n)`` and biases ``N(0, C_b)``,

.. math:: K' = C_b + C_W E[phi(\sqrt K z)^2], \qquad
          \chi_\parallel = \frac{dK'}{dK}, \qquad
          \chi_\perp = C_W E[phi'(\sqrt K z)^2],

and two inputs of common variance ``K`` and correlation ``c = 1 - delta`` go to
``c' = (C_b + C_W E[phi(u) phi(v)]) / K'``. Correlations are carried as ``delta``: near ``c = 1``
all that matters is in it, and a subtraction would lose it after some ten thousand layers.

References
----------
Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232; Hayou, Doucet, Rousseau,
arXiv 1902.06853; Roberts, Yaida, Hanin, arXiv 2106.10165.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.theory.kernels.duals import DualFunction, dual_of
from tangency.theory.propagation.gauss import Array, averages, record_of

__all__ = ["DepthMap"]

_SMALLEST, _LARGEST = 1e-12, 1e12  # variances beyond are taken for 0 and infinity


@dataclass(frozen=True)
class DepthMap:
    """One layer of an infinitely wide network, as a map of variances and correlations.

    Parameters
    ----------
    activation : Activation or str
        A record, or the name of one.
    weight_variance, bias_variance : float
        ``C_W`` and ``C_b`` (``sigma_w^2`` and ``sigma_b^2``).

    Examples
    --------
    >>> layer = DepthMap("relu", 2.0)
    >>> layer.variance(3.0).round(12), layer.perpendicular(3.0).round(12)
    (np.float64(3.0), np.float64(1.0))
    """

    activation: Activation
    weight_variance: float
    bias_variance: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation", record_of(self.activation))
        if not 0.0 < self.weight_variance < math.inf:
            raise InputError(f"weight_variance must be positive, not {self.weight_variance}")
        if not 0.0 <= self.bias_variance < math.inf:
            raise InputError(f"bias_variance must not be negative, not {self.bias_variance}")

    @functools.cached_property
    def _dual(self) -> DualFunction:
        return dual_of(self.activation)

    def variance(self, variance: Any) -> Array:
        """``K'`` for variances ``K`` of any shape."""
        with np.errstate(over="ignore"):
            second = self._dual.variance(_positive(variance))
            return np.asarray(self.bias_variance + self.weight_variance * second)[()]

    def perpendicular(self, variance: Any) -> Array:
        """``chi_perp = C_W E phi'^2``: what happens to the distance of two near inputs."""
        slope = self._dual.slope_variance(_positive(variance))
        if self.activation.staircase or self.activation.jumps:
            slope = np.full_like(slope, math.inf)  # the slope of a jump has no square
        return np.asarray(self.weight_variance * slope)[()]

    def parallel(self, variance: float) -> float:
        """``chi_par = dK' / dK``: what happens to a change of the variance itself."""
        q = float(_positive(variance))
        if q == 0.0:
            raise InputError("chi_parallel at variance 0 is a limit: ask for a small variance")
        change = averages(self.activation, q, lambda f, _: [f * f], 1)
        return self.weight_variance * float(change[1, 0])

    def correlation(self, delta: Any, variance: Any) -> Array:
        """``1 - c'`` from ``delta = 1 - c`` of two inputs of one variance; arrays that broadcast.

        Raises
        ------
        InputError
            If ``delta`` leaves [0, 2].
        """
        q, delta = _positive(variance), np.asarray(delta, dtype=np.float64)
        if not bool(((delta >= 0.0) & (delta <= 2.0)).all()):
            raise InputError("delta = 1 - correlation must lie in [0, 2]")
        own = self.weight_variance * self._dual.variance(q)
        pair = self._dual.pair(q, q, q * (1.0 - delta), delta)
        return np.asarray(pair.delta * own / (self.bias_variance + own))[()]

    def variances(self, variance: float, depth: int) -> Array:
        """Variances ``K_0 ... K_depth``, ``(depth + 1,)`` array, from ``K_0 = variance``."""
        out = np.empty(depth + 1)
        out[0] = variance
        for layer in range(depth):
            out[layer + 1] = self.variance(out[layer])
        return out

    def correlations(self, delta: float, variance: float, depth: int) -> Array:
        """``1 - c`` of two inputs layer by layer, ``(depth + 1,)`` array."""
        out, q = np.empty(depth + 1), float(variance)
        out[0] = delta
        for layer in range(depth):
            out[layer + 1] = self.correlation(out[layer], q)
            q = float(self.variance(q))
        return out

    def fixed_point(self, variance: float = 1.0) -> float:
        """The variance that deep layers reach from this one: 0 and infinity where they do.

        It is the first fixed point in the direction in which the map moves. A decreasing map
        (even bells) may jump over it; ``parallel`` tells.
        """
        from scipy.optimize import brentq

        def drift(q: float) -> float:
            return float(self.variance(q)) - q

        start = float(_positive(variance))
        here = drift(start)
        if abs(here) <= 4e-16 * start:
            return start
        factor = 1.05 if here > 0.0 else 1.0 / 1.05
        low = start
        while _SMALLEST < low < _LARGEST:
            steps = low * factor ** np.arange(1.0, 17.0)
            turned = np.flatnonzero((self.variance(steps) - steps) * here <= 0.0)
            if turned.size:
                high = float(steps[turned[0]])
                low = high / factor if turned[0] else low
                ends = (min(low, high), max(low, high))
                return float(brentq(drift, *ends, xtol=1e-300, rtol=1e-14))
            low = float(steps[-1])
        return 0.0 if here < 0.0 else math.inf


def _positive(variance: Any) -> Array:
    q = np.asarray(variance, dtype=np.float64)
    if not bool((q >= 0.0).all()):
        raise InputError("a variance must not be negative")
    return q
