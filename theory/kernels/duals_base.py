r"""Dual functions: what an activation does to a covariance.

For ``(u, v)`` Gaussian with variances ``q1, q2`` and covariance ``s``, the dual of ``phi`` is
``k = E[phi(u) phi(v)]`` and its slope ``dk/ds = E[phi'(u) phi'(v)]``. Near ``cos = 1`` a kernel's
worth lies in ``delta = 1 - s / sqrt(q1 q2)``, which subtraction would lose: it is an input and an
output of its own, computed without cancellation.

References
----------
Daniely, Frostig, Singer, "Toward Deeper Understanding of Neural Networks", arXiv 1602.05897;
Han et al., "Fast Neural Kernel Embeddings for General Activations", arXiv 2209.04121.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from tangency.models.activations import Activation

__all__ = ["Array", "DualFunction", "DualPair", "Geometry", "Parts", "Sides"]

Array = np.ndarray[Any, np.dtype[np.float64]]

_BLOCK = 1 << 14  # entries worked on at a time: the temporaries stay in the cache
_SHARED = 1 << 16  # so many variances are prepared once; more of them block by block


class DualPair(NamedTuple):
    """The dual at pairs, each of the common shape of the arguments.

    Attributes
    ----------
    k : (...) array
        ``E[phi(u) phi(v)]``.
    slope : (...) array
        ``E[phi'(u) phi'(v)]``, with the slope as autodiff has it: jumps have none.
    delta : (...) array
        ``1 - k / sqrt(k(q1, q1) k(q2, q2))``; 0 where that is 0/0.
    error : (...) array
        Estimate of the absolute error of ``k``; 0 for closed forms.
    """

    k: Array
    slope: Array
    delta: Array
    error: Array


class Sides(NamedTuple):
    """What depends on one variance alone: ``q``, ``E phi^2``, and rows of a table."""

    q: Array
    second: Array
    rows: Array


class Parts(NamedTuple):
    """What a family returns for a block; ``error`` may be a number."""

    k: Array
    slope: Array
    delta: Array
    error: Array | float = 0.0


@dataclass(frozen=True, eq=False)
class Geometry:
    """Two Gaussians and the angle between them; every quantity free of cancellation.

    Attributes
    ----------
    q1, q2, s, delta : arrays that broadcast
        Variances, covariance and ``1 - cos``, which lies in [0, 2].
    """

    q1: Array
    q2: Array
    s: Array
    delta: Array

    @cached_property
    def equal(self) -> bool:
        """Whether all variances are one number, so that radial terms vanish."""
        first = self.q1.flat[0]
        return bool((self.q1 == first).all() and (self.q2 == first).all())

    @cached_property
    def w(self) -> Array:
        """``sqrt(q1 q2)``."""
        return np.asarray(np.sqrt(self.q1) * np.sqrt(self.q2))

    @cached_property
    def cos(self) -> Array:
        """The cosine; relatively accurate near 0, where ``1 - delta`` is not."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.s / self.w
        return np.where(self.w > 0.0, np.clip(ratio, -1.0, 1.0), 1.0 - self.delta)

    @cached_property
    def sin2(self) -> Array:
        """``sin^2`` of the angle."""
        return self.delta * (2.0 - self.delta)

    @cached_property
    def theta(self) -> Array:
        """The angle; ``2 arcsin sqrt(delta / 2)``, and from the other side beyond pi/2."""
        near = np.minimum(self.delta, 2.0 - self.delta)
        half = 2.0 * np.arcsin(np.sqrt(0.5 * near))
        return np.where(self.delta <= 1.0, half, np.pi - half)

    @cached_property
    def step(self) -> Array:
        """``sqrt(q1) - sqrt(q2)``."""
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = (self.q1 - self.q2) / (np.sqrt(self.q1) + np.sqrt(self.q2))
        return np.asarray(np.nan_to_num(gap, nan=0.0))

    @cached_property
    def distance2(self) -> Array:
        """``E (u - v)^2 = q1 + q2 - 2 s``."""
        return np.asarray(self.step**2 + 2.0 * self.w * self.delta)

    @cached_property
    def sum2(self) -> Array:
        """``E (u + v)^2 = q1 + q2 + 2 s``."""
        return np.asarray(self.step**2 + 2.0 * self.w * (2.0 - self.delta))


