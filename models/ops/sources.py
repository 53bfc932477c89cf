"""Where values come from: inputs of the network and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tangency.models.ops.backend import Backend
from tangency.models.ops.base import Op, Shape, register_op

__all__ = ["Constant", "Input"]


@register_op
@dataclass(frozen=True)
class Input(Op):
    """An input of the network; its shape (of one sample) stands in the node."""

    kind: ClassVar[str] = "input"
    arity: ClassVar[tuple[int, int | None]] = (0, 0)


@register_op
@dataclass(frozen=True)
class Constant(Op):
    """A fixed tensor that every sample shares, the parameter ``value``."""

    kind: ClassVar[str] = "constant"
    arity: ClassVar[tuple[int, int | None]] = (0, 0)
    roles: ClassVar[tuple[str, ...]] = ("value",)
    required: ClassVar[tuple[str, ...]] = ("value",)
    affine: ClassVar[bool] = True

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        return params["value"]

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        return params["value"][None]
