"""Gram matrices of any size, in tiles: in memory, in a memory-mapped file or in zarr.

>>> import numpy as np
>>> from tangency.theory.kernels import Dense, Relu, gram, infinite_kernel, serial
>>> kernel = infinite_kernel(serial(Dense(512), Relu(), Dense(1)))
>>> gram(kernel, np.eye(3), get="ntk", tile=2).shape
(3, 3)
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tangency.gpu.bands import host_memory
from tangency.gpu.errors import DeviceError, PlanError
from tangency.gpu.journal import Journal, alone, fingerprint
from tangency.gpu.stores import open_stores, store_paths
from tangency.gpu.tiles import Progress, fill
from tangency.models.errors import InputError, MissingPackageError
from tangency.theory.kernels.backend import SIDE, Backend, resolve
from tangency.theory.kernels.kernel import Get, Gram, selected, wanted

__all__ = ["gram"]

Array = np.ndarray[Any, Any]


def gram(
    kernel: Any,
    x1: Any,
    x2: Any = None,
    *,
    get: Get = ("nngp", "ntk"),
    out: str | Path | None = None,
    dtype: Any = np.float64,
    tile: int | None = None,
    memory: float | None = None,
    n_jobs: int = 1,
    progress: Callable[[int, int], object] | None = None,
    device: str | None = None,
    key: str | None = None,
    overwrite: bool = False,
) -> Any:
    """The Gram matrix of a kernel, tile by tile.

    With ``x2=None`` the tiles of one triangle are computed and written to both places. A call that
    was interrupted goes on where it stopped when it is made again with the same arguments: finished
    tiles stand in ``<out>.tiles``, under a hash of the data, of the kernel and of the device; those
    that the file no longer holds as they were are computed again, with a warning. With a fused
    kernel the numbers are those of the kernel's own call to rounding of its inner products, whose
    order of summation depends on the tile.

    On a GPU one tile is computed while the one before it is copied to the host and written. Its
    numbers are those of the CPU to 1e-8 of an entry in float64, and in float32 to 2e-6, but for
    convolutions of two small images that nearly coincide: 1e-3 over the number of sites at worst.

    Parameters
    ----------
    kernel : Kernel, neural-tangents ``kernel_fn``, or callable (x1, x2) -> array
    x1 : array (n1, *sample)
        May be a memory map: rows are read a tile at a time.
    x2 : array (n2, *sample), optional
        ``x1`` by default.
    get : "nngp", "ntk" or a tuple of both
    out : path, optional
        ``name.npy`` for a memory-mapped file (two kinds: ``name.nngp.npy``, ``name.ntk.npy``), or
        ``name.zarr`` for a group with an array of each kind. By default the result is in memory.
    dtype : dtype
        float32 or float64: of the result, and of the recursion where the kernel is fused.
    tile : int, optional
        Rows and columns of a tile. By default that of the file where a run goes on, else an
        eighth of the samples, but 512 at least and at most 2,048 on the CPU and 8,192 on a GPU; of
        images fewer, so that a tile takes minutes; and always within the memory.
    memory : float, optional
        Bytes, where the tiles are computed, that tiles in work and samples made ready may take
        (beside a few tens of megabytes in any case): the tile is chosen within it. By default
        most of what is free on a GPU.
    n_jobs : int
        Threads of the CPU; memory holds a few tiles for each.
    progress : callable, optional
        Called with the numbers of finished tiles and of all tiles, after each.
    device : str, optional
        ``"cpu"``, ``"cuda"``, or a device that has plugged in a backend. By default ``"cuda"``
        where CuPy and a GPU are there and the kernel, one of :func:`.infinite_kernel` without
        ``method="reference"``, has a form on it; ``"cpu"`` otherwise.
    key : str, optional
        Names the kernel in the record of a file, for kernels without a ``fingerprint``.
    overwrite : bool
        Begin anew even where finished tiles of this or another matrix, or any other file, stand.

    Returns
    -------
    Gram, or the array (n1, n2) alone where ``get`` is one name
        Arrays are ``numpy.memmap`` or ``zarr.Array`` where they lie in a file.

    Raises
    ------
    InputError
        For sizes below 1, a file of another matrix or one that no run of this function began, a
        file that was cut short or replaced since, a run of another process on the same file, a
        kernel that a file cannot name, a disk without room, or a result that is larger than the
        memory of the machine and has no file.
    UnsupportedError
        Where a device is asked for on which the kernel has no form.
    MissingPackageError
        For zarr, or CuPy and a GPU, where they are asked for and missing.
    """
    names = wanted(get)
    inputs = [file for x in (x1, x2) for file in _files_of(x)]
    x1 = np.asarray(x1)
    symmetric = x2 is None
    right = x1 if x2 is None else np.asarray(x2)
    dtype = np.dtype(dtype)
    _check(x1, right, dtype, tile, memory, n_jobs)
    shape = (len(x1), len(right))
    with _translated(), ExitStack() as held:
        where, backend = resolve(kernel, x1.shape[1:], dtype=dtype, device=device)
        path = None if out is None else Path(out)
        if path is not None and not path.name:
            raise InputError(f"out={str(out)!r}: a matrix on disk is a file, name.npy or name.zarr")
        record = None if path is None else path.with_name(path.name + ".tiles")
        if path is not None and record is not None:
            held.enter_context(alone(record))
            _clear(path, record, names, inputs, overwrite=overwrite)
        side = tile or _recorded(record) or _side(backend, names, x1, max(shape), memory, n_jobs)
        stores: dict[str, Any]
        journal = None
        if path is None or record is None:
            _check_room(math.prod(shape) * dtype.itemsize * len(names))
            stores = {name: np.empty(shape, dtype) for name in names}
        else:
            data = (x1,) if symmetric else (x1, right)
            who = _who(kernel, key)
            mark = fingerprint(*data, who, dtype.str, side, names, where)
            notes = {"tile": side, "device": where}
            journal = Journal(record, {"tangency_gram": 1, "key": mark}, notes)
            # The record comes first: a kill between the two leaves no file without an owner.
            begun = record.exists()
            fresh = not _finished(journal)
            try:
                stores = open_stores(path, names, shape, dtype, side, fresh=fresh)
            except (PlanError, DeviceError):
                if not begun:
                    record.unlink()
                raise
        begin = getattr(backend, "tiles", None)

        def at_once(here: slice, there: slice) -> dict[str, Array]:
            same = symmetric and here == there
            found = backend.tile(x1[here], None if same else right[there], get=names)
            return {name: getattr(found, name) for name in names}

        def told(now: Progress) -> None:
            if progress is not None:
                progress(now.done, now.total)

        ahead = begin and begin(x1, None if symmetric else right, get=names, memory=memory)
        fill(
            stores,
            ahead or at_once,
            tile=side,
            symmetric=symmetric,
            journal=journal,
            progress=told,
            threads=1 if ahead else n_jobs,
        )
    return selected(Gram(stores.get("nngp"), stores.get("ntk"), symmetric), get)


def _check(
    x1: Array, x2: Array, dtype: Any, tile: int | None, memory: float | None, n_jobs: int
) -> None:
    if x1.ndim < 2 or x1.shape[1:] != x2.shape[1:]:
        raise InputError(f"x1 and x2 are batches of equal samples, got {x1.shape} and {x2.shape}")
    if (tile is not None and tile < 1) or n_jobs < 1:
        raise InputError(f"tile = {tile}, n_jobs = {n_jobs}: both are integers from 1")
    if memory is not None and not memory > 0:
        raise InputError(f"memory = {memory}: a number of bytes above 0")
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError(f"dtype {dtype}: it is float32 or float64")


def _check_room(size: int) -> None:
    """An allocation that the system grants and cannot keep ends in a kill, hours later."""
    machine = host_memory()
    if machine is not None and size > machine:
        raise InputError(
            f"the result takes {size / 1e9:.0f} GB and the machine has {machine / 1e9:.0f} GB: "
            "give out='name.npy' or out='name.zarr'"
        )


def _files_of(x: Any) -> Iterator[str]:
    """The files that an array, or the array that it is a view of, is mapped from."""
    while x is not None:
        if isinstance(x, np.memmap) and x.filename:
            yield str(x.filename)
        x = getattr(x, "base", None)


def _clear(
    path: Path, record: Path, names: tuple[str, ...], inputs: list[str], *, overwrite: bool
) -> None:
    """Refuse to write over what is not this engine's, and forget an old record if asked to."""
    there = [file for file in store_paths(path, names) if file.exists()]
    for file in there:
        if any(os.path.exists(given) and os.path.samefile(file, given) for given in inputs):
            raise InputError(f"{file} holds the samples themselves: give out another name")
    if overwrite:
        record.unlink(missing_ok=True)
    elif there and not record.exists():
        raise InputError(
            f"{there[0]} is there, and no record of tiles ({record.name}) beside it: give out "
            "another name, or overwrite=True"
        )


