"""ReLU and its kin: piecewise linear or polynomial."""

import math
from typing import Any

from tangency.models.activations.parameters import check_numbers
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
        core=(-30.0, 30.0),
        homogeneous=1,
    )


def _leaky(name: str, key: str, slope: float, source: str) -> Activation:
    given: dict[str, Any] = {key: slope}
    check_numbers(name, **given)
    return Activation(
        name,
        lambda nx, x: nx.where(x > 0.0, x, slope * x),
        params=((key, slope),),
        formula=f"x if x > 0 else {key} x",
        source=source,
        kinks=(0.0,) if slope != 1.0 else (),
        limits=(_ray(slope, -_INF), (_INF, 1.0)),
        core=(-30.0, 30.0),
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
        core=(-30.0, 30.0),
        parity="even",
        homogeneous=1,
    )


def _clip(name: str, low: float, high: float, keys: tuple[str, str] | None = None) -> Activation:
    first, second = keys or ("min", "max")
    given: dict[str, Any] = {first: low, second: high}
    check_numbers(name, infinite=True, **given)
    if not low < high:
        raise InputError(f"{name} has {first} = {low:g}, {second} = {high:g}; it accepts min < max")

    def value(nx: Any, x: Any) -> Any:
        x = nx.maximum(x, low) if low > -_INF else x + 0.0
        return nx.minimum(x, high) if high < _INF else x

    kinks = tuple(k for k in (low, high) if math.isfinite(k))
    return Activation(
        name,
        value,
        params=((first, low), (second, high)) if keys else (),
        formula=f"min(max(x, {low:g}), {high:g})",
        kinks=kinks,
        limits=((low, float(low == -_INF)), (high, float(high == _INF))),
        core=(min(-30.0, *(2.0 * k for k in kinks)), max(30.0, *(2.0 * k for k in kinks))),
        parity="odd" if low == -high else None,
    )


@register
def relu6() -> Activation:
    """Build min(max(0, x), 6)."""
    return _clip("relu6", 0.0, 6.0)


@register
def clip(min: float = -1.0, max: float = 1.0) -> Activation:
    """Build the ONNX Clip; infinite bounds are allowed."""
    return _clip("clip", min, max, ("min", "max"))


@register
def hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Activation:
    """Build torch's hardtanh."""
    return _clip("hardtanh", min_val, max_val, ("min_val", "max_val"))


@register
def threshold(threshold: float = 0.0, value: float = 0.0) -> Activation:
    """Build torch's threshold."""
    check_numbers("threshold", threshold=threshold, value=value)
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
    """Build soft thresholding, lambd >= 0."""
    check_numbers("softshrink", least=0.0, lambd=lambd)
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
    """Build hard thresholding (discontinuous), lambd >= 0."""
    check_numbers("hardshrink", least=0.0, lambd=lambd)
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
    """Build clip(alpha x + beta, 0, 1), alpha != 0; torch's defaults, ONNX has alpha 0.2."""
    check_numbers("hardsigmoid", factor=True, alpha=alpha)
    check_numbers("hardsigmoid", least=-1e100, most=1e100, beta=beta)
    ends = sorted((-beta / alpha, (1.0 - beta) / alpha))
    falls = alpha < 0.0
    return Activation(
        "hardsigmoid",
        lambda nx, x: nx.minimum(nx.maximum(alpha * x + beta, 0.0), 1.0),
        params=(("alpha", alpha), ("beta", beta)),
        formula="min(max(alpha x + beta, 0), 1)",
        source="arXiv 1511.00363",
        kinks=tuple(ends),
        limits=((float(falls), 0.0), (float(not falls), 0.0)),
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
        core=(-30.0, 30.0),
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
        core=(-30.0, 30.0),
        homogeneous=2,
    )


@register
def helu(alpha: float = 0.05) -> Activation:
    """Build HeLU: its value is that of ReLU; alpha acts only in its own backward pass."""
    check_numbers("helu", alpha=alpha)
    return Activation(
        "helu",
        lambda nx, x: nx.maximum(x, 0.0),
        params=(("alpha", alpha),),
        formula="max(0, x); the surrogate gradient of training is 1[x > -alpha]",
        source="Hysteresis Activation Function for Efficient Inference",
        kinks=(0.0,),
        limits=((0.0, 0.0), (_INF, 1.0)),
        core=(-30.0, 30.0),
        homogeneous=1,
    )
