"""Exact arithmetic on a formula: where ``where`` switches, and whether its branches meet there.

A choice ``nx.where(a < b, f, g)`` is continuous if ``f = g`` wherever ``a - b`` changes its sign.
Enclosures cannot show an equality: they shrink around 0 and never reach it. So the formula is read
once in exact arithmetic. Where ``a - b`` is piecewise linear in ``x`` (made of ``x``, numbers,
``+ - *``, ``abs``, ``maximum``, ``minimum`` and continuous choices), its switching points are
rational numbers; both branches are evaluated there as numbers of the ring that the rationals
generate together with symbols such as ``pi`` or ``exp(1/2)``. Equal expressions are equal numbers,
so a join that is reported as continuous is continuous; a difference that is no rational number is
reported as a jump in either direction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Never

import numpy as np

from tangency.models.namespace import FUNCTIONS

__all__ = ["Continuity", "Join", "continuity"]

Line = tuple[Fraction, Fraction]  # value at 0, slope
_STEPS = ("sign", "floor", "ceil", "rint")


@dataclass(frozen=True)
class Join:
    """What a choice may do where it switches: jump up, jump down, or (neither) nothing."""

    rises: bool = False
    falls: bool = False


@dataclass(frozen=True)
class Continuity:
    """The choices of a formula, in the order in which it is evaluated.

    Attributes
    ----------
    joins : tuple of Join
        One for each call of ``nx.where``.
    everywhere : bool
        Whether no choice jumps and no step function occurs.
    """

    joins: tuple[Join, ...] = ()
    everywhere: bool = False


def continuity(function: Callable[[Any, Any], Any]) -> Continuity:
    """Read ``function(nx, x)`` once; what cannot be read is not shown to be continuous."""
    nx = _ExactNamespace()
    try:
        function(nx, _Law(lambda u: u, _Lines((), ((Fraction(0), Fraction(1)),))))
    except Exception:  # a formula may do anything with what it takes for an array
        return Continuity()
    calm = not nx.steps and not any(join.rises or join.falls for join in nx.joins)
    return Continuity(tuple(nx.joins), calm)


class _Number:
    """A polynomial with rational coefficients in symbols (and their inverses)."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[Any, Fraction]) -> None:
        self.terms = {key: c for key, c in terms.items() if c}

    @staticmethod
    def of(c: Any) -> "_Number":
        return c if isinstance(c, _Number) else _Number({frozenset(): Fraction(c)})

    @staticmethod
    def symbol(name: str, *arguments: "_Number") -> "_Number":
        key = (name, *(frozenset(a.terms.items()) for a in arguments))
        return _Number({frozenset({(key, 1)}): Fraction(1)})

    @property
    def rational(self) -> Fraction | None:
        """The number, if it is a rational one."""
        if self.terms.keys() <= {frozenset()}:
            return self.terms.get(frozenset(), Fraction(0))
        return None

    def __add__(self, other: "_Number") -> "_Number":
        keys = {**self.terms, **other.terms}
        zero = Fraction(0)
        return _Number({k: self.terms.get(k, zero) + other.terms.get(k, zero) for k in keys})

    def __mul__(self, other: "_Number") -> "_Number":
        terms: dict[Any, Fraction] = {}
        for a, c in self.terms.items():
            for b, d in other.terms.items():
                powers = dict(a)
                for key, n in b:
                    powers[key] = powers.get(key, 0) + n
                product = frozenset((key, n) for key, n in powers.items() if n)
                terms[product] = terms.get(product, Fraction(0)) + c * d
        return _Number(terms)

    def inverse(self) -> "_Number":
        if not self.terms:
            raise ZeroDivisionError
        if len(self.terms) > 1:
            return _Number.symbol("inverse", self)
        ((powers, c),) = self.terms.items()
        return _Number({frozenset((key, -n) for key, n in powers): 1 / c})


