"""Gram matrices of any size, in tiles: in memory, in a memory-mapped file or in zarr.

>>> import numpy as np
>>> from tangency.theory.kernels import Dense, Relu, gram, infinite_kernel, serial
>>> kernel = infinite_kernel(serial(Dense(512), Relu(), Dense(1)))
>>> gram(kernel, np.eye(3), get="ntk", tile=2).shape
(3, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from tangency.models.errors import InputError, MissingPackageError
from tangency.theory.kernels.backend import Backend, backend_of
from tangency.theory.kernels.kernel import Get, Gram, selected, wanted
from tangency.theory.kernels.tiles import Record, Tile, fingerprint, tiles

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
    tile: int = 2048,
    n_jobs: int = 1,
    progress: Callable[[int, int], object] | None = None,
    device: str = "cpu",
    key: str | None = None,
    overwrite: bool = False,
) -> Any:
    """The Gram matrix of a kernel, tile by tile.

    With ``x2=None`` the tiles of one triangle are computed and written to both places. A call
    that was interrupted goes on where it stopped when it is made again with the same arguments:
    finished tiles stand in ``<out>.tiles``, under a hash of the data and of the kernel. With a
    fused kernel the numbers are those of the kernel's own call to rounding of its inner products,
    whose order of summation depends on the tile.

    Parameters
    ----------
    kernel : Kernel, neural-tangents ``kernel_fn``, or callable (x1, x2) -> array
    x1 : array (n1, *sample)
    x2 : array (n2, *sample), optional
        ``x1`` by default.
    get : "nngp", "ntk" or a tuple of both
    out : path, optional
        ``name.npy`` for a memory-mapped file (two kinds: ``name.nngp.npy``, ``name.ntk.npy``), or
        ``name.zarr`` for a group with an array of each kind. By default the result is in memory.
    dtype : dtype
        float32 or float64: of the result, and of the recursion where the kernel is fused.
    tile : int
        Rows and columns of a tile.
    n_jobs : int
        Threads; memory holds a few tiles for each.
    progress : callable, optional
        Called with the numbers of finished tiles and of all tiles, after each.
    device : str
        ``"cpu"``, or a device that has plugged in a backend.
    key : str, optional
        Names the kernel in the record of a file, for kernels without a ``fingerprint``.
    overwrite : bool
        Begin anew even where finished tiles of this or another matrix stand.

    Returns
    -------
    Gram, or the array (n1, n2) alone where ``get`` is one name
        Arrays are ``numpy.memmap`` or ``zarr.Array`` where they lie in a file.

    Raises
    ------
    InputError
        For sizes below 1, a file of another matrix, or a kernel that a file cannot name.
    MissingPackageError
        For zarr where it is not installed.
    """
    names = wanted(get)
    x1 = np.asarray(x1)
    symmetric = x2 is None
    right = x1 if x2 is None else np.asarray(x2)
    dtype = np.dtype(dtype)
    _check(x1, right, dtype, tile, n_jobs)
    shape = (len(x1), len(right))
    todo = list(tiles(*shape, tile, symmetric=symmetric))
    total = len(todo)
    record = None
    if out is None:
        arrays: dict[str, Any] = {name: np.empty(shape, dtype) for name in names}
    else:
        path = Path(out)
        who = getattr(kernel, "fingerprint", None) if key is None else key
        if who is None:
            raise InputError(
                f"{type(kernel).__name__} has no fingerprint: give key='...', which names the "
                "kernel in the record of finished tiles"
            )
        data = (x1,) if symmetric else (x1, right)
        mark = fingerprint(*data, who, dtype.str, tile, names, device)
        beside = path.with_name(path.name + ".tiles")
        if overwrite:
            beside.unlink(missing_ok=True)
        fresh = not beside.exists()
        if not fresh:
            record = Record(beside, mark)
        arrays = _open(path, names, shape, dtype, tile, fresh=fresh)
        record = record or Record(beside, mark)
        todo = [t for t in todo if t.name not in record.done]
    backend = backend_of(kernel, x1.shape[1:], dtype=dtype, device=device)
    finished = total - len(todo)

    def work(t: Tile) -> None:
        same = symmetric and t.rows == t.cols
        _write(arrays, t, _compute(backend, x1[t.rows], None if same else right[t.cols], names),
               mirrored=symmetric and not same)  # fmt: skip
        if record is not None:
            record.add(t)

    for _ in _run(work, todo, n_jobs):
        finished += 1
        if progress is not None:
            progress(finished, total)
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    return selected(Gram(arrays.get("nngp"), arrays.get("ntk"), symmetric), get)


def _check(x1: Array, x2: Array, dtype: Any, tile: int, n_jobs: int) -> None:
    if x1.ndim < 2 or x1.shape[1:] != x2.shape[1:]:
        raise InputError(f"x1 and x2 are batches of equal samples, got {x1.shape} and {x2.shape}")
    if tile < 1 or n_jobs < 1:
        raise InputError(f"tile = {tile}, n_jobs = {n_jobs}: both are integers from 1")
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError(f"dtype {dtype}: it is float32 or float64")


def _compute(backend: Backend, x1: Array, x2: Array | None, names: tuple[str, ...]) -> Gram:
    return backend.tile(x1, x2, get=names)


def _write(arrays: dict[str, Any], t: Tile, part: Gram, *, mirrored: bool) -> None:
    for name, array in arrays.items():
        values = getattr(part, name)
        array[t.rows, t.cols] = values
        if mirrored:
            array[t.cols, t.rows] = values.T


def _run(work: Callable[[Tile], None], todo: list[Tile], n_jobs: int) -> Iterator[None]:
    """Yield once for each tile that is done; errors of a thread are raised here."""
    if n_jobs == 1:
        for t in todo:
            work(t)
            yield
        return
    with ThreadPoolExecutor(n_jobs) as pool:
        pending: set[Future[None]] = set()
        queue = iter(todo)
        try:
            while True:
                while len(pending) < n_jobs and (following := next(queue, None)) is not None:
                    pending.add(pool.submit(work, following))
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()


def _open(
    path: Path,
    names: tuple[str, ...],
    shape: tuple[int, int],
    dtype: Any,
    tile: int,
    *,
    fresh: bool,
) -> dict[str, Any]:
    if path.suffix == ".zarr":
        try:
            import zarr
        except ImportError as error:
            raise MissingPackageError(
                'zarr is not installed: pip install "tangency[cluster]", or give a .npy file'
            ) from error
        group = zarr.open_group(str(path), mode="w" if fresh else "r+")
        if not fresh:
            return {name: group[name] for name in names}
        chunks = (min(tile, max(shape[0], 1)), min(tile, max(shape[1], 1)))
        return {n: group.create_array(n, shape=shape, chunks=chunks, dtype=dtype) for n in names}
    if path.suffix != ".npy":
        raise InputError(f"out = {path}: it ends in .npy or .zarr")
    files = {
        name: path if len(names) == 1 else path.with_name(f"{path.stem}.{name}.npy")
        for name in names
    }
    if not fresh:
        missing = [str(f) for f in files.values() if not f.exists()]
        if missing:
            raise InputError(f"{missing[0]} is gone but its tiles are recorded: overwrite=True")
        return {name: np.lib.format.open_memmap(f, mode="r+") for name, f in files.items()}
    return {
        name: np.lib.format.open_memmap(f, mode="w+", dtype=dtype, shape=shape)
        for name, f in files.items()
    }
