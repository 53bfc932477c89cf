"""The result of a bound on a box: the pieces of the box, what holds on them, the lower bound."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tangency.verify.certificate.witness import ChainWitness
from tangency.verify.result import LipschitzBound, consistent
from tangency.verify.sets import Box

__all__ = ["LocalBound", "Piece", "as_local"]


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a box with the bound that was proved on it.

    Parameters
    ----------
    box : Box
    upper : float
    witness : ChainWitness, optional
        As in `LipschitzBound`: where there is none the bound is a product of norms.
    """

    box: Box
    upper: float
    witness: ChainWitness | None = None


@dataclass(frozen=True, eq=False)
class LocalBound(LipschitzBound):
    """A Lipschitz bound for all pairs of points inside a box, and for no others.

    Parameters
    ----------
    box : Box
        Where it holds.
    boxes : int
        Pieces that the box was cut into; 1 without branch and bound. The bound of several pieces
        has no witness of its own.
    pieces : tuple of Piece
        After branch and bound, a cover of the box by pieces whose bounds are at most `upper`.
    history : tuple of (seconds, bound)
        How branch and bound went on.
    """

    box: Box | None = None
    boxes: int = 1
    pieces: tuple[Piece, ...] = ()
    history: tuple[tuple[float, float], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what the command prints for programs."""
        return super().as_dict() | {
            "output": self.output,
            "local": True,
            "boxes": self.boxes,
            "finished": self.finished,
        }


def as_local(
    found: LipschitzBound, box: Box, lower: float | None, seconds: float, **more: Any
) -> LocalBound:
    """Return a bound with the box that it holds on and the lower bound found inside.

    Raises
    ------
    NotProvedError
        If the lower bound contradicts the upper one.
    """
    lower = consistent(lower, found.upper)
    values = {f.name: getattr(found, f.name) for f in fields(LipschitzBound)}
    return LocalBound(**(values | {"lower": lower, "seconds": seconds, "box": box} | more))
