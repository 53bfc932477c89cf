"""A reader of MATLAB 5 files (``save -v6`` and ``-v7``) for matrices and cell arrays of them.

``scipy.io.loadmat`` reads more, but a wrong type code in a damaged file ends the whole process
there (its table of types is indexed unchecked). Here every size is compared with the bytes that
are left before anything is read.

References
----------
MathWorks, "MAT-File Format", R2024a: level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tangency.files import unpack_limit
from tangency.models.errors import InputError

__all__ = ["read_mat"]

MATRIX, COMPRESSED = 14, 15
#: NumPy's type of the storage types of data.
STORED = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
CELL = 1
#: Names of the array classes, and the type of those that hold numbers.
CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
NUMBERS = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2"},
    **{12: "i4", 13: "u4", 14: "i8", 15: "u8"},
}
COMPLEX, LOGICAL = 0x08, 0x02


@dataclass(frozen=True)
class _Data:
    """Bytes of one byte order, read from a place on."""

    data: bytes
    order: str

    def element(self, at: int) -> tuple[int, bytes, int]:
        """Type, content and end of the element at a place."""
        if at + 8 > len(self.data):
            raise InputError("the file ends within a tag")
        first, second = struct.unpack_from(self.order + "II", self.data, at)
        if first >> 16:  # up to four bytes, kept in the tag itself
            size, kind, start, end = first >> 16, first & 0xFFFF, at + 4, at + 8
            if size > 4:
                raise InputError(f"a small element states {size} bytes")
        else:
            size, kind, start = second, first, at + 8
            end = start + size if kind == COMPRESSED else start + -(-size // 8) * 8
        if start + size > len(self.data):
            raise InputError(f"an element states {size} bytes, {len(self.data) - start} are left")
        return kind, self.data[start : start + size], end

    def numbers(self, at: int) -> tuple[np.ndarray, int]:
        """The numbers of the element at a place, and its end."""
        kind, content, end = self.element(at)
        if kind not in STORED:
            raise InputError(f"data of type {kind}, which holds no numbers")
        dtype = np.dtype(self.order + STORED[kind])
        if len(content) % dtype.itemsize:
            raise InputError(f"{len(content)} bytes are no whole {dtype}")
        return np.frombuffer(content, dtype), end


def read_mat(data: bytes, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The variables of a MATLAB 5 file.

    Parameters
    ----------
    data : bytes
        The whole file.
    wanted : tuple of str
        Variables to read; the others are listed alone.

    Returns
    -------
    dict of str to array, list or str
        A matrix as an array, a cell array as the list of its entries (and nested ones as their
        kind), anything else as the name of its kind.

    Raises
    ------
    InputError
        When the file is not such a file, or damaged.
    """
    marks = {b"IM": "<", b"MI": ">"}
    if len(data) < 128 or data[126:128] not in marks:
        raise InputError("no header of a MATLAB 5 file (save it with -v7)")
    order = marks[data[126:128]]
    (version,) = struct.unpack(order + "H", data[124:126])
    if version != 0x0100:
        raise InputError(f"version {version >> 8}.{version & 255} of the format; 1.0 is read")
    found: dict[str, Any] = {}
    for inner in _variables(_Data(data, order)):
        name, value = _matrix(inner, wanted)
        found[name] = value
    return found


def _variables(file: _Data) -> Iterator[_Data]:
    """The content of each variable, unpacked."""
    at = 128
    while at < len(file.data):
        kind, content, at = file.element(at)
        if kind == COMPRESSED:
            most = unpack_limit(len(file.data))
            try:
                unpacker = zlib.decompressobj()
                content = unpacker.decompress(content, most)
            except zlib.error as error:
                raise InputError(f"a compressed variable is damaged: {error}") from None
            if unpacker.unconsumed_tail or not unpacker.eof:
                raise InputError(f"a compressed variable is cut off or above {most} bytes")
            kind, content, _ = _Data(content, file.order).element(0)
        if kind != MATRIX:
            raise InputError(f"an element of type {kind} where a variable is expected")
        yield _Data(content, file.order)


def _matrix(file: _Data, wanted: tuple[str, ...] | None, depth: int = 0) -> tuple[str, Any]:
    """Name and value of an array; ``wanted`` None takes every name."""
    if not file.data:  # an empty entry of a cell array
        return "", np.zeros((0, 0))
    flags, at = file.numbers(0)
    dims, at = file.numbers(at)
    name_codes, at = file.numbers(at)
    if flags.size < 1 or flags.dtype.kind != "u" or dims.size < 2 or name_codes.size > 4096:
        raise InputError("the head of an array is damaged")
    shape = tuple(int(d) for d in dims)
    if min(shape) < 0 or dims.dtype.kind not in "iu":
        raise InputError(f"an array states the shape {shape}")
    name = bytes(name_codes.astype(np.uint8)).decode("latin-1")
    kind, bits = int(flags[0]) & 0xFF, int(flags[0]) >> 8 & 0xFF
    if wanted is not None and name not in wanted:
        return name, CLASSES.get(kind, "matrix")
    if kind == CELL and depth == 0:
        return name, _cells(file, at, name, shape)
    if kind not in NUMBERS:
        return name, CLASSES.get(kind, f"class {kind}")
    if bits & COMPLEX:
        return name, "complex"
    if bits & LOGICAL:
        return name, "logical"
    values, _ = file.numbers(at)
    if values.size != prod(shape):
        raise InputError(f"{name!r} states the shape {shape} and holds {values.size} numbers")
    # MATLAB packs whole numbers into small integers, whatever the class.
    array = values.astype(NUMBERS[kind]).reshape(shape, order="F")
    return name, np.ascontiguousarray(array)


def _cells(file: _Data, at: int, name: str, shape: tuple[int, ...]) -> list[Any]:
    count = prod(shape)
    if count > len(file.data) // 8 or (count and count != max(shape)):
        raise InputError(f"the cell array {name!r} states the shape {shape}; a row is needed")
    entries = []
    for _ in range(count):
        kind, content, at = file.element(at)
        if kind != MATRIX:
            raise InputError(f"the cell array {name!r} holds an element of type {kind}")
        entries.append(_matrix(_Data(content, file.order), None, 1)[1])
    return entries
