"""Gram matrices of any size, a tile at a time, into arrays in memory or on disk.

A store is anything that is written by ``store[rows, columns] = tile``: an array, a memory map, a
zarr array (see :mod:`.stores`). Beside a store on disk a journal names every tile that is
finished (:mod:`.journal`); a run that was killed goes on behind it, once it has seen that the
finished tiles still hold what they held. The tile that was being written is written again: tiles
are idempotent.

A device works on two tiles at a time: one is computed while the one before it is copied to the
host and written.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.digests import compare, digest, is_there
from tangency.gpu.errors import PlanError
from tangency.gpu.journal import Journal

__all__ = ["Progress", "fill", "one_ahead", "side_within", "tile_slices"]

Array = Any
Tile = tuple[slice, slice]
TileFunction = Callable[[slice, slice], Any]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    done, total : int
        Tiles, those of earlier runs included.
    seconds, left : float
        Of this run so far, and an estimate of what is left of it (by entries, not by tiles).
    """

    done: int
    total: int
    seconds: float
    left: float


def tile_slices(n1: int, n2: int, tile: int, *, symmetric: bool = False) -> Iterator[Tile]:
    """Rows and columns of every tile; of a symmetric matrix those on and above the diagonal."""
    if tile < 1:
        raise PlanError(f"tile = {tile}: a number of rows from 1")
    for i in range(0, n1, tile):
        for j in range(i if symmetric else 0, n2, tile):
            yield slice(i, min(i + tile, n1)), slice(j, min(j + tile, n2))


def side_within(memory: float, entry: float, *, row: float = 0.0, most: int = 8192) -> int:
    """The largest tile within a budget: a multiple of 64 rows where there are so many.

    Parameters
    ----------
    memory : float
        Bytes for all tiles that are in work together.
    entry, row : float
        Bytes that one entry, and one row or column, of a tile takes in all of them.
    most : int
        Larger tiles are not wanted.

    Raises
    ------
    PlanError
        If not even one row and column fits.
    """
    side = min(most, int((math.sqrt(row * row + 4.0 * entry * max(memory, 0.0)) - row) / 2 / entry))
    if side < 1:
        raise PlanError(f"memory = {memory:.3g} bytes: a tile of one entry takes {entry + row:.3g}")
    return side - side % 64 if side >= 64 else side


def fill(
    store: Array | dict[str, Array],
    compute: TileFunction,
    *,
    tile: int,
    symmetric: bool = False,
    journal: Journal | None = None,
    progress: Callable[[Progress], None] | None = None,
    threads: int = 1,
) -> None:
    """Compute every tile that is not finished and write it, and its mirror.

    Parameters
    ----------
    store : array (n1, n2) of NumPy, zarr or a memory map, or a dict of several
    compute : callable (rows, columns) -> array, or -> callable () -> array
        For a dict of stores, dicts of arrays with its names. With the second form a device
        copies one tile while it computes the next.
    tile : int
    symmetric : bool
        Compute one triangle alone.
    journal : Journal, optional
        Notes every tile that is written, with its checksum; one that the stores no longer hold is
        computed again, with a warning. Memory maps are forced to disk in at most a tenth of the
        time, which is noted too; zarr leaves that to the system.
    progress : callable, optional
        Called with a :class:`Progress` after every tile.
    threads : int
        For functions that compute at once: so many tiles at a time.

    Raises
    ------
    PlanError
        For a symmetric matrix that is not square, a journal of another, or stores that hold none
        of the tiles that the journal names.
    """
    stores = store if isinstance(store, dict) else {"": store}
    n1, n2 = next(iter(stores.values())).shape
    if symmetric and n1 != n2:
        raise PlanError(f"a symmetric matrix of shape {(n1, n2)}")
    every = list(tile_slices(n1, n2, tile, symmetric=symmetric))
    finished = set() if journal is None else _still_there(stores, every, journal, symmetric)
    rest = [t for t in every if (t[0].start, t[1].start) not in finished]
    total, done = sum(_entries(t) for t in rest), 0
    count, begun = len(every) - len(rest), time.monotonic()

    disk = _Disk(stores, journal)

    def write(at: Tile, found: Any) -> Tile:
        here, there = at
        blocks = found if isinstance(found, dict) else {"": found}
        held = {n: np.asarray(blocks[n]).astype(a.dtype, copy=False) for n, a in stores.items()}
        for name, array in stores.items():
            array[here, there] = held[name]
            if symmetric and here != there:
                array[there, here] = held[name].T
        if journal is not None:
            journal.add(here, there, digest(held.values()))
            disk.now_and_then()
        return at

    if threads == 1:
        written: Iterator[Tile] = (write(at, block) for at, block in one_ahead(compute, rest))
    else:
        written = _in_threads(lambda at: write(at, _block(compute(*at))), rest, threads)
    try:
        for at in written:
            done, count = done + _entries(at), count + 1
            if progress is not None:
                seconds = time.monotonic() - begun
                progress(Progress(count, len(every), seconds, seconds * (total - done) / done))
    finally:
        disk.sync()


