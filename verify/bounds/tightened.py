"""An engine of estimates whose interval steps also hear what the network was before lowering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tangency.models.network import Network
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import Engine, Pair
from tangency.verify.rigorous.sets import InputSet

__all__ = ["Tightened"]

Array = Any


class Tightened:
    """An engine, with the exact interval rules of softmax, layer norm and their kind added.

    Parameters
    ----------
    engine : Engine
        Takes all steps.
    proved : NumpyEngine
        Knows the ops that were lowered, and their rules.
    """

    def __init__(self, engine: Engine, proved: NumpyEngine) -> None:
        self.engine, self.proved = engine, proved
        self.network: Network = engine.network
        self.inputs: Sequence[InputSet] = engine.inputs

    def interval(self, index: int, known: Mapping[int, Pair]) -> Pair:
        """Bounds of a node from those of its inputs, and of the old op's inputs."""
        low, high = self.engine.interval(index, known)
        old = self.proved.before(index, known)
        if old is None:
            return low, high
        low, high = np.maximum(low, old.lower), np.minimum(high, old.upper)
        return np.minimum(low, high), np.maximum(low, high)  # estimates may cross by rounding

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
        """The engine's own."""
        return self.engine.sweep(target, known, rows=rows, spec=spec, slopes=slopes, upper=upper)
