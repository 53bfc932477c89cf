"""Linear training dynamics by Lanczos iteration: for Gram matrices too large to decompose.

The training coefficients of squared loss are ``phi_t(Theta) r``, of which k products with Theta
give the best approximation in a Krylov space. Its defect in the differential equation is known
exactly (Hochbruck, Lubich 1997), and is what the iteration is stopped by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tangency.gpu.lanczos import Lanczos
from tangency.models.errors import InputError
from tangency.theory.prediction.grams import mean_diagonal, product
from tangency.theory.prediction.noise import check_ridge, noise_floor
from tangency.theory.prediction.spectrum import Spectrum, Times

__all__ = ["Krylov", "krylov_coefficients"]

#: The projected problem is solved, and the defect looked at, after each so many products.
LOOK = 5


@dataclass(frozen=True)
class Krylov:
    """Coefficients (T, N, C), the products taken, and the largest defect relative to r."""

    coefficients: np.ndarray
    steps: int
    defect: float


def krylov_coefficients(
    gram: np.ndarray,
    residual: np.ndarray,
    clock: Times,
    ridge: float,
    *,
    error: float | None,
    tol: float,
    max_steps: int,
    stacklevel: int,
) -> Krylov:
    """``phi_t(Theta + s) residual`` for each time, by Lanczos with full reorthogonalisation.

    At time t the columns solve ``da/dt = r - (Theta + s) a`` up to a defect of norm
    ``tol |r|``; at t = inf the defect is the misfit of the training outputs.

    Raises
    ------
    InputError
        Where ``max_steps`` products do not reach ``tol``.
    """
    ridge = check_ridge(ridge)
    n, mean = len(residual), mean_diagonal(gram)
    run, limit = Lanczos(lambda q: product(gram, q), residual), min(n, max_steps)
    while True:
        run.step()
        k = len(run)
        if k < LOOK or k % LOOK == 0 or k == limit or not run.beside[-1].any():
            solved, defect, least = _projected(
                np.array(run.diagonal), np.array(run.beside), clock, ridge, mean, run.norms, tol
            )
            if k == n or defect <= tol:
                break
            if k == limit:
                raise InputError(
                    f"Lanczos iteration leaves a defect of {defect:.2g} of the targets after "
                    f"{k} products: give a ridge, a shorter t, a larger tol or method='eigh'"
                )
    answer = run.combine(solved)
    floor = noise_floor(gram, error=error)
    _spectrum(np.zeros(1), ridge, mean, floor, least).warn(clock, stacklevel + 1)
    return Krylov(np.asarray(answer), k, defect)


def _projected(
    diagonal: np.ndarray,
    beside: np.ndarray,
    clock: Times,
    ridge: float,
    mean: float,
    norms: np.ndarray,
    tol: float,
) -> tuple[np.ndarray, float, float]:
    """Coordinates (T, k, C) in the Krylov bases, the worst defect, the least Ritz value."""
    from scipy.linalg import eigh_tridiagonal

    k, columns = diagonal.shape
    solved = np.zeros((len(clock.t), k, columns))
    defect, least = 0.0, np.inf
    for c in range(columns):
        if norms[c] == 0:
            continue
        ends = np.flatnonzero(beside[:, c] == 0)
        length = int(ends[0]) + 1 if len(ends) else k
        values, vectors = eigh_tridiagonal(diagonal[:length, c], beside[: length - 1, c])
        # A direction in which the targets have no part is one that the answer does not rest on.
        carried = values[np.abs(vectors[0]) > tol]
        least = min(least, float(carried.min(initial=np.inf)) / mean)
        basis = _spectrum(np.maximum(values, 0.0), ridge, mean, 0.0, least)
        unit = (basis.fitted(clock) * vectors[0]) @ vectors.T
        solved[:, :length, c] = norms[c] * unit
        defect = max(defect, float(np.abs(beside[length - 1, c] * unit[:, -1]).max()))
    return solved, defect, least


def _spectrum(
    values: np.ndarray, ridge: float, mean: float, floor: float, least: float
) -> Spectrum:
    return Spectrum(values, np.empty(0), ridge * mean, ridge, mean, floor, least)
