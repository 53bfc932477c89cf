"""The reference walk: a plan's steps on the blocks of one tile, in NumPy float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.theory.kernels.attention import attend
from tangency.theory.kernels.plan import (
    Activate,
    Affine,
    Attention,
    BatchNorm,
    Dropout,
    Flatten,
    Gather,
    Linear,
    Mix,
    Norm,
    Plan,
    Product,
    Scale,
    Source,
)
from tangency.theory.kernels.walk_sites import affine_sites, flatten, gather, spread
from tangency.theory.kernels.walk_source import source
from tangency.theory.kernels.walk_state import Block, Parts, State, diagonal

__all__ = ["walk"]

Array = np.ndarray[Any, np.dtype[np.float64]]


def walk(plan: Plan, sides: tuple[Array, ...], *, cross: bool, ntk: bool) -> State:
    """Carry the covariances of a tile to the output.

    Parameters
    ----------
    plan : Plan
    sides : one or two arrays (n, *input_shape)
        The samples; one where the tile is of a batch with itself.
    cross : bool
        Whether the pairs across are wanted, or each sample with itself alone.
    ntk : bool
        Whether the tangent kernel is wanted.

    Returns
    -------
    State
        Blocks ``(n,)`` and ``(n1, n2)``: the sites are gone.
    """
    states: dict[int, State] = {}
    last = {j: i for i, node in enumerate(plan.nodes) for j in node.inputs}
    for i, node in enumerate(plan.nodes):
        inputs = [states[j] for j in node.inputs]
        if isinstance(node.step, Source):
            rows = tuple(plan.extract[node.step.index](x) for x in sides)
            state = source(rows, full=node.full, cross=cross, ntk=ntk)
        else:
            state = _STEPS[type(node.step)](node.step, inputs)
        if node.full and not state.full:
            state = state.widened()
        elif state.full and not node.full:
            state = state.narrowed()
        states[i] = state
        for j in node.inputs:
            if last[j] == i:
                states.pop(j, None)
    end = states[len(plan.nodes) - 1]
    blocks = [
        Block(b.s[..., 0], b.delta[..., 0], None if b.t is None else b.t[..., 0])
        for b, _, _ in end.blocks()
    ]
    return end.rebuild(blocks, full=False)


def _affine(step: Affine, inputs: list[State]) -> State:
    (state,) = inputs
    if step.table is not None:
        return affine_sites(step, state)
    before = state.variances
    after = tuple(step.weight * q + step.bias for q in before)
    blocks = []
    for (block, lay1, lay2), (q1, q2), (w1, w2) in zip(
        state.blocks(), state.sides(before), state.sides(after), strict=True
    ):
        t = None
        if block.t is not None:
            t = step.weight * block.t + step.weight_gain * block.s + step.bias_gain
        if step.bias == 0.0:
            blocks.append(Block(step.weight * block.s, block.delta, t))
            continue
        parts = Parts(lay1(w1), lay2(w2))
        parts.add(step.weight, Block(block.s, block.delta, None), lay1(q1), lay2(q2))
        parts.add_constant(step.bias)
        new = parts.block()
        new.t = t
        blocks.append(new)
    return _exact(state.rebuild(blocks), after)


def _activate(step: Activate, inputs: list[State]) -> State:
    (state,), dual = inputs, step.dual
    before = state.variances
    after = tuple(dual.variance(q) for q in before)
    slopes = tuple(dual.slope_variance(q) for q in before)
    blocks = []
    count = len(state.own)
    for i, ((block, lay1, lay2), (q1, q2)) in enumerate(
        zip(state.blocks(), state.sides(before), strict=True)
    ):
        if i < count and not state.full:
            t = None if block.t is None else slopes[i] * block.t
            blocks.append(Block(after[i], np.zeros_like(block.delta), t))
            continue
        k, slope, delta, _ = dual.pair(lay1(q1), lay2(q2), block.s, block.delta)
        t = None
        if block.t is not None:
            t = slope * block.t
            if i < count:
                diagonal(t)[...] = slopes[i] * diagonal(block.t)
        blocks.append(Block(k, delta, t))
    return _exact(state.rebuild(blocks), after)


def _exact(state: State, variances: tuple[Array, ...]) -> State:
    """The state with the variances on the diagonal of its own blocks."""
    for block, q in zip(state.own, variances, strict=True):
        if state.full:
            diagonal(block.s)[...] = q
            diagonal(block.delta)[...] = 0.0
        else:
            block.s, block.delta = q, np.zeros_like(q)
    return state


def _mix(step: Mix, inputs: list[State]) -> State:
    all_before = [state.variances for state in inputs]
    after = tuple(
        sum((w * q for w, q in zip(step.weights, column, strict=True)), np.zeros(()))
        for column in zip(*all_before, strict=True)
    )
    first = inputs[0]
    blocks = []
    columns = zip(*(state.blocks() for state in inputs), strict=True)
    befores = zip(*(first.sides(before) for before in all_before), strict=True)
    for column, sides, (w1, w2) in zip(columns, befores, first.sides(after), strict=True):
        _, lay1, lay2 = column[0]
        parts = Parts(lay1(w1), lay2(w2))
        for weight, (block, _, _), (q1, q2) in zip(step.weights, column, sides, strict=True):
            parts.add(weight, block, lay1(q1), lay2(q2))
        blocks.append(parts.block())
    return _exact(first.rebuild(blocks), after)


def _product(step: Product, inputs: list[State]) -> State:
    blocks = []
    for column in zip(*(state.blocks() for state in inputs), strict=True):
        s, delta, t = column[0][0].s, column[0][0].delta, column[0][0].t
        for block, _, _ in column[1:]:
            if t is not None and block.t is not None:
                t = t * block.s + s * block.t
            # cos = (1 - a)(1 - b): no difference of near numbers near 1
            delta = delta + block.delta - delta * block.delta
            s = s * block.s
        blocks.append(Block(s, np.clip(delta, 0.0, 2.0), t))
    return inputs[0].rebuild(blocks)


def _norm(step: Norm, inputs: list[State]) -> State:
    (state,) = inputs
    roots = []
    for q in state.variances:
        mean = q if step.groups is None else q @ step.groups.T
        roots.append(1.0 / np.sqrt(mean + step.eps))
    return _factors(state, tuple(roots), gain=float(step.gain), shift=float(step.shift))


def _scale(step: Scale | BatchNorm, inputs: list[State]) -> State:
    roots = tuple(np.full_like(q, np.sqrt(step.square)) for q in inputs[0].variances)
    if isinstance(step, BatchNorm):
        return _factors(inputs[0], roots, gain=float(step.gain), shift=float(step.shift))
    return _factors(inputs[0], roots)


def _factors(
    state: State, roots: tuple[Array, ...], *, gain: float = 0.0, shift: float = 0.0
) -> State:
    """Every sample's site times a factor of its own: angles stay."""
    blocks = []
    for (block, lay1, lay2), (r1, r2) in zip(state.blocks(), state.sides(roots), strict=True):
        # A sample with itself in an own block of single sites: the factor twice.
        factor = lay1(r1) * lay2(r2)
        s = block.s * factor
        t = None if block.t is None else block.t * factor + gain * s + shift
        blocks.append(Block(s, block.delta, t))
    return state.rebuild(blocks)


