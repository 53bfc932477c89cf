"""The flat form of a jaxpr: equations between variables and constants, calls inlined."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.models.ops import Shape

__all__ = ["Const", "Eqn", "Ref", "Var", "scalar_of"]


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor that does not depend on the input.

    Attributes
    ----------
    array : array
        The entries, with axes of size one where the value is merely repeated along an axis.
    shape : tuple of int
        The full shape, of the same rank.
    key : str or None
        Name of the parameter that it is, or was made of; None for plain numbers.
    trainable : bool
        Whether that parameter is one that training changes.
    origin : (str, params, inputs) or None
        The primitive that made it of other constants, so that a recogniser can look behind it.
    drawn : bool
        Whether a random number is in it.
    """

    array: Any
    shape: Shape
    key: str | None = None
    trainable: bool = False
    origin: tuple[str, dict[str, Any], tuple[Const, ...]] | None = field(default=None, repr=False)
    drawn: bool = False

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return str(self.array.dtype)

    def full(self) -> Any:
        """The entries in the full shape."""
        if self.array.shape == self.shape:
            return self.array
        return np.broadcast_to(self.array, self.shape)


@dataclass(frozen=True, eq=False)
class Var:
    """A tensor that depends on the input."""

    shape: Shape
    dtype: str


Ref = Const | Var


@dataclass(frozen=True, eq=False)
class Eqn:
    """One primitive applied; names that begin with ``@`` are recognised composites."""

    prim: str
    params: dict[str, Any]
    inputs: tuple[Ref, ...]
    outs: tuple[Var, ...]

    @property
    def out(self) -> Var:
        """The only output."""
        (out,) = self.outs
        return out


def scalar_of(ref: Ref) -> float | None:
    """The number that a constant is everywhere by construction, or None.

    It is exactly the number that is stored: 0.01 in float32 is 0.009999999776482582.

    >>> scalar_of(Const(np.float32(0.5).reshape(1, 1), (1, 8)))
    0.5
    """
    if not isinstance(ref, Const) or ref.array.size != 1:
        return None
    return float(np.asarray(ref.array).reshape(())[()])
