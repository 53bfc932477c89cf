"""Lower bounds of margins over l-infinity balls, as a function of the weights.

The differences ``y_label - y_j`` are joined to the last dense layer before the box goes in, as in
:mod:`tangency.verify.bounds`: logits that rise together then cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tangency.models.errors import UnsupportedError
from tangency.models.ops import Dense, Reshape
from tangency.models.structure import Structure
from tangency.verify.training.backward import backward_lower
from tangency.verify.training.intervals import Pair, interval_walk

__all__ = ["check_scores", "crown_ibp_margins", "ibp_margins", "last_dense"]

Array = Any
Weights = Mapping[str, Array]
Clip = tuple[float, float] | None


def ibp_margins(
    structure: Structure, weights: Weights, x: Array, y: Array, eps: Array, *, clip: Clip = None
) -> Array:
    """Interval bounds of the margins, in plain floating point.

    Parameters
    ----------
    structure : Structure
        Of one input and one output, a vector of K scores.
    weights : mapping of str to array
        Its weights; may be traced.
    x : (N, *shape) array
        Centres.
    y : (N,) array of int
        Labels.
    eps : scalar or array that broadcasts to x
        Radius of the balls.
    clip : (float, float), optional
        Range of valid inputs, which the balls do not leave.

    Returns
    -------
    (N, K) array
        Lower bounds of ``y_label - y_j``; zero at j = label.
    """
    return _interval_margins(structure, weights, _walk(structure, weights, x, eps, clip), y)


def crown_ibp_margins(
    structure: Structure, weights: Weights, x: Array, y: Array, eps: Array, *, clip: Clip = None
) -> tuple[Array, Array]:
    """Bounds of the margins by CROWN-IBP and by intervals, each (N, K), from one interval walk.

    Parameters are those of :func:`ibp_margins`.
    """
    known = _walk(structure, weights, x, eps, clip)
    spec = differences(y, check_scores(structure), x.dtype)
    linear = backward_lower(structure, weights, known, spec, structure.outputs[0])
    return linear, _interval_margins(structure, weights, known, y)


def differences(y: Array, classes: int, dtype: Any) -> Array:
    """``(N, K, K)`` array whose row j gives ``y_label - y_j``; the row of the label is zero."""
    import jax.numpy as jnp

    identity = jnp.eye(classes, dtype=dtype)
    return identity[y][:, None, :] - identity[None]


def check_scores(structure: Structure) -> int:
    """Number of classes; UnsupportedError unless there is one input and one vector of scores."""
    shapes = [structure.nodes[i].shape for i in structure.outputs]
    if len(structure.inputs) != 1 or len(shapes) != 1 or len(shapes[0]) != 1 or shapes[0][0] < 2:
        raise UnsupportedError(
            f"robust training takes one input and one output of K >= 2 scores, the network has "
            f"{len(structure.inputs)} inputs and outputs {shapes}"
        )
    return shapes[0][0]


def last_dense(structure: Structure) -> int | None:
    """Index of the dense layer whose flattened output the network returns, if there is one."""
    i = structure.outputs[0]
    while isinstance(structure.nodes[i].op, Reshape):
        i = structure.nodes[i].inputs[0]
    node = structure.nodes[i]
    return i if isinstance(node.op, Dense) and len(node.shape) == 1 else None


def _walk(structure: Structure, weights: Weights, x: Array, eps: Array, clip: Clip) -> list[Pair]:
    import jax.numpy as jnp

    low, high = x - eps, x + eps
    if clip is not None:
        low, high = jnp.maximum(low, clip[0]), jnp.minimum(high, clip[1])
    return interval_walk(structure, weights, [(low, high)])


def _interval_margins(structure: Structure, weights: Weights, known: list[Pair], y: Array) -> Array:
    import jax.numpy as jnp

    end, last = structure.outputs[0], last_dense(structure)
    classes = check_scores(structure)
    if last is None:
        low, high = known[end]
        spec = differences(y, classes, low.dtype)
        offset = jnp.zeros((), low.dtype)
    else:
        node = structure.nodes[last]
        params = {p.role: weights[p.key] for p in node.params}
        low, high = known[node.inputs[0]]
        w = params["weight"]
        spec = w[y][:, None, :] - w[None]
        bias = params.get("bias", jnp.zeros(classes, w.dtype))
        offset = bias[y][:, None] - bias[None]
    centre, radius = (low + high) / 2, (high - low) / 2
    along = (spec * centre[:, None]).sum(axis=-1)
    return along + offset - (jnp.abs(spec) * radius[:, None]).sum(axis=-1)
