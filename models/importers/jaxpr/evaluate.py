"""JAX's primitives in NumPy float64: what a few equations compute, without compiling them.

Recognition evaluates candidates here at many points; nothing of this reaches a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var, scalar_of
from tangency.models.namespace import numpy_namespace as nx

__all__ = ["ELEMENTWISE", "GROUPWISE", "evaluate"]

Array = Any
Function = Callable[..., Any]


def _round(x: Array, *, rounding_method: Any, **_: Any) -> Array:
    if int(rounding_method) == 1:  # to nearest even
        return np.rint(x)
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def _select(which: Array, *cases: Array) -> Array:
    return np.where(which, cases[1], cases[0]) if len(cases) == 2 else np.choose(which, cases)


def _plain(function: Function) -> Function:
    return lambda *args, **params: function(*args)


def _float(x: Array, *, new_dtype: Any, **_: Any) -> Array:
    return x.astype(bool) if np.dtype(new_dtype) == bool else np.asarray(x, np.float64)


#: Primitives that act entry by entry.
ELEMENTWISE: dict[str, Function] = {
    name: _plain(function)
    for name, function in {
        "abs": np.abs,
        "acos": np.arccos,
        "acosh": np.arccosh,
        "add": np.add,
        "add_any": np.add,
        "and": np.logical_and,
        "asin": np.arcsin,
        "asinh": np.arcsinh,
        "atan": np.arctan,
        "atanh": np.arctanh,
        "ceil": np.ceil,
        "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
        "cos": np.cos,
        "cosh": np.cosh,
        "div": np.divide,
        "eq": np.equal,
        "erf": nx.erf,
        "erfc": nx.erfc,
        "exp": np.exp,
        "exp2": np.exp2,
        "expm1": np.expm1,
        "floor": np.floor,
        "ge": np.greater_equal,
        "gt": np.greater,
        "is_finite": np.isfinite,
        "le": np.less_equal,
        "log": np.log,
        "log1p": np.log1p,
        "logistic": nx.sigmoid,
        "lt": np.less,
        "max": np.maximum,
        "min": np.minimum,
        "mul": np.multiply,
        "ne": np.not_equal,
        "neg": np.negative,
        "not": np.logical_not,
        "or": np.logical_or,
        "pow": np.power,
        "rsqrt": lambda x: 1.0 / np.sqrt(x),
        "select_n": _select,
        "sign": np.sign,
        "sin": np.sin,
        "sinh": np.sinh,
        "sqrt": np.sqrt,
        "square": np.square,
        "sub": np.subtract,
        "tan": np.tan,
        "tanh": np.tanh,
    }.items()
}
ELEMENTWISE["integer_pow"] = lambda x, *, y, **_: x ** float(y)
ELEMENTWISE["round"] = _round
ELEMENTWISE["convert_element_type"] = _float


def _spread(x: Array, *, shape: Sequence[int], broadcast_dimensions: Any, **_: Any) -> Array:
    wide = [1] * len(shape)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        wide[axis] = size
    return np.broadcast_to(x.reshape(wide), shape)


def _reduction(function: Function) -> Function:
    return lambda x, *, axes, **_: function(x, axis=tuple(int(a) for a in axes))


#: What softmax and the norms are made of besides.
GROUPWISE: dict[str, Function] = {
    "broadcast_in_dim": _spread,
    "reduce_max": _reduction(np.max),
    "reduce_sum": _reduction(np.sum),
    "reshape": lambda x, *, new_sizes, **_: x.reshape(new_sizes),
}

_ALL = {**ELEMENTWISE, **GROUPWISE}


def _number(ref: Const) -> Array:
    array = np.asarray(ref.array)
    if array.dtype == bool:
        return array.reshape(()) if array.size == 1 else array
    number = scalar_of(ref)
    return array.astype(np.float64) if number is None else np.float64(number)


def evaluate(eqns: Sequence[Eqn], given: Mapping[Ref, Array], wanted: Var) -> Array:
    """Value of ``wanted``, which the equations compute from the given variables.

    Constants that are given too take the value given: parameters can be varied.
    """
    env: dict[Ref, Array] = dict(given)
    with np.errstate(all="ignore"):
        for eqn in eqns:
            args = [env[r] if isinstance(r, Var) or r in given else _number(r) for r in eqn.inputs]
            env[eqn.out] = _ALL[eqn.prim](*args, **eqn.params)
    return env[wanted]
