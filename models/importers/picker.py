"""``load``: a network from whatever it is kept in."""

from __future__ import annotations

import inspect
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.importers.paths import as_path, unpacked
from tangency.models.network import Network

__all__ = ["load"]

FORMS = (
    "the path of a file written by Network.save, an .onnx or .onnx.gz file, a .mat file or a .pt2 "
    "file of torch.export; or a Network, torch module, exported torch program, ONNX model or its "
    "bytes, equinox or flax module or JAX callable (with example=), or a list of weight arrays"
)
STATE = (
    "holds tensors without the code of the model, or a pickled module, which is not opened as it "
    "may run code: build the module, load the file into it, and give "
    "from_torch(module, example), or save it with torch.export.save to a .pt2 file"
)


def load(source: Any, *, example: Any = None, **options: Any) -> Network:
    """Import a network from a file or an object, by its content.

    Parameters
    ----------
    source : path or object
        A file written by :meth:`Network.save`, ``.onnx``, ``.onnx.gz``, ``.mat`` or ``.pt2``; or a
        Network (given back), a torch module or exported program, an ``onnx.ModelProto`` or its
        bytes, an equinox or flax module or JAX callable, or a list of weight arrays.
    example : array or tuple of arrays, optional
        An input to trace with; needed for modules and callables.
    **options
        Passed on to the importer, such as ``batch_axis=`` or ``activation=``.

    Raises
    ------
    InputError
        For a missing, empty or unknown file, an unknown object, an example that is missing or not
        taken, or an option that the importer does not have; names the source and what is accepted.

    Examples
    --------
    >>> import numpy as np
    >>> load([np.eye(2), np.ones((1, 2))], activation="relu").output_shape
    (1,)
    """
    if isinstance(source, Network):
        return _call(_given_back, "a Network", source, example, options)
    if isinstance(source, str | os.PathLike):
        return _from_file(source, example, options)
    if isinstance(source, bytes | bytearray | memoryview) or _is(source, "onnx", "ModelProto"):
        from tangency.models.importers.onnx import from_onnx

        return _call(from_onnx, "an ONNX model", source, example, options)
    if _is(source, "torch.nn", "Module") or _is(source, "torch.export", "ExportedProgram"):
        from tangency.models.importers.torch import from_torch

        what = "a torch model"
        if _is(source, "torch.nn", "Module") and example is None:
            raise InputError(f"{what} {type(source).__name__}: give example=, an input to trace")
        return _with_example(from_torch, what, source, example, options)
    if _is_layers(source):
        from tangency.models.importers.layers import from_layers

        return _call(from_layers, "a list of arrays", source, example, options)
    if callable(source) and not isinstance(source, type):
        from tangency.models.importers.jax import from_jax

        if example is None:
            name = getattr(source, "__name__", type(source).__name__)
            raise InputError(f"the callable {name}: give example=, an input to trace it with")
        return _with_example(from_jax, "a callable", source, example, options)
    raise InputError(f"cannot import a {type(source).__name__}: give {FORMS}")


def _given_back(network: Network) -> Network:
    return network


def _is(source: Any, module: str, name: str) -> bool:
    """Whether the source is of a class of a package, which is not imported for the question."""
    if module not in sys.modules:
        return False
    cls = getattr(sys.modules[module], name, None)
    return isinstance(cls, type) and isinstance(source, cls)


def _is_layers(source: Any) -> bool:
    def array(x: Any) -> bool:
        return isinstance(x, np.ndarray) or (hasattr(x, "dtype") and hasattr(x, "shape"))

    def layer(x: Any) -> bool:
        return array(x) or (isinstance(x, tuple | list) and len(x) == 2 and array(x[0]))

    return isinstance(source, Sequence) and len(source) > 0 and all(map(layer, source))


def _call(
    importer: Callable[..., Network], what: str, source: Any, example: Any, options: dict[str, Any]
) -> Network:
    """Call an importer that takes no example."""
    if example is not None:
        raise InputError(f"example= is not used for {what}: leave it out")
    _check_options(importer, what, options)
    return importer(source, **options)


def _with_example(
    importer: Callable[..., Network], what: str, source: Any, example: Any, options: dict[str, Any]
) -> Network:
    _check_options(importer, what, options)
    return importer(source, **options) if example is None else importer(source, example, **options)


def _check_options(importer: Callable[..., Network], what: str, options: dict[str, Any]) -> None:
    parameters = inspect.signature(importer).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    accepted = [p.name for p in list(parameters)[1:] if p.name != "example"]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        has = ", ".join(accepted) or "none"
        raise InputError(f"option {unknown[0]!r} does not exist for {what}; there are: {has}")


def _from_file(source: str | os.PathLike[str], example: Any, options: dict[str, Any]) -> Network:
    path = as_path(source, FORMS)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give {FORMS}") from None
    names = path.name.lower()
    suffix = Path(names.removesuffix(".gz")).suffix
    if head[:2] == b"PK":
        return _from_zip(path, suffix, example, options)
    if suffix == ".onnx" or _onnx_like(path, head, suffix):
        from tangency.models.importers.onnx import from_onnx

        return _call(from_onnx, "an ONNX file", path, example, options)
    if suffix == ".mat" or head.startswith(b"MATLAB"):
        from tangency.models.importers.mat import from_mat

        return _call(from_mat, "a .mat file", path, example, options)
    if suffix in (".pt", ".pth", ".bin", ".ckpt") and head[:1] in (b"\x80", b"P"):
        raise InputError(f"{path}: {STATE}")
    raise InputError(f"{path}: of no known form; give {FORMS}")


def _from_zip(path: Path, suffix: str, example: Any, options: dict[str, Any]) -> Network:
    """A zip archive is a network of ours, or one of torch's two kinds."""
    from tangency.models.file import is_network_file
    from tangency.models.file import load as load_own

    if is_network_file(path):
        return _call(load_own, "a file of Network.save", path, example, options)
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.rpartition("/")[2] for name in file.namelist()}
    except Exception as error:  # a damaged archive: zipfile raises errors of many classes
        raise InputError(f"{path}: the file is damaged: {error}; give {FORMS}") from None
    exported = {"archive_format", "serialized_exported_program.json"} & names or any(
        n == "model.json" for n in names
    )
    if suffix == ".pt2" or exported:
        from tangency.models.importers.pt2 import read_pt2
        from tangency.models.importers.torch import from_torch

        return _with_example(from_torch, "a .pt2 file", read_pt2(path), example, options)
    if "data.pkl" in names:
        raise InputError(f"{path}: {STATE}")
    raise InputError(f"{path}: of no known form; give {FORMS}")


def _onnx_like(path: Path, head: bytes, suffix: str) -> bool:
    """Whether a file with another suffix holds an ONNX model, as far as its first bytes tell.

    A model begins with its ir_version (field 1, a varint), as every exporter writes it.
    """
    if suffix not in ("", ".pb", ".model", ".onnx"):
        return False
    if head[:2] == b"\x1f\x8b":
        head = unpacked(path.read_bytes(), str(path))[:512]
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 32 and head[2] in (0x12, 0x3A, 0x42)
