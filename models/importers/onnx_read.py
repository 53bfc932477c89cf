"""Decoding ONNX: from a path, bytes or a ModelProto to a model that is safe to trace.

Everything that a damaged file can do happens here, behind one boundary: what the protobuf parser,
the checker and the array decoder raise becomes one :class:`InputError`, and no array is made
before its size was compared with the bytes that are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import unpack_limit
from tangency.models.errors import InputError, MissingPackageError, TangencyError, UnsupportedError
from tangency.models.importers.paths import read_file, unpacked

__all__ = [
    "boundary",
    "import_onnx",
    "opset_of",
    "read_model",
    "tensor_array",
    "tensors",
    "weight_files",
]

FORMS = "an ONNX model: the path of an .onnx or .onnx.gz file, its bytes, or an onnx.ModelProto"

#: Most nodes that the functions of a model may unfold to.
NODES = 200_000

#: Numbers of bytes and the field of the elements, by the name of an ONNX element type.
FIELDS = {
    "FLOAT": (4, "float_data"),
    "DOUBLE": (8, "double_data"),
    "INT64": (8, "int64_data"),
    "INT32": (4, "int32_data"),
    "BOOL": (1, "int32_data"),
    "UINT8": (1, "int32_data"),
    "INT8": (1, "int32_data"),
    "UINT16": (2, "int32_data"),
    "INT16": (2, "int32_data"),
    "UINT32": (4, "uint64_data"),
    "UINT64": (8, "uint64_data"),
    "FLOAT16": (2, "int32_data"),
    "BFLOAT16": (2, "int32_data"),
}


def import_onnx() -> Any:
    """The package onnx; MissingPackageError when it is not installed."""
    try:
        import onnx
    except ImportError:
        raise MissingPackageError(
            "reading ONNX needs the package onnx: pip install 'tangency[onnx]'"
        ) from None
    return onnx


@contextmanager
def boundary(label: str) -> Iterator[None]:
    """Turn what third-party code raises on a damaged model into one InputError."""
    try:
        yield
    except TangencyError:
        raise
    except Exception as error:  # a parser, a checker: any exception means a damaged model
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{label}: not a readable ONNX model: {text}") from None


def read_model(source: Any) -> tuple[Any, str]:
    """The ModelProto of a source, checked, and the name of the source for messages.

    Raises
    ------
    InputError
        When it is not a model, damaged, empty, of an unknown opset, or without its external data.
    """
    onnx = import_onnx()
    folder = None
    if isinstance(source, onnx.ModelProto):
        model, label = source, "the ONNX model"
    elif isinstance(source, bytes | bytearray | memoryview):
        label = "the ONNX bytes"
        model = _parse(onnx, unpacked(bytes(source), label), label)
    elif isinstance(source, str | os.PathLike):
        label = str(source)
        model = _parse(onnx, read_file(source, FORMS), label)
        folder = Path(source).parent
    else:
        raise InputError(f"got a {type(source).__name__}: give {FORMS}")
    with boundary(label):
        if not model.HasField("graph") or not (model.graph.node or model.graph.output):
            raise InputError(f"{label}: is not an ONNX model, or its graph is empty; give {FORMS}")
        if not model.graph.node:
            raise InputError(f"{label}: the graph has no nodes")
        opset_of(model, label)
        model = inlined(model, label)
        _attach(onnx, model, folder, label)
        for tensor in tensors(model.graph):
            check_tensor(tensor)
    return model, label


def _parse(onnx: Any, data: bytes, label: str) -> Any:
    if not data:
        raise InputError(f"{label}: is empty; give {FORMS}")
    with boundary(label):
        model = onnx.ModelProto()
        model.ParseFromString(data)
        return model


def opset_of(model: Any, label: str = "the ONNX model") -> int:
    """Version of the default operator set; InputError when there is none or it is too new."""
    newest = import_onnx().defs.onnx_opset_version()
    found = [int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")]
    version = found[0] if found else 1 if model.ir_version < 3 else 0
    if not 1 <= version <= newest or len(set(found)) > 1:
        stated = f"opset {found}" if found else "no opset of the ai.onnx operators"
        raise InputError(f"{label}: states {stated}; the installed onnx knows opsets 1 to {newest}")
    return version


def inlined(model: Any, label: str) -> Any:
    """The model without functions of its own.

    Functions that call functions unfold without limit: 28 that call the one before twice are
    2 kB and 2^27 nodes. So the nodes and bytes are counted before they are made.

    Raises
    ------
    InputError
        When it would have more than NODES nodes, too many bytes, or a function calls itself:
        names the function.
    """
    if not model.functions:
        return model
    functions = {_key(f, f.name): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise InputError(f"{label}: two functions of the model have the same name")
    bodies = {key: list(_nodes(f.node)) for key, f in functions.items()}
    called = {
        key: [c for n in nodes if (c := _key(n, n.op_type)) in functions]
        for key, nodes in bodies.items()
    }
    try:
        order = list(TopologicalSorter(called).static_order())
    except CycleError as error:
        raise InputError(f"{label}: the function {error.args[1][0][1]!r} calls itself") from None
    most = unpack_limit(model.ByteSize())
    unfolded: dict[tuple[str, str, str], tuple[int, int]] = {}
    for key in order:
        inner = [unfolded[c] for c in called[key]]
        count = len(bodies[key]) + sum(nodes for nodes, _ in inner)
        size = functions[key].ByteSize() + sum(size for _, size in inner)
        _check_unfolded(f"{label}: the function {key[1]!r}", count, size, most)
        unfolded[key] = count, size
    calls = [_key(n, n.op_type) for n in _nodes(model.graph.node)]
    used = [unfolded[c] for c in calls if c in unfolded]
    count, size = (sum(part) for part in zip(*used, strict=True)) if used else (0, 0)
    _check_unfolded(f"{label}: the graph with its functions", count, size, most)
    from onnx import inliner

    return inliner.inline_local_functions(model)


def _key(one: Any, name: str) -> tuple[str, str, str]:
    """What a function or a call of it is known by; the default domain has two names."""
    return ("" if one.domain == "ai.onnx" else one.domain, name, getattr(one, "overload", ""))


def _check_unfolded(what: str, nodes: int, size: int, most: int) -> None:
    if nodes > NODES or size > most:
        raise InputError(
            f"{what} unfolds to {nodes} nodes and {size} bytes; {NODES} and {most} are accepted"
        )


def _nodes(nodes: Any) -> Iterator[Any]:
    """Nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _attach(onnx: Any, model: Any, folder: Path | None, label: str) -> None:
    """Load weights that are kept in files beside the model."""
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    for tensor in tensors(model.graph):
        if not uses_external_data(tensor):
            continue
        if folder is None:
            raise InputError(
                f"{label}: initializer {tensor.name!r} is kept in another file: give the path of "
                "the .onnx file, so that the file is found beside it"
            )
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise InputError(
                f"{label}: the external data of initializer {tensor.name!r} cannot be read: {text}"
            ) from None


