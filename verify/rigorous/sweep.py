"""One sweep: rows that all samples share first, then samples and rows block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np

from tangency.models.network import Network
from tangency.models.ops import Input
from tangency.verify.rigorous.backward import Rows, Step, lower_bounds
from tangency.verify.rigorous.cropping import crop, support
from tangency.verify.rigorous.schedule import Pair
from tangency.verify.rigorous.sets import InputSet

__all__ = ["Slopes", "Stepper", "Sweep"]

Array = Any
Slopes = Mapping[int, tuple[Array, ...]]

BLOCK = 2**18  # coefficients of a block that is relaxed at once


class Stepper(Protocol):
    """What a sweep asks of its engine."""

    network: Network
    inputs: Sequence[InputSet]
    samples: int

    def step(self, index: int, known: Mapping[int, Pair], chosen: tuple[Array, ...] | None) -> Step:
        """The way back through a node."""


class Sweep:
    """One sweep of some rows: first shared by all samples, then block by block."""

    def __init__(
        self,
        engine: Stepper,
        path: Sequence[int],
        known: Mapping[int, Pair],
        slopes: Slopes,
        upper: bool,
        width: int,
        columns: int,
    ) -> None:
        structure = engine.network.structure
        self.engine, self.known, self.slopes = engine, known, slopes
        self.nodes, self.upper, self.width = structure.nodes, upper, max(width, 1)
        self.columns, self.block = columns, self.width
        self.order = list(reversed(path))
        self.sets = dict(zip(structure.inputs, engine.inputs, strict=True))

    def run(
        self,
        target: int,
        ids: Array,
        spec: Array | None,
        need: Array | None,
        low: Array,
        high: Array | None,
    ) -> None:
        """Write the bounds of rows ``ids`` to the columns ``ids`` of the results."""
        shape = self.nodes[target].shape
        if spec is None:
            coef = np.zeros((1, len(ids), prod(shape)))
            coef[0, np.arange(len(ids)), ids] = 1.0
        else:
            coef = spec
        zero = np.zeros((coef.shape[0], coef.shape[1]))
        rows = Rows({target: coef.reshape((*coef.shape[:2], *shape))}, zero, zero)
        everyone = slice(0, self.engine.samples)
        place = 0
        if coef.shape[0] == 1:
            place = self._walk(rows, 0, everyone, shared=True)
            self._crop(rows)
        for part, chosen, names in self._blocks(ids, need):
            mine = _taken(rows, part, chosen)
            count = mine.value.shape[1]
            if self.upper:
                mine = _both_sides(mine)
            self._walk(mine, place, part, shared=False, chosen=chosen)
            found = lower_bounds(mine, self.sets, part)
            found = np.broadcast_to(found, (part.stop - part.start, found.shape[1]))
            _write(low, part, names, found[:, :count])
            if high is not None:
                _write(high, part, names, -found[:, count:])

    def _walk(
        self, rows: Rows, place: int, part: slice, *, shared: bool, chosen: Any = None
    ) -> int:
        """Step back from node to node; a shared walk stops before the first nonlinear op."""
        while place < len(self.order):
            index = self.order[place]
            node = self.nodes[index]
            if index in rows.coef and not isinstance(node.op, Input):
                if shared and not node.op.affine:
                    return place
                (coef, window), slopes = rows.pop(index), self.slopes.get(index)
                if slopes is None or all(v.shape[1] == 1 for v in slopes):
                    step = self.engine.step(index, self.known, slopes)
                    step.apply(rows, coef, part, window)
                else:
                    step = self._own_step(index, slopes, part, chosen, rows.value.shape[1])
                    step.apply(rows, coef, slice(0, part.stop - part.start), window)
            place += 1
        return place

    def _crop(self, rows: Rows) -> None:
        """Keep what the shared walk has found on the windows that it lives on."""
        widest = 0
        for index, coef in rows.coef.items():
            axes = len(self.nodes[index].shape) - 1
            window = support(coef, axes) if axes > 0 and rows.windows.get(index) is None else None
            if window is not None:
                rows.coef[index] = np.ascontiguousarray(crop(coef, window))
                rows.windows[index] = window
            widest = max(widest, prod(rows.coef[index].shape[2:]))
        # On the way the windows grow towards the whole: a block is sized between the two.
        self.block = max(1, int(np.sqrt(widest * self.width)))

    def _own_step(
        self, index: int, slopes: tuple[Array, ...], part: slice, chosen: Any, count: int
    ) -> Step:
        """A step whose slopes differ from row to row, for a block alone.

        Slopes of as many rows as the result has serve both sides; twice as many are those of the
        lower and then of the upper bounds.
        """
        inputs = self.nodes[index].inputs
        pairs = {j: tuple(v if v.shape[0] == 1 else v[part] for v in self.known[j]) for j in inputs}

        def cut(v: Array) -> Array:
            v = v if v.shape[0] == 1 else v[part]
            if v.shape[1] == 1:
                return v
            halves = np.split(v, v.shape[1] // self.columns, axis=1)
            picked = [half[:, chosen] for half in halves]
            whole = np.concatenate(picked, axis=1)
            return whole if whole.shape[1] == count else np.concatenate([whole, whole], axis=1)

        return self.engine.step(index, pairs, tuple(map(cut, slopes)))

    def _blocks(self, ids: Array, need: Array | None) -> Iterator[tuple[slice, Any, Array]]:
        """Samples, rows of the shared walk (a slice, or indices a sample), and their columns."""
        samples, sides = self.engine.samples, 2 if self.upper else 1
        most = max(1, BLOCK // (self.block * sides))
        sub = None if need is None else need[:, ids]
        counts = np.full(samples, len(ids)) if sub is None else sub.sum(axis=1)
        start = 0
        while start < samples:
            stop, tallest = start + 1, int(counts[start])
            while stop < samples:
                taller = max(tallest, int(counts[stop]))
                if taller * (stop + 1 - start) > most:
                    break
                stop, tallest = stop + 1, taller
            part = slice(start, stop)
            start = stop
            if tallest == 0:
                continue
            if sub is None or tallest == len(ids):
                for first in range(0, len(ids), most):
                    chosen = slice(first, min(first + most, len(ids)))
                    yield part, chosen, ids[chosen]
                continue
            # Rows that a sample does not need fill its list up.
            order = np.argsort(~sub[part], axis=1, kind="stable")[:, :tallest]
            for first in range(0, tallest, most):
                some = order[:, first : first + most]
                yield part, some, ids[some]


def _taken(rows: Rows, part: slice, chosen: Any) -> Rows:
    """The rows of a block."""

    def pick(v: Array) -> Array:
        if isinstance(chosen, slice):
            return v[:, chosen] if v.shape[0] == 1 else v[part, chosen]
        if v.shape[0] == 1:
            return v[0][chosen]
        samples = np.arange(part.start, part.stop)
        return v[samples[:, None], chosen]

    coef = {i: pick(a) for i, a in rows.coef.items()}
    return Rows(coef, pick(rows.value), pick(rows.error), dict(rows.windows))


def _both_sides(rows: Rows) -> Rows:
    """The rows and, behind them, minus the rows."""
    coef = {i: np.concatenate([a, -a], axis=1) for i, a in rows.coef.items()}
    value = np.concatenate([rows.value, -rows.value], axis=1)
    error = np.concatenate([rows.error, rows.error], axis=1)
    return Rows(coef, value, error, dict(rows.windows))


def _write(result: Array, part: slice, names: Array, found: Array) -> None:
    if names.ndim == 1:
        result[part, names] = found
    else:
        result[np.arange(part.start, part.stop)[:, None], names] = found
