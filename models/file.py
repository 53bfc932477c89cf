"""One file for a network: a zip of ``structure.json`` and one ``.npy`` a weight.

Nothing is pickled, so reading a file runs no code of it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import replacing, why
from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.activations.registry import is_of_catalogue
from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.models.ops import OPS, Op
from tangency.models.structure import Node, Param, Structure

__all__ = ["decode_op", "encode_op", "is_network_file", "load", "save"]

FORMAT = "tangency-network"
VERSION = 2
HEADER = "structure.json"


def encode_op(op: Op) -> dict[str, Any]:
    """An op as JSON data: its kind and its attributes.

    An activation is its name and parameters, and the digest of all that it says where it is not the
    catalogue's.
    """
    data: dict[str, Any] = {"kind": op.kind}
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(value, Activation):
            value = {"name": value.name, "params": dict(value.params), **_own(value)}
        data[field.name] = value
    return data


def _own(record: Activation) -> dict[str, str]:
    return {} if is_of_catalogue(record) else {"digest": record.digest}


def decode_op(data: Mapping[str, Any]) -> Op:
    """The op that :func:`encode_op` wrote.

    Raises
    ------
    InputError
        For an unknown kind, attribute or activation, or where the activation that is registered
        under the name is another than the one that was written.
    """
    attributes = dict(data)
    kind = attributes.pop("kind", None)
    if kind not in OPS:
        raise InputError(f"unknown kind of op {kind!r}: known are {', '.join(sorted(OPS))}")
    cls = OPS[kind]
    names = {f.name for f in fields(cls)}
    if set(attributes) - names:
        raise InputError(f"op {kind!r} has no attribute {sorted(set(attributes) - names)}")
    for name, value in attributes.items():
        if isinstance(value, dict):
            params = {k: _tuples(v) for k, v in value["params"].items()}
            record = activations.get(value["name"], **params)
            if _own(record) != {k: v for k, v in value.items() if k == "digest"}:
                raise InputError(
                    f"the activation {value['name']!r} that is registered is another function than "
                    "the one written in the file: register that one before loading"
                )
            attributes[name] = record
        else:
            attributes[name] = _tuples(value)
    return cls(**attributes)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def save(network: Network, path: str | Path) -> None:
    """Write a network; the file that was there stays until all is written.

    Raises
    ------
    InputError
        When an activation is not in the catalogue, or the file cannot be written.
    """
    structure = network.structure
    for node in structure.nodes:
        record = getattr(node.op, "activation", None)
        if record is not None and not _is_found(record):
            raise InputError(
                f"layer {node.name!r}: activation {record.name!r} is not what the catalogue has "
                "under that name; tangency.models.activations.register it, under a name of its "
                "own, before saving and before loading"
            )
    header = {
        "format": FORMAT,
        "version": VERSION,
        "dtype": structure.dtype,
        "inputs": structure.inputs,
        "outputs": structure.outputs,
        "source": network.source,
        "hash": network.hash,
        "keys": list(network.weights),
        "nodes": [
            {
                "name": n.name,
                "op": encode_op(n.op),
                "inputs": n.inputs,
                "shape": n.shape,
                "params": [_param(p) for p in n.params],
            }
            for n in structure.nodes
        ],
    }
    try:
        with replacing(path) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(HEADER, json.dumps(header, indent=1))
            for i, array in enumerate(network.weights.values()):
                buffer = io.BytesIO()
                np.save(buffer, array, allow_pickle=False)
                file.writestr(f"weights/{i}.npy", buffer.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({why(error)})") from None


def _is_found(record: Activation) -> bool:
    """Whether :func:`load` will find the record by its name and parameters."""
    try:
        return activations.get(record.name, **dict(record.params)) == record
    except InputError:
        return False


def is_network_file(path: str | Path) -> bool:
    """Whether the file is a zip that holds the header of a network."""
    try:
        with zipfile.ZipFile(path) as file:
            return HEADER in file.namelist()
    except Exception:  # a damaged archive: zipfile raises errors of many classes
        return False


def load(path: str | Path) -> Network:
    """Read a network back.

    Raises
    ------
    InputError
        When the file is not a network, of a later version, damaged, or its weights do not have
        the hash that was written with them.
    """
    try:
        with zipfile.ZipFile(path) as file:
            header = json.loads(file.read(HEADER))
            if header.get("format") != FORMAT or header.get("version") != VERSION:
                raise InputError(
                    f"{path}: format {header.get('format')!r} version {header.get('version')!r}; "
                    f"this reads {FORMAT} version {VERSION}"
                )
            weights = {
                key: np.load(io.BytesIO(file.read(f"weights/{i}.npy")), allow_pickle=False)
                for i, key in enumerate(header["keys"])
            }
        nodes = tuple(
            Node(
                n["name"],
                decode_op(n["op"]),
                tuple(n["inputs"]),
                tuple(n["shape"]),
                tuple(_read_param(*p) for p in n["params"]),
            )
            for n in header["nodes"]
        )
        ends = tuple(header["inputs"]), tuple(header["outputs"])
        structure = Structure(nodes, *ends, header["dtype"])
        network = Network(structure, weights, source=str(header.get("source", "")))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:
        raise InputError(f"{path}: not a network file: {error}") from None
    if network.hash != header.get("hash"):
        raise InputError(f"{path}: damaged: its weights do not have the hash written in it")
    return network


def _param(p: Param) -> list[Any]:
    """A parameter's entry; gain and entries are written where they are not 1 and none."""
    rest = [] if p.gain == 1.0 and p.entries is None else [p.gain]
    return [p.role, p.key, p.shape, p.trainable, *rest, *([] if p.entries is None else [p.entries])]


def _read_param(
    role: str, key: str, shape: list[int], trainable: bool, gain: Any = 1.0, entries: Any = None
) -> Param:
    place = None if entries is None else tuple(entries)
    return Param(role, key, tuple(shape), trainable, gain, place)
