r"""Convolutional tangent kernels of any plan on sites, through memory and through registers.

The covariance S and the tangent kernel T of all pairs of sites of a block of pairs of samples lie
in the device's memory as (pairs, sites, sites), or (pairs, sites) where a flattening asks for equal
sites alone. Each layer is one launch of ``kernels/sites.cu``: convolutions of any window, stride,
dilation and padding, poolings, sums, products, norms, and any activation of
:mod:`tangency.gpu.plans`. Runs of 3 x 3 convolutions of stride 1 between them, with piecewise
linear activations, go through registers (``kernels/stages.cu``): see :mod:`.sites_program`.

The launches run on the device; plans, index tables and the quadratures of Hermite series are made
on the host, and one number of each kind a pair comes back to it.

S is float64 on its way through memory, whatever ``dtype`` is: the angle is the square root of a
difference near cos = 1. T, the polynomials of an angle and whole stages are of type ``dtype``. So
float32 kernels are right to about 1e-6, but for stages of two different samples that nearly
coincide (see :mod:`.images`); a sample with itself is exact there too. In float64 such entries are
right to about 1e-8, others to 1e-13; Hermite series of functions whose second derivative jumps
(ELU) are right to 1e-5 for samples that nearly coincide.

References
----------
Arora et al., arXiv 1904.11955; Novak et al., arXiv 1810.05148; Li et al., arXiv 1911.00809.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.gpu.bands import band_tiles, free_memory
from tangency.gpu.dense import KINDS, wanted
from tangency.gpu.engines import Engine, engine_for
from tangency.gpu.errors import PlanError
from tangency.gpu.pairs import TilePairs
from tangency.gpu.sites_launch import Block, Launcher
from tangency.gpu.sites_plan import SiteLayer, SitesPlan
from tangency.gpu.sites_program import Program, make_program
from tangency.gpu.sites_state import Side
from tangency.gpu.sites_tables import prepare_side
from tangency.gpu.sites_walk import walk
from tangency.gpu.sources import real_name

__all__ = ["SiteBatch", "SitesKernel"]

Array = Any  # of NumPy or of CuPy

_MOST = 1 << 20  # pairs of a block
_BYTES = 2.0**32, 2.0**28  # of a block on a device and on the host
_BAND = 256  # samples that are prepared together


class SiteBatch:
    """Samples where the kernel runs; made by :meth:`SitesKernel.batch`."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def __len__(self) -> int:
        return len(self.side.features)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        side = self.side
        arrays = [side.features, *side.stage_roots.values(), *side.tables.values()]
        arrays += [] if side.images is None else [side.images]
        return sum(int(a.nbytes) for a in arrays)