_PI = _Number.symbol("pi")
# Function, argument, value; beyond these a value is a symbol.
_KNOWN: dict[tuple[str, int], _Number] = {
    **{(name, 0): _Number.of(1) for name in ("exp", "cos", "cosh", "erfc")},
    **{
        (name, 0): _Number.of(0)
        for name in ("expm1", "log1p", "sqrt", "sin", "tan", "arcsin", "arctan", "sinh", "tanh")
    },
    **{(name, 0): _Number.of(0) for name in ("arcsinh", "arctanh", "erf")},
    ("log", 1): _Number.of(0),
    ("sqrt", 1): _Number.of(1),
    ("sigmoid", 0): _Number.of(Fraction(1, 2)),
    ("arccos", 1): _Number.of(0),
    **{("arctan", s): _PI * _Number.of(Fraction(s, 4)) for s in (-1, 1)},
    **{("arcsin", s): _PI * _Number.of(Fraction(s, 2)) for s in (-1, 1)},
}
_ROUNDED: dict[str, Callable[[Fraction], Any]] = {
    "sign": lambda c: (c > 0) - (c < 0),
    "floor": math.floor,
    "ceil": math.ceil,
    "rint": round,
}


# Where a function of a rational number is defined; of other numbers these have no known value.
_DOMAINS: dict[str, Callable[[Fraction], bool]] = {
    "log": lambda c: c > 0,
    "log1p": lambda c: c > -1,
    "sqrt": lambda c: c >= 0,
    "arcsin": lambda c: abs(c) <= 1,
    "arccos": lambda c: abs(c) <= 1,
    "arctanh": lambda c: abs(c) < 1,
    "tan": lambda c: True,  # poles are irrational
}


def _value_of(name: str, a: _Number) -> _Number | None:
    c = a.rational
    if name in _DOMAINS and (c is None or not _DOMAINS[name](c)):
        return None
    if name in _ROUNDED:
        return None if c is None else _Number.of(_ROUNDED[name](c))
    known = None if c is None else _KNOWN.get((name, c))  # type: ignore[arg-type]
    return _Number.symbol(name, a) if known is None else known


@dataclass(frozen=True)
class _Lines:
    """A continuous piecewise linear function; ``parts[i]`` holds up to ``breaks[i]``."""

    breaks: tuple[Fraction, ...]
    parts: tuple[Line, ...]

    @staticmethod
    def combine(
        pick: Callable[[Fraction], Line], *functions: "_Lines", also: tuple[Fraction, ...] = ()
    ) -> "_Lines":
        """The function that is ``pick(x)`` on the cell, of all breaks together, around ``x``."""
        breaks = tuple(sorted({*also, *(b for f in functions for b in f.breaks)}))
        return _Lines(breaks, tuple(pick(x) for x in _between(breaks)))

    def part(self, x: Fraction) -> Line:
        return self.parts[sum(b < x for b in self.breaks)]

    def at(self, x: Fraction) -> Fraction:
        c0, c1 = self.part(x)
        return c0 + c1 * x

    def plus(self, other: "_Lines") -> "_Lines":
        def pick(x: Fraction) -> Line:
            (a, b), (c, d) = self.part(x), other.part(x)
            return a + c, b + d

        return _Lines.combine(pick, self, other)

    def times(self, c: Fraction) -> "_Lines":
        return _Lines(self.breaks, tuple((a * c, b * c) for a, b in self.parts))

    def roots(self) -> tuple[Fraction, ...]:
        """Zeros at breaks and between them; of a stretch of zeros its ends."""
        found = {b for b in self.breaks if self.at(b) == 0}
        for i, (c0, c1) in enumerate(self.parts):
            if c1:
                x = -c0 / c1
                if all(b < x for b in self.breaks[:i]) and all(b > x for b in self.breaks[i:]):
                    found.add(x)
        return tuple(sorted(found))

    def maximum(self, other: "_Lines") -> "_Lines":
        gap = self.plus(other.times(Fraction(-1)))
        return _Lines.combine(
            lambda x: (self if gap.at(x) > 0 else other).part(x), self, other, also=gap.roots()
        )


