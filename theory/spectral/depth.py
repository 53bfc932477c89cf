r"""Infinitely deep networks as classifiers: majority vote, nearest neighbour, singular kernel.

On the unit sphere a network normalised to ``E phi(z)^2 = 1`` maps a cosine to ``psi(cos)``, layer
by layer. With ``psi(0) = A^2``, ``psi'(0) = A'^2`` and ``psi'(1) = B'``: where ``A != 0`` all
cosines go to 1 and the classifier votes by majority; where ``A = A' = 0`` it is the nearest
neighbour; else the kernels ``psi^L / psi'(0)^L`` converge to a kernel that is singular on the
diagonal, ``R(|x - x'|) / |x - x'|^alpha`` with ``alpha = -4 ln|A'| / ln B'``. It is consistent,
optimal in the limit of many samples, where ``alpha`` is the dimension of the sphere.

References
----------
Radhakrishnan, Belkin and Uhler, "Wide and deep neural networks achieve consistency for
classification", PNAS 2023, arXiv 2204.14126.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.kernels.duals import DualFunction, Polynomial, dual_of, hermite_polynomial

__all__ = [
    "DepthLimit",
    "deep_correlation",
    "depth_limit",
    "explicit_activation",
    "optimal_sine",
    "singular_kernel",
]

Array = np.ndarray[Any, np.dtype[np.float64]]

_ZERO = 1e-12  # of E phi^2: moments below this are rounding
_MOST = 10_000

#: Dimension -> coefficients of powers in the dual; published with the paper's experiments.
_EXPLICIT = {
    1: {1: 1 / 2, 7: 1 / 2},
    2: {1: 1 / 2, 3: 1 / 2},
    4: {1: 1 / 4, 2: 1 / 2, 3: 1 / 4},
    8: {1: 1 / 16, 2: 7 / 8, 3: 1 / 16},
}


@dataclass(frozen=True)
class DepthLimit:
    """What the infinitely deep normalised network is.

    Attributes
    ----------
    kind : {"majority vote", "nearest neighbour", "singular kernel"}
    exponent : float or None
        ``alpha`` of a singular kernel.
    mean, slope_mean : float
        ``psi(0) = A^2`` and ``psi'(0) = A'^2`` of the normalised activation.
    slope_second : float
        ``psi'(1) = B'``.
    """

    kind: str
    exponent: float | None
    mean: float
    slope_mean: float
    slope_second: float


def depth_limit(activation: Any) -> DepthLimit:
    """Classify an activation by its dual.

    Parameters
    ----------
    activation : Activation, str or DualFunction
        What :func:`tangency.theory.kernels.dual_of` accepts.

    Raises
    ------
    InputError
        Where the activation is zero, or linear (its limit is the linear kernel).
    """
    dual = dual_of(activation)
    second = _second(dual)
    pair = dual.pair(1.0, 1.0, 0.0)
    mean, slope_mean = float(pair.k) / second, float(pair.slope) / second
    slope_second = float(dual.slope_variance(1.0)) / second
    if mean > _ZERO:
        return DepthLimit("majority vote", None, mean, slope_mean, slope_second)
    if slope_mean <= _ZERO:
        return DepthLimit("nearest neighbour", None, 0.0, 0.0, slope_second)
    if slope_second <= 1.0 + _ZERO:
        raise InputError("a linear activation has no singular limit: psi(cos) = cos")
    alpha = -2.0 * math.log(slope_mean) / math.log(slope_second)
    return DepthLimit("singular kernel", alpha, 0.0, slope_mean, slope_second)


def deep_correlation(activation: Any, delta: Any, depth: int, *, get: str = "nngp") -> Array:
    """The kernel of a normalised network of some depth, of pairs on the unit sphere.

    Parameters
    ----------
    activation : Activation, str or DualFunction
    delta : array
        ``1 - cos = |x - x'|^2 / 2`` of the pairs; given so, and not as a cosine, near pairs keep
        their relative precision.
    depth : int
        Hidden layers.
    get : {"nngp", "ntk"}
        ``Sigma_L``, or ``K_{l+1} = Sigma_{l+1} + K_l psi'(Sigma_l)`` from ``K_0 = cos``.

    Returns
    -------
    array of delta's shape

    Raises
    ------
    InputError
        For a negative depth, delta outside [0, 2], or another ``get``.
    """
    if get not in ("nngp", "ntk"):
        raise InputError(f"get={get!r}: 'nngp' or 'ntk'")
    if isinstance(depth, bool) or depth != int(depth) or depth < 0:
        raise InputError(f"depth={depth!r}: a whole number >= 0")
    dual, gap = dual_of(activation), _gap(delta)
    second, cos = _second(dual), 1.0 - gap
    tangent = cos.copy()
    for _ in range(int(depth)):
        pair = dual.pair(1.0, 1.0, cos, gap)
        cos, gap = pair.k / second, pair.delta
        if get == "ntk":
            tangent = cos + tangent * pair.slope / second
        elif not cos.any():
            break
    return tangent if get == "ntk" else cos


def singular_kernel(activation: Any, delta: Any) -> Array:
    """The limit of ``psi^L(cos) / psi'(0)^L`` with depth; infinite on the diagonal.

    For odd activations it is minus infinity at opposite points.
    Each step multiplies by ``psi(c) / (psi'(0) c)``, which tends to 1 as the cosine falls: the
    product is taken until it no longer changes.

    Parameters
    ----------
    activation : Activation, str or DualFunction
    delta : array
        ``1 - cos``, in [0, 2].

    Raises
    ------
    InputError
        Where the activation's limit is no singular kernel.
    """
    dual = dual_of(activation)
    limit = depth_limit(dual)
    if limit.kind != "singular kernel":
        raise InputError(f"the infinitely deep limit is {limit.kind}, no singular kernel")
    gap = _gap(delta)
    second, cos, far = _second(dual), 1.0 - gap, gap > 0
    value = np.where(far, cos, np.inf)
    for _ in range(_MOST):
        live = far & (np.abs(cos) > 1e-13)
        if not live.any():
            break
        pair = dual.pair(1.0, 1.0, cos, gap)
        after = pair.k / second
        # Opposite points of an odd activation stay opposite: singular like the diagonal.
        opposite = live & (after <= -1.0 + 1e-15) & (cos <= -1.0 + 1e-15)
        value[opposite] = -np.inf
        live &= ~opposite
        value[live] *= after[live] / (limit.slope_mean * cos[live])
        cos, gap = np.where(live, after, 0.0), np.where(live, pair.delta, 1.0)
    return value


def explicit_activation(dimension: int) -> DualFunction:
    """The paper's polynomial activation whose deep limit is optimal on a sphere.

    ``phi = sum sqrt(c_j) h_j`` in normalised Hermite polynomials has the dual
    ``psi(t) = sum c_j t^j``: (t^7+t)/2, (t^3+t)/2, t^3/4+t^2/2+t/4 and t^3/16+7t^2/8+t/16.

    Parameters
    ----------
    dimension : {1, 2, 4, 8}

    Raises
    ------
    InputError
        For other dimensions; :func:`optimal_sine` serves those above 1.
    """
    if dimension not in _EXPLICIT:
        raise InputError(f"dimension={dimension!r}: 1, 2, 4 or 8; optimal_sine serves any above 1")
    powers = np.zeros(max(_EXPLICIT[dimension]) + 1)
    for degree, weight in _EXPLICIT[dimension].items():
        hermite = np.asarray(hermite_polynomial(degree)) * math.sqrt(weight)
        powers[: degree + 1] += hermite
    return Polynomial(None, tuple(float(p) for p in powers))


@functools.cache
def optimal_sine(dimension: float) -> DualFunction:
    """The sine ``sin(omega x)`` whose infinitely deep limit has ``alpha = dimension``.

    Its normalised dual is ``sinh(a t) / sinh(a)`` with ``a = omega^2``, so that
    ``alpha = -2 ln(a / sinh a) / ln(a coth a)``, which grows from 1 at ``a = 0`` without bound.

    Parameters
    ----------
    dimension : float
        Above 1.

    Raises
    ------
    InputError
        At or below 1, or beyond 16, where the slope at 0 is rounding.
    """
    from scipy.optimize import brentq

    from tangency.models.activations import get

    if not 1.001 <= dimension <= 16:
        raise InputError(f"dimension={dimension!r}: from 1.001 to 16")

    def excess(a: float) -> float:
        shrink = math.log(a) - math.log(math.sinh(a))
        return -2.0 * shrink / math.log(a / math.tanh(a)) - dimension

    a = brentq(excess, 1e-2, 700.0, xtol=1e-13)
    return dual_of(get("sine", omega=math.sqrt(a)))


def _second(dual: DualFunction) -> float:
    second = float(dual.variance(1.0))
    if not second > 0:
        raise InputError("the activation is zero almost everywhere: it cannot be normalised")
    return second


def _gap(delta: Any) -> Array:
    gap = np.array(delta, np.float64)
    if not ((gap >= 0) & (gap <= 2 + 1e-12)).all():
        raise InputError("delta: 1 - cos lies in [0, 2]")
    return gap
