"""What the layers of a plan on sites need of each sample alone: variances and what follows.

Each sample is carried beside itself, by the same kernels, as far as its variances are asked for:
with pairs of sites before a pooling that a nonlinearity follows, else with equal sites alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.gpu.engines import Engine
from tangency.gpu.families import hermite_rows, slope_variance
from tangency.gpu.plans import Activation, Series
from tangency.gpu.sites_launch import Block, Launcher
from tangency.gpu.sites_plan import SiteNorm, sources_of
from tangency.gpu.sites_program import Program, Stage, make_program
from tangency.gpu.sites_state import Side, State, Table
from tangency.gpu.sites_walk import walk

__all__ = ["prepare_side"]

Array = Any  # of NumPy or of CuPy

_CHUNK = 2048  # variances of one quadrature
_TINY = 2.0**-40  # a variance that stands for 0 where a slope at 0 is meant
_NOTHING = 1e-16  # of the largest coefficient: terms behind are left out


def prepare_side(launcher: Launcher, program: Program, features: Array, memory: float) -> Side:
    """The samples with all tables that a program asks for.

    Parameters
    ----------
    launcher : Launcher
    program : Program
        That of the pairs.
    features : (n, sites, channels) float64 array, where the kernels run
    memory : float
        Bytes of the states of samples with themselves that are held together.
    """
    plan, xp = launcher.plan, launcher.engine.xp
    after: dict[int, list[int]] = {}
    for i, layer in enumerate(plan.layers):
        if isinstance(layer, Activation | Series | SiteNorm) and i in program.full:
            after.setdefault(sources_of(layer)[0], []).append(i)
    side = Side(features, _images(launcher, program, features))
    if not after:
        return side
    own = make_program(plan, tuple(after), fused=False, held=False)
    step = max(1, int(memory / (8 * own.widest(plan))))
    parts: list[dict[int, Table]] = []
    for begin in range(0, len(features), step):
        some = Side(features[begin : begin + step])

        def tables(k: int, state: State, some: Side = some) -> None:
            stride = state.sites + 1 if state.full else 1
            variances = xp.ascontiguousarray(state.s[:, ::stride])
            for i in after.get(k, ()):
                some.tables[i] = _table(plan.layers[i], variances, launcher.engine)

        places = xp.arange(len(some.features), dtype=np.int32)
        pairs = xp.ascontiguousarray(xp.stack([places, places], axis=1))
        walk(own, Block(launcher, some, some, pairs, ntk=False), made=tables)
        parts.append(some.tables)
    for i in sorted({i for layers in after.values() for i in layers}):
        side.tables[i] = _joined([part[i] for part in parts], xp)
    for launch in program.launches:
        if isinstance(launch, Stage):
            roots = [side.tables.pop(i).roots for i in launch.activations]
            stacked = xp.stack(roots, axis=1).astype(launcher.dtype)
            side.stage_roots[launch.result] = xp.ascontiguousarray(stacked)
    return side


def _images(launcher: Launcher, program: Program, features: Array) -> Array | None:
    """(n, channels, sites) for a stage that begins with them."""
    if not any(isinstance(x, Stage) and x.sources == (-1,) for x in program.launches):
        return None
    xp = launcher.engine.xp
    return xp.ascontiguousarray(features.transpose(0, 2, 1).astype(launcher.dtype))


def _table(layer: Any, q: Array, engine: Engine) -> Table:
    """From variances (n, sites) before a layer."""
    xp = engine.xp
    if isinstance(layer, SiteNorm):
        mean = q if layer.groups is None else q @ xp.asarray(layer.groups.T)
        level = mean + layer.eps
        safe = xp.where(level > 0.0, level, 1.0)
        return Table(factors=xp.where(level > 0.0, 1.0 / xp.sqrt(safe), 0.0))
    root = xp.sqrt(xp.maximum(q, 0.0))
    inverse = xp.where(root > 0.0, 1.0 / xp.where(root > 0.0, root, 1.0), 0.0)
    roots = xp.ascontiguousarray(xp.stack([root, inverse], axis=2))
    if isinstance(layer, Activation):
        return Table(roots)
    flat = np.maximum(engine.fetch(q)().ravel(), 0.0)
    return Table(roots, xp.asarray(_rows(layer, flat)))


def _rows(layer: Series, q: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a series needs of variances, (2 + far + terms, n): see :class:`.sites_state.Table`."""
    parts = [hermite_rows(layer, q[i : i + _CHUNK]) for i in range(0, len(q), _CHUNK)]
    rows = np.concatenate([np.zeros((layer.terms, 0)), *parts], axis=1)
    # E phi' = a_1 / sqrt(q); at q = 0 that is the slope there, as far as it is one.
    mean = np.zeros(len(q))
    if layer.terms > 1:
        small = hermite_rows(layer, np.array([_TINY]))[1, 0] / np.sqrt(_TINY)
        mean = np.where(q > 0.0, rows[1] / np.sqrt(np.where(q > 0.0, q, 1.0)), small)
    root = np.sqrt(np.maximum(slope_variance(layer, q, rows), 0.0))
    rows, far = np.split(rows, [layer.terms - len(layer.far)])
    sizes = np.abs(rows).max(axis=1, initial=0.0)
    busy = np.flatnonzero(sizes > _NOTHING * sizes.max())
    terms = int(busy[-1]) + 1 if busy.size else 1
    return np.ascontiguousarray(np.concatenate([mean[None], root[None], far, rows[:terms]]))


def _joined(parts: list[Table], xp: Any) -> Table:
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Array] = {}
    for name in ("roots", "factors"):
        arrays = [getattr(part, name) for part in parts]
        if arrays[0] is not None:
            joined[name] = xp.concatenate(arrays)
    every = [part.rows for part in parts if part.rows is not None]
    if every:
        most = max(len(rows) for rows in every)
        wide = [xp.pad(rows, ((0, most - len(rows)), (0, 0))) for rows in every]
        joined["rows"] = xp.ascontiguousarray(xp.concatenate(wide, axis=1))
    return Table(**joined)
