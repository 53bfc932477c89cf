"""Empirical tangent kernels in NumPy or CuPy: what their contraction asks of arrays, random signs.

The contraction itself, sums of ``(A A^T) o (B B^T)`` over layers, is written once, in
``tangency.theory.ntk.contraction``, for any library that has :class:`DeviceAlgebra`'s methods.
Random signs come from a hash of their place, so that every machine and device draws the same ones
and none are carried to a device.

References
----------
Novak, Sohl-Dickstein, Schoenholz, "Fast Finite Width Neural Tangent Kernel", arXiv 2206.08720;
Achlioptas, "Database-friendly random projections", JCSS 2003.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tangency.gpu.engines import Engine
from tangency.gpu.errors import PlanError

__all__ = ["DeviceAlgebra", "signs"]

Array = Any  # of NumPy or of CuPy


class DeviceAlgebra:
    """The array operations of a contraction, on the device of an engine.

    Parameters
    ----------
    engine : Engine
        From :func:`tangency.gpu.engines.engine_for`.
    dtype : float32 or float64
        Of the kernel.
    """

    blocks = 8  # products of thin blocks cost a BLAS little

    def __init__(self, engine: Engine, dtype: Any) -> None:
        self.engine, self.xp, self.dtype = engine, engine.xp, np.dtype(dtype)

    def array(self, x: Any) -> Array:
        """An array of any library in host memory, or one that is on the device already."""
        return x if isinstance(x, self.xp.ndarray) else self.xp.asarray(np.asarray(x))

    def host(self, x: Array) -> np.ndarray[Any, Any]:
        """A NumPy array of the same numbers."""
        return self.engine.fetch(x)()

    def einsum(self, path: str, *arrays: Array) -> Array:
        """Einstein summation by matrix products; CuPy takes no tensor-float ones by itself."""
        if path == "ip,jp->ij":  # most of the work, and for small arrays most of the calls
            return arrays[0] @ arrays[1].T
        return self.xp.einsum(path, *arrays, optimize=True)

    def each(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """Loop over the first axis."""
        return self.xp.stack([function(*entry) for entry in zip(*arrays, strict=True)])

    def same(self, left: Array, right: Array) -> Array:
        """Whether two indices agree and train a row."""
        both = (left[:, None, None] == right[None]) & (left[:, None, None] >= 0)
        return both.astype(self.dtype)

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Join along an axis."""
        return self.xp.concatenate(list(arrays), axis)


def signs(
    rows: int, count: int, key: Sequence[int], *, dtype: Any = np.float32, xp: Any = np
) -> Array:
    """Independent +1 and -1, each a bit of a hash of its place and the key.

    Parameters
    ----------
    rows, count : int
        ``rows * count`` is at most 2^37: a place is a number of 32 bits, a hash 32 signs.
    key : sequence of int
        Not negative; another key of the same length gives other signs.
    dtype : dtype
    xp : module
        NumPy or CuPy: the numbers are the same.

    Returns
    -------
    (rows, count) array

    Raises
    ------
    PlanError
        For more signs than there are places.
    """
    words = -(-count // 32)
    if rows * words > 2**32:
        raise PlanError(f"{rows} x {count} signs of one key: at most 2^37")
    one, two = np.random.SeedSequence(list(key)).generate_state(2)
    # Two keys, so that no range of places of one key is a range of another's.
    hashed = _mixed(_mixed(xp.arange(rows * words, dtype=np.uint32) + one) ^ two)
    bits = xp.unpackbits(hashed.view(np.uint8)).reshape(rows, 32 * words)[:, :count]
    out = bits.astype(dtype)
    out *= 2
    out -= 1
    return out


def _mixed(x: Array) -> Array:
    """A bijection of 32 bits in which every bit of x moves every bit of the result (in place)."""
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    x ^= x >> 16
    return x
