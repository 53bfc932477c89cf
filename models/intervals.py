"""Closed intervals of real numbers in float64, rounded outwards; NumPy alone.

Every operation returns an interval that contains the result for *all* real numbers in its
operands. Sums are rounded only where they are inexact (Knuth's two-sum tells); products, quotients
and square roots are moved one float outwards with ``nextafter``, which is sound because NumPy
rounds them to nearest.

An endpoint of +-inf means unbounded; NaN in an operand becomes ``[-inf, inf]``, never silence.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, Union

import numpy as np
import numpy.typing as npt

from tangency.models.errors import InputError

__all__ = ["Array", "Interval", "Like", "Truth", "plain_condition"]

Array = npt.NDArray[np.float64]
Like = Union["Interval", float, Array]
Result = TypeVar("Result")

_INF = np.inf
_MAX = float(np.finfo(np.float64).max)
_TINY = 5e-324


def _down(x: Any) -> Array:
    y: Array = np.nextafter(x, -_INF)
    return y


def _up(x: Any) -> Array:
    y: Array = np.nextafter(x, _INF)
    return y


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Rounded sum and its exact error; the error is NaN where the sum is infinite."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _defers(method: "Callable[[Any, Any], Result]") -> "Callable[[Any, Any], Result]":
    """Let an operator leave operands that are neither numbers nor intervals to the other side."""

    @functools.wraps(method)
    def wrapped(self: Any, other: Any) -> Any:
        if isinstance(other, Interval | float | int | np.ndarray | np.generic):
            return method(self, other)
        return NotImplemented

    return wrapped


class Truth:
    """A comparison of intervals: where it surely holds, and where it possibly holds.

    ``nearby`` is the same comparison for all numbers in some neighbourhood of the operands:
    there an equality decides nothing, so that intervals that touch leave it open.
    """

    __slots__ = ("_nearby", "possibly", "surely")

    def __init__(
        self,
        surely: npt.NDArray[np.bool_],
        possibly: npt.NDArray[np.bool_],
        nearby: "Truth | None" = None,
    ) -> None:
        self.surely = surely
        self.possibly = possibly
        self._nearby = nearby

    @property
    def nearby(self) -> "Truth":
        """The comparison in a neighbourhood."""
        return self if self._nearby is None else self._nearby

    def __bool__(self) -> bool:
        raise InputError("a comparison of intervals is not a bool: use nx.where(condition, a, b)")


def plain_condition(condition: Any) -> npt.NDArray[np.bool_]:
    """The condition of a ``where`` that no interval takes part in; a number is none."""
    found = np.asarray(condition)
    if found.dtype != np.bool_:
        raise InputError(
            f"the condition of nx.where is a comparison, not of type {type(condition).__name__}"
        )
    return found


class Interval:
    """Arrays of closed intervals ``[lower, upper]``.

    Parameters
    ----------
    lower, upper : array or float
        End points, broadcast together; ``upper`` may be omitted for a single point.

    Raises
    ------
    InputError
        If ``lower > upper`` anywhere.

    Examples
    --------
    >>> x = Interval(-1.0, 2.0)
    >>> (x * x).contains(-2.0), (x**2).contains(-0.1)
    (np.True_, np.False_)
    """

    __slots__ = ("lower", "upper")
    __array_ufunc__ = None  # so that array * Interval comes here, not element by element
    lower: Array
    upper: Array

    def __init__(self, lower: Any, upper: Any = None) -> None:
        low = np.asarray(lower, dtype=np.float64)
        high = low if upper is None else np.asarray(upper, dtype=np.float64)
        if low.shape != high.shape:
            low, high = np.broadcast_arrays(low, high)
        if np.any(low > high):
            raise InputError("an interval needs lower <= upper")
        self._set(low, high)

    def _set(self, low: Array, high: Array) -> None:
        bad = np.isnan(low) | np.isnan(high)
        if bad.any():
            low, high = np.where(bad, -_INF, low), np.where(bad, _INF, high)
        # [inf, inf] has no real number in it; what overflowed lies above the largest float.
        if (low == _INF).any() or (high == -_INF).any():
            low, high = np.minimum(low, _MAX), np.maximum(high, -_MAX)
        self.lower = low
        self.upper = high

    @classmethod
    def _make(cls, lower: Any, upper: Any) -> "Interval":
        """Build from end points known to be in order."""
        self = cls.__new__(cls)
        self._set(np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64))
        return self

    @staticmethod
    def of(x: Like) -> "Interval":
        """``x`` itself, or the degenerate interval of a number."""
        return x if isinstance(x, Interval) else Interval(x)

    def __repr__(self) -> str:
        return f"Interval({self.lower!r}, {self.upper!r})"

    def __getitem__(self, key: Any) -> "Interval":
        return Interval._make(self.lower[key], self.upper[key])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the arrays of end points."""
        return self.lower.shape

    @property
    def midpoint(self) -> Array:
        """A float inside, near the middle (finite where the interval is bounded)."""
        with np.errstate(all="ignore"):
            middle = 0.5 * self.lower + 0.5 * self.upper
        return np.clip(np.where(np.isnan(middle), 0.0, middle), self.lower, self.upper)

    @property
    def radius(self) -> Array:
        """Upper bound of the distance from the midpoint to either end."""
        with np.errstate(all="ignore"):
            middle = self.midpoint
            return np.maximum(_up(middle - self.lower), _up(self.upper - middle))

    @property
    def magnitude(self) -> Array:
        """Largest absolute value."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def contains(self, x: Any) -> Any:
        """Whether numbers, or all of other intervals, lie inside."""
        other = Interval.of(x)
        return (self.lower <= other.lower) & (other.upper <= self.upper)

    def hull(self, other: Like) -> "Interval":
        """Smallest interval that holds both."""
        o = Interval.of(other)
        return Interval._make(np.minimum(self.lower, o.lower), np.maximum(self.upper, o.upper))

    def intersect(self, other: Like) -> "Interval":
        """Common part; InputError where there is none (two enclosures of one number meet)."""
        o = Interval.of(other)
        return Interval(np.maximum(self.lower, o.lower), np.minimum(self.upper, o.upper))

    def __neg__(self) -> "Interval":
        return Interval._make(-self.upper, -self.lower)

    def __pos__(self) -> "Interval":
        return self

    def __abs__(self) -> "Interval":
        across = (self.lower <= 0) & (self.upper >= 0)
        least = np.minimum(np.abs(self.lower), np.abs(self.upper))
        return Interval._make(np.where(across, 0.0, least), self.magnitude)

    @_defers
    def __add__(self, other: Like) -> "Interval":
        o = Interval.of(other)
        with np.errstate(all="ignore"):
            low, low_error = _two_sum(self.lower, o.lower)
            high, high_error = _two_sum(self.upper, o.upper)
            # Not (error >= 0) also catches the NaN of an overflow.
            low = np.where(low_error >= 0, low, _down(low))
            high = np.where(high_error <= 0, high, _up(high))
        return Interval._make(low, high)

    __radd__ = __add__

    @_defers
    def __sub__(self, other: Like) -> "Interval":
        return self + (-Interval.of(other))

    @_defers
    def __rsub__(self, other: Like) -> "Interval":
        return (-self) + other

    @_defers
    def __mul__(self, other: Like) -> "Interval":
        o = Interval.of(other)
        a, b, c, d = self.lower, self.upper, o.lower, o.upper
        with np.errstate(all="ignore"):
            # inf * 0 is 0 here: inf only stands for numbers beyond every bound.
            p = [np.where((s == 0) | (t == 0), 0.0, s * t) for s in (a, b) for t in (c, d)]
            low = np.minimum(np.minimum(p[0], p[1]), np.minimum(p[2], p[3]))
            high = np.maximum(np.maximum(p[0], p[1]), np.maximum(p[2], p[3]))
            low, high = _down(low), _up(high)
        # Rounding must not blur a known sign (or a zero): monotonicity proofs stand on it.
        zero = ((a == 0) & (b == 0)) | ((c == 0) & (d == 0))
        positive = zero | ((a >= 0) & (c >= 0)) | ((b <= 0) & (d <= 0))
        negative = zero | ((a >= 0) & (d <= 0)) | ((b <= 0) & (c >= 0))
        low = np.where(positive, np.maximum(low, 0.0), low)
        high = np.where(negative, np.minimum(high, 0.0), high)
        return Interval._make(low, high)

    __rmul__ = __mul__

    def reciprocal(self) -> "Interval":
        """``1/x``; ``[-inf, inf]`` where 0 lies strictly inside."""
        a, b = self.lower, self.upper
        with np.errstate(all="ignore"):
            low = np.where(b == 0, -_INF, _down(1.0 / b))
            high = np.where(a == 0, _INF, _up(1.0 / a))
            low = np.where(a >= 0, np.maximum(low, 0.0), low)
            high = np.where(b <= 0, np.minimum(high, 0.0), high)
            across = ((a < 0) & (b > 0)) | ((a == 0) & (b == 0))
        return Interval._make(np.where(across, -_INF, low), np.where(across, _INF, high))

    @_defers
    def __truediv__(self, other: Like) -> "Interval":
        o = Interval.of(other)
        a, b, c, d = self.lower, self.upper, o.lower, o.upper
        by_zero = (c <= 0) & (d >= 0)
        with np.errstate(all="ignore"):
            p = [np.where((s == 0) | np.isinf(t), 0.0, s / t) for s in (a, b) for t in (c, d)]
            low = _down(np.minimum(np.minimum(p[0], p[1]), np.minimum(p[2], p[3])))
            high = _up(np.maximum(np.maximum(p[0], p[1]), np.maximum(p[2], p[3])))
        low = np.where(((a >= 0) & (c > 0)) | ((b <= 0) & (d < 0)), np.maximum(low, 0.0), low)
        high = np.where(((a >= 0) & (d < 0)) | ((b <= 0) & (c > 0)), np.minimum(high, 0.0), high)
        if np.any(by_zero):
            other_way = self * o.reciprocal()
            low = np.where(by_zero, other_way.lower, low)
            high = np.where(by_zero, other_way.upper, high)
        return Interval._make(low, high)

    @_defers
    def __rtruediv__(self, other: Like) -> "Interval":
        return Interval.of(other) / self

    def __pow__(self, exponent: int) -> "Interval":
        if not isinstance(exponent, int):
            raise InputError("an interval is raised to an integer power only")
        if exponent < 0:
            return (self**-exponent).reciprocal()
        if exponent == 0:
            return Interval(np.ones(self.shape))
        low, high = _powers(self.lower, exponent), _powers(self.upper, exponent)
        if exponent % 2:
            return Interval._make(low.lower, high.upper)
        across = (self.lower <= 0) & (self.upper >= 0)
        least = np.minimum(low.lower, high.lower)
        return Interval._make(
            np.where(across, 0.0, np.maximum(least, 0.0)), np.maximum(low.upper, high.upper)
        )

    @_defers
    def __lt__(self, other: Like) -> Truth:
        o = Interval.of(other)
        nearby = Truth(self.upper < o.lower, self.lower <= o.upper)
        return Truth(nearby.surely, self.lower < o.upper, nearby)

    @_defers
    def __le__(self, other: Like) -> Truth:
        o = Interval.of(other)
        nearby = Truth(self.upper < o.lower, self.lower <= o.upper)
        return Truth(self.upper <= o.lower, nearby.possibly, nearby)

    @_defers
    def __gt__(self, other: Like) -> Truth:
        return Interval.of(other).__lt__(self)

    @_defers
    def __ge__(self, other: Like) -> Truth:
        return Interval.of(other).__le__(self)

    # Python's own == is by identity: False, where the intervals may hold equal numbers.
    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        raise InputError("== or != of an interval: write it with <, <=, maximum or abs")

    __hash__ = object.__hash__


def _powers(x: Array, exponent: int) -> Interval:
    """Enclose x**exponent of single numbers (inf stands for unbounded) by repeated products."""
    base, result = Interval._make(np.maximum(x, -_MAX), np.minimum(x, _MAX)), None
    base = Interval._make(np.where(x == -_INF, x, base.lower), np.where(x == _INF, x, base.upper))
    while exponent:
        if exponent & 1:
            result = base if result is None else result * base
        exponent >>= 1
        if exponent:
            base = base * base
    assert result is not None
    return result
