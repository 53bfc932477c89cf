"""The eigenbasis of a training Gram matrix, in which linear training dynamics are scalar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.grams import matrix, mean_diagonal
from tangency.theory.prediction.noise import check_ridge, noise_floor, warn_of_noise

__all__ = ["Spectrum", "Times", "spectrum", "times"]


@dataclass(frozen=True)
class Times:
    """Times of training: t as given, and the factor from t to the time of df/dt = -K (f - y)."""

    t: np.ndarray
    scalar: bool
    rate: float
    discrete: bool

    def squeeze(self, f: np.ndarray) -> np.ndarray:
        """Drop the axis of times where t was one number."""
        return f[0] if self.scalar else f


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (N,), those below zero set to zero, and eigenvectors (N, N) of a Gram matrix."""

    values: np.ndarray
    vectors: np.ndarray
    shift: float
    ridge: float
    mean_diagonal: float
    noise_floor: float
    least: float

    def fitted(self, clock: Times) -> np.ndarray:
        """``phi_t(v) = (1 - exp(-rate t (v + shift))) / (v + shift)`` for each time, (T, N).

        Training coefficients are ``V phi_t(v) V^T (y - f0)``. Eigenvalues that are zero up to
        rounding are fitted at the rate of their ridge alone, and never without one: at t = inf
        the result is the minimum-norm solution.
        """
        total = self.values + self.shift
        null = total <= len(total) * np.finfo(np.float64).eps * max(total.max(), 0.0)
        safe = np.where(null, total.max(), total)
        shape = _growth_discrete if clock.discrete else _growth
        with np.errstate(over="ignore"):
            rows = [
                np.where(null, 0.0 if math.isinf(t) else clock.rate * t, shape(safe, clock.rate, t))
                for t in clock.t
            ]
        return np.array(rows).reshape(len(clock.t), len(total))

    def warn(self, clock: Times, stacklevel: int) -> None:
        """Warn where noise was fitted: eigenvalues below the floor, at times that reach them."""
        longest = max((float(t) for t in clock.t), default=0.0)
        if clock.rate * longest * self.noise_floor * self.mean_diagonal > 1:
            warn_of_noise(self.ridge, self.least, self.noise_floor, stacklevel + 1)


def spectrum(gram: np.ndarray, ridge: float, *, error: float | None) -> Spectrum:
    """Eigendecomposition of a Gram matrix in float64."""
    from scipy.linalg import eigh

    ridge = check_ridge(ridge)
    mean = mean_diagonal(gram)
    # Divide and conquer: its vectors are orthogonal to a few epsilons, those of the default less.
    values, vectors = eigh(matrix(gram), driver="evd", check_finite=False)
    return Spectrum(
        values=np.maximum(values, 0.0),
        vectors=vectors,
        shift=ridge * mean,
        ridge=ridge,
        mean_diagonal=mean,
        noise_floor=noise_floor(gram, error=error),
        least=float(values[0]) / mean,
    )


def times(
    t: Any, learning_rate: float, reduction: str, size: int, *, discrete: bool = False
) -> Times:
    """Check times and rate; ``size`` is the number of entries of the targets."""
    if reduction not in ("sum", "mean"):
        raise InputError(f"reduction={reduction!r}: 'sum' or 'mean'")
    if not (isinstance(learning_rate, int | float | np.number) and 0 < learning_rate < math.inf):
        raise InputError(f"learning_rate={learning_rate!r}: a positive number")
    array = np.asarray(t, np.float64)
    if array.ndim > 1 or array.size == 0 or not (array >= 0).all():
        raise InputError(f"t={t!r}: a time >= 0, numpy.inf, or a list of them")
    finite = array[np.isfinite(array)]
    if discrete and (finite != np.round(finite)).any():
        raise InputError(f"t={t!r}: with discrete=True times are whole numbers of steps")
    rate = float(learning_rate) / (size if reduction == "mean" else 1)
    return Times(np.atleast_1d(array), array.ndim == 0, rate, discrete)


def _growth(values: np.ndarray, rate: float, t: float) -> np.ndarray:
    if math.isinf(t):
        return 1.0 / values
    return np.asarray(-np.expm1(-rate * t * values) / values)


def _growth_discrete(values: np.ndarray, rate: float, t: float) -> np.ndarray:
    """(1 - (1 - rate v)^t) / v: plain gradient descent after t steps."""
    step = rate * values
    if math.isinf(t):
        if (step >= 2).any():
            raise InputError(
                f"gradient descent diverges: the learning rate is {float(step.max()) / 2:.3g} "
                "times the largest stable one (max_learning_rate)"
            )
        return 1.0 / values
    small = step < 0.5
    kept = np.where(small, 0.0, (1.0 - step) ** t)
    near = np.expm1(t * np.log1p(-np.where(small, step, 0.0)))
    return np.asarray(np.where(small, -near, 1.0 - kept) / values)
