r"""What the walk carries: covariances, deltas and tangent kernels of pairs of sites.

A block holds, for pairs of samples and their sites, the covariance ``s``, ``delta = 1 - cos``
and the tangent kernel ``t``. There are three kinds: each sample of the first batch with itself,
the same for the second, and all pairs across. Where only equal sites are needed a block has one
axis of sites, else two. The variances are the diagonal of the own blocks and are exact there:
``delta = 0``, never the result of a subtraction.

Every linear step is a sum of uncorrelated parts with weights, ``s' = sum w_k s_k``. With
``Q = sum w_k q_k`` on both sides and ``a^2 = sqrt(Q2 / Q1)``,

.. math:: \sqrt{Q_1 Q_2} - s' = \tfrac12 \sum_k w_k (a \sqrt{q_{1k}} - \sqrt{q_{2k}} / a)^2
          + \sum_k w_k \sqrt{q_{1k} q_{2k}}\, \delta_k,

all terms positive: delta is carried through biases, convolutions and sums without cancellation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Block", "Parts", "State", "diagonal", "quotient"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(eq=False)
class Block:
    """Covariance, delta and tangent kernel of pairs; ``t`` is None where it is not asked for."""

    s: Array
    delta: Array
    t: Array | None


def diagonal(array: Array) -> Array:
    """The diagonal of the last two axes: a view."""
    view: Array = np.einsum("...pp->...p", array)
    return view


def quotient(numerator: Array, denominator: Array) -> Array:
    """The quotient; 0 where the denominator is 0."""
    out = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    np.divide(numerator, denominator, out=out, where=np.broadcast_to(denominator > 0, out.shape))
    return out


@dataclass(eq=False)
class State:
    """The blocks of a tile at one node.

    Attributes
    ----------
    own : tuple of Block
        One (for a tile of a batch with itself, or the diagonal alone) or two.
    cross : Block or None
        ``(n1, n2, sites)`` or ``(n1, n2, sites, sites)``.
    full : bool
        Whether blocks have two axes of sites.
    """

    own: tuple[Block, ...]
    cross: Block | None
    full: bool

    @property
    def variances(self) -> tuple[Array, ...]:
        """``(n, sites)`` for each own block."""
        return tuple(diagonal(o.s) if self.full else o.s for o in self.own)

    def blocks(self) -> Iterator[tuple[Block, Callable[[Array], Array], Callable[[Array], Array]]]:
        """Each block with the functions that lay ``(n, sites)`` arrays out as its left and right.

        The functions take the arrays of the block's own sides: see :meth:`sides`.
        """
        tail = (slice(None), None) if self.full else (slice(None),)
        head = (None, slice(None)) if self.full else (slice(None),)
        for block in self.own:
            yield block, _indexer((slice(None), *tail)), _indexer((slice(None), *head))
        if self.cross is not None:
            yield (
                self.cross,
                _indexer((slice(None), None, *tail)),
                _indexer((None, slice(None), *head)),
            )

    def sides(self, values: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
        """What belongs to the left and the right of each block, from one value an own block."""
        for value in values:
            yield value, value
        if self.cross is not None:
            yield values[0], values[-1]

    def rebuild(self, blocks: list[Block], *, full: bool | None = None) -> State:
        """A state of transformed blocks, in the order of :meth:`blocks`."""
        count = len(self.own)
        cross = blocks[count] if self.cross is not None else None
        return State(tuple(blocks[:count]), cross, self.full if full is None else full)

    def widened(self) -> State:
        """The same single site with two axes of sites."""
        blocks = [
            Block(b.s[..., None], b.delta[..., None], None if b.t is None else b.t[..., None])
            for b, _, _ in self.blocks()
        ]
        return self.rebuild(blocks, full=True)

    def narrowed(self) -> State:
        """Equal sites alone."""
        blocks = [
            Block(
                diagonal(b.s).copy(),
                diagonal(b.delta).copy(),
                None if b.t is None else diagonal(b.t).copy(),
            )
            for b, _, _ in self.blocks()
        ]
        return self.rebuild(blocks, full=False)


def _indexer(key: tuple[Any, ...]) -> Callable[[Array], Array]:
    return lambda array: array[key]


@dataclass(eq=False)
class Parts:
    """Accumulates uncorrelated parts of one block, by the formula of the module.

    Attributes
    ----------
    left, right : arrays that broadcast to the block
        The new variances ``Q1``, ``Q2``.
    own_full : bool
        Whether it is an own block with two axes of sites, whose diagonal is exact.
    """

    left: Array
    right: Array
    s: Any = 0.0
    t: Any = None
    gap: Any = 0.0
    stretch: Array = field(init=False)

    def __post_init__(self) -> None:
        self.stretch = np.sqrt(np.sqrt(quotient(self.right, self.left)))

    def add(self, weight: float, part: Block, left: Array, right: Array) -> None:
        """Add ``weight`` times a part with the variances ``left`` and ``right``."""
        one, two = np.sqrt(left), np.sqrt(right)
        self.s = self.s + weight * part.s
        if part.t is not None:
            self.t = weight * part.t if self.t is None else self.t + weight * part.t
        self.gap = self.gap + weight * (one * two * part.delta + self._radial(one, two))

    def add_constant(self, bias: float) -> None:
        """Add a part that is the same for all pairs: a bias."""
        if bias:
            root = np.asarray(np.sqrt(bias))
            self.s = self.s + bias
            self.gap = self.gap + self._radial(root, root)

    def _radial(self, one: Array, two: Array) -> Array:
        inverse = np.where(self.stretch > 0.0, 1.0 / np.where(self.stretch > 0, self.stretch, 1), 0)
        return 0.5 * (self.stretch * one - inverse * two) ** 2

    def block(self) -> Block:
        """The sum as a block."""
        whole = np.sqrt(self.left) * np.sqrt(self.right)
        delta = np.clip(quotient(np.asarray(self.gap), whole), 0.0, 2.0)
        s = np.asarray(self.s)
        shape = np.broadcast_shapes(s.shape, delta.shape)
        return Block(np.broadcast_to(s, shape).copy(), delta, self.t)
