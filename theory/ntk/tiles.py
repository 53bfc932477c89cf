"""The kernel in tiles of samples, under a memory budget, the same for both front ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from tangency.models.errors import InputError

__all__ = ["MEMORY", "Model", "Replanned", "assemble", "chunk_size", "tile_size"]

#: Memory that the sites of two tiles may take, in bytes; a pass over a chunk takes a quarter more.
MEMORY = 256 * 2**20
Progress = Callable[[int, int], None]


class Replanned(Exception):
    """A model found that it must hold a site otherwise than in the tiles before."""


class Model(Protocol):
    """A model as the kernel engine sees it: a Network in JAX or a module in torch."""

    dtype: np.dtype[Any]
    algebra: Any

    @property
    def size(self) -> int:
        """Outputs of a sample."""

    @property
    def home(self) -> str:
        """The kind of device that the model runs on: "cpu", "cuda" or another of torch."""

    def scope(self) -> Any:
        """Context of the arrays that :meth:`sites` returns."""

    def inputs(self, name: str, x: Any) -> Any:
        """Checked samples."""

    def numbers(self, outputs: str, n: int, k: int, features: int = 0) -> tuple[int, int]:
        """Numbers that the sites of one sample hold, and those of the passes besides."""

    def sites(
        self, x: Any, directions: Any, *, outputs: str, n: int, chunk: int, features: int = 0
    ) -> Any:
        """What the sites hold for the samples x: ``(sites, arrays)``."""

    def product(self, left: Any, right: Any, outputs: str) -> np.ndarray:
        """Kernel of two tiles."""

    def own(self, tile: Any, outputs: str) -> np.ndarray:
        """Kernel of a tile with itself."""

    def whole(self, x: Any, directions: Any, *, outputs: str, chunk: int) -> np.ndarray:
        """Kernel of one tile with itself, sites and products together."""


def tile_size(model: Model, outputs: str, n: int, k: int, memory: int) -> int:
    """Samples in a tile, so that the tiles are of equal size and two of them fit the memory."""
    numbers, _ = model.numbers(outputs, n, k)
    width = k * k if outputs == "full" else k if outputs == "diagonal" else 1
    most = max(1, memory // (2 * numbers * model.dtype.itemsize))
    if n * numbers * model.dtype.itemsize <= memory:
        most = n
    # The kernel of two tiles is held a few times over while it is summed.
    square = int((memory / (4 * width * model.dtype.itemsize)) ** 0.5)
    most = max(1, min(most, square))
    tiles = -(-n // most)
    return -(-n // tiles)


def chunk_size(model: Model, outputs: str, n: int, k: int, memory: int) -> int:
    """Samples that go forward and back at a time, in chunks of equal size."""
    numbers, work = model.numbers(outputs, n, k)
    # A quarter: more would not fit the processor's caches, and small chunks cost little.
    most = max(1, memory // (4 * (numbers + work) * model.dtype.itemsize))
    if most >= n:
        return n
    return -(-n // -(-n // most))


def assemble(
    model: Model,
    x1: Any,
    x2: Any | None,
    directions: np.ndarray,
    *,
    outputs: str,
    tile: int | None,
    memory: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """The kernel (n1, n2), (n1, n2, K) or (n1, n2, K, K), summed over outputs for ``trace``."""
    while True:
        try:
            return _assemble(model, x1, x2, directions, outputs, tile, memory, progress)
        except Replanned:  # at most once for each of its layers
            continue


def _assemble(
    model: Model,
    x1: Any,
    x2: Any | None,
    directions: np.ndarray,
    outputs: str,
    tile: int | None,
    memory: int,
    progress: Progress | None,
) -> np.ndarray:
    k = len(directions)
    other = x1 if x2 is None else x2
    n = max(len(x1), len(other))
    tile = tile_size(model, outputs, n, k, memory) if tile is None else tile
    if tile < 1:
        raise InputError(f"batch_size={tile}: at least one sample")
    chunk = chunk_size(model, outputs, min(tile, n), k, memory)
    if x2 is None and tile >= len(x1):
        block = model.whole(x1, directions, outputs=outputs, chunk=chunk)
        if progress is not None:
            progress(1, 1)
        return _ordered(block, outputs)
    shape = {"trace": (), "diagonal": (k,), "full": (k, k)}[outputs]
    kernel = np.empty((len(x1), len(other), *shape), model.dtype)
    rows = [slice(i, min(i + tile, len(x1))) for i in range(0, len(x1), tile)]
    columns = [slice(j, min(j + tile, len(other))) for j in range(0, len(other), tile)]
    pairs = [(r, c) for r in rows for c in columns if x2 is not None or c.start >= r.start]
    options: dict[str, Any] = {"outputs": outputs, "n": n, "chunk": chunk}
    row, left = None, None
    kept = model.sites(other[columns[0]], directions, **options) if len(columns) == 1 else None
    for done, (r, c) in enumerate(pairs, 1):
        if r is not row:
            row, left = r, None  # the tile before is let go first
            if x2 is None and kept is not None:
                left = kept
            else:
                left = model.sites(x1[r], directions, **options)
        if x2 is None and r == c:
            kernel[r, c] = _ordered(model.own(left, outputs), outputs)
        else:
            right = kept if kept is not None else model.sites(other[c], directions, **options)
            block = _ordered(model.product(left, right, outputs), outputs)
            kernel[r, c] = block
            if x2 is None:
                swapped = np.swapaxes(block, 0, 1)
                kernel[c, r] = np.swapaxes(swapped, 2, 3) if outputs == "full" else swapped
        if progress is not None:
            progress(done, len(pairs))
    return kernel


def _ordered(block: np.ndarray, outputs: str) -> np.ndarray:
    """The axes (i, a, j, b) of contraction as (i, j, a, b)."""
    return np.ascontiguousarray(block.transpose(0, 2, 1, 3)) if outputs == "full" else block
