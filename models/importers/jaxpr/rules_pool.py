"""Rules of pooling: the largest entry, the sum or the mean of each window."""

from __future__ import annotations

from math import prod

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.importers.jaxpr.emitter import Emitter, rule
from tangency.models.importers.jaxpr.layout import Laid
from tangency.models.importers.jaxpr.rules_groups import divided, ints
from tangency.models.importers.jaxpr.terms import Const, Eqn, Var
from tangency.models.ops import AveragePool, MaxPool, Op


@rule("reduce_window_max", "reduce_window_sum")
def pool(em: Emitter, eqn: Eqn) -> Laid:
    """Pooling over the axes that the window spans."""
    p = eqn.params
    size, stride = ints(p["window_dimensions"]), ints(p["window_strides"])
    pads = tuple((int(lo), int(hi)) for lo, hi in p["padding"])
    dilation, base = ints(p["window_dilation"]), ints(p["base_dilation"])
    maximum = eqn.prim == "reduce_window_max"
    if max(base) > 1 or (not maximum and max(dilation) > 1):
        raise UnsupportedError(f"primitive {eqn.prim!r} with dilations {base} and {dilation}")
    space = [i for i in range(len(size)) if size[i] != 1 or stride[i] != 1 or pads[i] != (0, 0)]
    if not space:
        return em.laid(eqn.inputs[0])
    value, order = em.layouts.last(em.laid(eqn.inputs[0]), space)
    perm = tuple(order.index(i) for i in range(len(order)))
    n = len(order) - len(space)
    window, step = tuple(size[a] for a in space), tuple(stride[a] for a in space)
    around = tuple(pads[a] for a in space)
    spans = [dilation[a] * (size[a] - 1) + 1 for a in space]
    if any(max(pair) >= span for pair, span in zip(around, spans, strict=True)):
        if maximum:
            raise UnsupportedError(f"primitive {eqn.prim!r}: padding {around} exceeds {window}")
        value = em.layouts.padded(value, {n + i: pair for i, pair in enumerate(around)}, 0.0)
        around = ((0, 0),) * len(space)
    view = tuple(eqn.out.shape[a] for a in order)
    drop = 1 if n and value.shape[0] == 1 else 0
    node = em.builder.laid_out(value, value.shape[drop:])
    if maximum:
        em.builder.scope = "max_pool"
        op: Op = MaxPool(window, step, around, tuple(dilation[a] for a in space))
        return em.layouts.tidy(em.builder.emit(op, [node], view=view), perm)
    em.builder.scope = "average_pool"
    mean = AveragePool(window, step, around)
    ended = divided(em, eqn.out, prod(window))
    inside = tuple(value.shape[n:])
    other = None if ended else _divided_by_counts(em, eqn, space, mean, inside)
    if other is not None:
        mean = AveragePool(window, step, around, count_padding=False)
    laid = em.layouts.tidy(em.builder.emit(mean, [node], view=view), perm)
    end = ended[0] if ended and not ended[1] else other
    if end is not None:
        em.env[end] = laid
        return laid
    em.builder.scope = "sum"
    count = np.asarray(prod(window), em.builder.dtype)
    return Laid(em.builder.scale(laid.value, count, trainable=False), laid.perm)


def _divided_by_counts(
    em: Emitter, eqn: Eqn, space: list[int], op: AveragePool, inside: tuple[int, ...]
) -> Var | None:
    """The variable that divides the sums by the number of entries in each window, if any does."""
    user = em.only_consumer(eqn.out)
    if user is None or user.prim != "div" or not isinstance(user.inputs[1], Const):
        return None
    real = AveragePool(op.size, op.stride, op.padding, count_padding=False).counts(inside)
    shape = tuple(s if i in space else 1 for i, s in enumerate(eqn.out.shape))
    divisor = np.asarray(user.inputs[1].array)
    same = user.out.shape == eqn.out.shape and divisor.ndim == len(shape)
    return user.out if same and (divisor == real.reshape(shape)).all() else None
