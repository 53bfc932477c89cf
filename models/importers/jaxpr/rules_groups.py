"""Rules of what joins many entries: sums, extrema, sorting, softmax, norms."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.importers.jaxpr.emitter import Emitter, rule
from tangency.models.importers.jaxpr.layout import Laid
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var, scalar_of
from tangency.models.ops import (
    BatchNorm,
    GroupSort,
    Op,
    Reduce,
    ReduceExtremum,
)


def ints(values: Sequence[Any]) -> tuple[int, ...]:
    """Plain integers of what a primitive's parameters hold."""
    return tuple(int(v) for v in values)


# --- reductions -----------------------------------------------------------------------------------


def _without(em: Emitter, x: Laid, axes: Sequence[int], op: Op | None, own: int) -> Laid:
    """The result of a reduction at node ``own``: the axes of x that stay, where they lay."""
    gone = {x.perm[a] for a in axes}
    stay = [p for i, p in enumerate(x.perm) if i not in axes]
    rank = {p: i for i, p in enumerate(sorted(stay))}
    view = tuple(s for i, s in enumerate(x.value.shape) if i not in gone)
    value = em.builder.emit(op, [own], view=view) if op else em.builder.reshape(x.value, view)
    return em.layouts.tidy(value, [rank[p] for p in stay])


def _reduce(em: Emitter, x: Laid, axes: Sequence[int], make: Any) -> Laid:
    long = [a for a in axes if x.shape[a] != 1]
    if not long:
        return _without(em, x, axes, None, x.value.node)
    node, own = em.builder.aligned(x.value, *(x.perm[a] for a in long))
    return _without(em, x, axes, make(own), node)


def divided(em: Emitter, var: Var, count: int) -> tuple[Var, list[Eqn]] | None:
    """The variable that is ``var / count``, and the changes of shape on the way to it."""
    path: list[Eqn] = []
    user = em.only_consumer(var)
    while user is not None and user.prim == "reshape":
        path.append(user)
        user = em.only_consumer(user.out)
    if user is None or user.prim not in ("div", "mul"):
        return None
    # Times the float that is nearest to 1/count is a mean, too: the exact 1/count is meant.
    wanted = float(count if user.prim == "div" else np.dtype(em.builder.dtype).type(1.0 / count))
    number = scalar_of(user.inputs[1])
    if number is None and user.prim == "mul":
        number = scalar_of(user.inputs[0])
    close = number == wanted
    plain = all(c.key is None for c in user.inputs if isinstance(c, Const))
    return (user.out, path) if close and plain else None


@rule("reduce_sum")
def reduce_sum(em: Emitter, eqn: Eqn) -> Laid:
    """A sum; a mean when it is divided by the number of its terms next."""
    x, axes = em.laid(eqn.inputs[0]), ints(eqn.params["axes"])
    count = prod(x.shape[a] for a in axes)
    found = divided(em, eqn.out, count) if count > 1 else None
    if found is None:
        em.builder.scope = "sum"
        return _reduce(em, x, axes, lambda own: Reduce("sum", own))
    em.builder.scope = "mean"
    mean = _reduce(em, x, axes, lambda own: Reduce("mean", own))
    end, path = found
    laid = mean
    for step in path:
        em.env[step.out] = laid = em.layouts.reshaped(laid, step.out.shape)
    em.env[end] = laid
    return mean


@rule("reduce_max", "reduce_min")
def reduce_extremum(em: Emitter, eqn: Eqn) -> Laid:
    """The largest or smallest entry."""
    how = eqn.prim.removeprefix("reduce_")
    axes = ints(eqn.params["axes"])
    x = em.laid(eqn.inputs[0])
    return _reduce(em, x, axes, lambda own: ReduceExtremum(how, own))


@rule("cumsum")
def cumsum(em: Emitter, eqn: Eqn) -> Laid:
    """Running sums: a triangular matrix."""
    x, axis = em.laid(eqn.inputs[0]), int(eqn.params["axis"])
    value, order = em.layouts.last(x, [axis])
    ones = np.tri(eqn.out.shape[axis], dtype=em.builder.dtype)
    weight = ones.T if eqn.params["reverse"] else ones
    value = em.builder.dense(value, weight, keys=("cumsum", ""), trainable=(False, False))
    return em.layouts.tidy(value, [order.index(i) for i in range(len(order))])


@rule("sort")
def sort(em: Emitter, eqn: Eqn) -> Laid:
    """All entries along an axis in order; reversed next, in descending order."""
    if len(eqn.inputs) != 1:
        raise UnsupportedError(
            "primitive 'sort' of several operands (argsort?): one tensor can be sorted"
        )
    axis = int(eqn.params["dimension"])
    x, count = em.laid(eqn.inputs[0]), eqn.out.shape[axis]
    user = em.only_consumer(eqn.out)
    turned = user is not None and user.prim == "rev" and ints(user.params["dimensions"]) == (axis,)
    value, own, shape = x.value, x.perm[axis], x.value.shape
    node_shape = em.builder.nodes[value.node].shape
    if own and shape[own - 1] != 1 and node_shape not in (shape, shape[1:]):
        # Groups that the model cut an axis into are sorted within that axis.
        own -= 1
        value = em.builder.reshape(value, (*shape[:own], shape[own] * count, *shape[own + 2 :]))
    node, (at,) = em.builder.aligned(value, own)
    op = GroupSort(count, at, descending=turned)
    value = em.builder.emit(op, [node], view=shape)
    laid = Laid(value, x.perm)
    if turned and user is not None:
        em.env[user.out] = laid
    return laid


# --- composites -----------------------------------------------------------------------------------


def _role_params(roles: Sequence[str], refs: Sequence[Ref]) -> tuple[dict[str, Any], list[str]]:
    constants = {r: c for r, c in zip(roles, refs, strict=True) if isinstance(c, Const)}
    params = {r: (c.key or r, np.asarray(c.array)) for r, c in constants.items()}
    return params, [r for r, c in constants.items() if not c.trainable]


@rule("@batch_norm")
def batch_norm(em: Emitter, eqn: Eqn) -> Laid:
    """Batch norm in inference on one axis."""
    x, p = em.laid(eqn.inputs[0]), eqn.params
    params, buffers = _role_params(p["roles"], eqn.inputs[1:])
    node, (own,) = em.builder.aligned(x.value, x.perm[p["axis"]])
    buffers = sorted({*buffers, "mean", "var"})
    op = BatchNorm(own, p["eps"])
    value = em.builder.emit(op, [node], params, view=x.value.shape, buffers=buffers)
    return Laid(value, x.perm)
