"""Eigenvalues and exponentials of a symmetric matrix known by its products alone (Lanczos).

References
----------
Saad, "Numerical Methods for Large Eigenvalue Problems", 2011, chapter 6; Hochbruck and Lubich,
"On Krylov Subspace Approximations to the Matrix Exponential Operator", SIAM J. Numer. Anal. 1997.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["Spectrum", "gradient_flow", "top_spectrum"]

Array = Any  # of NumPy or of CuPy
Product = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The largest eigenvalues.

    Attributes
    ----------
    values : (count,) array
        Falling.
    vectors : (n, count) array
    errors : (count,) array
        ``|K v - lambda v|``: an eigenvalue lies within it of each value.
    """

    values: Array
    vectors: Array
    errors: Array


def top_spectrum(
    product: Product,
    n: int,
    count: int,
    *,
    steps: int | None = None,
    seed: int = 0,
    xp: Any = np,
) -> Spectrum:
    """The ``count`` largest eigenvalues after ``steps`` products, by default ``2 count + 30``.

    Parameters
    ----------
    product : callable (n, 1) -> (n, 1)
    n, count : int

    Raises
    ------
    PlanError
        If count is not 1 to n.
    """
    if not 1 <= count <= n:
        raise PlanError(f"{count} eigenvalues of a matrix of {n} rows")
    start = xp.asarray(np.random.default_rng(seed).normal(size=n))
    depth = min(n, 2 * count + 30 if steps is None else max(steps, count))
    basis, diagonal, side = _lanczos(product, start, depth, xp, restart=True)
    values, rotation = np.linalg.eigh(_tridiagonal(diagonal, side))
    order = np.argsort(values)[::-1][:count]
    vectors = basis @ xp.asarray(rotation[:, order])
    top = xp.asarray(values[order])
    residual = xp.stack([product(vectors[:, k : k + 1])[:, 0] for k in range(count)], axis=1)
    errors = xp.sqrt(((residual - vectors * top) ** 2).sum(axis=0))
    return Spectrum(top, vectors, errors)


def gradient_flow(
    product: Product, residual: Array, times: Any, *, steps: int = 60, xp: Any = np
) -> Array:
    """``exp(-t K) residual`` at each time: the training error of a kernel under gradient flow.

    Parameters
    ----------
    product : callable (n, 1) -> (n, 1)
    residual : (n,) array
    times : (m,) array
    steps : int
        Products; what is missing falls faster than any power once ``steps > sqrt(t |K|)``.

    Returns
    -------
    (m, n) array
    """
    times = np.asarray(times, dtype=np.float64)
    residual = xp.asarray(residual, dtype=np.float64)
    size = float(xp.sqrt((residual**2).sum()))
    if size == 0.0:
        return xp.zeros((len(times), len(residual)))
    depth = min(steps, len(residual))
    basis, diagonal, side = _lanczos(product, residual, depth, xp, restart=False)
    values, rotation = np.linalg.eigh(_tridiagonal(diagonal, side))
    weights = np.exp(-times[:, None] * values) * (size * rotation[0])
    return xp.asarray(weights @ rotation.T) @ basis.T


def _lanczos(
    product: Product, start: Array, depth: int, xp: Any, *, restart: bool
) -> tuple[Array, list[float], list[float]]:
    """Orthonormal basis and the tridiagonal matrix in it, every vector reorthogonalised twice."""
    generator = np.random.default_rng(1)
    basis = xp.zeros((len(start), depth))
    basis[:, 0] = start / xp.sqrt((start**2).sum())
    diagonal: list[float] = []
    side: list[float] = []
    for k in range(depth):
        v = product(basis[:, k : k + 1])[:, 0]
        diagonal.append(float(v @ basis[:, k]))
        if k + 1 == depth:
            break
        scale = float(xp.sqrt((v**2).sum()))
        v = _orthogonal(v, basis[:, : k + 1])
        size = float(xp.sqrt((v**2).sum()))
        if size <= 1e-12 * max(scale, abs(diagonal[0])):
            if not restart:  # the space is invariant: nothing is left out
                return basis[:, : k + 1], diagonal, side
            v = _orthogonal(xp.asarray(generator.normal(size=len(start))), basis[:, : k + 1])
            side.append(0.0)
            size = float(xp.sqrt((v**2).sum()))
        else:
            side.append(size)
        basis[:, k + 1] = v / size
    return basis, diagonal, side


def _orthogonal(v: Array, basis: Array) -> Array:
    for _ in range(2):
        v = v - basis @ (basis.T @ v)
    return v


def _tridiagonal(diagonal: list[float], side: list[float]) -> np.ndarray[Any, Any]:
    return np.asarray(np.diag(diagonal) + np.diag(side, 1) + np.diag(side, -1))
