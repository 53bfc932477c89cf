"""Rules of the primitives that act entry by entry on numbers."""

from __future__ import annotations

import math

import numpy as np

from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.errors import UnsupportedError
from tangency.models.importers.jaxpr.emitter import Emitter, rule
from tangency.models.importers.jaxpr.layout import Laid
from tangency.models.importers.jaxpr.predicates import Predicate
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var, scalar_of
from tangency.models.ops import Add, Extremum, Op, Product, Quotient, Subtract

#: Primitives of one variable, and the records that they are.
UNARY = {
    "abs": "abs",
    "acos": "arccos",
    "asin": "arcsin",
    "asinh": "asinh",
    "atan": "arctan",
    "atanh": "atanh",
    "ceil": "ceil",
    "cos": "cos",
    "cosh": "cosh",
    "erf": "erf",
    "exp": "exp",
    "expm1": "expm1",
    "floor": "floor",
    "log": "log",
    "log1p": "log1p",
    "logistic": "sigmoid",
    "rsqrt": "rsqrt",
    "sign": "sign",
    "sin": "sin",
    "sinh": "sinh",
    "sqrt": "sqrt",
    "square": "square",
    "tan": "tan",
    "tanh": "tanh",
}


def apply_record(em: Emitter, x: Laid, record: Activation) -> Laid:
    """An activation on every entry."""
    return Laid(em.builder.activation(x.value, record), x.perm)


@rule(*UNARY)
def unary(em: Emitter, eqn: Eqn) -> Laid:
    """A primitive that is a record of the catalogue."""
    em.builder.scope = UNARY[eqn.prim]
    return apply_record(em, em.laid(eqn.inputs[0]), activations.get(UNARY[eqn.prim]))


# --- arithmetic ---------------------------------------------------------------------------------


def _with_constant(em: Emitter, eqn: Eqn, x: Var, c: Const) -> tuple[Laid, np.ndarray]:
    """A variable and a constant that broadcast together as they lie."""
    em.floating(c)
    laid, rank = em.laid(x), len(eqn.out.shape)
    if len(laid.perm) < rank:
        laid = em.layouts.plain(em.builder.reshape(laid.value, (1,) * rank))
    return laid, em.in_frame(c, laid.perm)


def binary(em: Emitter, op: Op, *refs: Ref) -> Laid:
    """An op of several operands with broadcasting."""
    values, perm = em.common(*refs)
    return Laid(em.builder.elementwise(op, *values), perm)


@rule("add", "add_any")
def add(em: Emitter, eqn: Eqn) -> Laid:
    """A sum; a constant goes into the layer before it where it can."""
    x, y = eqn.inputs
    if isinstance(x, Const):
        x, y = y, x
    if isinstance(x, Const) or isinstance(y, Var):
        return binary(em, Add(), x, y)
    laid, array = _with_constant(em, eqn, x, y)
    key, trainable = y.key or "shift", y.trainable
    return Laid(em.builder.shift(laid.value, array, key=key, trainable=trainable), laid.perm)


@rule("sub")
def sub(em: Emitter, eqn: Eqn) -> Laid:
    """A difference; parameters keep their sign."""
    x, y = eqn.inputs
    if isinstance(y, Const) and isinstance(x, Var) and not y.trainable:
        laid, array = _with_constant(em, eqn, x, y)
        value = em.builder.shift(laid.value, -array, key=y.key or "shift", trainable=False)
        return Laid(value, laid.perm)
    return binary(em, Subtract(), x, y)


@rule("mul")
def mul(em: Emitter, eqn: Eqn) -> Laid:
    """A product of variables, or a scale."""
    x, y = eqn.inputs
    if x is y:
        em.builder.scope = "square"
        return apply_record(em, em.laid(x), activations.get("square"))
    if isinstance(x, Const):
        x, y = y, x
    if isinstance(x, Const) or isinstance(y, Var):
        return binary(em, Product(), x, y)
    return _scaled(em, eqn, x, y)


@rule("div")
def div(em: Emitter, eqn: Eqn) -> Laid:
    """A quotient of variables, a scale, or a reciprocal."""
    x, y = eqn.inputs
    if isinstance(y, Const) and isinstance(x, Var):
        return _scaled(em, eqn, x, y, inverse=True)
    if isinstance(y, Var) and isinstance(x, Const) and scalar_of(x) is not None and not x.key:
        inverse = apply_record(em, em.laid(y), activations.get("reciprocal"))
        factor = np.asarray(x.array).reshape(()).astype(em.builder.dtype)
        value = em.builder.scale(inverse.value, factor, trainable=False)
        return Laid(value, inverse.perm)
    return binary(em, Quotient(), x, y)


