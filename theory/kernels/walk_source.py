"""The covariances of the inputs: inner products in float64, differences for near pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tangency.theory.kernels.walk_state import Block, State, quotient

__all__ = ["source"]

Array = np.ndarray[Any, np.dtype[np.float64]]

_NEAR = 1e-3  # below this 1 -+ cos is taken from differences and sums of the samples themselves
_CHUNK = 1 << 21  # entries of the differences held at a time


def source(rows: tuple[Array, ...], *, full: bool, cross: bool, ntk: bool) -> State:
    """Blocks of the inputs.

    Parameters
    ----------
    rows : one or two arrays (n, sites, channels)
    full, cross, ntk : bool
        Whether pairs of sites are carried, pairs of samples, and a tangent kernel (zero here).
    """
    variances = [np.einsum("npc,npc->np", x, x) / x.shape[2] for x in rows]
    own = []
    for x, q in zip(rows, variances, strict=True):
        if full:
            s = x @ x.swapaxes(1, 2) / x.shape[2]
            block = _block(s, x, x, q, q, "own", ntk=ntk)
            diagonal = np.einsum("npp->np", block.s)
            diagonal[...] = q
            np.einsum("npp->np", block.delta)[...] = 0.0
        else:
            block = Block(q, np.zeros_like(q), np.zeros_like(q) if ntk else None)
        own.append(block)
    between = None
    if cross:
        x, y = rows[0], rows[-1]
        n, sites, channels = x.shape
        if full:
            s = x.reshape(-1, channels) @ y.reshape(-1, channels).T / channels
            s = s.reshape(n, sites, len(y), sites).swapaxes(1, 2).copy()
        else:
            s = (x.swapaxes(0, 1) @ y.transpose(1, 2, 0)) / channels
            s = np.moveaxis(s, 0, -1).copy()
        between = _block(s, x, y, variances[0], variances[-1], "cross", ntk=ntk)
    return State(tuple(own), between, full)


def _block(s: Array, x: Array, y: Array, q1: Array, q2: Array, kind: str, *, ntk: bool) -> Block:
    left, right = (
        (q1[:, :, None], q2[:, None, :])
        if kind == "own"
        else (q1[:, None, :, None], q2[None, :, None, :])
        if s.ndim == 4
        else (q1[:, None, :], q2[None, :, :])
    )
    whole = np.sqrt(left) * np.sqrt(right)
    if x.shape[2] == 1:  # numbers: the angle is 0 or pi
        delta = np.where(s >= 0.0, 0.0, 2.0)
    else:
        delta = np.where(whole > 0.0, 1.0 - quotient(s, whole), 0.0)
        for index, sign in _near(delta, whole, x.shape[2]):
            if kind == "own":
                left_at, right_at = (index[0], index[1]), (index[0], index[2])
            else:
                left_at, right_at = (index[0], index[2]), (index[1], index[-1])
            v1, v2 = q1[left_at], q2[right_at]
            stretch = np.sqrt(np.sqrt(v2) / np.sqrt(v1))[:, None]
            parts = stretch * x[left_at] - sign * y[right_at] / stretch
            gap = np.einsum("ic,ic->i", parts, parts) / (2.0 * x.shape[2])
            gap /= np.sqrt(v1) * np.sqrt(v2)
            delta[index] = gap if sign > 0.0 else 2.0 - gap
        np.clip(delta, 0.0, 2.0, out=delta)
    return Block(s, delta, np.zeros_like(s) if ntk else None)


def _near(delta: Array, whole: Array, channels: int) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Indices of pairs that are near (1.0) or nearly opposite (-1.0), zeros left out, in chunks."""
    step = max(1, _CHUNK // channels)
    for sign, gap in ((1.0, delta), (-1.0, 2.0 - delta)):
        flat = np.flatnonzero((np.abs(gap) < _NEAR) & (whole > 0.0))
        for start in range(0, len(flat), step):
            yield np.unravel_index(flat[start : start + step], delta.shape), sign
