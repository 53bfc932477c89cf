"""Conditions on variables: comparisons, and what logic makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from tangency.models.importers.jaxpr.terms import Ref

__all__ = ["And", "Compare", "Given", "Not", "Predicate"]


class Predicate:
    """A condition, entry by entry."""


@dataclass(frozen=True)
class Compare(Predicate):
    """``x > y``, or ``x >= y``."""

    x: Ref
    y: Ref
    strict: bool


@dataclass(frozen=True)
class Not(Predicate):
    """The contrary."""

    inner: Predicate


@dataclass(frozen=True)
class And(Predicate):
    """Both."""

    left: Predicate
    right: Predicate


@dataclass(frozen=True)
class Given(Predicate):
    """A mask that does not depend on the input."""

    mask: Ref
