"""Limited-memory BFGS with a preconditioner in place of the usual first matrix."""

from collections import deque
from collections.abc import Callable

import numpy as np

from tangency.verify.certificate.matrix import Array

__all__ = ["Memory"]


class Memory:
    """Pairs of steps and changes of the gradient.

    Parameters
    ----------
    length : int
        How many pairs are kept.
    """

    def __init__(self, length: int = 30) -> None:
        self._pairs: deque[tuple[Array, Array, float]] = deque(maxlen=length)

    def clear(self) -> None:
        """Forget all pairs."""
        self._pairs.clear()

    def add(self, step: Array, change: Array) -> None:
        """Keep a pair if its curvature is positive."""
        product = float(step @ change)
        if product > 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)):
            self._pairs.append((step, change, 1.0 / product))

    def direction(self, gradient: Array, first: Callable[[Array], Array] | None) -> Array:
        """Return minus the inverse Hessian times the gradient.

        Parameters
        ----------
        gradient : (d,) array
        first : callable or None
            The inverse Hessian before the pairs; a multiple of the identity if None.
        """
        q = gradient.copy()
        weights = []
        for step, change, inverse in reversed(self._pairs):
            weight = inverse * float(step @ q)
            weights.append(weight)
            q -= weight * change
        if first is not None:
            q = first(q)
        elif self._pairs:
            step, change, inverse = self._pairs[-1]
            q *= 1.0 / (inverse * float(change @ change))
        for (step, change, inverse), weight in zip(self._pairs, reversed(weights), strict=True):
            q += (weight - inverse * float(change @ q)) * step
        return -q
