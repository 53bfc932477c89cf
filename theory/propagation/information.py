r"""How much one group of output neurons knows of another, and the depth at which that turns.

Given the layer before, the ``m`` outputs of a network are ``N(0, G I)`` with a random variance
``G``: a mixture. Two disjoint groups of ``a`` and ``b`` outputs are uncorrelated, and know of each
other only by ``G``. With ``v = Var(G) / (E G)^2``,

.. math:: I = a b \left(\frac{v^2}{8} - \frac{20 + 3 (a + b)}{48} v^3\right) + O(v^4),

if the third and fourth central moments of ``G / E G`` are ``O(v^2)``, as ``n`` neurons in ``l``
layers make them. (The density over the Gaussian is a series of ``Delta^k`` applied to it, with
coefficients ``E (G - 1)^k / (2^k k!)``; those terms are orthogonal, and at the third order in ``v``
only ``k = 2`` is left, with ``E h_2^2 = 8 m (m + 2)`` and ``E h_2^3 = 64 m (m + 2) (m + 8)``.)

The cubic is greatest at ``v = 4 / (20 + 3 m)``, ``m = a + b``. To leading order
``v = V / (n K^2) = nu l / n``, and

.. math:: r^* = \frac{4}{20 + 3 m} \frac1\nu, \qquad \nu = \frac{3 A_4}{A_2^2} - 1 \;\;
          (\text{scale-invariant}), \qquad
          \nu = \frac13 \left(\frac{3 A_4}{A_2^2} - 1\right) \;\; (K^* = 0),

with ``A_k`` the mean of the powers ``k`` of the two slopes at 0: 5 for ReLU, 2/3 for tanh. (At
``K* = 0`` the recursion of ``V / K^2`` gains ``3 A_4 / A_2^2 - 1`` a layer and loses 2 parts in
``l``, whatever the power by which ``K`` falls; for what bends only away from 0, like hardtanh,
``V / (l K^2)`` approaches ``nu`` as ``1 / log l`` does.)

What ``r*`` is, and what it is not: the maximum is the cubic's. The exact information of a
log-normal ``G``, the law of deep ReLU networks at fixed ``l / n``, has none: it rises as far as it
was computed, and at ``r*`` it is 1.7 to 1.9 times the cubic's. So ``r*`` says where the third order
has caught up with the second, the end of what the expansion describes, not an optimum of the
network.

References
----------
Roberts, Yaida, Hanin, "The Principles of Deep Learning Theory", arXiv 2106.10165, appendix A. The
formulas were derived anew here and tested against quadrature of the exact information.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.propagation.finite_width import finite_width
from tangency.theory.propagation.gauss import Array, record_of
from tangency.theory.propagation.maps import DepthMap
from tangency.theory.propagation.universality import universality_class

__all__ = [
    "AspectRatio",
    "mixture_information",
    "optimal_aspect_ratio",
    "output_information",
    "vertex_growth",
]


@dataclass(frozen=True)
class AspectRatio:
    """Depth over width at which the third-order information of the outputs is greatest.

    Attributes
    ----------
    activation : Activation
    outputs : int
        Number of output neurons, of both groups together.
    growth : float
        ``nu``: ``V / (n K^2) = nu l / n`` at criticality.
    vertex : float
        ``V / (n K^2)`` at the maximum.
    ratio : float
        ``r* = vertex / growth``.
    """

    activation: Activation
    outputs: int
    growth: float
    vertex: float
    ratio: float


def optimal_aspect_ratio(activation: Activation | str, *, outputs: int) -> AspectRatio:
    """``r*`` of a critical network with so many outputs.

    >>> found = optimal_aspect_ratio("relu", outputs=10)
    >>> round(found.ratio, 6), round(found.growth, 6)
    (0.016, 5.0)

    Raises
    ------
    InputError
        If there are fewer than two outputs, or the activation has no Gaussian moments.
    UnsupportedError
        If it has no critical initialisation, or is critical at a variance ``K* > 0`` alone: there
        ``K1`` grows like ``l^2``, and the corrections are no function of ``l / n``.
    """
    record = record_of(activation)
    if outputs < 2:
        raise InputError(f"two groups of outputs need at least 2 outputs, not {outputs}")
    growth = vertex_growth(record)
    kind = universality_class(record)
    if kind.name == "half-stable":
        raise UnsupportedError(
            f"{record} is critical at K* = {kind.variance:.4g} alone, where its mean variance "
            "drifts like l^2 / n: no aspect ratio l / n describes it"
        )
    vertex = 4.0 / (20.0 + 3.0 * outputs)
    return AspectRatio(record, outputs, growth, vertex, vertex / growth)


def vertex_growth(activation: Activation | str) -> float:
    """``nu``, the limit of ``V / (l K^2)`` at the critical initialisation.

    >>> round(vertex_growth("tanh"), 9)
    0.666666667

    Raises
    ------
    InputError
        If the activation has no Gaussian moments.
    UnsupportedError
        If it has no critical initialisation.
    """
    record = record_of(activation)
    kind = universality_class(record)
    if kind.weight_variance is None or kind.bias_variance is None:
        raise UnsupportedError(f"{record} has no critical initialisation: nothing grows like l / n")
    if kind.variance:
        layer = DepthMap(record, kind.weight_variance, kind.bias_variance)
        return float(finite_width(layer, 2, variance=kind.variance).normalised_vertex[1])
    slopes = np.array([float(record.slope(step)) for step in (-1e-12, 1e-12)])
    source = 3.0 * float(np.mean(slopes**4) / np.mean(slopes**2) ** 2) - 1.0
    return source if kind.name == "scale-invariant" else source / 3.0


def output_information(vertex: Any, first: int, second: int) -> Array:
    """The mutual information of two groups of outputs, to the third order, in nats.

    Parameters
    ----------
    vertex : array of any shape
        ``v = V / (n K^2)``, the relative variance of the outputs' variance.
    first, second : int
        Sizes of the groups.

    Raises
    ------
    InputError
        If a group is empty.
    """
    _check_groups(first, second)
    v = np.asarray(vertex, dtype=np.float64)
    cubic = (20.0 + 3.0 * (first + second)) / 48.0
    return np.asarray(first * second * v**2 * (0.125 - cubic * v))[()]


def mixture_information(variances: Array, weights: Array, first: int, second: int) -> float:
    """The exact mutual information of two groups of outputs, in nats, by quadrature.

    Parameters
    ----------
    variances, weights : (m,) arrays
        The law of ``G``: values, positive, and their probabilities.
    first, second : int
        Sizes of the groups.

    Raises
    ------
    InputError
        If a group is empty, or the arrays are no law of a positive variable.
    """
    _check_groups(first, second)
    g, w = (np.asarray(a, dtype=np.float64) for a in (variances, weights))
    if g.ndim != 1 or g.shape != w.shape or not ((g > 0.0).all() and (w >= 0.0).all()):
        raise InputError("variances must be positive and weights not negative, both (m,) arrays")
    w = w / w.sum()
    g = (g / (w @ g))[w > 0.0]
    w = w[w > 0.0]
    whole, *parts = (_divergence(m, g, w) for m in (first + second, first, second))
    return whole - sum(parts)


def _divergence(m: int, g: Array, w: Array) -> float:
    """KL divergence of ``m`` outputs from ``N(0, I)``: an average over their squared length."""
    from scipy.linalg import eigh_tridiagonal
    from scipy.special import logsumexp

    # Gauss's rule for |z|^2 / 2, which has a Gamma law, from its Jacobi matrix: no Gamma function
    k, alpha = np.arange(120.0), m / 2.0 - 1.0
    nodes, vectors = eigh_tridiagonal(2.0 * k + 1.0 + alpha, np.sqrt(k[1:] * (k[1:] + alpha)))
    share = vectors[0] ** 2
    total = 0.0
    for scale, weight in zip(g, w, strict=True):
        # |z|^2 = 2 G x, and log p(z) / N(z; 0, I) as a sum over the mixture
        exponents = np.outer(1.0 - 1.0 / g, scale * nodes) - 0.5 * m * np.log(g)[:, None]
        total += float(weight * (logsumexp(exponents, axis=0, b=w[:, None]) @ share))
    return total


def _check_groups(first: int, second: int) -> None:
    if min(first, second) < 1:
        raise InputError(f"groups of outputs must not be empty, not {first} and {second}")
