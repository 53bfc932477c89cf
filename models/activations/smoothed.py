"""Smoothed and perturbed forms of the ReLU."""

import math
from typing import Any

from tangency.models.activations.parameters import check_numbers
from tangency.models.activations.record import Activation
from tangency.models.activations.registry import register

_INF = math.inf


@register
def smelu(beta: float = 1.0) -> Activation:
    """Build the smooth ReLU with a quadratic joint on [-beta, beta], beta > 0."""
    check_numbers("smelu", least=0.0, factor=True, beta=beta)
    return Activation(
        "smelu",
        lambda nx, x: nx.where(
            x <= -beta, 0.0, nx.where(x >= beta, x, (x + beta) ** 2 / (4.0 * beta))
        ),
        params=(("beta", beta),),
        formula="0 | (x + beta)^2 / (4 beta) | x",
        source="arXiv 2202.06499",
        limits=((0.0, 0.0), (_INF, 1.0)),
        core=(-30.0 - 2 * beta, 30.0 + 2 * beta),
    )


@register
def sau(alpha: float = 0.25, sigma: float = 1.0) -> Activation:
    """Build the leaky ReLU convolved with a Gaussian of deviation sigma > 0."""
    check_numbers("sau", least=-1e100, most=1e100, alpha=alpha)
    check_numbers("sau", least=0.0, factor=True, sigma=sigma)

    def value(nx: Any, x: Any) -> Any:
        z = x / sigma
        cdf = 0.5 * nx.erfc(-z / nx.sqrt(2.0))
        bell = nx.exp(-(z**2) / 2.0) / nx.sqrt(2.0 * nx.pi)
        return alpha * x + (nx.constant(1.0) - alpha) * sigma * (z * cdf + bell)

    def derivative(nx: Any, x: Any) -> Any:
        cdf = 0.5 * nx.erfc(-(x / sigma) / nx.sqrt(2.0))
        return alpha + (nx.constant(1.0) - alpha) * cdf

    return Activation(
        "sau",
        value,
        params=(("alpha", alpha), ("sigma", sigma)),
        # Terms of the product rule cancel; what remains is monotone with bare eyes.
        derivative=derivative,
        formula="alpha x + (1 - alpha)(x Phi(x/sigma) + sigma phi(x/sigma))",
        source="arXiv 2109.13210",
        limits=((-_INF * alpha if alpha else 0.0, alpha), (_INF, 1.0)),
        # For alpha < 0 it turns where the distribution function is -alpha/(1 - alpha) >= 5e-324.
        core=(-40.0 * sigma, 40.0 * sigma),
    )


@register
def crrelu(epsilon: float = 0.01) -> Activation:
    """Build max(0, x) + epsilon x exp(-x^2/2)."""
    # Beyond 30 the slope of the second term has to stay below 1.
    check_numbers("crrelu", least=-1e100, most=1e100, epsilon=epsilon)
    return Activation(
        "crrelu",
        lambda nx, x: nx.maximum(x, 0.0) + epsilon * (x * nx.exp(-(x**2) / 2.0)),
        params=(("epsilon", epsilon),),
        # phi'' = epsilon x (x^2 - 3) e^(-x^2/2) beyond 0: a single sign where |x| > sqrt(3).
        # (1 - x^2) e^(-x^2/2), with x^2 under the exponential before it overflows
        derivative=lambda nx, x: (
            nx.where(x > 0.0, 1.0, 0.0)
            + epsilon * (nx.exp(-(x**2) / 2.0) - (x * nx.exp(-(x**2) / 4.0)) ** 2)
        ),
        formula="max(0, x) + epsilon x exp(-x^2/2)",
        source="arXiv 2405.12954",
        kinks=(0.0,),
        limits=((0.0, 0.0), (_INF, 1.0)),
        core=(-30.0, 30.0),
    )


@register
def stablemax() -> Activation:
    """Build s(x) of StableMax: x + 1, and 1/(1 - x) for negative x."""
    return Activation(
        "stablemax",
        lambda nx, x: nx.where(x >= 0.0, x + 1.0, 1.0 / (1.0 - nx.minimum(x, 0.0))),
        derivative=lambda nx, x: nx.where(x >= 0.0, 1.0, 1.0 / (1.0 - nx.minimum(x, 0.0)) ** 2),
        formula="x + 1 if x >= 0 else 1/(1 - x)",
        source="arXiv 2501.04697",
        limits=((0.0, 0.0), (_INF, 1.0)),
        core=(-30.0, 30.0),
    )
