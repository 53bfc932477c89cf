"""What a finished tile held: a checksum of its numbers, by which a later run knows it again.

A record that a tile was finished says nothing about the file of today: it may have been cut short,
replaced by another, or have lost a chunk, which zarr reads as zeros. So the record holds a checksum
of every tile, and a run that goes on compares it with what the store holds now.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["compare", "digest", "is_there"]

Array = Any
Tile = tuple[slice, slice]


def digest(blocks: Iterable[Array]) -> str:
    """CRC-32 of the numbers of some blocks by rows, in hexadecimal; both zeros are one.

    >>> import numpy as np
    >>> digest([np.zeros(2)]) == digest([-np.zeros(2)]) != digest([np.ones(2)])
    True
    """
    found = 0
    for block in blocks:
        array = np.asarray(block)
        for start in range(0, len(array), 256):  # no second copy of a large tile
            # The sum takes -0.0 to 0.0: zarr leaves out a chunk of zeros and reads 0.0 for it.
            found = zlib.crc32(np.add(array[start : start + 256], 0, order="C"), found)
    return f"{found:08x}"


def is_there(stores: Iterable[Array], at: Tile, recorded: str, *, mirrored: bool) -> bool:
    """Whether the stores hold a tile, and its mirror if there is one, as it was recorded.

    Parameters
    ----------
    stores : iterable of arrays (n1, n2)
    at : (rows, columns)
    recorded : str
        The :func:`digest` of the tile in all of them.
    mirrored : bool
        The matrices are symmetric, and this tile stands in two places.
    """
    here, there = at
    stores = list(stores)
    try:
        if digest(store[here, there] for store in stores) != recorded:
            return False
        if not mirrored or here == there:
            return True
        return digest(np.asarray(store[there, here]).T for store in stores) == recorded
    except (OSError, ValueError, RuntimeError):  # a damaged chunk does not unpack
        return False


def compare(record: Path, recorded: int, lost: int) -> None:
    """Say that tiles are gone, or refuse a store that holds none of them.

    Raises
    ------
    PlanError
        If not one tile of the record is in the store: it is another matrix then, and not ours to
        write over.
    """
    if not lost:
        return
    if lost == recorded:
        raise PlanError(
            f"{record} records {recorded} tiles, and the matrix beside it holds none of them: it "
            "was replaced or emptied; overwrite=True begins anew"
        )
    warnings.warn(
        f"{record}: {lost} of {recorded} finished tiles are no longer in the matrix beside it as "
        "they were recorded, and are computed again",
        stacklevel=2,
    )
