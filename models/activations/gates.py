"""Gated units ``x g(x)``: GELU, SiLU, Mish and their kin.

Tails: each gate tends to 0 and 1 at a rate ``e^-x`` or faster (``1/x`` for arctan), so that beyond
the core ``phi'`` and ``phi''`` keep the sign of their leading term.
"""

import math
from typing import Any

from tangency.models.activations.parameters import check_numbers
from tangency.models.activations.record import Activation, Limit
from tangency.models.activations.registry import register
from tangency.models.activations.tails import exact
from tangency.models.errors import InputError

_INF = math.inf
_GATED: tuple[tuple[Limit, Limit], tuple[Limit, Limit]] = ((0.0, 0.0), (_INF, 1.0))


def _cdf(nx: Any, x: Any) -> Any:
    """Gaussian distribution function; erfc keeps the relative precision of the left tail."""
    return 0.5 * nx.erfc(-x / nx.sqrt(2.0))


def _gelu_tanh(nx: Any, x: Any) -> Any:
    # (1 + tanh u)/2 = sigmoid(2u), without the cancellation on the left
    return x * nx.sigmoid(2.0 * nx.sqrt(2.0 / nx.pi) * (x * (1.0 + 0.044715 * x**2)))


def _gelu_tanh_slope(nx: Any, x: Any) -> Any:
    # x s'(x) by a clamped x: beyond 40 it is below e^-4000, and its factors overflow.
    t = nx.minimum(nx.maximum(x, -40.0), 40.0)
    rate = 2.0 * nx.sqrt(2.0 / nx.pi)
    u = rate * (t * (1.0 + 0.044715 * t**2))
    slope = rate * (t * (1.0 + nx.constant(3.0) * 0.044715 * t**2))
    gate = nx.sigmoid(rate * (x * (1.0 + 0.044715 * x**2)))
    return gate + slope * (nx.sigmoid(u) * nx.sigmoid(-u))


def _mish_slope(nx: Any, x: Any) -> Any:
    y = nx.tanh(nx.softplus(x))
    # tanh'(softplus) sigmoid: on the right 1 - y cancels, so by q = e^-x there.
    q = nx.exp(-nx.maximum(x, 16.5))
    far = 4.0 * (q**2 * (1.0 + q)) / (1.0 + 2.0 * (q + q**2)) ** 2
    near = (1.0 - y) * (1.0 + y) * nx.sigmoid(x)
    return y + x * nx.where(x > 16.5, far, near)


def _golu_slope(nx: Any, x: Any) -> Any:
    # exp(-exp(-x)) x exp(-x) as one exponential: exp(-x) overflows before the product is formed.
    t = nx.maximum(x, -80.0)
    return nx.exp(-nx.exp(-t)) + t * nx.exp(-t - nx.exp(-t))


@register
def gelu() -> Activation:
    """Build x Phi(x), the exact (erf) form."""
    return Activation(
        "gelu",
        lambda nx, x: x * _cdf(nx, x),
        formula="x Phi(x), Phi the Gaussian distribution function",
        source="arXiv 1606.08415",
        limits=_GATED,
        core=(-30.0, 30.0),
    )


@register
def gelu_tanh() -> Activation:
    """Build the tanh approximation of GELU."""
    return Activation(
        "gelu_tanh",
        _gelu_tanh,
        derivative=_gelu_tanh_slope,
        formula="x/2 (1 + tanh(sqrt(2/pi)(x + 0.044715 x^3)))",
        source="arXiv 1606.08415",
        limits=_GATED,
        core=(-14.0, 14.0),  # beyond, e^-(cubic) leaves the floats
    )


def _swish(
    name: str, beta: float, params: tuple[tuple[str, float], ...], source: str
) -> Activation:
    return Activation(
        name,
        lambda nx, x: x * nx.sigmoid(beta * x),
        params=params,
        formula="x sigmoid(x)" if beta == 1.0 else f"x sigmoid({beta:g} x)",
        source=source,
        limits=_GATED,
        core=(-30.0 / beta, 30.0 / beta),
    )


@register
def quick_gelu() -> Activation:
    """Build x sigmoid(1.702 x)."""
    return _swish("quick_gelu", 1.702, (), "arXiv 1606.08415")


@register
def silu() -> Activation:
    """Build x sigmoid(x)."""
    return _swish("silu", 1.0, (), "arXiv 1702.03118, 1710.05941")


@register
def swish(beta: float = 1.0) -> Activation:
    """Build x sigmoid(beta x), beta > 0."""
    check_numbers("swish", least=0.0, factor=True, beta=beta)
    return _swish("swish", beta, (("beta", beta),), "arXiv 1710.05941")