@dataclass(frozen=True)
class SitesKernel:
    """The kernel of a plan on sites on one device.

    Attributes
    ----------
    layers : tuple of SiteLayer
        See :mod:`.sites_plan`.
    sites : int
        Of the input.
    dtype : float32 or float64
        Of the tangent kernel and of stages; the covariance in memory is float64.
    device : {"cpu", "cuda"}, optional
        By default the GPU where there is one.
    memory : float, optional
        Bytes of the states of one block of pairs; by default an eighth of what is free on the
        device, 4 GiB at most: enough that launches are long beside the time they take to begin.
    stages : bool
        Whether runs of 3 x 3 convolutions go through registers.
    """

    layers: tuple[SiteLayer, ...]
    sites: int
    dtype: Any = np.float32
    device: str | None = None
    memory: float | None = None
    stages: bool = True
    engine: Engine = field(init=False, repr=False, compare=False)
    program: Program = field(init=False, repr=False, compare=False)
    _launcher: Launcher = field(init=False, repr=False, compare=False)
    _budget: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        real_name(self.dtype)
        if self.memory is not None and not self.memory > 0.0:
            raise PlanError(f"memory = {self.memory}: a number of bytes")
        plan = SitesPlan(tuple(self.layers), self.sites)
        program = make_program(plan, (len(plan.layers) - 1,), stages=self.stages)
        object.__setattr__(self, "layers", plan.layers)
        object.__setattr__(self, "program", program)
        object.__setattr__(self, "engine", engine_for(self.device))
        object.__setattr__(self, "_launcher", Launcher(plan, self.engine, self.dtype))
        budget = self.memory
        if budget is None:
            xp = self.engine.xp
            budget = _BYTES[1] if xp is np else min(_BYTES[0], free_memory(xp) / 8)
        object.__setattr__(self, "_budget", budget)

    def batch(self, x: Any) -> SiteBatch:
        """Prepare samples ``(n, sites, channels)`` and put them where the kernel runs.

        Raises
        ------
        PlanError
            If they are not finite, or have other sites than the plan.
        """
        x = np.ascontiguousarray(x, dtype=np.float64)
        if x.ndim != 3 or x.shape[1] != self.sites or not x.shape[2] or not np.isfinite(x).all():
            raise PlanError(
                f"samples are a finite (n, {self.sites}, channels) array, got {x.shape}"
            )
        features = self.engine.xp.asarray(x)
        return SiteBatch(prepare_side(self._launcher, self.program, features, self._budget))

    def __call__(
        self, x1: Any, x2: Any = None, *, get: tuple[str, ...] | str = KINDS
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The whole kernel in float64 on the host; one triangle where ``x2`` is None.

        Parameters
        ----------
        x1, x2 : (n1, sites, channels), (n2, sites, channels) arrays
        get : tuple of {"nngp", "ntk"}
        """
        names, second = wanted(get), x1 if x2 is None else x2
        out = {name: np.empty((len(x1), len(second))) for name in names}
        for i in range(0, len(x1), _BAND):
            here = slice(i, min(i + _BAND, len(x1)))
            left = self.batch(x1[here])
            for j in range(i if x2 is None else 0, len(second), _BAND):
                there = slice(j, min(j + _BAND, len(second)))
                same = x2 is None and i == j
                right = None if same else self.batch(second[there])
                for name, values in self.begin(left, right, get=names)().items():
                    out[name][here, there] = values
                    if x2 is None and not same:
                        out[name][there, here] = values.T
        return out

    def diagonal(
        self, x: Any, *, get: tuple[str, ...] | str = KINDS
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The kernel of each sample with itself, ``(n,)``."""
        names, parts = wanted(get), []
        for i in range(0, len(x), _BAND):
            batch = self.batch(x[i : i + _BAND])
            index = np.stack([np.arange(len(batch))] * 2, axis=1)
            parts.append(self._values(batch, batch, index, ntk="ntk" in names)())
        values = np.concatenate([np.zeros((2, 0)), *parts], axis=1)
        return {name: values[KINDS.index(name)] for name in names}

    def begin(
        self,
        left: SiteBatch,
        right: SiteBatch | None = None,
        *,
        get: tuple[str, ...] | str = KINDS,
    ) -> Callable[[], Any]:
        """Begin the kernel of two batches (``None``: of one with itself); what is returned waits.

        It hands over the host's array for one name, a dict of them for a tuple.
        """
        names, two = wanted(get), left if right is None else right
        pairs = TilePairs.of(len(left), len(two), symmetric=right is None)
        wait = self._values(left, two, pairs.index, ntk="ntk" in names)

        def finish() -> Any:
            values = wait()
            out = {name: pairs.tile(values[KINDS.index(name)]) for name in names}
            return out[get] if isinstance(get, str) else out

        return finish

    def tiles(
        self,
        x1: Any,
        x2: Any = None,
        *,
        get: tuple[str, ...] | str = "ntk",
        memory: float | None = None,
    ) -> Callable[..., Any]:
        """A function ``(here, there) -> wait``; see :func:`tangency.gpu.bands.band_tiles`."""
        return band_tiles(self, x1, x2, get=get, memory=memory)

    def _values(
        self, left: SiteBatch, right: SiteBatch, index: np.ndarray[Any, Any], *, ntk: bool
    ) -> Callable[[], np.ndarray[Any, Any]]:
        """NNGP and NTK of the pairs ``index``, places in the two batches: (2, pairs) float64."""
        xp, end = self.engine.xp, len(self.layers) - 1
        size = 8 + (np.dtype(self.dtype).itemsize if ntk else 0)
        step = min(
            _MOST, max(1, int(self._budget / (size * self.program.widest(self._launcher.plan))))
        )
        waits = []
        for i in range(0, len(index), step):
            pairs = xp.asarray(np.ascontiguousarray(index[i : i + step], dtype=np.int32))
            block = Block(self._launcher, left.side, right.side, pairs, ntk)
            state = walk(self.program, block)[end]
            t = xp.zeros_like(state.s) if state.t is None else state.t
            both = xp.concatenate([state.s.T, t.T.astype(np.float64)])
            waits.append(self.engine.fetch(xp.ascontiguousarray(both)))
        return lambda: np.concatenate([np.zeros((2, 0)), *(wait() for wait in waits)], axis=1)
