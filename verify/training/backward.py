"""CROWN-IBP in JAX, as a function of the weights: intervals forward, then one linear pass back.

References
----------
Zhang et al., "Towards stable and efficient training of verifiably robust neural networks",
arXiv 1906.06316.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tangency.models.activations import Activation
from tangency.models.activations.registry import is_called
from tangency.models.ops import Activate, Constant, Op, Prelu, jax_backend
from tangency.models.structure import Node, Structure
from tangency.verify.training.intervals import Pair

__all__ = ["backward_lower"]

Array = Any


def backward_lower(
    structure: Structure,
    weights: Mapping[str, Array],
    known: Sequence[Pair],
    coefficients: Array,
    target: int,
) -> Array:
    """Lower bounds of linear maps of one node, by substitution back to the inputs.

    Parameters
    ----------
    structure : Structure
        The graph.
    weights : mapping of str to array
        Its weights; may be traced.
    known : sequence of (array, array)
        Bounds of every node, of :func:`.intervals.interval_walk`.
    coefficients : (N, S, *shape) array
        The maps, of a node of this shape.
    target : int
        Index of the node.

    Returns
    -------
    (N, S) array
    """
    import jax.numpy as jnp

    pending: dict[int, Array] = {target: coefficients}
    bound = jnp.zeros(coefficients.shape[:2], coefficients.dtype)
    for i in range(target, -1, -1):
        if i not in pending:
            continue
        coef, node = pending.pop(i), structure.nodes[i]
        if i in structure.inputs or isinstance(node.op, Constant):
            bound = bound + _least(coef, known[i])
            continue
        params = {p.role: weights[p.key] for p in node.params}
        if node.op.affine:
            parts, rest = _through_affine(node, structure, params, coef)
        elif isinstance(node.op, Activate | Prelu):
            part, rest = _through_lines(coef, *_lines(node.op, params, known[node.inputs[0]]))
            parts = [part]
        else:  # any other op stands for its own interval
            parts, rest = [], _least(coef, known[i])
        bound = bound + rest
        for j, part in zip(node.inputs, parts, strict=False):
            pending[j] = pending[j] + part if j in pending else part
    return bound


def _least(coef: Array, box: Pair) -> Array:
    """The least value of ``coef . x`` over a box."""
    import jax.numpy as jnp

    centre, radius = (box[0] + box[1]) / 2, (box[1] - box[0]) / 2
    return _dot(coef, centre[:, None]) - _dot(jnp.abs(coef), radius[:, None])


def _dot(a: Array, b: Array) -> Array:
    return (a * b).sum(axis=tuple(range(2, a.ndim)))


def _through_affine(
    node: Node, structure: Structure, params: Mapping[str, Array], coef: Array
) -> tuple[list[Array], Array]:
    """``coef (W x + v)``: the transpose of the op itself gives ``coef W``, its value at 0 is v."""
    import jax
    import jax.numpy as jnp

    backend, (n, s) = jax_backend(), coef.shape[:2]
    shapes = [structure.nodes[j].shape for j in node.inputs]
    zeros = [jnp.zeros((n * s, *shape), coef.dtype) for shape in shapes]
    _, pull = jax.vjp(lambda *xs: node.op.apply(backend, params, *xs), *zeros)
    parts = pull(coef.reshape((n * s, *coef.shape[2:])))
    origin = node.op.apply(backend, params, *(z[:1] for z in zeros))
    found = [p.reshape((n, s, *shape)) for p, shape in zip(parts, shapes, strict=True)]
    return found, _dot(coef, origin[:, None])


def _through_lines(coef: Array, below: Pair, above: Pair) -> tuple[Array, Array]:
    """The line below where the coefficient is positive, the line above where it is negative."""
    import jax.numpy as jnp

    positive, negative = jnp.maximum(coef, 0.0), jnp.minimum(coef, 0.0)
    slope = positive * below[0][:, None] + negative * above[0][:, None]
    rest = _dot(positive, below[1][:, None]) + _dot(negative, above[1][:, None])
    return slope, rest


def _lines(op: Op, params: Mapping[str, Array], box: Pair) -> tuple[Pair, Pair]:
    """Slope and offset of a line below and of a line above the activation on each box."""
    import jax.numpy as jnp

    if isinstance(op, Prelu):
        slope = op.slopes(params["slope"], box[0].ndim - 1)
        return _bent(slope, *box)
    assert isinstance(op, Activate)
    fixed = _negative_slope(op.activation)
    if fixed is not None:
        return _bent(jnp.asarray(fixed, box[0].dtype), *box)
    return _general(op.activation, *box)


def _negative_slope(record: Activation) -> float | None:
    """Slope on the negative side of the two members of the ReLU family that are met daily."""
    if is_called(record, "relu"):
        return 0.0
    slopes = dict(record.params)
    if is_called(record, "leaky_relu") and len(slopes) == 1:
        (slope,) = slopes.values()
        return float(slope) if isinstance(slope, int | float) else None
    return None


def _bent(slope: Array, lower: Array, upper: Array) -> tuple[Pair, Pair]:
    """``max(x, 0) + slope min(x, 0)``: the chord on one side, one of the two pieces on the other.

    The piece is the one of the longer side of the box, which leaves the smaller area; where the
    function is concave (slope > 1), chord and piece change places.
    """
    import jax.numpy as jnp

    across = (lower < 0) & (upper > 0)
    width = jnp.where(across, upper - lower, 1.0)
    piece = jnp.where(upper > -lower, 1.0, slope)
    one_side = jnp.where(lower >= 0, 1.0, slope)
    chord = jnp.where(across, (upper - slope * lower) / width, one_side)
    offset = jnp.where(across, (slope - chord) * lower, 0.0)
    piece = jnp.where(across, piece, one_side)
    nothing = jnp.zeros_like(offset)
    convex = jnp.broadcast_to(slope <= 1.0, offset.shape)
    lines = (piece, nothing), (chord, offset)

    def chosen(first: Pair, second: Pair) -> Pair:
        return jnp.where(convex, first[0], second[0]), jnp.where(convex, first[1], second[1])

    return chosen(*lines), chosen(*reversed(lines))


def _general(record: Activation, lower: Array, upper: Array) -> tuple[Pair, Pair]:
    """Lines of the default slopes; the slopes are held fixed where the loss is differentiated."""
    from jax.lax import stop_gradient

    from tangency.models.activations.lines import default_slopes, intercepts
    from tangency.models.namespace import jax_namespace

    nx = jax_namespace()
    ends = stop_gradient(lower), stop_gradient(upper)
    below, above = (stop_gradient(a) for a in default_slopes(record, nx, *ends))
    low, high = intercepts(record, nx, lower, upper, below, above)
    return (below, low), (above, high)
