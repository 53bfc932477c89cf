"""What a formula may do with ``x``: the one place where it is read before anything is proved.

A formula ``value(nx, x)`` is plain Python, and NumPy forgives much that has no meaning on intervals
or jets: there ``x == 0.0`` or ``if x`` would be decided once for a whole cell. So it is run on
:class:`Value` first, which has the vocabulary of :mod:`tangency.models.namespace` and nothing
else. Whatever else it tries is an InputError that names the record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Never

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.namespace import FUNCTIONS

__all__ = ["check_formula"]

_USES = (
    "numbers, + - * /, abs, ** with an integer, the functions of nx, and < <= > >= in "
    "nx.where(condition, a, b)"
)


class _Order:
    """``a < b`` and its kind: good for ``where`` alone."""

    def __bool__(self) -> bool:
        raise TypeError("it branches on a comparison: write nx.where(condition, a, b)")


class Value:
    """A function of ``x`` of which nothing is known."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]  # no table is read at x

    def __bool__(self) -> bool:
        raise TypeError("it takes x for a truth value")

    def _sum(self, other: Any) -> Value:
        return Value() if _is_operand(other) else NotImplemented

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __rtruediv__ = _sum

    def __truediv__(self, other: Any) -> Value:
        if _is_number(other) and other == 0:
            raise ZeroDivisionError("it divides by 0")
        return self._sum(other)

    def __pow__(self, exponent: Any) -> Value:
        if type(exponent) is not int:
            raise TypeError(f"** {exponent!r}: the exponent must be an integer")
        return Value()

    def __neg__(self) -> Value:
        return Value()

    __pos__ = __abs__ = __neg__

    def _order(self, other: Any) -> _Order:
        return _Order() if _is_operand(other) else NotImplemented

    __lt__ = __le__ = __gt__ = __ge__ = _order

    def _equal(self, other: Any) -> Never:
        raise TypeError("== and != of functions of x: write it with <, <=, maximum or abs")

    __eq__ = __ne__ = _equal


def _is_number(x: Any) -> bool:
    return isinstance(x, float | int | np.number) or (isinstance(x, np.ndarray) and x.ndim == 0)


def _is_operand(x: Any) -> bool:
    """Whether it is a value or a number; an array is another function for every entry."""
    return isinstance(x, Value) or _is_number(x) or (isinstance(x, Interval) and x.shape == ())


def _value(*operands: Any) -> Value:
    for x in operands:
        if not _is_operand(x):
            raise TypeError(f"it computes with a {type(x).__name__}, which is no number")
    return Value()


class _Vocabulary:
    """:class:`tangency.models.namespace.Namespace` on such values."""

    pi = Value()

    def __getattr__(self, name: str) -> Callable[[Any], Value]:
        if name not in FUNCTIONS:
            raise AttributeError(f"nx has no {name!r}")
        return lambda x: _value(x)

    @staticmethod
    def constant(c: Any) -> Value:
        return _value(c)

    @staticmethod
    def maximum(a: Any, b: Any) -> Value:
        return _value(a, b)

    minimum = maximum

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Value:
        if not isinstance(condition, _Order | bool | np.bool_):
            kind = type(condition).__name__
            raise TypeError(f"the condition of nx.where is a comparison, not a {kind}")
        return _value(a, b)


def check_formula(what: str, function: Callable[[Any, Any], Any]) -> None:
    """Run a formula on values of which nothing is known.

    Raises
    ------
    InputError
        If it uses anything else than the vocabulary.
    """
    try:
        _value(function(_Vocabulary(), Value()))
    except Exception as error:  # a formula is the user's code: it may raise anything
        raise InputError(
            f"{what}: nothing can be proved of its formula: {error}. A formula may use {_USES}"
        ) from error
