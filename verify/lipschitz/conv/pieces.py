"""A network cut into runs of convolutions, and factors for what lies between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Input,
    Reshape,
    Transpose,
)
from tangency.models.structure import Node
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.certificate.directed import divide_up, sqrt_up, up
from tangency.verify.certificate.layers import Slopes
from tangency.verify.certificate.norms import spectral_norm_bound

__all__ = ["Factor", "Run", "path_of", "pieces_of"]


@dataclass(frozen=True)
class Factor:
    """A layer outside of the runs, by a proved bound of its Lipschitz constant."""

    name: str
    bound: float


@dataclass(frozen=True, eq=False)
class Run:
    """Convolutions with activations between them; only the first may have a stride.

    Parameters
    ----------
    size : pair of int
        Of the input.
    layers : list of l ConvLayer
    activations : list of l - 1 Slopes
        Widened to hold zero, as the mask of the torus asks.
    """

    size: tuple[int, int]
    layers: list[ConvLayer] = field(default_factory=list)
    activations: list[Slopes] = field(default_factory=list)


def path_of(network: Network) -> list[Node]:
    """Return the nodes from the input to the output, each the only input of the next.

    Raises
    ------
    UnsupportedError
        If the network is no path.
    """
    nodes = network.structure.nodes
    if len(network.structure.outputs) != 1:
        raise UnsupportedError("a convolutional bound takes a network of one output")
    path = [nodes[network.structure.outputs[0]]]
    while not isinstance(path[-1].op, Input):
        if len(path[-1].inputs) != 1:
            raise UnsupportedError(
                f"layer {path[-1].name!r}: it takes {len(path[-1].inputs)} inputs; convolutional "
                "bounds take networks in which each layer feeds the next"
            )
        path.append(nodes[path[-1].inputs[0]])
    return path[::-1]


def pieces_of(network: Network) -> list[Run | Factor]:
    """Return runs of convolutions and factors, in order.

    Raises
    ------
    UnsupportedError
        Naming a layer that has no place.
    InputError
        Naming an activation without a global slope bound.
    """
    weights = {key: np.asarray(w, np.float64) for key, w in network.weights.items()}
    path = path_of(network)
    pieces: list[Run | Factor] = []
    waiting: tuple[str, Slopes] | None = None  # an activation that a run may go on after
    for before, node in pairwise(path):
        run = pieces[-1] if pieces and isinstance(pieces[-1], Run) else None
        params = {p.role: weights[p.key] for p in node.params}
        op = node.op
        if isinstance(op, Conv):
            layer, size = _layer(node, params["weight"]), _space(before.shape, op)
            if waiting is not None and run is not None and layer.stride == (1, 1):
                run.activations.append(_widened(waiting[1]))
                run.layers.append(layer)
            else:
                if waiting is not None:
                    pieces.append(Factor(waiting[0], waiting[1].lipschitz()))
                pieces.append(Run(size, [layer]))
            waiting = None
            continue
        if waiting is not None:
            pieces.append(Factor(waiting[0], waiting[1].lipschitz()))
            waiting = None
            run = None
        if isinstance(op, Activate):
            slopes = _slopes(node)
            if run is not None:
                waiting = (node.name, slopes)
            else:
                pieces.append(Factor(node.name, slopes.lipschitz()))
        else:
            pieces.append(Factor(node.name, _factor(node, before, params)))
    if waiting is not None:
        pieces.append(Factor(waiting[0], waiting[1].lipschitz()))
    return pieces


def _layer(node: Node, weight: np.ndarray) -> ConvLayer:
    op = node.op
    assert isinstance(op, Conv)
    if len(node.shape) != len(op.stride) + 1:
        raise UnsupportedError(f"layer {node.name!r}: its input has more axes than (C, *S)")
    if len(op.stride) == 1:  # an image of one row
        return ConvLayer(
            weight[:, :, None, :],
            (1, op.stride[0]),
            ((0, 0), op.padding[0]),
            (1, op.dilation[0]),
            op.groups,
        )
    return ConvLayer(
        weight,
        (op.stride[0], op.stride[1]),
        (op.padding[0], op.padding[1]),
        (op.dilation[0], op.dilation[1]),
        op.groups,
    )


def _space(shape: tuple[int, ...], op: Conv) -> tuple[int, int]:
    return (1, shape[-1]) if len(op.stride) == 1 else (shape[-2], shape[-1])


def _slopes(node: Node) -> Slopes:
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
    return Slopes(float(low), float(high))


def _widened(slopes: Slopes) -> Slopes:
    return Slopes(np.minimum(slopes.lower, 0.0), np.maximum(slopes.upper, 0.0))


def _factor(node: Node, before: Node, params: Mapping[str, np.ndarray]) -> float:
    """Return a bound of the norm of an affine layer."""
    op = node.op
    if isinstance(op, Reshape | Transpose):
        return 1.0
    if isinstance(op, Dense):
        return spectral_norm_bound(params["weight"])
    if isinstance(op, BatchNorm):
        variance = params["var"] + op.eps
        if not (variance > 0).all():
            raise InputError(f"layer {node.name!r}: a variance is not positive")
        below = np.nextafter(np.sqrt(np.nextafter(variance, 0.0)), 0.0)
        gain = np.abs(params.get("weight", np.ones_like(variance)))
        return float(up(gain / below).max())
    if isinstance(op, AveragePool):
        # |W|_inf <= 1, and an entry lies in ceil(k / s) windows an axis: sqrt(|W|_1 |W|_inf).
        counts = op.counts(before.shape[-len(op.size) :])
        windows = prod(-(-k // s) for k, s in zip(op.size, op.stride, strict=True))
        return sqrt_up(divide_up(float(windows), float(counts.min())))
    raise UnsupportedError(
        f"layer {node.name!r}: convolutional bounds have no place for {op.kind}; they take "
        "convolutions, activations of one variable, average pooling, batch norm and dense layers"
    )
