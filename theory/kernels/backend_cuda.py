"""Tiles of infinite kernels on a GPU: which of the kernels of :mod:`tangency.gpu` takes a plan.

Plans on vectors go to the dense kernel and chains of 3 x 3 convolutions to that of images, both of
which keep all layers of a pair in registers; any other to that of sites, whose states lie in
memory between layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tangency.gpu.bands import band_tiles, free_memory
from tangency.gpu.dense import DenseKernel
from tangency.gpu.errors import DeviceError, PlanError
from tangency.gpu.images import ImagesKernel
from tangency.gpu.sites import SitesKernel
from tangency.gpu.tiles import side_within
from tangency.models.errors import MissingPackageError, UnsupportedError
from tangency.theory.kernels.device_plans import dense_layers, image_layers, site_layers
from tangency.theory.kernels.fused_rows import fits
from tangency.theory.kernels.kernel import KINDS, Get, Gram, wanted
from tangency.theory.kernels.plan import Plan

__all__ = ["DeviceBackend", "make_backend"]

_IMAGES = 512  # rows of a tile of images, of which a pair takes a thousand times as long


@dataclass(frozen=True, eq=False)
class DeviceBackend:
    """A plan as a backend on a device; ``"cpu"`` is the same source built by g++, for tests."""

    plan: Plan
    dtype: Any = np.float64
    device: str = "cuda"

    @cached_property
    def kernel(self) -> Any:
        """The compiled kernel; MissingPackageError without CuPy or a GPU."""
        try:
            if fits(self.plan):
                return DenseKernel(dense_layers(self.plan), self.dtype, self.device)
            chain = image_layers(self.plan)
            if chain is not None:
                layers, pooling, readout = chain
                # Flattened there is one displacement: float64 is quick, and right for duplicates.
                dtype = np.float64 if pooling == "flatten" else self.dtype
                return ImagesKernel(layers, pooling, readout, dtype, self.device)
            return SitesKernel(*site_layers(self.plan), self.dtype, self.device)
        except DeviceError as error:
            raise MissingPackageError(str(error)) from error
        except PlanError as error:
            raise UnsupportedError(str(error)) from error

    def tile(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Gram:
        """The kernel between two batches, on the host."""
        names = wanted(get)
        one, two = self._prepared(x1), None if x2 is None else self._prepared(x2)
        found = self.kernel(one, two, get=names)
        parts = {
            k: np.asarray(v.get() if hasattr(v, "get") else v, self.dtype) for k, v in found.items()
        }
        return Gram(parts.get("nngp"), parts.get("ntk"), x2 is None)

    def tiles(
        self, x1: Any, x2: Any = None, *, get: Get = KINDS, memory: float | None = None
    ) -> Callable[[slice, slice], Callable[[], dict[str, Any]]]:
        """A function that begins a tile, and returns one that waits for its arrays.

        Half of the memory is for samples, each of which is prepared once where they all fit.
        """
        share = self._budget(memory) / 2
        return band_tiles(
            self.kernel, x1, x2, get=wanted(get), memory=share, prepare=self._prepared
        )

    def side(
        self, names: tuple[str, ...], sample: int, memory: float | None, threads: int = 1
    ) -> int:
        """Rows of a tile: what the kernel likes, and two of them in half of the memory."""
        entry = 2.0 * (8 + np.dtype(self.dtype).itemsize * len(names))
        most = getattr(self.kernel, "tile", _IMAGES)
        return side_within(self._budget(memory) / 2, entry, most=most)

    def _budget(self, memory: float | None) -> float:
        return 0.8 * free_memory(self.kernel.engine.xp) if memory is None else memory

    def _prepared(self, x: Any) -> Any:
        features = self.plan.extract[0](np.asarray(x))  # (n, sites, channels)
        if isinstance(self.kernel, SitesKernel):
            return features
        if isinstance(self.kernel, DenseKernel):
            return features.reshape(len(features), -1)
        grid = self.plan.nodes[0].sites
        return np.moveaxis(features.reshape(len(features), *grid, -1), -1, 1)


def make_backend(kernel: Any, sample_shape: tuple[int, ...], dtype: Any) -> DeviceBackend:
    """The maker of ``device="cuda"``.

    Raises
    ------
    UnsupportedError
        If the kernel is no InfiniteKernel, or its plan has no CUDA form.
    MissingPackageError
        Without CuPy, a driver or a GPU.
    """
    from tangency.theory.kernels.infinite import InfiniteKernel

    if not isinstance(kernel, InfiniteKernel):
        raise UnsupportedError("device='cuda' takes kernels of infinite_kernel; use device='cpu'")
    backend = DeviceBackend(kernel.plan(sample_shape), dtype)
    _ = backend.kernel  # compiled now, so that what is missing is said at once
    return backend
