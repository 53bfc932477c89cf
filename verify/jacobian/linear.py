r"""Linear bounds of the Jacobian: CROWN on the backward pass.

Three enclosures are intersected: the interval walk back from interval bounds; the same on the
lowered network from the bounds that CROWN gives its nodes; and CROWN's bounds of the network that
:mod:`.graph` writes. A product :math:`c \delta` of a cotangent and a free slope
:math:`\delta \in [s, t]` lies between :math:`\min(s c, t c)` and :math:`\max(s c, t c)`, of
which the first is concave and the second convex in c: their chords are the best lines.

Where a slope is the derivative at a point of the box, the bounds hold for all points inside it:
so the box is widened by one float on every side, and they hold on its border too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Select
from tangency.verify.jacobian.bounds import jacobian_intervals
from tangency.verify.jacobian.choices import select_shares
from tangency.verify.jacobian.graph import JacobianGraph, jacobian_graph
from tangency.verify.jacobian.pointwise import slopes_of
from tangency.verify.jacobian.walk import live_nodes, place_of, pull_back
from tangency.verify.rigorous.lowering import lowered
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import Known, Pair, intermediate
from tangency.verify.rigorous.sets import InputSet

__all__ = ["jacobian_linear"]

Array = Any


def jacobian_linear(
    network: Network, inputs: Sequence[Interval], rows: Array
) -> tuple[Interval, ...]:
    """Enclose ``rows @ J`` for all elements of Clarke's Jacobian on a bounded box.

    Parameters
    ----------
    inputs : sequence of Interval, (N or 1, *shape)
        Boxes.
    rows : (N or 1, S, n_out) array
        Linear maps of the flattened output.

    Returns
    -------
    tuple of Interval, (N, S, *input_shape)
    """
    plain = jacobian_intervals(network, inputs, rows)
    samples, count = plain[0].shape[:2]
    low = lowered(network)
    sets = [InputSet(*_wider(x, samples)) for x in inputs]
    engine = NumpyEngine(low.network, sets, source=network, origin=low.origin)
    known = intermediate(engine, low.network.structure.outputs, method="crown")
    bounds = {i: Interval(*pair) for i, pair in known.items()}
    seed = Interval(rows.reshape((*rows.shape[:2], *network.output_shape)))
    best = [
        a.intersect(b) for a, b in zip(plain, pull_back(low.network, bounds, seed), strict=True)
    ]
    # Rows never meet: as samples of their own they do not pay for one another.
    whole = np.broadcast_to(rows, (samples, *rows.shape[1:])).reshape((samples * count, 1, -1))
    linear = _bounded(
        low.network,
        [InputSet(_each(x.lower, count), _each(x.upper, count)) for x in sets],
        whole,
        {i: (_each(a, count), _each(b, count)) for i, (a, b) in known.items()},
    )
    if not linear:
        return tuple(best)
    return tuple(
        x.intersect(Interval(y.lower.reshape(x.shape), y.upper.reshape(x.shape)))
        for x, y in zip(best, linear, strict=True)
    )


def _each(array: Array, count: int) -> Array:
    """Every sample as often as there are rows; what all samples share stays as it is."""
    return array if array.shape[0] == 1 else np.repeat(array, count, axis=0)


def _wider(x: Interval, samples: int) -> tuple[Array, Array]:
    shape = (samples, *x.shape[1:])
    low, high = np.nextafter(x.lower, -np.inf), np.nextafter(x.upper, np.inf)
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def _bounded(
    network: Network, sets: Sequence[InputSet], rows: Array, known: Known
) -> list[Interval]:
    """CROWN's bounds of the outputs of the backward pass; empty where a slope is unbounded."""
    graph = jacobian_graph(network, rows)
    s = graph.network.structure
    given = dict(zip(s.inputs, sets, strict=False))
    if graph.seeded is not None:
        point = rows.reshape((rows.shape[0], *s.nodes[graph.seeded].shape))
        given[graph.seeded] = InputSet(point, point)
    bounds = {i: Interval(*pair) for i, pair in known.items()}
    live = live_nodes(network)
    for slope, (index, k) in graph.slopes.items():
        place = place_of(network, index, bounds, live)
        if isinstance(place.op, Select):
            box = select_shares(place)[k - 2]
        else:
            box = slopes_of(place.op, place.params, place.xs[0])
        if not (np.isfinite(box.lower).all() and np.isfinite(box.upper).all()):
            return []  # across a jump nothing straight bounds the slope
        shape = (box.shape[0], *s.nodes[slope].shape)
        given[slope] = InputSet(
            np.broadcast_to(box.lower, shape), np.broadcast_to(box.upper, shape)
        )
    engine = _Resumed(graph.network, [given[i] for i in s.inputs], known)
    chosen = _Chords(graph)
    found = intermediate(
        engine, s.outputs, method="crown", slopes=chosen.slopes, on_node=chosen.on_node
    )
    results = []
    for end in s.outputs:
        low, high = engine.sweep(end, found, slopes=chosen.slopes)
        shape = (low.shape[0], *s.nodes[end].shape)
        swept = Interval(low.reshape(shape), high.reshape(shape))
        results.append(swept.intersect(Interval(*found[end])))
    return results


