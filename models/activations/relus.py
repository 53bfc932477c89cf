"""ReLU and its kin: piecewise linear or polynomial."""

import math
from typing import Any

from tangency.models.activations.record import Activation
from tangency.models.activations.registry import register
from tangency.models.errors import InputError

_INF = math.inf


def _ray(slope: float, end: float) -> tuple[float, float]:
    """Limits (value, slope) of a function that behaves like ``slope * x`` at ``end``."""
    return (slope * end if slope else 0.0, slope)


@register
def relu() -> Activation:
    """Build max(0, x)."""
    return Activation(
        "relu",
        lambda nx, x: nx.maximum(x, 0.0),
        formula="max(0, x)",
        source="Nair & Hinton 2010",
        kinks=(0.0,),
        limits=((0.0, 0.0), (_INF, 1.0)),
        homogeneous=1,
    )


def _leaky(name: str, key: str, slope: float, source: str) -> Activation:
    return Activation(
        name,
        lambda nx, x: nx.where(x > 0.0, x, slope * x),
        params=((key, slope),),
        formula=f"x if x > 0 else {key} x",
        source=source,
        kinks=(0.0,) if slope != 1.0 else (),
        limits=(_ray(slope, -_INF), (_INF, 1.0)),
        homogeneous=1,
    )


@register
def leaky_relu(negative_slope: float = 0.01) -> Activation:
    """Build the leaky ReLU."""
    return _leaky("leaky_relu", "negative_slope", negative_slope, "Maas et al. 2013")


@register
def prelu(slope: float = 0.25) -> Activation:
    """Build the parametric ReLU with one shared slope."""
    return _leaky("prelu", "slope", slope, "arXiv 1502.01852")


@register
def abs() -> Activation:
    """Build |x|."""
    return Activation(
        "abs",
        lambda nx, x: nx.abs(x),
        formula="|x|",
        kinks=(0.0,),
        limits=((_INF, -1.0), (_INF, 1.0)),
        parity="even",
        homogeneous=1,
    )


def _clip(
    name: str, low: float, high: float, params: tuple[tuple[str, float], ...] = ()
) -> Activation:
    if not low < high:
        raise InputError(f"{name} needs min < max, not {low} and {high}")
    return Activation(
        name,
        lambda nx, x: nx.minimum(nx.maximum(x, low), high),
        params=params,
        formula=f"min(max(x, {low:g}), {high:g})",
        kinks=tuple(k for k in (low, high) if math.isfinite(k)),
        limits=((low, float(low == -_INF)), (high, float(high == _INF))),
        core=(min(-30.0, 2 * max(low, -1e300)), max(30.0, 2 * min(high, 1e300))),
        parity="odd" if low == -high else None,
    )


@register
def relu6() -> Activation:
    """Build min(max(0, x), 6)."""
    return _clip("relu6", 0.0, 6.0)


@register
def clip(min: float = -1.0, max: float = 1.0) -> Activation:
    """Build the ONNX Clip; infinite bounds are allowed."""
    return _clip("clip", min, max, (("min", min), ("max", max)))


@register
def hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Activation:
    """Build torch's hardtanh."""
    return _clip("hardtanh", min_val, max_val, (("min_val", min_val), ("max_val", max_val)))


@register
def threshold(threshold: float = 0.0, value: float = 0.0) -> Activation:
    """Build torch's threshold."""
    return Activation(
        "threshold",
        lambda nx, x: nx.where(x > threshold, x, value),
        params=(("threshold", threshold), ("value", value)),
        formula="x if x > threshold else value",
        kinks=(threshold,),
        jumps=(threshold,) if threshold != value else (),
        limits=((value, 0.0), (_INF, 1.0)),
        core=(-30.0 - 2 * math.fabs(threshold), 30.0 + 2 * math.fabs(threshold)),
    )


@register
def softshrink(lambd: float = 0.5) -> Activation:
    """Build soft thresholding."""
    return Activation(
        "softshrink",
        lambda nx, x: nx.where(x > lambd, x - lambd, nx.where(x < -lambd, x + lambd, 0.0)),
        params=(("lambd", lambd),),
        formula="sign(x) max(|x| - lambd, 0)",
        kinks=(-lambd, lambd),
        limits=((-_INF, 1.0), (_INF, 1.0)),
        core=(-30.0 - 2 * lambd, 30.0 + 2 * lambd),
        parity="odd",
    )


