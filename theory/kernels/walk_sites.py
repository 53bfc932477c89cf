r"""Steps that move between sites: convolution, pooling, flattening, permutation.

Pooling mixes correlated sites. With ``d = q1 + q2 - 2 s`` the squared distance of two sites and
rows of M that sum to one, ``d' = M d12 M^T - (diag M d11 M^T + diag M d22 M^T) / 2``: distances
alone, so that the pooled delta of two near samples is not the difference of their variances.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.theory.kernels.plan import Affine
from tangency.theory.kernels.walk_state import Block, Parts, State, diagonal, quotient

__all__ = ["affine_sites", "flatten", "gather", "spread"]

Array = np.ndarray[Any, np.dtype[np.float64]]


def _padded(array: Array, axes: int) -> Array:
    """A zero site at the end, which the index -1 finds."""
    return np.pad(array, [(0, 0)] * (array.ndim - axes) + [(0, 1)] * axes)


def _picked(array: Array, sites: Any, *, full: bool) -> Array:
    """Sites of a padded array, on one axis or on two."""
    if not full:
        return np.asarray(np.take(array, sites, axis=-1))
    return np.asarray(np.take(np.take(array, sites, axis=-2), sites, axis=-1))


def affine_sites(step: Affine, state: State) -> State:
    """A convolution: the mean over the taps of blocks moved by a tap, weighted, and a bias."""
    assert step.table is not None
    taps, full = step.table.T, state.full
    padded = [_padded(q, 1) for q in state.variances]
    mean = [np.mean([q[:, tap] for tap in taps], axis=0) for q in padded]
    after = tuple(step.weight * m + step.bias for m in mean)
    weight = step.weight / len(taps)
    blocks = []
    for (block, lay1, lay2), (q1, q2), (w1, w2) in zip(
        state.blocks(), state.sides(tuple(padded)), state.sides(after), strict=True
    ):
        axes = 2 if full else 1
        arrays = [block.s, block.delta, *([] if block.t is None else [block.t])]
        arrays = [_padded(a, axes) for a in arrays]
        parts = Parts(lay1(w1), lay2(w2))
        for tap in taps:
            s, delta, *t = (_picked(a, tap, full=full) for a in arrays)
            moved = Block(s, delta, t[0] if t else None)
            parts.add(weight, moved, lay1(q1[:, tap]), lay2(q2[:, tap]))
        if block.t is not None:
            gain = step.weight_gain / step.weight if step.weight else 0.0
            parts.t = parts.t + gain * parts.s + step.bias_gain
        parts.add_constant(step.bias)
        blocks.append(parts.block())
    new = state.rebuild(blocks)
    for own, q in zip(new.own, after, strict=True):
        if full:
            diagonal(own.s)[...] = q
            diagonal(own.delta)[...] = 0.0
        else:
            own.s, own.delta = q, np.zeros_like(q)
    return new


def gather(table: Array, state: State) -> State:
    """Sites in another order, -1 for a zero."""
    if np.array_equal(table, np.arange(state.own[0].s.shape[-1])):
        return state
    axes = 2 if state.full else 1
    blocks = []
    for block, _, _ in state.blocks():
        s, delta, *t = (
            _picked(_padded(a, axes), table, full=state.full)
            for a in (block.s, block.delta, block.t)
            if a is not None
        )
        blocks.append(Block(s, delta, t[0] if t else None))
    return state.rebuild(blocks)


def flatten(state: State) -> State:
    """The mean of equal sites: a sum of uncorrelated parts, one a site."""
    single = state.narrowed() if state.full else state
    before = single.variances
    after = tuple(q.mean(axis=1, keepdims=True) for q in before)
    count = before[0].shape[1]
    blocks = []
    for (block, lay1, lay2), (q1, q2), (w1, w2) in zip(
        single.blocks(), single.sides(before), single.sides(after), strict=True
    ):
        parts = Parts(lay1(w1), lay2(w2))
        summed = [lay1(q1), lay2(q2), block.s, block.delta]
        one, two = np.sqrt(summed[0]), np.sqrt(summed[1])
        stretch = parts.stretch
        inverse = np.where(stretch > 0.0, 1.0 / np.where(stretch > 0.0, stretch, 1.0), 0.0)
        radial = 0.5 * (stretch * one - inverse * two) ** 2
        parts.gap = (radial + one * two * block.delta).sum(axis=-1, keepdims=True) / count
        parts.s = block.s.mean(axis=-1, keepdims=True)
        parts.t = None if block.t is None else block.t.mean(axis=-1, keepdims=True)
        blocks.append(parts.block())
    new = single.rebuild(blocks)
    for own, q in zip(new.own, after, strict=True):
        own.s, own.delta = q, np.zeros_like(q)
    return new


def spread(state: State, matrices: tuple[Array, ...]) -> State:
    """``M s M^T`` with a matrix ``(1 or n, sites out, sites)`` for each own block."""
    if not state.full:  # one site: a factor
        state = state.widened()
    before = state.variances
    distances: list[Array] = []
    inner: list[tuple[Array, Array | None]] = []
    for (block, lay1, lay2), (q1, q2), (m1, m2) in zip(
        state.blocks(), state.sides(before), state.sides(matrices), strict=True
    ):
        one, two = np.sqrt(lay1(q1)), np.sqrt(lay2(q2))
        distance = (one - two) ** 2 + 2.0 * one * two * block.delta
        if block is state.cross:
            m1, m2 = m1[:, None], m2[None, :]
        right = m2.swapaxes(-1, -2)
        distances.append(m1 @ distance @ right)
        t = None if block.t is None else m1 @ block.t @ right
        inner.append((m1 @ block.s @ right, t))
    count = len(state.own)
    spent = tuple(0.5 * diagonal(d) for d in distances[:count])  # half of each pool's own spread
    mass = tuple(
        m.sum(axis=-1) + np.zeros((len(q), 1)) for m, q in zip(matrices, before, strict=True)
    )
    level = tuple((m @ q[..., None])[..., 0] for m, q in zip(matrices, before, strict=True))
    after = tuple(np.maximum(mass[i] * level[i] - spent[i], 0.0) for i in range(count))
    blocks = []
    kinds = list(state.blocks())
    for i, ((e1, e2), (r1, r2), (l1, l2), (w1, w2)) in enumerate(
        zip(
            state.sides(spent),
            state.sides(mass),
            state.sides(level),
            state.sides(after),
            strict=True,
        )
    ):
        _, lay1, lay2 = kinds[i]
        uneven = (lay1(r1) - lay2(r2)) * (lay1(l1) - lay2(l2))
        gap = distances[i] - lay1(e1) - lay2(e2) + uneven
        one, two = np.sqrt(lay1(w1)), np.sqrt(lay2(w2))
        delta = np.clip(quotient(gap - (one - two) ** 2, 2.0 * one * two), 0.0, 2.0)
        s, t = inner[i]
        if i < count:
            diagonal(s)[...] = w1
            diagonal(delta)[...] = 0.0
        blocks.append(Block(s, delta, t))
    return state.rebuild(blocks, full=True)
