"""Forward-mode derivatives: jets (value, first and second derivative) over any namespace.

A formula ``value(nx, x)`` evaluated with ``nx = JetNamespace(base)`` and ``x = Jet(x, 1.0)`` gives
``phi``, ``phi'`` and ``phi''`` with the arithmetic of ``base``: floats, JAX tracers, or intervals,
where the results are enclosures. For ``y = f(a)``: ``y' = f'(a) a'`` and
``y'' = f'(a) a'' + f''(a) a'^2``.

``None`` stands for a derivative that is zero by structure; it costs nothing and, unlike an interval
``[0, 0]`` that was rounded, never loses a sign.

What a jet over an interval encloses
------------------------------------
For a cell ``X`` (closed, possibly one point) and a function ``y`` of ``x``, at *every* point ``p``
of ``X``, its ends included:

- ``v`` holds all limits of ``y(s)`` for ``s -> p``, from either side;
- ``d1`` holds all limits of ``(y(s) - y(t)) / (s - t)`` for ``s, t -> p``, that is, Clarke's
  derivative; a limit of ``+inf`` (``-inf``) is held by an upper (lower) end that is infinite;
- ``d2`` holds the same of ``y'``, for every choice of ``y'`` among the limits of slopes, and is
  the whole line where ``y'`` may jump.

So a bounded ``d1`` means that ``y`` is continuous (and Lipschitz) in a neighbourhood of ``X``, and
``y(x)`` lies in ``y(m) + d1 (X - m)``; a ``d1`` of one sign, that ``y`` is monotone on ``X``; and
likewise for ``y'`` with ``d2``. Nothing is lost where a cell ends exactly at a kink.

Proof, by induction over the formula:

- *Smooth functions and arithmetic.* Difference quotients obey the sum rule, the product rule
  ``a(s) (b(s) - b(t)) + b(t) (a(s) - a(t))`` and, by the mean-value theorem on the interval of the
  values of ``a``, the chain rule; limits are taken on the extended line. There ``0 * inf`` may be
  anything: a product with an unbounded factor is the whole line unless the other factor is not 0
  (:func:`_mul`). Across a pole a quotient of either sign is possible: the whole line, too.
- *Choices.* ``where(a < b, f, g)`` is settled only where the enclosures of ``a`` and ``b`` do not
  touch (:attr:`Truth.nearby`): they hold the limits at the points of ``X``, so that the comparison
  has one result in a neighbourhood of ``X``, and the jet is that of the branch. Otherwise both
  are hulled. For ``s`` and ``t`` on different sides there is a switching point ``u`` between; if
  ``f(u) = g(u)``, ``y(s) - y(t) = (f(s) - f(u)) + (g(u) - g(t))``, and the quotient is a mean of
  one of ``f`` and one of ``g``. That the branches meet has to be shown, in exact arithmetic
  (:mod:`.continuity`); otherwise the difference that remains makes the quotient unbounded
  upwards, downwards or both.
- ``maximum``, ``minimum``, ``abs``: a difference of maxima lies between the differences of the two
  operands, so that nothing has to be shown.
- *Steps* (``sign``, ``floor``, ``ceil``, ``rint``) rise: near a step their quotients lie in
  ``[0, inf]``, elsewhere they are 0.
- Wherever a choice or a step is open, ``d2`` is the whole line.

Over other namespaces the derivative is that of the branch taken, by the conventions of
``jax.numpy``.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, Never

import numpy as np

from tangency.models.activations.continuity import Join
from tangency.models.activations.rules import RULES
from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace, nearby_namespace
from tangency.models.intervals import Interval, Truth
from tangency.models.namespace import jax_namespace, numpy_namespace

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
    product = a * b
    if isinstance(a, Interval) and isinstance(b, Interval):
        # In a limit 0 * inf is open, while in the arithmetic of numbers it is 0.
        undecided = (_infinite(a) & _has_zero(b)) | (_infinite(b) & _has_zero(a))
        if undecided.any():
            return _whole(product, undecided)
    return product


def _div(a: Any, b: Any) -> Any:
    quotient = a / b
    if isinstance(b, Interval):
        a = Interval.of(a)
        undecided = (_has_zero(b) & (_has_zero(a) | _infinite(a))) | (_infinite(b) & _infinite(a))
        if undecided.any():
            return _whole(quotient, undecided)
    return quotient


def _infinite(x: Interval) -> Any:
    return np.isinf(x.lower) | np.isinf(x.upper)


def _has_zero(x: Interval) -> Any:
    return (x.lower <= 0.0) & (x.upper >= 0.0)


def _whole(d: Any, undecided: Any) -> Any:
    return _unbounded(d, undecided, undecided)


def _unbounded(d: Any, above: Any, below: Any) -> Any:
    """``d`` with its ends moved to +-inf where told; a jet may jump there and has any slope."""
    if isinstance(d, Jet):
        either, zero = above | below, 0.0 * d.v
        d1, d2 = (_whole(zero if part is None else part, either) for part in (d.d1, d.d2))
        return Jet(_unbounded(d.v, above, below), d1, d2 if d.order == 2 else None, d.order)
    d = Interval.of(d)
    return Interval._make(np.where(below, -np.inf, d.lower), np.where(above, np.inf, d.upper))


def _innermost(x: Any) -> Any:
    """The number or interval in a jet (of jets)."""
    while isinstance(x, Jet):
        x = x.v
    return x


def _namespace_of(x: Any) -> Any:
    """The namespace of what a jet is over."""
    if isinstance(x, Jet):
        return JetNamespace(_namespace_of(x.v), x.order)
    if isinstance(x, Interval):
        return interval_namespace
    jax = sys.modules.get("jax")
    return jax_namespace() if jax is not None and isinstance(x, jax.Array) else numpy_namespace


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

    def __pos__(self) -> "Jet":
        return self

    def __abs__(self) -> "Jet":
        result: Jet = JetNamespace(_namespace_of(self.v), self.order).abs(self)
        return result

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
            d1, d2 = _mul(self.d1, other), _mul(self.d2, other)
            return Jet(_mul(self.v, other), d1, d2, self.order)
        if other is self:
            return self**2  # x*x as a square: intervals then know that it is not negative
        d1 = _add(_mul(self.d1, other.v), _mul(self.v, other.d1))
        d2 = None
        if self.order == 2:
            cross = _mul(2.0, _mul(self.d1, other.d1))
            d2 = _add(_add(_mul(self.d2, other.v), _mul(self.v, other.d2)), cross)
        return Jet(_mul(self.v, other.v), d1, d2, self.order)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Jet":
        if not isinstance(other, Jet):
            d1 = None if self.d1 is None else self.d1 / other
            d2 = None if self.d2 is None else self.d2 / other
            return Jet(self.v / other, d1, d2, self.order)
        product: Jet = self * other._reciprocal()
        product.v = _div(self.v, other.v)  # one rounding less
        return product

    def __rtruediv__(self, other: Any) -> "Jet":
        result: Jet = self._reciprocal() * other
        result.v = _div(other, self.v)
        return result

    def _reciprocal(self) -> "Jet":
        y = 1.0 / self.v
        slope, a = -(y**2), _innermost(self.v)
        if isinstance(a, Interval) and _has_zero(a).any():  # across a pole it jumps
            slope = _whole(slope, _has_zero(a))
        return self.map(y, slope, lambda: 2.0 * y**3)

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

    def _undecided(self, *_: Any) -> Never:
        raise InputError("a jet is compared by <, <=, > and >= alone, and is no bool")

    __eq__ = __ne__ = __bool__ = _undecided
    __hash__ = None  # type: ignore[assignment]


class JetNamespace:
    """The vocabulary of :mod:`tangency.models.namespace` on jets over a base namespace.

    Parameters
    ----------
    base : namespace
        Of numbers or intervals.
    order : {0, 1, 2}
        Derivatives wanted.
    joins : sequence of Join
        What is known of the choices of the formula, in the order in which it makes them; one that
        is not listed may jump.
    """

    def __init__(self, base: Any, order: int = 2, joins: tuple[Join, ...] = ()) -> None:
        self.base = nearby_namespace if base is interval_namespace else base
        self.pi = base.pi
        self.constant = base.constant
        self.order = order
        self._joins: Iterator[Join] = iter(joins)

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        rule, function = RULES.get(name), getattr(self.base, name)

        def lifted(x: Any) -> Any:
            if not isinstance(x, Jet):
                return function(x)
            y = function(x.v)
            if rule is None:  # floor, ceil, rint, sign
                return self._step(x, y)
            slope, bend = rule(self.base, x.v, y)
            if name == "tan" and isinstance(_innermost(y), Interval):  # across a pole it falls
                slope = _whole(slope, _infinite(_innermost(y)))
            return x.map(y, slope, bend)

        return lifted

    @staticmethod
    def _step(x: Jet, y: Any) -> Jet:
        """A function that is locally constant, except for steps upwards."""
        inner = _innermost(y)
        undecided = inner.lower < inner.upper if isinstance(inner, Interval) else np.False_
        if not np.any(undecided) or x.d1 is None:
            return Jet(y, None, None, x.order)
        rise = _unbounded(0.0 * y, undecided, np.False_)
        d2 = _whole(0.0 * y, undecided) if x.order == 2 else None
        return Jet(y, _mul(rise, x.d1), d2, x.order)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Choose between jets; see the module's note on choices."""
        if isinstance(condition, Jet):
            raise InputError("the condition of nx.where is a comparison, not a function of x")
        return self._choose(condition, a, b, next(self._joins, Join(True, True)))

    def _choose(self, condition: Any, a: Any, b: Any, join: Join) -> Any:
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
            undecided = condition.nearby.possibly & ~condition.nearby.surely
            if undecided.any():
                zero = 0.0 * chosen.v
                d1, d2 = (zero if part is None else part for part in (chosen.d1, chosen.d2))
                if join.rises or join.falls:
                    chosen.d1 = _unbounded(d1, undecided & join.rises, undecided & join.falls)
                chosen.d2 = _whole(d2, undecided) if self.order == 2 else None
        return chosen

    def abs(self, x: Any) -> Any:
        """``|x|``, with a kink at 0."""
        if not isinstance(x, Jet):
            return self.base.abs(x)
        signed = self._choose(x.v < 0.0, -x, x, Join())
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
        condition = s <= t if name == "maximum" else s > t
        chosen = self._choose(condition, b, a, Join())
        return Jet(value, chosen.d1, chosen.d2, chosen.order)


def jet(
    function: Callable[[Any, Any], Any],
    nx: Any,
    x: Any,
    order: int = 2,
    joins: tuple[Join, ...] = (),
) -> Jet:
    """Evaluate ``function(nx, x)`` with derivatives up to ``order`` (0 to 2), none left None.

    ``joins`` tells, over intervals, which choices are known to be continuous.
    """
    result = function(JetNamespace(nx, order, joins), Jet(x, 1.0 if order else None, None, order))
    if not isinstance(result, Jet):
        result = Jet(result + 0.0 * x, None, None, order)
    zero = None if result.d1 is not None and result.d2 is not None else 0.0 * x
    if result.d1 is None or type(result.d1) is float:
        result.d1 = (0.0 if result.d1 is None else result.d1) + 0.0 * x
    if result.d2 is None or type(result.d2) is float:
        result.d2 = zero if result.d2 is None else result.d2 + 0.0 * x
    return result
