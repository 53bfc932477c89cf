"""Sigmoids and what is made of them: tanh, erf, softplus, ELU and their kin.

Tails: outside of the core each is monotone, and so is its slope (which decays like ``e^-|x|``,
``e^-x^2`` or a power of ``1/x`` towards its limit).
"""

import math

from tangency.models.activations.parameters import check_numbers
from tangency.models.activations.record import Activation, Limit
from tangency.models.activations.registry import register
from tangency.models.activations.tails import exact
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval

_INF = math.inf
_S: tuple[tuple[Limit, Limit], tuple[Limit, Limit]] = ((-1.0, 0.0), (1.0, 0.0))


@register
def sigmoid() -> Activation:
    """Build 1/(1 + e^-x)."""
    return Activation(
        "sigmoid",
        lambda nx, x: nx.sigmoid(x),
        formula="1/(1 + exp(-x))",
        limits=((0.0, 0.0), (1.0, 0.0)),
        core=(-30.0, 30.0),
    )


@register
def tanh() -> Activation:
    """Build tanh."""
    return Activation(
        "tanh",
        lambda nx, x: nx.tanh(x),
        formula="tanh(x)",
        limits=_S,
        core=(-15.0, 15.0),
        parity="odd",
    )


@register
def erf() -> Activation:
    """Build the error function."""
    return Activation(
        "erf",
        lambda nx, x: nx.erf(x),
        formula="erf(x)",
        limits=_S,
        core=(-20.0, 20.0),
        parity="odd",
    )


@register
def arctan() -> Activation:
    """Build arctan."""
    half: Interval = interval_namespace.pi * 0.5
    return Activation(
        "arctan",
        lambda nx, x: nx.arctan(x),
        formula="arctan(x)",
        limits=((-half, 0.0), (half, 0.0)),
        core=(-30.0, 30.0),
        parity="odd",
    )


@register
def softsign() -> Activation:
    """Build x/(1 + |x|)."""
    record = Activation(
        "softsign",
        lambda nx, x: x / (1.0 + nx.abs(x)),
        derivative=lambda nx, x: 1.0 / (1.0 + nx.abs(x)) ** 2,
        formula="x/(1 + |x|)",
        limits=_S,
        core=(-30.0, 30.0),
        parity="odd",
    )
    return exact(record)  # phi' = 1/(1 + |x|)^2; 1 + |x| overflows at the largest float


@register
def tanhshrink() -> Activation:
    """Build x - tanh(x)."""
    return Activation(
        "tanhshrink",
        lambda nx, x: x - nx.tanh(x),
        derivative=lambda nx, x: nx.tanh(x) ** 2,
        formula="x - tanh(x)",
        limits=((-_INF, 1.0), (_INF, 1.0)),
        core=(-15.0, 15.0),
        parity="odd",
    )


@register
def softplus(beta: float = 1.0) -> Activation:
    """Build log(1 + exp(beta x))/beta, beta > 0."""
    check_numbers("softplus", least=0.0, factor=True, beta=beta)
    return Activation(
        "softplus",
        lambda nx, x: nx.softplus(beta * x) / beta,
        params=(("beta", beta),),
        formula="log(1 + exp(beta x))/beta",
        limits=((0.0, 0.0), (_INF, 1.0)),
        core=(-30.0 / beta, 30.0 / beta),
        torch_note="torch returns x where beta x > threshold = 20; here the function is exact",
    )


@register
def logsigmoid() -> Activation:
    """Build log(sigmoid(x))."""
    return Activation(
        "logsigmoid",
        lambda nx, x: -nx.softplus(-x),
        formula="-log(1 + exp(-x))",
        limits=((-_INF, 1.0), (0.0, 0.0)),
        core=(-30.0, 30.0),
    )


@register
def tempered_sigmoid(s: float = 2.0, T: float = 2.0, o: float = 1.0) -> Activation:
    """Build s sigmoid(T x) - o, with s, T > 0."""
    check_numbers("tempered_sigmoid", least=0.0, factor=True, s=s, T=T)
    check_numbers("tempered_sigmoid", o=o)
    return Activation(
        "tempered_sigmoid",
        lambda nx, x: s * nx.sigmoid(T * x) - o,
        params=(("s", s), ("T", T), ("o", o)),
        formula="s/(1 + exp(-T x)) - o",
        source="arXiv 2007.14191",
        limits=((-o, 0.0), (Interval(s) - o, 0.0)),
        core=(-30.0 / T, 30.0 / T),
        parity="odd" if s == 2 * o else None,
    )


@register
def apa(lam: float = 1.0, kappa: float = 1.0) -> Activation:
    """Build (lam e^(-kappa x) + 1)^(-1/lam), with lam, kappa > 0."""
    check_numbers("apa", least=0.0, factor=True, lam=lam, kappa=kappa)
    return Activation(
        "apa",
        # In logarithms, so that neither end overflows.
        lambda nx, x: nx.exp(-nx.softplus(nx.log(lam) - kappa * x) / lam),
        params=(("lam", lam), ("kappa", kappa)),
        formula="(lam exp(-kappa x) + 1)^(-1/lam)",
        source="arXiv 2407.08567",
        limits=((0.0, 0.0), (1.0, 0.0)),
        core=(-30.0 / kappa, 30.0 / kappa),
    )


def _elu(
    name: str,
    scale: float,
    alpha: float,
    width: float,
    params: tuple[tuple[str, float], ...],
    formula: str,
    source: str,
) -> Activation:
    """``scale x`` on the right, ``scale alpha (e^(x/width) - 1)`` on the left."""
    return Activation(
        name,
        lambda nx, x: nx.where(
            x > 0.0, scale * x, scale * (alpha * nx.expm1(nx.minimum(x, 0.0) / width))
        ),
        params=params,
        # Not by jets: the slope of the clamp would blur the joint.
        derivative=lambda nx, x: nx.where(
            x > 0.0, scale, nx.constant(scale) * alpha / width * nx.exp(nx.minimum(x, 0.0) / width)
        ),
        formula=formula,
        source=source,
        kinks=(0.0,) if alpha != width else (),
        limits=((-(Interval(scale) * alpha) if scale != 1.0 else -alpha, 0.0), (_INF, scale)),
        core=(-30.0 * width, 30.0),
    )


@register
def elu(alpha: float = 1.0) -> Activation:
    """Build the exponential linear unit; alpha may be of any sign."""
    check_numbers("elu", alpha=alpha)
    formula = "x if x > 0 else alpha (exp(x) - 1)"
    return _elu("elu", 1.0, alpha, 1.0, (("alpha", alpha),), formula, "arXiv 1511.07289")


@register
def celu(alpha: float = 1.0) -> Activation:
    """Build the continuously differentiable ELU, alpha > 0."""
    check_numbers("celu", least=0.0, factor=True, alpha=alpha)
    formula = "x if x > 0 else alpha (exp(x/alpha) - 1)"
    return _elu("celu", 1.0, alpha, alpha, (("alpha", alpha),), formula, "arXiv 1704.07483")


@register
def selu() -> Activation:
    """Build the self-normalising ELU with the constants of its paper."""
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    formula = f"{scale:.6f} (x if x > 0 else {alpha:.6f} (exp(x) - 1))"
    return _elu("selu", scale, alpha, 1.0, (), formula, "arXiv 1706.02515")
