"""Activations of a chain: the slopes that a nonlinearity has, everywhere or on an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.namespace import numpy_namespace
from tangency.models.network import Network
from tangency.models.ops import Activate, GroupSort, Prelu
from tangency.models.structure import Node
from tangency.verify.certificate import GroupSort as Sorting
from tangency.verify.certificate import Slopes
from tangency.verify.chain.chain import Function

__all__ = ["activation_of"]

#: Slopes that differ by less than this part of the layer's largest are set this far apart: the
#: multipliers grow as 1 / (b - a), and float64 has digits for so much.
NARROWEST = 1e-5


def activation_of(
    node: Node, network: Network, given: Interval | None
) -> tuple[Slopes | Sorting, Function | None]:
    """The constraint and the function of a nonlinearity."""
    op = node.op
    low: Any
    high: Any
    if isinstance(op, GroupSort):
        return Sorting(op.size, descending=op.descending), None
    if isinstance(op, Prelu):
        slope = network.weights[node.params[0].key].astype(np.float64)
        slope = op.slopes(slope, len(node.shape))[0]
        slope = np.broadcast_to(slope, node.shape).reshape(-1)
        low, high = np.minimum(slope, 1.0), np.maximum(slope, 1.0)
        if given is not None:
            left, right = given.upper <= 0.0, given.lower >= 0.0
            low = np.where(left, slope, np.where(right, 1.0, low))
            high = np.where(left, slope, np.where(right, 1.0, high))
        function = Function(
            lambda z: np.where(z > 0, z, slope * z), lambda z: np.where(z > 0, 1.0, slope), True
        )
        return Slopes(low, high), function
    assert isinstance(op, Activate)
    record = op.activation
    where = "" if given is None else " on the box"
    if given is None:
        low, high = record.slope_range
    else:
        slopes = record.slopes_on(given.lower, given.upper)
        low, high = _apart(slopes.lower, slopes.upper)
    if record.jumps or record.staircase or not np.isfinite([low, high]).all():
        raise InputError(
            f"layer {node.name!r}: {record} has no bounded slope{where} (range "
            f"[{np.min(low):g}, {np.max(high):g}]), so the network has no "
            f"{'global' if given is None else 'local'} Lipschitz bound"
        )
    function = Function(
        _elementwise(record.value), _elementwise(record.derivative), record.homogeneous == 1
    )
    return Slopes(low, high), function


def _apart(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widen slopes that are nearly, but not quite, equal."""
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return low, high
    largest = max(float(np.abs(low).max(initial=0.0)), float(np.abs(high).max(initial=0.0)))
    narrow = (high > low) & (high - low < NARROWEST * largest)
    half = NARROWEST * largest / 2
    return np.where(narrow, low - half, low), np.where(narrow, high + half, high)


def _elementwise(formula: Callable[[Any, Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    def function(z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(formula(numpy_namespace, z), float)

    return function
