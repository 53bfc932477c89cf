"""A time limit that every step looks at, and the speed by which costs are foreseen."""

import math
import time

import numpy as np

__all__ = ["Clock", "TimeUp", "now", "seconds_for"]

#: Of the seconds allowed beyond a limit, a share and a number: what cannot be cut is given these.
OVER, GRACE = 0.2, 1.5
_SIDE = 256


def now() -> float:
    """Return seconds that only grow."""
    return time.perf_counter()


class TimeUp(Exception):
    """The time is up."""


class Clock:
    """The end of a search: a late one until it has found something, then the limit itself.

    Parameters
    ----------
    seconds : float or None
        From now; None for no end.
    late : float or None
        Seconds until which the first point may take, no less than `seconds` where it is not given.
    """

    def __init__(self, seconds: float | None, late: float | None = None) -> None:
        begin = now()
        self._limit = math.inf if seconds is None else begin + seconds
        self._end = math.inf if late is None else begin + late

    def found(self) -> None:
        """Note that there is something to return: from here on the limit holds."""
        self._end = self._limit

    def left(self) -> float:
        """Return the seconds to the limit."""
        return self._limit - now()

    def check(self) -> None:
        """Raise TimeUp at the end.

        Raises
        ------
        TimeUp
        """
        if self._end < math.inf and now() > self._end:
            raise TimeUp


def seconds_for(operations: float) -> float:
    """Foresee the seconds of so many floating-point operations of the BLAS on this machine, now."""
    matrix = np.ones((_SIDE, _SIDE))
    best = math.inf
    for _ in range(3):
        begin = now()
        matrix @ matrix
        best = min(best, now() - begin)
    return operations * best / (2.0 * _SIDE**3)
