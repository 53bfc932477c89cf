"""Branch and bound for the sign of partial derivatives, and points that contradict it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.jacobian.bounds import jacobian_intervals
from tangency.verify.jacobian.counterexample import Claim, refuting_pair
from tangency.verify.jacobian.linear import jacobian_linear

__all__ = ["MonotoneSearch"]

Array = Any

_BATCH = 64  # boxes bounded at once
_REACH = (-2.0, 2.0)  # scales of the points tried where no box is given, as powers of ten


class MonotoneSearch:
    """Which claims are open, and what has been found out about the others.

    Parameters
    ----------
    network : Network
        With one input and one output.
    rows : (1, S, n_out) array
        The outputs.
    wanted, signs : (K,) array
        Flattened inputs, and 1 where the outputs are to rise with them, -1 where to fall.
    method : {"crown", "interval"}
        How the Jacobian is bounded on bounded boxes.
    rng : Generator
        For the points that are tried.
    """

    def __init__(
        self,
        network: Network,
        rows: Array,
        wanted: Array,
        signs: Array,
        method: str,
        rng: np.random.Generator,
    ) -> None:
        self.network, self.rows, self.method, self.rng = network, rows, method, rng
        self.wanted, self.signs = wanted, signs
        self.verdicts = np.full((rows.shape[1], len(wanted)), "unknown", dtype="<U7")
        self.pairs: dict[tuple[int, int], tuple[Array, Array]] = {}
        self.count = 0
        self.first = Interval(0.0)

    def everywhere(self, low: Array, high: Array) -> None:
        """One bound for all of space; what it leaves open is tried at points."""
        found = self._signed(low, high)
        self.first = self._unsigned(found)
        self.verdicts[found.lower[0] >= 0] = "proved"
        reach = 10.0 ** self.rng.uniform(_REACH[0], _REACH[1], (_BATCH, 1))
        points = self.rng.normal(size=(_BATCH, low.shape[1])) * reach
        self._refute(np.concatenate([np.zeros((1, low.shape[1])), points]), low, high)

    def inside(self, low: Array, high: Array, boxes: int) -> None:
        """Branch and bound on a bounded box."""
        whole_low, whole_high = low, high
        part = self.rng.random((_BATCH, low.shape[1]))
        self._refute(np.clip(low + part * (high - low), low, high), low, high)
        scale = np.maximum(high - low, np.finfo(np.float64).tiny)
        lasting = np.ones(self.verdicts.shape, dtype=bool)  # claims that no part has left open
        pending = lasting[None]  # claims that are open in each part of the box
        lows, highs = low, high
        while len(lows):
            if self.count + len(lows) > boxes:
                lasting &= ~pending.any(axis=0)
                break
            found = self._signed(lows, highs)
            if self.count == len(lows) == 1:
                self.first = self._unsigned(found)
            still = (found.lower < 0) & (self.verdicts == "unknown")
            # An input that cannot move proves nothing wrong.
            still &= (highs > lows)[:, None, self.wanted]
            if not still.any():
                break
            self._refute(Interval(lows, highs).midpoint, whole_low, whole_high)
            still &= self.verdicts == "unknown"
            open_ = still.any(axis=(1, 2))
            pending = still[open_]
            lows, highs, stuck = _halves(lows[open_], highs[open_], scale)
            lasting &= ~pending[stuck].any(axis=0)
        self.verdicts[lasting & (self.verdicts == "unknown")] = "proved"

    def _signed(self, low: Array, high: Array) -> Interval:
        """Partial derivatives ``(B, S, K)`` times the signs asked for: claims are ``>= 0``."""
        parts, bounded = [], bool(np.isfinite(low).all() and np.isfinite(high).all())
        for i in range(0, len(low), _BATCH):
            shape = (-1, *self.network.input_shape)
            x = Interval(low[i : i + _BATCH].reshape(shape), high[i : i + _BATCH].reshape(shape))
            # At points both methods give the same: the quick one serves.
            linear = self.method == "crown" and bounded and (low < high).any()
            bound = jacobian_linear if linear else jacobian_intervals
            (found,) = bound(self.network, [x], self.rows)
            flat = found.shape[:2]
            parts.append((found.lower.reshape((*flat, -1)), found.upper.reshape((*flat, -1))))
        lower, upper = (np.concatenate(ends)[..., self.wanted] for ends in zip(*parts, strict=True))
        self.count += len(low)
        result: Interval = Interval(lower, upper) * self.signs.astype(np.float64)
        return result

    def _unsigned(self, found: Interval) -> Interval:
        low, high = found.lower[0] * self.signs, found.upper[0] * self.signs
        return Interval(np.minimum(low, high) + 0.0, np.maximum(low, high) + 0.0)

    def _refute(self, points: Array, low: Array, high: Array) -> None:
        """Look at points for derivatives of the wrong sign, and prove a pair for each claim."""
        open_ = self.verdicts == "unknown"
        if not open_.any():
            return
        before = self.count
        found = self._signed(points, points)
        self.count = before
        worst = found.upper.argmin(axis=0)
        for s, k in np.argwhere(open_ & (found.upper.min(axis=0) < 0)):
            claim = Claim(self.rows[0, s], int(self.wanted[k]), int(self.signs[k]))
            pair = refuting_pair(self.network, points[worst[s, k]], claim, low[0], high[0])
            if pair is not None:
                self.verdicts[s, k] = "refuted"
                self.pairs[int(s), int(k)] = pair


def _halves(low: Array, high: Array, scale: Array) -> tuple[Array, Array, Array]:
    """Each box cut at its longest edge; a mask of those too small to be cut."""
    axis = ((high - low) / scale).argmax(axis=1)
    rows = np.arange(len(low))
    middle = Interval(low, high).midpoint[rows, axis]
    stuck = (middle <= low[rows, axis]) | (middle >= high[rows, axis])
    first_high, second_low = high.copy(), low.copy()
    first_high[rows, axis] = middle
    second_low[rows, axis] = middle
    keep = ~stuck
    lows = np.concatenate([low[keep], second_low[keep]])
    highs = np.concatenate([first_high[keep], high[keep]])
    return lows, highs, stuck
