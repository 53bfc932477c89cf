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
    Op,
    Prelu,
    Reshape,
    Transpose,
)
from tangency.models.ops import GroupSort as SortOp
from tangency.models.structure import Node
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.certificate.directed import divide_up, down, sqrt_up, up
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.norms import spectral_norm_bound

__all__ = ["Factor", "Run", "path_of", "pieces_of"]


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


@dataclass(frozen=True, eq=False)
class Run:
    """Convolutions with activations between them; only the first may have a stride.

    Parameters
    ----------
    size : pair of int
        Of the input.
    layers : list of l ConvLayer
    activations : list of l - 1 Slopes or GroupSort
        Slopes of each channel, those of a batch norm before them in it, widened to hold zero, as
        the mask of the torus asks.
    dense : bool
        Whether the last layer is a dense layer on the flattened image, of one pixel.
    """

    size: tuple[int, int]
    layers: list[ConvLayer] = field(default_factory=list)
    activations: list[Slopes | GroupSort] = field(default_factory=list)
    dense: bool = False


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
    walk = _Walk({key: np.asarray(w, np.float64) for key, w in network.weights.items()})
    for before, node in pairwise(path_of(network)):
        walk.take(before, node)
    walk.close()
    return walk.pieces


class _Walk:
    """The pieces so far, and what stands after the last of them and may yet join it.

    Where pooling joins a layer, that takes sums over windows: the factor beside is for averages.

    After a convolution this is a batch norm, an activation, average pooling and a flattening, in
    this order, any of them missing; each with the factor that it is if it does not join.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = weights
        self.pieces: list[Run | Factor] = []
        self.factors: list[Factor] = []
        self.gain: tuple[np.ndarray, np.ndarray] | None = None  # of a batch norm, enclosed
        self.activation: Slopes | GroupSort | None = None
        self.pool: AveragePool | None = None
        self.image: tuple[int, ...] | None = None  # the shape before a flattening

    @property
    def run(self) -> Run | None:
        """The run that may go on."""
        last = self.pieces[-1] if self.pieces else None
        return last if isinstance(last, Run) and not last.dense else None

    def take(self, before: Node, node: Node) -> None:
        """Add a layer."""
        op = node.op
        params = {p.role: self.weights[p.key] for p in node.params}
        if isinstance(op, Conv) and self.image is None:
            self._convolution(before, node, params["weight"])
        elif isinstance(op, Dense) and self.image is not None and self.activation is not None:
            self._head(params["weight"])
        elif isinstance(op, BatchNorm) and self._may_scale(before, op):
            self.gain = _gain(node, params)
            self.factors.append(Factor(node.name, _largest(self.gain)))
        elif isinstance(op, Activate | Prelu | SortOp) and self._open():
            self._bend(before, node, params)
        elif self._may_pool(before, op):
            assert isinstance(op, AveragePool)
            self.pool = op
            self.factors.append(Factor(node.name, _factor(node, before, params)))
        elif self._may_flatten(before, node):
            self.image = before.shape
        else:
            self.close()
            matrix = params["weight"] if isinstance(op, Dense) else None
            self.pieces.append(Factor(node.name, _factor(node, before, params), matrix))

    def close(self) -> None:
        """Let go of what has not joined a run: its factors remain."""
        self.pieces += self.factors
        self.factors, self.gain, self.activation = [], None, None
        self.pool = self.image = None

    def _may_scale(self, before: Node, op: BatchNorm) -> bool:
        """Whether a batch norm comes right after a convolution and scales its channels."""
        return self.run is not None and not self.factors and op.axis % len(before.shape) == 0

    def _open(self) -> bool:
        """Whether an activation comes right after a convolution, or its batch norm."""
        return self.run is not None and self.activation is None and self.pool is None

    def _bend(self, before: Node, node: Node, params: Mapping[str, np.ndarray]) -> None:
        factor = Factor(node.name, _factor(node, before, params))
        op, joins = node.op, True
        if isinstance(op, Activate):
            found: Slopes | GroupSort = _slopes(node)
        elif isinstance(op, Prelu):
            slope = params["slope"]
            found = Slopes(np.minimum(slope, 1.0), np.maximum(slope, 1.0))
            joins = op.axis % len(before.shape) == 0 or slope.shape == (1,)
        else:
            assert isinstance(op, SortOp)
            found = GroupSort(op.size)
            joins = op.axis % len(before.shape) == 0 and self.gain is None
        if not joins:  # along another axis than the channels, or sorting behind a batch norm
            self.close()
            self.pieces.append(factor)
            return
        if isinstance(found, Slopes):
            found = _widened(found if self.gain is None else _gained(found, self.gain))
        self.activation = found
        self.factors.append(factor)

    def _may_pool(self, before: Node, op: Op) -> bool:
        """Whether pooling may become a part of the next layer: windows side by side."""
        if not isinstance(op, AveragePool) or self.activation is None or self.pool is not None:
            return False
        size = before.shape[-len(op.size) :]
        padded = any(any(p) for p in op.padding)
        fits = all(n % k == 0 for n, k in zip(size, op.size, strict=True))
        return tuple(op.size) == tuple(op.stride) and fits and not padded and self.image is None

    def _may_flatten(self, before: Node, node: Node) -> bool:
        flat = isinstance(node.op, Reshape) and len(node.shape) == 1 and len(before.shape) > 1
        return flat and self.activation is not None and self.image is None

    def _convolution(self, before: Node, node: Node, weight: np.ndarray) -> None:
        layer, size = _layer(node, weight), _space(before.shape, node.op)
        run = self.run
        joins = run is not None and self.activation is not None and self.pool is None
        if run is not None and self.activation is not None and joins and layer.stride == (1, 1):
            run.activations.append(self.activation)
            run.layers.append(layer)
            self.factors = []
            self.close()
            return
        averaged: list[Run | Factor] = []
        if self.pool is not None and layer.dilation == (1, 1):
            pool = _pair(self.pool.size)
            averaged = [Factor(self.factors.pop().name, _share(pool))]
            layer = _pooled(layer, pool)
            size = size[0] * pool[0], size[1] * pool[1]
        self.close()
        self.pieces += [*averaged, Run(size, [layer])]

    def _head(self, weight: np.ndarray) -> None:
        run = self.run
        assert run is not None
        assert self.image is not None
        assert self.activation is not None
        space = self.image[1:] if len(self.image) == 3 else (1, *self.image[1:])
        kernel = weight.reshape(len(weight), self.image[0], *space)
        averaged: list[Run | Factor] = []
        if self.pool is not None:
            pool = _pair(self.pool.size)
            kernel = np.repeat(np.repeat(kernel, pool[0], axis=2), pool[1], axis=3)
            averaged = [Factor(self.factors[-1].name, _share(pool))]
        run.activations.append(self.activation)
        run.layers.append(ConvLayer(kernel))
        self.pieces[-1] = Run(run.size, run.layers, run.activations, True)
        self.pieces += averaged
        self.factors = []
        self.close()


def _pair(size: tuple[int, ...]) -> tuple[int, int]:
    return (1, size[0]) if len(size) == 1 else (size[0], size[1])


def _share(pool: tuple[int, int]) -> float:
    return divide_up(1.0, float(pool[0] * pool[1]))


def _pooled(layer: ConvLayer, pool: tuple[int, int]) -> ConvLayer:
    """Return a convolution after sums over windows: a wider kernel of a larger stride."""
    weight = np.repeat(np.repeat(layer.weight, pool[0], axis=2), pool[1], axis=3)
    (p1, p2), (s1, s2) = layer.padding, layer.stride
    return ConvLayer(
        weight,
        (s1 * pool[0], s2 * pool[1]),
        ((p1[0] * pool[0], p1[1] * pool[0]), (p2[0] * pool[1], p2[1] * pool[1])),
        (1, 1),
        layer.groups,
    )


def _gain(node: Node, params: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of the factor by which a batch norm multiplies each channel."""
    op = node.op
    assert isinstance(op, BatchNorm)
    variance = params["var"] + op.eps
    if not (variance > 0).all():
        raise InputError(f"layer {node.name!r}: a variance is not positive")
    below = down(np.sqrt(down(variance)))
    above = up(np.sqrt(up(variance)))
    weight = params.get("weight", np.ones_like(variance))
    ends = weight / below, weight / above
    return down(np.minimum(*ends)), up(np.maximum(*ends))


def _gained(slopes: Slopes, gain: tuple[np.ndarray, np.ndarray]) -> Slopes:
    """Return the slopes of an activation behind a factor for each channel."""
    lower, upper = slopes.arrays(len(gain[0]))
    products = np.stack([g * s for g in gain for s in (lower, upper)])
    return Slopes(down(products.min(axis=0)), up(products.max(axis=0)))


def _largest(gain: tuple[np.ndarray, np.ndarray]) -> float:
    return float(max(np.abs(gain[0]).max(), np.abs(gain[1]).max()))


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


def _space(shape: tuple[int, ...], op: Op) -> tuple[int, int]:
    assert isinstance(op, Conv)
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
    """Return a bound of the Lipschitz constant of a layer."""
    op = node.op
    if isinstance(op, Reshape | Transpose):
        return 1.0
    if isinstance(op, Dense):
        return spectral_norm_bound(params["weight"])
    if isinstance(op, BatchNorm):
        return _largest(_gain(node, params))
    if isinstance(op, Activate):
        return _slopes(node).lipschitz()
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
