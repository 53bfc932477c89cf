r"""Planes around the nonlinear ops of a lowered network, in JAX and differentiable.

On a box an element-wise op lies between two planes, whose slopes may be anything: the offsets
follow. For a product of matrices the planes are those of :math:`(x - c)(y - d)` at the centres c
and d of the boxes. As in :mod:`tangency.verify.rigorous.relaxations`, without the rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from tangency.models.activations.lines import default_slopes, intercepts
from tangency.models.activations.record import Activation
from tangency.models.activations.registry import is_called
from tangency.models.namespace import jax_namespace
from tangency.models.ops import Activate, MatMul, Op, Prelu, Product, Select

__all__ = ["Pair", "Planes", "default_planes", "ordered", "planes", "rectifier", "starting_slopes"]

Array = Any
Pair = tuple[Array, Array]


class Planes(NamedTuple):
    """Planes below and above an op, each array ``(N, S or 1, *shape)``.

    For a product of matrices ``below`` holds the centres, ``low`` the product of the centres and
    ``high`` that of the radii.
    """

    below: tuple[Array, ...]
    above: tuple[Array, ...]
    low: Array
    high: Array


def default_planes(op: Op, params: Mapping[str, Array], pairs: Sequence[Pair]) -> Planes:
    """Planes over boxes ``(N or 1, *shape)``, of default slopes."""
    return planes(op, params, pairs, starting_slopes(op, params, pairs))


def starting_slopes(
    op: Op, params: Mapping[str, Array], pairs: Sequence[Pair]
) -> tuple[Array, ...]:
    """Default slopes ``(N, 1, *shape)``, those below for each input, then those above."""
    import jax.numpy as jnp

    boxes = ordered(pairs)
    if isinstance(op, Activate):
        low, high = boxes[0]
        if rectifier(op.activation):
            return _rectified_slopes(low, high)
        return default_slopes(op.activation, jax_namespace(), low, high)
    if isinstance(op, Prelu):
        low, high = boxes[0]
        slope = op.slopes(params["slope"], low.ndim - 2)[:, None]
        return _kinked_slopes(slope, low, high)
    if isinstance(op, Product):
        x, y = _same_rank(boxes)
        (xl, xu), (yl, yu) = x, y
        return *_flatter(x, y, (yl, xl), (yu, xu)), *_flatter(x, y, (yu, xl), (yl, xu))
    if isinstance(op, Select):
        _, _, a, b = _same_rank(boxes)
        above, width = a[1] - b[0], (a[1] - b[0]) - (a[0] - b[1])
        share = jnp.where(width > 0, above / jnp.where(width > 0, width, 1.0), 0.5)
        share = jnp.clip(share, 0.0, 1.0)
        return 1.0 - share, share, share, 1.0 - share
    return ()


def _flatter(x: Pair, y: Pair, first: Pair, second: Pair) -> Pair:
    """Of McCormick's two planes the one that varies less over the box, or the mean of equals."""
    import jax.numpy as jnp

    wide, tall = x[1] - x[0], y[1] - y[0]
    one, two = (jnp.abs(a) * wide + jnp.abs(b) * tall for a, b in (first, second))
    share = jnp.where(one < 0.999 * two, 1.0, jnp.where(two < 0.999 * one, 0.0, 0.5))
    share = share.astype(wide.dtype)
    a, b = (share * p + (1.0 - share) * q for p, q in zip(first, second, strict=True))
    return a, b


def planes(
    op: Op, params: Mapping[str, Array], pairs: Sequence[Pair], slopes: tuple[Array, ...]
) -> Planes:
    """Planes of given slopes ``(N, S or 1, *shape)`` over boxes ``(N or 1, *shape)``."""
    boxes = ordered(pairs)
    if isinstance(op, MatMul):
        return _matmul(boxes)
    if isinstance(op, Activate):
        below, above = slopes
        if rectifier(op.activation):
            return _rectified(*boxes[0], below, above)
        found = intercepts(op.activation, jax_namespace(), *boxes[0], below, above)
        return Planes((below,), (above,), *found)
    if isinstance(op, Prelu):
        slope = op.slopes(params["slope"], boxes[0][0].ndim - 2)[:, None]
        return _kinked(slope, *boxes[0], *slopes)
    if isinstance(op, Product):
        x, y = _same_rank(boxes)
        low = _corners((x, y), lambda p, q: p * q, slopes[:2], above=False)
        high = _corners((x, y), lambda p, q: p * q, slopes[2:], above=True)
        return Planes(slopes[:2], slopes[2:], low, high)
    assert isinstance(op, Select)
    return _select(op, _same_rank(boxes), slopes)


def rectifier(record: Activation) -> bool:
    """Whether it is ReLU itself, which has formulas of its own."""
    return is_called(record, "relu")


def ordered(pairs: Sequence[Pair]) -> list[Pair]:
    """With an axis for the rows; the ends in order, whatever rounding did to them."""
    import jax.numpy as jnp

    return [(low[:, None], jnp.maximum(low, high)[:, None]) for low, high in pairs]


def _same_rank(boxes: Sequence[Pair]) -> list[Pair]:
    rank = max(low.ndim for low, _ in boxes)

    def lifted(end: Array) -> Array:
        return end.reshape((*end.shape[:2], *(1,) * (rank - end.ndim), *end.shape[2:]))

    return [(lifted(low), lifted(high)) for low, high in boxes]


