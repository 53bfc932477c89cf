"""Gaussian moments of an activation, and what they say about deep networks."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.namespace import numpy_namespace

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = [
    "CriticalInitialisation",
    "DeepLimit",
    "GaussianMoments",
    "critical_initialisation",
    "deep_limit",
    "gaussian_integral",
    "gaussian_moments",
]

Array = np.ndarray[Any, np.dtype[np.float64]]

_REACH = 14.0  # standard deviations; beyond them N(0, 1) weighs 1e-44
_NODES = 32


@dataclass(frozen=True)
class GaussianMoments:
    """Moments under ``z ~ N(0, variance)``; ``error`` estimates their largest relative error."""

    variance: float
    mean: float
    second: float
    slope_mean: float
    slope_second: float
    error: float


@dataclass(frozen=True)
class CriticalInitialisation:
    """Variances at which the depth map has fixed point q and slope chi_1 = 1.

    ``exists`` is False if the bias variance would be negative: no such critical point at this q.
    """

    variance: float
    weight_variance: float
    bias_variance: float
    exists: bool


@dataclass(frozen=True)
class DeepLimit:
    """Classifier of the infinitely deep normalised network, and the exponent if it is singular."""

    kind: str
    exponent: float | None = None

    def __str__(self) -> str:
        return self.kind if self.exponent is None else f"{self.kind} (alpha = {self.exponent:.3f})"


@functools.cache
def _legendre() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights


def gaussian_integral(
    function: Callable[[Array], Array], variance: float, breaks: tuple[float, ...] = ()
) -> tuple[Array, float]:
    """Integrate ``function(x)`` of shape ``(..., m)`` against N(0, variance).

    Composite Gauss-Legendre between the breaks, on panels refined until two levels agree.

    Returns
    -------
    (values, error)
        ``(...)`` array and the largest relative change in the last refinement.
    """
    sd = math.sqrt(variance)
    reach = _REACH * sd
    # panels of the scale of the Gaussian and, near 0, of the scale of the activation
    edges = [np.linspace(-reach, reach, 57), np.linspace(-min(20.0, reach), min(20.0, reach), 41)]
    edges.append(np.array([k for k in breaks if -reach < k < reach]))
    panels = np.unique(np.concatenate(edges))
    nodes, weights = _legendre()
    last: Array | None = None
    for _ in range(6):
        half = np.diff(panels)[:, None] / 2.0
        x = (panels[:-1, None] + half + half * nodes).ravel()
        density = np.exp(-(x**2) / (2.0 * variance)) / (sd * math.sqrt(2.0 * math.pi))
        with np.errstate(all="ignore"):
            terms = function(x) * (density * (half * weights).ravel())
            # a slope that overflows where the density underflows contributes nothing
            now: Array = np.sum(np.where(density > 0.0, terms, 0.0), axis=-1)
        if last is not None:
            change = float(np.max(np.abs(now - last) / np.maximum(1e-3, np.abs(now))))
            if not change > 1e-12:
                break
        last = now
        panels = np.unique(np.concatenate([panels, (panels[:-1] + panels[1:]) / 2.0]))
    return now, max(change, 1e-15)


@functools.lru_cache(maxsize=1024)
def gaussian_moments(record: "Activation", variance: float = 1.0) -> GaussianMoments:
    """Compute ``E phi``, ``E phi^2``, ``E phi'`` and ``E phi'^2`` under N(0, variance).

    Raises
    ------
    InputError
        If the activation is not defined on the whole line, or a moment is infinite.
    """
    if not variance > 0:
        raise InputError(f"the variance must be positive, not {variance}")
    if record.domain != (-math.inf, math.inf) or record.poles or record.name == "tan":
        raise InputError(
            f"{record} has no Gaussian moments: it is not defined (or not integrable) on the "
            "whole line"
        )
    jumps = record.jumps
    if record.staircase and not jumps:
        reach = math.ceil(_REACH * math.sqrt(variance))
        jumps = tuple(k / 2.0 for k in range(-2 * reach, 2 * reach + 1))
    breaks = (*record.kinks, *jumps)

    def integrand(x: Array) -> Array:
        v = np.broadcast_to(record.value(numpy_namespace, x), x.shape)
        d = np.broadcast_to(record.derivative(numpy_namespace, x), x.shape)
        return np.stack([v, v**2, d, d**2])

    moments, error = gaussian_integral(integrand, variance, breaks)
    if not np.isfinite(moments).all():
        raise InputError(f"a Gaussian moment of {record} at variance {variance} is not finite")
    mean, second, slope_mean, slope_second = (float(m) for m in moments)
    if record.staircase or record.jumps:
        # The slope has Dirac parts: E phi' = E z phi / variance by Stein; its square is infinite.
        stein, _ = gaussian_integral(lambda x: x * record(x) / variance, variance, breaks)
        slope_mean, slope_second = float(stein), math.inf
    if record.parity == "odd":
        mean = 0.0
    if record.parity == "even":
        slope_mean = 0.0
    return GaussianMoments(variance, mean, second, slope_mean, slope_second, error)


def critical_initialisation(record: "Activation", variance: float = 1.0) -> CriticalInitialisation:
    r"""Solve ``sigma_w^2 E phi'^2 = 1`` and ``sigma_b^2 = q - sigma_w^2 E phi^2`` at q = variance.

    For activations of degree 1 (ReLU and its kin, slopes ``a+``, ``a-``) this is
    ``C_W = 2/(a+^2 + a-^2)``, ``C_b = 0`` at every q.

    References
    ----------
    Hayou, Doucet, Rousseau, "On the Impact of the Activation Function on Deep Neural Networks
    Training", arXiv 1902.06853; Roberts, Yaida, Hanin, arXiv 2106.10165.
    """
    if record.homogeneous == 1:
        right, left = float(record.slope(1.0)), float(record.slope(-1.0))
        return CriticalInitialisation(variance, 2.0 / (right**2 + left**2), 0.0, True)
    m = gaussian_moments(record, variance)
    weight = 1.0 / m.slope_second if m.slope_second else math.inf
    bias = variance - weight * m.second
    return CriticalInitialisation(variance, weight, bias, 0.0 < weight < math.inf and bias >= 0.0)


def deep_limit(record: "Activation", variance: float = 1.0) -> DeepLimit:
    """Classify the infinitely deep network, with ``phi`` normalised to ``E phi^2 = 1``.

    With ``A = E phi``, ``A' = E phi'``, ``B' = E phi'^2``: majority vote if ``A != 0``; 1-NN if
    ``A = A' = 0``; else a singular kernel with exponent ``alpha = -4 ln|A'| / ln B'``.

    References
    ----------
    Radhakrishnan, Belkin, Uhler, "Wide and Deep Neural Networks Achieve Optimality for
    Classification", arXiv 2204.14126.
    """
    m = gaussian_moments(record, variance)
    if not 0.0 < m.second < math.inf:
        return DeepLimit("undefined")
    # Moments of z -> phi(sqrt(variance) z) / sqrt(E phi^2): slopes gain sqrt(variance).
    scale = math.sqrt(m.second)
    a, slope = m.mean / scale, m.slope_mean * math.sqrt(variance) / scale
    b = m.slope_second * variance / m.second
    if abs(a) > 1e-9:
        return DeepLimit("majority vote")
    if abs(slope) < 1e-9:
        return DeepLimit("1-NN")
    if not 1.0 + 1e-12 < b < math.inf:
        return DeepLimit("linear" if b < 2.0 else "undefined")
    return DeepLimit("singular", -4.0 * math.log(abs(slope)) / math.log(b))
