"""The small vocabulary in which an activation is written once and evaluated by everybody.

A formula such as ``lambda nx, x: x * nx.sigmoid(x)`` takes the namespace as its first argument.
Four namespaces speak the vocabulary: NumPy and JAX (here), intervals
(:mod:`tangency.models.intervals`) and jets, that is forward-mode derivatives over any of the
others (:mod:`tangency.models.activations.jets`).

Three conventions keep one formula good for all of them:

- constants are Python floats, and a function of a Python float is a Python float, so float32 stays
  float32, while intervals turn ``nx.sqrt(2.0)`` or ``nx.pi`` into an enclosure; arithmetic between
  constants starts from ``nx.constant(c)``, so that its rounding is enclosed too;
- an order comparison is used only as the first argument of ``where``;
- the branch that ``where`` does not take must still be finite (clamp its argument with
  ``minimum``), or ``jax.grad`` turns it into NaN.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

__all__ = ["FUNCTIONS", "Namespace", "jax_namespace", "numpy_namespace"]

FUNCTIONS = (
    *("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "tanh", "arcsinh", "arctanh", "erf", "erfc", "sigmoid", "softplus"),
    *("abs", "sign", "floor", "ceil", "rint"),
)
"""Functions of one argument that every namespace has."""

Function = Callable[[Any], Any]


class Namespace(Protocol):
    """What a formula may use, besides ``+ - * /``, ``**`` with an integer, and comparisons."""

    pi: Any
    exp: Function
    expm1: Function
    log: Function
    log1p: Function
    sqrt: Function
    sin: Function
    cos: Function
    tan: Function
    arcsin: Function
    arccos: Function
    arctan: Function
    sinh: Function
    cosh: Function
    tanh: Function
    arcsinh: Function
    arctanh: Function
    erf: Function
    erfc: Function
    sigmoid: Function
    softplus: Function
    abs: Function
    sign: Function
    floor: Function
    ceil: Function
    rint: Function

    def constant(self, c: float, /) -> Any:
        """Return the number ``c``, for arithmetic between constants."""

    def where(self, condition: Any, a: Any, b: Any, /) -> Any:
        """``a`` where the condition holds, else ``b``."""

    def maximum(self, a: Any, b: Any, /) -> Any:
        """The larger of the two; on a tie the derivative is that of ``b``."""

    def minimum(self, a: Any, b: Any, /) -> Any:
        """The smaller of the two; on a tie the derivative is that of ``a``."""


def _constants_stay_python(function: Function) -> Function:
    """Let a function of a Python float return a Python float, and silence overflow to inf."""

    @functools.wraps(function)
    def wrapped(x: Any) -> Any:
        with np.errstate(all="ignore"):
            y = function(x)
        return float(y) if type(x) in (float, int) else y

    return wrapped


def _sigmoid(x: Any) -> Any:
    # The usual 1/(1+e^-x) loses the left tail to overflow; e^-|x| never overflows.
    tail = np.exp(-np.abs(x))
    return np.where(x < 0, tail, 1.0) / (1.0 + tail)


def _scipy(name: str) -> Function:
    def function(x: Any) -> Any:
        import scipy.special

        return getattr(scipy.special, name)(x)

    return function


class _NumpyNamespace:
    """NumPy's functions; float32 and float64 are kept."""

    pi = math.pi

    def __init__(self) -> None:
        special: dict[str, Function] = {
            "sigmoid": _sigmoid,
            "softplus": lambda x: np.logaddexp(x, 0.0),
            "erf": _scipy("erf"),
            "erfc": _scipy("erfc"),
        }
        for name in FUNCTIONS:
            function = special.get(name) or getattr(np, name)
            setattr(self, name, _constants_stay_python(function))

    @staticmethod
    def constant(c: float) -> float:
        return c

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, a, b)

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return np.where(a <= b, b, a)  # NaN in a stays NaN

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        return np.where(a > b, b, a)


numpy_namespace: Any = _NumpyNamespace()
"""The namespace of NumPy arrays."""


class _JaxNamespace:
    """JAX's functions: traceable, and differentiable without NaN at kinks and saturations."""

    pi = math.pi

    def __init__(self) -> None:
        import jax
        import jax.numpy as jnp

        special: dict[str, Function] = {
            "sigmoid": jax.nn.sigmoid,
            "softplus": jax.nn.softplus,
            "erf": jax.scipy.special.erf,
            "erfc": jax.scipy.special.erfc,
        }
        for name in FUNCTIONS:
            setattr(self, name, self._wrap(name, special.get(name) or getattr(jnp, name)))
        self._where = jnp.where

    @staticmethod
    def _wrap(name: str, function: Function) -> Function:
        def wrapped(x: Any) -> Any:
            if type(x) in (float, int):  # a constant: in double precision, outside the trace
                return getattr(numpy_namespace, name)(x)
            return function(x)

        return wrapped

    @staticmethod
    def constant(c: float) -> float:
        return c

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self._where(condition, a, b)

    # lax.max splits the derivative at a tie in halves; a one-sided choice keeps smooth joins
    # (ELU at 0) exact, and gives relu'(0) = 0 as jax.nn.relu does.
    def maximum(self, a: Any, b: Any) -> Any:
        return self._where(a <= b, b, a)

    def minimum(self, a: Any, b: Any) -> Any:
        return self._where(a > b, b, a)


@functools.cache
def jax_namespace() -> Any:
    """Return the namespace of JAX arrays (imports JAX on the first call)."""
    return _JaxNamespace()
