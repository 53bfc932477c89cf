r"""The universality class of an activation: what its criticality looks like.

- *scale-invariant*: ``phi(c x) = c phi(x)``; critical at every variance, with ``C_b = 0``.
- *K* = 0*: ``phi(0) = 0`` with a slope, critical at vanishing variance, ``C_b = 0``; there
  ``K' = K - a K^(1+s)`` with ``a > 0``, so that ``K_l ~ (s a l)^(-1/s)``. For smooth functions
  ``s = 1`` and ``a = -(phi'''/phi' + (3/4) (phi''/phi')^2)`` at 0 (tanh: 2). What is straight
  about 0 and bends farther out (hardtanh) has no power: ``K_l`` falls like ``1 / log l``.
- *half-stable*: both susceptibilities are 1 at a fixed point ``K* > 0`` (SiLU, GELU).
- *none*: no ``C_W > 0, C_b >= 0`` makes both susceptibilities 1 (sigmoid, softplus, jumps).

The decay of a K* = 0 activation is measured on Gaussian averages at small ``K``, not taken from a
Taylor series, so that bends at 0 (ELU: ``s = 1/2``) are in.

References
----------
Roberts, Yaida, Hanin, "The Principles of Deep Learning Theory", arXiv 2106.10165, chapter 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tangency.models.activations import Activation
from tangency.theory.propagation.gauss import averages, record_of
from tangency.theory.propagation.maps import DepthMap

__all__ = ["UniversalityClass", "universality_class"]

_SMALL = (1e-4, 1e-5, 1e-6)  # variances at which the drift near 0 is measured, or smaller ones
_SCAN = np.geomspace(1e-2, 1e3, 41)  # variances between which a half-stable point is sought


@dataclass(frozen=True)
class UniversalityClass:
    """The class of an activation, and its critical initialisation.

    Attributes
    ----------
    name : str
        "scale-invariant", "K* = 0", "half-stable" or "none".
    weight_variance, bias_variance : float or None
        The critical ``C_W`` and ``C_b``; None where there is none.
    variance : float or None
        The fixed point ``K*``; None where every variance is one, or there is none.
    power, strength : float or None
        For K* = 0: ``s`` and ``a`` of ``K' = K - a K^(1+s)``.
    """

    name: str
    weight_variance: float | None = None
    bias_variance: float | None = None
    variance: float | None = None
    power: float | None = None
    strength: float | None = None

    def __str__(self) -> str:
        if self.weight_variance is None or self.bias_variance is None:
            return self.name
        text = f"{self.name}: C_W = {self.weight_variance:.5g}, C_b = {self.bias_variance:.5g}"
        if self.variance:
            text += f" at K* = {self.variance:.5g}"
        if self.power is not None and self.strength is not None:
            text += f"; K ~ ({self.power * self.strength:.4g} l)^{-1.0 / self.power:.3g}"
        return text


def universality_class(activation: Activation | str) -> UniversalityClass:
    """Classify an activation.

    >>> str(universality_class("tanh"))
    'K* = 0: C_W = 1, C_b = 0; K ~ (2 l)^-1'

    Raises
    ------
    InputError
        If the activation has no Gaussian moments.
    """
    record = record_of(activation)
    if record.staircase or record.jumps:
        return UniversalityClass("none")
    if record.homogeneous == 1:
        critical = record.critical_initialisation()
        return UniversalityClass("scale-invariant", critical.weight_variance, 0.0)
    return _vanishing(record) or _half_stable(record) or UniversalityClass("none")


def _vanishing(record: Activation) -> UniversalityClass | None:
    """Criticality at variance 0, where the map does not lead away from it."""
    step = 1e-12
    right, left = float(record.slope(step)), float(record.slope(-step))
    steep = (right**2 + left**2) / 2.0
    if not (abs(float(record(0.0))) < 1e-15 and 1e-12 < steep < math.inf):
        return None
    weight = 1.0 / steep
    shrink = 1.0
    while abs(_drift(record, weight, _SMALL[0] * shrink)) > 1e-3 and shrink > 1e-6:
        shrink *= 0.1  # an activation of a scale of its own (sine of 30 x)
    small = tuple(k * shrink for k in _SMALL)
    drifts = [_drift(record, weight, k) for k in small]
    if max(map(abs, drifts)) < 1e-13:  # linear, or bent at 0 alone, on all that they see
        far = np.array([-1e3, -40.0, -3.0, 3.0, 40.0, 1e3])
        if np.allclose(record(far), 1e9 * record(far * 1e-9), rtol=1e-9, atol=0.0):
            return UniversalityClass("scale-invariant", weight, 0.0)
        return UniversalityClass("K* = 0", weight, 0.0, 0.0)
    if min(map(abs, drifts)) < 1e-13 or drifts[1] > 0.0 or drifts[2] > 0.0:
        return None
    power = math.log(drifts[1] / drifts[2]) / math.log(small[1] / small[2])
    power = round(2.0 * power) / 2.0
    if power < 0.5:
        return None
    # Richardson's step takes the next order, half a power of K further, out of the ratio.
    one, two = (-d / k**power for d, k in zip(drifts[:2], small[:2], strict=True))
    ratio = 10.0 ** (1.0 if _smooth(record) else 0.5)
    return UniversalityClass(
        "K* = 0", weight, 0.0, 0.0, power, float((ratio * two - one) / (ratio - 1.0))
    )


def _drift(record: Activation, weight: float, k: float) -> float:
    """``K'/K - 1``."""
    return weight * float(averages(record, k, lambda f, _: [f * f])[0, 0]) / k - 1.0


def _smooth(record: Activation) -> bool:
    """Whether the second derivative does not jump at 0."""
    sides = [float(record.slope(s * 1e-4)) for s in (-1.0, 0.0, 1.0)]
    return abs(sides[2] - 2.0 * sides[1] + sides[0]) < 1e-6


def _half_stable(record: Activation) -> UniversalityClass | None:
    """Criticality at a variance ``K* > 0``."""
    from scipy.optimize import brentq

    def mismatch(k: float) -> float:
        far = np.array([-12.0, 12.0]) * math.sqrt(k)
        tail = float(np.max(np.abs(record(far))))
        if not tail < 1e30:
            return math.nan  # exp and its kin: the average lies beyond the quadrature's reach
        parts = averages(record, k, lambda f, d: [f * f, d * d], 1)
        if not (parts[0] > 0.0).all() or tail**2 * math.exp(-72.0) > 1e-10 * parts[0, 0]:
            return math.nan
        return float(parts[1, 0] / parts[0, 1]) - 1.0

    found = [mismatch(float(k)) for k in _SCAN]
    for i in range(len(_SCAN) - 1):
        before, after = found[i], found[i + 1]
        if not (math.isfinite(before) and math.isfinite(after)) or before * after >= 0.0:
            continue
        if min(abs(before), abs(after)) < 1e-10:
            continue  # rounding about an asymptote, not a crossing
        k = float(brentq(mismatch, float(_SCAN[i]), float(_SCAN[i + 1]), xtol=1e-13, rtol=1e-13))
        layer = DepthMap(record, 1.0)
        weight = 1.0 / float(layer.perpendicular(k))
        bias = k - weight * float(layer.variance(k))
        if bias >= 0.0:
            return UniversalityClass("half-stable", weight, bias, k)
    return None
