"""A convolutional plan cut into stages: what lies between two poolings, as codes for the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.theory.kernels.duals_rectified import Rectified
from tangency.theory.kernels.fused_rows import kink_of
from tangency.theory.kernels.plan import (
    Activate,
    Affine,
    Flatten,
    Linear,
    Mix,
    Plan,
    PlanNode,
    Scale,
    Source,
)

__all__ = ["Stage", "cut"]

Array = np.ndarray[Any, Any]
CONVOLVE, ACTIVATE, MIX = 0, 1, 2  # as in cntk_compiled, which imports Numba


@dataclass(frozen=True, eq=False)
class Stage:
    """Steps that keep every displacement to itself, and what is done to the sites after them.

    Attributes
    ----------
    grid : (height, width)
    codes : (ops, 6) int array, factors : (ops, 4) array
        See :func:`.cntk_compiled.evolve`.
    slots : int
    matrix : (sites out, sites) array or None
        The pooling behind the stage; None for none.
    flatten : bool
        Whether the mean over equal sites follows.
    """

    grid: tuple[int, int]
    codes: Array
    factors: Array
    slots: int
    matrix: Array | None
    flatten: bool

    @property
    def pad(self) -> int:
        """Width of the border of zeros."""
        windows = self.codes[self.codes[:, 0] == CONVOLVE]
        return int(windows[:, 4].max(initial=0))

    @property
    def weights(self) -> Array:
        """Weights of the pairs of sites in the result; ``(1, 1)`` where all are equal."""
        sites = self.grid[0] * self.grid[1]
        matrix = np.eye(sites) if self.matrix is None else self.matrix
        weights = matrix.T @ matrix / (len(matrix) if self.flatten else 1)
        return weights[:1, :1].copy() if np.all(weights == weights[0, 0]) else weights

    def deviations(self, q: Array) -> tuple[Array, Array]:
        """From variances (n, H, W) those after the last op, and the roots before activations.

        The roots are ``(n, activations, H, W)``.
        """
        slots: dict[int, Array] = {0: q}
        roots, last = [], 0
        for (kind, a, b, c, d, _), factors in zip(self.codes, self.factors, strict=True):
            now = slots[a]
            if kind == CONVOLVE:
                slots[b] = factors[0] * _box(now, c, d) + factors[1]
            elif kind == ACTIVATE:
                roots.append(np.sqrt(now))
                slots[b] = now * factors[0]
            else:
                slots[b] = factors[0] * now + factors[1] * slots[c]
            last = b
        empty = np.zeros((len(q), 0, *self.grid))
        return slots[last], np.ascontiguousarray(np.stack(roots, axis=1)) if roots else empty


def cut(plan: Plan) -> tuple[tuple[Stage, ...], tuple[Affine | Scale, ...]] | None:
    """Stages, and the dense layers behind the last of them; None for a plan that has no such form.

    It has where its convolutions have odd windows, stride 1 and zero padding that keeps the grid,
    its activations are linear on both sides of 0, and branches are closed before each pooling.
    """
    if len(plan.extract) != 1 or len(plan.nodes[0].sites) not in (1, 2):
        return None
    last = {k: i for i, node in enumerate(plan.nodes) for k in node.inputs}
    stages: list[Stage] = []
    writer: _Writer | None = None
    tail: list[Affine | Scale] = []
    for i, node in enumerate(plan.nodes):
        step = node.step
        if isinstance(step, Source):
            if i:
                return None
            writer = _Writer(_grid(node.sites), {0: 0})
        elif tail or writer is None:
            if node.sites or not isinstance(step, Scale | Affine) or node.inputs != (i - 1,):
                return None
            tail.append(step)
        elif isinstance(step, Linear | Flatten):
            held = set(writer.held) - {node.inputs[0]}
            if held or last[node.inputs[0]] != i or (stages and stages[-1].flatten):
                return None
            matrix = step.matrix if isinstance(step, Linear) else None
            flat = isinstance(step, Flatten)
            if not writer.codes and stages:  # two poolings in turn are one
                before = stages.pop()
                both = before.matrix
                if both is not None and matrix is not None:
                    both = matrix @ both
                stages.append(
                    Stage(before.grid, before.codes, before.factors, before.slots, both, flat)
                )
            else:
                stages.append(writer.close(matrix, flat))
            if len(node.sites) > 2:
                return None
            writer = _Writer(_grid(node.sites), {i: 0}) if node.sites else None
        elif not node.sites or not writer.add(i, node, last):
            return None
    return (tuple(stages), tuple(tail)) if stages and writer is None else None


class _Writer:
    """Writes the codes of one stage and hands out its slots."""

    def __init__(self, grid: tuple[int, int], held: dict[int, int]) -> None:
        self.grid, self.held, self.slots = grid, held, 1
        self.codes: list[tuple[int, int, int, int, int, int]] = []
        self.factors: list[tuple[float, float, float, float]] = []
        self.activations = 0

    def close(self, matrix: Array | None, flatten: bool) -> Stage:
        codes = np.array(self.codes, dtype=np.int64).reshape(-1, 6)
        factors = np.array(self.factors, dtype=np.float64).reshape(-1, 4)
        return Stage(self.grid, codes, factors, self.slots, matrix, flatten)

    def add(self, i: int, node: PlanNode, last: dict[int, int]) -> bool:
        """Write a node; False where it does not fit."""
        step, first = node.step, node.inputs[0]
        if any(k not in self.held for k in node.inputs) or _grid(node.sites) != self.grid:
            return False
        a = self.held[first]
        keep = last[first] > i
        if isinstance(step, Affine):
            window = _window(step.table, self.grid)
            if window is None:
                return False
            taps = 1 if step.table is None else step.table.shape[1]
            b = self._slot()
            self.codes.append((CONVOLVE, a, b, *window, 0))
            self.factors.append(
                (step.weight / taps, step.bias, step.weight_gain / taps, step.bias_gain)
            )
        elif isinstance(step, Activate):
            kink = kink_of(step.dual)
            if kink is None or not isinstance(step.dual, Rectified):
                return False
            b = self._slot() if keep else a
            half = (step.dual.a**2 + step.dual.b**2) / 2.0
            self.codes.append((ACTIVATE, a, b, self.activations, 0, 0))
            self.factors.append((half, kink, 0.0, 0.0))
            self.activations += 1
        elif isinstance(step, Mix | Scale):
            weights = step.weights if isinstance(step, Mix) else (step.square, 0.0)
            others = list(node.inputs[1:]) if isinstance(step, Mix) else [first]
            if len(others) == 0:
                others, weights = [first], (*weights, 0.0)
            b = self._slot() if keep else a
            for n, other in enumerate(others):
                read = b if n else a
                # A slot mixed with nothing reads itself.
                self.codes.append((MIX, read, b, self.held[other] if weights[n + 1] else b, 0, 0))
                self.factors.append((1.0 if n else weights[0], weights[n + 1], 0.0, 0.0))
        else:
            return False
        for k in node.inputs:
            if last[k] <= i:
                self.held.pop(k, None)
        self.held[i] = b
        return True

    def _slot(self) -> int:
        busy = set(self.held.values())
        free = next(k for k in range(len(busy) + 1) if k not in busy)
        self.slots = max(self.slots, free + 1)
        return free


def _grid(sites: tuple[int, ...]) -> tuple[int, int]:
    return (1, sites[0]) if len(sites) == 1 else (sites[0], sites[1])


def _window(table: Array | None, grid: tuple[int, int]) -> tuple[int, int] | None:
    """Half height and half width of a window that keeps the grid; None for other tables."""
    if table is None:
        return (0, 0)
    height, width = grid
    if len(table) != height * width:
        return None
    rows, cols = np.divmod(np.arange(height * width), width)
    for tall in range(height):
        if table.shape[1] % (2 * tall + 1):
            continue
        wide, rest = divmod(table.shape[1] // (2 * tall + 1) - 1, 2)
        if rest:
            continue
        down, right = np.divmod(np.arange(table.shape[1]), 2 * wide + 1)
        r, c = rows[:, None] + down - tall, cols[:, None] + right - wide
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        if np.array_equal(np.where(inside, r * width + c, -1), table):
            return tall, wide
    return None


def _box(q: Array, tall: int, wide: int) -> Array:
    """Sums over a window, with zeros outside."""
    _, height, width = q.shape
    padded = np.pad(q, ((0, 0), (tall, tall), (wide, wide)))
    rows = np.sum([padded[:, k : k + height] for k in range(2 * tall + 1)], axis=0)
    return np.asarray(np.sum([rows[:, :, k : k + width] for k in range(2 * wide + 1)], axis=0))
