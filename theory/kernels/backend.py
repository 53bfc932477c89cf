"""Who computes a tile of a Gram matrix: the kernel, its fused form, or a device's backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tangency.gpu.tiles import side_within
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels.kernel import KINDS, Get, Gram, Kernel, as_kernel, wanted

__all__ = ["MAKERS", "Backend", "KernelBackend", "backend_of", "fused_of", "resolve"]

Array = np.ndarray[Any, Any]

SIDE = 2048  # rows and columns of a tile where nobody says otherwise


class Backend(Protocol):
    """What the Gram engine asks of whoever computes its tiles; calls come from several threads.

    A backend may have two methods more. ``side(names, sample, memory, threads)`` is the tile that
    it would take, for samples of so many numbers. ``tiles(x1, x2, get=names, memory=None)`` is
    that of a device: a function (rows, columns) that begins a tile and returns one that waits for
    its arrays, a dict by name; the next tile is begun before the last is waited for.
    """

    def tile(self, x1: Array, x2: Array | None = None, *, get: Get = KINDS) -> Gram:
        """The kernel between two batches; ``x2=None`` for a tile on the diagonal."""


Maker = Callable[[Any, tuple[int, ...], Any], Backend]


def _cuda(kernel: Any, sample_shape: tuple[int, ...], dtype: Any) -> Backend:
    from tangency.theory.kernels.backend_cuda import make_backend

    return make_backend(kernel, sample_shape, dtype)


MAKERS: dict[str, Maker] = {"cuda": _cuda}
"""Makers ``(kernel, sample_shape, dtype) -> Backend`` by device."""


@dataclass(frozen=True)
class KernelBackend:
    """A kernel as a backend.

    Attributes
    ----------
    kernel : Kernel
    sites : int
        Pairs of sites that it carries for a pair of samples.
    """

    kernel: Kernel
    sites: int = 1

    def tile(self, x1: Array, x2: Array | None = None, *, get: Get = KINDS) -> Gram:
        """Call the kernel, for a Gram in any case."""
        names = wanted(get)
        if len(names) > 1:
            gram: Gram = self.kernel(x1, x2, get=names)
            return gram
        array = self.kernel(x1, x2, get=names[0])
        parts = {names[0]: array}
        return Gram(parts.get("nngp"), parts.get("ntk"), x2 is None)

    def side(
        self, names: tuple[str, ...], sample: int, memory: float | None, threads: int = 1
    ) -> int:
        """Rows of a tile: 2,048, of images so few that a tile takes minutes, within the memory."""
        most = min(SIDE, max(32, 8 * SIDE // math.isqrt(self.sites)))
        if memory is None:
            return most
        # A float64 result of each kind, and the samples of both sides with what is made of them.
        entry, row = 8.0 * len(names) * threads, 2 * 4 * 8.0 * sample * threads
        return side_within(memory, entry, row=row, most=most)


def fused_of(kernel: Any, sample_shape: tuple[int, ...], dtype: Any) -> Kernel | None:
    """The fused form of an infinite kernel on samples of a shape; None where there is none.

    A kernel whose ``method`` is ``"reference"`` is left as it is.
    """
    from tangency.theory.kernels.cntk import FusedConv
    from tangency.theory.kernels.cntk_stages import cut
    from tangency.theory.kernels.fused import FusedDense
    from tangency.theory.kernels.fused_rows import fits
    from tangency.theory.kernels.infinite import InfiniteKernel

    if not isinstance(kernel, InfiniteKernel) or kernel.method == "reference":
        return None
    plan = kernel.plan(sample_shape)
    if fits(plan):
        return FusedDense(plan, dtype)
    # Where no pairs of sites are carried, the reference needs P entries a pair, not P^2.
    if any(node.full for node in plan.nodes) and cut(plan) is not None:
        return FusedConv(plan, dtype)
    return None


def backend_of(
    kernel: Any,
    sample_shape: tuple[int, ...],
    *,
    dtype: Any = np.float64,
    device: str | None = "cpu",
) -> Backend:
    """The backend of a kernel on a device; see :func:`resolve`."""
    return resolve(kernel, sample_shape, dtype=dtype, device=device)[1]


def resolve(
    kernel: Any,
    sample_shape: tuple[int, ...],
    *,
    dtype: Any = np.float64,
    device: str | None = None,
) -> tuple[str, Backend]:
    """The device that computes a kernel, and its backend there.

    Parameters
    ----------
    kernel : Kernel, or what :func:`.as_kernel` accepts
    sample_shape : tuple of int
    dtype : dtype
        float32 or float64; of the recursion where the kernel has a fused form.
    device : str, optional
        ``"cpu"``, or a name in :data:`MAKERS`. By default ``"cuda"`` where CuPy and a GPU are
        there, the kernel is one of :func:`.infinite_kernel` that does not ask for
        ``method="reference"``, and has a form on the device; else ``"cpu"``.

    Raises
    ------
    InputError
        For a device that has no backend here.
    UnsupportedError
        If the kernel has no form on the device that was asked for.
    MissingPackageError
        If the device was asked for and what it needs is missing; the message says what to install.
    """
    from tangency.theory.kernels.infinite import InfiniteKernel

    infinite = isinstance(kernel, InfiniteKernel)
    if device is None:
        if infinite and kernel.method != "reference" and _gpu():
            try:
                return "cuda", MAKERS["cuda"](kernel, sample_shape, dtype)
            except UnsupportedError:
                pass
        device = "cpu"
    if device in MAKERS:
        return device, MAKERS[device](kernel, sample_shape, dtype)
    if device != "cpu":
        known = ", ".join(sorted({"cpu", *MAKERS}))
        raise InputError(f"device {device!r} has no kernel backend here; known: {known}")
    sites = kernel.plan(sample_shape).widest_site_pair if infinite else 1
    fused = fused_of(kernel, sample_shape, dtype)
    return "cpu", KernelBackend(fused or as_kernel(kernel), sites)


def _gpu() -> bool:
    from tangency.gpu.engines import available_devices

    return "cuda" in available_devices()
