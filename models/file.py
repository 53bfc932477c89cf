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

from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.models.ops import OPS, Op
from tangency.models.structure import Node, Param, Structure

__all__ = ["decode_op", "encode_op", "is_network_file", "load", "save"]

FORMAT = "tangency-network"
VERSION = 1
HEADER = "structure.json"


def encode_op(op: Op) -> dict[str, Any]:
    """An op as JSON data: its kind and its attributes."""
    data: dict[str, Any] = {"kind": op.kind}
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(value, Activation):
            value = {"name": value.name, "params": dict(value.params)}
        data[field.name] = value
    return data


def decode_op(data: Mapping[str, Any]) -> Op:
    """The op that :func:`encode_op` wrote; InputError for an unknown kind or attribute."""
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
            attributes[name] = activations.get(
                value["name"], **{k: _tuples(v) for k, v in value["params"].items()}
            )
        else:
            attributes[name] = _tuples(value)
    return cls(**attributes)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def save(network: Network, path: str | Path) -> None:
    """Write a network; InputError when an activation is not in the catalogue."""
    structure = network.structure
    for node in structure.nodes:
        record = getattr(node.op, "activation", None)
        if record is not None and record.name not in activations.names():
            raise InputError(
                f"layer {node.name!r}: activation {record.name!r} is not in the catalogue; "
                "tangency.models.activations.register it before saving and before loading"
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
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(HEADER, json.dumps(header, indent=1))
        for i, array in enumerate(network.weights.values()):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            file.writestr(f"weights/{i}.npy", buffer.getvalue())


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
                tuple(Param(role, key, tuple(s), *rest) for role, key, s, *rest in n["params"]),
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
    """A parameter's entry; its gain is written where it is not 1."""
    return [p.role, p.key, p.shape, p.trainable, *(() if p.gain == 1.0 else (p.gain,))]
