r"""Closed forms of the places where an activation has a given slope.

``points(nx, a)`` returns places that include every solution of ``phi'(x) = a`` (for a wave, every
one of a period); where there is none, or beside them, any finite number may stand. Formulas clamp
their arguments, so that no slope gives NaN. They serve the catalogue's own records; all others are
inverted by a table (:mod:`.lines_outline`).
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tangency.models.activations.registry import is_of_catalogue

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["Points", "closed_form"]

Points = Callable[[Any, Any], tuple[Any, ...]]

_TINY = 1e-30


def closed_form(record: "Activation") -> Points | None:
    """Formula of a record of the catalogue, if there is one."""
    if record.name not in _MAKERS or not is_of_catalogue(record):
        return None
    return _MAKERS[record.name](**dict(record.params))


def _root(nx: Any, x: Any) -> Any:
    return nx.sqrt(nx.maximum(x, 0.0))


def _log(nx: Any, x: Any) -> Any:
    return nx.log(nx.maximum(x, _TINY))


def _over(nx: Any, a: Any) -> Any:
    """``1/a`` for a > 0, a large number otherwise."""
    return 1.0 / nx.maximum(a, _TINY)


def _both(x: Any) -> tuple[Any, Any]:
    return (-x, x)


def _at(function: Points) -> Callable[..., Points]:
    return lambda: function


def _logit(nx: Any, a: Any) -> Any:
    return _log(nx, a) - _log(nx, 1.0 - a)


def _sigmoid(nx: Any, a: Any) -> tuple[Any, ...]:
    # s (1 - s) = a has s = (1 + r)/2, 1 - s = a/s with r = sqrt(1 - 4 a).
    return _both(2.0 * nx.log(0.5 + 0.5 * _root(nx, 1.0 - 4.0 * a)) - _log(nx, a))


def _tempered(s: float, T: float, o: float) -> Points:
    return lambda nx, a: tuple(x / T for x in _sigmoid(nx, a / (s * T)))


def _tanh(nx: Any, a: Any) -> tuple[Any, ...]:
    return _both(nx.log1p(_root(nx, 1.0 - a)) - 0.5 * _log(nx, a))


def _tanhshrink(nx: Any, a: Any) -> tuple[Any, ...]:
    return _tanh(nx, 1.0 - a)


def _elu(scale: float, alpha: float, width: float) -> Points:
    return lambda nx, a: (width * _log(nx, a * (width / (scale * alpha))),)


def _celu(alpha: float) -> Points:
    return _elu(1.0, alpha, alpha)


def _power(n: float) -> Points:
    if n in (0.0, 1.0):
        return lambda nx, a: ()
    return lambda nx, a: _both(nx.exp(_log(nx, nx.abs(a / n)) / (n - 1.0)))


def _softplus(beta: float) -> Points:
    return lambda nx, a: (_logit(nx, a) / beta,)


def _smelu(beta: float) -> Points:
    return lambda nx, a: (2.0 * beta * a - beta,)


def _sine(omega: float) -> Points:
    # Extremes of sin(w x) - a x: cos(w x) = a / w.
    def points(nx: Any, a: Any) -> tuple[Any, ...]:
        c = nx.minimum(nx.maximum(a / omega, -1.0), 1.0)
        return _both(nx.arccos(c) / omega)

    return points


def _cos(nx: Any, a: Any) -> tuple[Any, ...]:
    x = nx.arcsin(nx.minimum(nx.maximum(-a, -1.0), 1.0))
    return x, math.pi - x


def _snake(a: float) -> Points:
    # phi' = 1 + sin(2 a x)
    def points(nx: Any, slope: Any) -> tuple[Any, ...]:
        x = nx.arcsin(nx.minimum(nx.maximum(slope - 1.0, -1.0), 1.0))
        return x / (2.0 * a), (math.pi - x) / (2.0 * a)

    return points


_MAKERS: dict[str, Callable[..., Points]] = {
    "arccos": _at(lambda nx, a: _both(_root(nx, 1.0 - _over(nx, -a) ** 2))),
    "arcsin": _at(lambda nx, a: _both(_root(nx, 1.0 - _over(nx, a) ** 2))),
    "arctan": _at(lambda nx, a: _both(_root(nx, _over(nx, a) - 1.0))),
    "asinh": _at(
        lambda nx, a: _both(_root(nx, (_over(nx, a) - 1.0)) * _root(nx, _over(nx, a) + 1.0))
    ),
    "atanh": _at(lambda nx, a: _both(_root(nx, 1.0 - _over(nx, a)))),
    "celu": _celu,
    "cos": _at(_cos),
    "cosh": _at(lambda nx, a: (nx.arcsinh(a),)),
    "cube": _at(lambda nx, a: _both(_root(nx, a / 3.0))),
    "elu": lambda alpha: _elu(1.0, alpha, 1.0),
    "erf": _at(lambda nx, a: _both(_root(nx, math.log(2.0 / math.sqrt(math.pi)) - _log(nx, a)))),
    "exp": _at(lambda nx, a: (_log(nx, a),)),
    "expm1": _at(lambda nx, a: (_log(nx, a),)),
    "hardswish": _at(lambda nx, a: (3.0 * a - 1.5,)),
    "hermite3": _at(lambda nx, a: _both(_root(nx, a / 3.0 + 1.0))),
    "log": _at(lambda nx, a: (_over(nx, a),)),
    "log1p": _at(lambda nx, a: (_over(nx, a) - 1.0,)),
    "logsigmoid": _at(lambda nx, a: (-_logit(nx, a),)),
    "power": _power,
    "reciprocal": _at(lambda nx, a: _both(_root(nx, _over(nx, -a)))),
    "relu_squared": _at(lambda nx, a: (0.5 * a,)),
    "rsqrt": _at(lambda nx, a: (nx.exp(_log(nx, -2.0 * a) * (-2.0 / 3.0)),)),
    "selu": lambda: _elu(1.0507009873554805, 1.6732632423543772, 1.0),
    "sigmoid": _at(_sigmoid),
    "sin": lambda: _sine(1.0),
    "sine": _sine,
    "snake": _snake,
    "softplus": _softplus,
    "softsign": _at(lambda nx, a: _both(_root(nx, _over(nx, a)) - 1.0)),
    "sinh": _at(lambda nx, a: _both(_log(nx, a) + nx.log1p(_root(nx, 1.0 - _over(nx, a) ** 2)))),
    "smelu": _smelu,
    "sqrt": _at(lambda nx, a: ((0.5 / nx.maximum(a, 1e-15)) ** 2,)),
    "square": _at(lambda nx, a: (0.5 * a,)),
    "stablemax": _at(lambda nx, a: (1.0 - _root(nx, _over(nx, a)),)),
    "tan": _at(lambda nx, a: _both(nx.arctan(_root(nx, a - 1.0)))),
    "tanh": _at(_tanh),
    "tanhshrink": _at(_tanhshrink),
    "tempered_sigmoid": _tempered,
}
