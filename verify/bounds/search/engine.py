"""The engine of fast estimates: interval steps and sweeps in JAX, in the network's own dtype.

The same protocol as the rigorous engine's, so that one schedule drives both. What it says is not
proved: floating point is not rounded outwards here. Its slopes are, by the rigorous walk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from tangency.models.activations.ranges import check_boxes
from tangency.models.errors import InputError
from tangency.models.network import Network, precision
from tangency.models.ops import Activate, Op, jax_backend, numpy_backend
from tangency.verify.bounds.search import intervals
from tangency.verify.bounds.search.planes import Planes, planes, starting_slopes
from tangency.verify.bounds.search.sweeps import bucket, compiled, plan, tasks_of
from tangency.verify.bounds.search.walk import Set
from tangency.verify.rigorous.schedule import Pair
from tangency.verify.rigorous.sets import InputSet, batch_of

__all__ = ["JaxEngine"]

Array = Any
Slopes = Mapping[int, tuple[Array, ...]]


class JaxEngine:
    """Bounds of nodes of a lowered network over input sets, in JAX.

    Parameters
    ----------
    network : Network
        Lowered; computed with in its own dtype.
    inputs : sequence of InputSet
        One for each input.

    Attributes
    ----------
    samples : int
        Number of samples, or one.
    room : int
        Size to which a batch is padded.
    weights : dict of str to array
        On the device.
    sets : dict of int to Set
        The input sets by node.
    """

    def __init__(self, network: Network, inputs: Sequence[InputSet]) -> None:
        import jax

        self.network = network
        self.inputs: Sequence[InputSet] = tuple(inputs)
        self.samples = batch_of(inputs)
        self.dtype = np.dtype(network.dtype)
        self.room = bucket(self.samples)
        with precision(network.dtype):
            self.weights = {key: jax.device_put(w) for key, w in network.weights.items()}
            places = network.structure.inputs
            self.sets = {i: self._set(s) for i, s in zip(places, self.inputs, strict=True)}
        self._planes: dict[int, tuple[tuple[Pair, ...], Planes]] = {}

    def _set(self, given: InputSet) -> Set:
        low, high = self.padded(given.lower), self.padded(given.upper)
        if given.ball is None:
            return Set(low, high)
        center, radius = self.padded(given.ball.center), self.padded(given.ball.radius)
        return Set(low, high, center, radius, np.full(1, given.ball.norm))

    def padded(self, v: Array) -> Array:
        """In our dtype, with the batch filled up to its bucket by copies of the first sample."""
        v = np.asarray(v, self.dtype)
        if v.shape[0] in (1, self.room):
            return v
        fill = np.broadcast_to(v[:1], (self.room - v.shape[0], *v.shape[1:]))
        return np.concatenate([v, fill])

    def padded_pair(self, pair: Pair) -> Pair:
        """Both ends of a box, see :meth:`padded`."""
        return self.padded(pair[0]), self.padded(pair[1])

    # --- interval steps ------------------------------------------------------------------------

    def interval(self, index: int, known: Mapping[int, Pair]) -> Pair:
        """Bounds ``(N or 1, *shape)`` of a node from those of its inputs."""
        node = self.network.structure.nodes[index]
        own = [tuple(np.asarray(v, self.dtype) for v in known[j]) for j in node.inputs]
        pairs = [(low, np.maximum(low, high)) for low, high in own]
        self._check(index, pairs)
        if intervals.cheap(node.op):
            weights = {p.role: self.network.weights[p.key] for p in node.params}
            return intervals.step(numpy_backend(), node.op, weights, pairs)
        with precision(self.network.dtype):
            params = {p.role: self.weights[p.key] for p in node.params}
            batch = max(low.shape[0] for low, _ in pairs)
            filled = [self.padded_pair(pair) for pair in pairs]
            low, high = _interval(node.op)(params, filled)
            return np.asarray(low)[:batch], np.asarray(high)[:batch]

    def _check(self, index: int, pairs: Sequence[Pair]) -> None:
        """Refuse what an activation is not defined on, as the rigorous rules do."""
        node = self.network.structure.nodes[index]
        if not isinstance(node.op, Activate):
            return
        record = node.op.activation
        if record.poles or np.isfinite(record.domain).any():
            try:
                check_boxes(record, *(np.asarray(v, np.float64) for v in pairs[0]))
            except InputError as error:
                raise InputError(f"layer {node.name!r} ({node.op.kind}): {error}") from None

    # --- sweeps --------------------------------------------------------------------------------

    def sweep(
        self,
        target: int,
        known: Mapping[int, Pair],
        *,
        rows: Array | None = None,
        spec: Array | None = None,
        slopes: Slopes | None = None,
        upper: bool = True,
    ) -> tuple[Array, Array | None]:
        """Bounds of linear functions of a node, by a backward pass: see :class:`Engine`."""
        structure = self.network.structure
        size = prod(structure.nodes[target].shape)
        count = size if spec is None else spec.shape[1]
        lists = self._lists(rows, count if rows is None else rows.shape[1], count)
        order = tuple(reversed(self.network.structure.ancestors([target])))
        most = max(map(len, lists))
        how = plan(self.network, target, most, upper=upper, spec=spec is not None)
        tasks = tasks_of(how, lists, self.room, count)
        with precision(self.network.dtype):
            found = self.planes(target, known, slopes)
            maps = None if spec is None else self.padded(spec)
            sets = {i: s for i, s in self.sets.items() if i in order}
            result = compiled(structure, order, how)(
                self.weights, found, sets, maps, tasks.samples, tasks.rows, tasks.count
            )
            result = np.asarray(result)[: tasks.count]
        low = np.full((self.samples, count), -np.inf, self.dtype)
        high = np.full((self.samples, count), np.inf, self.dtype) if upper else None
        used, picks = tasks.samples[: tasks.count, :, None], tasks.rows[: tasks.count]
        low[used, picks] = result[..., : how.rows]
        if high is not None:
            high[used, picks] = -result[..., how.rows :]
        if rows is not None and spec is None:
            low = np.take_along_axis(low, rows, axis=1)
            high = None if high is None else np.take_along_axis(high, rows, axis=1)
        return low, high

    def _lists(self, rows: Array | None, width: int, count: int) -> list[Array]:
        if rows is None:
            return [np.arange(count)] * self.samples
        return [np.unique(row) for row in np.broadcast_to(rows, (self.samples, width))]

    def planes(self, target: int, known: Mapping[int, Pair], slopes: Slopes | None = None) -> Any:
        """Planes of all nonlinear nodes before a target, by node."""
        nodes = self.network.structure.nodes
        found = {}
        for i in self.network.structure.ancestors([target]):
            if not nodes[i].op.affine and nodes[i].inputs:
                found[i] = self._planes_of(i, known, (slopes or {}).get(i))
        return found

    def _planes_of(
        self, index: int, known: Mapping[int, Pair], chosen: tuple[Array, ...] | None
    ) -> Planes:
        node = self.network.structure.nodes[index]
        pairs = tuple(known[j] for j in node.inputs)
        if chosen is None and index in self._planes:
            old, held = self._planes[index]
            if all(a is b for a, b in zip(old, pairs, strict=True)):
                return held
        params = {p.role: self.weights[p.key] for p in node.params}
        filled = [self.padded_pair(pair) for pair in pairs]
        made: Planes
        if chosen is None:
            made = _default(node.op)(params, filled)
            self._planes[index] = (pairs, made)
            return made
        made = _given(node.op)(params, filled, tuple(self.padded(v) for v in chosen))
        return made


@lru_cache(maxsize=1024)
def _interval(op: Op) -> Any:
    import jax

    return jax.jit(lambda params, pairs: intervals.step(jax_backend(), op, params, pairs))


@lru_cache(maxsize=1024)
def _default(op: Op) -> Any:
    import jax

    return jax.jit(
        lambda params, pairs: planes(op, params, pairs, starting_slopes(op, params, pairs))
    )


@lru_cache(maxsize=1024)
def _given(op: Op) -> Any:
    import jax

    return jax.jit(lambda params, pairs, slopes: planes(op, params, pairs, slopes))
