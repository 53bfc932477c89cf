"""Many machines: Gram tiles into one zarr array, and jobs of a manifest, on Dask.

Every task is idempotent, writes to disk and returns a number or two, so a worker that is killed
loses nothing: its tasks run again elsewhere. One chunk of the array is one tile, and what a task
has finished is noted beside the array (a tile) or is the result file itself (a job).
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import why, write
from tangency.gpu.digests import compare, digest, is_there
from tangency.gpu.errors import DeviceError, PlanError
from tangency.gpu.gradients import Solution, solve
from tangency.gpu.journal import alone
from tangency.gpu.stores import open_store
from tangency.gpu.tiles import tile_slices

__all__ = ["gram_on_cluster", "ridge_on_cluster", "run_manifest"]

_RETRIES = 5

TileMaker = Callable[[slice, slice], Any]


def gram_on_cluster(
    client: Any,
    compute: TileMaker,
    path: str | Path,
    n: int,
    *,
    tile: int,
    dtype: Any = np.float64,
    what: str | None = None,
    overwrite: bool = False,
) -> Any:
    """Fill a symmetric matrix on disk from every worker; a second call does what is missing.

    The workers first compare the finished tiles with their checksums; those that are not there as
    they were are computed again, with a warning.

    Parameters
    ----------
    client : dask.distributed.Client
    compute : callable (rows, columns) -> array
        Sent to the workers by pickle; load the data inside it, from a path that all can read.
    path : path ending in .zarr
        On a file system that all workers share.
    n, tile : int
    what : str, optional
        Names the data and the kernel, such as ``fingerprint(data, kernel.fingerprint)`` of
        :mod:`.journal`: a store of another is refused. By default ``compute.fingerprint``.
    overwrite : bool
        Begin anew, whatever stands there.

    Returns
    -------
    zarr array (n, n)

    Raises
    ------
    PlanError
        For a path that is no .zarr, one of another matrix or of nobody knows which, tiles that
        nothing names, a store that no longer holds any tile that was finished, or one that another
        call fills.
    DeviceError
        Without Dask, or where the workers cannot load ``compute``.
    """
    client = _checked(client)
    path = Path(path)
    if path.suffix != ".zarr":
        raise PlanError(f"{path}: tiles of many machines go to a .zarr")
    what = getattr(compute, "fingerprint", None) if what is None else what
    if not isinstance(what, str) or not what:
        raise PlanError(
            "nothing says which kernel and data the tiles are of: give what='...', their hash"
        )
    notes = path.with_suffix(".tiles")
    with alone(notes):
        name = notes / "what.json"
        head = json.dumps({"n": n, "tile": tile, "dtype": np.dtype(dtype).name, "what": what})
        _own(path, name, head, overwrite=overwrite)
        store = open_store(path, (n, n), dtype, tile)
        items = [
            (here, there, str(notes / f"{here.start}-{there.start}"))
            for here, there in tile_slices(n, n, tile, symmetric=True)
        ]
        noted = [item for item in items if os.path.exists(item[2])]
        kept = {note for note in _run(client, _Kept(str(path)), noted) if note}
        compare(notes, len(noted), len(noted) - len(kept))
        missing = [item for item in items if item[2] not in kept]
        for _ in _run(client, _Tile(compute, str(path), np.dtype(dtype).name), missing):
            pass
    return store


def _own(path: Path, name: Path, head: str, *, overwrite: bool) -> None:
    """Refuse a store that is another's or nobody's, or begin one."""
    notes = name.parent
    if overwrite:
        for folder in (notes, path):  # the notes first: they say what is in the other
            shutil.rmtree(folder, ignore_errors=True)
    elif name.exists():
        found = name.read_text(encoding="utf-8", errors="replace")
        if found != head:
            raise PlanError(
                f"{notes} is of another matrix: {found[:200]}; overwrite=True begins anew"
            )
        if not path.exists() and any(note != name for note in notes.iterdir()):
            raise PlanError(
                f"{path} is gone but its tiles are recorded: overwrite=True begins anew"
            )
    elif path.exists():
        raise PlanError(f"{path} is there, and nothing says of what: overwrite=True begins anew")
    notes.mkdir(exist_ok=True)
    write(name, head)  # before the store: a kill between the two leaves no store without an owner


def ridge_on_cluster(
    client: Any,
    path: str | Path,
    right: np.ndarray[Any, Any],
    *,
    tile: int,
    ridge: float,
    tolerance: float = 1e-8,
    steps: int = 1000,
) -> Solution:
    """Solve ``(K + ridge I) x = right`` with a matrix on disk: each product is spread by rows.

    Parameters
    ----------
    client : dask.distributed.Client
    path : path of a zarr array (n, n)
    right : (n,) or (n, m) array
    tile : int
        Rows of one task.
    """
    client = _checked(client)
    n = len(right)
    bands = [slice(i, min(i + tile, n)) for i in range(0, n, tile)]
    task = _Band(str(path))

    def product(v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sent = client.scatter(v, broadcast=True)
        futures = client.map(task, bands, v=sent, retries=_RETRIES, pure=False)
        return np.concatenate(client.gather(futures))

    return solve(product, right, ridge=ridge, tolerance=tolerance, steps=steps)


def run_manifest(
    job: Callable[[dict[str, Any]], dict[str, Any]],
    manifest: str | Path,
    results: str | Path,
    *,
    client: Any = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    reuse: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Run ``job`` on every row of a manifest; rows with a result are left as they are.

    Parameters
    ----------
    job : callable dict -> dict
        Plain data in, plain data out.
    manifest : path
        One JSON object a line, each with a unique ``"name"`` that can be a file's.
    results : folder
        Gets ``<name>.json`` for each; a killed run is started again and goes on.
    client : dask.distributed.Client, optional
        Without one the rows run here.
    threads : int
        Rows at once, of those that run here: for jobs that are processes of their own.
    progress : callable, optional
        Called with (results there, rows) at first and after each job.
    reuse : callable (row, result) -> result, optional
        Called with every result that is there, before anything is run: raises for one that is not
        its row's, or gives what to return for it.

    Returns
    -------
    The results, in the manifest's order.

    Raises
    ------
    PlanError
        For a manifest that cannot be read, a row without a unique name, a result that is none, a
        folder that cannot be made, or threads below 1.
    DeviceError
        Where the workers cannot load ``job``.
    """
    folder = Path(results)
    try:
        text = Path(manifest).read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        names = [row.get("name") for row in rows]
    except (OSError, ValueError, AttributeError) as error:
        raise PlanError(f"{manifest}: one JSON object a line is needed: {error}") from error
    if len(set(names)) != len(names) or any(not _is_name(name) for name in names):
        raise PlanError(f"{manifest}: every row needs a unique name of letters, digits and ._-")
    if threads < 1:
        raise PlanError(f"threads = {threads}: at least 1")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(f"{folder}: no folder of results can be made: {why(error)}") from error
    paths = [str(folder / f"{name}.json") for name in names]
    there, missing = dict[str, dict[str, Any]](), []
    for row, path in zip(rows, paths, strict=True):
        if os.path.exists(path):
            found = _result(path)
            there[path] = found if reuse is None else reuse(row, found)
        else:
            missing.append((row, path))
    done = len(rows) - len(missing)

    def tell(_: Any = None) -> None:
        if progress is not None:
            progress(done, len(rows))

    tell()
    finished = (
        _here(_Job(job), missing, threads)
        if client is None
        else _run(_checked(client), _Job(job), missing)
    )
    for _ in finished:
        done += 1
        tell()
    return [there.get(path) or _result(path) for path in paths]