@register
def hardshrink(lambd: float = 0.5) -> Activation:
    """Build hard thresholding (discontinuous)."""
    return Activation(
        "hardshrink",
        lambda nx, x: nx.where(x > lambd, x, nx.where(x < -lambd, x, 0.0)),
        params=(("lambd", lambd),),
        formula="x if |x| > lambd else 0",
        kinks=(-lambd, lambd),
        jumps=(-lambd, lambd) if lambd else (),
        limits=((-_INF, 1.0), (_INF, 1.0)),
        core=(-30.0 - 2 * lambd, 30.0 + 2 * lambd),
        parity="odd",
    )


@register
def hardsigmoid(alpha: float = 1.0 / 6.0, beta: float = 0.5) -> Activation:
    """Build clip(alpha x + beta, 0, 1); the defaults are torch's, ONNX has alpha 0.2."""
    ends = (-beta / alpha, (1.0 - beta) / alpha)
    return Activation(
        "hardsigmoid",
        lambda nx, x: nx.minimum(nx.maximum(alpha * x + beta, 0.0), 1.0),
        params=(("alpha", alpha), ("beta", beta)),
        formula="min(max(alpha x + beta, 0), 1)",
        source="arXiv 1511.00363",
        kinks=ends,
        limits=((0.0, 0.0), (1.0, 0.0)),
        core=(min(-30.0, 2 * ends[0]), max(30.0, 2 * ends[1])),
    )


@register
def hardswish() -> Activation:
    """Build x relu6(x + 3) / 6."""
    return Activation(
        "hardswish",
        lambda nx, x: x * nx.minimum(nx.maximum(x + 3.0, 0.0), 6.0) / 6.0,
        # By branches: the product rule would see two steps at +-3 and lose the slopes 0 and 1.
        derivative=lambda nx, x: nx.where(
            x <= -3.0, 0.0, nx.where(x >= 3.0, 1.0, (2.0 * x + 3.0) / 6.0)
        ),
        formula="x min(max(x + 3, 0), 6) / 6",
        source="arXiv 1905.02244",
        kinks=(-3.0, 3.0),
        limits=((0.0, 0.0), (_INF, 1.0)),
    )


@register
def relu_squared() -> Activation:
    """Build max(0, x)^2."""
    return Activation(
        "relu_squared",
        lambda nx, x: nx.maximum(x, 0.0) ** 2,
        formula="max(0, x)^2",
        source="arXiv 2109.08668, 2402.03804",
        limits=((0.0, 0.0), (_INF, _INF)),
        homogeneous=2,
    )


@register
def polyrelu(coefficients: tuple[float, ...] = (0.0, 1 / 3, 1 / 3, 1 / 3)) -> Activation:
    """Build sum_i a_i relu(x)^i."""
    a = tuple(coefficients)
    degree = max((i for i, c in enumerate(a) if c), default=0)
    # Cauchy's bound of the roots of the first two derivatives is below that of the polynomial
    # with coefficients i (i-1) a_i.
    bound = 1.0 + max((i * i * math.fabs(c) for i, c in enumerate(a)), default=0.0) / (
        math.fabs(a[degree]) if a[degree] else 1.0
    )
    top = math.copysign(_INF, a[degree]) if degree else a[0]

    def value(nx: Any, x: Any) -> Any:
        positive = nx.maximum(x, 0.0)
        total = 0.0 * positive + a[-1]
        for c in reversed(a[:-1]):
            total = total * positive + c
        return total

    return Activation(
        "polyrelu",
        value,
        params=(("coefficients", a),),
        formula="sum_i a_i max(0, x)^i",
        source="arXiv 2411.03884",
        kinks=(0.0,) if len(a) > 1 and a[1] else (),
        limits=((a[0], 0.0), (top, top if degree > 1 else (a[1] if degree else 0.0))),
        core=(-30.0, 30.0 + 2 * bound),
    )


@register
def helu(alpha: float = 0.05) -> Activation:
    """Build HeLU: its value is that of ReLU; alpha acts only in its own backward pass."""
    return Activation(
        "helu",
        lambda nx, x: nx.maximum(x, 0.0),
        params=(("alpha", alpha),),
        formula="max(0, x); the surrogate gradient of training is 1[x > -alpha]",
        source="Hysteresis Activation Function for Efficient Inference",
        kinks=(0.0,),
        limits=((0.0, 0.0), (_INF, 1.0)),
        homogeneous=1,
    )
