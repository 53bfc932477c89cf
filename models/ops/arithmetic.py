"""Element-wise ops of two or more inputs, and the product of two variable matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tangency.models.ops.backend import Backend
from tangency.models.ops.base import Op, Shape, broadcast_shapes, register_op, same_rank

__all__ = ["Add", "Extremum", "MatMul", "Product", "Quotient", "Select", "Subtract"]


@dataclass(frozen=True)
class _Elementwise(Op):
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        return broadcast_shapes(*inputs)

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        return self.combine(backend, *same_rank(*inputs))

    def combine(self, backend: Backend, *inputs: Any) -> Any:
        """Evaluate on arrays of equal rank."""
        raise NotImplementedError


@register_op
@dataclass(frozen=True)
class Add(_Elementwise):
    """``x + y`` with NumPy's broadcasting."""

    kind: ClassVar[str] = "add"
    affine: ClassVar[bool] = True

    def combine(self, backend: Backend, *inputs: Any) -> Any:
        return inputs[0] + inputs[1]


@register_op
@dataclass(frozen=True)
class Subtract(_Elementwise):
    """``x - y`` with NumPy's broadcasting."""

    kind: ClassVar[str] = "subtract"
    affine: ClassVar[bool] = True

    def combine(self, backend: Backend, *inputs: Any) -> Any:
        return inputs[0] - inputs[1]


@register_op
@dataclass(frozen=True)
class Product(_Elementwise):
    """``x * y`` of two variables, with NumPy's broadcasting."""

    kind: ClassVar[str] = "product"

    def combine(self, backend: Backend, *inputs: Any) -> Any:
        return inputs[0] * inputs[1]


@register_op
@dataclass(frozen=True)
class Quotient(_Elementwise):
    """``x / y`` with NumPy's broadcasting; y a variable."""

    kind: ClassVar[str] = "quotient"

    def combine(self, backend: Backend, *inputs: Any) -> Any:
        return backend.divide(*inputs)


@register_op
@dataclass(frozen=True)
class Extremum(_Elementwise):
    """``max(x, y)`` or ``min(x, y)``, with NumPy's broadcasting."""

    how: str = "max"

    kind: ClassVar[str] = "extremum"

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        self.require(self.how in ("max", "min"), f"how is 'max' or 'min', got {self.how!r}")
        return broadcast_shapes(*inputs)

    def combine(self, backend: Backend, *inputs: Any) -> Any:
        pick = backend.xp.maximum if self.how == "max" else backend.xp.minimum
        return pick(*inputs)


@register_op
@dataclass(frozen=True)
class Select(_Elementwise):
    """``a where x > y, else b`` (or with >=): inputs x, y, a, b, with NumPy's broadcasting.

    The other comparisons are these with x and y, or a and b, exchanged.
    """

    strict: bool = True

    kind: ClassVar[str] = "select"
    arity: ClassVar[tuple[int, int | None]] = (4, 4)

    def combine(self, backend: Backend, *inputs: Any) -> Any:
        x, y, a, b = inputs
        return backend.xp.where(x > y if self.strict else x >= y, a, b)


@register_op
@dataclass(frozen=True)
class MatMul(Op):
    """``x @ y`` on the last two axes, the axes before them broadcast."""

    kind: ClassVar[str] = "matmul"
    arity: ClassVar[tuple[int, int | None]] = (2, 2)

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        x, y = inputs
        fits = len(x) >= 2 and len(y) >= 2 and x[-1] == y[-2]
        self.require(fits, f"takes (..., m, k) and (..., k, n), got {x} and {y}")
        return (*broadcast_shapes(x[:-2], y[:-2]), x[-2], y[-1])

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        x, y = same_rank(*inputs)
        return backend.xp.matmul(x, y)
