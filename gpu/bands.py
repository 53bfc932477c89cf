"""Tiles of a kernel on a device: samples are prepared in bands of rows, which stay while they fit.

A kernel here is anything with ``batch(x)``, which prepares samples and puts them where it runs, and
``begin(left, right, get=...)``, which begins the kernel of two batches and returns a function that
waits for it. Where all samples fit, each is prepared once; where they do not, those that were
not used for longest give way, so that samples may be a memory map larger than any memory.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["Bands", "band_tiles", "free_memory", "host_memory"]

Array = Any  # of NumPy or of CuPy
Wait = Callable[[], Any]


def free_memory(xp: Any = np) -> int:
    """Bytes that are free where arrays of a module live: on the current device, or on the host."""
    if xp is np:
        # Systems that do not say what is free say what there is, or nothing.
        return _pages("SC_AVPHYS_PAGES") or (host_memory() or 1 << 33) // 2
    free, _ = xp.cuda.runtime.memGetInfo()
    # What CuPy keeps of freed arrays is not free for others, and is for it.
    return int(free) + int(xp.get_default_memory_pool().free_bytes())


def host_memory() -> int | None:
    """Bytes of memory of this machine, None where its system does not say."""
    return _pages("SC_PHYS_PAGES")


class Bands:
    """Batches by rows, made when they are first asked for and kept within a budget.

    Parameters
    ----------
    make : callable rows -> batch
    limit : float
        Bytes of what is kept; the batch asked for last is kept in any case.
    """

    def __init__(self, make: Callable[[slice], Any], limit: float) -> None:
        self.make, self.limit = make, limit
        self._kept: OrderedDict[tuple[int, int], tuple[Any, int]] = OrderedDict()

    def __call__(self, rows: slice) -> Any:
        """The batch of some rows."""
        key = rows.start, rows.stop
        if key not in self._kept:
            batch = self.make(rows)
            size = _size(batch)
            while self._kept and self.size + size > self.limit:
                self._kept.popitem(last=False)
            self._kept[key] = batch, size
        self._kept.move_to_end(key)
        return self._kept[key][0]

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(size for _, size in self._kept.values())


def band_tiles(
    kernel: Any,
    x1: Any,
    x2: Any = None,
    *,
    get: tuple[str, ...] | str = "ntk",
    memory: float | None = None,
    prepare: Callable[[Any], Any] = lambda x: x,
    **options: Any,
) -> Callable[[slice, slice], Wait]:
    """A function ``(rows, columns) -> wait`` for :func:`tangency.gpu.tiles.fill`.

    ``wait()`` is the tile on the host, an array for one name and a dict of them for several; the
    copy runs while the next tile is computed.

    Parameters
    ----------
    kernel : with ``batch`` and ``begin``
    x1, x2 : (n1, ...), (n2, ...) arrays
        Of which bands of rows are read; ``x2=None`` means x1.
    get : {"nngp", "ntk"} or a tuple of both
    memory : float, optional
        Bytes for prepared samples on the device, by default a half of what is free.
    prepare : callable
        From some rows of x1 or x2 to what ``kernel.batch`` takes.
    **options
        For ``kernel.begin``.
    """
    limit = free_memory(kernel.engine.xp) / 2 if memory is None else memory
    parts = 1 if x2 is None else 2
    left = Bands(lambda rows: kernel.batch(prepare(x1[rows])), limit / parts)
    right = left
    if x2 is not None:
        right = Bands(lambda rows: kernel.batch(prepare(x2[rows])), limit / parts)

    def tile(here: slice, there: slice) -> Wait:
        one = left(here)
        # On the diagonal of one batch the kernel knows that it is symmetric.
        two = None if right is left and here == there else right(there)
        wait: Wait = kernel.begin(one, two, get=get, **options)
        return wait

    return tile


def _pages(name: str) -> int | None:
    try:
        return int(os.sysconf(name)) * int(os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return None


def _size(batch: Any) -> int:
    """Bytes of all arrays of a batch."""
    if is_dataclass(batch):
        return sum(_size(getattr(batch, field.name)) for field in fields(batch))
    return int(getattr(batch, "nbytes", 0))
