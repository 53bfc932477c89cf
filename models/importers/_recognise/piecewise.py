"""Functions of one entry that may bend or jump at rational points, exactly.

Between its cuts a :class:`Piecewise` is one normal form; at a cut it has a value of its own.
Maxima, absolute values and choices cut where an affine difference changes its sign, which is
computed in rationals: both rays and every kink are exact. Where a sign is not seen (the
difference bends), there is no form, and nothing is recognised.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any

from tangency.models.importers._recognise.reductions import is_variance
from tangency.models.importers._recognise.terms import (
    FUNCTIONS,
    ONE,
    ZERO,
    NoFormError,
    Poly,
    constant,
    function,
    inverse,
    is_positive,
    power,
    substitute,
)

__all__ = ["Namespace", "Piecewise", "Term", "lift"]

_CUTS = 24


class Piecewise:
    """``pieces[i]`` between ``cuts[i - 1]`` and ``cuts[i]``; ``points[i]`` at ``cuts[i]``."""

    def __init__(
        self,
        pieces: tuple[Poly, ...],
        cuts: tuple[Fraction, ...] = (),
        points: tuple[Poly, ...] = (),
    ) -> None:
        self.pieces, self.cuts, self.points = pieces, cuts, points

    @cached_property
    def text(self) -> str:
        """All of it, in writing: equal functions that have forms here have equal texts."""
        parts = [self.pieces[0].text]
        for cut, point, piece in zip(self.cuts, self.points, self.pieces[1:], strict=True):
            parts += [f"{cut}: {point.text}", piece.text]
        return " | ".join(parts)

    @property
    def single(self) -> Poly:
        """The only piece; NoFormError if there are several."""
        if self.cuts:
            raise NoFormError("a reduction of a function with kinks")
        return self.pieces[0]

    def at(self, cut: Fraction) -> Poly:
        """The value at a point."""
        i = bisect_left(self.cuts, cut)
        if i < len(self.cuts) and self.cuts[i] == cut:
            return self.points[i]
        return substitute(self.pieces[i], cut)

    def between(self, cuts: tuple[Fraction, ...]) -> Iterator[Poly]:
        """The pieces between finer cuts."""
        yield from (self.pieces[bisect_left(self.cuts, c)] for c in cuts)
        yield self.pieces[-1]


def lift(f: Callable[..., Poly], *parts: Piecewise) -> Piecewise:
    """``f`` of several, piece by piece; cuts at which nothing happens are left out."""
    cuts = tuple(sorted({c for p in parts for c in p.cuts}))
    if len(cuts) > _CUTS:
        raise NoFormError("too many kinks")
    pieces = [f(*given) for given in zip(*(p.between(cuts) for p in parts), strict=True)]
    points = [f(*(p.at(c) for p in parts)) for c in cuts]
    kept: list[tuple[Fraction, Poly, Poly]] = []
    last = pieces[0]
    for cut, point, piece in zip(cuts, points, pieces[1:], strict=True):
        if last != piece or substitute(piece, cut) != point:
            kept.append((cut, point, piece))
            last = piece
    return Piecewise(
        (pieces[0], *(k[2] for k in kept)), tuple(k[0] for k in kept), tuple(k[1] for k in kept)
    )


def _sign(p: Poly, at: Fraction) -> Poly:
    if is_positive(p):
        return ONE
    number = substitute(p, at).number
    if number is None:
        raise NoFormError("a sign that is not seen")
    return constant((number > 0) - (number < 0))


def _signs(f: Piecewise) -> Piecewise:
    """-1, 0 or 1, whichever the sign of f is."""
    ends = [None, *f.cuts, None]
    cuts: list[Fraction] = list(f.cuts)
    for piece, low, high in zip(f.pieces, ends[:-1], ends[1:], strict=True):
        if is_positive(piece):
            continue
        if piece.line is None:
            raise NoFormError("a sign that is not seen")
        a, b = piece.line
        if b and (low is None or low < -a / b) and (high is None or -a / b < high):
            cuts.append(-a / b)
    fine = tuple(sorted(cuts))
    # A point inside each interval: on it, each piece keeps its sign.
    inside = [(u + v) / 2 for u, v in pairwise(fine)]
    inside = [fine[0] - 1, *inside, fine[-1] + 1] if fine else [Fraction(0)]
    pieces = tuple(_sign(p, at) for p, at in zip(f.between(fine), inside, strict=True))
    return Piecewise(pieces, fine, tuple(_sign(f.at(c), c) for c in fine))


class Term:
    """A Piecewise that formulas compute with; ``read`` is the exact number that a float is."""

    # A formula may meet NumPy's numbers: they leave the arithmetic to this class.
    __array_ufunc__ = None

    def __init__(self, value: Piecewise, read: Callable[[float], Fraction]) -> None:
        self.value, self.read = value, read

    def _other(self, other: Any) -> Piecewise:
        if isinstance(other, Term):
            return other.value
        if not math.isfinite(other):
            raise NoFormError("an infinite constant")
        return Piecewise((constant(self.read(other)),))

    def _with(self, f: Callable[..., Poly], *others: Any) -> Term:
        return Term(lift(f, self.value, *(self._other(o) for o in others)), self.read)

    def __add__(self, other: Any) -> Term:
        return self._with(lambda p, q: p + q, other)

    def __sub__(self, other: Any) -> Term:
        return self._with(lambda p, q: p - q, other)

    def __rsub__(self, other: Any) -> Term:
        return self._with(lambda p, q: q - p, other)

    def __mul__(self, other: Any) -> Term:
        return self._with(lambda p, q: p * q, other)

    def __truediv__(self, other: Any) -> Term:
        return self._with(lambda p, q: p * inverse(q), other)

    def __rtruediv__(self, other: Any) -> Term:
        return self._with(lambda p, q: q * inverse(p), other)

    def __neg__(self) -> Term:
        return self._with(lambda p: p.times(-1))

    def __pow__(self, n: Any) -> Term:
        if n != int(n):
            raise NoFormError("a broken power")
        return self._with(lambda p: power(p, int(n)))

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> bool:
        raise NoFormError("a comparison by ==")

    def __bool__(self) -> bool:
        raise NoFormError("a branch in Python")

    __hash__ = None  # type: ignore[assignment]

    def sign(self) -> Term:
        """-1, 0 or 1."""
        signs = _signs(self.value)
        return Term(lift(lambda p: p, signs), self.read)

    def _compared(self, other: Any, *signs: int) -> Term:
        """1 where the sign of the difference is one of these, else 0."""
        difference: Term = self - other
        return difference.sign()._with(lambda p: ONE if p.number in signs else ZERO)

    def __gt__(self, other: Any) -> Term:
        return self._compared(other, 1)

    def __lt__(self, other: Any) -> Term:
        return self._compared(other, -1)

    def __ge__(self, other: Any) -> Term:
        return self._compared(other, 0, 1)

    def __le__(self, other: Any) -> Term:
        return self._compared(other, -1, 0)


class Namespace:
    """The vocabulary of :mod:`tangency.models.namespace`, for Terms.

    Parameters
    ----------
    constants : bool
        Whether irrational constants may be taken for floats that round them, as a framework does
        that writes them as floats. Otherwise a formula with one has no form.
    """

    def __init__(self, *, constants: bool) -> None:
        self._constants = constants

    @property
    def pi(self) -> float:
        """Pi, as a float."""
        if not self._constants:
            raise NoFormError("an irrational constant")
        return math.pi

    @staticmethod
    def constant(c: float) -> float:
        return c

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, Term):
            return a if condition else b
        return condition._with(lambda c, p, q: p if c == ONE else q, a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return self._larger(a, b, -math.inf, 1)

    def minimum(self, a: Any, b: Any) -> Any:
        return self._larger(a, b, math.inf, -1)

    def _larger(self, a: Any, b: Any, none: float, sign: int) -> Any:
        if not isinstance(a, Term):
            a, b = b, a
        if not isinstance(a, Term):
            return max(sign * a, sign * b) * sign
        if isinstance(b, float | int):
            if b == none:
                return a
            # Frameworks clamp a variance at zero against rounding: it is none, in real arithmetic.
            if b == 0 and sign == 1 and not a.value.cuts and is_variance(a.value.single):
                return a
        return self.where(a > b if sign == 1 else a < b, a, b)

    def abs(self, a: Any) -> Any:
        return self.maximum(a, -a)

    def sign(self, a: Any) -> Any:
        return a.sign() if isinstance(a, Term) else math.copysign(1.0, a) if a else 0.0

    def __getattr__(self, name: str) -> Any:
        if name not in FUNCTIONS:
            raise AttributeError(name)

        def apply(a: Any) -> Any:
            if isinstance(a, Term):
                return a._with(lambda p: function(name, p))
            if not self._constants:
                raise NoFormError("an irrational constant")
            from tangency.models.namespace import numpy_namespace

            return getattr(numpy_namespace, name)(a)

        return apply