def _still_there(
    stores: dict[str, Array], every: list[Tile], journal: Journal, symmetric: bool
) -> set[tuple[int, int]]:
    """The finished tiles of a journal that the stores hold as they were."""
    recorded = journal.finished()
    by_start = {(here.start, there.start): (here, there) for here, there in every}
    if not recorded.keys() <= by_start.keys():
        raise PlanError(f"{journal.path} is damaged: it names tiles that this matrix does not have")
    kept = {
        start
        for start, held in recorded.items()
        if is_there(stores.values(), by_start[start], held, mirrored=symmetric)
    }
    compare(journal.path, len(recorded), len(recorded) - len(kept))
    return kept


def one_ahead(compute: TileFunction, tiles: Iterable[Tile]) -> Iterator[tuple[Tile, Any]]:
    """Yield each tile and its block; one that is waited for has the next begun behind it.

    Parameters
    ----------
    compute : callable (rows, columns) -> block, or -> callable () -> block
    tiles : iterable of (rows, columns)
    """
    waiting: tuple[Tile, Any] | None = None
    for at in tiles:
        result = compute(*at)
        if waiting is not None:
            yield waiting[0], waiting[1]()
        waiting = (at, result) if callable(result) else None
        if waiting is None:
            yield at, result
    if waiting is not None:
        yield waiting[0], waiting[1]()


def _in_threads(work: Callable[[Tile], Tile], rest: list[Tile], threads: int) -> Iterator[Tile]:
    """Yield each tile that is done; errors of a thread are raised here."""
    with ThreadPoolExecutor(threads) as pool:
        pending: set[Future[Tile]] = set()
        queue = iter(rest)
        try:
            while True:
                while len(pending) < threads and (following := next(queue, None)) is not None:
                    pending.add(pool.submit(work, following))
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()


class _Disk:
    """Forces memory maps to disk, and has the journal say so; in a tenth of the time at most."""

    def __init__(self, stores: dict[str, Array], journal: Journal | None) -> None:
        self.maps = [array for array in stores.values() if isinstance(array, np.memmap)]
        self.journal, self.marked = journal, 0 if journal is None else journal.count
        self.last, self.cost = time.monotonic(), 0.0
        self._lock = threading.Lock()

    def now_and_then(self) -> None:
        """As often as it is cheap; nobody waits for another who does it."""
        if time.monotonic() - self.last >= 9.0 * self.cost and self._lock.acquire(blocking=False):
            try:
                self._force()
            finally:
                self._lock.release()

    def sync(self) -> None:
        """At the end of a run."""
        with self._lock:
            self._force()

    def _force(self) -> None:
        if self.journal is None or self.journal.count == self.marked:
            return
        begun = time.monotonic()
        count = self.journal.count  # tiles noted from now on may be written after the forcing
        for array in self.maps:
            array.flush()
        self.journal.mark(count)
        self.marked, self.last = count, time.monotonic()
        self.cost = self.last - begun


def _block(result: Any) -> Any:
    return result() if callable(result) else result


def _entries(tile_at: Tile) -> int:
    here, there = tile_at
    return int((here.stop - here.start) * (there.stop - there.start))
