"""Elementary functions of intervals: the namespace in which a formula gives an enclosure.

Assumption on elementary functions: NumPy's float64 ``exp``, ``log``, ``sin``, ``tanh`` ... are
within 4 ulp of the true value (the bound that NumPy states for its SIMD loops; the C library is
better), and ``math.erf``, ``math.erfc`` within 5 ulp (4 are seen of glibc). Results are padded by
8 ulp, an ulp taken as 2^-52 of the value, which is no less than the spacing of floats there.

Two functions are composed of others, and their pad is twice as large. With e = 2^-52 and errors
relative to the value, ``t = exp(-|x|)`` has 4 e:

- softplus, ``max(x, 0) + log1p(t)``: ``t / ((1 + t) log1p(t)) <= 1``, so log1p passes on 4 e and
  adds its own 4 e; the sum adds e/2 at most. Together 8.5 e, for a pad of 16 e.
- sigmoid, ``t / (1 + t)`` and ``1 / (1 + t)``: an error of t enters by ``1 / (1 + t) <= 1`` and
  ``t / (1 + t) <= 1/2`` of itself; sum and quotient add e/2 each. Together 5 e, for 16 e.

Where a value is subnormal the same counts hold in units of 2^-1074. Products of such errors are
below 2^-90 and lie within the float by which every end is moved besides.
The tests compare every function with ball arithmetic (python-flint), and the composed ones with
elementary functions that err by twice what is assumed.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tangency.models.intervals import Array, Interval, Like, Truth, _down, _up, plain_condition

__all__ = ["interval_namespace", "nearby_namespace"]

_INF = np.inf
_TINY = 5e-324
_MAX = float(np.finfo(np.float64).max)
#: Pads in ulp: twice what an elementary function errs by, and for one composed of two of them.
_ONE, _TWO = 8, 16


def _pad(y: Any, ulps: int = _ONE) -> tuple[Array, Array]:
    """Move computed function values some ulp (and one float) outwards."""
    with np.errstate(all="ignore"):
        # What overflowed may lie as far below the largest float as the function errs.
        inner = np.clip(y, -_MAX, _MAX)
        pad = np.abs(inner) * (ulps * 2.0**-52) + ulps * _TINY
        low = _down(np.where(y == -_INF, y, inner - pad))
        return low, _up(np.where(y == _INF, y, inner + pad))


Function = Callable[[Any], Any]


def _monotone(
    function: Function,
    *,
    floor: float = -_INF,
    ceiling: float = _INF,
    domain: tuple[float, float] = (-_INF, _INF),
    fixed_zero: bool = False,
    decreasing: bool = False,
    ulps: int = _ONE,
) -> Callable[[Like], Interval]:
    """Lift a monotone function: end points, padded, then clipped to the known range."""

    def lifted(x: Like) -> Interval:
        X = Interval.of(x)
        a, b = (X.upper, X.lower) if decreasing else (X.lower, X.upper)
        with np.errstate(all="ignore"):
            low, top = _pad(function(np.clip(a, *domain)), ulps)
            high = top if a is b else _pad(function(np.clip(b, *domain)), ulps)[1]
        if fixed_zero:  # f(0) = 0 exactly, and the sign of f is that of x
            low = np.where(a >= 0, np.maximum(low, 0.0), low)
            high = np.where(b <= 0, np.minimum(high, 0.0), high)
        low, high = np.clip(low, floor, ceiling), np.clip(high, floor, ceiling)
        outside = (X.upper < domain[0]) | (X.lower > domain[1])  # no real value at all
        return Interval._make(np.where(outside, np.nan, low), np.where(outside, np.nan, high))

    return lifted


def _exact(function: Function) -> Callable[[Like], Interval]:
    """Lift a monotone function whose floating-point value is exact (floor, sign ...)."""
    return lambda x: Interval._make(function(Interval.of(x).lower), function(Interval.of(x).upper))


def _elementwise(function: Callable[[float], float]) -> Function:
    lifted = np.frompyfunc(function, 1, 1)
    return lambda x: np.asarray(lifted(x), dtype=np.float64)


def _sigmoid(x: Any) -> Any:
    tail = np.exp(-np.abs(x))
    return np.where(x < 0, tail, 1.0) / (1.0 + tail)


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


_PI = Interval(math.pi, float(np.nextafter(math.pi, 4.0)))  # float pi is below pi
_FAR = 2.0**30  # beyond it a quadrant is not worth counting


def _meets(X: Interval, offset: float) -> npt.NDArray[np.bool_]:
    """Whether X may hold a point (2 k + offset) pi, k an integer."""
    turns = (X / _PI - offset) * 0.5
    return np.floor(turns.upper) >= np.ceil(turns.lower)


def _wave(function: Function, crest: float, trough: float) -> Callable[[Like], Interval]:
    """Lift sin or cos: end points, and +-1 where a crest or a trough may lie inside."""

    def lifted(x: Like) -> Interval:
        X = Interval.of(x)
        far = X.magnitude > _FAR
        X = Interval._make(np.where(far, 0.0, X.lower), np.where(far, 0.0, X.upper))
        (l0, l1), (u0, u1) = _pad(function(X.lower)), _pad(function(X.upper))
        low = np.where(far | _meets(X, trough), -1.0, np.maximum(np.minimum(l0, u0), -1.0))
        high = np.where(far | _meets(X, crest), 1.0, np.minimum(np.maximum(l1, u1), 1.0))
        return Interval._make(low, high)

    return lifted


def _tan(x: Like) -> Interval:
    X = Interval.of(x)
    far = X.magnitude > _FAR
    X = Interval._make(np.where(far, 0.0, X.lower), np.where(far, 0.0, X.upper))
    pole = far | _meets(X, 0.5) | _meets(X, -0.5)
    low, high = _pad(np.tan(X.lower))[0], _pad(np.tan(X.upper))[1]
    return Interval._make(np.where(pole, -_INF, low), np.where(pole, _INF, high))


def _sqrt(x: Like) -> Interval:
    X = Interval.of(x)
    with np.errstate(all="ignore"):
        low = np.maximum(_down(np.sqrt(np.maximum(X.lower, 0.0))), 0.0)
        high = np.where(X.upper == 0, 0.0, _up(np.sqrt(X.upper)))  # NaN where no real value
    return Interval._make(low, high)


def _abs(x: Like) -> Interval:
    return abs(Interval.of(x))


def _cosh(x: Like) -> Interval:
    X = _abs(x)
    with np.errstate(all="ignore"):
        low, high = _pad(np.cosh(X.lower))[0], _pad(np.cosh(X.upper))[1]
    return Interval._make(np.maximum(low, 1.0), high)


class _IntervalNamespace:
    """Intervals in the vocabulary of :mod:`tangency.models.namespace`."""

    pi = _PI
    exp = staticmethod(_monotone(np.exp, floor=0.0))
    expm1 = staticmethod(_monotone(np.expm1, floor=-1.0, fixed_zero=True))
    log = staticmethod(_monotone(np.log, domain=(0.0, _INF)))
    log1p = staticmethod(_monotone(np.log1p, domain=(-1.0, _INF), fixed_zero=True))
    sqrt = staticmethod(_sqrt)
    sin = staticmethod(_wave(np.sin, 0.5, -0.5))
    cos = staticmethod(_wave(np.cos, 0.0, 1.0))
    tan = staticmethod(_tan)
    arcsin = staticmethod(_monotone(np.arcsin, domain=(-1.0, 1.0), fixed_zero=True))
    arccos = staticmethod(_monotone(np.arccos, domain=(-1.0, 1.0), floor=0.0, decreasing=True))
    arctan = staticmethod(_monotone(np.arctan, fixed_zero=True))
    sinh = staticmethod(_monotone(np.sinh, fixed_zero=True))
    cosh = staticmethod(_cosh)
    tanh = staticmethod(_monotone(np.tanh, floor=-1.0, ceiling=1.0, fixed_zero=True))
    arcsinh = staticmethod(_monotone(np.arcsinh, fixed_zero=True))
    arctanh = staticmethod(_monotone(np.arctanh, domain=(-1.0, 1.0), fixed_zero=True))
    erf = staticmethod(_monotone(_elementwise(math.erf), floor=-1.0, ceiling=1.0, fixed_zero=True))
    erfc = staticmethod(_monotone(_elementwise(math.erfc), floor=0.0, ceiling=2.0, decreasing=True))
    sigmoid = staticmethod(_monotone(_sigmoid, floor=0.0, ceiling=1.0, ulps=_TWO))
    softplus = staticmethod(_monotone(_softplus, floor=0.0, ulps=_TWO))
    abs = staticmethod(_abs)
    sign = staticmethod(_exact(np.sign))
    floor = staticmethod(_exact(np.floor))
    ceil = staticmethod(_exact(np.ceil))
    rint = staticmethod(_exact(np.rint))

    constant = staticmethod(Interval)

    @staticmethod
    def where(condition: Any, a: Like, b: Like) -> Interval:
        """Take ``a``, ``b``, or their hull where the condition is undecided."""
        A, B = Interval.of(a), Interval.of(b)
        if not isinstance(condition, Truth):
            condition = Truth(*(plain_condition(condition),) * 2)
        s, p = condition.surely, condition.possibly
        low = np.where(s, A.lower, np.where(p, np.minimum(A.lower, B.lower), B.lower))
        high = np.where(s, A.upper, np.where(p, np.maximum(A.upper, B.upper), B.upper))
        return Interval._make(low, high)

    @staticmethod
    def maximum(a: Like, b: Like) -> Interval:
        """Largest of the two, end point by end point (exact)."""
        A, B = Interval.of(a), Interval.of(b)
        return Interval._make(np.maximum(A.lower, B.lower), np.maximum(A.upper, B.upper))

    @staticmethod
    def minimum(a: Like, b: Like) -> Interval:
        """Smallest of the two, end point by end point (exact)."""
        A, B = Interval.of(a), Interval.of(b)
        return Interval._make(np.minimum(A.lower, B.lower), np.minimum(A.upper, B.upper))


def _closed(before: Function, after: Function) -> Callable[[Like], Interval]:
    """Lift a step function so that, at a step, the values on both of its sides count."""

    def lifted(x: Like) -> Interval:
        X = Interval.of(x)
        return Interval._make(before(X.lower), after(X.upper))

    return lifted


class _NearbyNamespace(_IntervalNamespace):
    """Intervals that also hold the limits from outside of the operands.

    ``f(X)`` then encloses the values of ``f`` in some neighbourhood of ``X`` up to what is
    continuous there: a choice is taken only if it is the same in a neighbourhood, and a step counts
    from both sides also where it lies at an end of ``X``.
    """

    sign = staticmethod(
        _closed(lambda x: np.where(x > 0, 1.0, -1.0), lambda x: np.where(x < 0, -1.0, 1.0))
    )
    floor = staticmethod(_closed(lambda x: (Interval(np.ceil(x)) - 1.0).lower, np.floor))
    ceil = staticmethod(_closed(np.ceil, lambda x: (Interval(np.floor(x)) + 1.0).upper))
    # nextafter: on a half itself the two sides differ, whichever is even
    rint = staticmethod(_closed(lambda x: np.rint(_down(x)), lambda x: np.rint(_up(x))))

    @staticmethod
    def where(condition: Any, a: Like, b: Like) -> Interval:
        """Take the branch of a whole neighbourhood, or the hull of both."""
        return _IntervalNamespace.where(getattr(condition, "nearby", condition), a, b)


interval_namespace: Any = _IntervalNamespace()
"""The namespace of intervals."""

nearby_namespace: Any = _NearbyNamespace()
"""The namespace of intervals with the limits from outside, for derivatives."""
