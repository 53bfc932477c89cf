"""alpha-CROWN: sweeps whose slopes are optimised, row by row.

Mode *last*: the intermediate bounds stay as they are, the slopes of the last sweep are free.
Slopes are returned, not only bounds: the rigorous walk proves the offsets that belong to them.

References
----------
Xu et al., "Fast and Complete: Enabling Complete Verification with Massively Parallel Incomplete
Verifiers", arXiv 2011.13824.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from tangency.models.network import precision
from tangency.models.structure import Structure
from tangency.verify.bounds.search.descent import ascend, shares, slopes_at
from tangency.verify.bounds.search.engine import JaxEngine
from tangency.verify.bounds.search.freedom import freedoms
from tangency.verify.bounds.search.planes import planes, starting_slopes
from tangency.verify.bounds.search.sweeps import CACHE, ROWS
from tangency.verify.bounds.search.walk import Set, back, begin, least
from tangency.verify.rigorous.schedule import Pair

__all__ = ["Optimised", "optimised"]

Array = Any

RATE = 0.5  # of Adam's first step, as a share of each slope's range


@dataclass(frozen=True, eq=False)
class Optimised:
    """What a search for slopes has found.

    Attributes
    ----------
    lower : (N, S) array
        Lower bounds, not proved.
    upper : (N, S) array or None
        Upper bounds, where they were asked for.
    slopes : dict of int to tuple of arrays
        By node ``(N, S or 1, *shape)``; with upper bounds ``(N, 2 S or 1, *shape)``, those of the
        lower bounds first. As :meth:`Engine.sweep` takes them.
    """

    lower: Array
    upper: Array | None
    slopes: dict[int, tuple[Array, ...]]


def optimised(
    engine: JaxEngine,
    target: int,
    known: Mapping[int, Pair],
    *,
    spec: Array | None = None,
    upper: bool = False,
    steps: int = 20,
    rate: float | None = None,
) -> Optimised:
    """Bounds of linear functions of a node with slopes of their own, at fixed known bounds.

    Parameters
    ----------
    engine : JaxEngine
        Holds the network and the input sets.
    target : int
        The node.
    known : mapping of int to (array, array)
        Bounds of every node before the target.
    spec : (N or 1, S, n) array, optional
        Linear maps of the flattened node; all its entries if it is None.
    upper : bool
        Whether upper bounds are asked for.
    steps : int
        Steps of Adam.
    rate : float, optional
        Of Adam's first step, as a share of each slope's range; it falls by 2 % a step.
    """
    structure = engine.network.structure
    nodes = structure.nodes
    size = prod(nodes[target].shape)
    maps = np.eye(size)[None] if spec is None else np.asarray(spec)
    if upper:
        maps = np.concatenate([maps, -maps], axis=1)
    rows = maps.shape[1]
    pace = RATE if rate is None else rate
    path = structure.ancestors([target])
    width = sum(prod(nodes[i].shape) for i in path)
    room = max(1, min(ROWS, CACHE // width) // rows)
    # Tasks are spread over the samples in order; the last one may repeat a sample.
    count = -(-engine.samples // room)
    ids = np.arange(-(-engine.room // room) * room).clip(max=engine.samples - 1)
    ids = ids.reshape(-1, room).astype(np.int32)
    with precision(engine.network.dtype):
        boxes = {j: engine.padded_pair(known[j]) for j in _read(structure, path)}
        sets = {i: s for i, s in engine.sets.items() if i in path}
        run = _compiled(structure, tuple(reversed(path)), target, rows)
        values, found = run(
            engine.weights, boxes, sets, engine.padded(maps), ids, count, steps, pace
        )
        done = np.asarray(values)[:count].reshape((-1, rows))[: engine.samples]
        slopes = {
            i: tuple(
                np.asarray(v)[:count].reshape((-1, *v.shape[2:]))[: engine.samples] for v in own
            )
            for i, own in found.items()
        }
    if not upper:
        return Optimised(done, None, slopes)
    half = rows // 2
    return Optimised(done[:, :half], -done[:, half:], slopes)


def _read(structure: Structure, path: list[int]) -> list[int]:
    """Nodes whose boxes the nonlinear ops of a path need."""
    ops = [structure.nodes[i] for i in path if not structure.nodes[i].op.affine]
    return sorted({j for node in ops for j in node.inputs})


@lru_cache(maxsize=128)
def _compiled(structure: Structure, order: tuple[int, ...], target: int, rows: int) -> Any:
    import jax
    import jax.numpy as jnp

    nodes = structure.nodes
    bent = [i for i in order if not nodes[i].op.affine and nodes[i].inputs]

    def run(
        weights: Mapping[str, Array],
        boxes: Mapping[int, Pair],
        sets: Mapping[int, Set],
        spec: Array,
        ids: Array,
        count: Array,
        steps: Array,
        rate: Array,
    ) -> Any:
        params = {i: {p.role: weights[p.key] for p in nodes[i].params} for i in bent}

        def task(own: Array) -> Any:
            def cut(v: Any) -> Any:
                return v if v is None or v.shape[0] == 1 else v[own]

            mine = {j: (cut(low), cut(high)) for j, (low, high) in boxes.items()}
            inputs = {i: Set(*map(cut, s)) for i, s in sets.items()}
            pairs = {i: [mine[j] for j in nodes[i].inputs] for i in bent}
            start = {i: starting_slopes(nodes[i].op, params[i], pairs[i]) for i in bent}
            free = {i: freedoms(nodes[i].op, params[i], pairs[i], start[i]) for i in bent}
            maps = cut(spec)
            full = jnp.broadcast_to(maps, (own.shape[0], *maps.shape[1:]))
            coef = full.reshape((*full.shape[:2], *nodes[target].shape))

            def value(share: Any) -> Array:
                slopes = slopes_at(share, start, free)
                found = {i: planes(nodes[i].op, params[i], pairs[i], slopes[i]) for i in bent}
                done, _ = back(structure, order, weights, begin(target, coef), found.__getitem__)
                return least(done, inputs)

            first = jax.tree.map(
                lambda v: jnp.broadcast_to(v, (own.shape[0], *v.shape[1:])),
                shares(start, free, rows),
            )
            best, kept = ascend(value, first, steps, rate)
            found = slopes_at(kept, start, free)
            batch = own.shape[0]
            return best, {
                i: tuple(jnp.broadcast_to(v, (batch, *v.shape[1:])) for v in s)
                for i, s in found.items()
                if s
            }

        shapes = jax.eval_shape(task, ids[0])
        results = jax.tree.map(lambda s: jnp.zeros((ids.shape[0], *s.shape), s.dtype), shapes)

        def body(t: Array, held: Any) -> Any:
            return jax.tree.map(lambda all_, one: all_.at[t].set(one), held, task(ids[t]))

        return jax.lax.fori_loop(0, count, body, results)

    return jax.jit(jax.default_matmul_precision("highest")(run))
