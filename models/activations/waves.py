"""Periodic activations and their kin, and bumps."""

import math
from typing import Any

from tangency.models.activations.parameters import check_numbers
from tangency.models.activations.record import Activation, Limit
from tangency.models.activations.registry import register
from tangency.models.intervals import Interval

_INF = math.inf


def _swing(low: float, high: float) -> Interval:
    return Interval(low, high)


def _wave(limit_slope: float) -> tuple[tuple[Limit, Limit], tuple[Limit, Limit]]:
    end = (_swing(-1.0, 1.0), _swing(-limit_slope, limit_slope))
    return (end, end)


@register
def sin() -> Activation:
    """Build sin."""
    return Activation(
        "sin",
        lambda nx, x: nx.sin(x),
        formula="sin(x)",
        limits=_wave(1.0),
        core=(-30.0, 30.0),
        oscillates=True,
        period=2 * math.pi,
        single_use=("value", "slope"),
        parity="odd",
    )


@register
def cos() -> Activation:
    """Build cos."""
    return Activation(
        "cos",
        lambda nx, x: nx.cos(x),
        formula="cos(x)",
        limits=_wave(1.0),
        core=(-30.0, 30.0),
        oscillates=True,
        period=2 * math.pi,
        single_use=("value", "slope"),
        parity="even",
    )


@register
def sine(omega: float = 30.0) -> Activation:
    """Build sin(omega x), the activation of SIREN, omega != 0."""
    check_numbers("sine", factor=True, omega=omega)
    return Activation(
        "sine",
        lambda nx, x: nx.sin(omega * x),
        params=(("omega", omega),),
        formula="sin(omega x)",
        source="arXiv 2006.09661",
        limits=_wave(math.fabs(omega)),
        core=(-30.0, 30.0),
        oscillates=True,
        period=2 * math.pi / math.fabs(omega),
        single_use=("value", "slope"),
        parity="odd",
    )


@register
def snake(a: float = 1.0) -> Activation:
    """Build x + sin(a x)^2 / a, a != 0."""
    check_numbers("snake", factor=True, a=a)
    ends = (Interval(-_INF, _INF), _swing(0.0, 2.0))
    return Activation(
        "snake",
        lambda nx, x: x + nx.sin(a * x) ** 2 / a,
        params=(("a", a),),
        derivative=lambda nx, x: 1.0 + nx.sin(2.0 * a * x),
        formula="x + sin(a x)^2 / a",
        source="arXiv 2006.08195",
        limits=(ends, ends),
        core=(-30.0, 30.0),
        oscillates=True,
        single_use=("slope",),
    )


@register
def gcu() -> Activation:
    """Build the growing cosine unit x cos(x)."""
    whole = Interval(-_INF, _INF)
    return Activation(
        "gcu",
        lambda nx, x: x * nx.cos(x),
        formula="x cos(x)",
        source="arXiv 2108.12943",
        limits=((whole, whole), (whole, whole)),
        core=(-30.0, 30.0),
        oscillates=True,
        parity="odd",
    )


@register
def tan() -> Activation:
    """Build tan; boxes must not meet a pole."""
    whole = Interval(-_INF, _INF)
    return Activation(
        "tan",
        lambda nx, x: nx.tan(x),
        derivative=lambda nx, x: 1.0 + nx.tan(x) ** 2,  # a jet would count the jumps at the poles
        formula="tan(x), x not an odd multiple of pi/2",
        limits=((whole, Interval(1.0, _INF)), (whole, Interval(1.0, _INF))),
        core=(-30.0, 30.0),
        oscillates=True,
        period=math.pi,
        single_use=("value", "slope"),
        parity="odd",
    )


@register
def gaussian() -> Activation:
    """Build exp(-x^2/2)."""
    return Activation(
        "gaussian",
        lambda nx, x: nx.exp(-(x**2) / 2.0),
        derivative=lambda nx, x: -x * nx.exp(-(x**2) / 2.0),
        formula="exp(-x^2/2)",
        limits=((0.0, 0.0), (0.0, 0.0)),
        core=(-30.0, 30.0),
        parity="even",
    )


@register
def elephant(a: float = 1.0, d: float = 4.0) -> Activation:
    """Build 1/(1 + |x/a|^d), a > 0 and 1 <= d <= 100."""
    check_numbers("elephant", least=0.0, factor=True, a=a)
    check_numbers("elephant", least=1.0, most=100.0, d=d)

    def power(nx: Any, u: Any, exponent: float) -> Any:
        if exponent.is_integer():
            return u ** int(exponent)
        return nx.exp(exponent * nx.log(u))

    def value(nx: Any, x: Any) -> Any:
        u = nx.abs(x / a)
        if not d.is_integer():
            u = nx.maximum(u, 1e-30)  # u^d <= 1e-30 is lost beside 1, and log(0) is avoided
        return 1.0 / (1.0 + power(nx, u, d))

    def derivative(nx: Any, x: Any) -> Any:
        u = nx.abs(x / a)
        t = nx.minimum(u, 32.0)
        lower = power(nx, t, d - 1.0) if d != 1.0 else 1.0
        near = lower / (1.0 + power(nx, t, d)) ** 2
        v = 1.0 / nx.maximum(u, 32.0)  # far out the powers of u overflow
        far = power(nx, v, d + 1.0) / (1.0 + power(nx, v, d)) ** 2
        return -(nx.constant(d) / a) * nx.sign(x) * nx.where(u > 32.0, far, near)

    return Activation(
        "elephant",
        value,
        params=(("a", a), ("d", d)),
        derivative=derivative,
        formula="1/(1 + |x/a|^d)",
        source="arXiv 2310.01365",
        kinks=(0.0,) if d <= 1.0 else (),
        limits=((0.0, 0.0), (0.0, 0.0)),
        # the only inflections are at |x/a|^d = (d-1)/(d+1) < 1
        core=(-30.0 * a, 30.0 * a),
        parity="even",
    )
