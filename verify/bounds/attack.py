"""Searches for a point of the ball where another class wins: the companion of every certificate.

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
from tangency.verify.bounds.perturbations import Perturbations

__all__ = ["ATTACKS", "candidates"]

ATTACKS = ("pgd", "corners", "none")

Array = Any


def candidates(
    network: Network,
    balls: Perturbations,
    labels: Array,
    targets: Array,
    *,
    attack: str,
    seed: int,
) -> list[Array]:
    """Points in the balls, float64 ``(N, *shape)`` each; the first are the samples themselves.

    ``targets`` holds for each sample the class that the certificate fears most.
    """
    rng = np.random.default_rng(seed)
    if attack == "pgd":
        return [balls.x, *_descend(network, balls, labels, targets, rng)]
    return [balls.x] if attack == "none" else [balls.x, _corners(network, balls, labels, rng)]


def _corners(
    network: Network,
    balls: Perturbations,
    labels: Array,
    rng: np.random.Generator,
    *,
    tries: int = 64,
) -> Array:
    """The best of some random corners of the balls, in NumPy."""
    wide = network.astype("float64")
    x = balls.x
    best, point = np.full(len(x), np.inf), x
    for _ in range(tries):
        corner = balls.corners(rng)
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
    balls: Perturbations,
    labels: Array,
    targets: Array,
    rng: np.random.Generator,
    *,
    steps: int = 20,
) -> list[Array]:
    """Descent of the margin in the direction that is steepest in the norm, kept in the balls.

    That is the sign of the gradient for the norm of infinity, the gradient over its length for l2,
    and the one entry with the largest derivative for l1. Three runs: against all classes from x
    and from a random point, and against the target from x.

    References
    ----------
    Madry et al., "Towards deep learning models resistant to adversarial attacks", arXiv 1706.06083.
    """
    classes = np.arange(network.output_shape[0])
    everyone, one = classes != labels[:, None], classes == targets[:, None]
    x, lower, upper = balls.x, balls.lower, balls.upper
    part = rng.random(x.shape)
    within = balls.inside(lower * (1 - part) + upper * part)
    runs = [(x, everyone), (within, everyone), (x, one)]
    points = []
    with precision(network.dtype):
        run = _compiled(network.structure, steps, balls.norm)
        own = tuple(np.asarray(v, network.dtype) for v in (x, lower, upper, balls.eps))
        for point, rivals in runs:
            start = np.asarray(point, network.dtype)
            found = run(dict(network.weights), start, labels, rivals, own)
            # Rounding may lead across the border.
            points.append(balls.inside(np.asarray(found, dtype=np.float64)))
    return points


@lru_cache(maxsize=64)
def _compiled(structure: Structure, steps: int, norm: str) -> Any:
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

    def steepest(slope: Any) -> Any:
        """The direction of unit norm in which the margin rises fastest."""
        if norm == "inf":
            return jnp.sign(slope)
        flat = slope.reshape(len(slope), -1)
        if norm == "2":
            size = jnp.linalg.norm(flat, axis=1, keepdims=True)
            unit = flat / jnp.where(size > 0, size, 1)
        else:
            top = jnp.abs(flat).argmax(axis=1)[:, None] == jnp.arange(flat.shape[1])
            unit = jnp.where(top, jnp.sign(flat), 0)
        return unit.reshape(slope.shape)

    def drawn(x: Any, centre: Any, eps: Any) -> Any:
        """Points outside of the balls drawn straight to the samples, up to the border."""
        if norm == "inf":
            return x
        away = (x - centre).reshape(len(x), -1)
        size = jnp.linalg.norm(away, ord=int(norm), axis=1, keepdims=True)
        away = away * jnp.where(size > eps, eps / jnp.where(size > 0, size, 1), 1)
        return centre + away.reshape(x.shape)

    def run(weights: Any, start: Any, labels: Any, rivals: Any, own: Any) -> Any:
        gradient = jax.grad(margin, has_aux=True)
        centre, lower, upper, eps = own
        radius = (upper - lower) / 2 if norm == "inf" else eps

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
            slope = jnp.nan_to_num(slope)
            # What leads out of the range of valid inputs is no direction.
            shut = (x <= lower) & (slope > 0) | (x >= upper) & (slope < 0)
            x = x - rate * radius * steepest(jnp.where(shut, 0, slope))
            return jnp.clip(drawn(x, centre, eps), lower, upper), best, point

        best = jnp.full(start.shape[0], jnp.inf, start.dtype)
        x, best, point = jax.lax.fori_loop(0, steps, step, (start, best, start))
        return keep(x, margin(x, weights, labels, rivals)[1], best, point)[1]

    return jax.jit(run)
