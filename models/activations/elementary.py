"""Elementary functions, as torch, JAX and ONNX models use them; powers and steps."""

import math

from tangency.models.activations.parameters import check_numbers
from tangency.models.activations.record import Activation, Limit
from tangency.models.activations.registry import register
from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval

_INF = math.inf
_PI: Interval = interval_namespace.pi
_HALF: Interval = _PI * 0.5
_Ends = tuple[tuple[Limit, Limit], tuple[Limit, Limit]]


def _plain(name: str, low: tuple[Limit, Limit], high: tuple[Limit, Limit], **rest: object) -> None:
    """Register a function of the namespace under its own name."""
    own = {"asinh": "arcsinh", "atanh": "arctanh"}.get(name, name)

    def factory() -> Activation:
        return Activation(
            name,
            lambda nx, x: getattr(nx, own)(x),
            formula=f"{name}(x)",
            limits=(low, high),
            core=(-30.0, 30.0),
            **rest,  # type: ignore[arg-type]
        )

    factory.__name__ = name
    register(factory)


_plain("exp", (0.0, 0.0), (_INF, _INF))
_plain("expm1", (-1.0, 0.0), (_INF, _INF))
_plain("log", (-_INF, _INF), (_INF, 0.0), domain=(0.0, _INF))
_plain("log1p", (-_INF, _INF), (_INF, 0.0), domain=(-1.0, _INF))
_plain("sqrt", (0.0, _INF), (_INF, 0.0), domain=(0.0, _INF))
_plain("sinh", (-_INF, _INF), (_INF, _INF), parity="odd")
_plain("cosh", (_INF, -_INF), (_INF, _INF), parity="even")
_plain("asinh", (-_INF, 0.0), (_INF, 0.0), parity="odd")
_plain("arcsin", (-_HALF, _INF), (_HALF, _INF), domain=(-1.0, 1.0), parity="odd")
_plain("arccos", (_PI, -_INF), (0.0, -_INF), domain=(-1.0, 1.0))
_plain("atanh", (-_INF, _INF), (_INF, _INF), domain=(-1.0, 1.0), parity="odd")


@register
def identity() -> Activation:
    """Build x."""
    return Activation(
        "identity",
        lambda nx, x: x + 0.0,
        formula="x",
        limits=((-_INF, 1.0), (_INF, 1.0)),
        core=(-30.0, 30.0),
        parity="odd",
        homogeneous=1,
    )


@register
def rsqrt() -> Activation:
    """Build 1/sqrt(x)."""
    return Activation(
        "rsqrt",
        lambda nx, x: 1.0 / nx.sqrt(x),
        derivative=lambda nx, x: -0.5 / (x * nx.sqrt(x)),
        formula="1/sqrt(x)",
        limits=((_INF, -_INF), (0.0, 0.0)),
        core=(-30.0, 30.0),
        domain=(0.0, _INF),
    )


def _power(name: str, n: int, params: tuple[tuple[str, float], ...] = ()) -> Activation:
    even = n % 2 == 0
    limits: _Ends
    if n == 0:
        limits = ((1.0, 0.0), (1.0, 0.0))
    elif n < 0:
        limits = ((0.0, 0.0), (0.0, 0.0))
    else:
        slope = 1.0 if n == 1 else _INF
        limits = ((_INF if even else -_INF, -slope if even else slope), (_INF, slope))
    return Activation(
        name,
        lambda nx, x: 1.0 / x if n == -1 else x**n if n else 0.0 * x + 1.0,
        params=params,
        formula="1/x" if n == -1 else f"x^{n}",
        limits=limits,
        core=(-30.0, 30.0),
        poles=(0.0,) if n < 0 else (),
        parity="even" if even else "odd",
        homogeneous=n,
    )


@register
def reciprocal() -> Activation:
    """Build 1/x."""
    return _power("reciprocal", -1)


@register
def square() -> Activation:
    """Build x^2."""
    return _power("square", 2)


@register
def cube() -> Activation:
    """Build x^3."""
    return _power("cube", 3)


@register
def power(n: float = 2.0) -> Activation:
    """Build x^n for an integer n of either sign."""
    check_numbers("power", least=-1000.0, most=1000.0, n=n)
    if n != int(n):
        raise InputError(f"power(n) needs an integer n, not {n}")
    return _power("power", int(n), (("n", float(n)),))


@register
def hermite3() -> Activation:
    """Build x^3 - 3x, the third Hermite polynomial."""
    return Activation(
        "hermite3",
        lambda nx, x: x * (x**2 - 3.0),
        derivative=lambda nx, x: 3.0 * x**2 - 3.0,
        formula="x^3 - 3x",
        limits=((-_INF, _INF), (_INF, _INF)),
        core=(-30.0, 30.0),
        parity="odd",
    )


@register
def sign() -> Activation:
    """Build sign(x), 0 at 0."""
    return Activation(
        "sign",
        lambda nx, x: nx.sign(x),
        formula="sign(x)",
        jumps=(0.0,),
        limits=((-1.0, 0.0), (1.0, 0.0)),
        core=(-30.0, 30.0),
        staircase=True,
        parity="odd",
        homogeneous=0,
    )


@register
def heaviside() -> Activation:
    """Build 1[x > 0]."""
    return Activation(
        "heaviside",
        lambda nx, x: nx.where(x > 0.0, 1.0, 0.0 * nx.sign(x)),
        formula="1 if x > 0 else 0",
        jumps=(0.0,),
        limits=((0.0, 0.0), (1.0, 0.0)),
        core=(-30.0, 30.0),
        staircase=True,
        homogeneous=0,
    )


def _rounding(name: str, own: str, formula: str, parity: str | None = None) -> None:
    def factory() -> Activation:
        return Activation(
            name,
            lambda nx, x: getattr(nx, own)(x),
            formula=formula,
            limits=((-_INF, Interval(0.0, _INF)), (_INF, Interval(0.0, _INF))),
            core=(-30.0, 30.0),
            staircase=True,
            parity=parity,  # type: ignore[arg-type]
        )

    factory.__name__ = name
    register(factory)


_rounding("floor", "floor", "largest integer <= x")
_rounding("ceil", "ceil", "smallest integer >= x")
_rounding("round", "rint", "nearest integer, ties to even", "odd")
