"""Any frozen dataclass of numbers, strings, tuples and arrays as JSON data with arrays apart.

A witness type needs no code of its own here: its annotations say what may be read back. Floats are
hexadecimal, so that nothing is rounded. What is read is built from annotations alone: no name in a
file chooses what is imported or called.
"""

import math
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from tangency.models.errors import InputError

__all__ = ["DTYPES", "CertificateError", "decode", "decode_float", "encode", "encode_float"]

#: dtypes that a file may hold, all little-endian.
DTYPES = ("<f8", "<i8")


class CertificateError(InputError):
    """A certificate cannot be read or written: damaged, of another version, or no certificate."""


def encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return a value as JSON data; its arrays are appended to a list, in order.

    Raises
    ------
    CertificateError
        For a type that has no place in a certificate, or a number that is not finite.

    Examples
    --------
    >>> encode((1, 0.5, None, "a"), [])
    [1, {'float': '0x1.0000000000000p-1'}, None, 'a']
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return _small(int(value))
    if isinstance(value, float):  # np.float64 among them
        return {"float": encode_float(float(value))}
    if isinstance(value, tuple):
        return [encode(item, arrays) for item in value]
    if isinstance(value, np.ndarray):
        arrays.append(_plain(value))
        return {"array": len(arrays) - 1}
    if is_dataclass(value) and not isinstance(value, type):
        named = [(f, getattr(value, f.name)) for f in fields(value)]
        # Without the defaults, so that a field added later leaves earlier files as they are.
        parts = {f.name: encode(v, arrays) for f, v in named if not _is_default(v, f.default)}
        return {"type": type(value).__name__, "version": _version(type(value)), "fields": parts}
    raise CertificateError(f"a {type(value).__name__} has no place in a certificate")


def decode(data: Any, hint: Any, arrays: list[np.ndarray], where: str = "witness") -> Any:
    """Return the value of a type that :func:`encode` wrote.

    Parameters
    ----------
    data : JSON data
    hint : type
        A dataclass, float, int, bool, str, None, tuple[...], an array type, a union or a Literal.
    arrays : list of arrays
        Taken from the front, in order; what is left over was not referred to.
    where : str
        Named in the messages.

    Raises
    ------
    CertificateError
        If the data are not of the type.
    """
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for option in options:
        if _matches(data, option):
            return _decoded(data, option, arrays, where)
    raise CertificateError(f"{where}: {_shown(data)} is not what is expected there")


def _is_default(value: Any, default: Any) -> bool:
    plain = isinstance(value, bool | int | float | str | NoneType) or (
        isinstance(value, tuple) and not value
    )
    return plain and type(value) is type(default) and repr(value) == repr(default)


def encode_float(value: float) -> str:
    """Return a finite float in hexadecimal.

    Raises
    ------
    CertificateError
        If it is not finite.
    """
    if not math.isfinite(value):
        raise CertificateError(f"{value} is not a finite number")
    return value.hex()


def decode_float(text: Any, where: str) -> float:
    """Return the float of its canonical hexadecimal text."""
    try:
        value = float.fromhex(text)
    except (TypeError, ValueError, OverflowError):
        raise CertificateError(f"{where}: {_shown(text)} is no hexadecimal float") from None
    if not math.isfinite(value):
        raise CertificateError(f"{where}: {_shown(text)} is not a finite number")
    if value.hex() != text:
        raise CertificateError(f"{where}: {_shown(text)} is no hexadecimal float of float64")
    return value


def _matches(data: Any, hint: Any) -> bool:
    """Whether data have the form of a type, looking no deeper."""
    origin = get_origin(hint)
    keys = list(data) if isinstance(data, dict) else None
    if hint is NoneType or hint is None:
        return data is None
    if origin is Literal:
        return any(type(data) is type(item) and data == item for item in get_args(hint))
    if hint in (bool, int, str):
        return type(data) is hint
    if hint is float:
        return keys == ["float"]
    if origin is tuple:
        return isinstance(data, list)
    if origin is np.ndarray:
        return keys == ["array"]
    if isinstance(hint, type) and is_dataclass(hint):
        return keys == ["type", "version", "fields"] and data["type"] == hint.__name__
    return False


def _decoded(data: Any, hint: Any, arrays: list[np.ndarray], where: str) -> Any:
    origin = get_origin(hint)
    if hint is float:
        return decode_float(data["float"], where)
    if hint is int:
        return _small(data)
    if origin is tuple:
        hints = get_args(hint)
        if len(hints) == 2 and hints[1] is Ellipsis:
            hints = (hints[0],) * len(data)
        if len(hints) != len(data):
            raise CertificateError(f"{where}: {len(data)} items, {len(hints)} are expected")
        return tuple(
            decode(item, h, arrays, f"{where}[{i}]")
            for i, (item, h) in enumerate(zip(data, hints, strict=True))
        )
    if origin is np.ndarray:
        return _array(data["array"], hint, arrays, where)
    if isinstance(hint, type) and is_dataclass(hint):
        return _object(data, hint, arrays, where)
    return data


def _object(data: Any, cls: type, arrays: list[np.ndarray], where: str) -> Any:
    if type(data["version"]) is not int or data["version"] != _version(cls):
        raise CertificateError(
            f"{where}: {cls.__name__} of version {_shown(data['version'])}; "
            f"this reads version {_version(cls)}"
        )
    given, hints = data["fields"], get_type_hints(cls)
    if not isinstance(given, dict):
        raise CertificateError(f"{where}: no fields of {cls.__name__}")
    names = [f.name for f in fields(cls)]
    if list(given) != [name for name in names if name in given]:
        raise CertificateError(f"{where}: unknown or misplaced fields of {cls.__name__}")
    missing = [
        f.name
        for f in fields(cls)
        if f.name not in given and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise CertificateError(f"{where}: {cls.__name__} lacks {', '.join(missing)}")
    return cls(
        **{name: decode(given[name], hints[name], arrays, f"{where}.{name}") for name in given}
    )


def _array(index: Any, hint: Any, arrays: list[np.ndarray], where: str) -> np.ndarray:
    if not arrays or type(index) is not int:
        raise CertificateError(f"{where}: array {_shown(index)} is not in the file")
    wanted = get_args(get_args(hint)[1])[0]
    found = arrays.pop(0)
    if found.dtype != np.dtype(wanted):
        raise CertificateError(f"{where}: an array of {found.dtype}, not of {np.dtype(wanted)}")
    return found


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array as it is stored: little-endian, contiguous, finite."""
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in DTYPES:
        raise CertificateError(f"an array of {array.dtype} has no place in a certificate")
    if not np.isfinite(array).all():
        raise CertificateError("an array holds a NaN or an infinite number")
    return np.asarray(array, dtype=dtype, order="C")


def _small(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise CertificateError("an integer exceeds 64 bits")
    return value


def _version(cls: type) -> int:
    """The version of a class's fields; a class whose fields change their meaning raises it."""
    return int(getattr(cls, "FORMAT_VERSION", 1))


def _shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else text[:37] + "..."
