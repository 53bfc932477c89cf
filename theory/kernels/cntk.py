r"""Convolutional tangent kernels by displacement.

A convolution of stride 1 averages the covariance of sites (p, q) over (p + s, q + s) alone, and an
activation acts on each entry: the entries of one displacement ``q - p`` never meet those of
another. So the covariance of two images, ``P^2`` entries, is carried through all layers one row
displacement at a time, in a slab that fits the cache, and no array of all pairs of sites is formed
but between a pooling and further layers. A final pooling, global or local, and a flattening are
weights ``M^T M`` of pairs of sites.

The covariance is float64 at all times, since the angle is the square root of a difference near
cos = 1; ``dtype`` is that of the tangent kernel and of the polynomials.

References
----------
Arora et al., arXiv 1904.11955; Li et al., arXiv 1911.00809; Novak et al., arXiv 1810.05148.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels.cntk_stages import Stage, cut
from tangency.theory.kernels.kernel import KINDS, Get, Gram, selected, wanted
from tangency.theory.kernels.plan import Affine, Plan, Scale

__all__ = ["FusedConv"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class _Images:
    """A batch, with the standard deviations before each activation of each stage."""

    pixels: Array
    roots: list[Array]


@dataclass(frozen=True, eq=False)
class FusedConv:
    """The kernel of a stride-1 convolutional plan, on the CPU.

    Attributes
    ----------
    plan : Plan
    dtype : dtype
        float32 or float64: of the tangent kernel's recursion and of the result.
    n_jobs : int
        Threads.

    Raises
    ------
    UnsupportedError
        If the plan has a strided, valid or circular convolution, another activation than one that
        is linear on both sides of 0, or something between pooling and output but dense layers.
    """

    plan: Plan
    dtype: Any = np.float32
    n_jobs: int = 1
    _stages: tuple[Stage, ...] = field(init=False, repr=False)
    _tail: tuple[Affine | Scale, ...] = field(init=False, repr=False)
    _sums: tuple[Array, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = cut(self.plan)
        if found is None:
            raise UnsupportedError(
                "the displacement form takes odd stride-1 convolutions with zero padding, ReLU, "
                "leaky ReLU and abs, sums, pooling and flattening, then dense layers; use "
                "infinite_kernel for others"
            )
        if np.dtype(self.dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise InputError(f"dtype {self.dtype}: it is float32 or float64")
        if self.n_jobs < 1:
            raise InputError(f"n_jobs = {self.n_jobs}: a number of threads from 1")
        stages, tail = found
        pools = [sparse.csr_array(_matrix(s)) for s in stages[:-1]]
        object.__setattr__(self, "_stages", stages)
        object.__setattr__(self, "_tail", tail)
        object.__setattr__(self, "_sums", (stages[-1].weights, pools))

    def __call__(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Any:
        """The kernel between two batches, as of any :class:`Kernel`."""
        names = wanted(get)
        left = self._prepare("x1", x1)
        right = left if x2 is None else self._prepare("x2", x2)
        n1, n2 = len(left.pixels), len(right.pixels)
        out = {name: np.empty((n1, n2), self.dtype) for name in names}

        def row(i: int) -> None:
            spaces = self._spaces()
            for j in range(i if x2 is None else 0, n2):
                pair = self._pair(left, i, right, j, spaces)
                for name, array in out.items():
                    array[i, j] = pair[KINDS.index(name)]
                    if x2 is None:
                        array[j, i] = array[i, j]

        self._each(row, range(n1))
        return selected(Gram(out.get("nngp"), out.get("ntk"), x2 is None), get)

    def diagonal(self, x: Any, *, get: Get = KINDS) -> Any:
        """The kernel of each image with itself, ``(n,)``."""
        names, images = wanted(get), self._prepare("x", x)
        values = np.empty((2, len(images.pixels)), self.dtype)

        def one(i: int) -> None:
            values[:, i] = self._pair(images, i, images, i, self._spaces())

        self._each(one, range(len(images.pixels)))
        parts = {name: values[KINDS.index(name)] for name in names}
        return selected(Gram(parts.get("nngp"), parts.get("ntk")), get)

    def _each(self, work: Any, items: Iterable[int]) -> None:
        if self.n_jobs == 1:
            for i in items:
                work(i)
        else:
            with ThreadPoolExecutor(self.n_jobs) as pool:
                list(pool.map(work, items))

    def _prepare(self, name: str, x: Any) -> _Images:
        array = np.asarray(x)
        if array.shape[1:] != tuple(self.plan.input_shape):
            raise InputError(f"{name} is (n, {self.plan.input_shape}), got shape {array.shape}")
        n, grid = len(array), self._stages[0].grid
        pixels = np.asarray(self.plan.extract[0](array), dtype=np.float64)
        pixels = np.ascontiguousarray(pixels.reshape(n, *grid, -1))
        if not np.isfinite(pixels).all():
            raise InputError(f"{name} has a NaN or infinite entry")
        variances = np.einsum("nijc,nijc->nij", pixels, pixels) / pixels.shape[-1]
        images = _Images(pixels, [self._stages[0].deviations(variances)[1]])
        for k, stage in enumerate(self._stages[1:]):
            # A pooled variance asks for the covariances of an image with itself.
            later = np.empty((n, *stage.grid))

            def own(i: int, k: int = k, later: Array = later) -> None:
                empty = np.zeros((0, 0))
                cov, ntk = empty, empty.astype(self.dtype)
                for j in range(k + 1):
                    cov, ntk = self._pool(j, images, i, images, i, cov, ntk, self._space(j))
                later[i] = np.diagonal(cov).reshape(later.shape[1:])

            self._each(own, range(n))
            images.roots.append(stage.deviations(later)[1])
        return images

    def _space(self, k: int) -> tuple[Array, Array]:
        stage = self._stages[k]
        height, width = stage.grid
        size = (width + 2 * stage.pad) * (width + stage.pad) + stage.pad
        shape = (stage.slots, height, size)
        return np.zeros(shape), np.zeros(shape, self.dtype)

    def _spaces(self) -> list[tuple[Array, Array]]:
        return [self._space(k) for k in range(len(self._stages))]

    def _pool(
        self, k: int, one: _Images, i: int, two: _Images, j: int, cov: Array, ntk: Array,
        space: tuple[Array, Array],
    ) -> tuple[Array, Array]:  # fmt: skip
        """All pairs of sites behind stage k and its pooling."""
        sites = self._stages[k].grid[0] * self._stages[k].grid[1]
        full, slope = np.empty((sites, sites)), np.empty((sites, sites), self.dtype)
        self._evolve(k, one, i, two, j, cov, ntk, space, np.zeros((0, 0)), full, slope)
        pool = self._sums[1][k]
        slope = (pool @ (pool @ slope).T).T
        full = (pool @ (pool @ full).T).T
        return np.ascontiguousarray(full), np.ascontiguousarray(slope, dtype=self.dtype)

    def _evolve(
        self, k: int, one: _Images, i: int, two: _Images, j: int, cov: Array, ntk: Array,
        space: tuple[Array, Array], weights: Array, full: Array, slope: Array,
    ) -> tuple[float, float]:  # fmt: skip
        from tangency.theory.kernels.cntk_compiled import evolve

        stage = self._stages[k]
        same = one is two and i == j
        channels = one.pixels.shape[-1] if k == 0 else 0
        grid = (*stage.grid, channels)
        x1 = one.pixels[i] if k == 0 else np.empty(grid)
        x2 = two.pixels[j] if k == 0 else np.empty(grid)
        values: tuple[float, float] = evolve(
            stage.codes, stage.factors, x1, x2, cov, ntk, one.roots[k][i], two.roots[k][j],
            _reach(weights, stage.grid), stage.pad, weights, full, slope, *space,
            np.dtype(self.dtype).type(1), same,
        )  # fmt: skip
        return values

    def _pair(
        self, one: _Images, i: int, two: _Images, j: int, spaces: list[tuple[Array, Array]]
    ) -> tuple[float, float]:
        empty = np.zeros((0, 0))
        cov, ntk = empty, empty.astype(self.dtype)
        final = len(self._stages) - 1
        for k in range(final):
            cov, ntk = self._pool(k, one, i, two, j, cov, ntk, spaces[k])
        none = empty, empty.astype(self.dtype)
        s, t = self._evolve(final, one, i, two, j, cov, ntk, spaces[final], self._sums[0], *none)
        for step in self._tail:
            if isinstance(step, Affine):
                t = step.weight_gain * s + step.bias_gain + step.weight * t
                s = step.weight * s + step.bias
            else:
                s, t = step.square * s, step.square * t
        return s, t


def _matrix(stage: Stage) -> Array:
    assert stage.matrix is not None, "only the last stage ends without a pooling"
    return stage.matrix


def _reach(weights: Array, grid: tuple[int, int]) -> int:
    """The largest row displacement whose pairs of sites are wanted."""
    height, width = grid
    if weights.size <= 1:
        return height - 1
    busy = weights.reshape(height, width, height, width).any(axis=(1, 3))
    rows, cols = np.nonzero(busy)
    return int(np.abs(rows - cols).max(initial=0))
