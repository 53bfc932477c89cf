r"""Products, quotients and normalised layers as one-variable functions, sums and products.

- *Log-sum-exp.* :math:`\log(e^x + e^y) = y + \mathrm{softplus}(x - y)`, in pairs like a maximum.
- *Softmax.* :math:`y_i = \mathrm{sigmoid}(x_i - \log \sum_{j \ne i} e^{x_j})`. Every function here
  has slopes between 0 and 1: nothing overflows on a wide box, as exponentials do.
- *Layer norm.* Deviations, the mean of their squares, :math:`1 / \sqrt{v + \epsilon}`, one product.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import inf
from typing import Any

import numpy as np

from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.activations.registry import ours
from tangency.models.errors import InputError
from tangency.models.ops import (
    Activate,
    Concat,
    Dense,
    LayerNorm,
    LogSumExp,
    MatMul,
    Product,
    Quotient,
    Reduce,
    Scale,
    Softmax,
)
from tangency.models.ops.base import normalise_axis
from tangency.verify.rigorous.lowering_writer import Writer

__all__ = ["layer_norm", "log_sum_exp", "matmul", "product", "quotient", "softmax"]

Params = Mapping[str, Any]


def product(write: Writer, op: Product, params: Params, x: int, y: int) -> int:
    """``x x`` is a square, a constant factor a scale; other products stay."""
    if x == y:
        return write.function("square", x)
    for one, other in ((x, y), (y, x)):
        constant = write.constant(other)
        if constant is not None:
            return write.times(one, constant)
    return write.add(op, x, y)


def quotient(write: Writer, op: Quotient, params: Params, x: int, y: int) -> int:
    """``x (1/y)``; affine where one of the two is a constant, as far as it can be."""
    above, below = write.constant(x), write.constant(y)
    if below is not None:
        if not np.all(below):
            raise InputError("division by a constant that is zero")
        return write.add(Scale(inverse=True), x, scale=below)
    inverse = write.function("reciprocal", y)
    return write.times(inverse, above) if above is not None else write.add(Product(), x, inverse)


def matmul(write: Writer, op: MatMul, params: Params, x: int, y: int) -> int:
    """A constant matrix as one of the factors makes a dense layer; other products stay."""
    left, right = write.constant(x), write.constant(y)
    if right is not None and right.ndim == 2:
        return write.add(Dense(), x, weight=right.T)
    if left is not None and left.ndim == 2:
        rank = len(write.shape(y))
        swap = [*range(rank - 2), rank - 1, rank - 2]
        return write.transpose(write.add(Dense(), write.transpose(y, swap), weight=left), swap)
    return write.add(op, x, y)


def _joined(write: Writer, x: int, y: int) -> int:
    return write.plus(y, write.function("softplus", write.minus(x, y)))


def softmax(write: Writer, op: Softmax, params: Params, x: int) -> int:
    """Each entry against the log-sum-exp of the others."""
    shape = write.shape(x)
    axis = normalise_axis(op.axis, len(shape))
    if shape[axis] == 1:
        return write.shifted(write.times(x, 0.0), 1.0)
    return write.function("sigmoid", write.minus(x, _of_others(write, x, axis)))


def _of_others(write: Writer, x: int, axis: int) -> int:
    """Log-sum-exp of all entries but one, for each: up a binary tree of pairs and down again."""
    levels = [x]  # of each node the log-sum-exp of the entries under it
    while (n := write.shape(levels[-1])[axis]) > 2:
        last = levels[-1]
        a, b = (write.gather(last, range(s, n - n % 2, 2), axis) for s in (0, 1))
        pairs = _joined(write, a, b)
        if n % 2:
            pairs = write.add(Concat(axis), pairs, write.gather(last, [n - 1], axis))
        levels.append(pairs)
    outside = write.gather(levels.pop(), [1, 0], axis)  # of the entries that are not under it
    while levels:
        level = levels.pop()
        n = write.shape(level)[axis]
        paired = range(n - n % 2)
        above = write.gather(outside, [i // 2 for i in paired], axis)
        beside = write.gather(level, [i ^ 1 for i in paired], axis)
        below = _joined(write, beside, above)
        if n % 2:
            below = write.add(Concat(axis), below, write.gather(outside, [n // 2], axis))
        outside = below
    return outside


def log_sum_exp(write: Writer, op: LogSumExp, params: Params, x: int) -> int:
    """Along each axis in turn, one half against the other."""
    shape = write.shape(x)
    axes = {normalise_axis(a, len(shape)) for a in op.axes}
    for axis in sorted(axes):
        while (n := write.shape(x)[axis]) > 1:
            half = n // 2
            a, b = (write.gather(x, range(s, s + half), axis) for s in (0, half))
            joined = _joined(write, a, b)
            if n % 2:
                joined = write.add(Concat(axis), joined, write.gather(x, [n - 1], axis))
            x = joined
    return write.reshape(x, [s for i, s in enumerate(shape) if i not in axes])


@lru_cache(maxsize=64)
def inverse_root(eps: float) -> Activation:
    """Build ``1/sqrt(x + eps)``, the gain of a layer norm of variance x."""
    if eps == 0.0:
        return activations.get("rsqrt")
    record = Activation(
        "inverse_root",
        lambda nx, x: 1.0 / nx.sqrt(x + eps),
        params=(("eps", eps),),
        derivative=lambda nx, x: -0.5 / ((x + eps) * nx.sqrt(x + eps)),
        formula="1/sqrt(x + eps)",
        limits=((inf, -inf), (0.0, 0.0)),
        core=(-30.0, 30.0),
        domain=(-eps, inf),
    )
    return ours(record)


def layer_norm(write: Writer, op: LayerNorm, params: Params, x: int) -> int:
    """``d / sqrt(mean(d^2) + eps)`` of the deviations ``d``, then weight and bias."""
    if op.eps < 0:
        raise InputError(f"eps is {op.eps:g}, it must be >= 0")
    shape = write.shape(x)
    axes = tuple(sorted({normalise_axis(a, len(shape)) for a in op.axes}))
    kept = [1 if i in axes else s for i, s in enumerate(shape)]

    def mean(value: int) -> int:
        return write.reshape(write.add(Reduce("mean", axes), value), kept)

    if op.center:
        x = write.minus(x, mean(x))
    variance = mean(write.function("square", x))
    gain = write.add(Activate(inverse_root(float(op.eps))), variance)
    y = write.add(Product(), x, gain)
    if "weight" in params:
        y = write.times(y, op.affine_part(params["weight"], len(shape))[0])
    if "bias" in params:
        y = write.shifted(y, op.affine_part(params["bias"], len(shape))[0])
    return y
