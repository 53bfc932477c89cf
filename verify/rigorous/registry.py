"""The table of interval rules, one for each kind of op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.ops import Op, Shape

__all__ = ["RULES", "Rule", "aligned", "bounded_by", "rule", "rule_of"]

#: ``rule(op, params, *inputs) -> Interval``: params are float64 arrays by role; the inputs and
#: the result have the batch axis in front, of size one where all samples share a value.
Rule = Callable[..., Interval]

RULES: dict[type[Op], Rule] = {}


def rule(*ops: type[Op]) -> Callable[[Rule], Rule]:
    """Enter a function in :data:`RULES` as the rule of some op classes."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return enter


def rule_of(op: Op) -> Rule:
    """The rule of an op; UnsupportedError when there is none."""
    if type(op) not in RULES:
        known = ", ".join(sorted(cls.kind for cls in RULES))
        raise UnsupportedError(f"interval bounds have no rule for {op.kind!r}; they have {known}")
    return RULES[type(op)]


def aligned(*xs: Interval) -> tuple[Interval, ...]:
    """Axes of size one behind the batch axis, so that per-sample shapes broadcast."""
    rank = max(len(x.shape) for x in xs)
    return tuple(
        x if len(x.shape) == rank else reshaped(x, (x.shape[0], *_ones(rank, x), *x.shape[1:]))
        for x in xs
    )


def _ones(rank: int, x: Interval) -> Shape:
    return (1,) * (rank - len(x.shape))


def reshaped(x: Interval, shape: Shape) -> Interval:
    """The same entries under another shape."""
    return Interval(x.lower.reshape(shape), x.upper.reshape(shape))


def bounded_by(x: Interval, low: Any, high: Any) -> Interval:
    """The interval cut down to a range in which the value is known to lie."""
    return Interval(
        np.clip(x.lower, low, high),
        np.clip(x.upper, low, high),
    )
