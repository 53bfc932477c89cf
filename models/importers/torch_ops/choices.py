"""Comparisons and choices: ``where``, masks, maximum and minimum, clamp."""

from __future__ import annotations

from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, Truth, reads
from tangency.models.importers.torch_ops.operands import add, elementwise, multiply
from tangency.models.ops import Extremum, Select

__all__ = ["as_number", "choose", "not_"]


def _compare(call: Call, how: str, x: Any, y: Any) -> Truth:
    sides = [s if isinstance(s, Value) else _side(call, s) for s in (x, y)]
    return Truth(how, *sides)


def _side(call: Call, item: Any) -> Value | Const:
    return call.value(item) if isinstance(item, Truth) else call.const(item)


@reads("gt", "greater", "ge", "greater_equal", "lt", "less", "le", "less_equal")
def compare(call: Call) -> Truth:
    x, y = call["self"], call["other"]
    name = {"greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le"}.get(
        call.name, call.name
    )
    if name[0] == "l":
        x, y = y, x
    return _compare(call, ">" if name[1] == "t" else ">=", x, y)


@reads("eq", "ne", "not_equal")
def equal(call: Call) -> Any:
    x, y = call["self"], call["other"]
    same = Truth("and", _compare(call, ">=", x, y), _compare(call, ">=", y, x))
    return same if call.name == "eq" else not_(call, same)


def _condition(call: Call, item: Any) -> Truth | Const:
    if isinstance(item, Value):
        raise call.refuse("takes a condition, got numbers: compare them with something first")
    return item if isinstance(item, Truth) else Const(call.const(item).tensor.bool())


@reads("logical_and", "__and__", "bitwise_and", "logical_or", "__or__", "bitwise_or")
def join(call: Call) -> Truth:
    how = "and" if "and" in call.name else "or"
    return Truth(how, _condition(call, call["self"]), _condition(call, call["other"]))


@reads("logical_not", "bitwise_not")
def invert(call: Call) -> Any:
    return not_(call, _condition(call, call["self"]))


def not_(call: Call, truth: Truth | Const) -> Truth | Const:
    """The opposite condition."""
    if isinstance(truth, Const):
        return Const(~truth.tensor)
    if truth.how in (">", ">="):
        return Truth(">=" if truth.how == ">" else ">", truth.y, truth.x)
    parts = not_(call, truth.x), not_(call, truth.y)
    return Truth("or" if truth.how == "and" else "and", *parts)


def choose(call: Call, condition: Truth | Const, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``."""
    if isinstance(condition, Const):
        return _masked(call, condition.tensor, a, b)
    if condition.how == "and":
        return choose(call, condition.x, choose(call, condition.y, a, b), b)
    if condition.how == "or":
        return choose(call, condition.x, a, choose(call, condition.y, a, b))
    return elementwise(call, Select(condition.how == ">"), condition.x, condition.y, a, b)


def _masked(call: Call, mask: Any, a: Any, b: Any) -> Any:
    """A fixed choice is affine: each side with zeros where the other is taken, and their sum."""
    import torch

    if mask.all() or not mask.any():
        zero = Const(torch.zeros(mask.shape, dtype=torch.float64).to(_dtype(call)))
        return add(call, a if mask.all() else b, zero)

    def kept(item: Any, where: Any) -> Any:
        if isinstance(item, Value | Truth):
            return multiply(call, item, Const(where.to(_dtype(call))))
        const = call.const(item)
        return Const(torch.where(where, const.tensor.to(_dtype(call)), 0.0), const.trainable)

    return add(call, kept(a, mask), kept(b, ~mask))


def _dtype(call: Call) -> Any:
    import torch

    return getattr(torch, call.builder.dtype)


def as_number(call: Call, truth: Truth) -> Value:
    """One where the condition holds, zero elsewhere."""
    out: Value = choose(call, truth, 1.0, 0.0)
    return out if out.shape == truth.shape else call.builder.broadcast(out, truth.shape)


@reads("where")
def where(call: Call) -> Any:
    call.require("self" in call.args, "the indices of a condition have no place; give both choices")
    condition = _condition(call, call["condition"])
    return choose(call, condition, call["self"], call["other"])


@reads("masked_fill")
def masked_fill(call: Call) -> Any:
    return choose(call, _condition(call, call["mask"]), call["value"], call["self"])


@reads("maximum", "minimum", "fmax", "fmin")
def extremum(call: Call) -> Any:
    how = "max" if "max" in call.name else "min"
    return elementwise(call, Extremum(how), call["self"], call["other"])


@reads("clamp", "clip", "clamp_min", "clamp_max")
def clamp(call: Call) -> Any:
    value, low, high = call.value(), call.get("min"), call.get("max")
    numbers = [s for s in (low, high) if s is not None]
    if all(isinstance(s, int | float) for s in numbers):
        if low is not None and high is not None:
            call.require(low <= high, f"min {low} is above max {high}")
            return call.apply("clip", value, min=low, max=high)
        if low == 0:
            return call.apply("relu", value)
    if low is not None:
        value = elementwise(call, Extremum("max"), value, low)
    if high is not None:
        value = elementwise(call, Extremum("min"), value, high)
    return value
