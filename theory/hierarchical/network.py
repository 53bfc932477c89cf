"""The three-layer network with a bottleneck of one neuron, and how well it found the feature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, factorial, sqrt
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.hierarchical.hermite import hermite_sum
from tangency.theory.hierarchical.targets import HierarchicalTarget

__all__ = ["InnerLayer", "ThreeLayerNetwork", "feature_correlation", "inner_layer"]

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class InnerLayer:
    """The fixed random layer ``x -> sigma(V x + s)``.

    Attributes
    ----------
    directions : (m, d) array
        V, rows uniform on the unit sphere.
    biases : (m,) array
    hermite : (k + 1,) array or None
        Coefficients of sigma in the normalised Hermite basis, where it is a polynomial.
    function : callable or None
        sigma otherwise.
    """

    directions: np.ndarray
    biases: np.ndarray
    hermite: np.ndarray | None
    function: Function | None

    def __call__(self, x: Any) -> np.ndarray:
        """Features (n, m) of inputs (n, d)."""
        inner = np.asarray(x, np.float64) @ self.directions.T + self.biases
        if self.hermite is not None:
            return hermite_sum(inner, self.hermite)
        assert self.function is not None
        return np.asarray(self.function(inner), np.float64)


def inner_layer(
    dimension: int,
    *,
    rng: np.random.Generator,
    width: int | None = None,
    degree: int = 2,
    activation: str | Function = "hermite",
) -> InnerLayer:
    """A random inner layer.

    Parameters
    ----------
    dimension : int
    rng : Generator
    width : int, optional
        By default twice the number of monomials of the degree, so that the features span them.
    degree : int
        That of the feature to be learnt.
    activation : {"hermite", "polynomial", "relu"} or callable
        "hermite" is h_degree without bias; "polynomial" is the sum of h_1 to h_degree, without
        bias; "relu" and a function act on every entry, with standard Gaussian biases.

    Raises
    ------
    InputError
        For an unknown activation or a size below 1.
    """
    if width is None:
        width = 2 * comb(dimension + degree - 1, degree)
    if min(dimension, width, degree) < 1:
        raise InputError("dimension, width and degree: each at least 1")
    directions = rng.standard_normal((width, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    biases = np.zeros(width)
    if activation in ("hermite", "polynomial"):
        coefficients = np.ones(degree + 1)
        coefficients[: degree if activation == "hermite" else 1] = 0.0
        return InnerLayer(directions, biases, coefficients, None)
    if activation == "relu":
        activation = _relu
    if isinstance(activation, str):
        raise InputError(
            f"activation = {activation!r}: 'hermite', 'polynomial', 'relu' or a function"
        )
    return InnerLayer(directions, rng.standard_normal(width), None, activation)


@dataclass(frozen=True, eq=False)
class ThreeLayerNetwork:
    """``h(x) = g(x) + c . relu(a (g(x) - m) / s + b) + e`` with ``g(x) = u . sigma(V x + s) + e'``.

    The bottleneck g is a single neuron with a skip connection to the output. The outer weights a
    are signs and the biases b random on the scale of g, which is m and s, its mean and spread
    over the inputs of stage 2.

    Attributes
    ----------
    inner : InnerLayer
    u : (m,) array
    inner_offset : float
    signs, biases, c : (m',) arrays
    location, spread : float
    outer_offset : float
    """

    inner: InnerLayer
    u: np.ndarray
    inner_offset: float
    signs: np.ndarray
    biases: np.ndarray
    c: np.ndarray
    location: float
    spread: float
    outer_offset: float

    def feature(self, x: Any) -> np.ndarray:
        """The bottleneck g at x (n, d), an (n,) array."""
        values: np.ndarray = self.inner(x) @ self.u + self.inner_offset
        return values

    def outer(self, feature: np.ndarray) -> np.ndarray:
        """The outer layer's features (n, m') of the bottleneck's values (n,)."""
        scaled = (feature - self.location) / self.spread
        return _relu(scaled[:, None] * self.signs + self.biases)

    def __call__(self, x: Any) -> np.ndarray:
        """The output at x (n, d), an (n,) array."""
        feature = self.feature(x)
        values: np.ndarray = feature + self.outer(feature) @ self.c + self.outer_offset
        return values


def feature_correlation(inner: InnerLayer, u: Any, target: HierarchicalTarget) -> float:
    """Correlation under Gaussian inputs of ``u . sigma(V x)`` with the target's p, exactly.

    With ``sigma = sum_r c_r h_r`` and unit rows of V,
    ``Var(g) = sum_(r >= 1) c_r^2 u^T (V V^T)^(r) u`` (powers entry by entry), and
    ``E[g p] = c_k sqrt(k! / L) sum_i w_i sum_j u_j prod_l <v_j, direction_il>``.

    Parameters
    ----------
    inner : InnerLayer
        With a polynomial activation and no biases.
    u : (m,) array
    target : HierarchicalTarget

    Returns
    -------
    float
        0 for a feature that is constant.

    Raises
    ------
    UnsupportedError
        For another activation: sample then.
    """
    if inner.hermite is None or np.any(inner.biases):
        raise UnsupportedError(
            "the exact correlation is for polynomial activations without biases: estimate it from "
            "samples of network.feature and target.feature"
        )
    u = np.asarray(u, np.float64)
    overlaps = inner.directions @ inner.directions.T
    power, variance = np.ones_like(overlaps), 0.0
    for c in inner.hermite[1:]:
        power *= overlaps
        if c:
            variance += c**2 * float(u @ power @ u)
    if variance <= 0.0:
        return 0.0
    k = target.degree
    leading = inner.hermite[k] if k < len(inner.hermite) else 0.0
    flat = target.directions.reshape(-1, target.dimension)
    products = (inner.directions @ flat.T).reshape(-1, target.terms, k).prod(2)
    shared = sqrt(factorial(k) / target.terms) * float(u @ products @ target.weights)
    return float(leading) * shared / sqrt(variance)


def _relu(x: np.ndarray) -> np.ndarray:
    positive: np.ndarray = np.maximum(x, 0.0)
    return positive
