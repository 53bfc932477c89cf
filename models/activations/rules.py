"""First and second derivatives of the functions in the vocabulary."""

from collections.abc import Callable
from typing import Any

__all__ = ["RULES"]

# Each rule maps (namespace, a, y = f(a)) to f'(a) and a thunk of f''(a). The second derivative is a
# thunk because order-1 jets never need it.
Rule = Callable[[Any, Any, Any], tuple[Any, Callable[[], Any] | None]]


def _tanh(nx: Any, a: Any, y: Any) -> Any:
    slope = (1.0 - y) * (1.0 + y)  # rounded intervals still know that this is not negative
    return slope, lambda: -2.0 * y * slope


def _tan(nx: Any, a: Any, y: Any) -> Any:
    slope = 1.0 + y**2
    return slope, lambda: 2.0 * y * slope


def _sigmoid(nx: Any, a: Any, y: Any) -> Any:
    other = nx.sigmoid(-a)  # 1 - y without cancellation
    return y * other, lambda: y * other * (other - y)


def _softplus(nx: Any, a: Any, y: Any) -> Any:
    s = nx.sigmoid(a)
    return s, lambda: s * nx.sigmoid(-a)


def _bell(nx: Any, a: Any, sign: float) -> Any:
    slope = sign * 2.0 / nx.sqrt(nx.pi) * nx.exp(-(a**2))
    return slope, lambda: -2.0 * a * slope


def _log(nx: Any, a: Any, y: Any) -> Any:
    slope = 1.0 / a
    return slope, lambda: -(slope**2)


def _log1p(nx: Any, a: Any, y: Any) -> Any:
    slope = 1.0 / (1.0 + a)
    return slope, lambda: -(slope**2)


def _sqrt(nx: Any, a: Any, y: Any) -> Any:
    slope = 0.5 / y
    return slope, lambda: -2.0 * slope**3


def _expm1(nx: Any, a: Any, y: Any) -> Any:
    slope = nx.exp(a)
    return slope, lambda: slope


def _arcsin(nx: Any, a: Any, sign: float) -> Any:
    gap = (1.0 - a) * (1.0 + a)
    slope = sign / nx.sqrt(gap)
    return slope, lambda: a * slope / gap


def _arctan(nx: Any, a: Any, y: Any) -> Any:
    slope = 1.0 / (1.0 + a**2)
    return slope, lambda: -2.0 * a * slope**2


def _arcsinh(nx: Any, a: Any, y: Any) -> Any:
    slope = 1.0 / nx.sqrt(1.0 + a**2)
    return slope, lambda: -(a * slope**3)


def _arctanh(nx: Any, a: Any, y: Any) -> Any:
    slope = 1.0 / ((1.0 - a) * (1.0 + a))
    return slope, lambda: 2.0 * a * slope**2


RULES: dict[str, Rule] = {
    "exp": lambda nx, a, y: (y, lambda: y),
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "sqrt": _sqrt,
    "sin": lambda nx, a, y: (nx.cos(a), lambda: -y),
    "cos": lambda nx, a, y: (-nx.sin(a), lambda: -y),
    "tan": _tan,
    "arcsin": lambda nx, a, y: _arcsin(nx, a, 1.0),
    "arccos": lambda nx, a, y: _arcsin(nx, a, -1.0),
    "arctan": _arctan,
    "sinh": lambda nx, a, y: (nx.cosh(a), lambda: y),
    "cosh": lambda nx, a, y: (nx.sinh(a), lambda: y),
    "tanh": _tanh,
    "arcsinh": _arcsinh,
    "arctanh": _arctanh,
    "erf": lambda nx, a, y: _bell(nx, a, 1.0),
    "erfc": lambda nx, a, y: _bell(nx, a, -1.0),
    "sigmoid": _sigmoid,
    "softplus": _softplus,
}
