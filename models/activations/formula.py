"""What a formula computes, as a digest that any process finds again.

A formula ``value(nx, x)`` is evaluated once with a recorder in the place of the namespace and a
:class:`Term` in the place of ``x``. What comes back is the graph of the operations with exact
constants, each node the SHA-256 of its operation and its operands: equal digests are equal
formulas, whatever the function is called, where its text stands and which Python compiled it. (Two
formulas of one function, ``x + x`` and ``2 x``, have two digests.)

A formula that cannot be followed (it branches on ``x``, or hands it to a foreign function) has no
digest: that is an InputError, never a guess.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.namespace import numpy_namespace

__all__ = ["digest_of", "traced"]

_UFUNCS = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "truediv",
    "floor_divide": "floordiv",
    "remainder": "mod",
    "power": "pow",
    "negative": "neg",
    "positive": "pos",
    "absolute": "abs",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "equal": "eq",
    "not_equal": "ne",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "invert": "invert",
}
"""NumPy's names of the operators: ``np.float64(2) * x`` comes as a ufunc, ``2.0 * x`` does not."""


class Term:
    """One node of a traced formula; all that is known of it is its digest."""

    __slots__ = ("digest",)

    def __init__(self, operation: str, *operands: Any) -> None:
        # Every part has a fixed length or a length before it, so that no two nodes read alike.
        parts = b"".join(map(_digest, operands))
        self.digest = sha256(f"{operation}({len(operands)})".encode() + parts).digest()

    def __bool__(self) -> bool:
        raise TypeError("it branches on x: use nx.where")

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **options: Any) -> Term:
        name = ufunc.__name__
        rooms = {"numpy": np, "scipy.special": sys.modules.get("scipy.special")}
        known = [room for room, module in rooms.items() if getattr(module, name, None) is ufunc]
        if method != "__call__" or options or not known:
            raise TypeError(f"it hands x to {name}, which is none of NumPy's functions")
        return Term(_UFUNCS.get(name, f"{known[0]}.{name}"), *operands)

    def __array_function__(self, function: Any, _: Any, operands: Any, options: Any) -> Term:
        name = function.__name__
        if getattr(np, name, None) is not function:
            raise TypeError(f"it hands x to {name}, which is none of NumPy's functions")
        return Term(f"numpy.{name}", *operands, *sorted(options.items()))


def _install() -> None:
    def binary(name: str) -> Callable[[Any, Any], Term]:
        return lambda a, b: Term(name, a, b)

    def reflected(name: str) -> Callable[[Any, Any], Term]:
        return lambda a, b: Term(name, b, a)

    def unary(name: str) -> Callable[[Any], Term]:
        return lambda a: Term(name, a)

    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or"):
        setattr(Term, f"__{name}__", binary(name))
        setattr(Term, f"__r{name}__", reflected(name))
    # == by identity, Python's own, would decide ``where(x == 0.0, a, b)`` and hide a.
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Term, f"__{name}__", binary(name))
    for name in ("neg", "pos", "abs", "invert"):
        setattr(Term, f"__{name}__", unary(name))
    Term.__hash__ = None  # type: ignore[assignment]  # nor may a table be read at x


_install()


class _Recorder:
    """The vocabulary of :mod:`tangency.models.namespace`, on terms and on constants alike."""

    @property
    def pi(self) -> Term:
        return Term("nx.pi")

    def __getattr__(self, name: str) -> Callable[..., Term]:
        if name.startswith("_") or not hasattr(numpy_namespace, name):
            raise AttributeError(f"nx has no {name!r}")
        return lambda *operands: Term(f"nx.{name}", *operands)


def _digest(value: Any) -> bytes:
    """The digest of an operand: a term, a number, an array, or a tuple of such."""
    if isinstance(value, Term):
        return value.digest
    if isinstance(value, tuple | list):
        return Term("tuple", *value).digest
    if isinstance(value, Interval):
        return Term("interval", value.lower, value.upper).digest
    if value is None or type(value) in (bool, int, str):
        return sha256(f"{type(value).__name__} {value!r}".encode()).digest()
    if type(value) is float:
        return sha256(f"float {value.hex()}".encode()).digest()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        # A NumPy number is no Python float: float32 times it may be float64.
        array = np.asarray(value, dtype=value.dtype.newbyteorder("<"))
        return sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).digest()
    raise TypeError(f"it holds a {type(value).__name__}, which is no number")


def digest_of(*values: Any) -> str:
    """SHA-256 of numbers, texts, arrays, intervals, terms, and tuples of such.

    Raises
    ------
    TypeError
        For anything else.
    """
    return Term("values", *values).digest.hex()


def traced(what: str, function: Callable[..., Any], *, namespace: bool = True) -> Term:
    """What a function computes of its one argument ``x``.

    Parameters
    ----------
    what : str
        Names the function in messages.
    function : callable ``(nx, x)``, or ``(x)`` of NumPy's functions where not ``namespace``

    Raises
    ------
    InputError
        Where it cannot be followed.

    Examples
    --------
    >>> a, b, c = (traced("it", lambda nx, x, k=k: nx.sin(k * x)).digest for k in (1.0, 1.0, 3.0))
    >>> a == b, a == c
    (True, False)
    """
    x = Term("x")
    try:
        result = function(_Recorder(), x) if namespace else function(x)
        return Term("formula", result)
    except Exception as error:  # a formula is the user's code: it may raise anything
        raise InputError(
            f"{what}: its formula cannot be followed, so that nothing tells it from another: "
            f"{error}. It is written in {'the functions of nx' if namespace else 'NumPy'}, "
            "arithmetic and comparisons"
        ) from error