# --- functions of one variable with a kink at zero --------------------------------------------


def _rectified_slopes(low: Array, high: Array) -> tuple[Array, Array]:
    """0 or 1 below, the chord above; both are the one slope where the sign is known."""
    import jax.numpy as jnp

    top, bottom = jnp.maximum(high, 0.0), jnp.minimum(low, 0.0)
    width = top - bottom
    chord = jnp.where(width > 0, top / jnp.where(width > 0, width, 1.0), 0.0)
    return (high > -low).astype(low.dtype), chord


def _rectified(low: Array, high: Array, below: Array, above: Array) -> Planes:
    import jax.numpy as jnp

    low_gap, high_gap = (
        tuple(jnp.maximum(x, 0.0) - slope * x for x in (low, high)) for slope in (below, above)
    )
    inside = (low < 0) & (high > 0)
    least = jnp.where(inside, _beyond(0.0, low, high, below), jnp.minimum(*low_gap))
    most = jnp.maximum(*high_gap)
    most = jnp.where(inside, jnp.maximum(most, 0.0), most)
    return Planes((below,), (above,), least, most)


def _beyond(s: Array | float, low: Array, high: Array, slope: Array) -> Array:
    """Least of ``phi(x) - slope x`` over a box across zero, phi being s x below zero and x above.

    A slope between s and 1 touches at the kink: the offset is 0, and so is its derivative, at s
    and at 1 too, where an end of the box touches as well. A search stops at these two slopes, and
    a minimum's derivative, half of each at a tie, would keep it from the better of the two.
    """
    import jax.numpy as jnp

    at_low, at_high = (s - slope) * low, (1.0 - slope) * high
    least = jnp.where(at_low < 0, at_low, 0.0)
    return jnp.where(at_high < least, at_high, least)


def _kinked_slopes(s: Array, low: Array, high: Array) -> tuple[Array, Array]:
    import jax.numpy as jnp

    at_low, at_high = jnp.where(low < 0, s * low, low), jnp.where(high < 0, s * high, high)
    side = jnp.where(high > -low, 1.0, s)
    width = high - low
    chord = jnp.where(width > 0, (at_high - at_low) / jnp.where(width > 0, width, 1.0), side)
    known = (low >= 0) | (high <= 0)
    chord = jnp.where(known, jnp.where(low >= 0, 1.0, s), chord)
    side = jnp.where(known, chord, side)
    return jnp.where(s <= 1, side, chord), jnp.where(s <= 1, chord, side)


def _kinked(s: Array, low: Array, high: Array, below: Array, above: Array) -> Planes:
    import jax.numpy as jnp

    ends = [(x, jnp.where(x < 0, s * x, x)) for x in (low, high)]
    inside = (low < 0) & (high > 0)
    least = jnp.minimum(*(y - below * x for x, y in ends))
    most = jnp.maximum(*(y - above * x for x, y in ends))
    least = jnp.where(inside, _beyond(s, low, high, below), least)
    # The greatest of phi(x) - slope x is less the least of its negative, of slopes reversed.
    at_low, at_high = (s - above) * low, (1.0 - above) * high
    top = jnp.where(at_low > 0, at_low, 0.0)
    most = jnp.where(inside, jnp.where(at_high > top, at_high, top), most)
    return Planes((below,), (above,), least, most)


# --- several variables ------------------------------------------------------------------------


def _corners(boxes: Sequence[Pair], value: Any, slopes: Sequence[Array], *, above: bool) -> Array:
    """Extreme of ``value - plane`` over the corners of the boxes."""
    import jax.numpy as jnp

    pick = jnp.maximum if above else jnp.minimum
    best = None
    for ends in product((0, 1), repeat=len(boxes)):
        at = [box[end] for box, end in zip(boxes, ends, strict=True)]
        gap = value(*at) - sum(x * slope for x, slope in zip(at, slopes, strict=True))
        best = gap if best is None else pick(best, gap)
    return best


def _select(op: Select, boxes: Sequence[Pair], slopes: tuple[Array, ...]) -> Planes:
    """The branch taken where that is decided, else planes of the branches' min and max."""
    import jax.numpy as jnp

    x, y, a, b = boxes
    if op.strict:
        first, second = x[0] > y[1], x[1] <= y[0]
    else:
        first, second = x[0] >= y[1], x[1] < y[0]
    shape = jnp.broadcast_shapes(*(box[0].shape for box in boxes))
    first, second = jnp.broadcast_to(first, shape), jnp.broadcast_to(second, shape)

    def fixed(slope: Array, own: Array, other: Array) -> Array:
        return jnp.where(own, 1.0, jnp.where(other, 0.0, slope))

    below = (fixed(slopes[0], first, second), fixed(slopes[1], second, first))
    above = (fixed(slopes[2], first, second), fixed(slopes[3], second, first))
    decided = first | second
    low = jnp.where(decided, 0.0, _corners((a, b), jnp.minimum, below, above=False))
    high = jnp.where(decided, 0.0, _corners((a, b), jnp.maximum, above, above=True))
    none = jnp.zeros_like(low)
    return Planes((none, none, *below), (none, none, *above), low, high)


def _matmul(boxes: Sequence[Pair]) -> Planes:
    (c, rx), (d, ry) = (((low + high) / 2, (high - low) / 2) for low, high in _same_rank(boxes))
    return Planes((c, d), (c, d), c @ d, rx @ ry)
