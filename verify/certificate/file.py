r"""A certificate as one self-describing file, the same bytes for the same certificate.

The file begins with a line of text and a header in JSON, which any editor shows, then raw arrays:

.. code-block:: text

    tangency-certificate 2 <length of the header, 16 digits> <sha256 of the header>
    {"format": "tangency-certificate", "version": 2, "claim": {...}, "network": {...}, ...}
    <arrays, little-endian, one after the other, as the header's "arrays" lists them>

Nothing is pickled. A reader checks every length against the file before it allocates anything, then
every digest, and in the end that the certificate that it read would be written in these very bytes,
so that nothing in the file has two readings. The digests find damage, not fraud: what makes a claim
hold is its proof from the model's weights.
"""

import hashlib
import json
import re
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tangency.files import replacing, why
from tangency.verify.certificate.claim import WITNESSES, Certificate, Claim, Norm, Output, Region
from tangency.verify.certificate.encoding import (
    DTYPES,
    CertificateError,
    decode,
    decode_float,
    encode,
    encode_float,
)
from tangency.verify.certificate.outputs import OutputsClaim
from tangency.verify.certificate.source import Source
from tangency.verify.certificate.validation import require_valid

__all__ = ["FORMAT", "VERSION", "CertificateError", "pack", "read", "unpack", "write"]

FORMAT = "tangency-certificate"
VERSION = 2

_FIRST = re.compile(rb"tangency-certificate (\d{1,9}) ")
_SHORT = re.compile(rb"tangency-certificate \d{1,9}")
_LINE = re.compile(rb"tangency-certificate 2 (\d{16}) ([0-9a-f]{64})\n")
_LENGTH = 105  # of the first line
_ALIGN = 64  # the arrays begin at a multiple of this
_AXES = 8


def pack(certificate: Certificate) -> bytes:
    """Return the bytes of a certificate's file.

    Raises
    ------
    CertificateError
        If a number is not finite, or a part of a type that has no place in a file.
    """
    arrays: list[np.ndarray] = []
    claim = certificate.claim
    witness = encode(certificate.witness, arrays)
    stated = _stated(claim, arrays)
    own = certificate.source
    source = {} if own is None else {"source": encode(own, arrays)}
    blocks = [array.tobytes() for array in arrays]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "claim": stated,
        "network": {
            "sha256": certificate.network,
            "input_shape": list(certificate.input_shape),
            "output_shape": list(certificate.output_shape),
        },
        "method": certificate.method,
        "tangency": certificate.tangency,
        "witness": witness,
        **source,
        "arrays": [
            {
                "dtype": array.dtype.str,
                "shape": list(array.shape),
                "bytes": len(block),
                "sha256": hashlib.sha256(block).hexdigest(),
            }
            for array, block in zip(arrays, blocks, strict=True)
        ],
    }
    text = json.dumps(header, indent=1, allow_nan=False).encode()
    text += b" " * (-(_LENGTH + len(text) + 1) % _ALIGN) + b"\n"
    digest = hashlib.sha256(text).hexdigest()
    line = f"{FORMAT} {VERSION} {len(text):016d} {digest}\n".encode()
    return b"".join([line, text, *blocks])


def unpack(data: bytes) -> Certificate:
    """Return the certificate of a file's bytes; the inverse of :func:`pack`, bit by bit.

    Raises
    ------
    CertificateError
        With the reason in one line: no certificate, another version, truncated, damaged, a number
        that is not finite, or anything that :func:`pack` would not write.
    """
    header, start = _header(data)
    try:
        certificate = _certificate(header, data, start)
    except CertificateError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CertificateError(f"the header is malformed ({type(error).__name__})") from None
    require_valid(certificate)
    if pack(certificate) != data:
        raise CertificateError("the file is not what this certificate would be written as")
    return certificate


def write(path: str | Path, certificate: Certificate) -> None:
    """Write a certificate to a file, which is read back first; an old one stays till it is there.

    Raises
    ------
    CertificateError
        If it has no place in a file, or the file cannot be written.
    """
    data = pack(certificate)
    unpack(data)
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise CertificateError(f"{path}: cannot be written ({why(error)})") from None


