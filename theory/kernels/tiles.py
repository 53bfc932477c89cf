"""Tiles of a Gram matrix, and the record of those that are finished.

The record is a text file beside the matrix: one line that says which matrix it is, then one line a
finished tile, appended once the tile's numbers have been handed to the operating system. A process
that is killed loses the tiles that it was working on and nothing else. (After a power failure
the matrix is to be made anew: tiles are not forced to the disk one by one.)
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["Record", "Tile", "fingerprint", "tiles"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tile:
    """Rows and columns of one tile."""

    rows: slice
    cols: slice

    @property
    def name(self) -> str:
        """First row and column, as the record has them."""
        return f"{self.rows.start} {self.cols.start}"


def tiles(n1: int, n2: int, side: int, *, symmetric: bool) -> Iterator[Tile]:
    """Tiles in order; of the upper triangle alone where the matrix is symmetric."""
    for i in range(0, n1, side):
        for j in range(i if symmetric else 0, n2, side):
            yield Tile(slice(i, min(i + side, n1)), slice(j, min(j + side, n2)))


def fingerprint(*parts: Any) -> str:
    """SHA-256 of arrays (type, shape, bytes) and of the text of anything else."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            for i in range(0, len(part), 4096):
                digest.update(np.ascontiguousarray(part[i : i + 4096]).tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


class Record:
    """The finished tiles of one matrix, on disk.

    Parameters
    ----------
    path : Path
    key : str
        What the matrix depends on; see :func:`fingerprint`.

    Raises
    ------
    InputError
        If the file belongs to another matrix.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.done = path, set[str]()
        self._lock = threading.Lock()
        if path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")
            found = _key(lines[0])
            if found != key:
                raise InputError(
                    f"{path} records the tiles of another matrix (other data, kernel, dtype or "
                    "tile): give another file or overwrite=True"
                )
            # What stands behind the last newline was cut off by a kill.
            self.done = set(lines[1:-1])
            path.write_text("\n".join([lines[0], *sorted(self.done), ""]), encoding="utf-8")
        else:
            path.write_text(json.dumps({"tangency_gram": 1, "key": key}) + "\n", encoding="utf-8")

    def add(self, tile: Tile) -> None:
        """Append a tile."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(tile.name + "\n")
            self.done.add(tile.name)


def _key(line: str) -> Any:
    try:
        return json.loads(line).get("key")
    except (ValueError, AttributeError):
        return None
