"""Searches for a point of the box where another class wins: the companion of every certificate.

What is found is only a candidate here; :mod:`.robustness` bounds the margin at each candidate in
rigorous arithmetic before it says anything.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tangency.models.network import Network, precision
from tangency.models.ops import jax_backend
from tangency.models.structure import Structure

__all__ = ["ATTACKS", "candidates"]

ATTACKS = ("pgd", "corners", "none")

Array = Any


def candidates(
    network: Network,
    x: Array,
    labels: Array,
    targets: Array,
    lower: Array,
    upper: Array,
    *,
    attack: str,
    seed: int,
) -> list[Array]:
    """Points in the box ``[lower, upper]``, float64 ``(N, *shape)`` each; the first is x itself.

    ``targets`` holds for each sample the class that the certificate fears most.
    """
    rng = np.random.default_rng(seed)
    if attack == "pgd":
        return [x, *_descend(network, x, labels, targets, lower, upper, rng)]
    return [x] if attack == "none" else [x, _corners(network, x, labels, lower, upper, rng)]


def _corners(
    network: Network,
    x: Array,
    labels: Array,
    lower: Array,
    upper: Array,
    rng: np.random.Generator,
    *,
    tries: int = 64,
) -> Array:
    """The best of some random corners of the box, in NumPy."""
    wide = network.astype("float64")
    best, point = np.full(len(x), np.inf), x
    for _ in range(tries):
        corner = np.where(rng.random(x.shape) < 0.5, lower, upper)
        scores = wide.evaluate(corner)
        own = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        np.put_along_axis(scores, labels[:, None], -np.inf, axis=1)
        margin = own - scores.max(axis=1)
        better = margin < best
        best = np.where(better, margin, best)
        point = np.where(better.reshape((-1,) + (1,) * (x.ndim - 1)), corner, point)
    return point


def _descend(
    network: Network,
    x: Array,
    labels: Array,
    targets: Array,
    lower: Array,
    upper: Array,
    rng: np.random.Generator,
    *,
    steps: int = 20,
) -> list[Array]:
    """Projected descent of the margin by the signs of its gradient.

    Three runs: against all classes from x and from a random point, and against the target from x.

    References
    ----------
    Madry et al., "Towards deep learning models resistant to adversarial attacks", arXiv 1706.06083.
    """
    classes = np.arange(network.output_shape[0])
    everyone, one = classes != labels[:, None], classes == targets[:, None]
    part = rng.random(x.shape)
    within = np.clip(lower * (1 - part) + upper * part, lower, upper)
    runs = [(x, everyone), (within, everyone), (x, one)]
    points = []
    with precision(network.dtype):
        run = _compiled(network.structure, steps)
        low, high = (np.asarray(v, network.dtype) for v in (lower, upper))
        for point, rivals in runs:
            start = np.asarray(point, network.dtype)
            found = run(dict(network.weights), start, labels, rivals, low, high)
            # float32 may round across the border of the box.
            points.append(np.clip(np.asarray(found, dtype=np.float64), lower, upper))
    return points


@lru_cache(maxsize=64)
def _compiled(structure: Structure, steps: int) -> Any:
    import jax
    import jax.numpy as jnp

    backend = jax_backend()

    def margin(x: Any, weights: Any, labels: Any, rivals: Any) -> Any:
        """What is descended, summed over the samples, and the margin of each."""
        scores = structure.apply(backend, weights, [x])
        own = jnp.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
        others = jnp.arange(scores.shape[1])[None, :] != labels[:, None]
        values = own - jnp.where(others, scores, -jnp.inf).max(axis=1)
        aim = own - jnp.where(rivals, scores, -jnp.inf).max(axis=1)
        return aim.sum(), values

    def run(weights: Any, start: Any, labels: Any, rivals: Any, lower: Any, upper: Any) -> Any:
        gradient = jax.grad(margin, has_aux=True)
        radius = (upper - lower) / 2

        def keep(x: Any, values: Any, best: Any, point: Any) -> Any:
            better = values < best
            column = better.reshape((-1,) + (1,) * (x.ndim - 1))
            return jnp.where(better, values, best), jnp.where(column, x, point)

        def step(i: Any, state: Any) -> Any:
            x, best, point = state
            slope, values = gradient(x, weights, labels, rivals)
            best, point = keep(x, values, best, point)
            # The first step goes to a corner (the fast gradient sign method), later ones refine.
            rate = jnp.where(i == 0, 2.0, 0.5 * (1.0 - i / (steps + 1))).astype(x.dtype)
            x = jnp.clip(x - rate * radius * jnp.sign(jnp.nan_to_num(slope)), lower, upper)
            return x, best, point

        best = jnp.full(start.shape[0], jnp.inf, start.dtype)
        x, best, point = jax.lax.fori_loop(0, steps, step, (start, best, start))
        return keep(x, margin(x, weights, labels, rivals)[1], best, point)[1]

    return jax.jit(run)
