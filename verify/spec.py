"""Linear specifications of the output as users give them: matrices, labels, margins."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError

__all__ = ["check_labels", "check_spec", "margin_spec"]

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
