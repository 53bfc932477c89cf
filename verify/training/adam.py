"""Adam in a dozen lines, for weights that are a dictionary of arrays.

References
----------
Kingma, Ba, "Adam: a method for stochastic optimization", arXiv 1412.6980.
"""

from __future__ import annotations

from typing import Any

__all__ = ["adam_start", "adam_step"]

Array = Any
Tree = dict[str, Array]


def adam_start(weights: Tree) -> tuple[Tree, Tree, Array]:
    """The two running means, zero, and the count of steps."""
    import jax.numpy as jnp

    def zeros() -> Tree:
        return {key: jnp.zeros_like(w) for key, w in weights.items()}

    return zeros(), zeros(), jnp.zeros((), "int32")


def adam_step(
    weights: Tree,
    gradient: Tree,
    state: tuple[Tree, Tree, Array],
    rate: Array,
    *,
    decay: tuple[float, float] = (0.9, 0.999),
    floor: float = 1e-8,
    largest: float = 10.0,
) -> tuple[Tree, tuple[Tree, Tree, Array]]:
    """One step of Adam on a gradient cut to Euclidean norm ``largest``.

    Interval losses start steep where a network is deep; the cut keeps the running means of the
    first steps from being ruled by one batch.
    """
    import jax.numpy as jnp

    norm = jnp.sqrt(sum(((g * g).sum() for g in gradient.values()), start=jnp.zeros(())))
    gradient = {k: g * jnp.minimum(1.0, largest / (norm + floor)) for k, g in gradient.items()}
    (b1, b2), (first, second, count) = decay, state
    count = count + 1
    first = {k: b1 * first[k] + (1 - b1) * g for k, g in gradient.items()}
    second = {k: b2 * second[k] + (1 - b2) * g * g for k, g in gradient.items()}
    one, two = 1 - b1**count, 1 - b2**count
    moved = {
        k: (w - rate * (first[k] / one) / (jnp.sqrt(second[k] / two) + floor)).astype(w.dtype)
        for k, w in weights.items()
    }
    return moved, (first, second, count)
