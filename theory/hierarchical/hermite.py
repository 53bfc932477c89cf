"""Hermite polynomials: orthonormal values, coefficients, tensors, information exponent."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from math import comb, sqrt
from typing import Any

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from tangency.models.errors import InputError

__all__ = [
    "hermite",
    "hermite_basis",
    "hermite_coefficients",
    "hermite_sum",
    "hermite_tensor",
    "information_exponent",
]


def hermite(x: Any, degree: int) -> np.ndarray:
    """Values of the normalised Hermite polynomials h_0, ..., h_degree.

    ``h_k = He_k / sqrt(k!)``, so that ``E[h_j(z) h_k(z)] = [j = k]`` for a standard Gaussian z.

    Parameters
    ----------
    x : array (...)
    degree : int
        The highest degree, at least 0.

    Returns
    -------
    array (degree + 1, ...)

    Raises
    ------
    InputError
        For a negative degree.

    Examples
    --------
    >>> hermite(2.0, 2).round(6)
    array([1.     , 2.     , 2.12132])
    """
    if degree < 0:
        raise InputError(f"degree = {degree}: a Hermite polynomial has degree 0 or more")
    x = np.asarray(x, np.float64)
    values = np.ones((degree + 1, *x.shape))
    if degree:
        values[1] = x
    for k in range(1, degree):  # the recursion in the normalised form neither over- nor underflows
        values[k + 1] = (x * values[k] - sqrt(k) * values[k - 1]) / sqrt(k + 1)
    return values


def hermite_sum(x: Any, coefficients: Any) -> np.ndarray:
    """The function ``sum_k coefficients[k] h_k(x)``, of the shape of x."""
    weights = np.asarray(coefficients, np.float64)
    if weights.ndim != 1 or not len(weights):
        raise InputError(f"coefficients have shape {weights.shape}: (degree + 1,)")
    total: np.ndarray = np.tensordot(weights, hermite(x, len(weights) - 1), 1)
    return total


def hermite_coefficients(
    function: Callable[[np.ndarray], Any], degree: int, *, nodes: int = 200
) -> np.ndarray:
    """Coefficients ``E[f(z) h_k(z)]`` for k up to the degree, by Gauss quadrature.

    Exact for a polynomial f with ``deg f + degree < 2 nodes``; for a function with a kink the
    error falls like ``1 / nodes`` only.

    Parameters
    ----------
    function : callable (n,) array -> (n,) array
    degree : int
    nodes : int
        At most 300, beyond which the weights underflow.

    Returns
    -------
    (degree + 1,) array

    Raises
    ------
    InputError
        For more nodes than can be had, or fewer than the degree needs.
    """
    if not degree < nodes <= 300:
        raise InputError(f"nodes = {nodes}: more than the degree {degree}, at most 300")
    points, weights = hermegauss(nodes)
    weighted = weights / sqrt(2 * np.pi) * np.asarray(function(points), np.float64)
    coefficients: np.ndarray = hermite(points, degree) @ weighted
    return coefficients


def information_exponent(coefficients: Any, *, tolerance: float = 1e-12) -> int | None:
    """The least positive degree with a coefficient that is not zero; None for a constant.

    Gradient descent on one direction needs about ``d^(k - 1)`` samples at information exponent
    k > 2; the theorem of hierarchical polynomials asks for 1 of the link.

    Parameters
    ----------
    coefficients : (degree + 1,) array
        In the normalised Hermite basis.
    tolerance : float
        What counts as zero, relative to the largest coefficient.

    Returns
    -------
    int or None

    References
    ----------
    Ben Arous, Gheissari and Jagannath, arXiv:2003.10409.
    """
    sizes = np.abs(np.asarray(coefficients, np.float64))
    found = np.flatnonzero(sizes[1:] > tolerance * sizes.max(initial=0.0))
    return int(found[0]) + 1 if len(found) else None


def hermite_basis(x: Any, degree: int) -> np.ndarray:
    """All products ``prod_i h_(a_i)(x_i)`` of total degree exactly ``degree``, orthonormal.

    Parameters
    ----------
    x : (n, d) array
    degree : int

    Returns
    -------
    (n, C(d + degree - 1, degree)) array
        In the order of ``combinations_with_replacement(range(d), degree)``.
    """
    x = _matrix(x)
    tables = hermite(x, degree)
    dimension = x.shape[1]
    columns = np.ones((len(x), comb(dimension + degree - 1, degree)))
    for column, chosen in enumerate(combinations_with_replacement(range(dimension), degree)):
        for i in set(chosen):
            columns[:, column] *= tables[chosen.count(i), :, i]
    return columns


def hermite_tensor(x: Any, degree: int) -> np.ndarray:
    """The symmetric Hermite tensor ``He_k(x)``, with ``<v^k, He_k(x)> = sqrt(k!) h_k(v.x)``.

    By the recursion ``He_(k+1) = He_k (x) x - sum_j (identity in j and the last) He_(k-1)``. Two
    symmetric tensors have ``E[<A, He_k><B, He_k>] = k! <A, B>``.

    Parameters
    ----------
    x : (n, d) array
    degree : int

    Returns
    -------
    (n, d, ..., d) array
        Of ``degree`` axes of length d: for small d and degree.
    """
    x = _matrix(x)
    if degree < 0 or x.shape[1] ** degree * len(x) > 1e8:
        raise InputError(f"degree = {degree}: 0 or more, and at most 1e8 entries in all")
    identity = np.eye(x.shape[1])
    before: np.ndarray = np.zeros(len(x))
    tensor: np.ndarray = np.ones(len(x))
    for k in range(degree):
        grown = np.einsum("n...,na->n...a", tensor, x)
        if k:
            contracted = np.einsum("n...,ab->n...ab", before, identity)
            for j in range(k):  # the identity's first axis goes where the j-th index stands
                grown = grown - np.moveaxis(contracted, k, 1 + j)
        before, tensor = tensor, np.asarray(grown)
    return tensor


def _matrix(x: Any) -> np.ndarray:
    matrix: np.ndarray = np.asarray(x, np.float64)
    if matrix.ndim != 2:
        raise InputError(f"x has shape {matrix.shape}: (n, d)")
    return matrix
