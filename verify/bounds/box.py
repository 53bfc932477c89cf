"""The input set of a bound: a box, one for each sample or one alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.ops import Shape

__all__ = ["Box"]

Array = Any


@dataclass(frozen=True, eq=False)
class Box:
    """All x with ``lower <= x <= upper``, entry by entry, in real numbers.

    Parameters
    ----------
    lower, upper : (N, *shape) or (*shape) array, float32 or float64
        Corners; kept in float64, to which float32 widens without loss.

    Raises
    ------
    InputError
        For NaN or infinite corners, ``lower > upper`` (naming the first index), shapes that differ,
        an empty or non-contiguous array, a dtype other than float32 and float64.

    Examples
    --------
    >>> import numpy as np
    >>> box = Box.around(np.array([0.5, 1.0]), 0.25, clip=(0.0, 1.0))
    >>> box.lower, box.upper
    (array([0.25, 0.75]), array([0.75, 1.  ]))
    """

    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            given = getattr(self, name)
            check_array(f"box: {name}", given)
            array = np.array(given, dtype=np.float64, order="C")
            if array.size == 0:
                raise InputError(f"box: {name} is empty, of shape {array.shape}")
            bad = ~np.isfinite(array)
            if bad.any():
                raise InputError(
                    f"box: {name} is {array[bad][0]} at index {_first(bad)}: corners are finite"
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.lower.shape != self.upper.shape:
            raise InputError(
                f"box: lower is {self.lower.shape} and upper {self.upper.shape}: "
                "the shapes must be equal"
            )
        reversed_ = self.lower > self.upper
        if reversed_.any():
            i = _first(reversed_)
            raise InputError(
                f"box: lower > upper at index {i}: {self.lower[i]:g} > {self.upper[i]:g}"
            )

    @classmethod
    def around(
        cls, x: Array, eps: float | Array, *, clip: tuple[float, float] | None = None
    ) -> Box:
        """The l-infinity ball ``|x' - x| <= eps``, rounded outwards.

        Parameters
        ----------
        x : (N, *shape) or (*shape) array, float32 or float64
            Centres.
        eps : float, or array that broadcasts to x
            Radius >= 0, at once or for each entry.
        clip : (float, float), optional
            The part of the ball inside this range, as (0, 1) for images.

        Raises
        ------
        InputError
            For eps < 0, NaN or infinite, an x that :class:`Box` would refuse, or a centre outside
            of ``clip``.
        """
        ball, _ = ball_around(x, eps, clip)
        return cls(ball.lower, ball.upper)

    @property
    def shape(self) -> Shape:
        """Shape of the corners."""
        shape: Shape = self.lower.shape
        return shape

    @property
    def interval(self) -> Interval:
        """The box as an Interval of arrays."""
        return Interval(self.lower, self.upper)


def ball_around(
    x: Array, eps: float | Array, clip: tuple[float, float] | None
) -> tuple[Interval, Interval]:
    """The ball rounded outwards, for proofs, and inwards, for attacks."""
    check_array("x", x, finite=True)
    centre = np.array(x, dtype=np.float64, order="C")
    if not np.isfinite(centre).all():
        raise InputError("x has a NaN or infinite entry")
    radius = _radius(eps, centre.shape)
    low, high = Interval(centre) - radius, Interval(centre) + radius
    outer, inner = (low.lower, high.upper), (low.upper, high.lower)
    if clip is not None:
        outside = (centre < clip[0]) | (centre > clip[1])
        if not clip[0] <= clip[1] or outside.any():
            where = f": x is {centre[outside][0]:g} at {_first(outside)}" if outside.any() else ""
            raise InputError(f"clip {clip} is no range with all of x inside{where}")
        outer = (np.maximum(outer[0], clip[0]), np.minimum(outer[1], clip[1]))
        inner = (np.maximum(inner[0], clip[0]), np.minimum(inner[1], clip[1]))
    return Interval(*outer), Interval(*inner)


def _radius(eps: float | Array, shape: Shape) -> Array:
    try:
        radius = np.asarray(eps, dtype=np.float64)
        np.broadcast_to(radius, shape)
    except (TypeError, ValueError):
        raise InputError(f"eps is {eps!r}: give a number, or an array that fits {shape}") from None
    if not (np.isfinite(radius) & (radius >= 0)).all():
        raise InputError(f"eps is {eps}: a radius is finite and >= 0")
    return radius


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])
