"""Pieces of a matrix in the order in which they are wanted, each read while the last is used.

On a GPU the host reads a piece from memory or disk into one of two pinned buffers, and a stream
of its own copies it to one of two buffers of the device, while the product with the piece before
runs. On NumPy what lies on disk is read by a thread, and what lies in memory is a view.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

__all__ = ["bring", "read_ahead"]

Array = Any  # of NumPy or of CuPy
Piece = tuple[slice, slice]


def read_ahead(matrix: Any, pieces: Sequence[Piece], xp: Any = np) -> Iterator[Array]:
    """Yield ``matrix[rows, columns]`` of each piece as an array of ``xp``.

    Parameters
    ----------
    matrix : (n1, n2) array of NumPy or CuPy, memory map or zarr array
    pieces : sequence of (rows, columns)
        Slices with both ends. Nobody writes to them in between.
    xp : module

    Yields
    ------
    array
        Good until the next is asked for: its memory is then used again.
    """
    if isinstance(matrix, xp.ndarray) and not isinstance(matrix, np.memmap):
        for rows, columns in pieces:
            yield matrix[rows, columns]
    elif xp is np:
        yield from _by_a_thread(matrix, pieces)
    else:
        yield from _by_a_stream(matrix, pieces, xp)


def bring(matrix: Any, xp: Any, *, rows: int = 1024) -> Array:
    """The whole matrix as an array of ``xp``, by bands of rows.

    At once it would be copied through pinned memory of its own size.
    """
    if isinstance(matrix, xp.ndarray):
        return matrix
    n1, n2 = matrix.shape
    out = xp.empty((n1, n2), matrix.dtype)
    pieces = [(slice(i, min(i + rows, n1)), slice(0, n2)) for i in range(0, n1, rows)]
    for (here, _), piece in zip(pieces, read_ahead(matrix, pieces, xp), strict=True):
        out[here] = piece
    return out


def _by_a_thread(matrix: Any, pieces: Sequence[Piece]) -> Iterator[Array]:
    # A copy, for a slice of a memory map is read when it is used, and not before.
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for piece in pieces:
            here, coming = coming, pool.submit(lambda at: np.array(matrix[at]), piece)
            if here is not None:
                yield here.result()
        if coming is not None:
            yield coming.result()


def _by_a_stream(matrix: Any, pieces: Sequence[Piece], xp: Any) -> Iterator[Array]:
    dtype = np.dtype(matrix.dtype)
    size = max((math.prod(_shape(piece)) for piece in pieces), default=0)
    if size == 0:
        return
    copies = xp.cuda.Stream(non_blocking=True)
    memory = [xp.cuda.alloc_pinned_memory(size * dtype.itemsize) for _ in range(2)]
    pinned = [np.frombuffer(m, dtype, size) for m in memory]
    device = [xp.empty(size, dtype) for _ in range(2)]
    current = xp.cuda.get_current_stream()
    # The device's buffers may be of memory that earlier work on this stream still reads.
    free = current.record()
    used, copied = [free, free], [free, free]
    for k, piece in enumerate(pieces):
        slot, shape = k % 2, _shape(piece)
        copied[slot].synchronize()  # the pinned buffer is read no more
        host = pinned[slot][: math.prod(shape)].reshape(shape)
        host[...] = matrix[piece]  # while the product with the piece before runs
        there = device[slot][: math.prod(shape)].reshape(shape)
        copies.wait_event(used[slot])  # the product that read the buffer is done
        there.set(host, stream=copies)
        copied[slot] = copies.record()
        current.wait_event(copied[slot])
        yield there
        used[slot] = current.record()
    # Pinned memory goes back to a pool: not while a copy reads it.
    copies.synchronize()


def _shape(piece: Piece) -> tuple[int, int]:
    rows, columns = piece
    return rows.stop - rows.start, columns.stop - columns.start
