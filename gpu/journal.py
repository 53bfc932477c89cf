"""The record of finished tiles: a text file beside a matrix, by which a killed run goes on.

The first line says in JSON which matrix it is; each further line names a finished tile by its first
row and column with a checksum of its numbers (:mod:`.digests`), and is written once the tile is.
What a process that is killed loses are the tiles that it was working on. What a machine loses that
goes down are those that it had not yet written to disk: now and then a line ``on disk <count>``
says how many of the tiles before it are there whatever happens, and after another start of the
system, or on another machine, only they count.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import locked, why, write
from tangency.gpu.errors import PlanError

__all__ = ["Journal", "alone", "fingerprint"]

_TILE = re.compile(r"(\d+) (\d+) ([0-9a-f]{8})")
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
        line = self._text().partition("\n")[0]
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("notes", {}), dict):
            raise PlanError(f"{self.path} is no journal of tiles: it begins with {line[:60]!r}")
        return found

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise PlanError(f"{self.path} cannot be read: {why(error)}") from error

    def finished(self) -> dict[tuple[int, int], str]:
        """First row and column of every finished tile, with the digest of what it held.

        Begins the file where there is none.

        Raises
        ------
        PlanError
            If the journal is of another matrix, damaged, or no journal.
        """
        head, start = self.head(), _start_of_the_system()
        if head is None:
            self._write(self.what | {"notes": self.notes | {"start": start}}, [])
            return {}
        notes = head.pop("notes", {})
        if head != json.loads(json.dumps(self.what)):
            raise PlanError(f"{self.path} is the journal of another matrix: {json.dumps(head)}")
        text = self._text()
        tiles, marks = list[tuple[tuple[int, int], str]](), [0]
        # What stands behind the last newline was cut off by a kill.
        for number, line in enumerate(text.split("\n")[1:-1], 2):
            tile, mark = _TILE.fullmatch(line), _MARK.fullmatch(line)
            if tile:
                tiles.append(((int(tile[1]), int(tile[2])), tile[3]))
            elif mark and int(mark[1]) <= len(tiles):
                marks.append(int(mark[1]))
            elif line:  # a line less would count later tiles as earlier ones
                raise PlanError(f"{self.path} is damaged: line {number} is {line[:60]!r}")
        # Journals without the note are of a time when all lines counted.
        there = max(marks) if "start" in notes else len(tiles)
        if notes.get("start", start) != start:
            tiles = tiles[:there]
        if not text.endswith("\n") or notes.get("start") != start:
            lines = [*(f"{i} {j} {held}" for (i, j), held in tiles), f"on disk {there}"]
            self._write(head | {"notes": notes | {"start": start}}, lines)
        self.count = len(tiles)
        return dict(tiles)  # of a tile that was computed again, the last

    def add(self, here: slice, there: slice, held: str) -> None:
        """Note a tile and its digest; calls may come from several threads."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(f"{here.start} {there.start} {held}\n")
            self.count += 1

    def mark(self, count: int) -> None:
        """Say that the first ``count`` tiles are on disk; so is the journal when this returns."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(f"on disk {count}\n")
            file.flush()
            os.fsync(file.fileno())

    def _write(self, head: dict[str, Any], lines: list[str]) -> None:
        text = "\n".join([json.dumps(head, sort_keys=True), *lines, ""])
        try:
            write(self.path, text)
        except OSError as error:
            raise PlanError(f"{self.path} cannot be written: {why(error)}") from error


def _start_of_the_system() -> str:
    """A name of this start of this machine's system, empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


@contextmanager
def alone(record: Path) -> Iterator[None]:
    """Hold the lock of a record, so that no other run fills the matrix beside it.

    Raises
    ------
    PlanError
        If another run holds it, or no file can be made there.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(record))
        except BlockingIOError as error:
            raise PlanError(
                f"{record} is {error.strerror}: two runs do not fill one matrix together"
            ) from error
        except OSError as error:
            raise PlanError(f"{record.parent}: no file can be made there: {why(error)}") from error
        yield


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