def _dropout(step: Dropout, inputs: list[State]) -> State:
    """Two samples, or two sites, are dropped apart: only the variances grow."""
    (state,), keep = inputs, step.keep
    blocks = []
    for i, (block, _, _) in enumerate(state.blocks()):
        delta = (1.0 - keep) + keep * block.delta
        s, t = block.s, block.t
        if i < len(state.own):
            s, t = s.copy(), None if t is None else t.copy()
            for array in (s, t):
                if array is not None:
                    view = diagonal(array) if state.full else array
                    view /= keep
            (diagonal(delta) if state.full else delta)[...] = 0.0
        blocks.append(Block(s, delta, t))
    return state.rebuild(blocks)


def _linear(step: Linear, inputs: list[State]) -> State:
    (state,) = inputs
    return spread(state, tuple(step.matrix[None] for _ in state.own))


_STEPS: dict[type, Callable[[Any, list[State]], State]] = {
    Activate: _activate,
    Affine: _affine,
    Attention: attend,
    BatchNorm: _scale,
    Dropout: _dropout,
    Flatten: lambda step, inputs: flatten(inputs[0]),
    Gather: lambda step, inputs: gather(step.table, inputs[0]),
    Linear: _linear,
    Mix: _mix,
    Norm: _norm,
    Product: _product,
    Scale: _scale,
}
