"""Functions of one entry: activations by their records, and the parametric ReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Activate, Prelu
from tangency.verify.rigorous.registry import rule

__all__ = ["activate", "prelu"]

Params = Mapping[str, Any]


@rule(Activate)
def activate(op: Activate, params: Params, x: Interval) -> Interval:
    """The rigorous range that the record of the activation gives."""
    return op.activation.range_on(x.lower, x.upper)


@rule(Prelu)
def prelu(op: Prelu, params: Params, x: Interval) -> Interval:
    """``max(x, 0) + slope min(x, 0)``: its extremes lie at the end points and at the kink."""
    slope = op.slopes(params["slope"], len(x.shape) - 1)
    ends = Interval(x.lower) * np.where(x.lower < 0, slope, 1.0)
    other = Interval(x.upper) * np.where(x.upper < 0, slope, 1.0)
    # The identity side has no rounding.
    low = np.where(x.lower >= 0, x.lower, np.minimum(ends.lower, other.lower))
    high = np.where(x.lower >= 0, x.upper, np.maximum(ends.upper, other.upper))
    across = (x.lower < 0) & (x.upper > 0)
    low = np.where(across, np.minimum(low, 0.0), low)
    return Interval(low, np.where(across, np.maximum(high, 0.0), high))
