"""Interval bound propagation in JAX, as a function of the weights: what IBP training descends.

One walk through a Structure with a pair of arrays a node. The rules are those of
:mod:`tangency.verify.rigorous` in plain arithmetic; a network that leaves training is certified
there.

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", arXiv 1810.12715.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tangency.models.errors import UnsupportedError
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
    ReduceExtremum,
    Scale,
    Select,
    Softmax,
    Subtract,
    jax_backend,
)
from tangency.models.ops.base import normalise_axis
from tangency.models.structure import Structure
from tangency.verify.bounds.search import intervals as estimates
from tangency.verify.training.ranges import activation_range

__all__ = ["Pair", "interval_walk", "magnitudes"]

Array = Any
Pair = tuple[Array, Array]
Params = Mapping[str, Array]
Rule = Callable[..., Pair]

#: Ops that no entry of an input can lower by growing: the ends of the inputs give the ends.
RISING = (Add, Constant, Extremum, GroupSort, LogSumExp, MaxPool, ReduceExtremum)


def interval_walk(
    structure: Structure, weights: Mapping[str, Array], inputs: Sequence[Pair]
) -> list[Pair]:
    """Bounds of every node of a structure for a batch of boxes.

    Parameters
    ----------
    structure : Structure
        The graph.
    weights : mapping of str to array
        As :class:`tangency.models.Network` holds them; may be traced.
    inputs : sequence of ((N, *shape) array, (N, *shape) array)
        Corners of the box of each input.

    Returns
    -------
    list of (array, array)
        Lower and upper bounds of each node, ``(N, *shape)``; constants have N = 1.

    Raises
    ------
    UnsupportedError
        For an op that has no rule in training, by the name of its layer.
    """
    given = dict(zip(structure.inputs, inputs, strict=True))
    found: list[Pair] = []
    for i, node in enumerate(structure.nodes):
        if i in given:
            found.append(given[i])
            continue
        params = {p.role: weights[p.key] for p in node.params}
        try:
            found.append(step(node.op, params, *(found[j] for j in node.inputs)))
        except UnsupportedError as error:
            raise UnsupportedError(f"layer {node.name!r}: {error}") from None
    return found


def step(op: Op, params: Params, *xs: Pair) -> Pair:
    """Bounds of one op from those of its inputs."""
    if type(op) in _RULES:
        return _RULES[type(op)](op, params, *xs)
    if isinstance(op, (Prelu, Product, Select, Subtract)):
        return estimates.step(jax_backend(), op, params, xs)
    if op.affine or isinstance(op, RISING):  # what is left of the affine ops moves and averages
        ends = zip(*xs, strict=True) if xs else ((), ())
        low, high = (op.apply(jax_backend(), params, *end) for end in ends)
        return low, high
    raise UnsupportedError(f"intervals in JAX have no rule for {op.kind!r}")


def magnitudes(op: Op, params: Params) -> Params:
    """The parameters of the op whose matrix is ``|W|`` and whose bias is zero."""
    import jax.numpy as jnp

    if isinstance(op, BatchNorm):
        shown = {"mean": jnp.zeros_like(params["mean"]), "var": params["var"]}
        return shown | {"weight": jnp.abs(params["weight"])} if "weight" in params else shown
    return {role: jnp.abs(value) for role, value in params.items() if role != "bias"}


def _matrix(op: Op, params: Params, x: Pair) -> Pair:
    """``W c + b`` and ``|W| r`` for the centre and the radius of the box."""
    backend, (low, high) = jax_backend(), x
    centre = op.apply(backend, params, (low + high) / 2)
    radius = op.apply(backend, magnitudes(op, params), (high - low) / 2)
    return centre - radius, centre + radius


def _activate(op: Activate, params: Params, x: Pair) -> Pair:
    return activation_range(op.activation, *x)


def _matmul(op: MatMul, params: Params, x: Pair, y: Pair) -> Pair:
    import jax.numpy as jnp

    (xc, xr), (yc, yr) = (((a + b) / 2, (b - a) / 2) for a, b in (x, y))
    backend = jax_backend()
    centre = op.apply(backend, params, xc, yc)
    radius = op.apply(backend, params, jnp.abs(xc) + xr, yr)
    radius = radius + op.apply(backend, params, xr, jnp.abs(yc))
    return centre - radius, centre + radius


def _softmax(op: Softmax, params: Params, x: Pair) -> Pair:
    """Entry i is least with itself at its least and the others at their greatest."""
    import jax
    import jax.numpy as jnp

    axis = normalise_axis(op.axis, x[0].ndim - 1) + 1
    low, high = (jnp.moveaxis(end, axis, -1) for end in x)

    def against(own: Array, others: Array) -> Array:
        # The others are summed apart: the total minus one's own would lose them beside a large one.
        hidden = jnp.where(jnp.eye(own.shape[-1], dtype=bool), -1e30, others[..., None, :])
        return jax.nn.sigmoid(own - jax.nn.logsumexp(hidden, axis=-1))

    least, most = against(low, high), against(high, low)
    return jnp.moveaxis(least, -1, axis), jnp.moveaxis(most, -1, axis)


_RULES: dict[type[Op], Rule] = {
    Activate: _activate,
    BatchNorm: _matrix,
    Conv: _matrix,
    ConvTranspose: _matrix,
    Dense: _matrix,
    MatMul: _matmul,
    Scale: _matrix,
    Softmax: _softmax,
}
