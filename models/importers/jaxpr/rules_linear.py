"""Rules of products of tensors: dense layers, products of two variables, convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.importers.jaxpr.emitter import Emitter, rule
from tangency.models.importers.jaxpr.layout import Laid
from tangency.models.importers.jaxpr.rules_groups import ints
from tangency.models.importers.jaxpr.terms import Const, Eqn, Var
from tangency.models.ops import Conv, ConvTranspose, Op

Axes = tuple[int, ...]


@rule("dot_general")
def dot_general(em: Emitter, eqn: Eqn) -> Laid:
    """A dense layer where one side is a constant, else a product of two variables."""
    x, y = eqn.inputs
    numbers = eqn.params["dimension_numbers"]
    (cx, cy), (bx, by) = (tuple(tuple(int(a) for a in s) for s in pair) for pair in numbers)
    single = all(x.shape[a] == 1 for a in bx)
    if isinstance(y, Const) and isinstance(x, Var) and single:
        return _dense(em, eqn, x, y, (cx, cy), (bx, by), variable_first=True)
    if isinstance(x, Const) and isinstance(y, Var) and single:
        return _dense(em, eqn, y, x, (cy, cx), (by, bx), variable_first=False)
    return _product(em, eqn, (cx, cy), (bx, by))


def _free(shape: Sequence[int], *used: Axes) -> Axes:
    return tuple(i for i in range(len(shape)) if not any(i in axes for axes in used))


def _dense(
    em: Emitter,
    eqn: Eqn,
    x: Var,
    w: Const,
    contracted: tuple[Axes, Axes],
    batch: tuple[Axes, Axes],
    *,
    variable_first: bool,
) -> Laid:
    """``x`` times a constant: the contracted axes last, the weight as (out, in)."""
    em.floating(w)
    laid = em.laid(x)
    # The order of the contracted axes is free: take that in which they lie.
    pairs = sorted(zip(*contracted, strict=True), key=lambda p: laid.perm[p[0]])
    cx, cw = [p[0] for p in pairs], [p[1] for p in pairs]
    value, order = em.layouts.last(laid, cx)
    keep = order[: len(order) - len(cx)]
    wfree = _free(w.shape, tuple(cw), batch[1])
    outs = tuple(w.shape[a] for a in wfree)
    weight = np.asarray(w.full()).transpose((*batch[1], *wfree, *cw)).reshape(prod(outs), -1)
    lead = value.shape[: len(keep)]
    # Where each axis of the result lies: batch axes, then the free ones of either side.
    xfree = _free(x.shape, tuple(cx), batch[0])
    mine = [keep.index(a) for a in xfree]
    theirs = [len(keep) + i for i in range(len(wfree))]
    front = [keep.index(a) for a in batch[0]]
    perm = (*front, *mine, *theirs) if variable_first else (*front, *theirs, *mine)
    view = (*lead, *outs)

    bias = _bias(em, eqn, perm, theirs)
    keys = (w.key or "weight", (bias.const.key if bias else None) or "bias")
    trainable = (w.trainable, bool(bias and bias.const.trainable))
    flat = em.builder.reshape(value, (*lead, weight.shape[1]))
    array = bias.array if bias else None
    result = em.builder.dense(flat, weight, array, keys=keys, trainable=trainable)
    laid = em.layouts.tidy(em.builder.reshape(result, view), perm)
    if bias:
        bias.settle(em, laid)
    return laid


@dataclass(frozen=True)
class _Bias:
    """A constant that is added next, one number for each output of a layer.

    ``holders`` are the variables from the layer's own result to the sum: as nothing else uses
    them, all may hold the sum.
    """

    const: Const
    array: np.ndarray
    holders: tuple[Var, ...]

    def settle(self, em: Emitter, laid: Laid) -> None:
        """Note the sum down."""
        for var in self.holders:
            em.env[var] = em.layouts.reshaped(laid, var.shape)


def _bias(em: Emitter, eqn: Eqn, perm: Sequence[int], axes: Sequence[int]) -> _Bias | None:
    """The bias that is added next: it varies along ``axes`` of the layer's value, and no other.

    Between the two the model may change the shape.
    """
    holders: list[Var] = []
    user = em.only_consumer(eqn.out)
    if user is not None and user.prim == "reshape":
        holders.append(user.out)
        user = em.only_consumer(user.out)
    if user is None or user.prim != "add" or prod(user.out.shape) != prod(eqn.out.shape):
        return None
    holders.append(user.out)
    for c in user.inputs:
        if isinstance(c, Const) and c.array.size == prod(
            eqn.out.shape[perm.index(a)] for a in axes
        ):
            # Which number of the constant meets each entry of the layer's value.
            numbers = np.arange(c.array.size).reshape(c.array.shape)
            met = np.broadcast_to(numbers, user.out.shape).reshape(eqn.out.shape)
            met = met.transpose(np.argsort(perm))
            others = tuple(i for i in range(met.ndim) if i not in axes)
            first = met[tuple(slice(None) if i in axes else slice(1) for i in range(met.ndim))]
            if (met == first).all() and len(set(first.reshape(-1).tolist())) == c.array.size:
                em.floating(c)
                own = first.squeeze(others).reshape(-1)
                return _Bias(c, np.asarray(c.array).reshape(-1)[own], tuple(holders))
    return None


def _product(
    em: Emitter, eqn: Eqn, contracted: tuple[Axes, Axes], batch: tuple[Axes, Axes]
) -> Laid:
    """``(batch, m, k) @ (batch, k, n)`` of two variables, in the order that moves fewer axes."""
    (x, y), (cx, cy), (bx, by) = eqn.inputs, contracted, batch
    fx, fy = _free(x.shape, cx, bx), _free(y.shape, cy, by)
    left, right = em.laid(x), em.laid(y)
    layouts = em.layouts
    lead = tuple(x.shape[a] for a in bx)
    m, n = (tuple(s.shape[a] for a in f) for s, f in ((x, fx), (y, fy)))
    k = prod(x.shape[a] for a in cx)
    straight = layouts.cost(left, (*bx, *fx, *cx)) + layouts.cost(right, (*by, *cy, *fy))
    turned = layouts.cost(right, (*by, *fy, *cy)) + layouts.cost(left, (*bx, *cx, *fx))
    if straight <= turned:
        first, second = (
            layouts.arranged(left, (*bx, *fx, *cx)),
            layouts.arranged(right, (*by, *cy, *fy)),
        )
        rows, columns = m, n
    else:
        first, second = (
            layouts.arranged(right, (*by, *fy, *cy)),
            layouts.arranged(left, (*bx, *cx, *fx)),
        )
        rows, columns = n, m
    a = em.builder.reshape(first, (*lead, prod(rows), k))
    b = em.builder.reshape(second, (*lead, k, prod(columns)))
    em.builder.scope = "matmul"
    product = em.builder.matmul(a, b)
    value = em.builder.reshape(product, (*lead, *rows, *columns))
    front, r, c = len(lead), len(rows), len(columns)
    perm = list(range(front + r + c))
    if straight > turned:
        perm = [*range(front), *range(front + r, front + r + c), *range(front, front + r)]
    return layouts.tidy(value, perm)


@rule("conv_general_dilated")
def conv(em: Emitter, eqn: Eqn) -> Laid:
    """A convolution; with a dilated input, a transposed one."""
    x, w = eqn.inputs
    p = eqn.params
    numbers = p["dimension_numbers"]
    lhs, rhs, out = (tuple(int(a) for a in s) for s in numbers)
    n = len(lhs) - 2
    if not isinstance(w, Const) or not isinstance(x, Var):
        raise UnsupportedError("primitive 'conv_general_dilated': the kernel must be a constant")
    if n not in (1, 2) or p["batch_group_count"] != 1:
        raise UnsupportedError(
            f"primitive 'conv_general_dilated': {n} spatial axes in {p['batch_group_count']} batch "
            "groups; 1 or 2 spatial axes without batch groups are supported"
        )
    em.floating(w)
    value = em.layouts.arranged(em.laid(x), lhs)
    weight = np.asarray(w.full()).transpose(rhs)
    groups = int(p["feature_group_count"])
    stride, pads = ints(p["window_strides"]), [(int(lo), int(hi)) for lo, hi in p["padding"]]
    inner, dilation = ints(p["lhs_dilation"]), ints(p["rhs_dilation"])
    perm = tuple(int(i) for i in np.argsort(out))
    view = tuple(eqn.out.shape[a] for a in out)
    transposed = max(inner) > 1 and max(stride) == 1
    op: Op
    if transposed:
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        cut = tuple((r - lo, r - hi) for r, (lo, hi) in zip(reach, pads, strict=True))
        op = ConvTranspose(inner, cut, dilation, groups, (0,) * n)
        weight = _turned(weight, groups)
    else:
        for i, step in enumerate(inner):
            value = em.layouts.dilated(value, 2 + i, step, 0.0)
        if min(min(p) for p in pads) < 0:
            negative = {2 + i: (min(lo, 0), min(hi, 0)) for i, (lo, hi) in enumerate(pads)}
            value = em.layouts.padded(value, negative, 0.0)
        padding = tuple((max(lo, 0), max(hi, 0)) for lo, hi in pads)
        op = Conv(stride, padding, dilation, groups)
    bias = _bias(em, eqn, perm, (1,))
    params: dict[str, tuple[str, Any]] = {"weight": (w.key or "weight", weight)}
    if bias:
        params["bias"] = (bias.const.key or "bias", bias.array)
    fixed = [("weight", not w.trainable), ("bias", bool(bias and not bias.const.trainable))]
    # Several images at once (a batch axis that is not of size one) stay in front.
    node = em.builder.laid_out(value, value.shape[1:] if value.shape[0] == 1 else value.shape)
    buffers = [role for role, is_fixed in fixed if is_fixed]
    result = em.builder.emit(op, [node], params, view=view, buffers=buffers)
    laid = em.layouts.tidy(result, perm)
    if bias:
        bias.settle(em, laid)
    return laid


def _turned(weight: np.ndarray, groups: int) -> np.ndarray:
    """Kernel (O, C/g, *K) of a correlation as that (C, O/g, *K) of a transposed convolution."""
    kernel = weight.shape[2:]
    w = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], *kernel)
    w = w.swapaxes(1, 2).reshape(groups * weight.shape[1], -1, *kernel)
    return np.flip(w, axis=tuple(range(2, w.ndim)))
