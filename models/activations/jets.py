"""Forward-mode derivatives: jets (value, first and second derivative) over any namespace.

A formula ``value(nx, x)`` evaluated with ``nx = JetNamespace(base)`` and ``x = Jet(x, 1.0)`` gives
``phi``, ``phi'`` and ``phi''`` with the arithmetic of ``base``: floats, JAX tracers, or intervals,
where the results are enclosures. For ``y = f(a)``: ``y' = f'(a) a'`` and
``y'' = f'(a) a'' + f''(a) a'^2``.

``None`` stands for a derivative that is zero by structure; it costs nothing and, unlike an interval
``[0, 0]`` that was rounded, never loses a sign.

Where an interval condition of ``where`` is undecided, both branches are hulled. That encloses
``phi'`` if ``phi`` is continuous (a jump has to be declared in the record), but ``phi'`` itself may
jump, so the second derivative is then the whole line; the search for inflections thus finds kinks
by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.activations.rules import RULES
from tangency.models.intervals import Interval, Truth

__all__ = ["Jet", "JetNamespace", "jet"]


def _add(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _mul(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    if type(a) is float and a == 1.0:
        return b
    if type(b) is float and b == 1.0:
        return a
    return a * b


def _neg(a: Any) -> Any:
    return None if a is None else -a


class Jet:
    """A value with its first and (if ``order`` is 2) second derivative."""

    __array_ufunc__ = None
    __slots__ = ("d1", "d2", "order", "v")

    def __init__(self, v: Any, d1: Any = None, d2: Any = None, order: int = 2) -> None:
        self.v, self.d1, self.d2, self.order = v, d1, d2, order

    def map(self, f0: Any, f1: Any, f2: Callable[[], Any] | None = None) -> "Jet":
        """Chain rule for a function with value ``f0``, slope ``f1``, second derivative ``f2()``."""
        d2 = None
        if self.order == 2 and self.d1 is not None:
            d2 = _mul(f1, self.d2)
            if f2 is not None:
                square = self.d1 if type(self.d1) is float and self.d1 == 1.0 else self.d1**2
                d2 = _add(d2, _mul(f2(), square))
        return Jet(f0, _mul(f1, self.d1), d2, self.order)

    def __neg__(self) -> "Jet":
        return Jet(-self.v, _neg(self.d1), _neg(self.d2), self.order)

    def __add__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            return Jet(self.v + other, self.d1, self.d2, self.order)
        return Jet(self.v + other.v, _add(self.d1, other.d1), _add(self.d2, other.d2), self.order)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Jet":
        result: Jet = self + (-other)
        return result

    def __rsub__(self, other: Any) -> "Jet":
        result: Jet = (-self) + other
        return result

    def __mul__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            v = self.v * other
            return Jet(v, _mul(self.d1, other), _mul(self.d2, other), self.order)
        if other is self:
            return self**2  # x*x as a square: intervals then know that it is not negative
        d1 = _add(_mul(self.d1, other.v), _mul(self.v, other.d1))
        d2 = None
        if self.order == 2:
            cross = _mul(2.0, _mul(self.d1, other.d1))
            d2 = _add(_add(_mul(self.d2, other.v), _mul(self.v, other.d2)), cross)
        return Jet(self.v * other.v, d1, d2, self.order)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            d1 = None if self.d1 is None else self.d1 / other
            d2 = None if self.d2 is None else self.d2 / other
            return Jet(self.v / other, d1, d2, self.order)
        product: Jet = self * other._reciprocal()
        product.v = self.v / other.v  # one rounding less
        return product

    def __rtruediv__(self, other: Any) -> "Jet":
        result: Jet = self._reciprocal() * other
        result.v = other / self.v
        return result

    def _reciprocal(self) -> "Jet":
        y = 1.0 / self.v
        return self.map(y, -(y**2), lambda: 2.0 * y**3)

    def __pow__(self, exponent: int) -> "Jet":
        n, a = exponent, self.v
        if n == 0:
            return Jet(a**0, None, None, self.order)
        if n == 1:
            return self
        if n < 0:
            return (self**-n)._reciprocal()
        slope = 2.0 * a if n == 2 else float(n) * a ** (n - 1)
        return self.map(a**n, slope, lambda: float(n * (n - 1)) * a ** (n - 2))

    def __lt__(self, other: Any) -> Any:
        return self.v < (other.v if isinstance(other, Jet) else other)

    def __le__(self, other: Any) -> Any:
        return self.v <= (other.v if isinstance(other, Jet) else other)

    def __gt__(self, other: Any) -> Any:
        return self.v > (other.v if isinstance(other, Jet) else other)

    def __ge__(self, other: Any) -> Any:
        return self.v >= (other.v if isinstance(other, Jet) else other)


def _whole(d: Any, undecided: Any) -> Interval:
    d = Interval.of(0.0 if d is None else d)
    return Interval(np.where(undecided, -np.inf, d.lower), np.where(undecided, np.inf, d.upper))


class JetNamespace:
    """The vocabulary of :mod:`tangency.models.namespace` on jets over a base namespace."""

    def __init__(self, base: Any, order: int = 2, *, continuous: bool = True) -> None:
        self.base = base
        self.pi = base.pi
        self.constant = base.constant
        self.order = order
        self.continuous = continuous

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        rule, function = RULES.get(name), getattr(self.base, name)

        def lifted(x: Any) -> Any:
            if not isinstance(x, Jet):
                return function(x)
            y = function(x.v)
            if rule is None:  # floor, ceil, rint, sign: locally constant
                step = isinstance(y, Interval) and y.lower < y.upper
                return self._blurred(Jet(y, None, None, x.order), step)
            return x.map(y, *rule(self.base, x.v, y))

        return lifted

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Choose between jets; see the module's note on undecided conditions."""
        if not (isinstance(a, Jet) or isinstance(b, Jet) or isinstance(condition, Truth)):
            return self.base.where(condition, a, b)
        parts = [(x.v, x.d1, x.d2) if isinstance(x, Jet) else (x, None, None) for x in (a, b)]

        def pick(k: int) -> Any:
            s, t = parts[0][k], parts[1][k]
            if s is None and t is None:
                return None
            s, t = (0.0 if part is None else part for part in (s, t))
            return self.base.where(condition, s, t)

        chosen = Jet(pick(0), pick(1), pick(2), self.order)
        if isinstance(condition, Truth):
            return self._blurred(chosen, condition.possibly & ~condition.surely)
        return chosen

    def _blurred(self, y: Jet, undecided: Any) -> Jet:
        """Replace the derivatives that a hidden jump or kink may spoil by the whole line."""
        if np.any(undecided):
            y.d2 = _whole(y.d2, undecided) if y.order == 2 else None
            if not self.continuous:
                y.d1 = _whole(y.d1, undecided)
        return y

    def abs(self, x: Any) -> Any:
        """``|x|``, with a kink at 0."""
        if not isinstance(x, Jet):
            return self.base.abs(x)
        signed = JetNamespace(self.base, x.order).where(x.v < 0.0, -x, x)  # continuous in any case
        # |x|' = 0 at 0 itself, the convention of jax.numpy.abs
        slope = _mul(self.base.sign(x.v), x.d1)
        return Jet(self.base.abs(x.v), slope, signed.d2, x.order)

    def maximum(self, a: Any, b: Any) -> Any:
        """As ``where(a <= b, b, a)``, with the value taken by the sharper rule of the base."""
        return self._extremum("maximum", a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        """As ``where(a <= b, a, b)``, with the value taken by the sharper rule of the base."""
        return self._extremum("minimum", a, b)

    def _extremum(self, name: str, a: Any, b: Any) -> Any:
        s, t = (x.v if isinstance(x, Jet) else x for x in (a, b))
        value = getattr(self.base, name)(s, t)
        if not isinstance(a, Jet) and not isinstance(b, Jet):
            return value
        joined = JetNamespace(self.base, self.order)  # continuous in any case
        chosen = joined.where(s <= t, b, a) if name == "maximum" else joined.where(s > t, b, a)
        return Jet(value, chosen.d1, chosen.d2, chosen.order)


def jet(
    function: Callable[[Any, Any], Any],
    nx: Any,
    x: Any,
    order: int = 2,
    *,
    continuous: bool = True,
) -> Jet:
    """Evaluate ``function(nx, x)`` with derivatives up to ``order`` (1 or 2), none left None.

    With ``continuous=False`` (a formula of ``phi'``, which may jump) the first derivative, too, is
    the whole line wherever an interval condition is undecided.
    """
    result = function(JetNamespace(nx, order, continuous=continuous), Jet(x, 1.0, None, order))
    if not isinstance(result, Jet):
        result = Jet(result + 0.0 * x, None, None, order)
    zero = None if result.d1 is not None and result.d2 is not None else 0.0 * x
    if result.d1 is None or type(result.d1) is float:
        result.d1 = (0.0 if result.d1 is None else result.d1) + 0.0 * x
    if result.d2 is None or type(result.d2) is float:
        result.d2 = zero if result.d2 is None else result.d2 + 0.0 * x
    return result