def _between(breaks: tuple[Fraction, ...]) -> list[Fraction]:
    """A point of each of the cells that the breaks leave."""
    if not breaks:
        return [Fraction(0)]
    inner = [(a + b) / 2 for a, b in pairwise(breaks)]
    return [breaks[0] - 1, *inner, breaks[-1] + 1]


class _Condition:
    """``gap < 0``, or ``gap <= 0`` unless strict."""

    def __init__(self, gap: "_Law", strict: bool) -> None:
        self.gap, self.strict = gap, strict

    def __bool__(self) -> Never:
        raise TypeError("a comparison is no bool")

    def holds(self, gap: Fraction) -> bool:
        return gap < 0 or (gap == 0 and not self.strict)


class _Law:
    """A function of ``x``: exact values at numbers and, if piecewise linear, its lines."""

    __slots__ = ("_at", "_seen", "lines")
    __array_ufunc__ = None

    def __init__(
        self, at: Callable[[_Number], _Number | None], lines: _Lines | None = None
    ) -> None:
        self._at, self.lines = at, lines
        self._seen: dict[Any, _Number | None] = {}

    @staticmethod
    def of(c: Any) -> "_Law":
        if isinstance(c, _Law):
            return c
        if isinstance(c, _Number):
            return _Law(lambda u: c)
        if not math.isfinite(c):
            return _Law(lambda u: None)
        number = _Number.of(float(c))
        return _Law(lambda u: number, _Lines((), ((Fraction(float(c)), Fraction(0)),)))

    def at(self, u: _Number) -> _Number | None:
        """Value at a number; None where it is not known."""
        key = frozenset(u.terms.items())
        if key not in self._seen:
            self._seen[key] = self._at(u)
        return self._seen[key]

    def through(self, function: Callable[..., Any], *others: "_Law") -> "_Law":
        """The law of ``function(self, *others)``; without lines."""

        def at(u: _Number) -> _Number | None:
            values = [law.at(u) for law in (self, *others)]
            try:
                return None if None in values else function(*values)
            except ZeroDivisionError:
                return None

        return _Law(at)

    def __add__(self, other: Any) -> "_Law":
        o = _Law.of(other)
        law = self.through(lambda a, b: a + b, o)
        if self.lines is not None and o.lines is not None:
            law.lines = self.lines.plus(o.lines)
        return law

    __radd__ = __add__

    def __mul__(self, other: Any) -> "_Law":
        o = _Law.of(other)
        law = self.through(lambda a, b: a * b, o)
        for f, g in ((self.lines, o.lines), (o.lines, self.lines)):
            if f is not None and g is not None and not g.breaks and not g.parts[0][1]:
                law.lines = f.times(g.parts[0][0])
        return law

    __rmul__ = __mul__

    def __neg__(self) -> "_Law":
        return self * -1.0

    def __pos__(self) -> "_Law":
        return self

    def __abs__(self) -> "_Law":
        return _ExactNamespace.maximum(self, -self)

    def __sub__(self, other: Any) -> "_Law":
        return self + -_Law.of(other)

    def __rsub__(self, other: Any) -> "_Law":
        return _Law.of(other) - self

    def inverse(self) -> "_Law":
        law = self.through(_Number.inverse)
        f = self.lines
        if f is not None and not f.breaks and f.parts[0][0] and not f.parts[0][1]:
            law.lines = _Lines((), ((1 / f.parts[0][0], Fraction(0)),))
        return law

    def __truediv__(self, other: Any) -> "_Law":
        return self * _Law.of(other).inverse()

    def __rtruediv__(self, other: Any) -> "_Law":
        return _Law.of(other) / self

    def __pow__(self, n: int) -> "_Law":
        if n < 0:
            return (self**-n).inverse()
        result = _Law.of(1.0)
        for _ in range(n):
            result = result * self
        return result

    def __lt__(self, other: Any) -> _Condition:
        return _Condition(self - other, True)

    def __le__(self, other: Any) -> _Condition:
        return _Condition(self - other, False)

    def __gt__(self, other: Any) -> _Condition:
        return _Condition(_Law.of(other) - self, True)

    def __ge__(self, other: Any) -> _Condition:
        return _Condition(_Law.of(other) - self, False)

    def _undecided(self, *_: Any) -> Never:
        raise TypeError("a function of x is compared by order alone, and is no bool")

    __eq__ = __ne__ = __bool__ = _undecided
    __hash__ = None  # type: ignore[assignment]


