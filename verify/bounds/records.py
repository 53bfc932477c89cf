"""A file of named groups of arrays to which groups are appended: what a long run has finished.

The first line says of which run; each record is a line with its name, its length and the SHA-256
of name and arrays, and then the arrays. A kill cuts off the last record, which is then dropped; the
digests guard against accident, not against intent: whoever reads has to prove what is written.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import why, write
from tangency.models.arrays import read_npz
from tangency.models.errors import InputError

__all__ = ["Records"]

Array = Any

_MAGIC = b"tangency-records 2 "
_LINE = re.compile(rb"(\d+(?: \d+)*) : (\d+) ([0-9a-f]{64})\n")
_LONGEST = 200  # bytes of a record's first line


def _digest(name: bytes, data: bytes) -> bytes:
    return sha256(name + b" : " + data).hexdigest().encode()


def _beginning(path: Path, length: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return file.read(length)


class Records:
    """The records of one run; the caller sees to it that no other process has the file.

    Parameters
    ----------
    path : Path
    key : str
        Names the run, of one length for all runs; records of another are refused.

    Raises
    ------
    InputError
        If the file is no such file, of another version or run, damaged, or cannot be written.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._places: dict[tuple[int, ...], tuple[int, int]] = {}
        self._forced, self._cost = 0.0, 0.0
        head = _MAGIC + key.encode() + b"\n"
        try:
            found = _beginning(path, len(head))
            if found != head and head.startswith(found):  # none, or a first line that was cut off
                write(path, head)
            elif found != head and not found.startswith(_MAGIC):
                raise InputError(
                    f"{path}: not a checkpoint of this version: give another name, or remove it"
                )
            elif found != head:
                raise InputError(
                    f"{path}: the checkpoint of another network, data set, radii or options: "
                    "give another name, or remove the file"
                )
            self._scan(len(head))
        except OSError as error:
            raise InputError(f"{path}: cannot be used: {why(error)}") from None

    def __contains__(self, name: tuple[int, ...]) -> bool:
        return name in self._places

    def read(self, name: tuple[int, ...]) -> dict[str, Array]:
        """The arrays of a record."""
        begin, length = self._places[name]
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                return read_npz(file.read(length))
        except OSError as error:
            raise InputError(f"{self.path}: {why(error)}") from None
        except Exception:  # whatever NumPy raises for what is no archive of arrays
            raise self._damaged(begin) from None

    def add(self, name: tuple[int, ...], arrays: Mapping[str, Array]) -> None:
        """Append a record: a kill after this keeps it, and so does, a little later, a power cut."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        data = content.getvalue()
        words = " ".join(map(str, name)).encode()
        line = b"%b : %d %b\n" % (words, len(data), _digest(words, data))
        try:
            with self.path.open("r+b") as file:
                whole = file.seek(0, os.SEEK_END)
                try:
                    file.write(line + data)
                    file.flush()
                    begun = time.monotonic()
                    if begun - self._forced >= 9.0 * self._cost:  # a tenth of the time at most
                        os.fsync(file.fileno())
                        self._forced = time.monotonic()
                        self._cost = self._forced - begun
                except OSError:
                    os.truncate(self.path, whole)
                    raise
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({why(error)})") from None
        self._places[name] = (whole + len(line), len(data))

    def _scan(self, whole: int) -> None:
        """Find the records, and cut off what a kill left of the last one."""
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            while whole < size:
                file.seek(whole)
                line = file.readline(_LONGEST)
                found = _LINE.fullmatch(line)
                begin = whole + len(line)
                if found is None and (begin < size or line.endswith(b"\n")):
                    raise self._damaged(whole)
                if found is None or begin + int(found[2]) > size:
                    break
                length = int(found[2])
                if _digest(found[1], file.read(length)) != found[3]:
                    raise self._damaged(whole)
                self._places[tuple(map(int, found[1].split()))] = (begin, length)
                whole = begin + length
        if whole < size:
            os.truncate(self.path, whole)

    def _damaged(self, at: int) -> InputError:
        return InputError(f"{self.path}: damaged at byte {at}: give another name, or remove it")