@dataclass(frozen=True)
class DualFunction:
    """The dual of one activation; see :func:`tangency.theory.kernels.duals.dual_of`.

    Attributes
    ----------
    record : Activation or None
        The function itself; None for a kernel that is not the dual of one function.
    """

    record: Activation | None

    @property
    def closed_form(self) -> bool:
        """Whether no series is cut off."""
        return True

    def variance(self, q: Any) -> Array:
        """``E[phi(sqrt(q) z)^2]`` for variances ``q`` of any shape."""
        return self._variance(np.asarray(q, dtype=np.float64))

    def slope_variance(self, q: Any) -> Array:
        """``E[phi'(sqrt(q) z)^2]`` for variances ``q`` of any shape."""
        return self._slope_variance(np.asarray(q, dtype=np.float64))

    def pair(self, q1: Any, q2: Any, s: Any, delta: Any = None) -> DualPair:
        """Evaluate the dual at pairs of Gaussians.

        Parameters
        ----------
        q1, q2, s : arrays that broadcast
            Variances and covariance. Leave the variances unbroadcast, ``(n, 1)`` and ``(1, m)``:
            what depends on them alone is then computed once a row.
        delta : array, optional
            ``1 - s / sqrt(q1 q2)`` where it is known better than by subtraction.
        """
        q1, q2, s = (np.asarray(a, dtype=np.float64) for a in (q1, q2, s))
        if delta is None:
            with np.errstate(divide="ignore", invalid="ignore"):
                delta = np.nan_to_num(1.0 - s / (np.sqrt(q1) * np.sqrt(q2)), nan=0.0)
        delta = np.asarray(delta, dtype=np.float64)
        shape = np.broadcast_shapes(q1.shape, q2.shape, s.shape, delta.shape)
        rank = max(len(shape), 1)
        full = (1,) * (rank - len(shape)) + shape
        left, right = _Side(self, q1, rank), _Side(self, q2, rank)
        s, delta = np.broadcast_to(s, full), np.broadcast_to(delta, full)
        out = tuple(np.empty(full) for _ in range(4))
        for block in _blocks(full):
            one, two = left.take(block), right.take(block)
            near = np.clip(delta[block], 0.0, 2.0)
            parts = self._pair(Geometry(one.q, two.q, s[block], near), one, two)
            for array, part in zip(out, parts, strict=True):
                array[block] = part
        k, slope, change, error = (array.reshape(shape) for array in out)
        return DualPair(k, slope, np.clip(change, 0.0, 2.0), error)

    def _prepare(self, q: Array) -> Array:
        """Rows ``(r, *q.shape)`` of what depends on one variance alone."""
        return np.empty((0, *q.shape))

    @abstractmethod
    def _variance(self, q: Array) -> Array: ...

    @abstractmethod
    def _slope_variance(self, q: Array) -> Array: ...

    @abstractmethod
    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts: ...


class _Side:
    """One of the two variances of a call, prepared once or block by block."""

    def __init__(self, dual: DualFunction, q: Array, rank: int) -> None:
        q = q.reshape((1,) * (rank - q.ndim) + q.shape)
        # Axes along which a view repeats itself are worked out once.
        thin = tuple(slice(0, 1) if step == 0 else slice(None) for step in q.strides)
        self.dual, self.q = dual, q[thin]
        self.whole = self._of(self.q) if self.q.size <= _SHARED else None

    def _of(self, q: Array) -> Sides:
        return Sides(q, self.dual.variance(q), self.dual._prepare(q))

    def take(self, block: tuple[slice, ...]) -> Sides:
        if self.whole is None:
            return self._of(_take(self.q, block))
        rows = self.whole.rows
        cut = rows[(slice(None), *_fit(rows.shape[1:], block))]
        return Sides(_take(self.q, block), _take(self.whole.second, block), cut)


def _fit(shape: tuple[int, ...], block: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(slice(None) if n == 1 else b for n, b in zip(shape, block, strict=True))


def _take(array: Array, block: tuple[slice, ...]) -> Array:
    return array[_fit(array.shape, block)]


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut a shape into blocks of at most ``_BLOCK`` entries, along its leading axes."""
    if 0 in shape:
        return
    inner = int(np.prod(shape[1:]))
    if inner > _BLOCK:
        for i in range(shape[0]):
            for rest in _blocks(shape[1:]):
                yield (slice(i, i + 1), *rest)
    else:
        rows = max(1, _BLOCK // inner)
        for i in range(0, shape[0], rows):
            yield (slice(i, i + rows), *(slice(None) for _ in shape[1:]))
