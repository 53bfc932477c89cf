"""What stands between convolutions, by itself: slopes, gains of channels, Lipschitz constants."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.ops import (
    Activate,
    AveragePool,
    BatchNorm,
    Dense,
    Prelu,
    Reshape,
    Transpose,
)
from tangency.models.ops import GroupSort as SortOp
from tangency.models.structure import Node
from tangency.verify.certificate.directed import divide_up, down, sqrt_up, up
from tangency.verify.certificate.layers import Slopes
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.chain.unroll import check_whole_line

__all__ = ["Factor", "constant_of", "gain_of", "gained", "largest", "slopes_of", "widened"]


@dataclass(frozen=True)
class Factor:
    """A layer outside of the runs, by a proved bound of its Lipschitz constant.

    Parameters
    ----------
    name : str
    bound : float
    matrix : (m, n) array, optional
        Whose norm the constant is: a checker may prove another bound of it.
    """

    name: str
    bound: float
    matrix: np.ndarray | None = field(default=None, compare=False)


def slopes_of(node: Node) -> Slopes:
    """Return the global slopes of an activation.

    Raises
    ------
    InputError
        If they are not bounded.
    """
    op = node.op
    assert isinstance(op, Activate)
    low, high = op.activation.slope_range
    if (
        op.activation.jumps
        or op.activation.staircase
        or not (np.isfinite(low) and np.isfinite(high))
    ):
        raise InputError(
            f"layer {node.name!r}: {op.activation} has no bounded slope, so the network has no "
            "global Lipschitz bound"
        )
    check_whole_line(node.name, op.activation)
    return Slopes(float(low), float(high))


def widened(slopes: Slopes) -> Slopes:
    """Return slopes that hold zero, as the mask of the torus asks."""
    return Slopes(np.minimum(slopes.lower, 0.0), np.maximum(slopes.upper, 0.0))


def gain_of(node: Node, params: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of the factor by which a batch norm multiplies each channel.

    Raises
    ------
    InputError
        If a variance is not positive.
    """
    op = node.op
    assert isinstance(op, BatchNorm)
    variance = params["var"] + op.eps
    if not (variance > 0).all():
        raise InputError(f"layer {node.name!r}: a variance is not positive")
    below = down(np.sqrt(down(variance)))
    above = up(np.sqrt(up(variance)))
    weight = params.get("weight", np.ones_like(variance))
    ends = weight / below, weight / above
    zero = weight == 0.0  # exactly
    below, above = down(np.minimum(*ends)), up(np.maximum(*ends))
    return np.where(zero, 0.0, below), np.where(zero, 0.0, above)


def gained(slopes: Slopes, gain: tuple[np.ndarray, np.ndarray]) -> Slopes:
    """Return the slopes of an activation behind a factor for each channel."""
    lower, upper = slopes.arrays(len(gain[0]))
    pairs = [(g, s) for g in gain for s in (lower, upper)]
    exact = np.stack([(g == 0.0) | (s == 0.0) for g, s in pairs])  # zero times anything
    products = np.stack([g * s for g, s in pairs])
    low, high = (np.where(exact, 0.0, rounded(products)) for rounded in (down, up))
    return Slopes(low.min(axis=0), high.max(axis=0))


def largest(gain: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the Lipschitz constant of a factor for each channel."""
    return float(max(np.abs(gain[0]).max(), np.abs(gain[1]).max()))


def constant_of(node: Node, before: Node, params: Mapping[str, np.ndarray]) -> float:
    """Return a bound of the Lipschitz constant of a layer.

    Raises
    ------
    UnsupportedError
        Naming a layer of another kind.
    """
    op = node.op
    if isinstance(op, Reshape | Transpose):
        return 1.0
    if isinstance(op, Dense):
        return spectral_norm_bound(params["weight"])
    if isinstance(op, BatchNorm):
        return largest(gain_of(node, params))
    if isinstance(op, Activate):
        return slopes_of(node).lipschitz()
    if isinstance(op, Prelu):
        return float(max(1.0, np.abs(params["slope"]).max()))
    if isinstance(op, SortOp):
        return 1.0
    if isinstance(op, AveragePool):
        # |W|_inf <= 1, and an entry lies in ceil(k / s) windows an axis: sqrt(|W|_1 |W|_inf).
        counts = op.counts(before.shape[-len(op.size) :])
        windows = prod(-(-k // s) for k, s in zip(op.size, op.stride, strict=True))
        return sqrt_up(divide_up(float(windows), float(counts.min())))
    raise UnsupportedError(
        f"layer {node.name!r}: convolutional bounds have no place for {op.kind}; they take "
        "convolutions, activations of one variable, prelu, group_sort, average pooling, batch norm "
        "and dense layers"
    )
