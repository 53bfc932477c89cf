r"""Criticality: the edge of chaos, the phase of an initialisation, and how slowly inputs merge.

The edge of chaos is the curve of ``(C_b, C_W)`` with ``chi_perp = 1`` at the fixed point ``q``; it
is parametrised by ``q``. On it ``1 - c`` decays as a power of the depth ``l``:

.. math:: 1 - c_l \sim \frac{2}{C_W q E[phi''^2]}\, l^{-1} \;\; (\text{smooth}), \qquad
          1 - c_l \sim \frac{4}{\kappa^2}\, l^{-2}, \;\;
          \kappa = \frac{2}{3} C_W \sqrt{\frac{q}{\pi}} \sum_k J_k^2\, p_q(k) \;\; (\text{kinks}),

with ``J_k`` the jump of ``phi'`` at ``k`` and ``p_q`` the density of N(0, q). (The sum comes from
``E[phi'(u) phi'(v)] = E phi'^2 - (1/2) E(phi'(u) - phi'(v))^2``, where a kink counts if it lies
between ``u`` and ``v``; for ReLU ``4 / kappa^2 = 9 pi^2 / 2``.) Off the curve it is exponential.

References
----------
Hayou, Doucet, Rousseau, "On the Impact of the Activation Function on Deep Neural Networks
Training", arXiv 1902.06853, Propositions 2 and 3; Schoenholz et al., arXiv 1611.01232.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.activations.moments import gaussian_integral
from tangency.models.errors import InputError
from tangency.models.namespace import numpy_namespace
from tangency.theory.propagation.gauss import Array, record_of, slope_jumps
from tangency.theory.propagation.maps import DepthMap

__all__ = ["CorrelationRate", "Edge", "Phase", "correlation_rate", "edge_of_chaos", "phase"]

_CRITICAL = 1e-9  # |chi_perp - 1| below which an initialisation counts as critical


@dataclass(frozen=True, eq=False)
class Edge:
    """Points of the edge of chaos, by their fixed point; NaN where there is none.

    Attributes
    ----------
    activation : Activation
    variances, weight_variances, bias_variances : (m,) arrays
        ``q``, ``C_W`` and ``C_b``.
    """

    activation: Activation
    variances: Array
    weight_variances: Array
    bias_variances: Array

    def plot(self) -> Any:
        """The curve in the plane of the standard deviations; a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(np.sqrt(self.bias_variances), np.sqrt(self.weight_variances), ".-")
        axes.set_xlabel("σ_b (standard deviation of the biases)")
        axes.set_ylabel("σ_w (of the weights, times √width)")
        axes.set_title(f"Edge of chaos, {self.activation}")
        return figure


@dataclass(frozen=True)
class Phase:
    """Where an initialisation stands.

    Attributes
    ----------
    name : str
        "ordered" (inputs merge exponentially), "chaotic" (they part), "critical", or "divergent"
        (variances grow without bound; what follows is then NaN).
    variance : float
        The fixed point of the variance; 0 or infinity where there is none.
    parallel, perpendicular : float
        The two susceptibilities there.
    correlation : float
        The correlation that two inputs reach in the deep.
    depth_scale : float
        Layers in which ``|c - c_deep|`` falls by a factor e; infinite at criticality.
    """

    name: str
    variance: float
    parallel: float
    perpendicular: float
    correlation: float
    depth_scale: float


@dataclass(frozen=True)
class CorrelationRate:
    """On the edge of chaos, ``1 - c_l ~ constant * l**(-power)``."""

    power: int
    constant: float


def edge_of_chaos(activation: Activation | str, variances: Iterable[float]) -> Edge:
    """The edge of chaos at the given fixed points ``q``.

    Raises
    ------
    InputError
        If a variance is not positive, or the activation has no Gaussian moments.
    """
    record = record_of(activation)
    q = np.asarray(list(variances), dtype=np.float64)
    points = [record.critical_initialisation(float(v)) for v in q]
    weight = np.array([p.weight_variance if p.exists else math.nan for p in points])
    bias = np.array([p.bias_variance if p.exists else math.nan for p in points])
    return Edge(record, q, weight, bias)


def phase(layer: DepthMap, variance: float = 1.0) -> Phase:
    """The phase of an initialisation, for inputs of the given variance.

    >>> phase(DepthMap("tanh", 2.25, 0.0025)).name
    'chaotic'
    """
    q = layer.fixed_point(variance)
    if q == math.inf:
        return Phase("divergent", q, *[math.nan] * 4)
    at = q if q > 1e-12 else 1e-8  # a limit, where the fixed point is 0
    along, across = layer.parallel(at), float(layer.perpendicular(at))
    critical = abs(across - 1.0) <= (_CRITICAL if at == q else 1e-6)
    if critical or across < 1.0:
        scale = math.inf if critical else _scale(across)
        return Phase("critical" if critical else "ordered", q, along, across, 1.0, scale)
    delta, rate = _parting(layer, at)
    return Phase("chaotic", q, along, across, 1.0 - delta, _scale(rate))


def correlation_rate(activation: Activation | str, variance: float = 1.0) -> CorrelationRate:
    """The rate at which two inputs merge on the edge of chaos of fixed point ``variance``.

    >>> round(correlation_rate("relu").constant, 4)  # 9 pi^2 / 2
    44.4132

    Raises
    ------
    InputError
        If there is no critical initialisation at this variance, or ``phi`` jumps, or ``phi`` is
        linear (correlations do not move).
    """
    record = record_of(activation)
    critical = record.critical_initialisation(variance)
    if not critical.exists:
        raise InputError(f"{record} has no critical initialisation at variance {variance:g}")
    weight = critical.weight_variance
    jumps = slope_jumps(record)
    if jumps:
        density = [math.exp(-(k**2) / (2.0 * variance)) * jump**2 for k, jump in jumps]
        total = sum(density) / math.sqrt(2.0 * math.pi * variance)
        kappa = 2.0 / 3.0 * weight * math.sqrt(variance / math.pi) * total
        return CorrelationRate(2, 4.0 / kappa**2)

    def curvature(z: Array) -> Array:
        return np.asarray(record.second_derivative(numpy_namespace, z)) ** 2 + np.zeros_like(z)

    bend, _ = gaussian_integral(curvature, variance)
    if not float(bend) > 1e-13:
        raise InputError(f"{record} is linear: correlations stay as they are at every depth")
    return CorrelationRate(1, 2.0 / (weight * variance * float(bend)))


def _scale(rate: float) -> float:
    rate = abs(rate)
    return 0.0 if rate == 0.0 else math.inf if rate >= 1.0 else -1.0 / math.log(rate)


def _parting(layer: DepthMap, q: float) -> tuple[float, float]:
    """The stable ``delta`` of the chaotic phase, and the slope of the map there."""
    from scipy.optimize import brentq

    def drift(delta: float) -> float:
        return float(layer.correlation(delta, q)) - delta

    grid = np.concatenate([np.geomspace(1e-9, 1e-2, 60), np.linspace(1e-2, 2.0, 200)[1:]])
    signs = layer.correlation(grid, q) - grid
    for low, high, before, after in zip(grid[:-1], grid[1:], signs[:-1], signs[1:], strict=True):
        if before > 0.0 >= after:
            delta = float(brentq(drift, low, high, xtol=1e-15, rtol=1e-13))
            step = 1e-5 * min(delta, 2.0 - delta, 1.0) or 1e-9
            sides = [float(layer.correlation(delta + s, q)) for s in (-step, step)]
            return delta, (sides[1] - sides[0]) / (2.0 * step)
    return 2.0 if signs[-1] > 0.0 else 0.0, 1.0
