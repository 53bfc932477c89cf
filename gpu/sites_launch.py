"""Launches of the kernels on sites: a task filled with addresses, and the state that it makes.

Tasks are filled on the host; ``kernels/sites.cu`` and ``kernels/stages.cu`` run where the engine
runs them, and states and tables stay there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.engines import Engine
from tangency.gpu.images_plan import constants
from tangency.gpu.plans import Activation, Series
from tangency.gpu.sites_plan import SitesPlan
from tangency.gpu.sites_program import Stage
from tangency.gpu.sites_state import Side, State
from tangency.gpu.sites_task import SitesTask, StageTask
from tangency.gpu.sources import sites_source, stage_source

__all__ = ["Block", "Launcher", "family_of"]

Array = Any  # of NumPy or of CuPy

_WARP = 5  # a warp an entry, as a power of 2
_LONG = 64  # weights of a row from which a warp shares it
_FAMILIES = 8  # of kernels/sites.cu


def family_of(layer: Activation | Series) -> tuple[int, float, float, float]:
    """The number of a family in ``kernels/sites.cu``, and its three parameters there."""
    if isinstance(layer, Series):
        near, far, *_ = (*layer.far, 0, 0)
        return 7, float(layer.parity), float(near), float(far)
    a, b, c, *_ = (*layer.parameters, 0.0, 0.0, 0.0)
    if layer.kink is not None:
        return 0, (a * a + b * b) / 2, layer.kink, 0.0
    if layer.family == "rectified":
        return (1 if c == 0 else 2), a, b, 0.0
    if layer.family == "sine":
        return 5, a, b, math.cos(2.0 * c)
    return {"erf": 3, "gelu": 4, "exp": 6}[layer.family], a, b, c


class Launcher:
    """What all blocks of pairs of one plan share: the program and the tables of its geometry.

    Parameters
    ----------
    plan : SitesPlan
    engine : Engine
    dtype : float32 or float64
        Of the tangent kernel; in stages, of the covariance too.
    """

    def __init__(self, plan: SitesPlan, engine: Engine, dtype: Any) -> None:
        self.plan, self.engine, self.dtype = plan, engine, np.dtype(dtype)
        # A device spends registers on every family; for the host one program serves all plans.
        used = {family_of(x)[0] for x in plan.layers if isinstance(x, Activation | Series)}
        families = range(_FAMILIES) if engine.xp is np else used
        self.source = sites_source(dtype, sum(1 << f for f in families))
        self._kept: dict[tuple[int, str], tuple[Array, ...]] = {}

    def kept(self, layer: int, what: str, make: Callable[[], tuple[Any, ...]]) -> tuple[Array, ...]:
        """Tables of a layer where the kernels run, made once."""
        key = layer, what
        if key not in self._kept:
            self._kept[key] = tuple(self.engine.xp.asarray(np.ascontiguousarray(a)) for a in make())
        return self._kept[key]

    def rows(
        self, layer: int, what: str, make: Callable[[], list[tuple[Any, Any]]]
    ) -> tuple[Array, ...]:
        """A sparse matrix, made of places and weights a row: begins of rows, places, weights."""

        def arrays() -> tuple[Any, ...]:
            places, weights = zip(*make(), strict=True)
            starts = np.cumsum([0, *(len(k) for k in places)])
            return (
                starts.astype(np.int32),
                np.concatenate(places).astype(np.int32),
                np.concatenate(weights).astype(np.float64),
            )

        return self.kept(layer, what, arrays)


@dataclass(frozen=True, eq=False)
class Block:
    """A block of pairs of samples.

    Attributes
    ----------
    launcher : Launcher
    left, right : Side
    pairs : (pairs, 2) int32 array, where the kernels run
    ntk : bool
    """

    launcher: Launcher
    left: Side
    right: Side
    pairs: Array
    ntk: bool

    def launch(
        self, name: str, inputs: list[State], sites: int, *, full: bool,
        entries: int | None = None, source: bool = False, **options: Any,
    ) -> State:  # fmt: skip
        """Make a state by a kernel of ``kernels/sites.cu``; arrays go by their addresses."""
        engine = self.launcher.engine
        at, xp, full = engine.pointer, engine.xp, full and sites > 1
        if entries is None:
            entries = sites * sites if full else sites
        s = xp.empty((len(self.pairs), entries))
        t = xp.empty(s.shape, self.launcher.dtype) if self.ntk and not source else None
        task = SitesTask(
            s_out=at(s), t_out=at(t), pairs=at(self.pairs), count=len(self.pairs) * entries,
            entries_out=entries, sites_out=sites, full_out=full,
            symmetric=self.left is self.right, keep=1.0, family=-1,
        )  # fmt: skip
        for side, state in zip(("one", "two"), inputs, strict=False):
            setattr(task, f"s_{side}", at(state.s))
            setattr(task, f"t_{side}", at(state.t) if self.ntk else None)
            setattr(task, f"entries_{side}", state.s.shape[1])
            setattr(task, f"full_{side}", state.full)
            task.sites_in = state.sites
        for key, value in options.items():
            setattr(task, key, at(value) if isinstance(value, xp.ndarray) else value)
        threads = task.count << task.lane_bits
        engine.launch(self.launcher.source, f"sites_{name}", task, threads, 256)
        return State(s, t, sites, full)

    def linear(
        self, state: State, sites: int, rows: tuple[Array, ...], shape: tuple[int, int, int], *,
        full: bool, **tail: Any,
    ) -> State:  # fmt: skip
        """``out[outer, r, inner] = sum_k weight[k] in[outer, place[k], inner]``.

        ``shape`` is (from, to, inner): how many there are of the axis before and after, and
        entries behind it.
        """
        starts, places, shares = rows
        source, to, inner = shape
        options = {
            "entries": state.s.shape[1] // source * to,
            "from": source, "to": to, "inner": inner,
            "lane_bits": _WARP if inner == 1 and len(places) >= _LONG * to else 0,
            "starts": starts, "places": places, "shares": shares,
        }  # fmt: skip
        return self.launch("linear", [state], sites, full=full, **options, **tail)

    def activation(self, i: int | None) -> dict[str, Any]:
        """What a launch needs to apply an activation before it stores."""
        if i is None:
            return {}
        layer = self.launcher.plan.layers[i]
        assert isinstance(layer, Activation | Series)
        family, a, b, c = family_of(layer)
        one, two = self.left.tables[i], self.right.tables[i]
        far = len(layer.far) if isinstance(layer, Series) else 0
        options = {
            "family": family, "a": a, "b": b, "c": c,
            "roots_one": one.roots, "roots_two": two.roots,
        }  # fmt: skip
        if one.rows is not None and two.rows is not None:
            options |= {
                "rows_one": one.rows, "rows_two": two.rows,
                "stride_one": one.rows.shape[1], "stride_two": two.rows.shape[1],
                "terms": min(len(one.rows), len(two.rows)) - 2 - far, "far": far,
            }  # fmt: skip
        return options

    def stage(self, stage: Stage, state: State | None) -> State:
        """A run of layers in registers, from a state or from the images."""
        engine, dtype, xp = self.launcher.engine, self.launcher.dtype, self.launcher.engine.xp
        height, width = stage.grid
        sites, count = height * width, len(self.pairs)
        share, rows = constants(stage.images, dtype)
        (layers,) = self.launcher.kept(stage.result, "layers", lambda: (rows,))
        channels = self.left.features.shape[2]
        s = t = sums = None
        if stage.pool is None:
            s = xp.empty((count, sites * sites))
            t = xp.empty(s.shape, dtype) if self.ntk else None
        else:
            sums = xp.empty((count, sites, 2))
        source = stage_source(
            height, width, dtype, from_memory=state is not None, to_memory=sums is None
        )
        at = engine.pointer
        task = StageTask(
            images_one=at(self.left.images), images_two=at(self.right.images),
            s_in=at(state.s) if state else None, t_in=at(state.t) if state else None,
            roots_one=at(self.left.stage_roots[stage.result]),
            roots_two=at(self.right.stage_roots[stage.result]),
            layers=at(layers), pairs=at(self.pairs), s_out=at(s), t_out=at(t), sums=at(sums),
            count=count, first_share=share / (1 if state else channels),
            channels=channels, depth=len(rows), symmetric=self.left is self.right,
        )  # fmt: skip
        engine.launch(source, "stage", task, 32 * count * sites, 128)
        if sums is None:
            return State(s, t, sites, full=True)
        mean = sums.sum(axis=1) / float(sites * sites)
        t = xp.ascontiguousarray(mean[:, 1:].astype(dtype)) if self.ntk else None
        return State(xp.ascontiguousarray(mean[:, :1]), t, 1, full=False)
