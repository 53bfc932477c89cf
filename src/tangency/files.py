"""Files that are there whole or not at all, room that is there before it is used, and locks.

The lowest room: it knows the standard library alone, and everything that writes a file stands on
it. Errors are those of the system (``OSError``); each caller says them in its own words.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: no locks there
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked", "replacing", "require_writable", "reserve", "why", "write"]


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes its place under ``path`` when the block ends without an error.

    It is written beside under a name that nobody else takes, brought to the disk and moved over:
    whatever happens, a full disk or a kill, the file under ``path`` is the old one or the new one,
    whole. A link is followed; what is no regular file (``/dev/stdout``) is written as it is.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left of it then.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    if target.exists() and not os.access(target, os.W_OK):  # the folder alone would let us
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    beside = target.with_name(f".{target.name[:200]}.{os.getpid()}.{secrets.token_hex(4)}.part")
    # Not tempfile's: its files are for the owner's eyes alone, here the umask decides.
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            with suppress(OSError):
                shutil.copymode(target, beside)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    with suppress(OSError):  # the name, too: where the system can open a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write(path: str | Path, data: bytes | str) -> None:
    """Write a whole file by :func:`replacing`; a text in UTF-8."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def require_writable(path: str | Path, *, folder: bool = False) -> None:
    """Look, before any work, whether :func:`replacing` can write a file, or a folder can be made.

    Raises
    ------
    OSError
        If a file is to be a folder or a folder a file, or its folder is not there or not writable.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir() != folder and target.exists():
        code = errno.ENOTDIR if folder else errno.EISDIR
        raise OSError(code, os.strerror(code))
    place = target if folder else target.parent
    while folder and not place.exists():
        place = place.parent
    if not place.is_dir():
        code = errno.ENOTDIR if place.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code))
    # What is no regular file (/dev/stdout) is written where it is, and nothing beside it.
    place = target if target.exists() and not target.is_file() else place
    if not os.access(place, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def reserve(path: str | Path, size: int) -> None:
    """Take the blocks of a file of ``size`` bytes on the disk; what it holds stays.

    A hole of a memory map that the disk has no block for kills the process that writes there.

    Raises
    ------
    OSError
        If the disk has no room for it.
    """
    with Path(path).open("r+b") as file:
        held = os.fstat(file.fileno())
        blocks = getattr(held, "st_blocks", 0) * 512
        if held.st_size >= size and blocks >= size:
            return
        if shutil.disk_usage(Path(path).parent).free < size - blocks:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        # A file system that reserves nothing: write what is there once more, block by block.
        file.truncate(max(held.st_size, size))
        step = 1 << 20
        for start in range(0, size, step):
            file.seek(start)
            block = file.read(min(step, size - start))
            file.seek(start)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold ``<path>.lock`` for the block, so that no other process works on the file.

    The lock is the system's: it goes with the process, and so does, in the end, the file.

    Raises
    ------
    BlockingIOError
        If another holds it; the message names its process and machine.
    OSError
        If no file can be made there.
    """
    if fcntl is None:
        yield
        return
    lock = Path(f"{os.path.realpath(path)}.lock")
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have taken the file away between the two lines above.
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
                break
            os.close(handle)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise BlockingIOError(errno.EAGAIN, f"in use by {holder}") from None
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                yield  # a file system without locks
                return
            raise
    try:
        with suppress(OSError):  # a full disk has no room for a name, and the lock holds without
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(handle)


def why(error: OSError) -> str:
    """What went wrong, for a message that names the file itself.

    >>> why(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device'
    """
    return error.strerror or str(error) or type(error).__name__
