"""Reading a file that a user named: one clear error for each way in which it cannot be read."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from tangency.files import unpack_limit
from tangency.models.errors import InputError

__all__ = ["as_path", "read_file"]


def as_path(path: str | os.PathLike[str], forms: str) -> Path:
    """The path of an existing file that is not empty.

    Raises
    ------
    InputError
        For a missing file, a directory or an empty file: names the path and what is accepted.
    """
    where = Path(path)
    try:
        if where.is_dir():
            raise InputError(f"{where}: is a directory; give {forms}")
        if not where.exists():
            raise InputError(f"{where}: no such file; give {forms}")
        if where.is_file() and where.stat().st_size == 0:
            raise InputError(f"{where}: the file is empty; give {forms}")
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)[:200]!r}: not a path of a file ({error})") from None
    return where


def read_file(path: str | os.PathLike[str], forms: str) -> bytes:
    """The bytes of a file, unpacked if it is compressed by gzip.

    Raises
    ------
    InputError
        When it cannot be read or unpacked: names the path and what is accepted.
    """
    where = as_path(path, forms)
    try:
        data = where.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: {error.strerror or error}; give {forms}") from None
    return unpacked(data, str(where))


def unpacked(data: bytes, label: str) -> bytes:
    """The data, unpacked if it is compressed by gzip; InputError when that fails."""
    import io

    if data[:2] != b"\x1f\x8b":
        return data
    most = unpack_limit(len(data))
    try:
        with gzip.open(io.BytesIO(data)) as file:
            plain = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{label}: the gzip file is damaged: {error}") from None
    if len(plain) > most:
        raise InputError(f"{label}: unpacks to more than {most} bytes: give it unpacked")
    return plain
