"""Rules of the primitives that move, cut, repeat and join entries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite, prod

import numpy as np

from tangency.models.builder import Value
from tangency.models.errors import UnsupportedError
from tangency.models.importers.jaxpr.constants import as_array
from tangency.models.importers.jaxpr.emitter import Emitter, rule
from tangency.models.importers.jaxpr.layout import Laid
from tangency.models.importers.jaxpr.predicates import And, Compare, Given, Not, Predicate
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var, scalar_of
from tangency.models.importers.joined import joined
from tangency.models.ops import Gather

Mover = Callable[[Emitter, Eqn], Laid]


def moves(*prims: str) -> Callable[[Mover], Mover]:
    """Enter a rule that moves entries about, so that it serves conditions too."""

    def enter(function: Mover) -> Mover:
        def both(em: Emitter, eqn: Eqn) -> Laid | Predicate:
            x = eqn.inputs[0]
            held = em.env[x] if isinstance(x, Var) else Given(x)
            if isinstance(held, Predicate):
                return _moved(em, eqn, held, function)
            return function(em, eqn)

        rule(*prims)(both)
        return function

    return enter


def _moved(em: Emitter, eqn: Eqn, p: Predicate, function: Mover) -> Predicate:
    """A condition on entries that move: its operands move."""
    if isinstance(p, Not):
        return Not(_moved(em, eqn, p.inner, function))
    if isinstance(p, And):
        left, right = (_moved(em, eqn, q, function) for q in (p.left, p.right))
        return And(left, right)
    if not isinstance(p, Compare):
        raise UnsupportedError(f"primitive {eqn.prim!r} on a condition: move its operands instead")

    def operand(ref: Ref) -> Ref:
        before = eqn.inputs[0].shape
        if isinstance(ref, Const) and ref.array.size == 1:
            return Const(ref.array.reshape((1,) * len(eqn.out.shape)), eqn.out.shape, ref.key)
        full = Var(before, em.builder.dtype)
        laid = em.laid(ref)
        if laid.shape != before:
            wide = em.builder.reshape(em.layouts.in_order(laid), (1,) * len(before))
            laid = em.layouts.plain(em.layouts.repeated(wide, before))
        em.env[full] = laid
        out = Var(eqn.out.shape, em.builder.dtype)
        em.env[out] = function(em, replace(eqn, inputs=(full, *eqn.inputs[1:]), outs=(out,)))
        return out

    return Compare(operand(p.x), operand(p.y), p.strict)


@moves("reshape")
def reshape(em: Emitter, eqn: Eqn) -> Laid:
    """Another shape."""
    if eqn.params.get("dimensions") is not None:
        raise UnsupportedError("primitive 'reshape' with dimensions: transpose first")
    return em.layouts.reshaped(em.laid(eqn.inputs[0]), eqn.out.shape)


@moves("transpose")
def transpose(em: Emitter, eqn: Eqn) -> Laid:
    """Another order of the axes: noted down."""
    x = em.laid(eqn.inputs[0])
    return em.layouts.tidy(x.value, [x.perm[int(p)] for p in eqn.params["permutation"]])


@moves("broadcast_in_dim")
def broadcast_in_dim(em: Emitter, eqn: Eqn) -> Laid:
    """New axes, and axes of size one repeated."""
    if len(eqn.inputs) > 1:
        raise UnsupportedError("primitive 'broadcast_in_dim' to a shape known at run time only")
    x, shape = em.laid(eqn.inputs[0]), eqn.out.shape
    wide = [1] * len(shape)
    for size, axis in zip(x.shape, eqn.params["broadcast_dimensions"], strict=True):
        wide[axis] = size
    value = em.builder.reshape(em.layouts.in_order(x), wide)
    return em.layouts.plain(em.layouts.repeated(value, shape))


@moves("slice")
def slice_(em: Emitter, eqn: Eqn) -> Laid:
    """Entries start:stop:step of each axis."""
    starts, stops = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(starts)
    x = em.laid(eqn.inputs[0])
    cuts = {
        x.perm[i]: (int(a), int(b), int(s))
        for i, (a, b, s) in enumerate(zip(starts, stops, steps, strict=True))
    }
    return Laid(em.layouts.sliced(x.value, cuts), x.perm)


@rule("dynamic_slice")
def dynamic_slice(em: Emitter, eqn: Eqn) -> Laid:
    """A slice whose place is a constant."""
    x, *starts = eqn.inputs
    if not all(isinstance(s, Const) for s in starts):
        raise UnsupportedError("primitive 'dynamic_slice': its place depends on the input")
    places = [int(np.asarray(s.full())) for s in starts if isinstance(s, Const)]
    laid, cuts = em.laid(x), {}
    for i, (at, size) in enumerate(zip(places, eqn.params["slice_sizes"], strict=True)):
        low = min(max(at, 0), x.shape[i] - size)  # as JAX clamps it
        cuts[laid.perm[i]] = (low, low + int(size), 1)
    return Laid(em.layouts.sliced(laid.value, cuts), laid.perm)


@moves("pad")
def pad(em: Emitter, eqn: Eqn) -> Laid:
    """A number around and between the entries; a negative count cuts off."""
    fill = scalar_of(eqn.inputs[1])
    if fill is None or not isfinite(fill) or not isinstance(eqn.inputs[0], Var):
        raise UnsupportedError("primitive 'pad': the padding must be one finite constant number")
    x = em.laid(eqn.inputs[0])
    value, pads = x.value, {}
    for i, (low, high, between) in enumerate(eqn.params["padding_config"]):
        value = em.layouts.dilated(value, x.perm[i], int(between) + 1, fill)
        if low or high:
            pads[x.perm[i]] = (int(low), int(high))
    return Laid(em.layouts.padded(value, pads, fill), x.perm)


@rule("concatenate")
def concatenate(em: Emitter, eqn: Eqn) -> Laid:
    """Tensors joined along an axis; MaxMin, if they are the maxima and minima of pairs."""
    axis = int(eqn.params["dimension"])
    laid = [em.laid(r) for r in eqn.inputs if isinstance(r, Var)]
    perm = next((x.perm for x in laid if x.perm != tuple(range(len(x.perm)))), laid[0].perm)
    values = []
    for ref in eqn.inputs:
        if isinstance(ref, Const):
            array = np.asarray(ref.full()).transpose(np.argsort(perm))
            values.append(em.constant(ref, array))
        else:
            values.append(em.layouts.in_frame(em.laid(ref), perm))
    value, order = joined(em.builder, values, perm[axis], name="group_sort")
    return em.layouts.tidy(value, [order[p] for p in perm])


# --- selections ---------------------------------------------------------------------------------


def taken(em: Emitter, value: Value, indices: list[int], axis: int) -> Value:
    """Entries ``indices`` along an axis of a value."""
    if indices == list(range(value.shape[axis])):
        return value
    node, (own,) = em.builder.aligned(value, axis)
    view = (*value.shape[:axis], len(indices), *value.shape[axis + 1 :])
    return em.builder.emit(Gather(tuple(indices), own), [node], view=view)


@moves("rev")
def rev(em: Emitter, eqn: Eqn) -> Laid:
    """Entries in reverse order along some axes."""
    x = em.laid(eqn.inputs[0])
    value = x.value
    for axis in eqn.params["dimensions"]:
        own = x.perm[int(axis)]
        value = taken(em, value, list(range(value.shape[own]))[::-1], own)
    return Laid(value, x.perm)


@rule("gather")
def gather(em: Emitter, eqn: Eqn) -> Laid:
    """Entries at constant indices: which ones, gathering the entries' numbers tells."""
    import jax.numpy as jnp
    from jax import lax

    x, indices = eqn.inputs
    if not isinstance(indices, Const):
        raise UnsupportedError("primitive 'gather': its indices depend on the input")
    params = {k: v for k, v in eqn.params.items() if k != "fill_value"}
    numbers = jnp.arange(prod(x.shape), dtype=jnp.int32).reshape(x.shape)
    chosen = lax.gather(numbers, jnp.asarray(indices.full()), fill_value=-1, **params)
    where = np.asarray(as_array(chosen))
    if where.size == 0 or where.min() < 0:
        raise UnsupportedError("primitive 'gather': an index is out of bounds")
    laid = em.laid(x)
    grid = _grid(where, x.shape) or _along_one_axis(where, x.shape)
    if grid is not None:
        value = laid.value
        for axis, along in enumerate(grid):
            value = _cut_or_taken(em, value, along, laid.perm[axis])
        return em.layouts.reshaped(Laid(value, laid.perm), eqn.out.shape)
    flat = em.builder.reshape(em.layouts.in_order(laid), (prod(x.shape),))
    value = taken(em, flat, where.reshape(-1).tolist(), 0)
    return em.layouts.plain(em.builder.reshape(value, eqn.out.shape))