@register
def mish() -> Activation:
    """Build x tanh(softplus(x))."""
    return Activation(
        "mish",
        lambda nx, x: x * nx.tanh(nx.softplus(x)),
        derivative=_mish_slope,
        formula="x tanh(softplus(x))",
        source="arXiv 1908.08681",
        limits=_GATED,
        core=(-30.0, 16.0),  # on the right phi'' ~ 16 (2 x - 1) e^(-2x) sinks below rounding
    )


@register
def golu() -> Activation:
    """Build x exp(-exp(-x))."""
    return Activation(
        "golu",
        # The clamp changes nothing (the factor is 0 in every float long before) but spares
        # float32 an inf - inf in the gradient.
        lambda nx, x: x * nx.exp(-nx.exp(-nx.maximum(x, -80.0))),
        derivative=_golu_slope,
        formula="x exp(-exp(-x))",
        source="arXiv 2502.03654",
        limits=_GATED,
        core=(-6.0, 30.0),
    )


def _expanded(name: str, alpha: float, gate: Any, gate_text: str, far: float) -> Activation:
    """Gate ``g`` with ``x g(x)`` negligible beside every float below ``-far``."""
    check_numbers(name, least=-0.5, most=1e100, alpha=alpha)
    # For alpha < 0 it turns on the left, where (1 + 2 alpha)(x g)' = alpha.
    core = far if -1e-9 < alpha < 0.0 else 30.0
    low = (_INF * alpha if alpha else 0.0, -alpha)
    return Activation(
        name,
        lambda nx, x: x * (gate(nx, x) * (nx.constant(1.0) + 2.0 * alpha) - alpha),
        params=(("alpha", alpha),),
        formula=f"x ({gate_text} (1 + 2 alpha) - alpha)",
        source="arXiv 2405.20768",
        limits=(low, (_INF, _sum(1.0, alpha))),
        core=(-core, core),
    )


def _sum(a: float, b: float) -> Limit:
    from tangency.models.intervals import Interval

    return Interval(a) + b


@register
def xgelu(alpha: float = 0.0) -> Activation:
    """Build GELU with the gate expanded to (-alpha, 1 + alpha)."""
    return _expanded("xgelu", alpha, _cdf, "Phi(x)", 40.0)


@register
def xsilu(alpha: float = 0.0) -> Activation:
    """Build SiLU with the gate expanded to (-alpha, 1 + alpha)."""
    return _expanded("xsilu", alpha, lambda nx, x: nx.sigmoid(x), "sigmoid(x)", 800.0)


def _atan_gate(nx: Any, x: Any) -> Any:
    # On the left (atan x + pi/2) = atan(-1/x) without cancellation.
    left = nx.arctan(1.0 / nx.maximum(-x, 0.5)) / nx.pi
    return nx.where(x < -1.0, left, nx.arctan(nx.maximum(x, -1.5)) / nx.pi + 0.5)


def _atlu(name: str, alpha: float, params: tuple[tuple[str, float], ...]) -> Activation:
    check_numbers(name, least=-0.5, most=1e100, alpha=alpha)
    if 0.0 < alpha < 1e-12:
        raise InputError(f"{name} has alpha = {alpha!r}; it accepts 0, or numbers from 1e-12")
    from tangency.models.interval_functions import interval_namespace
    from tangency.models.intervals import Interval

    tail: Limit = -(1.0 / Interval.of(interval_namespace.pi))

    def derivative(nx: Any, x: Any) -> Any:
        plain = _atan_gate(nx, x) + x / (nx.pi * (1.0 + x**2))
        return plain * (nx.constant(1.0) + 2.0 * alpha) - alpha

    # phi'' = (1 + 2 alpha) 2 / (pi (1 + x^2)^2) >= 0, so that the slope rises from -alpha to
    # 1 + alpha. For alpha > 0 it is zero once, and before alpha = (1 + 2 alpha) 2/(3 pi |x|^3).
    turn = (0.25 + 0.5 * alpha) ** (1 / 3) * alpha ** (-1 / 3) if alpha > 0.0 else 0.0
    reach = max(30.0, 1.01 * turn)
    record = Activation(
        name,
        lambda nx, x: x * (_atan_gate(nx, x) * (nx.constant(1.0) + 2.0 * alpha) - alpha),
        params=params,
        derivative=derivative,
        formula="x (atan(x) + pi/2)/pi" + (" (1 + 2 alpha) - alpha x" if params else ""),
        source="arXiv 2405.20768",
        limits=((_INF * alpha if alpha else tail, -alpha), (_INF, _sum(1.0, alpha))),
        core=(-reach, reach),
    )
    return exact(record)


@register
def atlu() -> Activation:
    """Build x (atan(x) + pi/2)/pi."""
    return _atlu("atlu", 0.0, ())


@register
def xatlu(alpha: float = 0.0) -> Activation:
    """Build ATLU with the gate expanded to (-alpha, 1 + alpha)."""
    return _atlu("xatlu", alpha, (("alpha", alpha),))
