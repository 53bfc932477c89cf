r"""Self-attention in the linear-scaling limit of Hron et al.

With tied keys and queries and products scaled by their width, the scores converge to
``a = key_std C`` with C the covariance of a sample's sites; the weights ``G = mechanism(a)`` are
fixed numbers, and the layer is ``G C G^T`` times the value variance plus a bias. Training values
and output each add ``s`` to the tangent kernel, training the keys nothing.

References
----------
Hron, Bahri, Sohl-Dickstein, Novak, "Infinite attention", arXiv 2006.10540.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.kernels.plan import Attention
from tangency.theory.kernels.walk_sites import spread
from tangency.theory.kernels.walk_state import Block, Parts, State, diagonal, quotient

__all__ = ["MECHANISMS", "attend"]

Array = np.ndarray[Any, np.dtype[np.float64]]


def _softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


MECHANISMS: dict[str, Callable[[Array], Array]] = {
    "softmax": _softmax,
    "identity": lambda a: a,
    "abs": lambda a: np.abs(a),
    "relu": lambda a: np.maximum(a, 0.0),
}
"""What attention weights are made of scores by."""


def attend(step: Attention, inputs: list[State]) -> State:
    """The blocks after an attention layer."""
    (state,) = inputs
    if step.mechanism not in MECHANISMS:
        raise InputError(f"mechanism {step.mechanism!r}: it is one of {sorted(MECHANISMS)}")
    if not state.full:
        state = state.widened()
    placed = _with_positions(step, state)
    weights = tuple(
        np.asarray(MECHANISMS[step.mechanism](step.key_std * own.s)) for own in placed.own
    )
    mixed = spread(placed if step.position_in_values else state, weights)
    before = mixed.variances
    after = tuple(step.value * q + step.bias for q in before)
    blocks = []
    for (block, lay1, lay2), (q1, q2), (w1, w2) in zip(
        mixed.blocks(), mixed.sides(before), mixed.sides(after), strict=True
    ):
        parts = Parts(lay1(w1), lay2(w2))
        parts.add(step.value, block, lay1(q1), lay2(q2))
        if block.t is not None:
            parts.t = parts.t + 2.0 * parts.s + step.bias
        parts.add_constant(step.bias)
        blocks.append(parts.block())
    new = mixed.rebuild(blocks)
    for own, q in zip(new.own, after, strict=True):
        diagonal(own.s)[...] = q
        diagonal(own.delta)[...] = 0.0
    return new


def _with_positions(step: Attention, state: State) -> State:
    """The input mixed with positional embeddings, which every sample shares."""
    if step.position is None:
        return state
    place = step.position
    own = np.diagonal(place)
    after = tuple(step.share * q + own for q in state.variances)
    root = np.sqrt(own)
    whole = root[:, None] * root[None, :]
    turn = np.where(whole > 0.0, np.clip(1.0 - quotient(place, whole), 0.0, 2.0), 0.0)
    blocks = []
    for (block, lay1, lay2), (q1, q2), (w1, w2) in zip(
        state.blocks(), state.sides(state.variances), state.sides(after), strict=True
    ):
        parts = Parts(lay1(w1), lay2(w2))
        parts.add(step.share, block, lay1(q1), lay2(q2))
        # Embeddings are trained too: their tangent kernel is their covariance.
        embedded = Block(place, turn, None if block.t is None else place)
        parts.add(1.0, embedded, own[:, None], own[None, :])
        blocks.append(parts.block())
    new = state.rebuild(blocks)
    for mine, q in zip(new.own, after, strict=True):
        diagonal(mine.s)[...] = q
        diagonal(mine.delta)[...] = 0.0
    return new
