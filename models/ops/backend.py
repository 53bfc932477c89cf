"""The two array libraries that evaluate ops: NumPy (no start-up cost) and JAX (compiled, traced).

Most of an op's evaluation is the same text for both, through ``backend.xp``; what the libraries
do differently (convolution, element-wise functions beyond ufuncs) is a method or a field here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["Backend", "JaxBackend", "NumpyBackend", "jax_backend", "numpy_backend"]

Array = Any
Pads = tuple[tuple[int, int], ...]


class Backend:
    """Array functions with one meaning in NumPy and JAX.

    Parameters
    ----------
    xp : module
        ``numpy`` or ``jax.numpy``.
    nx : namespace
        Element-wise functions, as in :mod:`tangency.models.namespace`.
    """

    def __init__(self, xp: Any, nx: Any) -> None:
        self.xp = xp
        self.nx = nx

    def conv(
        self,
        x: Array,
        w: Array,
        stride: tuple[int, ...],
        pads: Pads,
        dilation: tuple[int, ...],
        groups: int,
    ) -> Array:
        """Cross-correlation of x ``(N, C, *S)`` with w ``(O, C/groups, *K)``."""
        raise NotImplementedError

    def divide(self, x: Array, y: Array) -> Array:
        """Quotient ``x / y`` of arrays that broadcast, correctly rounded."""
        return x / y

    def windows(
        self,
        x: Array,
        size: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
    ) -> Array:
        """Windows over the last ``len(size)`` axes, ``(..., *S)`` to ``(..., *out, *size)``."""
        lead, n = x.ndim - len(size), len(size)
        for i, (k, s, d) in enumerate(zip(size, stride, dilation, strict=True)):
            axis = lead + 2 * i  # each axis done so far has become two: place, offset
            count = (x.shape[axis] - d * (k - 1) - 1) // s + 1
            index = np.arange(count)[:, None] * s + np.arange(k)[None, :] * d
            x = self.xp.take(x, index.reshape(-1), axis=axis)
            x = x.reshape((*x.shape[:axis], count, k, *x.shape[axis + 1 :]))
        places = [lead + 2 * i for i in range(n)]
        return x.transpose(*range(lead), *places, *(p + 1 for p in places))

    def dilate(self, x: Array, stride: tuple[int, ...]) -> Array:
        """Insert ``stride - 1`` zeros between the entries of the last axes."""
        lead = x.ndim - len(stride)
        for i, s in enumerate(stride):
            axis = lead + i
            if s > 1:
                wide = self.xp.expand_dims(x, axis + 1)
                pads = [(0, 0)] * wide.ndim
                pads[axis + 1] = (0, s - 1)
                wide = self.xp.pad(wide, pads)
                wide = wide.reshape((*x.shape[:axis], x.shape[axis] * s, *x.shape[axis + 1 :]))
                keep: list[Any] = [slice(None)] * x.ndim
                keep[axis] = slice(0, (x.shape[axis] - 1) * s + 1)
                x = wide[tuple(keep)]
        return x


class NumpyBackend(Backend):
    """NumPy, in the dtype of the arrays given."""

    def __init__(self) -> None:
        from tangency.models.namespace import numpy_namespace

        super().__init__(np, numpy_namespace)

    def conv(
        self,
        x: Array,
        w: Array,
        stride: tuple[int, ...],
        pads: Pads,
        dilation: tuple[int, ...],
        groups: int,
    ) -> Array:
        x = np.pad(x, ((0, 0), (0, 0), *pads))
        kernel, out_channels = w.shape[2:], w.shape[0]
        cols = self.windows(x, kernel, stride, dilation)  # (N, C, *out, *K)
        places = cols.shape[2 : 2 + len(kernel)]
        n, taps = x.shape[0], int(np.prod(kernel))
        cols = cols.reshape(n, groups, -1, int(np.prod(places)), taps)
        cols = cols.transpose(1, 0, 3, 2, 4).reshape(groups, n * cols.shape[3], -1)
        rows = w.reshape(groups, out_channels // groups, -1).transpose(0, 2, 1)
        out = (cols @ rows).reshape(groups, n, -1, out_channels // groups)
        return out.transpose(1, 0, 3, 2).reshape(n, out_channels, *places)


class JaxBackend(Backend):
    """JAX, traceable and differentiable."""

    def __init__(self) -> None:
        import jax.numpy as jnp

        from tangency.models.namespace import jax_namespace

        super().__init__(jnp, jax_namespace())

    def conv(
        self,
        x: Array,
        w: Array,
        stride: tuple[int, ...],
        pads: Pads,
        dilation: tuple[int, ...],
        groups: int,
    ) -> Array:
        from jax import lax

        return lax.conv_general_dilated(
            x,
            w,
            stride,
            pads,
            rhs_dilation=dilation,
            feature_group_count=groups,
            precision=lax.Precision.HIGHEST,
        )

    def divide(self, x: Array, y: Array) -> Array:
        from jax import lax

        # XLA sees a divisor that is broadcast and multiplies by its reciprocal, which is off by an
        # ulp: floor(x / 7) is then wrong at multiples of 7. It does not look behind a barrier.
        shape = self.xp.broadcast_shapes(x.shape, y.shape)
        held = lax.optimization_barrier(self.xp.broadcast_to(y, shape))  # type: ignore[no-untyped-call]
        return x / held


@lru_cache(maxsize=1)
def numpy_backend() -> NumpyBackend:
    """The NumPy backend."""
    return NumpyBackend()


@lru_cache(maxsize=1)
def jax_backend() -> JaxBackend:
    """The JAX backend; imports JAX on first use."""
    return JaxBackend()
