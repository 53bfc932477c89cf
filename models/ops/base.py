"""What every op of the graph is: a frozen, hashable record with a shape rule and an evaluation.

An op sees one sample: shapes and axes never count the batch axis. Evaluation takes arrays with
the batch in front, ``(N, *shape)``, and runs in NumPy or JAX through a :class:`Backend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from tangency.models.errors import InputError
from tangency.models.ops.backend import Backend

__all__ = ["OPS", "Op", "Shape", "broadcast_shapes", "normalise_axis", "register_op", "same_rank"]

Shape = tuple[int, ...]
Array = Any
OpClass = TypeVar("OpClass", bound="type[Op]")

#: Every kind of op by its name, filled by :func:`register_op`; files are read back through it.
OPS: dict[str, type[Op]] = {}


def register_op(cls: OpClass) -> OpClass:
    """Enter an op class in :data:`OPS` under its ``kind``."""
    OPS[cls.kind] = cls
    return cls


@dataclass(frozen=True)
class Op:
    """Base class of the ops.

    Attributes
    ----------
    kind : str
        The name of the op in tables and files.
    arity : tuple of (int, int or None)
        Least and greatest number of inputs.
    roles : tuple of str
        Names of the parameters that the op can take.
    required : tuple of str
        Those of them that must be there.
    affine : bool
        Whether the op is affine in all its inputs together.
    """

    kind: ClassVar[str] = "op"
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    roles: ClassVar[tuple[str, ...]] = ()
    required: ClassVar[tuple[str, ...]] = ()
    affine: ClassVar[bool] = False

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        """Shape of the output of one sample; InputError when the inputs do not fit."""
        raise NotImplementedError(self.kind)

    def apply(self, backend: Backend, params: Mapping[str, Array], *inputs: Array) -> Array:
        """Evaluate on arrays with a leading batch axis."""
        raise NotImplementedError(self.kind)

    def describe(self) -> str:
        """Short text of the attributes for the table of a network."""
        shown = [(f, _collapsed(getattr(self, f.name))) for f in fields(self)]
        return ", ".join(
            f"{f.name}={_short(value)}"
            for f, value in shown
            if f.name not in _GEOMETRY or value != _collapsed(f.default)
        )

    def require(self, condition: bool, message: str) -> None:
        """Raise an InputError that names the op unless the condition holds."""
        if not condition:
            raise InputError(f"{self.kind}: {message}")


#: Attributes that a table leaves out where they change nothing.
_GEOMETRY = ("stride", "padding", "dilation", "groups", "output_padding")


def _collapsed(value: object) -> object:
    """A tuple of equal entries as the one entry: ``((1, 1), (1, 1))`` is 1."""
    while isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]
    return value


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def normalise_axis(axis: int, rank: int) -> int:
    """Axis as a number from 0; InputError when it is out of range.

    >>> normalise_axis(-1, 3)
    2
    """
    if not -rank <= axis < rank:
        raise InputError(f"axis {axis} is out of range for a tensor of {rank} axes")
    return axis % rank


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Common shape by NumPy's rules; InputError when there is none.

    >>> broadcast_shapes((3, 1), (4,))
    (3, 4)
    """
    rank = max(len(s) for s in shapes)
    result = []
    for column in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        sizes = {size for size in column if size != 1}
        if len(sizes) > 1:
            raise InputError(f"shapes {', '.join(map(str, shapes))} do not broadcast together")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def same_rank(*arrays: Array) -> tuple[Array, ...]:
    """Insert axes of size one behind the batch axis, so that per-sample shapes broadcast."""
    rank = max(a.ndim for a in arrays)
    return tuple(
        a if a.ndim == rank else a.reshape(a.shape[:1] + (1,) * (rank - a.ndim) + a.shape[1:])
        for a in arrays
    )