def _result(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise PlanError(f"{path} is no result of a row: delete it, and the row is run")
    return found


class _Tile:
    """Compute a tile, write it and its mirror, then note its checksum."""

    def __init__(self, compute: TileMaker, path: str, dtype: str) -> None:
        self.compute, self.path, self.dtype = compute, path, dtype

    def __call__(self, item: tuple[slice, slice, str]) -> float:
        import zarr

        here, there, note = item
        block = self.compute(here, there)
        block = np.asarray(block() if callable(block) else block, dtype=self.dtype)
        store: Any = zarr.open_array(self.path, mode="r+")
        store[here, there] = block
        if here != there:
            store[there, here] = block.T
        write(note, digest([block]))
        return float(block.sum())


class _Kept:
    """The note of a tile if the store holds what it says, and an empty text otherwise."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, item: tuple[slice, slice, str]) -> str:
        import zarr

        here, there, note = item
        store: Any = zarr.open_array(self.path, mode="r")
        recorded = Path(note).read_text(encoding="utf-8", errors="replace")
        return note if is_there([store], (here, there), recorded, mirrored=True) else ""


class _Band:
    """Some rows of a matrix on disk times a vector."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, rows: slice, v: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import zarr

        store: Any = zarr.open_array(self.path, mode="r")
        return np.asarray(np.asarray(store[rows], dtype=np.float64) @ v)


class _Shipped:
    """A task as bytes: what a worker cannot import is the task's error then.

    Otherwise the worker would drop its connection over the message, again and again, and the call
    would wait for ever.
    """

    def __init__(self, task: Any) -> None:
        import cloudpickle

        self.payload: bytes = cloudpickle.dumps(task)

    def __call__(self, item: Any) -> Any:
        try:
            task = pickle.loads(self.payload)
        except (ImportError, AttributeError) as error:
            raise DeviceError(
                f"a worker cannot load the function that it is sent: {error}; install its module "
                "there, or define it in the script that is run"
            ) from error
        return task(item)


class _Job:
    def __init__(self, job: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.job = job

    def __call__(self, item: tuple[dict[str, Any], str]) -> int:
        row, path = item
        write(path, json.dumps(self.job(row), sort_keys=True))
        return 1


def _here(task: Any, items: list[Any], threads: int) -> Iterator[None]:
    """Run all in this process, and yield as they come."""
    if threads == 1:
        for item in items:
            task(item)
            yield
        return
    pool = ThreadPoolExecutor(threads)
    try:
        for future in as_completed([pool.submit(task, item) for item in items]):
            future.result()
            yield
    finally:
        pool.shutdown(cancel_futures=True)


def _run(client: Any, task: Any, items: Iterable[Any]) -> Iterator[Any]:
    """Run all, with retries, and yield the results as they come."""
    import distributed

    in_order_of_arrival: Any = distributed.as_completed
    futures = client.map(_Shipped(task), list(items), retries=_RETRIES, pure=False)
    for future in in_order_of_arrival(futures):
        yield future.result()


def _checked(client: Any) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise DeviceError("many machines need Dask: pip install 'tangency[cluster]'") from error
    if not isinstance(client, Client):
        raise PlanError(f"client is a {type(client).__name__}: give a dask.distributed.Client")
    return client


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and all(c.isalnum() or c in "._-" for c in name)
