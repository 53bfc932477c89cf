"""Slopes moved by Adam between their ends, rows and samples apart from one another.

Each slope is a share t in [0, 1] of its range, so that one rate serves all functions. The bounds of
rows are sums over slopes of their own; a step for one row changes no other, and the best slopes are
kept row by row.

References
----------
Xu et al., "Fast and Complete", arXiv 2011.13824 (alpha-CROWN); Kingma and Ba, arXiv 1412.6980.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tangency.verify.bounds.search.freedom import Freedom

__all__ = ["ascend", "shares", "slopes_at"]

Array = Any
Shares = dict[int, list[Array | None]]
Free = Mapping[int, list[Freedom | None]]
Start = Mapping[int, tuple[Array, ...]]

_FIRST, _SECOND, _SMALL = 0.9, 0.999, 1e-8
_DECAY, _MEMORY = 0.98, 0.8  # of the rate, by step; weight of the past in the mean


def shares(start: Start, free: Free, rows: int) -> Shares:
    """The shares of the default slopes, ``(N, rows, *shape)``."""
    import jax.numpy as jnp

    found: Shares = {}
    for i, slopes in start.items():
        found[i] = []
        for own, room in zip(slopes, free[i], strict=True):
            if room is None:
                found[i].append(None)
                continue
            width = room.high - room.low
            share = jnp.where(width > 0, (own - room.low) / jnp.where(width > 0, width, 1.0), 0.0)
            share = jnp.clip(share, 0.0, 1.0)
            found[i].append(jnp.broadcast_to(share, (share.shape[0], rows, *share.shape[2:])))
    return found


def slopes_at(share: Shares, start: Start, free: Free) -> dict[int, tuple[Array, ...]]:
    """The slopes of given shares, by node."""
    found = {}
    for i, slopes in start.items():
        found[i] = tuple(
            own if room is None or t is None else room.low + t * (room.high - room.low)
            for own, room, t in zip(slopes, free[i], share[i], strict=True)
        )
    return found


def ascend(
    value: Callable[[Any], Array], first: Any, steps: Array, rate: Array
) -> tuple[Array, Any]:
    """Raise ``value(shares)``, an array ``(N, S)``; the best of it, and the shares of each row.

    The first shares are tried, then ``steps`` of Adam from them at a falling rate, and last
    a running mean of the shares on the way, which is nearer to the optimum of a bound with kinks
    than they are. Shares are ``(N, S, ...)``, or ``(N, 1, ...)`` where rows have them in common;
    then the best sum over the rows is kept.
    """
    import jax
    import jax.numpy as jnp

    def total(share: Any) -> tuple[Array, Array]:
        found = value(share)
        found = jnp.where(jnp.isfinite(found), found, -1e30)
        return found.sum(), found

    common = any(v.shape[1] == 1 for v in jax.tree.leaves(first))

    def keep(share: Any, found: Array, best: Array, kept: Any) -> tuple[Array, Any]:
        better = (
            found.sum(1, keepdims=True) > best.sum(1, keepdims=True) if common else found > best
        )

        def chosen(new: Array, old: Array) -> Array:
            own = better.reshape((*better.shape, *(1,) * (new.ndim - 2)))
            return jnp.where(own, new, old)

        return chosen(found, best), jax.tree.map(chosen, share, kept)

    def step(k: Array, state: Any) -> Any:
        share, mean, square, average, best, kept = state
        (_, found), slope = jax.value_and_grad(total, has_aux=True)(share)
        best, kept = keep(share, found, best, kept)
        slope = jax.tree.map(jnp.nan_to_num, slope)
        mean = jax.tree.map(lambda m, g: _FIRST * m + (1 - _FIRST) * g, mean, slope)
        square = jax.tree.map(lambda v, g: _SECOND * v + (1 - _SECOND) * g * g, square, slope)
        now = (k + 1).astype(found.dtype)
        pace = (rate * _DECAY**k / (1 - _FIRST**now)).astype(found.dtype)
        scale = 1.0 / (1 - _SECOND**now)

        def moved(t: Array, m: Array, v: Array) -> Array:
            return jnp.clip(t + pace * m / (jnp.sqrt(v * scale) + _SMALL), 0.0, 1.0)

        share = jax.tree.map(moved, share, mean, square)
        average = jax.tree.map(lambda a, t: _MEMORY * a + (1 - _MEMORY) * t, average, share)
        return share, mean, square, average, best, kept

    nothing = jax.tree.map(jnp.zeros_like, first)
    state = (first, nothing, nothing, first, total(first)[1], first)
    share, _, _, average, best, kept = jax.lax.fori_loop(0, steps, step, state)
    best, kept = keep(share, total(share)[1], best, kept)
    return keep(average, total(average)[1], best, kept)
