"""Readers of ATen ops, in families; importing this package fills the table ``READERS``."""

from tangency.models.importers.torch_ops import (
    activations,
    arithmetic,
    attention,
    choices,
    contraction,
    fresh,
    groups,
    indexing,
    linear,
    norms,
    recurrent,
    reductions,
    shapes,
    windows,
)
from tangency.models.importers.torch_ops.context import (
    READERS,
    Call,
    Const,
    Missing,
    Reader,
    Truth,
    is_variable,
)

__all__ = ["FAMILIES", "READERS", "Call", "Const", "Missing", "Reader", "Truth", "is_variable"]

#: The modules that hold the readers.
FAMILIES = (
    activations,
    arithmetic,
    attention,
    choices,
    contraction,
    fresh,
    groups,
    indexing,
    linear,
    norms,
    recurrent,
    reductions,
    shapes,
    windows,
)
