"""The input set of a bound: a ball in the l2 or the l1 norm, one for each sample or one alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.ops import Shape
from tangency.verify.bounds.box import ball_around

__all__ = ["Ball"]

Array = Any

NORMS = (1, 2)


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
