"""Ops that move, cut, join or repeat entries, backwards; nothing is rounded but repetitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import (
    Concat,
    Constant,
    Gather,
    Op,
    Pad,
    Reshape,
    Shape,
    Slice,
    Transpose,
    numpy_backend,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.enclosure import relative_error
from tangency.verify.rigorous.transpose import Linear, builds

__all__: list[str] = []

Array = Any
Params = Mapping[str, Array]


@builds(Constant)
def _constant(op: Constant, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    return Linear((), (), params["value"])


@builds(Reshape)
def _reshape(op: Reshape, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    return Linear((lambda a: a.reshape((*a.shape[:2], *inputs[0])),), (None,))


@builds(Transpose)
def _transpose(op: Transpose, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    back = (0, 1, *(int(i) + 2 for i in np.argsort(op.permutation)))
    return Linear((lambda a: a.transpose(back),), (None,))


@builds(Concat)
def _concat(op: Concat, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    axis = normalise_axis(op.axis, len(shape)) + 2
    ends = np.cumsum([0, *(s[axis - 2] for s in inputs)])
    pulls = []
    for start, stop in pairwise(ends):
        part = (*(slice(None),) * axis, slice(int(start), int(stop)))
        pulls.append(lambda a, part=part: a[part])
    return Linear(tuple(pulls), (None,) * len(inputs))


@builds(Gather, Pad, Slice)
def _moving(op: Op, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    """By the index of the entry that each place takes, read off the op itself."""
    (old,) = inputs
    n = prod(old)
    numbers = np.arange(1.0, n + 1.0).reshape((1, *old))
    plain = replace(op, value=0.0) if isinstance(op, Pad) else op
    source = plain.apply(numpy_backend(), {}, numbers).astype(np.int64).ravel() - 1
    places = np.flatnonzero(source >= 0)
    taken = source[places]
    order = np.argsort(taken, kind="stable")
    heads, starts, counts = np.unique(taken[order], return_index=True, return_counts=True)
    most = int(counts.max(initial=0))

    def pull(a: Array) -> Array:
        flat = a.reshape((*a.shape[:2], -1))
        x = np.zeros((*a.shape[:2], n))
        if most == 1:
            x[..., taken] = flat[..., places]
        elif most:
            x[..., heads] = np.add.reduceat(flat[..., places[order]], starts, axis=-1)
        return x.reshape((*a.shape[:2], *old))

    def slip(m: Array) -> Array:
        y: Array = relative_error(most) * plain.apply(numpy_backend(), {}, m)
        return y

    shift = None
    if isinstance(op, Pad) and op.value != 0.0:
        shift = np.where(source >= 0, 0.0, op.value).reshape(shape)
    return Linear((pull,), (slip if most > 1 else None,), shift)
