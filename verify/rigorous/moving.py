"""Ops that move, cut, join or order entries: exact on the end points.

Each of these is monotone in every input entry and commits no rounding, so that the image of a box
is the box of the images of its two extreme corners. Sorting belongs here: the k-th smallest entry
is a monotone function of all entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import (
    Broadcast,
    Concat,
    Constant,
    Extremum,
    Gather,
    GroupSort,
    MaxPool,
    Op,
    Pad,
    ReduceExtremum,
    Reshape,
    Slice,
    Transpose,
    numpy_backend,
)
from tangency.verify.rigorous.registry import rule

__all__ = ["constant", "monotone"]


@rule(
    Broadcast,
    Concat,
    Extremum,
    Gather,
    GroupSort,
    MaxPool,
    Pad,
    ReduceExtremum,
    Reshape,
    Slice,
    Transpose,
)
def monotone(op: Op, params: Mapping[str, Any], *xs: Interval) -> Interval:
    """Evaluate the op on the lower and on the upper end points."""
    backend = numpy_backend()
    return Interval(
        op.apply(backend, params, *(x.lower for x in xs)),
        op.apply(backend, params, *(x.upper for x in xs)),
    )


@rule(Constant)
def constant(op: Constant, params: Mapping[str, Any]) -> Interval:
    """A point, shared by all samples."""
    return Interval(np.asarray(params["value"])[None])
