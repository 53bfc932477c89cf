"""One stage of layer-wise training by gradient descent, compiled, many seeds at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import precision

__all__ = ["descend"]


def descend(
    features: Any,
    y: Any,
    *,
    steps: int = 1000,
    weight_decay: float = 0.0,
    learning_rate: float | None = None,
) -> np.ndarray:
    """Full-batch gradient descent from zero on ``|F c - y|^2 / (2 n) + weight_decay |c|^2 / 2``.

    Without weight decay, early stopping is the regulariser; with it the limit is that of ridge
    regression.

    Parameters
    ----------
    features : (n, m) or (seeds, n, m) array
    y : (n,) or (seeds, n) array
    steps : int
    weight_decay : float
        Absolute, not negative.
    learning_rate : float, optional
        By default for each seed ``1 / (largest eigenvalue of F^T F / n + weight_decay)``, the
        largest eigenvalue by power iteration with a margin of 5 per cent.

    Returns
    -------
    (m,) or (seeds, m) array

    Raises
    ------
    InputError
        For shapes that do not fit, or where the steps diverge.
    """
    features, y = np.asarray(features, np.float64), np.asarray(y, np.float64)
    if features.ndim not in (2, 3) or y.shape != features.shape[:-1]:
        raise InputError(
            f"features {features.shape} and y {y.shape}: (n, m) and (n,), with seeds in front"
        )
    if steps < 1 or weight_decay < 0 or (learning_rate is not None and learning_rate <= 0):
        raise InputError("steps: at least 1; weight_decay: not negative; learning_rate: positive")
    single = features.ndim == 2
    if single:
        features, y = features[None], y[None]
    rate = 0.0 if learning_rate is None else learning_rate
    with precision("float64"):
        found = np.asarray(_compiled(learning_rate is None)(features, y, steps, weight_decay, rate))
    if not np.isfinite(found).all():
        raise InputError(f"gradient descent diverges at learning_rate = {learning_rate}")
    return found[0] if single else found


@cache
def _compiled(automatic: bool) -> Any:
    import jax
    import jax.numpy as jnp

    def one(features: Any, y: Any, steps: Any, decay: Any, rate: Any) -> Any:
        n, m = features.shape
        gram = features.T @ features / n if m <= n else None  # the smaller product of the two

        def apply(c: Any) -> Any:
            return features.T @ (features @ c) / n if gram is None else gram @ c

        if automatic:

            def power(_: Any, v: Any) -> Any:
                w = apply(v)
                return w / (jnp.linalg.norm(w) + 1e-300)

            # The features' own mean is no eigenvector to be missed; a plain start of ones may be.
            start = jax.random.normal(jax.random.key(0), features.shape[1:], features.dtype)
            v = jax.lax.fori_loop(0, 50, power, start / jnp.linalg.norm(start))
            rate = 1 / (1.05 * jnp.vdot(v, apply(v)) + decay + 1e-300)
        right = features.T @ y / n

        def step(_: Any, c: Any) -> Any:
            return c - rate * (apply(c) - right + decay * c)

        return jax.lax.fori_loop(0, steps, step, jnp.zeros_like(right))

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)))
