"""The shared interface: networks, their ops, activation records, importers.

Importing this package needs NumPy alone; JAX, PyTorch and ONNX are imported by what uses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ != "tangency.models":  # the folder was imported by its bare name from the checkout
    raise ImportError("this folder is the package tangency.models: pip install -e . and import it")

from tangency.models.errors import (
    InputError,
    MissingPackageError,
    NotProvedError,
    TangencyError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from tangency.models.builder import Builder as Builder
    from tangency.models.importers import from_jax as from_jax
    from tangency.models.importers import from_layers as from_layers
    from tangency.models.importers import from_mat as from_mat
    from tangency.models.importers import from_onnx as from_onnx
    from tangency.models.importers import from_torch as from_torch
    from tangency.models.importers import load as load
    from tangency.models.network import Network as Network
    from tangency.models.structure import Node as Node
    from tangency.models.structure import Param as Param
    from tangency.models.structure import Structure as Structure

__all__ = [
    "Builder",
    "InputError",
    "MissingPackageError",
    "Network",
    "Node",
    "NotProvedError",
    "Param",
    "Structure",
    "TangencyError",
    "UnsupportedError",
    "from_jax",
    "from_layers",
    "from_mat",
    "from_onnx",
    "from_torch",
    "load",
]

_HOMES = {
    "Builder": "builder",
    "Network": "network",
    "Node": "structure",
    "Param": "structure",
    "Structure": "structure",
    "from_jax": "importers",
    "from_layers": "importers",
    "from_mat": "importers",
    "from_onnx": "importers",
    "from_torch": "importers",
    "load": "importers",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tangency.models.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
