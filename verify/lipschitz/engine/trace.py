"""The bounds that a search passes: for whoever waits, and for the picture."""

import math
from collections.abc import Callable
from typing import TypeAlias

from tangency.verify.lipschitz.clock import now

__all__ = ["Progress", "Trace", "as_bound"]

#: Called with a bound, not yet proved, and the seconds so far.
Progress: TypeAlias = Callable[[float, float], None]


def as_bound(square: float, scale: int) -> float:
    """Return the bound of a square in the scale of an assembly."""
    try:
        return math.ldexp(math.sqrt(square), scale)
    except OverflowError:
        return math.inf


class Trace:
    """The bounds that the searches pass, one search after the other.

    Parameters
    ----------
    progress : callable or None
    begin : float
        What the clock showed at the beginning.
    searches : int
        One for each output that is bounded by itself.
    """

    def __init__(self, progress: Progress | None, begin: float, searches: int) -> None:
        self.progress, self.begin, self.left = progress, begin, searches
        self.passed: list[tuple[float, float]] = []
        self._largest = self._last = 0.0

    def add(self, square: float, scale: int) -> None:
        """Note a square in the scale of an assembly, and tell the caller."""
        bound = as_bound(square, scale)
        self._last, seconds = bound, now() - self.begin
        if self.left == 1:  # before, the outputs that are still to come have no bound
            self.passed.append((seconds, max(bound, self._largest)))
        if self.progress is not None:
            self.progress(bound, seconds)

    def close(self) -> None:
        """End one search."""
        self.left -= 1
        self._largest = max(self._largest, self._last)
