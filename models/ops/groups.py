"""Activations of groups of entries: GroupSort (MaxMin, sort) and Householder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tangency.models.ops.backend import Backend
from tangency.models.ops.base import Op, Shape, normalise_axis, register_op

__all__ = ["GroupSort", "Householder"]


@register_op
@dataclass(frozen=True)
class GroupSort(Op):
    """Sorts adjacent groups of ``size`` entries along an axis; MaxMin is size 2, descending.

    References
    ----------
    Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", arXiv 1811.05381.
    """

    size: int = 2
    axis: int = 0
    descending: bool = True

    kind: ClassVar[str] = "group_sort"

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,) = inputs
        entries = shape[normalise_axis(self.axis, len(shape))]
        fits = self.size >= 1 and entries % self.size == 0
        self.require(fits, f"{entries} entries do not split in groups of {self.size}")
        return shape

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), xp = inputs, backend.xp
        axis = normalise_axis(self.axis, x.ndim - 1) + 1
        groups = x.reshape((*x.shape[:axis], -1, self.size, *x.shape[axis + 1 :]))
        y = xp.sort(groups, axis=axis + 1)
        return (xp.flip(y, axis=axis + 1) if self.descending else y).reshape(x.shape)


@register_op
@dataclass(frozen=True)
class Householder(Op):
    """On each adjacent group z of an axis: z where ``v.z > 0``, else ``z - 2 v (v.z)``.

    The parameter ``vectors`` ``(groups, size)`` holds one v of unit length a group.

    References
    ----------
    Singla, Singla, Feizi, "Improved deterministic l2 robustness on CIFAR-10 and CIFAR-100",
    arXiv 2108.04062.
    """

    axis: int = 0

    kind: ClassVar[str] = "householder"
    roles: ClassVar[tuple[str, ...]] = ("vectors",)
    required: ClassVar[tuple[str, ...]] = ("vectors",)

    def infer(self, inputs: tuple[Shape, ...], params: Mapping[str, Shape]) -> Shape:
        (shape,), vectors = inputs, params["vectors"]
        entries = shape[normalise_axis(self.axis, len(shape))]
        fits = len(vectors) == 2 and vectors[0] * vectors[1] == entries
        self.require(fits, f"vectors {vectors} (groups, size) do not fit {entries} entries")
        return shape

    def apply(self, backend: Backend, params: Mapping[str, Any], *inputs: Any) -> Any:
        (x,), v, xp = inputs, params["vectors"], backend.xp
        axis = normalise_axis(self.axis, x.ndim - 1) + 1
        last = xp.moveaxis(x, axis, -1)
        groups = last.reshape((*last.shape[:-1], *v.shape))
        along = (groups * v).sum(axis=-1, keepdims=True)
        y = xp.where(along > 0, groups, groups - 2 * v * along)
        return xp.moveaxis(y.reshape(last.shape), -1, axis)
