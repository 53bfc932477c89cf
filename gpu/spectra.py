"""Eigenvalues and exponentials of a symmetric matrix known by its products alone (Lanczos).

References
----------
Hochbruck and Lubich, "On Krylov Subspace Approximations to the Matrix Exponential Operator", SIAM
J. Numer. Anal. 1997; see :mod:`.lanczos` for the iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError
from tangency.gpu.lanczos import Lanczos

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
    from scipy.linalg import eigh_tridiagonal

    if not 1 <= count <= n:
        raise PlanError(f"{count} eigenvalues of a matrix of {n} rows")
    generator = np.random.default_rng(seed)
    depth = min(n, 2 * count + 30 if steps is None else max(steps, count))
    run = Lanczos(product, xp.asarray(generator.normal(size=(n, 1))), xp=xp)
    while True:
        run.step()
        if len(run) == depth:
            break
        if run.beside[-1][0] == 0.0:
            run.restart(xp.asarray(generator.normal(size=(n, 1))))
    values, rotation = eigh_tridiagonal(*run.tridiagonal())
    order = np.argsort(values)[::-1][:count]
    vectors = run.combine(rotation[:, order].T[:, :, None])[:, :, 0].T
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
    from scipy.linalg import eigh_tridiagonal

    times = np.asarray(times, dtype=np.float64)
    residual = xp.asarray(residual, dtype=np.float64)
    size = float(xp.sqrt((residual**2).sum()))
    if size == 0.0:
        return xp.zeros((len(times), len(residual)))
    run = Lanczos(product, residual[:, None], xp=xp)
    while len(run) < min(steps, len(residual)):
        run.step()
        if run.beside[-1][0] == 0.0:  # the space is invariant: nothing is left out
            break
    values, rotation = eigh_tridiagonal(*run.tridiagonal())
    weights = np.exp(-times[:, None] * values) * (size * rotation[0])
    return run.combine((weights @ rotation.T)[:, :, None])[:, :, 0]
