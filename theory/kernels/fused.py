r"""Fully connected kernels in one pass over tiles that stay in the cache.

Inner products of unit vectors in float64, then ``delta = 1 - cos`` and ``tau = ntk / sqrt(q1 q2)``
through all layers, a row of a tile at a time. With ``theta`` the angle and
``g = sin theta - theta cos theta``, a ReLU is ``delta -= g / pi``, ``tau *= 1 - theta / pi``, and a
dense layer without bias ``tau += 1 - delta``: variances enter at the very end. One triangle is
computed where both batches are one, and its diagonal comes from the samples alone, exactly.

A single-precision product in place of the first step would cost the Gram matrix of smooth data its
positive eigenvalues (an error e in cos is sqrt(2 e) / pi in the NTK); it is not offered.

References
----------
Jacot, Gabriel, Hongler, arXiv 1806.07572; Cho and Saul, NIPS 2009.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels.fused_rows import Rows, fits, kink_of, prepare
from tangency.theory.kernels.kernel import KINDS, Get, Gram, selected, wanted
from tangency.theory.kernels.plan import Activate, Affine, Mix, Plan, Source

__all__ = ["FusedDense"]

Array = np.ndarray[Any, Any]

_PANEL, _BLOCK = 256, 4096  # rows and columns of one product
_ROWS, _COLS = 32, 1024  # of a tile: delta and tau in the second-level cache
_NEAR = 1e-4  # below this delta comes from differences, in float64


@dataclass(frozen=True, eq=False)
class FusedDense:
    """A kernel of vectors whose plan is dense layers, activations, sums, norms and factors.

    Attributes
    ----------
    plan : Plan
    dtype : dtype
        float32 or float64, of the result.
    recursion : dtype
        float64, or float32 for a third to a seventh of the time of the recursion, which for a few
        layers is little beside that of the inner products. Entries are then right to 2e-7 of
        ``sqrt(K_ii K_jj)`` and no longer to the rounding of ``dtype``, 6e-8; the least eigenvalue
        of smooth data (1e-4 of the mean diagonal) moves by some per cent.
    n_jobs : int
        Threads.

    Raises
    ------
    UnsupportedError
        If the plan has sites, or a step that is carried by the reference alone.
    """

    plan: Plan
    dtype: Any = np.float32
    recursion: Any = np.float64
    n_jobs: int = 1

    def __post_init__(self) -> None:
        if not fits(self.plan):
            raise UnsupportedError(
                "the fused recursion takes dense layers, activations, sums, layer norms without "
                "gain and factors on vectors; use infinite_kernel for others"
            )
        for name in ("dtype", "recursion"):
            kind = getattr(self, name)
            if np.dtype(kind) not in (np.dtype(np.float32), np.dtype(np.float64)):
                raise InputError(f"{name} {kind}: it is float32 or float64")
        if self.n_jobs < 1:
            raise InputError(f"n_jobs = {self.n_jobs}: a number of threads from 1")

    def __call__(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Any:
        """The kernel between two batches, as of any :class:`Kernel`."""
        names = wanted(get)
        left = self._prepare("x1", x1)
        right = left if x2 is None else self._prepare("x2", x2)
        shape = (len(left.unit), len(right.unit))
        out = {name: np.empty(shape, self.dtype) for name in names}

        # One buffer a thread: fresh pages would cost a tenth of the product itself.
        own = threading.local()

        def panel(start: int) -> None:
            if not hasattr(own, "buffer"):
                own.buffer = np.empty(_PANEL * min(_BLOCK, max(shape[1], 1)))
            here = slice(start, min(start + _PANEL, shape[0]))
            first = start if x2 is None else 0
            for begin in range(first, shape[1], _BLOCK):
                there = slice(begin, min(begin + _BLOCK, shape[1]))
                parts = {k: v[here, there] for k, v in out.items()}
                self._panel(left, here, right, there, own.buffer, parts)
            if x2 is None:
                for name, array in out.items():
                    _mirror(array, here, getattr(left, name))

        starts = range(0, shape[0], _PANEL)
        if self.n_jobs == 1:
            for start in starts:
                panel(start)
        else:
            with ThreadPoolExecutor(self.n_jobs) as pool:
                list(pool.map(panel, starts))
        return selected(Gram(out.get("nngp"), out.get("ntk"), x2 is None), get)

    def diagonal(self, x: Any, *, get: Get = KINDS) -> Any:
        """The kernel of each sample with itself, ``(n,)``."""
        names, rows = wanted(get), self._prepare("x", x)
        parts = {name: getattr(rows, name).astype(self.dtype) for name in names}
        return selected(Gram(parts.get("nngp"), parts.get("ntk")), get)

    def _prepare(self, name: str, x: Any) -> Rows:
        array = np.asarray(x)
        if array.shape[1:] != tuple(self.plan.input_shape):
            raise InputError(f"{name} is (n, {self.plan.input_shape}), got shape {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"{name} has a NaN or infinite entry")
        return prepare(self.plan, array)

    def _panel(
        self,
        left: Rows,
        here: slice,
        right: Rows,
        there: slice,
        buffer: Array,
        out: dict[str, Array],
    ) -> None:
        shape = (here.stop - here.start, there.stop - there.start)
        products = buffer[: shape[0] * shape[1]].reshape(shape)
        np.matmul(left.unit[here], right.unit[there].T, out=products)
        for i in range(0, products.shape[0], _ROWS):
            mine = left.cut(
                slice(here.start + i, min(here.start + i + _ROWS, here.stop)), self.recursion
            )
            rows = slice(i, i + len(mine.unit))
            for j in range(0, products.shape[1], _COLS):
                cols = slice(j, min(j + _COLS, products.shape[1]))
                other = right.cut(slice(there.start + j, there.start + cols.stop), self.recursion)
                tile = {name: array[rows, cols] for name, array in out.items()}
                self._tile(mine, other, products[rows, cols], tile)

    def _tile(self, left: Rows, right: Rows, products: Array, out: dict[str, Array]) -> None:
        from tangency.theory.kernels import fused_compiled as compiled

        kind = np.dtype(self.recursion).type
        nodes = self.plan.nodes
        last = {k: i for i, node in enumerate(nodes) for k in node.inputs}
        states: dict[int, _State] = {}
        for i, node in enumerate(nodes):
            step = node.step
            if isinstance(step, Source):
                state = _State(np.empty(products.shape, kind), np.empty(products.shape, kind))
                close = compiled.begin(products, state.delta, state.tau, kind(0), _NEAR)
                if close and kind is np.float64:
                    compiled.refine(left.unit, right.unit, state.delta, _NEAR)
            elif isinstance(step, Mix):
                state = _State(np.zeros(products.shape, kind), np.zeros(products.shape, kind))
                for k, one, two in zip(node.inputs, left.shares[i], right.shares[i], strict=True):
                    branch = states[k].settled()
                    compiled.mix(*state.settled(), *branch, one, two, kind(0.5))
            else:
                state = states[node.inputs[0]]
                if last[node.inputs[0]] > i:  # someone else wants it unchanged
                    state = _State(*(array.copy() for array in state.settled()))
                if isinstance(step, Affine):
                    if i in left.shares:
                        ends = left.shares[i], right.shares[i]
                        compiled.affine(*state.settled(), *ends, kind(1), kind(0.5))
                    else:
                        state.dense(step.weight_gain / step.weight if step.weight else 0.0)
                elif isinstance(step, Activate):
                    kink = kink_of(step.dual)
                    if kink is None:
                        roots = left.roots, right.roots
                        state = _State(*_general(step, *state.settled(), roots, node.inputs[0], i))
                    else:
                        state.bend(kink)
            states[i] = state
            for k in node.inputs:
                if last[k] == i:
                    states.pop(k, None)
        delta, tau = states[len(nodes) - 1].settled()
        ends = left.roots[-1], right.roots[-1]
        if "nngp" in out:
            compiled.finish(delta, *ends, out["nngp"], kind(1), kind(-1))
        if "ntk" in out:
            compiled.finish(tau, *ends, out["ntk"], kind(0), kind(1))


class _State:
    """A tile at one node, and the homogeneous steps that are still to be taken in one pass."""

    def __init__(self, delta: Array, tau: Array) -> None:
        self.delta, self.tau = delta, tau
        self.due: list[tuple[float, float]] = []

    def dense(self, gain: float) -> None:
        """A dense layer without bias."""
        self.due.append((gain, 0.0))

    def bend(self, kink: float) -> None:
        """An activation, together with the layer before it if that is due as well."""
        gain, before = self.due.pop() if self.due else (0.0, 0.0)
        if before:
            self.due.append((gain, before))
            gain = 0.0
        self.due.append((gain, kink))

    def settled(self) -> tuple[Array, Array]:
        """``delta`` and ``tau`` with nothing left to do."""
        if self.due:
            from tangency.theory.kernels.fused_compiled import chain

            gains, kinks = np.array(self.due, dtype=self.delta.dtype).T.copy()
            chain(self.delta, self.tau, gains, kinks, self.delta.dtype.type(1))
            self.due = []
        return self.delta, self.tau


def _general(
    step: Activate,
    delta: Array,
    tau: Array,
    roots: tuple[tuple[Array, ...], tuple[Array, ...]],
    before: int,
    after: int,
) -> tuple[Array, Array]:
    """Any dual, in float64 NumPy on the tile."""
    wide = [(r[before].astype(np.float64), r[after].astype(np.float64)) for r in roots]
    (old1, new1), (old2, new2) = wide
    scale, far = old1[:, None] * old2, delta.astype(np.float64)
    pair = step.dual.pair(old1[:, None] ** 2, old2**2, scale * (1.0 - far), far)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(scale > 0.0, scale * pair.slope / (new1[:, None] * new2), 0.0)
    return pair.delta.astype(delta.dtype), (tau * rate).astype(delta.dtype)


def _mirror(array: Array, here: slice, diagonal: Array) -> None:
    """Copy the rows of one triangle to the columns of the other."""
    for block in _blocks(here):
        square = array[block, block]
        lower = np.tril_indices(len(square), -1)
        square[lower] = square.T[lower]
        np.fill_diagonal(square, diagonal[block])
        for start in range(block.stop, array.shape[1], _COLS):
            there = slice(start, start + _COLS)
            array[there, block] = array[block, there].T


def _blocks(here: slice) -> Iterator[slice]:
    for start in range(here.start, here.stop, _ROWS):
        yield slice(start, min(start + _ROWS, here.stop))
