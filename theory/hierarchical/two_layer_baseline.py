"""Two-layer networks with every weight trained, many seeds in one compiled run."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import precision
from tangency.theory.hierarchical.single_output import SingleOutputRegressor, validate_inputs

__all__ = ["TwoLayerRegressor"]


class TwoLayerRegressor(SingleOutputRegressor):
    """A two-layer ReLU network by Adam on all samples, stopped where held-out samples say.

    Float32. ``seeds`` networks from independent starts are trained at once; each is stopped at
    its own best held-out error, and the best of them predicts.

    Parameters
    ----------
    width : int
    steps : int
    learning_rate : float
    weight_decay : float
    seeds : int
    held_out_fraction : float
    random_state : int

    Attributes
    ----------
    held_out_errors_ : (seeds,) array
    """

    def __init__(
        self,
        *,
        width: int = 256,
        steps: int = 1000,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        seeds: int = 1,
        held_out_fraction: float = 0.2,
        random_state: int = 0,
    ) -> None:
        self.width = width
        self.steps = steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seeds = seeds
        self.held_out_fraction = held_out_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> TwoLayerRegressor:
        """Train on X (n, d), y (n,)."""
        import jax

        X, y = self._training_data(X, y)
        held = round(len(X) * self.held_out_fraction)
        if not 0 < held < len(X):
            raise InputError(f"{len(X)} samples, held_out_fraction = {self.held_out_fraction}")
        if min(self.width, self.steps, self.seeds) < 1:
            raise InputError("width, steps and seeds: each at least 1")
        order = np.random.default_rng(self.random_state).permutation(len(X))
        X, y = X[order].astype(np.float32), y[order].astype(np.float32)
        n = len(X) - held
        train = _compiled(self.width, self.steps)
        with precision("float32"):
            keys = jax.random.split(jax.random.key(self.random_state), self.seeds)
            rates = (np.float32(self.learning_rate), np.float32(self.weight_decay))
            errors, weights = train(keys, X[:n], y[:n], X[n:], y[n:], *rates)
        self.held_out_errors_ = np.asarray(errors)
        best = int(np.argmin(self.held_out_errors_))
        if not np.isfinite(self.held_out_errors_[best]):
            raise InputError(f"training diverges at learning_rate = {self.learning_rate}")
        self.model_ = tuple(np.asarray(w)[best].astype(np.float64) for w in weights)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n,)."""
        X = validate_inputs(self, X)
        inner, biases, outer, offset = self.model_
        hidden = np.maximum(X @ inner + biases, 0.0)
        values: np.ndarray = hidden @ outer + offset
        return values


@cache
def _compiled(width: int, steps: int) -> Any:
    import jax
    import jax.numpy as jnp

    def output(weights: Any, x: Any) -> Any:
        inner, biases, outer, offset = weights
        return jnp.maximum(x @ inner + biases, 0) @ outer + offset

    def loss(weights: Any, x: Any, y: Any) -> Any:
        return jnp.mean((output(weights, x) - y) ** 2)

    def train(
        key: Any, x: Any, y: Any, held: Any, held_y: Any, rate: Any, decay: Any
    ) -> tuple[Any, Any]:
        keys = jax.random.split(key, 3)
        start = (
            jax.random.normal(keys[0], (x.shape[1], width)) / jnp.sqrt(x.shape[1]),
            jax.random.normal(keys[1], (width,)) * 0.1,
            jax.random.normal(keys[2], (width,)) / width,
            jnp.mean(y),
        )
        zeros = jax.tree.map(jnp.zeros_like, start)

        def step(t: Any, state: Any) -> Any:
            weights, first, second, best_error, best = state
            slopes = jax.grad(loss)(weights, x, y)
            first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
            second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slopes)
            scale = jnp.sqrt(1 - 0.999 ** (t + 1.0)) / (1 - 0.9 ** (t + 1.0))
            weights = jax.tree.map(
                lambda w, m, v: (1 - rate * decay) * w - rate * scale * m / (jnp.sqrt(v) + 1e-8),
                weights,
                first,
                second,
            )
            error = loss(weights, held, held_y)
            better = error < best_error
            best = jax.tree.map(lambda b, w: jnp.where(better, w, b), best, weights)
            return weights, first, second, jnp.minimum(error, best_error), best

        state = (start, zeros, zeros, loss(start, held, held_y), start)
        *_, error, best = jax.lax.fori_loop(0, steps, step, state)
        return error, best

    return jax.jit(jax.vmap(train, in_axes=(0, *[None] * 6)))
