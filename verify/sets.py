"""The input set of a bound: a box or a ball, one for each sample or one alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Shape
from tangency.verify.rigorous.sets import BallPart, InputSet

__all__ = [
    "Ball",
    "Box",
    "Region",
    "around",
    "ball_around",
    "box_around",
    "input_intervals",
    "input_sets",
    "norm_of",
]

Array = Any

#: Norms of balls; that of infinity is a box.
NORMS = (1, 2)


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


@dataclass(frozen=True, eq=False)
class Ball:
    """All x with ``||x - center|| <= eps``, in real numbers, and inside of ``clip``.

    Parameters
    ----------
    center : (N, *shape) or (*shape) array, float32 or float64
        Centres; kept in float64, to which float32 widens without loss.
    eps : float, or (N,) array
        Radius >= 0, of all or of each sample.
    norm : {2, 1}
        The norm, of all entries of a sample together. The l-infinity ball is ``Box.around``.
    clip : (float, float), optional
        The part of the ball inside this range, as (0, 1) for images.

    Raises
    ------
    InputError
        For a centre or a radius that :meth:`Box.around` would refuse, or another norm.

    Examples
    --------
    >>> import numpy as np
    >>> ball = Ball(np.array([3.0, 4.0]), 0.5)
    >>> ball.interval.contains(np.array([3.5, 4.0]))
    array([ True,  True])
    """

    center: Array
    eps: float | Array
    norm: int = 2
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.norm not in NORMS or isinstance(self.norm, bool):
            raise InputError(f"norm {self.norm!r}: a ball has norm 2 or 1; Box.around has infinity")
        radius = self.eps
        shape = np.shape(self.center)
        if np.ndim(radius) == 1 and len(shape) > 1:
            radius = np.reshape(radius, (-1, *(1,) * (len(shape) - 1)))
            if len(radius) != shape[0]:
                raise InputError(f"eps holds {len(radius)} radii for {shape[0]} samples")
        elif np.ndim(radius) != 0:
            raise InputError(f"eps has shape {np.shape(radius)}: give a number or one a sample")
        outer, _ = ball_around(self.center, radius, self.clip)
        if outer.lower.size == 0:
            raise InputError(f"ball: the centre is empty, of shape {shape}")
        if not (np.isfinite(outer.lower).all() and np.isfinite(outer.upper).all()):
            raise InputError(f"eps is {self.eps}: the ball leaves the range of float64")
        center = np.array(self.center, dtype=np.float64, order="C")
        center.flags.writeable = False
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "eps", np.asarray(self.eps, dtype=np.float64) + 0.0)
        object.__setattr__(self, "_box", outer)

    @property
    def shape(self) -> Shape:
        """Shape of the centres."""
        shape: Shape = self.center.shape
        return shape

    @property
    def interval(self) -> Interval:
        """The smallest box around the ball, rounded outwards."""
        box: Interval = self._box  # type: ignore[attr-defined]
        return box


Region = Box | Ball


def around(x: Array, eps: float, norm: str, clip: tuple[float, float] | None = None) -> Region:
    """The balls of a norm, "inf", "2" or "1", around samples: rounded outwards, for proofs."""
    return Box.around(x, eps, clip=clip) if norm == "inf" else Ball(x, eps, int(norm), clip)


def box_around(region: Region) -> Box:
    """The smallest box that holds a region, rounded outwards."""
    return region if isinstance(region, Box) else Box(region.interval.lower, region.interval.upper)


def input_sets(network: Network, box: Region | Sequence[Region]) -> list[InputSet]:
    """The sets with the batch in front; InputError when they do not fit."""
    boxes: list[Region] = []
    if isinstance(box, Box | Ball):
        boxes = [box]
    elif isinstance(box, tuple | list):
        boxes = list(box)
    if not boxes or not all(isinstance(b, Box | Ball) for b in boxes):
        raise InputError(
            f"box is a {type(box).__name__}: give a Box or a Ball, or one of them for each input"
        )
    shapes = network.input_shapes
    if len(boxes) != len(shapes):
        raise InputError(f"the network takes {len(shapes)} inputs {shapes}, got {len(boxes)} boxes")
    sets = []
    for i, (b, shape) in enumerate(zip(boxes, shapes, strict=True)):
        if b.shape != shape and b.shape[1:] != shape:
            which = f"input {i}" if len(boxes) > 1 else "the network"
            text = ", ".join(map(str, shape))
            raise InputError(f"box of shape {b.shape}: {which} takes (N, {text}) or ({text})")
        sets.append(_laid(b, len(b.shape) == len(shape)))
    batches = {x.samples for x in sets} - {1}
    if len(batches) > 1:
        raise InputError(f"the boxes hold {sorted(batches)} samples: give as many for each input")
    return sets


def _laid(region: Region, alone: bool) -> InputSet:
    box = region.interval
    lower, upper = (box.lower[None], box.upper[None]) if alone else (box.lower, box.upper)
    if isinstance(region, Box):
        return InputSet(lower, upper)
    center = region.center[None] if alone else region.center
    return InputSet(lower, upper, BallPart(center, np.atleast_1d(region.eps), region.norm))


def input_intervals(network: Network, box: Region | Sequence[Region]) -> list[Interval]:
    """The boxes (those around balls, too) as intervals with the batch in front."""
    return [x.interval for x in input_sets(network, box)]


def norm_of(box: Region | Sequence[Region]) -> str:
    """The norm of the input set, for messages: ``"linf"`` for boxes, ``"l2"`` or ``"l1"``."""
    regions = list(box) if isinstance(box, tuple | list) else [box]
    norms = {f"l{b.norm}" if isinstance(b, Ball) else "linf" for b in regions}
    return norms.pop() if len(norms) == 1 else "mixed"


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
