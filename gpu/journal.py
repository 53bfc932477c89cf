"""The record of finished tiles: a text file beside a matrix, by which a killed run goes on.

The first line says in JSON which matrix it is; each further line names a finished tile by its first
row and column, and is written once the tile is. What a process that is killed loses are the tiles
that it was working on. What a machine loses that goes down are those that it had not yet written
to disk: now and then a line ``on disk <count>`` says how many of the tiles before it are there
whatever happens, and after another start of the system, or on another machine, only they count.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["Journal", "fingerprint"]

_TILE = re.compile(r"(\d+) (\d+)")
_MARK = re.compile(r"on disk (\d+)")


class Journal:
    """Finished tiles of one matrix, a line each, behind a line that says of what.

    Parameters
    ----------
    path : Path
    what : dict
        Plain data that must agree for a run to go on: shape, tile, type, a hash of data and plan.
    notes : dict, optional
        Plain data that stands in the first line too, for :meth:`head` to find, and may differ.
    """

    def __init__(
        self, path: Path, what: dict[str, Any], notes: dict[str, Any] | None = None
    ) -> None:
        self.path, self.what, self.notes = path, what, notes or {}
        self.count = 0  # lines of tiles in the file
        self._lock = threading.Lock()

    def head(self) -> dict[str, Any] | None:
        """The first line of the file, None where there is no file.

        Raises
        ------
        PlanError
            If the file is no journal.
        """
        if not self.path.exists():
            return None
        with self.path.open(encoding="utf-8") as file:
            line = file.readline()
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise PlanError(f"{self.path} is no journal of tiles: it begins with {line[:60]!r}")
        return found

    def finished(self) -> set[tuple[int, int]]:
        """First row and column of every finished tile; begins the file where there is none.

        Raises
        ------
        PlanError
            If the journal is of another matrix, or no journal.
        """
        head, start = self.head(), _start_of_the_system()
        if head is None:
            self._write(self.what | {"notes": self.notes | {"start": start}}, [])
            return set()
        notes = head.pop("notes", {})
        if head != json.loads(json.dumps(self.what)):
            raise PlanError(f"{self.path} is the journal of another matrix: {json.dumps(head)}")
        text = self.path.read_text(encoding="utf-8")
        # What stands behind the last newline was cut off by a kill.
        lines = text.split("\n")[1:-1]
        tiles = [line for line in lines if _TILE.fullmatch(line)]
        marks = [int(m[1]) for line in lines if (m := _MARK.fullmatch(line))]
        # Journals without the note are of a time when all lines counted.
        there = max(marks, default=0) if "start" in notes else len(tiles)
        if notes.get("start", start) != start:
            tiles = tiles[:there]
        if not text.endswith("\n") or notes.get("start") != start:
            self._write(head | {"notes": notes | {"start": start}}, [*tiles, f"on disk {there}"])
        self.count = len(tiles)
        return {(int(m[1]), int(m[2])) for line in tiles if (m := _TILE.fullmatch(line))}

    def add(self, here: slice, there: slice) -> None:
        """Note a tile; calls may come from several threads."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(f"{here.start} {there.start}\n")
            self.count += 1

    def mark(self, count: int) -> None:
        """Say that the first ``count`` tiles are on disk; so is the journal when this returns."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(f"on disk {count}\n")
            file.flush()
            os.fsync(file.fileno())

    def _write(self, head: dict[str, Any], lines: list[str]) -> None:
        """The file, whole or not at all."""
        begun = self.path.with_name(f"{self.path.name}.new")
        text = "\n".join([json.dumps(head, sort_keys=True), *lines, ""])
        begun.write_text(text, encoding="utf-8")
        os.replace(begun, self.path)


def _start_of_the_system() -> str:
    """A name of this start of this machine's system, empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


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
