r"""Convolutional tangent kernels of image pairs, one cyclic displacement a warp.

Stride-1 convolutions with zero padding and pointwise activations never mix displacements q - p of
sites, so one warp carries one of the H x W cyclic displacements through all layers in registers
(see ``kernels/images.cu``). With global average pooling the kernel is the mean over all of them,
with flattening the first alone.

In float32 the covariance itself is carried: relative to the float64 reference the pooled kernel is
right to 1e-6, but a single entry whose cosine is 1 to rounding is low by up to 1e-3: take float64
for flattened kernels of near-duplicates, and of images with themselves.

References
----------
Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", arXiv 1904.11955.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.gpu.dense import wanted
from tangency.gpu.engines import Engine, engine_for
from tangency.gpu.errors import PlanError
from tangency.gpu.images_plan import ImageLayer, constants, root_tables
from tangency.gpu.sources import images_source, real_name

__all__ = ["ImageBatch", "ImagesKernel"]

Array = Any  # of NumPy or of CuPy


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images where the kernel runs; made by :meth:`ImagesKernel.batch`."""

    images: Array
    tables: Array

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImagesKernel:
    """The kernel of a convolutional plan on one device.

    Attributes
    ----------
    layers : tuple of ImageLayer
    pooling : {"global", "flatten"}
        What stands between the last activation and the dense readout.
    readout : (weight, bias, weight_gain, bias_gain)
        Of the dense layer at the end.
    dtype : float32 or float64
        Of the recursion; sums over sites are float64.
    device : {"cpu", "cuda"}, optional
    pairs : int
        Pairs of images a launch.
    """

    layers: tuple[ImageLayer, ...]
    pooling: str = "global"
    readout: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 0.0)
    dtype: Any = np.float32
    device: str | None = None
    pairs: int = 4096
    engine: Engine = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        real_name(self.dtype)
        object.__setattr__(self, "layers", tuple(self.layers))
        constants(self.layers, self.dtype)
        if self.pooling not in ("global", "flatten"):
            raise PlanError(f"pooling = {self.pooling!r}: it is 'global' or 'flatten'")
        if self.pairs < 1 or len(self.readout) != 4:
            raise PlanError("pairs is a number from 1 and readout four numbers")
        object.__setattr__(self, "engine", engine_for(self.device))

    def batch(self, images: Any) -> ImageBatch:
        """Prepare images ``(n, channels, H, W)`` and put them where the kernel runs."""
        images = np.ascontiguousarray(images, dtype=self.dtype)
        if images.ndim != 4 or not np.isfinite(images).all():
            raise PlanError(f"images are a finite (n, channels, H, W) array, got {images.shape}")
        xp = self.engine.xp
        return ImageBatch(
            xp.asarray(images), xp.asarray(root_tables(self.layers, images, self.dtype))
        )

    def __call__(
        self, x1: Any, x2: Any = None, *, get: tuple[str, ...] | str = ("nngp", "ntk")
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The whole kernel in float64 on the host; one triangle where ``x2`` is None.

        Parameters
        ----------
        x1, x2 : (n1, channels, H, W), (n2, channels, H, W) arrays
        get : tuple of {"nngp", "ntk"}
        """
        names = wanted(get)
        left = self.batch(x1)
        right = left if x2 is None else self.batch(x2)
        shape = len(left), len(right)
        both = np.triu_indices(shape[0]) if x2 is None else _all_pairs(*shape)
        index = np.stack(both, axis=1)
        values = dict(zip(("nngp", "ntk"), self.values(left, right, index), strict=True))
        out = {}
        for name in names:
            full = np.empty(shape)
            full[index[:, 0], index[:, 1]] = values[name]
            if x2 is None:
                full[index[:, 1], index[:, 0]] = values[name]
            out[name] = full
        return out

    def diagonal(
        self, x: Any, *, get: tuple[str, ...] | str = ("nngp", "ntk")
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The kernel of each image with itself, ``(n,)``."""
        batch = self.batch(x)
        index = np.stack([np.arange(len(batch))] * 2, axis=1)
        values = dict(zip(("nngp", "ntk"), self.values(batch, batch, index), strict=True))
        return {name: values[name] for name in wanted(get)}

    def tiles(self, x1: Any, x2: Any = None, *, get: str = "ntk") -> Callable[..., Any]:
        """A function ``(here, there) -> wait`` for :func:`tangency.gpu.tiles.fill`."""
        (name,) = wanted(get)
        left = self.batch(x1)
        right = left if x2 is None else self.batch(x2)

        def tile(here: slice, there: slice) -> Callable[[], np.ndarray[Any, Any]]:
            shape = here.stop - here.start, there.stop - there.start
            index = np.stack(_all_pairs(*shape), axis=1) + np.array([here.start, there.start])
            upper = index[:, 0] <= index[:, 1] if x2 is None and here == there else slice(None)
            nngp, ntk = self.values(left, right, index[upper])
            full = np.empty(shape[0] * shape[1])
            full[upper] = nngp if name == "nngp" else ntk
            full = full.reshape(shape)
            if x2 is None and here == there:
                full = np.triu(full) + np.triu(full, 1).T
            return lambda: full

        return tile

    def values(
        self, left: ImageBatch, right: ImageBatch, index: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """NNGP and NTK of the pairs ``index``, an (m, 2) array of places, in float64."""
        xp, (channels, h, w) = self.engine.xp, left.images.shape[1:]
        if tuple(right.images.shape[1:]) != (channels, h, w):
            raise PlanError(f"images of {left.images.shape[1:]} and of {right.images.shape[1:]}")
        source = images_source(h, w, self.dtype)
        share, rows = constants(self.layers, self.dtype)
        first = np.dtype(self.dtype).type(share / channels)
        shifts = h * w if self.pooling == "global" else 1
        weight = 1.0 / (h * w) ** (2 if self.pooling == "global" else 1)
        parts = []
        device_rows = xp.asarray(rows)
        for start in range(0, len(index), self.pairs):
            chunk = np.ascontiguousarray(index[start : start + self.pairs], dtype=np.int32)
            sums = xp.zeros((len(chunk), shifts, 2))
            arrays = (
                left.images, right.images, left.tables, right.tables, device_rows,
                xp.asarray(chunk), sums,
            )  # fmt: skip
            self.engine.images(source, arrays, (len(chunk), shifts, channels, len(rows), first))
            parts.append(self.engine.fetch(sums.sum(axis=1) * weight)())
        s, t = np.concatenate([np.zeros((0, 2)), *parts]).T
        w_out, bias, gain, bias_gain = self.readout
        return w_out * s + bias, w_out * t + gain * s + bias_gain


def _all_pairs(n1: int, n2: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    i, j = np.divmod(np.arange(n1 * n2), n2)
    return i, j