def _finished(journal: Journal) -> dict[tuple[int, int], str]:
    """Tiles that are there; the record of another matrix is refused in words that say why."""
    head = journal.head()
    try:
        return journal.finished()
    except PlanError as error:
        if head is None or {**head, "notes": None} == {**journal.what, "notes": None}:
            raise InputError(f"{error}; overwrite=True begins anew") from error
        begun = head.get("notes", {}).get("device", journal.notes["device"])
        where = "" if begun == journal.notes["device"] else f"; it was begun on device={begun!r}"
        raise InputError(
            f"{journal.path} records the tiles of another matrix (other data, kernel, dtype, "
            f"tile, get or device){where}: give another file or overwrite=True"
        ) from error


def _who(kernel: Any, key: str | None) -> Any:
    who = getattr(kernel, "fingerprint", None) if key is None else key
    if who is None:
        raise InputError(
            f"{type(kernel).__name__} has no fingerprint: give key='...', which names the "
            "kernel in the record of finished tiles"
        )
    return who


def _recorded(record: Path | None) -> int | None:
    """The tile of a run that goes on: a choice by memory may be another today."""
    head = None if record is None or not record.exists() else Journal(record, {}).head()
    if head is None:
        return None
    # Files without the note are of the time when 2,048 was the only default.
    side = head.get("notes", {}).get("tile", SIDE)
    return side if isinstance(side, int) and side > 0 else None


def _side(
    backend: Backend, names: tuple[str, ...], x1: Array, longest: int, memory: float | None,
    n_jobs: int,
) -> int:  # fmt: skip
    choose = getattr(backend, "side", None)
    most = int(choose(names, math.prod(x1.shape[1:]), memory, n_jobs)) if choose else SIDE
    # So many tiles that threads share them evenly, and that the time left can be told.
    return min(most, max(512, -(-longest // 8)))


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the room below in the words of this one."""
    try:
        yield
    except DeviceError as error:
        raise MissingPackageError(str(error)) from error
    except PlanError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InputError(
            f"the disk is full, or a limit reached ({error}): finished tiles are recorded, and the "
            "same call goes on"
        ) from error
