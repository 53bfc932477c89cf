"""Sums, means and interpolation, backwards: entries repeated, shared out or gathered again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import (
    Add,
    AveragePool,
    Broadcast,
    Op,
    Reduce,
    Shape,
    Subtract,
    Upsample,
    numpy_backend,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.dots import unbroadcast
from tangency.verify.rigorous.enclosure import relative_error
from tangency.verify.rigorous.transpose import Linear, behind_batch, builds
from tangency.verify.rigorous.windows import scatter_windows

__all__: list[str] = []

Array = Any
Params = Mapping[str, Array]
Map = Callable[[Array], Array]


@builds(Add, Subtract)
def _sum(op: Op, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    parts = [_repeated(s, shape) for s in inputs]
    first, second = parts[0][0], parts[1][0]
    if isinstance(op, Subtract):
        return Linear((first, lambda a: -second(a)), (parts[0][1], parts[1][1]))
    near = (lambda a, window: (a, window)) if inputs == (shape, shape) else None
    return Linear((first, second), (parts[0][1], parts[1][1]), near=near)


@builds(Broadcast)
def _repeat(op: Broadcast, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    pull, slip = _repeated(inputs[0], shape)
    return Linear((pull,), (slip,))


def _repeated(old: Shape, new: Shape) -> tuple[Map, Map | None]:
    """Repetition to a larger shape by NumPy's rules: backwards it is a sum."""
    if old == new:
        return (lambda a: a), None
    g = relative_error(prod(new) // max(prod(old), 1))
    return (
        lambda a: unbroadcast(a, old),
        lambda m: np.broadcast_to(g * behind_batch(m, len(new)), (len(m), *new)),
    )


@builds(Reduce)
def _reduce(op: Reduce, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    (old,) = inputs
    axes = tuple(sorted(normalise_axis(a, len(old)) for a in op.axes))
    count = float(prod(old[a] for a in axes)) if op.how == "mean" else 1.0

    def pull(a: Array) -> Array:
        wide = np.expand_dims(a / count if count != 1.0 else a, tuple(i + 2 for i in axes))
        return np.broadcast_to(wide, (*a.shape[:2], *old))

    g, lanes = relative_error(2), tuple(i + 1 for i in axes)
    return Linear((pull,), (lambda m: m.sum(axis=lanes) * (g / count),))


@builds(AveragePool)
def _average_pool(
    op: AveragePool, params: Params, inputs: tuple[Shape, ...], shape: Shape
) -> Linear:
    n, backend = len(op.size), numpy_backend()
    space = inputs[0][-n:]
    counts, g = op.counts(space), relative_error(prod(op.size) + 1)

    def pull(a: Array) -> Array:
        share = a / counts
        wins = np.broadcast_to(
            share.reshape((*a.shape[:-n], *(1,) * n, *a.shape[-n:])),
            (*a.shape[:-n], *op.size, *a.shape[-n:]),
        )
        return scatter_windows(wins, op.stride, op.padding, (1,) * n, space)

    return Linear((pull,), (lambda m: g * op.apply(backend, {}, m),))


@builds(Upsample)
def _upsample(op: Upsample, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    n, backend = len(op.size), numpy_backend()
    matrices = [op.matrix(old, new) for old, new in zip(inputs[0][-n:], op.size, strict=True)]
    g = relative_error(sum(m.shape[0] for m in matrices))
    lead = len(shape) - n

    def along(v: Array, mats: list[Array], first: int) -> Array:
        for axis, m in enumerate(mats, first):
            v = np.moveaxis(np.tensordot(v, m, axes=([axis], [0])), -1, axis)
        return v

    def slip(m: Array) -> Array:
        exact = g * op.apply(backend, {}, m)
        if op.how == "nearest":
            return exact
        # A position is known to a few units in its last place: see the interval rule.
        slacks = [16 * 2.0**-53 * sum(w.shape) * _near(w) for w in matrices]
        wide = [(np.abs(w) + s).T for w, s in zip(matrices, slacks, strict=True)]
        plain = [np.abs(w).T for w in matrices]
        more = along(m, wide, lead + 1) - along(m, plain, lead + 1)
        return exact + more * (1.0 + g) + g * np.abs(along(m, wide, lead + 1))

    return Linear((lambda a: along(a, matrices, lead + 2),), (slip,))


def _near(matrix: Array) -> Array:
    """Ones where a coefficient or a neighbour of it is not zero, else zeros."""
    there = np.pad(matrix != 0, ((0, 0), (1, 1)))
    return (there[:, :-2] | there[:, 1:-1] | there[:, 2:]).astype(np.float64)
