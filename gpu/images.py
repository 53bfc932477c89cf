r"""Convolutional tangent kernels of image pairs, one cyclic displacement a warp.

Stride-1 convolutions with zero padding and pointwise activations never mix displacements q - p of
sites, so one warp carries one of the H x W cyclic displacements through all layers in registers
(see ``kernels/images.cu``). With global average pooling the kernel is the mean over all of them,
with flattening the first alone.

In float32 the covariance itself is carried, and an entry whose cosine is 1 to rounding is low by up
to 1e-3. So images with themselves go through float64. Other entries are right to 1e-6, but for
near-duplicates: flattened by up to 1e-3, pooled by as much over the number of sites; take float64.

References
----------
Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", arXiv 1904.11955.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from tangency.gpu.bands import band_tiles
from tangency.gpu.dense import KINDS, wanted
from tangency.gpu.engines import Engine, engine_for
from tangency.gpu.errors import PlanError
from tangency.gpu.images_plan import ImageLayer, constants, root_tables
from tangency.gpu.pairs import TilePairs
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
        self, x1: Any, x2: Any = None, *, get: tuple[str, ...] | str = KINDS
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The whole kernel in float64 on the host; one triangle where ``x2`` is None.

        Parameters
        ----------
        x1, x2 : (n1, channels, H, W), (n2, channels, H, W) arrays
        get : tuple of {"nngp", "ntk"}
        """
        found: dict[str, np.ndarray[Any, Any]] = self.begin(
            self.batch(x1), None if x2 is None else self.batch(x2), get=wanted(get)
        )()
        return found

    def diagonal(
        self, x: Any, *, get: tuple[str, ...] | str = KINDS
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The kernel of each image with itself in float64, ``(n,)``, right to 1e-8 in any dtype."""
        values = dict(zip(KINDS, self._own(self._wide.batch(x))(), strict=True))
        return {name: values[name] for name in wanted(get)}

    def begin(
        self,
        left: ImageBatch,
        right: ImageBatch | None = None,
        *,
        get: tuple[str, ...] | str = KINDS,
    ) -> Callable[[], Any]:
        """Begin the kernel of two batches (``None``: of one with itself); what is returned waits.

        It hands over the host's array for one name, a dict of them for a tuple.
        """
        names, two = wanted(get), left if right is None else right
        pairs = TilePairs.of(len(left), len(two), symmetric=right is None)
        wait, own = self._begun(left, two, pairs.index), None
        if right is None and self._wide is not self:
            own = self._own(self._wide.batch(self.engine.fetch(left.images)()))

        def finish() -> Any:
            values = dict(zip(KINDS, wait(), strict=True))
            out = {name: pairs.tile(values[name]) for name in names}
            if own is not None:
                diagonal = dict(zip(KINDS, own(), strict=True))
                for name in names:
                    np.fill_diagonal(out[name], diagonal[name])
            return out[get] if isinstance(get, str) else out

        return finish

    def tiles(
        self,
        x1: Any,
        x2: Any = None,
        *,
        get: tuple[str, ...] | str = "ntk",
        memory: float | None = None,
    ) -> Callable[..., Any]:
        """A function ``(here, there) -> wait``; see :func:`tangency.gpu.bands.band_tiles`."""
        return band_tiles(self, x1, x2, get=get, memory=memory)

    def values(
        self, left: ImageBatch, right: ImageBatch, index: np.ndarray[Any, Any]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """NNGP and NTK of the pairs ``index``, an (m, 2) array of places, in float64."""
        return self._begun(left, right, index)()

    @cached_property
    def _wide(self) -> ImagesKernel:
        """The same in float64."""
        return self if np.dtype(self.dtype) == np.float64 else replace(self, dtype=np.float64)

    def _own(
        self, batch: ImageBatch
    ) -> Callable[[], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Begin the kernel of each image of a float64 batch with itself."""
        index = np.stack([np.arange(len(batch))] * 2, axis=1)
        return self._wide._begun(batch, batch, index)

    def _begun(
        self, left: ImageBatch, right: ImageBatch, index: np.ndarray[Any, Any]
    ) -> Callable[[], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """All launches for the pairs ``index``; the function returned waits for their values."""
        xp, (channels, h, w) = self.engine.xp, left.images.shape[1:]
        if tuple(right.images.shape[1:]) != (channels, h, w):
            raise PlanError(f"images of {left.images.shape[1:]} and of {right.images.shape[1:]}")
        source = images_source(h, w, self.dtype)
        share, rows = constants(self.layers, self.dtype)
        first = np.dtype(self.dtype).type(share / channels)
        shifts = h * w if self.pooling == "global" else 1
        weight = 1.0 / (h * w) ** (2 if self.pooling == "global" else 1)
        waits = []
        device_rows = xp.asarray(rows)
        for start in range(0, len(index), self.pairs):
            chunk = np.ascontiguousarray(index[start : start + self.pairs], dtype=np.int32)
            sums = xp.zeros((len(chunk), shifts, 2))
            arrays = (
                left.images, right.images, left.tables, right.tables, device_rows,
                xp.asarray(chunk), sums,
            )  # fmt: skip
            self.engine.images(source, arrays, (len(chunk), shifts, channels, len(rows), first))
            waits.append(self.engine.fetch(sums.sum(axis=1) * weight))
        w_out, bias, gain, bias_gain = self.readout

        def finish() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
            s, t = np.concatenate([np.zeros((0, 2)), *(wait() for wait in waits)]).T
            return w_out * s + bias, w_out * t + gain * s + bias_gain

        return finish
