"""What a reader of one ONNX op is given, and the table of readers.

A reader takes a :class:`Call`, the node with what its inputs are by now, and returns the value of
its first output (or the list of its outputs). Nodes of constants alone never reach a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NoReturn

import numpy as np

from tangency.models import activations
from tangency.models.builder import Builder, Value
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.ops import Shape
from tangency.models.ops.base import normalise_axis

__all__ = ["READERS", "Call", "Condition", "Const", "Item", "reads"]

#: Most entries that one value of the traced sample may have; a damaged model asks for more.
LIMIT = 2**26


@dataclass(frozen=True)
class Const:
    """A tensor known at import, and the initializer (or node) that it came from."""

    array: np.ndarray
    key: str
    trainable: bool = False

    @property
    def shape(self) -> Shape:
        """Shape of the tensor."""
        return tuple(self.array.shape)


@dataclass(frozen=True)
class Condition:
    """``x > y`` (or ``x >= y``), element by element: what Where chooses by."""

    x: Value
    y: Value
    strict: bool
    shape: Shape


Item = Value | Const | Condition
Reader = Callable[["Call"], Any]

#: Readers by op type, filled by :func:`reads`.
READERS: dict[str, Reader] = {}


def reads(*ops: str) -> Callable[[Reader], Reader]:
    """Enter a function in :data:`READERS` under some op types."""

    def enter(function: Reader) -> Reader:
        for op in ops:
            READERS[op] = function
        return function

    return enter


@dataclass(frozen=True)
class Call:
    """One node of the ONNX graph, about to be read.

    Attributes
    ----------
    name, op : str
        Name of the layer and the ONNX op type.
    opset : int
        Version of the operator set, on which the meaning of some ops depends.
    builder : Builder
        Where nodes go.
    attributes : dict
        The node's attributes, decoded.
    inputs : sequence of Value, Const, Condition or None
        None for an optional input that is left out.
    used : tuple of bool
        Which outputs anything takes.
    """

    name: str
    op: str
    opset: int
    builder: Builder
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: Sequence[Item | None] = ()
    used: tuple[bool, ...] = (True,)

    # --- errors -----------------------------------------------------------------------------

    def refuse(self, why: str) -> NoReturn:
        """Raise an UnsupportedError that names the node."""
        raise UnsupportedError(f"node {self.name!r} ({self.op}): {why}")

    def wrong(self, why: str) -> NoReturn:
        """Raise an InputError that names the node."""
        raise InputError(f"node {self.name!r} ({self.op}): {why}")

    # --- attributes ---------------------------------------------------------------------------

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(name, default)

    def number(self, name: str, default: float) -> float:
        """A finite float attribute; ONNX keeps them, defaults too, in float32."""
        value = float(np.float32(self.attr(name, default)))
        if not np.isfinite(value):
            self.wrong(f"attribute {name} is {value}")
        return value

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attr(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def ints(self, name: str, count: int, default: int, *, least: int) -> tuple[int, ...]:
        """An attribute of ``count`` integers, none below ``least``."""
        values = tuple(int(v) for v in self.attr(name) or [default] * count)
        if len(values) != count or min(values, default=least) < least or max(values) > LIMIT:
            self.wrong(f"{name} {values} does not fit: {count} integers >= {least}")
        return values

    # --- inputs -------------------------------------------------------------------------------

    def item(self, i: int) -> Item | None:
        """Input i as it is; None when it is left out."""
        return self.inputs[i] if i < len(self.inputs) else None

    def given(self, i: int) -> Item:
        """Input i, which must be there."""
        item = self.item(i)
        if item is None:
            self.wrong(f"its input {i} is missing")
        return item

    def var(self, i: int) -> Value:
        """Input i as a node of the graph; a constant becomes one."""
        return self.value(self.given(i), i)

    def value(self, item: Item, i: int = 0) -> Value:
        """An item as a node of the graph."""
        if isinstance(item, Value):
            return item
        if isinstance(item, Condition):
            self.refuse(f"input {i} is a comparison; only Where, Not and Cast take one")
        self.float_array(item)
        return self.builder.constant(item.array, key=item.key, trainable=item.trainable)

    def const(self, i: int, what: str) -> Const:
        """Input i, which must be constant."""
        item = self.given(i)
        if not isinstance(item, Const):
            self.refuse(f"its {what} (input {i}) depends on the network's input: not supported")
        return item

    def weight(self, i: int, what: str) -> Const:
        """Input i, which must be a constant of the network's dtype."""
        item = self.const(i, what)
        self.float_array(item)
        return item

    def float_array(self, item: Const) -> np.ndarray:
        """The array of a constant that must have the network's dtype."""
        if str(item.array.dtype) != self.builder.dtype:
            self.wrong(
                f"{item.key!r} is {item.array.dtype}, the network is {self.builder.dtype}: "
                "weights and inputs must have one floating-point type"
            )
        return item.array

    def integers(self, i: int, name: str) -> list[int] | None:
        """Integers from attribute ``name`` or, in later opsets, constant input i."""
        if name in self.attributes:
            values = self.attributes[name]
            return [int(v) for v in (values if isinstance(values, list | tuple) else [values])]
        if self.item(i) is None:
            return None
        array = self.const(i, name).array
        if array.dtype.kind not in "iu" or array.size > 10**7:
            self.wrong(f"{name} is {array.dtype} {array.shape}: integers are needed")
        return [int(v) for v in array.reshape(-1)]

    def axis(self, axis: Any, rank: int) -> int:
        """An axis counted from 0."""
        try:
            return normalise_axis(int(axis), rank)
        except InputError as error:
            self.wrong(str(error))

    def axes(self, axes: Sequence[int], rank: int) -> list[int]:
        """Different axes counted from 0, in order."""
        found = [self.axis(a, rank) for a in axes]
        if len(set(found)) != len(found):
            self.wrong(f"axes {list(axes)} repeat")
        return sorted(found)

    # --- what several readers write -------------------------------------------------------------

    def activate(self, value: Value, name: str, /, **params: float) -> Value:
        """A function of the catalogue on every entry."""
        return self.builder.activation(value, activations.get(name, **params))

    def bounded(self, shape: Sequence[int]) -> Shape:
        """The shape, unless it is too large to be meant."""
        if prod(shape) > LIMIT or min(shape, default=1) < 1:
            self.wrong(f"its output would have shape {tuple(shape)} (at most {LIMIT} entries)")
        return tuple(shape)

    def along(self, value: Value, axis: int, matrix: np.ndarray, key: str) -> Value:
        """``matrix`` (new, old), a fixed linear map, on one axis."""
        b, rank = self.builder, len(value.shape)
        self.bounded([*(s for i, s in enumerate(value.shape) if i != axis), matrix.shape[0]])
        order = [i for i in range(rank) if i != axis] + [axis]
        moved = b.transpose(value, order)
        weight = np.ascontiguousarray(matrix, b.dtype)
        moved = b.dense(moved, weight, keys=(key, key), trainable=(False, False))
        return b.transpose(moved, [order.index(i) for i in range(rank)])
