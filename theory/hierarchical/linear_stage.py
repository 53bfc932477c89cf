"""One stage of layer-wise training: least squares on fixed features, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tangency.models.errors import InputError

__all__ = ["RIDGES", "LinearStage", "held_out_ridge", "held_out_stage", "ridge_path"]

#: Weight decays that are tried, relative to the features' mean square.
RIDGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, eq=False)
class LinearStage:
    """The trained weights of a stage.

    Attributes
    ----------
    coefficients : (m,) array
    offset : float
        The output's bias, the mean of the training targets.
    choice : float
        What the held-out samples chose: the ridge, relative to the features' mean square, or the
        number of steps of gradient descent.
    held_out_error : float
        Mean squared error, at that choice, on samples that were held out of training: each once.
    """

    coefficients: np.ndarray
    offset: float
    choice: float
    held_out_error: float


def ridge_path(features: np.ndarray, y: np.ndarray, ridges: Sequence[float]) -> list[np.ndarray]:
    """Coefficients ``argmin |F c - y|^2 / n + ridge s |c|^2`` for each ridge.

    ``s`` is the mean of the squared entries of the features F, so that one list of ridges serves
    every scale. By Cholesky with the smaller of the two Gram matrices, in float64.

    Parameters
    ----------
    features : (n, m) array
    y : (n,) array
    ridges : sequence of float
    """
    n, m = features.shape
    scale = float(np.mean(features**2)) or 1.0
    wide = m > n
    gram = features @ features.T if wide else features.T @ features
    right = y if wide else features.T @ y
    path = []
    for ridge in ridges:
        shifted = gram.copy()
        shifted[np.diag_indices_from(shifted)] += n * ridge * scale
        solved = cho_solve(cho_factor(shifted, overwrite_a=True, check_finite=False), right)
        path.append(features.T @ solved if wide else solved)
    return path


def held_out_ridge(
    features: Any, y: Any, *, folds: int = 5, ridges: Sequence[float] = RIDGES
) -> LinearStage:
    """Ridge regression with a bias; held-out samples choose the ridge, then all are fitted.

    Parameters
    ----------
    features : (n, m) array
    y : (n,) array
    folds : int
        Each part of the samples is held out once. A polynomial of Gaussian inputs has heavy
        tails: a single held-out part of a fifth often chooses badly.
    ridges : sequence of float
        Positive, relative to the mean square of the features.

    Returns
    -------
    LinearStage

    Raises
    ------
    InputError
        For shapes that do not fit, no ridge, or one that is not positive.
    """
    if not len(ridges) or min(ridges) <= 0:
        raise InputError("ridges: at least one, all positive")
    return held_out_stage(ridge_path, features, y, folds, ridges)


def held_out_stage(
    path: Callable[[np.ndarray, np.ndarray, Sequence[float]], Sequence[np.ndarray]],
    features: Any,
    y: Any,
    folds: int,
    choices: Sequence[float],
) -> LinearStage:
    """Train with each choice, take the one that is best on held-out samples, train on all."""
    features, y = np.asarray(features, np.float64), np.asarray(y, np.float64)
    if features.ndim != 2 or y.shape != (len(features),):
        raise InputError(f"features {features.shape} and y {y.shape}: (n, m) and (n,)")
    if not 2 <= folds <= len(y):
        raise InputError(f"folds = {folds}: at least 2, at most the {len(y)} samples")
    errors = np.zeros(len(choices))
    fold = np.arange(len(y)) % folds
    for i in range(folds):
        train, held = fold != i, fold == i
        offset = y[train].mean()
        for j, c in enumerate(path(features[train], y[train] - offset, choices)):
            errors[j] += np.sum((features[held] @ c + offset - y[held]) ** 2) / len(y)
    best = int(np.argmin(errors))
    offset = y.mean()
    (coefficients,) = path(features, y - offset, choices[best : best + 1])
    return LinearStage(coefficients, float(offset), float(choices[best]), float(errors[best]))
