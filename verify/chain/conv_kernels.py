"""Convolutions of a network as the check takes them: images of two axes, pooling within kernels."""

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.ops import AveragePool, Conv
from tangency.models.structure import Node
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.certificate.directed import divide_up

__all__ = ["image_size", "kernel_of", "pair", "pooled", "share", "side_by_side", "spread"]


def kernel_of(node: Node, weight: np.ndarray) -> ConvLayer:
    """Return the convolution of a node; a signal of one axis is an image of one row.

    Raises
    ------
    UnsupportedError
        If its input has more axes than channels and space.
    """
    op = node.op
    assert isinstance(op, Conv)
    if len(node.shape) != len(op.stride) + 1:
        raise UnsupportedError(f"layer {node.name!r}: its input has more axes than (C, *S)")
    if len(op.stride) == 1:
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


def image_size(shape: tuple[int, ...], op: Conv) -> tuple[int, int]:
    """Return the spatial size of a convolution's input."""
    return pair(shape[-len(op.stride) :])


def pair(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the size of an image; a signal is an image of one row."""
    return (1, size[0]) if len(size) == 1 else (size[0], size[1])


def share(pool: tuple[int, int]) -> float:
    """Return what an average over a window is of the sum, rounded up."""
    return divide_up(1.0, float(pool[0] * pool[1]))


def side_by_side(op: AveragePool, shape: tuple[int, ...]) -> bool:
    """Whether the windows of pooling tile the image, without padding."""
    size = shape[-len(op.size) :]
    padded = any(any(p) for p in op.padding)
    fits = all(n % k == 0 for n, k in zip(size, op.size, strict=True))
    return tuple(op.size) == tuple(op.stride) and fits and not padded


def spread(kernel: np.ndarray, pool: tuple[int, int]) -> np.ndarray:
    """Return the kernel that takes all entries of a window where the given one takes their sum.

    Parameters
    ----------
    kernel : (m, c, h, w) array
    pool : pair of int
    """
    return np.repeat(np.repeat(kernel, pool[0], axis=2), pool[1], axis=3)


def pooled(layer: ConvLayer, pool: tuple[int, int]) -> ConvLayer:
    """Return a convolution after sums over windows: a wider kernel of a larger stride."""
    (p1, p2), (s1, s2) = layer.padding, layer.stride
    return ConvLayer(
        spread(layer.weight, pool),
        (s1 * pool[0], s2 * pool[1]),
        ((p1[0] * pool[0], p1[1] * pool[0]), (p2[0] * pool[1], p2[1] * pool[1])),
        (1, 1),
        layer.groups,
    )