def _grid(where: np.ndarray, shape: tuple[int, ...]) -> list[list[int]] | None:
    """The indices along each axis, when every combination of them is taken, in order."""
    if where.ndim != len(shape):
        return None
    places = np.unravel_index(where, shape)
    grid = [np.moveaxis(p, i, 0).reshape(p.shape[i], -1)[:, 0] for i, p in enumerate(places)]
    same = (np.arange(prod(shape)).reshape(shape)[np.ix_(*grid)] == where).all()
    return [g.tolist() for g in grid] if same else None


def _along_one_axis(where: np.ndarray, shape: tuple[int, ...]) -> list[list[int]] | None:
    """The same when one axis is not taken whole, whatever the shape of the result."""
    numbers = np.arange(prod(shape)).reshape(shape)
    for axis, size in enumerate(shape):
        count, rest = divmod(where.size * size, prod(shape))
        if rest or not count:
            continue
        wide = where.reshape((*shape[:axis], count, *shape[axis + 1 :]))
        along = np.moveaxis(wide, axis, 0).reshape(count, -1)[:, 0]
        along = along // prod(shape[axis + 1 :]) % size
        if (np.take(numbers, along, axis=axis) == wide).all():
            grid = [list(range(s)) for s in shape]
            grid[axis] = along.tolist()
            return grid
    return None


def _cut_or_taken(em: Emitter, value: Value, along: list[int], axis: int) -> Value:
    step = along[1] - along[0] if len(along) > 1 else 1
    if step > 0 and along == list(range(along[0], along[-1] + 1, step)):
        return em.layouts.sliced(value, {axis: (along[0], along[-1] + 1, step)})
    return taken(em, value, along, axis)
