r"""Fully connected kernels: float64 products, then all layers in one pass over each tile.

``delta = 1 - cos`` comes from products of unit vectors in float64 (a float32 product would cost the
Gram matrix of smooth data its positive eigenvalues); the recursion on it is in float32 or float64.
Of one batch with itself one triangle is computed, its mirror written from memory that a block
shares, and the diagonal taken from the samples alone, exactly.

References
----------
Jacot, Gabriel, Hongler, arXiv 1806.07572; Cho and Saul, NIPS 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.gpu.bands import band_tiles
from tangency.gpu.engines import Engine, engine_for
from tangency.gpu.errors import PlanError
from tangency.gpu.plans import Layer, checked
from tangency.gpu.rows import Rows, prepare
from tangency.gpu.sources import dense_source, real_name
from tangency.gpu.task import DenseTask

__all__ = ["KINDS", "DenseBatch", "DenseKernel"]

Array = Any  # of NumPy or of CuPy
KINDS = ("nngp", "ntk")

_NEAR = 1e-4  # below this, delta comes from differences where the recursion is in float64


@dataclass(frozen=True, eq=False)
class DenseBatch:
    """Samples where the kernel runs; made by :meth:`DenseKernel.batch`."""

    rows: Rows

    def __len__(self) -> int:
        return len(self.rows.ends)


@dataclass(frozen=True)
class DenseKernel:
    """The kernel of a dense plan on one device.

    Attributes
    ----------
    plan : tuple of layers
    dtype : float32 or float64
        Of the recursion and of the result.
    device : {"cpu", "cuda"}, optional
        By default the GPU where there is one.
    tile : int
        Rows and columns of one product.
    """

    plan: tuple[Layer, ...]
    dtype: Any = np.float32
    device: str | None = None
    tile: int = 8192
    engine: Engine = field(init=False, repr=False, compare=False)
    source: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        real_name(self.dtype)
        if self.tile < 1:
            raise PlanError(f"tile = {self.tile}: a number of rows from 1")
        object.__setattr__(self, "plan", checked(self.plan))
        object.__setattr__(self, "source", dense_source(self.plan, self.dtype))
        object.__setattr__(self, "engine", engine_for(self.device))

    def batch(self, x: Any) -> DenseBatch:
        """Prepare samples ``(n, d)`` and put them where the kernel runs."""
        rows = prepare(self.plan, x, self.dtype)
        xp = self.engine.xp
        parts = (
            xp.asarray(a) for a in (rows.unit, rows.shares, rows.wide, rows.ends, rows.tangents)
        )
        return DenseBatch(Rows(*parts))

    def __call__(
        self, x1: Any, x2: Any = None, *, get: tuple[str, ...] | str = KINDS
    ) -> dict[str, Array]:
        """The whole kernel, on the device.

        Parameters
        ----------
        x1, x2 : (n1, d), (n2, d) arrays
            ``x2=None`` means x1.
        get : tuple of {"nngp", "ntk"}

        Returns
        -------
        dict of (n1, n2) arrays, of NumPy or of CuPy
        """
        left = self.batch(x1)
        right = left if x2 is None else self.batch(x2)
        xp, shape = self.engine.xp, (len(left), len(right))
        out = {name: xp.empty(shape, self.dtype) for name in wanted(get)}
        for i in range(0, shape[0], self.tile):
            here = slice(i, min(i + self.tile, shape[0]))
            for j in range(i if x2 is None else 0, shape[1], self.tile):
                there = slice(j, min(j + self.tile, shape[1]))
                tile = {name: array[here, there] for name, array in out.items()}
                mirror = {name: array[there, here] for name, array in out.items()}
                self.tile_into(left, here, right, there, tile, mirror if x2 is None else None)
        return out

    def tile_into(
        self,
        left: DenseBatch,
        here: slice,
        right: DenseBatch,
        there: slice,
        out: dict[str, Array],
        mirror: dict[str, Array] | None = None,
    ) -> None:
        """One tile into views of arrays, and into ``mirror`` its transpose (one batch alone)."""
        rows, columns = here.stop - here.start, there.stop - there.start
        one, two = left.rows, right.rows
        products = one.unit[here] @ two.unit[there].T
        exact = np.dtype(self.dtype) == np.float64
        at = self.engine.pointer
        strides = {_lead(array) for array in out.values()}
        other = {_lead(array) for array in (mirror or {}).values()}
        if len(strides) > 1 or len(other) > 1:
            raise PlanError("the arrays of one tile have different strides")
        symmetric = mirror is not None
        reflected = mirror or {}
        # Slots are rows of one array: a view of some samples begins further along each.
        task = DenseTask(
            at(products), rows, columns, columns,
            at(one.shares[:, here]), at(two.shares[:, there]),
            at(one.wide[:, here]), at(two.wide[:, there]), len(left), len(right),
            at(one.unit[here]) if exact else None, at(two.unit[there]) if exact else None,
            one.unit.shape[1], _NEAR,
            at(one.ends[here]), at(two.ends[there]), at(one.tangents[here]) if symmetric else None,
            here.start, there.start,
            at(out.get("nngp")), at(out.get("ntk")), min(strides, default=columns),
            at(reflected.get("nngp")), at(reflected.get("ntk")), min(other, default=rows),
        )  # fmt: skip
        self.engine.dense(self.source, task, (rows, columns))

    def begin(
        self,
        left: DenseBatch,
        right: DenseBatch | None = None,
        *,
        get: tuple[str, ...] | str = KINDS,
        host: bool = True,
    ) -> Callable[[], Any]:
        """Begin the kernel of two batches (``None``: of one with itself); what is returned waits.

        It hands over an array for one name, a dict of them for a tuple: copied to the host, or as
        the device has them, where later work is in order anyhow.
        """
        two = left if right is None else right
        here, there = slice(0, len(left)), slice(0, len(two))
        out = {
            name: self.engine.xp.empty((len(left), len(two)), self.dtype) for name in wanted(get)
        }
        # On the diagonal of one batch a tile is its own mirror.
        self.tile_into(left, here, two, there, out, out if right is None else None)
        if not host:
            return lambda: out[get] if isinstance(get, str) else out
        waits = {name: self.engine.fetch(array) for name, array in out.items()}
        if isinstance(get, str):
            return waits[get]
        return lambda: {name: wait() for name, wait in waits.items()}

    def tiles(
        self,
        x1: Any,
        x2: Any = None,
        *,
        get: tuple[str, ...] | str = "ntk",
        memory: float | None = None,
        host: bool = True,
    ) -> Callable[..., Any]:
        """A function ``(here, there) -> wait``; see :func:`tangency.gpu.bands.band_tiles`."""
        return band_tiles(self, x1, x2, get=get, memory=memory, host=host)


def wanted(get: tuple[str, ...] | str) -> tuple[str, ...]:
    """The names asked for; PlanError for another."""
    names = (get,) if isinstance(get, str) else tuple(get)
    if not names or any(name not in KINDS for name in names):
        raise PlanError(f"get = {get!r}: it is 'nngp', 'ntk' or a tuple of both")
    return names


def _lead(array: Array) -> int:
    """Entries from one row to the next; a single row has any stride."""
    if array.shape[0] > 1 and array.shape[1] > 1 and array.strides[1] != array.itemsize:
        raise PlanError("rows of a tile are contiguous")
    return int(array.strides[0] // array.itemsize)
