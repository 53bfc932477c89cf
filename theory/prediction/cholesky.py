"""Cholesky factorisation of a Gram matrix plus a ridge, in float64, with its noise floor.

On the CPU LAPACK factorises the whole matrix, which is in memory anyhow; on a GPU the blocked
factorisation of :mod:`tangency.gpu.cholesky` does, panel by panel where the matrix does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu import cholesky as blocked
from tangency.gpu.ahead import bring
from tangency.gpu.bands import free_memory
from tangency.gpu.engines import engine_for
from tangency.gpu.errors import DeviceError, PlanError
from tangency.models.errors import InputError, MissingPackageError
from tangency.theory.prediction.grams import matrix, mean_diagonal
from tangency.theory.prediction.noise import check_ridge, noise_floor, warn_of_noise

__all__ = ["Factor", "array_module", "factorise"]

#: Steps of inverse iteration that tell whether the least eigenvalue is noise: each costs two
#: triangular solves, and the estimate falls to the truth from above.
STEPS = 30


@dataclass(frozen=True)
class Factor:
    """``gram + ridge * mean_diagonal * I = lower lower^T``; of ``lower`` one triangle is read."""

    lower: np.ndarray
    ridge: float
    mean_diagonal: float
    noise_floor: float

    def solve(self, b: np.ndarray) -> np.ndarray:
        """(gram + ridge)^-1 b for columns (N, C)."""
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve((self.lower, True), b, check_finite=False))

    def half_solve(self, b: np.ndarray) -> np.ndarray:
        """lower^-1 b for columns (N, C)."""
        return _solve_lower(self.lower, b)

    @property
    def inverse_diagonal(self) -> np.ndarray:
        """Diagonal of (gram + ridge)^-1, (N,): squared columns of lower^-1, a block at a time."""
        n = len(self.lower)
        values = np.empty(n)
        for i in range(0, n, 512):
            # Column i of lower^-1 is zero above i, so the solve shrinks as i grows.
            right = np.eye(n - i, min(512, n - i))
            half = _solve_lower(self.lower[i:, i:], right)
            values[i : i + right.shape[1]] = np.einsum("ij,ij->j", half, half)
        return values

    @property
    def log_determinant(self) -> float:
        """Logarithm of the determinant of gram + ridge."""
        return 2.0 * float(np.log(np.diag(self.lower)).sum())


def factorise(
    gram: np.ndarray,
    ridge: float,
    *,
    error: float | None,
    stacklevel: int,
    device: str = "cpu",
) -> Factor:
    """Factorise, warn of noise, refuse what is not positive definite."""
    from scipy.linalg import eigh

    xp = array_module(device)
    ridge = check_ridge(ridge)
    floor = noise_floor(gram, error=error)
    # matrix() of a float64 Gram is the user's own array: the ridge goes onto a copy, in the order
    # in which LAPACK factorises in place.
    shifted = np.array(matrix(gram), order="F" if xp is np else "C")
    mean = mean_diagonal(gram)
    shifted[np.diag_indices_from(shifted)] += ridge * mean
    try:
        lower = _lower(shifted, xp)
    except (np.linalg.LinAlgError, PlanError):
        least = float(eigh(matrix(gram), eigvals_only=True, subset_by_index=[0, 0])[0]) / mean
        raise InputError(
            f"the Gram matrix is not positive definite with ridge={ridge:.3g}: its least "
            f"eigenvalue is {least:.3g} of the mean diagonal, the noise floor of its precision "
            f"{floor:.3g}; give ridge >= {1.1 * max(floor, -least):.2g}"
        ) from None
    factor = Factor(lower, ridge, mean, floor)
    # A positive ridge bounds the spectrum from below, so only its absence needs the estimate.
    least = _least(factor) / mean if ridge == 0 else ridge
    warn_of_noise(ridge, least, floor, stacklevel + 1)
    return factor


def array_module(device: str) -> Any:
    """NumPy for "cpu", CuPy for "cuda".

    Raises
    ------
    InputError
        For another device.
    MissingPackageError
        Without CuPy, a driver or a GPU; the message says what to install.
    """
    try:
        return np if device == "cpu" else engine_for(device).xp
    except DeviceError as error:
        raise MissingPackageError(str(error)) from error
    except PlanError:
        raise InputError(f"device={device!r}: 'cpu' or 'cuda'") from None


def _lower(shifted: np.ndarray, xp: Any) -> np.ndarray:
    """The factor, whose strict upper triangle nobody reads; over ``shifted`` where it can."""
    if xp is np:
        from scipy.linalg import cholesky

        return np.asarray(cholesky(shifted, lower=True, overwrite_a=True, check_finite=False))
    # With the panels in work beside it.
    if 1.5 * shifted.nbytes < free_memory(xp):
        return np.asarray(xp.asnumpy(blocked.cholesky(bring(shifted, xp), xp=xp)))
    blocked.cholesky(shifted, xp=xp)
    return shifted


def _least(factor: Factor) -> float:
    """The least eigenvalue, from above, by inverse iteration from a fixed random vector."""
    vector = np.random.default_rng(0).standard_normal((len(factor.lower), 1))
    growth = 1.0
    for _ in range(STEPS):
        vector = factor.solve(vector / np.linalg.norm(vector))
        growth = float(np.linalg.norm(vector))
    return 1.0 / growth


def _solve_lower(lower: np.ndarray, b: np.ndarray) -> np.ndarray:
    from scipy.linalg import solve_triangular

    return np.asarray(solve_triangular(lower, b, lower=True, check_finite=False))
