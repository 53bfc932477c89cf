r"""Spectral algorithms: regression by a function of the Gram matrix's eigenvalues.

A profile ``h`` with values in [0, 1] says how much of an eigenvector of eigenvalue ``l`` is
fitted; the estimator is ``f(x) = k(x, X) K^-1 h(K / n) y``. Ridge regression, gradient flow and
descent, and projection on the leading eigenvectors are four profiles; ``h = 1`` interpolates.

References
----------
Velikanov, Panov and Yarotsky, "Generalization error of spectral algorithms", ICLR 2024;
Gerfo et al., "Spectral Algorithms for Supervised Learning", Neural Computation 20 (2008).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = [
    "CutOff",
    "GradientDescent",
    "GradientFlow",
    "Interpolation",
    "Profile",
    "Ridge",
    "spectral_regression",
]

Array = np.ndarray[Any, np.dtype[np.float64]]


class Profile(ABC):
    """A function of eigenvalues of ``K / n``."""

    @abstractmethod
    def __call__(self, values: Any) -> Array:
        """``h(l)`` for eigenvalues of any shape."""

    def inverse(self, values: Any) -> Array:
        """``h(l) / l``, with its limit (or 0, the minimum-norm choice) at 0."""
        values = np.asarray(values, np.float64)
        safe = np.where(values > 0, values, 1.0)
        return np.where(values > 0, self(safe) / safe, 0.0)


@dataclass(frozen=True)
class Ridge(Profile):
    """``l / (l + level)``: kernel ridge regression with ``n level`` added to the diagonal."""

    level: float

    def __post_init__(self) -> None:
        _positive("level", self.level)

    def __call__(self, values: Any) -> Array:
        """The share of each eigenvalue in its sum with the level."""
        values = np.asarray(values, np.float64)
        return np.asarray(values / (values + self.level))


@dataclass(frozen=True)
class GradientFlow(Profile):
    """``1 - exp(-time l)``: gradient flow on ``sum (f - y)^2 / 2n`` from zero."""

    time: float

    def __post_init__(self) -> None:
        _positive("time", self.time)

    def __call__(self, values: Any) -> Array:
        """What the flow has fitted by its time."""
        return np.asarray(-np.expm1(-self.time * np.asarray(values, np.float64)))


@dataclass(frozen=True)
class GradientDescent(Profile):
    """``1 - (1 - rate l)^steps``; it diverges for eigenvalues above ``2 / rate``."""

    steps: int
    rate: float

    def __post_init__(self) -> None:
        _positive("rate", self.rate)
        if isinstance(self.steps, bool) or self.steps != int(self.steps) or self.steps < 1:
            raise InputError(f"steps={self.steps!r}: a whole number >= 1")

    def __call__(self, values: Any) -> Array:
        """What the steps have fitted."""
        step = self.rate * np.asarray(values, np.float64)
        if (step >= 2.0).any():
            raise InputError(f"rate={self.rate:g} diverges: at most {2 * self.rate / step.max():g}")
        near = -np.expm1(self.steps * np.log1p(-np.minimum(step, 0.5)))
        return np.asarray(np.where(step < 0.5, near, 1.0 - (1.0 - step) ** self.steps))


@dataclass(frozen=True)
class CutOff(Profile):
    """1 from the threshold on, 0 below: regression on the leading eigenvectors."""

    threshold: float

    def __post_init__(self) -> None:
        _positive("threshold", self.threshold)

    def __call__(self, values: Any) -> Array:
        """Which eigenvalues are kept."""
        return np.asarray(np.asarray(values, np.float64) >= self.threshold, np.float64)


@dataclass(frozen=True)
class Interpolation(Profile):
    """1: the minimum-norm interpolant."""

    def __call__(self, values: Any) -> Array:
        """Ones."""
        return np.ones_like(np.asarray(values, np.float64))


def spectral_regression(gram: Any, y: Any, cross: Any, profile: Profile) -> Array:
    """Predictions ``k(x, X) K^-1 h(K / n) y`` of a spectral algorithm.

    Parameters
    ----------
    gram : (n, n) array
    y : (n, ...) array
    cross : (m, n) array
        Kernel of test by training inputs.
    profile : Profile

    Returns
    -------
    (m, ...) array

    Raises
    ------
    InputError
        For shapes that do not fit, or what is no profile.
    """
    matrix, rows = np.asarray(gram, np.float64), np.asarray(cross, np.float64)
    targets = np.asarray(y, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise InputError(f"gram has shape {matrix.shape}: (n, n)")
    n = len(matrix)
    if targets.ndim == 0 or len(targets) != n:
        raise InputError(f"y has shape {targets.shape}, the Gram matrix is of {n} samples")
    if rows.ndim != 2 or rows.shape[1] != n:
        raise InputError(f"cross has shape {rows.shape}: (m, {n}), test by train")
    if not isinstance(profile, Profile):
        raise InputError(f"{type(profile).__name__} is no Profile: Ridge, GradientFlow, ...")
    values, vectors = np.linalg.eigh(matrix)
    values = values / n
    values = np.where(values > n * np.finfo(np.float64).eps * values[-1], values, 0.0)
    columns = vectors.T @ targets.reshape(n, -1)
    weights = vectors @ (profile.inverse(values)[:, None] / n * columns)
    return (rows @ weights).reshape(len(rows), *targets.shape[1:])


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name}={value!r}: a positive number")
