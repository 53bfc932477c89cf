r"""Sets of inputs, and the least value of a linear function on them.

Each input of a network has a box and, where the user gave a ball, the ball too; both hold. On the
box :math:`\min a \cdot x = a \cdot c - |a| \cdot r`, on the ball
:math:`a \cdot c - \epsilon \|a\|_*` with the dual norm: the better of the two is taken, row by
row. Rounding is counted and handed back beside the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Shape
from tangency.verify.rigorous.cropping import Window, crop
from tangency.verify.rigorous.dots import dot
from tangency.verify.rigorous.enclosure import UNDERFLOW, midpoint_radius, relative_error

__all__ = ["BallPart", "InputSet", "batch_of"]

Array = Any


@dataclass(frozen=True, eq=False)
class BallPart:
    """All x with ``||x - center|| <= radius``, sample by sample.

    Attributes
    ----------
    center : (N or 1, *shape) array
        Centres, float64.
    radius : (N or 1,) array
        Radii >= 0.
    norm : {1, 2}
        The norm.
    """

    center: Array
    radius: Array
    norm: int


@dataclass(frozen=True, eq=False)
class InputSet:
    """The values of one input: a box, cut with a ball where there is one.

    Attributes
    ----------
    lower, upper : (N or 1, *shape) array
        Finite corners of the box, float64; the box holds the ball.
    ball : BallPart, optional
        The ball.
    """

    lower: Array
    upper: Array
    ball: BallPart | None = None

    @property
    def samples(self) -> int:
        """Number of samples, or one."""
        return int(self.lower.shape[0])

    @property
    def shape(self) -> Shape:
        """Shape of one sample."""
        shape: Shape = self.lower.shape[1:]
        return shape

    @property
    def interval(self) -> Interval:
        """The box."""
        return Interval(self.lower, self.upper)

    def take(self, part: slice) -> InputSet:
        """The set of some samples; a set that all samples share stays as it is."""
        if self.samples == 1:
            return self
        ball = self.ball
        if ball is not None:
            shared = ball.center.shape[0] == 1
            center = ball.center if shared else ball.center[part]
            radius = ball.radius if ball.radius.shape[0] == 1 else ball.radius[part]
            ball = BallPart(center, radius, ball.norm)
        return InputSet(self.lower[part], self.upper[part], ball)

    @staticmethod
    def joined(parts: Sequence[InputSet]) -> InputSet:
        """The sets of batches of samples as one: all with balls of one norm, or none with any."""
        lower, upper = (
            np.concatenate([getattr(p, end) for p in parts]) for end in ("lower", "upper")
        )
        balls = [(p.ball, p.samples) for p in parts if p.ball is not None]
        if not balls:
            return InputSet(lower, upper)
        center = np.concatenate([b.center for b, _ in balls])
        radius = np.concatenate([np.broadcast_to(b.radius, n) for b, n in balls])
        return InputSet(lower, upper, BallPart(center, radius, balls[0][0].norm))

    @cached_property
    def _middle(self) -> tuple[Array, Array, Array]:
        """Midpoints, radii, and what a unit of each coefficient costs in rounding."""
        c, r = midpoint_radius(self.interval)
        g = relative_error(c[0].size)
        return c, r, g * (np.abs(c) + r)

    def least(self, coef: Array, window: Window | None = None) -> tuple[Array, Array]:
        """Value and error: the least value on the set is at least ``value - error``.

        Parameters
        ----------
        coef : (N or 1, S, *shape) array
            The linear functions.
        window : tuple of slice, optional
            The part of the last axes that they are given on; they are zero elsewhere.

        Returns
        -------
        value, error : (N, S) arrays
        """
        c, r, slip = (crop(v, window) for v in self._middle)
        size = np.abs(coef)
        box = dot(coef, c) - dot(size, r)
        error = dot(size, slip) + np.abs(box) * 2.0**-51 + UNDERFLOW
        if self.ball is None:
            return box, error
        ball, ball_error = _least_on_ball(self.ball, coef, size, window)
        better = ball - ball_error > box - error
        return np.where(better, ball, box), np.where(better, ball_error, error)


def _least_on_ball(
    ball: BallPart, coef: Array, size: Array, window: Window | None
) -> tuple[Array, Array]:
    center = crop(ball.center, window)
    n = int(np.prod(coef.shape[2:]))
    g = relative_error(n)
    flat = size.reshape((*size.shape[:2], n))
    if ball.norm == 1:
        dual = flat.max(axis=-1)
    else:
        top = flat.max(axis=-1)
        scale = np.where((top > 0) & np.isfinite(top), top, 1.0)
        dual = np.sqrt(((flat / scale[..., None]) ** 2).sum(axis=-1)) * scale * (1.0 + 2.0 * g)
    away = dual * ball.radius[:, None]
    value = dot(coef, center) - away
    error = dot(size, g * np.abs(center)) + (away + np.abs(value)) * 2.0**-50 + UNDERFLOW
    return value, error


def batch_of(inputs: Any) -> int:
    """Number of samples of several input sets together."""
    return max((x.samples for x in inputs), default=1)
