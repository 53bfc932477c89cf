"""The pairs of samples of a tile, and the tile of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["TilePairs"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class TilePairs:
    """All pairs of two batches, or those on and above the diagonal of one.

    Attributes
    ----------
    shape : (int, int)
        Of the tile.
    symmetric : bool
    index : (pairs, 2) int array
        Places in the two batches.
    """

    shape: tuple[int, int]
    symmetric: bool
    index: Array
    _held: Array

    @staticmethod
    def of(rows: int, columns: int, *, symmetric: bool) -> TilePairs:
        """Those of a tile of so many rows and columns."""
        every = np.stack(np.divmod(np.arange(rows * columns), max(columns, 1)), axis=1)
        held = every[:, 0] <= every[:, 1] if symmetric else np.ones(len(every), bool)
        return TilePairs((rows, columns), symmetric, every[held], held)

    def tile(self, values: Array) -> Array:
        """The tile of values in the order of ``index``, mirrored where it is symmetric."""
        full = np.zeros(len(self._held))
        full[self._held] = values
        full = full.reshape(self.shape)
        return full + np.triu(full, 1).T if self.symmetric else full
