"""One stage of layer-wise training: least squares on fixed features, in closed form.

Everything here takes one learner's features (n, m), or those of many seeds at once, (seeds, n, m):
the seeds are then one compiled JAX call, on whatever device JAX has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import precision
from tangency.theory.hierarchical.moments import Moments, solved

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
    features : (n, m) or (seeds, n, m) array
    y : (n,) or (seeds, n) array
    ridges : sequence of float

    Returns
    -------
    list of (m,) or (seeds, m) arrays
    """
    n, m = features.shape[-2:]
    wide = m > n
    if features.ndim == 3:
        with precision("float64"):
            return list(np.asarray(_compiled(wide)(features, y, np.asarray(ridges, np.float64))))
    scale = float(np.mean(features**2)) or 1.0
    gram = features @ features.T if wide else features.T @ features
    right = y if wide else features.T @ y
    path = []
    for ridge in ridges:
        found = solved(gram, n * ridge * scale, right)
        path.append(features.T @ found if wide else found)
    return path


@cache
def _compiled(wide: bool) -> Any:
    """The same path for many seeds, (ridges, seeds, m)."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.linalg import cho_factor as factor
    from jax.scipy.linalg import cho_solve as solve

    def one(features: Any, y: Any, ridges: Any) -> Any:
        square = jnp.mean(features**2)
        scale = jnp.where(square > 0, square, 1.0)
        gram = features @ features.T if wide else features.T @ features
        right = y if wide else features.T @ y

        def at(ridge: Any) -> Any:
            shifted = gram + len(y) * ridge * scale * jnp.eye(len(gram), dtype=gram.dtype)
            solved = solve(factor(shifted), right)
            return features.T @ solved if wide else solved

        return jax.lax.map(at, ridges)  # one after the other: a Gram matrix is the largest array

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None), out_axes=1))


def held_out_ridge(
    features: Any, y: Any, *, folds: int = 5, ridges: Sequence[float] = RIDGES
) -> Any:
    """Ridge regression with a bias; held-out samples choose the ridge, then all are fitted.

    Parameters
    ----------
    features : (n, m) or (seeds, n, m) array
    y : (n,) or (seeds, n) array
    folds : int
        Each part of the samples is held out once. A polynomial of Gaussian inputs has heavy
        tails: a single held-out part of a fifth often chooses badly.
    ridges : sequence of float
        Positive, relative to the mean square of the features.

    Returns
    -------
    LinearStage, or a tuple of one for each seed

    Raises
    ------
    InputError
        For shapes that do not fit, no ridge, or one that is not positive.
    """
    if not len(ridges) or min(ridges) <= 0:
        raise InputError("ridges: at least one, all positive")
    features, y = _checked(features, y, folds)
    n = y.shape[-1]
    if features.ndim == 3 or features.shape[-1] > n - -(-n // folds):
        return held_out_stage(ridge_path, features, y, folds, ridges)
    fold = np.arange(n) % folds
    parts = [Moments.of(features[fold == i], y[fold == i]) for i in range(folds)]
    errors = np.zeros(len(ridges))
    for i in range(folds):
        train = reduce(add, parts[:i] + parts[i + 1 :])
        for j, c in enumerate(train.path(ridges)):
            fitted = features[fold == i] @ c + train.mean
            errors[j] += np.sum((fitted - y[fold == i]) ** 2) / n
    best, whole = int(np.argmin(errors)), reduce(add, parts)
    (coefficients,) = whole.path([ridges[best]])
    return _stage(coefficients, whole.mean, ridges, best, errors)


def held_out_stage(
    path: Callable[[np.ndarray, np.ndarray, Sequence[float]], Sequence[np.ndarray]],
    features: Any,
    y: Any,
    folds: int,
    choices: Sequence[float],
) -> Any:
    """Train with each choice, take the one that is best on held-out samples, train on all.

    Each seed chooses for itself. Returns a LinearStage, or a tuple of one for each seed.
    """
    features, y = _checked(features, y, folds)
    n = y.shape[-1]
    errors = np.zeros((len(choices), *y.shape[:-1]))
    fold = np.arange(n) % folds
    for i in range(folds):
        train, held = fold != i, fold == i
        offset = y[..., train].mean(-1, keepdims=True)
        paths = path(features[..., train, :], y[..., train] - offset, choices)
        for j, c in enumerate(paths):
            fitted = (features[..., held, :] @ c[..., None])[..., 0] + offset
            errors[j] += np.sum((fitted - y[..., held]) ** 2, -1) / n
    best, offsets = np.argmin(errors, 0), y.mean(-1)
    if features.ndim == 2:
        (coefficients,) = path(features, y - offsets, [choices[int(best)]])
        return _stage(coefficients, offsets, choices, int(best), errors)
    stages: dict[int, LinearStage] = {}
    for index in np.unique(best):
        seeds = np.flatnonzero(best == index)
        (found,) = path(features[seeds], y[seeds] - offsets[seeds, None], [choices[int(index)]])
        for s, c in zip(seeds.tolist(), found, strict=True):
            stages[s] = _stage(c, offsets[s], choices, int(index), errors[:, s])
    return tuple(stages[s] for s in range(len(y)))


def _stage(
    coefficients: np.ndarray, offset: Any, choices: Sequence[float], best: int, errors: np.ndarray
) -> LinearStage:
    return LinearStage(coefficients, float(offset), float(choices[best]), float(errors[best]))


def _checked(features: Any, y: Any, folds: int) -> tuple[np.ndarray, np.ndarray]:
    features, y = np.asarray(features, np.float64), np.asarray(y, np.float64)
    if features.ndim not in (2, 3) or y.shape != features.shape[:-1]:
        raise InputError(
            f"features {features.shape} and y {y.shape}: (n, m) and (n,), with seeds in front"
        )
    if not 2 <= folds <= y.shape[-1]:
        raise InputError(f"folds = {folds}: at least 2, at most the {y.shape[-1]} samples")
    return features, y
