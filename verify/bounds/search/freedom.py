"""Which slopes a search may move, and how far.

A line above a convex function is best as its chord, one below a concave function too: such slopes
stay. Others move between the least and the greatest slope that the function has on its box; those
of products within McCormick's planes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tangency.models.namespace import jax_namespace
from tangency.models.ops import Activate, Op, Prelu, Product, Select
from tangency.verify.bounds.search.planes import Pair, ordered, rectifier

__all__ = ["Freedom", "freedoms"]

Array = Any

_GRID = 17


class Freedom(NamedTuple):
    """Range of a slope; both ends are the default slope where it is to stay."""

    low: Array
    high: Array


def freedoms(
    op: Op, params: Mapping[str, Array], pairs: Sequence[Pair], start: Sequence[Array]
) -> list[Freedom | None]:
    """Ranges for the slopes of an op, ``(N, 1, *shape)``; None for one that never moves."""
    import jax.numpy as jnp

    boxes = ordered(pairs)
    if isinstance(op, Activate) and rectifier(op.activation):
        low, high = boxes[0]
        open_ = (low < 0) & (high > 0)
        ends = [jnp.where(open_, end, start[0]) for end in (0.0, 1.0)]
        return [Freedom(*ends), None]
    if isinstance(op, (Activate, Prelu)):
        return list(_one_variable(op, params, boxes[0], start))
    if isinstance(op, Product):
        (x, y) = boxes
        x, y = (Freedom(*box) for box in (x, y))
        return [y, x, y, x]
    if isinstance(op, Select):
        zero = jnp.zeros_like(start[0])
        return [Freedom(zero, zero + 1.0)] * 4
    return [None] * len(start)


def _one_variable(
    op: Activate | Prelu, params: Mapping[str, Array], box: Pair, start: Sequence[Array]
) -> tuple[Freedom, Freedom]:
    import jax.numpy as jnp

    low, high = box
    grid = np.linspace(0.0, 1.0, _GRID).reshape((-1, *(1,) * low.ndim))
    x = low + (high - low) * grid.astype(low.dtype)
    if isinstance(op, Prelu):
        slope = op.slopes(params["slope"], low.ndim - 2)[:, None]
        turn = jnp.where(x > 0, 1.0, slope)
    else:
        turn = op.activation.derivative(jax_namespace(), x) + 0.0 * x
    turn = jnp.where(jnp.isfinite(turn), turn, start[0])
    bend = turn[1:] - turn[:-1]
    slack = 1e-6 * (1.0 + jnp.abs(turn).max(axis=0))
    convex, concave = (bend >= -slack).all(axis=0), (bend <= slack).all(axis=0)
    least = jnp.minimum(turn.min(axis=0), jnp.minimum(*start))
    most = jnp.maximum(turn.max(axis=0), jnp.maximum(*start))

    def between(fixed: Array, own: Array) -> Freedom:
        return Freedom(jnp.where(fixed, own, least), jnp.where(fixed, own, most))

    return between(concave, start[0]), between(convex, start[1])
