"""Sweeps whose slopes a search improves, row by row, and that are proved afterwards.

Driven by the schedule, this is alpha-CROWN with intermediate bounds optimised too. Every bound of a
layer has slopes of its own, so that the joint optimum is reached layer by layer: the final bounds
are monotone in the boxes before them, and each box is best when its own bounds are.

References
----------
Xu et al., arXiv 2011.13824.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.network import Network
from tangency.verify.bounds.search.alpha import optimised
from tangency.verify.bounds.search.engine import JaxEngine
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import Engine, Pair
from tangency.verify.rigorous.sets import InputSet, batch_of

__all__ = ["Searched"]

Array = Any

MAPS = 2**24  # entries of one-hot maps that are searched at once


class Searched:
    """An engine whose sweeps are optimised.

    Parameters
    ----------
    estimates : JaxEngine
        Searches.
    steps_of : Engine
        Takes the interval steps.
    proof : NumpyEngine or None
        Sweeps once more with the slopes found, in rigorous arithmetic; None for estimates.
    steps : int
        Of each search.
    """

    def __init__(
        self, estimates: JaxEngine, steps_of: Engine, proof: NumpyEngine | None, steps: int
    ) -> None:
        self.network: Network = estimates.network
        self.inputs: Sequence[InputSet] = estimates.inputs
        self.samples = batch_of(self.inputs)
        self._estimates, self._steps_of, self._proof = estimates, steps_of, proof
        self._steps = steps
        #: Slopes of the last sweep of a specification, those of its lower bounds first.
        self.chosen: Mapping[int, tuple[Array, ...]] = {}

    def interval(self, index: int, known: Mapping[int, Pair]) -> Pair:
        """Bounds of a node from those of its inputs."""
        return self._steps_of.interval(index, known)

    def sweep(
        self,
        target: int,
        known: Mapping[int, Pair],
        *,
        rows: Array | None = None,
        spec: Array | None = None,
        slopes: Mapping[int, tuple[Array, ...]] | None = None,
        upper: bool = True,
    ) -> tuple[Array, Array | None]:
        """Bounds of linear functions of a node; ``slopes`` are what is searched."""
        if spec is not None:
            return self._optimised(target, known, spec, upper)
        n = prod(self.network.structure.nodes[target].shape)
        if rows is None:
            rows = np.broadcast_to(np.arange(n), (self.samples, n))
        width = rows.shape[1]
        size = _bucket(min(width, max(1, MAPS // (self.samples * n))))
        lows: list[Array] = []
        highs: list[Array] = []
        for start in range(0, width, size):
            places = np.minimum(np.arange(start, start + size), width - 1)  # the last one repeats
            maps = np.zeros((self.samples, size, n))
            np.put_along_axis(maps, rows[:, places, None], 1.0, axis=2)
            low, high = self._optimised(target, known, maps, upper)
            lows.append(low)
            highs.append(high)
        low = np.concatenate(lows, axis=1)[:, :width]
        return low, np.concatenate(highs, axis=1)[:, :width] if upper else None

    def _optimised(
        self, target: int, known: Mapping[int, Pair], spec: Array, upper: bool
    ) -> tuple[Array, Array | None]:
        found = optimised(self._estimates, target, known, spec=spec, upper=upper, steps=self._steps)
        self.chosen = found.slopes
        if self._proof is None:
            return found.lower, found.upper
        ends = self._proof.sweep(target, known, spec=spec, slopes=found.slopes, upper=upper)
        plain = self._proof.sweep(target, known, spec=spec, upper=upper)
        # What a search in float32 gains in its last digits a proof in float64 may lose: such rows
        # go back to the default slopes, so that the bounds are never looser than without a search.
        lost = plain[0] > ends[0]
        if ends[1] is not None and plain[1] is not None:
            lost = np.concatenate([lost, plain[1] < ends[1]], axis=1)
        if lost.any():
            self.chosen = {
                i: tuple(
                    np.where(lost.reshape(*lost.shape, *(1,) * (v.ndim - 2)), default, v)
                    for default, v in zip(self._proof.slopes(i, known), own, strict=True)
                )
                for i, own in found.slopes.items()
            }
            ends = self._proof.sweep(target, known, spec=spec, slopes=self.chosen, upper=upper)
        return ends


def _bucket(count: int) -> int:
    """The next power of two, 16 at least: few sizes, few compilations."""
    return max(16, 1 << (count - 1).bit_length())
