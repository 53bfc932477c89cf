"""Matrices on disk that are filled a tile at a time: memory maps (``.npy``) and zarr arrays."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import reserve, why
from tangency.gpu.errors import DeviceError, PlanError

__all__ = ["open_store", "open_stores", "store_paths"]


def open_store(path: str | Path, shape: tuple[int, int], dtype: Any, tile: int) -> Any:
    """A matrix on disk to fill, made if it is not there.

    Parameters
    ----------
    path : path
        ``.npy`` for a memory map, ``.zarr`` for a compressed array in chunks of one tile.
    shape : (n1, n2)
    dtype : dtype
    tile : int

    Raises
    ------
    PlanError
        If the file there has another shape or type, its ending is neither, or the disk is full: a
        memory map takes all its blocks when it is made.
    DeviceError
        Where zarr is not installed; the message says how to.
    """
    path = Path(path)
    if _is_zarr(path):
        zarr = _zarr(path)
        if path.exists():
            return _checked(zarr.open_array(path, mode="r+"), path, shape, dtype)
        name, chunks = np.dtype(dtype).name, _chunks(shape, tile)
        return zarr.create_array(path, shape=shape, dtype=name, chunks=chunks)
    return _memory_map(path, shape, dtype, fresh=not path.exists())


def open_stores(
    path: str | Path,
    names: tuple[str, ...],
    shape: tuple[int, int],
    dtype: Any,
    tile: int,
    *,
    fresh: bool,
) -> dict[str, Any]:
    """Matrices of several kinds under one path.

    Parameters
    ----------
    path : path
        ``name.npy`` for memory maps (of two kinds: ``name.<kind>.npy``), or ``name.zarr`` for a
        group with an array of each kind.
    names : tuple of str
        The kinds.
    shape, dtype, tile
        As of :func:`open_store`.
    fresh : bool
        Make them, over what is there; otherwise all must be there. What was made is removed where
        not all can be.

    Raises
    ------
    PlanError, DeviceError
        As :func:`open_store`, and for a file that is gone.
    """
    path = Path(path)
    if _is_zarr(path):
        zarr = _zarr(path)
        _present(path, fresh or path.exists())
        options = {"shape": shape, "dtype": np.dtype(dtype).name, "chunks": _chunks(shape, tile)}
        if fresh:
            try:
                group = zarr.open_group(str(path), mode="w")
                return {name: group.create_array(name, **options) for name in names}
            except OSError as error:
                shutil.rmtree(path, ignore_errors=True)
                raise PlanError(f"{path}: {why(error)}") from error
        group = zarr.open_group(str(path), mode="r+")
        for name in names:
            _present(path / name, name in group)
        return {name: _checked(group[name], path / name, shape, dtype) for name in names}
    files = store_paths(path, names)
    for file in files:
        _present(file, fresh or file.exists())
    if fresh:
        _check_room(files, math.prod(shape) * np.dtype(dtype).itemsize)
    maps: list[Any] = []
    try:
        for file in files:
            maps.append(_memory_map(file, shape, dtype, fresh=fresh))
    except PlanError:
        if fresh:
            for file in files[: len(maps)]:
                file.unlink()
        raise
    return dict(zip(names, maps, strict=True))


def store_paths(path: str | Path, names: tuple[str, ...]) -> list[Path]:
    """The files, or the one folder, that :func:`open_stores` makes."""
    path = Path(path)
    if _is_zarr(path) or len(names) == 1:
        return [path]
    return [path.with_name(f"{path.stem}.{name}.npy") for name in names]


def _check_room(files: list[Path], size: int) -> None:
    """Look before an old matrix is given up for one that the disk has no room for."""
    free = shutil.disk_usage(files[0].parent).free
    for file in files:
        free += getattr(file.stat(), "st_blocks", 0) * 512 if file.exists() else 0
    if size * len(files) > free:
        raise PlanError(
            f"{files[0]}: {size * len(files) / 1e9:.3g} GB for {len(files)} matrix file(s), and "
            f"the disk has {free / 1e9:.3g} GB free"
        )


def _present(path: Path, there: bool) -> None:
    if not there:
        raise PlanError(f"{path} is gone but its tiles are recorded: overwrite=True begins anew")


def _is_zarr(path: Path) -> bool:
    if path.suffix not in (".npy", ".zarr"):
        raise PlanError(f"{path}: a matrix on disk ends in .npy or .zarr")
    return path.suffix == ".zarr"


def _memory_map(path: Path, shape: tuple[int, int], dtype: Any, *, fresh: bool) -> Any:
    made = False
    try:
        if fresh:
            path.open("wb").close()
            made = True  # up to here a file of that name is not this call's to remove
            store = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        else:
            # Mode "r+" alone would lengthen a file that was cut short, with zeros.
            _checked(np.lib.format.open_memmap(path, mode="r"), path, shape, dtype)
            store = np.lib.format.open_memmap(path, mode="r+")
    except OSError as error:
        if made:
            path.unlink()
        raise PlanError(f"{path}: {why(error)}") from error
    except PlanError:
        raise
    except ValueError as error:
        raise PlanError(f"{path} is no .npy file, or was cut short: {error}") from error
    try:
        reserve(path, path.stat().st_size)
    except OSError as error:
        if made:
            path.unlink()
        raise PlanError(
            f"{path}: no room on the disk for {math.prod(shape) * store.itemsize / 1e9:.3g} GB "
            f"({why(error)})"
        ) from error
    return store


def _checked(store: Any, path: Path, shape: tuple[int, int], dtype: Any) -> Any:
    if tuple(store.shape) != tuple(shape) or np.dtype(store.dtype) != np.dtype(dtype):
        raise PlanError(f"{path} holds {store.shape} of {store.dtype}, not {shape} of {dtype}")
    return store


def _chunks(shape: tuple[int, int], tile: int) -> tuple[int, int]:
    """A chunk is a tile, so that no two tiles ever write one chunk."""
    return min(tile, max(shape[0], 1)), min(tile, max(shape[1], 1))


def _zarr(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise DeviceError(
            f'{path} needs zarr: pip install "tangency[cluster]", or give a .npy file'
        ) from error
    return zarr