class _ExactNamespace:
    """The vocabulary on exact laws; it writes down what each choice does."""

    pi = _Law.of(_PI)

    def __init__(self) -> None:
        self.joins: list[Join] = []
        self.steps = False

    def __getattr__(self, name: str) -> Callable[[Any], _Law]:
        if name not in FUNCTIONS:
            raise AttributeError(name)

        def function(x: Any) -> _Law:
            self.steps |= name in _STEPS
            return _Law.of(x).through(lambda a: _value_of(name, a))

        return function

    @staticmethod
    def constant(c: float) -> _Law:
        return _Law.of(c)

    def abs(self, x: Any) -> _Law:
        return self.maximum(x, -_Law.of(x))

    @staticmethod
    def maximum(a: Any, b: Any) -> _Law:
        f, g = _Law.of(a), _Law.of(b)

        def larger(s: _Number, t: _Number) -> _Number | None:
            gap = (s + t * _Number.of(-1)).rational
            return None if gap is None else (s if gap > 0 else t)

        law = f.through(larger, g)
        if f.lines is not None and g.lines is not None:
            law.lines = f.lines.maximum(g.lines)
        return law

    def minimum(self, a: Any, b: Any) -> _Law:
        return -self.maximum(-_Law.of(a), -_Law.of(b))

    def where(self, condition: Any, a: Any, b: Any) -> _Law:
        f, g = _Law.of(a), _Law.of(b)
        if not isinstance(condition, _Condition):
            if not isinstance(condition, bool | np.bool_):
                raise TypeError("a condition is a comparison")
            self.joins.append(Join())
            return f if condition else g
        join = _join(condition, f, g)
        self.joins.append(join)

        def at(u: _Number) -> _Number | None:
            gap = condition.gap.at(u)
            c = None if gap is None else gap.rational
            return None if c is None else (f if condition.holds(c) else g).at(u)

        law, gap = _Law(at), condition.gap.lines
        if f.lines is not None and g.lines is not None and gap is not None and join == Join():
            first, second, e = f.lines, g.lines, gap
            law.lines = _Lines.combine(
                lambda x: (first if condition.holds(e.at(x)) else second).part(x),
                *(first, second, e),
                also=e.roots(),
            )
        return law


def _join(condition: _Condition, f: _Law, g: _Law) -> Join:
    """Compare the branches before, at and after each switching point."""
    gap = condition.gap.lines
    if gap is None:
        return Join(True, True)
    rises = falls = False
    places = tuple(sorted({*gap.roots(), *gap.breaks}))
    sides = [condition.holds(gap.at(x)) for x in _between(places)]
    for u, before, after in zip(places, sides[:-1], sides[1:], strict=True):
        order = (before, condition.holds(gap.at(u)), after)
        for s, t in pairwise(order):
            if s == t:
                continue
            x, y = ((f if side else g).at(_Number.of(u)) for side in (s, t))
            step = None if x is None or y is None else (y + x * _Number.of(-1)).rational
            rises |= step is None or step > 0
            falls |= step is None or step < 0
    return Join(rises, falls)
