"""Who computes a tile of a Gram matrix: the kernel, its fused form, or a device's backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.kernels.kernel import KINDS, Get, Gram, Kernel, as_kernel, wanted

__all__ = ["MAKERS", "Backend", "KernelBackend", "backend_of", "fused_of"]

Array = np.ndarray[Any, Any]


class Backend(Protocol):
    """What the Gram engine asks of whoever computes its tiles; calls come from several threads."""

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
    """A kernel as a backend."""

    kernel: Kernel

    def tile(self, x1: Array, x2: Array | None = None, *, get: Get = KINDS) -> Gram:
        """Call the kernel, for a Gram in any case."""
        names = wanted(get)
        if len(names) > 1:
            gram: Gram = self.kernel(x1, x2, get=names)
            return gram
        array = self.kernel(x1, x2, get=names[0])
        parts = {names[0]: array}
        return Gram(parts.get("nngp"), parts.get("ntk"), x2 is None)


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
    kernel: Any, sample_shape: tuple[int, ...], *, dtype: Any = np.float64, device: str = "cpu"
) -> Backend:
    """The backend of a kernel on a device.

    Parameters
    ----------
    kernel : Kernel, or what :func:`.as_kernel` accepts
    sample_shape : tuple of int
    dtype : dtype
        float32 or float64; of the recursion where the kernel has a fused form.
    device : str
        ``"cpu"``, or a name in :data:`MAKERS`.

    Raises
    ------
    InputError
        For a device that has no backend here.
    """
    if device in MAKERS:
        return MAKERS[device](kernel, sample_shape, dtype)
    if device != "cpu":
        known = ", ".join(sorted({"cpu", *MAKERS}))
        raise InputError(f"device {device!r} has no kernel backend here; known: {known}")
    return KernelBackend(fused_of(kernel, sample_shape, dtype) or as_kernel(kernel))
