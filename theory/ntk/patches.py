"""Windows of a convolution as rows: the inputs A of the layer-wise form."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

__all__ = ["patches"]

Array = Any


def patches(
    stack: Any,
    x: Array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Array:
    """Windows of padded images as rows, by one strided slice for each tap of the kernel.

    Parameters
    ----------
    stack : callable
        ``stack(arrays, axis)`` of the array library.
    x : (n, C, *S) array
        Padded.

    Returns
    -------
    (n, P, C prod(kernel)) array
        In the order of a weight (O, C, *kernel) reshaped to (O, -1).
    """
    out = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    taps = []
    for offset in product(*map(range, kernel)):
        cut = tuple(
            slice(o * d, o * d + (count - 1) * s + 1, s)
            for o, d, s, count in zip(offset, dilation, stride, out, strict=True)
        )
        taps.append(x[(slice(None), slice(None), *cut)])
    rows = stack(taps, 2).reshape((x.shape[0], x.shape[1] * len(taps), prod(out)))
    return rows.swapaxes(1, 2)
