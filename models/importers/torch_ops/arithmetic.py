"""Arithmetic: sums, products, quotients and powers of variables and constants."""

from __future__ import annotations

from math import log
from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Truth, reads
from tangency.models.importers.torch_ops.operands import add, divide, multiply, negate, subtract

__all__: list[str] = []


def _terms(call: Call) -> tuple[Any, Any]:
    x, y = call["self"], call["other"]
    call.require(
        not (isinstance(x, Truth) and isinstance(y, Truth)),
        "two conditions: join them by &, |, or make them numbers first",
    )
    alpha = call.get("alpha", 1)
    return x, y if alpha == 1 else multiply(call, y, alpha)


@reads("add", "__add__", "__radd__")
def plus(call: Call) -> Any:
    return add(call, *_terms(call))


@reads("sub", "subtract")
def minus(call: Call) -> Any:
    return subtract(call, *_terms(call))


@reads("rsub")
def minus_from(call: Call) -> Any:
    alpha = call.get("alpha", 1)
    x = call["self"] if alpha == 1 else multiply(call, call["self"], alpha)
    return subtract(call, call["other"], x)


@reads("neg", "negative")
def minus_self(call: Call) -> Value:
    return negate(call, call.value())


@reads("mul", "multiply")
def times(call: Call) -> Any:
    return multiply(call, *_terms(call))


@reads("div", "divide", "true_divide")
def over(call: Call) -> Any:
    mode = call.get("rounding_mode")
    call.require(mode in (None, "floor"), f"rounding_mode {mode!r} is not read")
    quotient = divide(call, *_terms(call))
    return call.apply("floor", quotient) if mode else quotient


@reads("floor_divide")
def floor_divide(call: Call) -> Any:
    return call.apply("floor", divide(call, *_terms(call)))


@reads("addcmul", "addcdiv")
def add_product(call: Call) -> Any:
    join = multiply if call.name == "addcmul" else divide
    part = join(call, call["tensor1"], call["tensor2"])
    return add(call, call["self"], multiply(call, part, call["value"]))


@reads("lerp")
def lerp(call: Call) -> Any:
    x, weight = call["self"], call["weight"]
    return add(call, x, multiply(call, subtract(call, call["end"], x), weight))


@reads("pow")
def pow_(call: Call) -> Any:
    base, exponent = call["self"], call["exponent"]
    if isinstance(exponent, Value):
        call.require(not isinstance(base, Value), "a variable to a variable power has no place")
        scalar = call.array(base)
        call.require(scalar.size == 1 and scalar > 0, "the base must be one positive number")
        return call.apply("exp", multiply(call, exponent, log(float(scalar))))
    array = call.array(exponent)
    call.require(array.size == 1, "an exponent for each entry is not read")
    call.require(len(call.const(exponent).shape) <= len(base.shape), "broadcasting exponent")
    return _power(call, call.value(), float(array.reshape(())))


def _power(call: Call, value: Value, n: float) -> Value:
    """``value ** n`` by its plainest record."""
    known = {
        **{0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"},
        **{1.0: "identity", 2.0: "square", 3.0: "cube"},
    }
    if n in known:
        return call.apply(known[n], value)
    call.require(n == int(n) and n != 0, f"the power {n:g} is not read; integers and 0.5 are")
    return call.apply("power", value, n=n)
