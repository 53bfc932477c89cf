"""Linear specifications of the output, joined to the last layer where it is dense.

The margin ``C y`` of logits ``y = W h + b`` is bounded as ``(C W) h + C b`` over the box of h, not
as C times the box of y: logits that rise together then cancel ("elision of the last layer").

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", arXiv 1810.12715, section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Dense, Reshape
from tangency.verify.rigorous.enclosure import affine, relative_error

__all__ = ["check_labels", "check_spec", "elided", "margin_spec", "on_last_layer", "on_output"]

Array = Any


def check_labels(labels: Any, samples: int, classes: int) -> Array:
    """Labels as an integer array of one label a sample.

    Raises
    ------
    InputError
        When they are not integers, not as many as the samples, or not classes.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise InputError(f"labels are {array.dtype}: give integers, as labels.astype('int64')")
    if array.shape != (samples,):
        raise InputError(f"labels have shape {array.shape}: {samples} samples take ({samples},)")
    bad = (array < 0) | (array >= classes)
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(f"label {int(array[i])} of sample {i} is not in 0..{classes - 1}")
    return array.astype(np.int64)


def margin_spec(labels: Array, classes: int) -> Array:
    """``(N, K-1, K)`` array whose rows give ``y_label - y_j`` for the other classes j in order."""
    identity = np.eye(classes)
    others = np.array([np.delete(np.arange(classes), k) for k in range(classes)])[labels]
    spec: Array = identity[labels][:, None, :] - identity[others]
    return spec


def check_spec(spec: Any, samples: int, outputs: int) -> Array:
    """The specification as float64 ``(N or 1, S, n_out)``; InputError when it does not fit."""
    check_array("spec", spec, finite=True)
    array = np.asarray(spec, dtype=np.float64)
    if array.ndim == 2:
        array = array[None]
    fits = array.ndim == 3 and array.shape[2] == outputs and array.shape[1] > 0
    if not fits or not (array.shape[0] in (1, samples) or samples == 1):
        raise InputError(
            f"spec has shape {tuple(spec.shape)}: give (S, {outputs}), "
            f"or ({samples}, S, {outputs}) for one matrix a sample"
        )
    if not np.isfinite(array).all():
        raise InputError("spec has a NaN or infinite entry")
    return array


def elided(network: Network) -> int | None:
    """Index of the dense layer whose flattened output the network returns, if there is one."""
    nodes = network.structure.nodes
    i = network.structure.outputs[0]
    while isinstance(nodes[i].op, Reshape):
        i = nodes[i].inputs[0]
    plain = isinstance(nodes[i].op, Dense) and len(nodes[i].shape) == 1
    return i if plain else None


def on_output(spec: Array, y: Interval) -> Interval:
    """Enclose ``spec @ y`` for a box of flattened outputs ``(N, n)``."""
    size = np.abs(spec)
    return affine(y, _times(spec), _times(size), spec.shape[-1])


def on_last_layer(spec: Array, weight: Array, bias: Array | None, h: Interval) -> Interval:
    """Enclose ``spec @ (weight @ h + bias)``, the two matrices multiplied first.

    The product is known up to rounding, ``|spec W - fl(spec W)| <= gamma_n |spec| |W|``, a slack
    that :func:`affine` takes into account; the bias is one more column, times one.
    """
    columns = [weight, (np.zeros(weight.shape[0]) if bias is None else bias)[:, None]]
    whole = np.concatenate(columns, axis=1)
    merged = spec @ whole
    slack = relative_error(weight.shape[0]) * (np.abs(spec) @ np.abs(whole)) + 1e-290
    one = np.ones((h.shape[0], 1))
    h = Interval(
        np.concatenate([h.lower, one], axis=1),
        np.concatenate([h.upper, one], axis=1),
    )
    size = np.abs(merged) + slack
    return affine(h, _times(merged), _times(size), whole.shape[1], slack=_times(slack))


def _times(matrix: Array) -> Any:
    if matrix.shape[0] == 1:
        return lambda v: v @ matrix[0].T
    return lambda v: (matrix @ v[..., None])[..., 0]
