"""Classifiers on the sphere: the deep kernel's, and the references that it tends to.

References
----------
Devroye, Györfi and Krzyżak, "The Hilbert kernel regression estimate", 1998;
Radhakrishnan, Belkin and Uhler, arXiv 2204.14126.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.spectral.depth import deep_correlation, singular_kernel

__all__ = [
    "deep_kernel_scores",
    "half_squared_distances",
    "hilbert_scores",
    "nearest_neighbour_scores",
    "singular_kernel_scores",
]

Array = np.ndarray[Any, np.dtype[np.float64]]


def half_squared_distances(x1: Any, x2: Any) -> Array:
    """``|x - x'|^2 / 2`` from differences, which is ``1 - cos`` on the unit sphere; (n1, n2)."""
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(x1, x2, "sqeuclidean") / 2.0)


def deep_kernel_scores(
    x: Any, y: Any, x_test: Any, activation: Any, *, depth: int, get: str = "nngp"
) -> Array:
    """``K(x_test, x) K(x, x)^-1 y`` of a deep normalised network; its sign is the class.

    Parameters
    ----------
    x : (n, d) array
        On the unit sphere.
    y : (n,) array
        Labels -1 and 1, or any numbers.
    x_test : (m, d) array
    activation : Activation, str or DualFunction
    depth : int
    get : {"nngp", "ntk"}

    Returns
    -------
    (m,) array

    Raises
    ------
    InputError
        For inputs off the sphere, or a kernel that is singular in float64: two inputs are equal,
        or the activation's deep limit is constant.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    x, y, x_test = _inputs(x, y, x_test)
    gram = deep_correlation(activation, half_squared_distances(x, x), depth, get=get)
    cross = deep_correlation(activation, half_squared_distances(x_test, x), depth, get=get)
    try:
        weights = cho_solve(cho_factor(gram, lower=True, overwrite_a=True), y)
    except LinAlgError:
        raise InputError(f"the kernel of depth {depth} is not positive definite here") from None
    return np.asarray(cross @ weights)


def singular_kernel_scores(x: Any, y: Any, x_test: Any, activation: Any) -> Array:
    """The infinitely deep limit: ``sum_i k(x, x_i) y_i``; at a training input its own label."""
    x, y, x_test = _inputs(x, y, x_test)
    kernel = singular_kernel(activation, half_squared_distances(x_test, x))
    return _weighted(kernel, y)


def hilbert_scores(x: Any, y: Any, x_test: Any, *, exponent: float) -> Array:
    """The Hilbert estimate: labels weighted by ``|x - x_i|^-exponent``, over the weights' sum.

    It is consistent for every distribution with a density where the exponent is the dimension.
    """
    x, y, x_test = _inputs(x, y, x_test)
    if not exponent > 0:
        raise InputError(f"exponent={exponent!r}: a positive number")
    distances = half_squared_distances(x_test, x)
    with np.errstate(divide="ignore"):
        # Relative to the nearest, as high powers of small distances overflow.
        least = distances.min(axis=1, keepdims=True)
        ratio = np.where(distances > 0, least / np.where(distances > 0, distances, 1.0), np.inf)
    weights = np.where(least > 0, ratio ** (exponent / 2.0), ratio)
    sums = np.where(np.isinf(weights).any(axis=1), 1.0, weights.sum(axis=1))
    return _weighted(weights, y) / sums


def nearest_neighbour_scores(x: Any, y: Any, x_test: Any) -> Array:
    """The label of the nearest training input."""
    x, y, x_test = _inputs(x, y, x_test)
    return np.asarray(y[np.argmin(half_squared_distances(x_test, x), axis=1)])


def _weighted(weights: Array, y: Array) -> Array:
    hit = np.isinf(weights)
    met = hit.any(axis=1)
    scores = np.where(hit, 0.0, weights) @ y
    if met.any():
        scores[met] = (hit[met] @ y) / hit[met].sum(axis=1)
    return np.asarray(scores)


def _inputs(x: Any, y: Any, x_test: Any) -> tuple[Array, Array, Array]:
    x, y, x_test = (np.asarray(a, np.float64) for a in (x, y, x_test))
    if x.ndim != 2 or x_test.ndim != 2 or x.shape[1] != x_test.shape[1] or len(x) == 0:
        raise InputError(f"x has shape {x.shape}, x_test {x_test.shape}: (n, d) and (m, d)")
    if y.shape != (len(x),):
        raise InputError(f"y has shape {y.shape}: ({len(x)},)")
    for name, points in (("x", x), ("x_test", x_test)):
        if np.abs(np.einsum("ij,ij->i", points, points) - 1.0).max(initial=0.0) > 1e-9:
            raise InputError(f"{name} is not on the unit sphere: divide each row by its norm")
    return x, y, x_test