def _scaled(em: Emitter, eqn: Eqn, x: Var, c: Const, *, inverse: bool = False) -> Laid:
    laid, array = _with_constant(em, eqn, x, c)
    key, trainable = c.key or "scale", c.trainable
    value = em.builder.scale(laid.value, array, inverse=inverse, key=key, trainable=trainable)
    return Laid(value, laid.perm)


def _times(em: Emitter, x: Laid, factor: float) -> Laid:
    number = np.asarray(factor, em.builder.dtype)
    return Laid(em.builder.scale(x.value, number, trainable=False), x.perm)


@rule("neg")
def neg(em: Emitter, eqn: Eqn) -> Laid:
    """The negative."""
    return _times(em, em.laid(eqn.inputs[0]), -1.0)


@rule("max", "min")
def extremum(em: Emitter, eqn: Eqn) -> Laid:
    """The larger or smaller of two; against a number it is a record."""
    for one, other in (eqn.inputs, eqn.inputs[::-1]):
        number = scalar_of(one)
        if isinstance(one, Const) and number is not None and not one.key:
            low, high = (number, math.inf) if eqn.prim == "max" else (-math.inf, number)
            if math.isfinite(number) and isinstance(other, Var) and other.shape == eqn.out.shape:
                at_zero = activations.get("relu") if low == 0 else None
                record = at_zero or activations.get("clip", min=low, max=high)
                em.builder.scope = record.name
                return apply_record(em, em.laid(other), record)
    return binary(em, Extremum(eqn.prim), *eqn.inputs)


@rule("clamp")
def clamp(em: Emitter, eqn: Eqn) -> Laid:
    """``min(max(x, low), high)`` for tensors low and high."""
    low, x, high = eqn.inputs
    raised = Var(eqn.out.shape, eqn.out.dtype)
    em.env[raised] = binary(em, Extremum("max"), x, low)
    return binary(em, Extremum("min"), raised, high)


# --- powers and what is made of others ----------------------------------------------------------


@rule("integer_pow")
def integer_pow(em: Emitter, eqn: Eqn) -> Laid:
    """An integer power."""
    return _power(em, em.laid(eqn.inputs[0]), float(eqn.params["y"]))


@rule("pow")
def pow_(em: Emitter, eqn: Eqn) -> Laid:
    """A power whose exponent is a number."""
    exponent = scalar_of(eqn.inputs[1])
    if exponent is None or not isinstance(eqn.inputs[0], Var):
        raise UnsupportedError(
            "primitive 'pow': the exponent must be one number that does not depend on the input"
        )
    return _power(em, em.laid(eqn.inputs[0]), exponent)


def _power(em: Emitter, x: Laid, n: float) -> Laid:
    named = {2.0: "square", 3.0: "cube", -1.0: "reciprocal", 0.5: "sqrt", -0.5: "rsqrt"}
    if n == 1.0:
        return x
    if n in named:
        return apply_record(em, x, activations.get(named[n]))
    if n.is_integer():
        return apply_record(em, x, activations.get("power", n=n))
    # x^n = exp(n log x), where both are defined: for x >= 0.
    logarithm = _times(em, apply_record(em, x, activations.get("log")), n)
    return apply_record(em, logarithm, activations.get("exp"))


@rule("exp2")
def exp2(em: Emitter, eqn: Eqn) -> Laid:
    """``2^x = exp(x log 2)``."""
    x = _times(em, em.laid(eqn.inputs[0]), math.log(2.0))
    return apply_record(em, x, activations.get("exp"))


@rule("erfc")
def erfc(em: Emitter, eqn: Eqn) -> Laid:
    """``1 - erf(x)``."""
    x = apply_record(em, em.laid(eqn.inputs[0]), activations.get("erf"))
    return Laid(em.builder.minus_from(np.asarray(1.0, em.builder.dtype), x.value), x.perm)


@rule("round")
def round_(em: Emitter, eqn: Eqn) -> Laid:
    """The nearest integer, ties to even."""
    if int(eqn.params["rounding_method"]) != 1:
        raise UnsupportedError(
            "primitive 'round' with ties away from zero: only ties to even, as jax.numpy.round"
        )
    return apply_record(em, em.laid(eqn.inputs[0]), activations.get("round"))


@rule("copy")
def copy(em: Emitter, eqn: Eqn) -> Laid | Predicate:
    """The same."""
    (x,) = eqn.inputs
    return em.env[x] if isinstance(x, Var) else em.laid(x)
