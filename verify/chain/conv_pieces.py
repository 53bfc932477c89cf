"""A network cut into runs of convolutions, and factors for what lies between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tangency.models.errors import UnsupportedError
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
)
from tangency.models.ops import GroupSort as SortOp
from tangency.models.structure import Node
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.chain.conv_factors import (
    Factor,
    constant_of,
    gain_of,
    gained,
    largest,
    slopes_of,
    widened,
)
from tangency.verify.chain.conv_kernels import (
    image_size,
    kernel_of,
    pair,
    pooled,
    share,
    side_by_side,
    spread,
)

__all__ = ["Run", "path_of", "pieces_of"]


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
            self.gain = gain_of(node, params)
            self.factors.append(Factor(node.name, largest(self.gain)))
        elif isinstance(op, Activate | Prelu | SortOp) and self._open():
            self._bend(before, node, params)
        elif self._may_pool(before, op):
            assert isinstance(op, AveragePool)
            self.pool = op
            self.factors.append(Factor(node.name, constant_of(node, before, params)))
        elif self._may_flatten(before, node):
            self.image = before.shape
        else:
            self.close()
            matrix = params["weight"] if isinstance(op, Dense) else None
            self.pieces.append(Factor(node.name, constant_of(node, before, params), matrix))

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
        factor = Factor(node.name, constant_of(node, before, params))
        op, joins = node.op, True
        if isinstance(op, Activate):
            found: Slopes | GroupSort = slopes_of(node)
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
            found = widened(found if self.gain is None else gained(found, self.gain))
        self.activation = found
        self.factors.append(factor)

    def _may_pool(self, before: Node, op: Op) -> bool:
        """Whether pooling may become a part of the next layer: windows side by side."""
        if not isinstance(op, AveragePool) or self.activation is None or self.pool is not None:
            return False
        return self.image is None and side_by_side(op, before.shape)

    def _may_flatten(self, before: Node, node: Node) -> bool:
        flat = isinstance(node.op, Reshape) and len(node.shape) == 1 and len(before.shape) > 1
        return flat and self.activation is not None and self.image is None

    def _convolution(self, before: Node, node: Node, weight: np.ndarray) -> None:
        assert isinstance(node.op, Conv)
        layer, size = kernel_of(node, weight), image_size(before.shape, node.op)
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
            pool = pair(self.pool.size)
            averaged = [Factor(self.factors.pop().name, share(pool))]
            layer = pooled(layer, pool)
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
            pool = pair(self.pool.size)
            kernel = spread(kernel, pool)
            averaged = [Factor(self.factors[-1].name, share(pool))]
        run.activations.append(self.activation)
        run.layers.append(ConvLayer(kernel))
        self.pieces[-1] = Run(run.size, run.layers, run.activations, True)
        self.pieces += averaged
        self.factors = []
        self.close()
