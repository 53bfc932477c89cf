r"""What an attack may choose from: points that are proved to lie in the balls around samples.

A point refutes only if :math:`\|x' - x\|_p \le \epsilon` holds in real arithmetic. For the norm of
infinity that is a box with corners rounded inwards. For the others the size is measured in float64
relative to :math:`\epsilon`, so that nothing underflows, and has to be below 1 by more than the
rounding of the measurement.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.verify.rigorous.enclosure import relative_error
from tangency.verify.sets import ball_around

__all__ = ["Perturbations"]

Array = Any


class Perturbations:
    """The balls of one radius around samples, cut to the range of valid inputs.

    Parameters
    ----------
    x : (N, *shape) float64 array
        The samples, inside of the range.
    eps : float
        Radius >= 0.
    norm : {"inf", "2", "1"}
        Of all entries of a sample together.
    clip : (float, float), optional
        The range.

    Attributes
    ----------
    lower, upper : (N, *shape) arrays
        The box around each ball, cut to the range and rounded inwards.
    """

    def __init__(self, x: Array, eps: float, norm: str, clip: tuple[float, float] | None) -> None:
        self.x, self.eps, self.norm = x, eps, norm
        _, inner = ball_around(x, eps, clip)
        self.lower, self.upper = inner.lower, inner.upper
        n = int(np.prod(x.shape[1:]))
        #: One difference, one quotient and, for a square, one product an entry come to the sum.
        self._slack = 2.0 * relative_error(n + 8)

    def holds(self, points: Array) -> Array:
        """Whether each of the points ``(N, *shape)`` is proved to lie in its ball, ``(N,)``."""
        inside = (self.lower <= points) & (points <= self.upper)
        found = inside.reshape(len(points), -1).all(axis=1)
        if self.norm != "inf":
            found &= self._sizes(points - self.x) <= 1.0 - self._slack
        return found

    def inside(self, points: Array) -> Array:
        """Points near those given that are proved to lie in the balls; what holds stays."""
        # The sample is in the box, so that this brings no entry further away from it.
        points = np.clip(points, self.lower, self.upper)
        if self.norm == "inf":
            return points
        with np.errstate(all="ignore"):
            away = points - self.x
            sizes = self._sizes(away)
            lengths = np.sqrt(sizes) if self.norm == "2" else sizes
            scale = self._columns((1.0 - 2.0 * self._slack) / lengths)
            # Rounding to the nearest may lead away from the sample: one float back towards it.
            nearer = np.nextafter(self.x + scale * away, self.x)
        points = np.where(self._columns(sizes <= 1.0 - self._slack), points, nearer)
        return np.where(self._columns(self.holds(points)), points, self.x)

    def corners(self, rng: np.random.Generator) -> Array:
        """Random points of the border: corners of boxes and l1 balls, any of l2 balls."""
        if self.norm == "inf":
            return np.where(rng.random(self.x.shape) < 0.5, self.lower, self.upper)
        n = len(self.x)
        if self.norm == "2":
            away = rng.normal(size=(n, self.x[0].size))
            away /= np.linalg.norm(away, axis=1, keepdims=True)
        else:
            away = np.zeros((n, self.x[0].size))
            away[np.arange(n), rng.integers(0, away.shape[1], n)] = rng.choice([-1.0, 1.0], n)
        return self.inside(self.x + self.eps * away.reshape(self.x.shape))

    def _sizes(self, away: Array) -> Array:
        """``|away / eps|_1`` or the square of ``|away / eps|_2``, by sample, ``(N,)``."""
        with np.errstate(all="ignore"):
            parts = (away / self.eps).reshape(len(away), -1)
            return np.abs(parts).sum(axis=1) if self.norm == "1" else (parts**2).sum(axis=1)

    def _columns(self, values: Array) -> Array:
        return values.reshape((-1,) + (1,) * (self.x.ndim - 1))
