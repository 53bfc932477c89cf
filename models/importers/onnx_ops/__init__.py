"""Readers of the ONNX ops, in families; importing this package fills the table ``READERS``."""

from tangency.models.importers.onnx_ops import (
    arithmetic,
    elementwise,
    linear,
    norms,
    recurrent,
    reductions,
    resize,
    shapes,
    windows,
)
from tangency.models.importers.onnx_ops.context import READERS, Call, Condition, Const, Item

__all__ = ["FAMILIES", "READERS", "Call", "Condition", "Const", "Item"]

#: The modules that hold the readers.
FAMILIES = (
    arithmetic,
    elementwise,
    linear,
    norms,
    recurrent,
    reductions,
    resize,
    shapes,
    windows,
)
