"""Compiled sweeps: a backward pass over a list of tasks, some samples and some rows in each.

One compilation serves all networks of a structure, whatever their weights, and all batches of a
bucket: the number of tasks is an argument of the compiled loop, so that batches and row lists are
padded in memory but nothing is computed for the padding. A task is as large as keeps the
coefficients in cache; memory does not grow with batch times rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from tangency.models.network import Network
from tangency.models.structure import Structure
from tangency.verify.bounds.search.planes import Planes
from tangency.verify.bounds.search.walk import Rows, Set, back, begin, least, shared_start

__all__ = ["Plan", "Tasks", "bucket", "compiled", "plan", "tasks_of"]

Array = Any

ROWS = 256  # rows of coefficients in a task, both sides counted: enough for a matrix product
CACHE = 2**18  # coefficients of a task at the widest node
SHARED = 2**25  # coefficients that samples may share before the tasks begin


@dataclass(frozen=True)
class Plan:
    """What a sweep is compiled for.

    Attributes
    ----------
    target : int
        The node.
    samples, rows : int
        In each task.
    upper : bool
        Whether upper bounds are asked for.
    form : {"shared", "unit", "spec"}
        Rows begin as entries walked back for all samples together, as unit rows, or as a
        specification.
    """

    target: int
    samples: int
    rows: int
    upper: bool
    form: str


@dataclass(frozen=True, eq=False)
class Tasks:
    """``samples`` (T, n) and ``rows`` (T, n, r), the first ``count`` of them to be done."""

    samples: Array
    rows: Array
    count: int


def bucket(samples: int) -> int:
    """Size to which a batch is padded: 1, 4, 16, 64, ..."""
    size = 1
    while size < samples:
        size *= 4
    return size


def plan(network: Network, target: int, count: int, *, upper: bool, spec: bool) -> Plan:
    """How ``count`` rows a sample are cut into tasks."""
    nodes = network.structure.nodes
    path = network.structure.ancestors([target])
    width = max(prod(nodes[i].shape) for i in path)
    sides = 2 if upper else 1
    most = max(1, min(ROWS, CACHE // max(width, 1)) // sides)
    rows = count if spec else (32 if count <= 32 else prod(nodes[target].shape))
    rows = min(rows, most)
    size = prod(nodes[target].shape)
    form = "spec" if spec else "shared" if size * width <= SHARED else "unit"
    return Plan(target, max(1, most // rows), rows, upper, form)


def tasks_of(plan: Plan, lists: Sequence[Array], samples: int, most: int) -> Tasks:
    """Tasks for the rows of each sample; ``most`` rows a sample, ``samples`` of them, at most."""
    groups: dict[int, list[tuple[int, Array]]] = {}
    for i, rows in enumerate(lists):
        for start in range(0, len(rows), plan.rows):
            groups.setdefault(start, []).append((i, rows[start : start + plan.rows]))
    pieces = [p for start in sorted(groups) for p in groups[start]]
    per, room = -(-most // plan.rows), plan.samples
    total = -(-samples * per // room) + per
    ids = np.zeros((total, room), np.int32)
    picks = np.zeros((total, room, plan.rows), np.int32)
    for k, (i, rows) in enumerate(pieces):
        task, seat = divmod(k, room)
        ids[task, seat] = i
        picks[task, seat, : len(rows)] = rows
        picks[task, seat, len(rows) :] = rows[-1]
    return Tasks(ids, picks, -(-len(pieces) // room))


@lru_cache(maxsize=512)
def compiled(structure: Structure, order: tuple[int, ...], plan: Plan) -> Any:
    """The compiled sweep ``(weights, planes, sets, spec, samples, rows, count) -> (T, 2n, r)``."""
    import jax

    def run(
        weights: Mapping[str, Array],
        planes: Mapping[int, Planes],
        sets: Mapping[int, Set],
        spec: Array | None,
        samples: Array,
        rows: Array,
        count: Array,
    ) -> Array:
        shared, place = None, 0
        if plan.form == "shared":
            shared, place = shared_start(structure, order, plan.target, weights)

        def task(t: Array, result: Array) -> Array:
            ids, picks = samples[t], rows[t]
            start = _start(structure, plan, shared, spec, ids, picks)
            if plan.upper:
                start = _both_sides(start)
            columns = None if spec is None else spec.shape[1]
            mine = {i: _picked(p, ids, picks, columns, plan.upper) for i, p in planes.items()}
            inputs = {
                i: Set(*(v if v is None or v.shape[0] == 1 else v[ids] for v in s))
                for i, s in sets.items()
            }
            done, _ = back(structure, order, weights, start, mine.__getitem__, place)
            return result.at[t].set(least(done, inputs))

        import jax.numpy as jnp

        width = plan.rows * (2 if plan.upper else 1)
        result = jnp.zeros((samples.shape[0], plan.samples, width), structure.dtype)
        return jax.lax.fori_loop(0, count, task, result)

    return jax.jit(jax.default_matmul_precision("highest")(run))


def _start(
    structure: Structure, plan: Plan, shared: Rows | None, spec: Array | None, ids: Any, picks: Any
) -> Rows:
    import jax
    import jax.numpy as jnp

    shape = structure.nodes[plan.target].shape
    if shared is not None:
        coef = {i: _gathered(a[0], picks) for i, a in shared.coef.items()}
        return Rows(coef, shared.value[0][picks])
    if spec is not None:
        own = spec[0][picks] if spec.shape[0] == 1 else spec[ids[:, None], picks]
    else:
        own = jax.nn.one_hot(picks, prod(shape), dtype=structure.dtype)
    return begin(plan.target, jnp.reshape(own, (*own.shape[:2], *shape)))


def _gathered(rows: Array, picks: Array) -> Array:
    """Rows by index; whole rows are copied, and the copies are not computed twice by a fusion."""
    import jax

    found = rows.reshape((rows.shape[0], -1)).at[picks.reshape(-1)].get(mode="clip")
    found = jax.lax.optimization_barrier(found)  # type: ignore[no-untyped-call]
    return found.reshape((*picks.shape, *rows.shape[1:]))


def _both_sides(rows: Rows) -> Rows:
    """The rows and, behind them, minus the rows."""
    import jax.numpy as jnp

    coef = {i: jnp.concatenate([a, -a], axis=1) for i, a in rows.coef.items()}
    return Rows(coef, jnp.concatenate([rows.value, -rows.value], axis=1))


def _picked(planes: Planes, ids: Any, picks: Any, columns: int | None, upper: bool) -> Planes:
    """The planes of a task: those of its samples and, where they differ, of its rows.

    Slopes of as many rows as the specification has serve both sides; twice as many are those of
    the lower and then of the upper bounds.
    """
    import jax
    import jax.numpy as jnp

    def pick(v: Array) -> Array:
        if v.shape[1] == 1:
            return v if v.shape[0] == 1 else v[ids]
        own = picks
        if upper:
            other = picks if v.shape[1] == columns else picks + (columns or 0)
            own = jnp.concatenate([picks, other], axis=1)
        return v[0][own] if v.shape[0] == 1 else v[ids[:, None], own]

    chosen: Planes = jax.tree.map(pick, planes)
    return chosen
