"""Gram matrices of any size, a tile at a time, into an array that may lie on disk.

A store is anything that is written by ``store[rows, columns] = tile``: an array, a memory map, a
zarr array. Beside a store on disk a journal names every tile that is finished; a run that was
killed goes on behind it. The tile that was being written is written again: tiles are idempotent.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["Journal", "Progress", "fill", "open_store", "tile_slices"]

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


@dataclass(frozen=True)
class Journal:
    """Finished tiles of one store, a line each, behind a line that says of what.

    Attributes
    ----------
    path : Path
    what : dict
        Plain data that must agree for a run to go on: shape, tile, type, a hash of data and plan.
    """

    path: Path
    what: dict[str, Any]

    def finished(self) -> set[tuple[int, int]]:
        """First row and column of every finished tile; begins the file where there is none.

        Raises
        ------
        PlanError
            If the journal is of another matrix.
        """
        head = json.dumps(self.what, sort_keys=True)
        if not self.path.exists():
            begun = self.path.with_name(self.path.name + ".new")
            begun.write_text(head + "\n", encoding="utf-8")
            os.replace(begun, self.path)
            return set()
        # A kill may leave half a line at the end: only lines with their end count.
        first, *lines = self.path.read_text(encoding="utf-8").split("\n")
        if json.loads(first) != json.loads(head):
            raise PlanError(f"{self.path} is the journal of another matrix: {first}")
        pairs = (line.split() for line in lines[:-1])
        # A line that was cut and then continued is no pair of numbers with its end mark.
        return {(int(p[0]), int(p[1])) for p in pairs if len(p) == 3 and p[2] == "."}

    def add(self, here: slice, there: slice) -> None:
        """Note a tile, on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{here.start} {there.start} .\n")
            file.flush()
            os.fsync(file.fileno())


def open_store(path: str | Path, shape: tuple[int, int], dtype: Any, tile: int) -> Any:
    """A matrix on disk to fill, made if it is not there.

    Parameters
    ----------
    path : path
        ``.npy`` for a memory map, ``.zarr`` for a compressed array in chunks of one tile.
    shape : (n1, n2)
    dtype : dtype
    tile : int

    Raises
    ------
    PlanError
        If the file there has another shape or type, or its ending is neither.
    """
    path = Path(path)
    store: Any
    if path.suffix == ".npy":
        if path.exists():
            store = np.load(path, mmap_mode="r+")
        else:
            store = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    elif path.suffix == ".zarr":
        try:
            import zarr
        except ImportError as error:
            raise PlanError(f"{path} needs zarr: pip install 'tangency[cluster]'") from error
        if path.exists():
            store = zarr.open_array(path, mode="r+")
        else:
            # A chunk is a tile, so that no two tiles ever write one chunk.
            chunks = tuple(min(tile, n) for n in shape)
            store = zarr.create_array(path, shape=shape, dtype=np.dtype(dtype).name, chunks=chunks)
    else:
        raise PlanError(f"{path}: a store ends in .npy or .zarr")
    if tuple(store.shape) != tuple(shape) or np.dtype(store.dtype) != np.dtype(dtype):
        raise PlanError(f"{path} holds {store.shape} of {store.dtype}, not {shape} of {dtype}")
    return store


def fill(
    store: Array,
    compute: TileFunction,
    *,
    tile: int,
    symmetric: bool = False,
    journal: Journal | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Compute every tile that is not finished and write it, and its mirror.

    Parameters
    ----------
    store : array (n1, n2), of NumPy, zarr or a memory map
    compute : callable (rows, columns) -> array, or -> callable () -> array
        With the second form a device copies one tile while it computes the next.
    tile : int
    symmetric : bool
        Compute one triangle alone.
    journal : Journal, optional
    progress : callable, optional
        Called with a :class:`Progress` after every tile.
    """
    n1, n2 = store.shape
    if symmetric and n1 != n2:
        raise PlanError(f"a symmetric matrix of shape {store.shape}")
    every = list(tile_slices(n1, n2, tile, symmetric=symmetric))
    finished = set() if journal is None else journal.finished()
    rest = [t for t in every if (t[0].start, t[1].start) not in finished]
    total = sum(_entries(t) for t in rest)
    done, begun = 0, time.monotonic()
    waiting: tuple[Tile, Any] | None = None

    def write(tile_at: Tile, result: Any) -> None:
        nonlocal done
        here, there = tile_at
        block = result() if callable(result) else result
        store[here, there] = block
        if symmetric and here != there:
            store[there, here] = block.T
        if journal is not None:
            if isinstance(store, np.memmap):
                store.flush()
            journal.add(here, there)
        done += _entries(tile_at)
        if progress is not None:
            seconds = time.monotonic() - begun
            finished.add((here.start, there.start))
            left = seconds * (total - done) / done
            progress(Progress(len(finished), len(every), seconds, left))

    for at in rest:
        result = compute(*at)  # begun before the tile before it is waited for
        if waiting is not None:
            write(*waiting)
        waiting = (at, result)
    if waiting is not None:
        write(*waiting)


def _entries(tile_at: Tile) -> int:
    here, there = tile_at
    return int((here.stop - here.start) * (there.stop - there.start))
