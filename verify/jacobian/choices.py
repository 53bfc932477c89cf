"""Derivatives of ops that choose between entries: maxima, sorting, reflections, comparisons.

Where the choice is decided on the box, the derivative is that of the entry chosen. Where it is not,
Clarke's Jacobian is made of convex combinations of the choices in reach (a tie counts as within
reach, since both sides meet there), and the cotangent lies in the hull of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.ops import (
    Extremum,
    GroupSort,
    Householder,
    MaxPool,
    ReduceExtremum,
    Select,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.jacobian.adjoint import scattered, window_index
from tangency.verify.jacobian.registry import Place, lifted, rule, summed_to
from tangency.verify.rigorous.enclosure import total

__all__ = [
    "extremum",
    "group_sort",
    "householder",
    "max_pool",
    "reduce_extremum",
    "select",
    "select_shares",
]

Array = Any
Cotangents = list[Interval | None]


@rule(Extremum)
def extremum(place: Place, c: Interval) -> Cotangents:
    """Shares of ``c`` that sum to one."""
    return _divided(place, c, _shares(place, place.op.how == "max", (0, 1)), (0, 1))


def _shares(place: Place, largest: bool, pair: tuple[int, int]) -> tuple[Interval, Interval]:
    """Shares of the larger or smaller of two inputs, ``(N or 1, *shape)`` each."""
    first, second = pair
    x, y = (lifted(place.xs[i], len(place.y.shape) - 1)[:, 0] for i in pair)
    if place.inputs[first] == place.inputs[second]:
        return _decided(place, True, False)
    if not largest:
        x, y = -x, -y
    return (
        _share(y.lower <= x.upper, y.upper < x.lower),
        _share(x.lower <= y.upper, x.upper < y.lower),
    )


def _share(possible: Array, certain: Array) -> Interval:
    return Interval(certain.astype(np.float64), possible.astype(np.float64))


def _decided(place: Place, first: Any, second: Any) -> tuple[Interval, Interval]:
    shape = (1, *place.y.shape[1:])
    ends = (np.broadcast_to(np.asarray(v, dtype=np.float64), shape) for v in (first, second))
    return tuple(Interval(v) for v in ends)  # type: ignore[return-value]


def _divided(
    place: Place, c: Interval, shares: Sequence[Interval], pair: tuple[int, int]
) -> Cotangents:
    rank = len(c.shape) - 2
    return [
        summed_to(c * lifted(share, rank), place.shapes[i]) if place.live[i] else None
        for share, i in zip(shares, pair, strict=True)
    ]


@rule(MaxPool)
def max_pool(place: Place, c: Interval) -> Cotangents:
    """The largest of each window, padding never."""
    op, shape = place.op, place.shapes[0]
    index = window_index(shape, op.size, op.stride, op.padding, op.dilation)
    return [_largest(place.xs[0], c, index, shape)]


@rule(ReduceExtremum)
def reduce_extremum(place: Place, c: Interval) -> Cotangents:
    """The largest or smallest over some axes."""
    shape = place.shapes[0]
    axes = sorted(normalise_axis(a, len(shape)) for a in place.op.axes)
    count = np.arange(1, int(np.prod(shape)) + 1).reshape(shape)
    ends = tuple(range(len(shape) - len(axes), len(shape)))
    index = np.moveaxis(count, axes, ends).reshape((*c.shape[2:], -1))
    x = place.xs[0] if place.op.how == "max" else -place.xs[0]
    return [_largest(x, c, index, shape)]


def _largest(x: Interval, c: Interval, index: Array, shape: tuple[int, ...]) -> Interval:
    """Cotangents of x, of whose groups ``index`` ``(*out, K)`` the largest entry is taken."""
    real = index > 0
    low = np.where(real, x.lower.reshape((x.shape[0], -1))[:, index - 1], -np.inf)
    high = np.where(real, x.upper.reshape((x.shape[0], -1))[:, index - 1], -np.inf)
    possible = real & (high >= low.max(axis=-1, keepdims=True))
    certain = possible & (possible.sum(axis=-1, keepdims=True) == 1)
    share = Interval(certain.astype(np.float64)[:, None], possible.astype(np.float64)[:, None])
    wide = Interval(c.lower[..., None], c.upper[..., None])
    return scattered(wide * share, index, shape)


@rule(GroupSort)
def group_sort(place: Place, c: Interval) -> Cotangents:
    """Each entry takes the cotangents of the ranks that it may have."""
    op = place.op
    axis, size = normalise_axis(op.axis, len(c.shape) - 2), op.size
    x = _grouped(place.xs[0], axis + 1, size)
    c = _grouped(c, axis + 2, size)
    if not op.descending:  # ranks are counted from the largest
        c = Interval(c.lower[..., ::-1], c.upper[..., ::-1])
    above = (x.lower[..., None, :] > x.upper[..., :, None]).sum(axis=-1)
    below = (x.upper[..., None, :] < x.lower[..., :, None]).sum(axis=-1)
    rank = np.arange(size)
    may = (above[..., None] <= rank) & (rank < size - below[..., None])  # (N, .., entry, rank)
    may = may[:, None]
    low = np.where(may, c.lower[..., None, :], np.inf).min(axis=-1)
    high = np.where(may, c.upper[..., None, :], -np.inf).max(axis=-1)
    return [_ungrouped(Interval(low, high), axis + 2)]


@rule(Householder)
def householder(place: Place, c: Interval) -> Cotangents:
    """The cotangent itself, its reflection, or their hull."""
    v = place.params["vectors"]
    axis = normalise_axis(place.op.axis, len(c.shape) - 2)
    x = _grouped(place.xs[0], axis + 1, v.shape[1])
    c = _grouped(c, axis + 2, v.shape[1])
    along = x * v
    side = total(along, (len(along.shape) - 1,))
    outer = Interval(v[:, :, None]) * Interval(2.0 * v[:, None, :])
    matrix = Interval(np.eye(v.shape[1])) - outer
    terms = Interval(c.lower[..., None, :], c.upper[..., None, :]) * matrix
    turned = total(terms, (len(terms.shape) - 1,))
    kept, thrown = (side.lower > 0)[:, None, ..., None], (side.upper < 0)[:, None, ..., None]
    hull = c.hull(turned)
    low = np.where(kept, c.lower, np.where(thrown, turned.lower, hull.lower))
    high = np.where(kept, c.upper, np.where(thrown, turned.upper, hull.upper))
    return [_ungrouped(Interval(low, high), axis + 2)]


def _grouped(x: Interval, axis: int, size: int) -> Interval:
    """One axis moved last and cut in groups: ``(..., groups, size)``."""

    def cut(end: Array) -> Array:
        last = np.moveaxis(end, axis, -1)
        return last.reshape((*last.shape[:-1], -1, size))

    return Interval(cut(x.lower), cut(x.upper))


def _ungrouped(x: Interval, axis: int) -> Interval:
    def joined(end: Array) -> Array:
        return np.moveaxis(end.reshape((*end.shape[:-2], -1)), -1, axis)

    return Interval(joined(x.lower), joined(x.upper))


@rule(Select)
def select(place: Place, c: Interval) -> Cotangents:
    """The branch taken where the comparison is decided; both where they are the two compared."""
    return [None, None, *_divided(place, c, select_shares(place), (2, 3))]


def select_shares(place: Place) -> tuple[Interval, Interval]:
    """Shares of the two branches of a Select, ``(N or 1, *shape)`` each.

    Raises
    ------
    UnsupportedError
        Where the choice is open on the box and between other values than those compared: it may
        jump, and a function that jumps has no Jacobian.
    """
    x, y, a, b = place.inputs
    if {x, y} == {a, b}:
        return _shares(place, x == a, (2, 3))
    if a == b:
        return _decided(place, True, False)
    if x == y:
        return _decided(place, not place.op.strict, place.op.strict)
    rank = len(place.y.shape) - 1
    left, right = (lifted(v, rank)[:, 0] for v in place.xs[:2])
    first, second = left.lower > right.upper, left.upper < right.lower
    if not (place.live[0] or place.live[1]):  # constants: a tie is no border
        truth = left.lower > right.lower if place.op.strict else left.lower >= right.lower
        first, second = truth, ~truth
    if not (first | second).all():
        raise UnsupportedError(
            "the comparison is open on the box, and its two branches may differ where it tips: a "
            "function that jumps has no Jacobian; a smaller box, or a maximum, may decide it"
        )
    return _share(first, first), _share(second, second)
