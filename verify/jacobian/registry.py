"""The table of derivative rules, one for each kind of op, and what a rule is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.ops import Op, Shape
from tangency.verify.rigorous.enclosure import total

__all__ = ["RULES", "Place", "Rule", "lifted", "rule", "rule_of", "summed_to"]


@dataclass(frozen=True, eq=False)
class Place:
    """One node as its rule sees it.

    Attributes
    ----------
    op : Op
        The op.
    params : mapping of str to array
        Its parameters by role, float64.
    inputs : tuple of int
        The nodes that it takes: equal numbers are one variable.
    shapes : tuple of tuple of int
        Their shapes, of one sample.
    live : tuple of bool
        Whether each depends on an input of the network.
    xs : tuple of Interval
        Bounds of their values, ``(N or 1, *shape)`` each.
    y : Interval
        Bounds of the node's own value.
    """

    op: Any
    params: Mapping[str, Any]
    inputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    live: tuple[bool, ...]
    xs: tuple[Interval, ...]
    y: Interval


#: ``rule(place, cotangent) -> one cotangent for each input``: the cotangent of the node's value has
#: shape ``(N or 1, S, *shape)`` for S linear maps of the output; None stands for zero.
Rule = Callable[[Place, Interval], Sequence[Interval | None]]

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
        raise UnsupportedError(f"Jacobian bounds have no rule for {op.kind!r}; they have {known}")
    return RULES[type(op)]


def lifted(x: Interval, rank: int) -> Interval:
    """Bounds ``(N, *shape)`` as ``(N, 1, 1.., *shape)``, to stand beside ``rank`` sample axes."""
    ones = (1,) * (rank + 1 - (len(x.shape) - 1))
    shape = (x.shape[0], *ones, *x.shape[1:])
    return Interval(x.lower.reshape(shape), x.upper.reshape(shape))


def summed_to(cotangent: Interval, shape: Shape) -> Interval:
    """The cotangent of what was broadcast: sums over the axes along which it was repeated."""
    out = cotangent.shape[2:]
    padded = (1,) * (len(out) - len(shape)) + shape
    axes = tuple(
        i + 2 for i, (a, b) in enumerate(zip(padded, out, strict=True)) if a == 1 and b != 1
    )
    result = total(cotangent, axes) if axes else cotangent
    whole = (*cotangent.shape[:2], *shape)
    return Interval(np.reshape(result.lower, whole), np.reshape(result.upper, whole))
