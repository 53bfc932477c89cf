"""Importers: a trained model of a framework in, a checked :class:`tangency.models.Network` out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangency.models.importers.jax import from_jax as from_jax
    from tangency.models.importers.layers import from_layers as from_layers
    from tangency.models.importers.mat import from_mat as from_mat
    from tangency.models.importers.onnx import from_onnx as from_onnx
    from tangency.models.importers.picker import load as load
    from tangency.models.importers.torch import from_torch as from_torch

__all__ = ["from_jax", "from_layers", "from_mat", "from_onnx", "from_torch", "load"]

_HOMES = {
    "from_jax": "jax",
    "from_layers": "layers",
    "from_mat": "mat",
    "from_onnx": "onnx",
    "from_torch": "torch",
    "load": "picker",
}


def __getattr__(name: str) -> Any:
    """Import an importer from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tangency.models.importers.{_HOMES[name]}"), name)