class _Resumed(NumpyEngine):
    """An engine that knows the first nodes already."""

    def __init__(self, network: Network, inputs: Sequence[InputSet], known: Known) -> None:
        super().__init__(network, inputs)
        self._found = dict(known)

    def interval(self, index: int, known: Mapping[int, Pair]) -> Pair:
        """What is known, or an interval step."""
        return self._found[index] if index in self._found else super().interval(index, known)

    def sweep(self, target: int, known: Mapping[int, Pair], **options: Any) -> Any:
        """What is known, or a sweep: see :class:`.Engine`."""
        if target not in self._found:
            return super().sweep(target, known, **options)
        ends = [v.reshape((v.shape[0], -1)) for v in self._found[target]]
        ends = [np.broadcast_to(v, (self.samples, v.shape[1])) for v in ends]
        rows = options.get("rows")
        if rows is not None:
            ends = [np.take_along_axis(v, rows, axis=1) for v in ends]
        return ends[0], ends[1]


class _Chords:
    """Slopes of the products of cotangents and free slopes, as soon as both are bounded."""

    def __init__(self, graph: JacobianGraph) -> None:
        self.slopes: dict[int, tuple[Array, ...]] = {}
        self._pairs: dict[int, Pair] = {}
        self._ready: dict[int, list[tuple[int, int, int]]] = {}
        for product, (c, slope) in graph.products.items():
            self._ready.setdefault(max(c, slope), []).append((product, c, slope))

    def on_node(self, index: int, pair: Pair) -> None:
        """Take note of a node's bounds."""
        self._pairs[index] = pair
        for product, c, slope in self._ready.get(index, ()):
            self.slopes[product] = _chords(self._pairs[c], self._pairs[slope])


def _chords(cotangent: Pair, slope: Pair) -> tuple[Array, ...]:
    """Slopes of the best planes: below for c and delta, above for c and delta."""
    low, high = cotangent
    ones = (1,) * (low.ndim - slope[0].ndim)
    s, t = (v.reshape((v.shape[0], *ones, *v.shape[1:])) for v in slope)
    shape = np.broadcast_shapes(low.shape, s.shape)
    low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
    width = high - low
    safe = np.where(width > 0, width, 1.0)
    below = (np.minimum(s * high, t * high) - np.minimum(s * low, t * low)) / safe
    above = (np.maximum(s * high, t * high) - np.maximum(s * low, t * low)) / safe
    middle = np.broadcast_to(0.5 * (s + t), shape)
    below, above = (np.where(width > 0, v, middle)[:, None] for v in (below, above))
    none = np.zeros_like(below)
    return below, none, above, none
