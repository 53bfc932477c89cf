"""How layers carry the radius of an infinitely small box: the absolute local matrix of each op.

At a point every op is its linearisation J. Interval bounds take from a box of radii r the box of
radii ``|J| r``; the product of these over the layers is the denominator of local tightness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from tangency.models.ops import (
    Activate,
    Add,
    BatchNorm,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Extremum,
    GroupSort,
    LogSumExp,
    MatMul,
    MaxPool,
    Op,
    Prelu,
    Product,
    Quotient,
    ReduceExtremum,
    Scale,
    Select,
    Subtract,
    jax_backend,
)
from tangency.verify.training.intervals import magnitudes

__all__ = ["carry"]

Array = Any
Params = Mapping[str, Array]
Rule = Callable[..., Array]

#: Nonlinear ops whose local matrix has no negative entry: it is its own absolute value.
RISING = (Extremum, GroupSort, LogSumExp, MaxPool, ReduceExtremum, Select)


def carry(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    """Radii ``|J| r`` behind an op.

    Parameters
    ----------
    op : Op
        The op.
    params : mapping of str to array
        Its parameters by role.
    xs : list of (N, *shape) array
        The values of its inputs: where J is taken.
    rs : list of (N, *shape) array
        Their radii, >= 0.

    Returns
    -------
    (N, *shape) array
    """
    if type(op) in _RULES:
        return _RULES[type(op)](op, params, xs, rs)
    if op.affine or isinstance(op, RISING):  # what is left of the affine ops moves and averages
        return _along(op, params, xs, rs)
    return _matrix(op, params, xs, rs)


def _along(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    """``J r``, one derivative in a direction."""
    import jax

    wide = [r + 0 * x for x, r in zip(xs, rs, strict=True)]
    return jax.jvp(lambda *v: op.apply(jax_backend(), params, *v), tuple(xs), tuple(wide))[1]


def _matrix(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    """``|J| r`` with J written out, sample by sample: for softmax, norms, Householder."""
    import jax
    import jax.numpy as jnp

    def one(x: list[Array], r: list[Array]) -> Array:
        jacobians = jax.jacrev(
            lambda *v: op.apply(jax_backend(), params, *(u[None] for u in v))[0],
            argnums=tuple(range(len(x))),
        )(*x)
        total = jnp.zeros(())
        for matrix, value, radius in zip(jacobians, x, r, strict=True):
            flat = jnp.abs(matrix).reshape((-1, prod(value.shape)))
            shape = matrix.shape[: matrix.ndim - value.ndim]
            whole = jnp.broadcast_to(radius, value.shape).reshape(-1)
            total = total + (flat @ whole).reshape(shape)
        return total

    return jax.vmap(one)(xs, rs)


def _constant(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    import jax.numpy as jnp

    return jnp.zeros_like(params["value"])[None]


def _weighted(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    return op.apply(jax_backend(), magnitudes(op, params), *rs)


def _sum(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    return Add().apply(jax_backend(), {}, *rs)


def _slope(op: Activate, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    import jax.numpy as jnp

    from tangency.models.namespace import jax_namespace

    return jnp.abs(op.activation.derivative(jax_namespace(), xs[0])) * rs[0]


def _prelu(op: Prelu, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    import jax.numpy as jnp

    slope = jnp.abs(op.slopes(params["slope"], xs[0].ndim - 1))
    return jnp.where(xs[0] > 0, 1.0, slope) * rs[0]


def _bilinear(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    import jax.numpy as jnp

    backend, (x, y), (rx, ry) = jax_backend(), xs, rs
    return op.apply(backend, {}, rx, jnp.abs(y)) + op.apply(backend, {}, jnp.abs(x), ry)


def _quotient(op: Op, params: Params, xs: list[Array], rs: list[Array]) -> Array:
    import jax.numpy as jnp

    backend, (x, y), (rx, ry) = jax_backend(), xs, rs
    part = op.apply(backend, {}, rx, jnp.abs(y))
    return part + op.apply(backend, {}, jnp.abs(op.apply(backend, {}, x, y)) * ry, jnp.abs(y))


_RULES: dict[type[Op], Rule] = {
    Activate: _slope,
    BatchNorm: _weighted,
    Constant: _constant,
    Conv: _weighted,
    ConvTranspose: _weighted,
    Dense: _weighted,
    MatMul: _bilinear,
    Prelu: _prelu,
    Product: _bilinear,
    Quotient: _quotient,
    Scale: _weighted,
    Subtract: _sum,
}
