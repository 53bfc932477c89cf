"""Tiles of a kernel matrix: their shape, and one of them by the reference walk."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.arrays import real_array
from tangency.models.errors import InputError
from tangency.theory.kernels.plan import Plan
from tangency.theory.kernels.walk import walk
from tangency.theory.kernels.walk_state import Block

__all__ = ["batch", "tile", "tile_shape", "values"]

Array = np.ndarray[Any, np.dtype[np.float64]]

TILE_ENTRIES = 3_000_000  # numbers in one block of a tile
TILE_ROWS = 512


def tile(plan: Plan, x1: Array, x2: Array | None, names: tuple[str, ...]) -> dict[str, Array]:
    """The kernels between two batches that fit the memory; ``x2=None`` for one with itself."""
    sides = (x1,) if x2 is None else (x1, x2)
    state = walk(plan, sides, cross=True, ntk="ntk" in names)
    assert state.cross is not None
    out = {}
    for name in names:
        array = np.array(values(state.cross, name))
        if x2 is None:
            upper = np.triu(array, 1)
            array = upper + upper.T
            np.fill_diagonal(array, values(state.own[0], name))
        out[name] = array
    return out


def values(block: Block, name: str) -> Array:
    """The block's NNGP or NTK."""
    array = block.s if name == "nngp" else block.t
    assert array is not None
    return array


def batch(name: str, x: Any) -> Array:
    """Samples in float64; InputError for what is no finite batch."""
    array: Array = real_array(name, x).astype(np.float64, copy=False)
    if array.ndim < 2:
        raise InputError(f"{name} is a batch (n, *sample), got shape {array.shape}")
    if 0 in array.shape[1:]:
        raise InputError(f"{name} has shape {array.shape}: a sample has no entries")
    if not np.isfinite(array).all():
        raise InputError(f"{name} has a NaN or infinite entry")
    return array


def tile_shape(plan: Plan, n1: int, n2: int, *, symmetric: bool) -> tuple[int, int]:
    """Rows and columns of a tile: square where there are sites, whose own blocks cost as much."""
    entries = max(1, TILE_ENTRIES // plan.widest_site_pair)
    side = max(1, min(TILE_ROWS, int(np.sqrt(entries))))
    if symmetric:
        # Eight tiles a side leave a sixteenth of the square computed twice.
        side = min(side, max(32 if plan.widest_site_pair == 1 else 4, -(-n1 // 8)))
        return side, side
    return min(side, max(n1, 1)), max(1, min(n2, entries // min(side, max(n1, 1)), TILE_ROWS))
