r"""Affine ops backwards: what a linear function of the output is of the inputs.

For :math:`z = \sum_k W_k x_k + v` and coefficients a (rows), :math:`a \cdot z = \sum_k (a W_k)
\cdot x_k + a \cdot v`. Each op is described once, as a :class:`Linear`: the product
:math:`a \mapsto fl(a W_k)` in NumPy, and a vector that pays for its rounding. For all x with
:math:`|x_k| \le m`

.. math:: |(a W_k) \cdot x_k - fl(a W_k) \cdot x_k| \le |a| \cdot s, \quad s \ge \gamma |W_k| m,

because :math:`|a| (|W_k| m) = (|a| |W_k|) m`. So rigour costs one product of a matrix with a
vector for a sample and a layer, not a second product with all the coefficients. Where a
coefficient of the op is itself rounded (a batch norm's gain, a mean's 1/n), s grows accordingly.

Underflow is paid elsewhere, once for all: see ``UNDERFLOW`` in :mod:`.enclosure`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tangency.models.errors import UnsupportedError
from tangency.models.ops import Op, Shape
from tangency.verify.rigorous.cropping import Window

__all__ = ["Linear", "behind_batch", "builds", "linear_of"]

Array = Any
Params = Mapping[str, Array]
Map = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Linear:
    """An affine op ``sum_k W_k x_k + v``.

    Attributes
    ----------
    pulls : tuple of callable
        For each input, ``(B, S, *out) -> (B, S, *in)``: rows times ``W_k``.
    slips : tuple of (callable or None)
        For each input, ``m (N, *in) -> s (N, *out)`` as above; None where nothing is rounded.
    shift : (*out) array, optional
        The vector v, up to ``slack``.
    slack : (*out) array, optional
        Bound of what is missing in v.
    near : callable, optional
        Where it can go on with coefficients on a window of the last axes: those and their window
        to those of every input and theirs.
    """

    pulls: tuple[Map, ...]
    slips: tuple[Map | None, ...]
    shift: Array | None = None
    slack: Array | None = None
    near: Callable[[Array, Window], tuple[Array, Window | None]] | None = None


Builder = Callable[[Any, Params, tuple[Shape, ...], Shape], Linear]
_BUILDERS: dict[type[Op], Builder] = {}


def builds(*ops: type[Op]) -> Callable[[Builder], Builder]:
    """Enter a function as the builder of some op classes."""

    def enter(function: Builder) -> Builder:
        _BUILDERS.update(dict.fromkeys(ops, function))
        return function

    return enter


def linear_of(op: Op, params: Params, inputs: tuple[Shape, ...], shape: Shape) -> Linear:
    """The description of an affine op, by its inputs' shapes and its own; UnsupportedError."""
    if type(op) not in _BUILDERS:
        known = ", ".join(sorted(cls.kind for cls in _BUILDERS))
        raise UnsupportedError(f"{op.kind!r} has no transpose here; these have: {known}")
    return _BUILDERS[type(op)](op, params, inputs, shape)


def behind_batch(values: Array, rank: int) -> Array:
    """Insert axes of size one behind the batch."""
    return values.reshape((values.shape[0], *(1,) * (rank + 1 - values.ndim), *values.shape[1:]))
