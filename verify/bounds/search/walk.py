r"""Linear functions carried back through the graph: the one backward pass of all searches.

At every node that the walk stands on there are coefficients ``(N, S, *shape)``, and beside them one
offset ``(N, S)`` a row; their sum with the values of the nodes is a lower bound of the function
that the walk began with. Upper bounds are minus lower bounds of the negated rows. All of it is pure
JAX, so that a search may differentiate it by the slopes of the planes.

References
----------
Zhang et al., arXiv 1811.00866 (CROWN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from tangency.models.ops import Constant, Input, MatMul, Op, Shape
from tangency.models.structure import Structure
from tangency.verify.bounds.search.affine import constant_part, identity, transposed
from tangency.verify.bounds.search.planes import Planes

__all__ = ["Rows", "Set", "back", "begin", "dot", "least", "shared_start"]

Array = Any


class Set(NamedTuple):
    """An input set in the dtype of the search: box, and perhaps a ball."""

    lower: Array
    upper: Array
    center: Array | None = None
    radius: Array | None = None
    norm: Array | None = None


class Rows(NamedTuple):
    """Coefficients by node, and offsets ``(N, S)``."""

    coef: dict[int, Array]
    value: Array


def dot(coef: Array, v: Array) -> Array:
    """``(N, S)`` products of ``(N, S, *shape)`` with ``(N or 1, S or 1, *shape)``."""
    import jax.numpy as jnp

    n = prod(coef.shape[2:])
    a, b = coef.reshape((*coef.shape[:2], n)), v.reshape((*v.shape[:2], n))
    if b.shape[1] > 1:
        return (a * b).sum(axis=-1)
    if b.shape[0] == 1:
        return (a.reshape(-1, n) @ b[0, 0]).reshape(a.shape[:2])
    if a.shape[0] == 1:
        return jnp.einsum("sk,nk->ns", a[0], b[:, 0])
    return jnp.einsum("nsk,nk->ns", a, b[:, 0])


def begin(index: int, coef: Array) -> Rows:
    """Rows that stand on one node."""
    import jax.numpy as jnp

    return Rows({index: coef}, jnp.zeros(coef.shape[:2], coef.dtype))


def shared_start(
    structure: Structure, order: Sequence[int], target: int, weights: Mapping[str, Array]
) -> tuple[Rows, int]:
    """All entries of a node, walked back as far as samples share it; and how far that was."""
    import jax.numpy as jnp

    node = structure.nodes[target]
    params, shapes = _params(structure, target, weights), _shapes(structure, target)
    if not node.op.affine or isinstance(node.op, Constant):
        n = prod(node.shape)
        coef = jnp.eye(n, dtype=structure.dtype).reshape((1, n, *node.shape))
        return begin(target, coef), 0
    parts = identity(node.op, params, shapes, node.shape)
    shift = constant_part(node.op, params, shapes, structure.dtype)
    n = prod(node.shape)
    value = jnp.zeros((1, n), structure.dtype) if shift is None else shift.reshape(1, n)
    found: dict[int, Array] = {}
    for j, part in zip(node.inputs, parts, strict=True):
        _give(found, j, part)
    return back(structure, order, weights, Rows(found, value), None, 1)


def back(
    structure: Structure,
    order: Sequence[int],
    weights: Mapping[str, Array],
    rows: Rows,
    planes: Callable[[int], Planes] | None,
    place: int = 0,
) -> tuple[Rows, int]:
    """Walk back along ``order`` (latest node first) from ``place`` to the inputs.

    Without planes it stops at the first nonlinear op that it meets. Returns the rows, which stand
    on inputs if the walk was finished, and the place that was reached.
    """
    coef, value = dict(rows.coef), rows.value
    while place < len(order):
        index = order[place]
        node = structure.nodes[index]
        if index in coef and not isinstance(node.op, Input):
            if planes is None and not node.op.affine:
                break
            own = coef.pop(index)
            params, shapes = _params(structure, index, weights), _shapes(structure, index)
            if isinstance(node.op, Constant):
                value = value + dot(own, params["value"][None, None])
            elif node.op.affine:
                shift = constant_part(node.op, params, shapes, own.dtype)
                if shift is not None:
                    value = value + dot(own, shift[None, None])
                parts = transposed(node.op, params, shapes, own)
                for j, part in zip(node.inputs, parts, strict=True):
                    _give(coef, j, part)
            else:
                assert planes is not None
                value = value + _relaxed(node.op, planes(index), own, node.inputs, shapes, coef)
        place += 1
    return Rows(coef, value), place


def _relaxed(
    op: Op,
    found: Planes,
    own: Array,
    inputs: Sequence[int],
    shapes: Sequence[Shape],
    coef: dict[int, Array],
) -> Array:
    """Replace a nonlinear node by its inputs; what it adds to the offsets."""
    import jax.numpy as jnp

    if isinstance(op, MatMul):
        c, d = found.below
        parts = (own @ d.swapaxes(-1, -2), c.swapaxes(-1, -2) @ own)
        for j, part, shape in zip(inputs, parts, shapes, strict=True):
            _give(coef, j, _unbroadcast(part, shape))
        return -dot(own, found.low) - dot(jnp.abs(own), found.high)
    plus, minus = jnp.maximum(own, 0.0), jnp.minimum(own, 0.0)
    for j, shape, below, above in zip(inputs, shapes, found.below, found.above, strict=True):
        _give(coef, j, _unbroadcast(plus * below + minus * above, shape))
    return dot(plus, found.low) + dot(minus, found.high)


def least(rows: Rows, sets: Mapping[int, Set]) -> Array:
    """Least values ``(N, S)`` of rows that stand on inputs alone."""
    import jax.numpy as jnp

    value = rows.value
    for i, coef in rows.coef.items():
        s = sets[i]
        middle, radius = (s.lower + s.upper) / 2, (s.upper - s.lower) / 2
        found = dot(coef, middle[:, None]) - dot(jnp.abs(coef), radius[:, None])
        if s.center is not None and s.radius is not None:
            flat = jnp.abs(coef).reshape((*coef.shape[:2], -1))
            # The norm is 1 or 2; at a zero row the gradient of the root is infinite.
            square = (flat * flat).sum(axis=-1)
            root = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
            dual = jnp.where(s.norm == 1, flat.max(axis=-1), root)
            ball = dot(coef, s.center[:, None]) - dual * s.radius[:, None]
            found = jnp.maximum(found, ball)
        value = value + found
    return value


def _params(structure: Structure, index: int, weights: Mapping[str, Array]) -> dict[str, Array]:
    return {p.role: weights[p.key] for p in structure.nodes[index].params}


def _shapes(structure: Structure, index: int) -> list[Shape]:
    return [structure.nodes[j].shape for j in structure.nodes[index].inputs]


def _give(coef: dict[int, Array], index: int, part: Array) -> None:
    coef[index] = coef[index] + part if index in coef else part


def _unbroadcast(part: Array, shape: Shape) -> Array:
    """Sum over the axes along which an input of ``shape`` was repeated."""
    extra = part.ndim - 2 - len(shape)
    part = part.sum(axis=tuple(range(2, 2 + extra))) if extra else part
    axes = tuple(2 + i for i, size in enumerate(shape) if size == 1 and part.shape[2 + i] != 1)
    return part.sum(axis=axes, keepdims=True) if axes else part