def read(path: str | Path) -> Certificate:
    """Read a certificate from a file; nothing in it is proved yet.

    Raises
    ------
    CertificateError
        As `unpack` does, naming the file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror or error}") from None
    try:
        return unpack(data)
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from None


def _header(data: bytes) -> tuple[Any, int]:
    """Return the parsed header and where the arrays begin."""
    first = _FIRST.match(data[:64])
    if first is None:
        short = f"{FORMAT} ".encode().startswith(data) or _SHORT.fullmatch(data)
        raise CertificateError("truncated" if short else "not a tangency certificate")
    if int(first[1]) != VERSION:
        raise CertificateError(f"version {int(first[1])}; this reads version {VERSION}")
    if len(data) < _LENGTH:
        raise CertificateError("truncated in its first line")
    line = _LINE.match(data[:_LENGTH])
    if line is None:
        raise CertificateError("damaged in its first line")
    length = int(line[1])
    if length > len(data) - _LENGTH:
        raise CertificateError("truncated: the header exceeds the file")
    text = data[_LENGTH : _LENGTH + length]
    if hashlib.sha256(text).hexdigest().encode() != line[2]:
        raise CertificateError("damaged: the header does not have its sha256")
    try:
        header = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        raise CertificateError("the header is no JSON") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CertificateError("the header is not that of a tangency certificate")
    if header.get("version") != VERSION:
        version = repr(header.get("version"))[:20]
        raise CertificateError(f"version {version}; this reads version {VERSION}")
    return header, _LENGTH + length


def _certificate(header: dict[str, Any], data: bytes, start: int) -> Certificate:
    arrays = _arrays(header["arrays"], data, start)
    claim, network, witness = header["claim"], header["network"], header["witness"]
    name = witness["type"]
    if name not in WITNESSES:
        known = ", ".join(sorted(WITNESSES))
        raise CertificateError(f"unknown witness {name!r:.40}: known are {known}")
    found = decode(witness, WITNESSES[name], arrays)
    stated = _claim(claim, arrays)
    source = decode(header["source"], Source, arrays, "source") if "source" in header else None
    if arrays:
        raise CertificateError(f"{len(arrays)} arrays of the file belong to nothing")
    shape = tuple[int, ...]
    return Certificate(
        stated,
        decode(network["sha256"], str, [], "network.sha256"),
        decode(network["input_shape"], shape, [], "network.input_shape"),
        decode(network["output_shape"], shape, [], "network.output_shape"),
        decode(header["method"], str, [], "method"),
        decode(header["tangency"], str, [], "tangency"),
        found,
        source,
    )


def _stated(claim: Claim | OutputsClaim, arrays: list[np.ndarray]) -> dict[str, Any]:
    """Return the parts of a claim for the header."""
    if isinstance(claim, OutputsClaim):
        return {"kind": "outputs", "statement": encode(claim, arrays)}
    region = {} if claim.region is None else {"region": encode(claim.region, arrays)}
    return {
        "kind": claim.kind,
        "norm_in": claim.norm_in,
        "norm_out": claim.norm_out,
        "margin": list(claim.margin),
        "bound": encode_float(claim.bound),
        **region,
    }


def _claim(claim: dict[str, Any], arrays: list[np.ndarray]) -> Claim | OutputsClaim:
    """Return the claim of a header; the inverse of :func:`_stated`."""
    kind = decode(claim["kind"], Literal["lipschitz", "outputs"], [], "claim.kind")
    if kind == "outputs":
        found: OutputsClaim = decode(claim["statement"], OutputsClaim, arrays, "claim.statement")
        return found
    region = decode(claim["region"], Region, arrays, "claim.region") if "region" in claim else None
    return Claim(
        kind,
        decode(claim["norm_in"], Norm, [], "claim.norm_in"),
        decode(claim["norm_out"], Output, [], "claim.norm_out"),
        decode_float(claim["bound"], "claim.bound"),
        decode(claim["margin"], tuple[int, ...], [], "claim.margin"),
        region,
    )


def _arrays(entries: list[Any], data: bytes, start: int) -> list[np.ndarray]:
    """Return the arrays behind the header, sizes first: they must fill the file exactly."""
    total = 0
    for i, entry in enumerate(entries):
        dtype, shape, size = entry["dtype"], entry["shape"], entry["bytes"]
        if dtype not in DTYPES:
            raise CertificateError(f"array {i}: dtype {dtype!r:.40} is none of {', '.join(DTYPES)}")
        if not all(type(n) is int and 0 <= n < 2**31 for n in shape) or len(shape) > _AXES:
            raise CertificateError(f"array {i}: {shape!r:.40} is no shape")
        if type(size) is not int or size != prod(shape) * 8:
            raise CertificateError(f"array {i}: its shape and its size do not fit")
        if size == 0 and shape != [0]:  # its axes would be no smaller than the file
            raise CertificateError(f"array {i}: an array without entries has the shape [0]")
        total += size
    if total > len(data) - start:
        raise CertificateError(f"truncated: {total - len(data) + start} bytes are missing")
    if total < len(data) - start:
        raise CertificateError(f"{len(data) - start - total} bytes follow the end")
    arrays = []
    for i, entry in enumerate(entries):
        size = entry["bytes"]
        if hashlib.sha256(memoryview(data)[start : start + size]).hexdigest() != entry["sha256"]:
            raise CertificateError(f"damaged: array {i} does not have its sha256")
        raw = np.frombuffer(data, entry["dtype"], size // 8, start).reshape(entry["shape"])
        array = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        if not np.isfinite(array).all():
            raise CertificateError(f"array {i} holds a NaN or an infinite number")
        arrays.append(array)
        start += size
    return arrays