def weight_files(path: str | os.PathLike[str]) -> list[str]:
    """The files, relative to a model's folder, that keep weights of it.

    Raises
    ------
    InputError, MissingPackageError
        For a file that is no ONNX model, and without onnx.
    """
    onnx = import_onnx()
    model = _parse(onnx, read_file(path, FORMS), str(path))
    entries = (entry for tensor in tensors(model.graph) for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})


def tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph: initializers and attributes of nodes, subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from tensors(attribute.g)
            for inner in attribute.graphs:
                yield from tensors(inner)


def check_tensor(tensor: Any) -> None:
    """Compare a tensor's dimensions with its data, before anything of that size is made."""
    onnx = import_onnx()
    name, dims = tensor.name or "(unnamed)", [int(d) for d in tensor.dims]
    if min(dims, default=0) < 0 or len(dims) > 32:
        raise InputError(f"tensor {name!r} has dimensions {dims[:40]}")
    kinds = onnx.TensorProto.DataType
    kind = kinds.Name(tensor.data_type) if tensor.data_type in kinds.values() else "?"
    if kind not in FIELDS:
        if kind == "STRING":
            return
        raise UnsupportedError(f"tensor {name!r} has elements of type {kind}: not supported")
    width, field = FIELDS[kind]
    raw = tensor.HasField("raw_data")
    size, count = (len(tensor.raw_data), width) if raw else (len(getattr(tensor, field)), 1)
    if size != prod(dims) * count:
        raise InputError(
            f"tensor {name!r}: dimensions {dims}, but data for {size / count:g} entries of {kind}"
        )


def tensor_array(tensor: Any) -> np.ndarray:
    """A tensor that passed :func:`check_tensor` as an array."""
    return np.asarray(import_onnx().numpy_helper.to_array(tensor))
