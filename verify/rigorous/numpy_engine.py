"""The engine of what is called certified: interval steps and sweeps in NumPy float64.

A sweep begins with rows that all samples share and keeps them shared up to the first relaxation;
then samples and rows are taken in blocks, so that no array of coefficients outgrows the cache, and
memory does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Conv, MatMul, Op, Select
from tangency.verify.certificate.directed import require_gradual_underflow
from tangency.verify.rigorous import transpose_layers, transpose_moving, transpose_sums
from tangency.verify.rigorous.backward import Step
from tangency.verify.rigorous.cropping import tiles
from tangency.verify.rigorous.registry import rule_of
from tangency.verify.rigorous.relaxations import planes_of
from tangency.verify.rigorous.schedule import Pair
from tangency.verify.rigorous.sets import InputSet, batch_of
from tangency.verify.rigorous.steps import AffineStep, MatMulStep, PlanesStep
from tangency.verify.rigorous.sweep import Slopes, Sweep
from tangency.verify.rigorous.transpose import Linear, linear_of

__all__ = ["NumpyEngine"]

# The builders enter themselves in the table of transposes when their files are read.
TRANSPOSE_FILES = (transpose_layers, transpose_moving, transpose_sums)

Array = Any

PATCH = 2**8  # rows times samples that begin together at one patch of an image
SHARED = 2**23  # coefficients of a block of rows that all samples share


class NumpyEngine:
    """Bounds of nodes of a lowered network over input sets, proved in real arithmetic.

    Parameters
    ----------
    network : Network
        Lowered; of any dtype, widened to float64 without loss.
    inputs : sequence of InputSet
        One for each input.
    source : Network, optional
        The network before it was lowered; where a node holds the value of one of its nodes, the
        interval rule of that op is intersected with.
    origin : mapping of int to int, optional
        Node of ``source`` by node of ``network``.
    """

    def __init__(
        self,
        network: Network,
        inputs: Sequence[InputSet],
        *,
        source: Network | None = None,
        origin: Mapping[int, int] | None = None,
    ) -> None:
        require_gradual_underflow()
        self.network = network
        self.inputs: Sequence[InputSet] = tuple(inputs)
        self.samples = batch_of(inputs)
        self._source = source
        self._origin = dict(origin or {})
        self._heirs = {old: new for new, old in sorted(self._origin.items(), reverse=True)}
        self._params: dict[tuple[bool, int], dict[str, Array]] = {}
        self._steps: dict[int, tuple[tuple[Pair, ...], Step]] = {}
        self._linear: dict[int, Linear] = {}

    # --- interval steps ------------------------------------------------------------------------

    def interval(self, index: int, known: Mapping[int, Pair]) -> Pair:
        """Bounds ``(N or 1, *shape)`` of a node from those of its inputs."""
        node = self.network.structure.nodes[index]
        found = self._rule(self.network, index, node.inputs, known)
        old = self.before(index, known)
        if old is not None:
            found = found.intersect(old)
        return found.lower, found.upper

    def before(self, index: int, known: Mapping[int, Pair]) -> Interval | None:
        """What the op says that the node's value came from before it was lowered, if another."""
        old = self._origin.get(index)
        if self._source is None or old is None:
            return None
        node, other = self.network.structure.nodes[index], self._source.structure.nodes[old]
        given = tuple(self._heirs.get(j, -1) for j in other.inputs)
        if other.op == node.op or not given or not all(j in known for j in given):
            return None
        return self._rule(self._source, old, given, known)

    def _rule(
        self, network: Network, index: int, given: Sequence[int], known: Mapping[int, Pair]
    ) -> Interval:
        node = network.structure.nodes[index]
        boxes = {j: Interval(*known[j]) for j in given}
        with _named(node.name, node.op), np.errstate(all="ignore"):
            params = self._weights(network, index)
            found: Interval = rule_of(node.op)(node.op, params, *(boxes[j] for j in given))
        return found

    def _weights(self, network: Network, index: int) -> dict[str, Array]:
        key = (network is self.network, index)
        if key not in self._params:
            node = network.structure.nodes[index]
            self._params[key] = {
                p.role: network.weights[p.key].astype(np.float64) for p in node.params
            }
        return self._params[key]

    def weights(self, index: int) -> dict[str, Array]:
        """Parameters of a node in float64, by role."""
        return self._weights(self.network, index)

    def linear(self, index: int) -> Linear:
        """The description of an affine node, made once."""
        if index not in self._linear:
            nodes = self.network.structure.nodes
            node = nodes[index]
            shapes = tuple(nodes[j].shape for j in node.inputs)
            self._linear[index] = linear_of(node.op, self.weights(index), shapes, node.shape)
        return self._linear[index]

    def part(self, samples: slice) -> NumpyEngine:
        """An engine for some samples, which shares what does not depend on them."""
        inputs = [x.take(samples) for x in self.inputs]
        engine = NumpyEngine(self.network, inputs, source=self._source, origin=self._origin)
        engine._params, engine._linear = self._params, self._linear
        return engine

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
        n = prod(self.network.structure.nodes[target].shape)
        count = n if spec is None else spec.shape[1]
        need = None
        if spec is None and rows is not None:
            need = np.zeros((self.samples, n), dtype=bool)
            np.put_along_axis(need, rows, True, axis=1)
        low = np.full((self.samples, count), -np.inf)
        high = np.full((self.samples, count), np.inf) if upper else None
        ids = np.arange(count) if need is None else np.flatnonzero(need.any(axis=0))
        single = any(v.shape[1] > 1 for p in (slopes or {}).values() for v in p)
        if single and need is not None:
            raise InputError("slopes of single rows go with a spec, not with rows")
        path = self.network.structure.ancestors([target])
        width = max(prod(self.network.structure.nodes[i].shape) for i in path)
        size = count if single else max(1, SHARED // max(width, 1))
        with np.errstate(all="ignore"):
            for own in self._groups(target, path, ids, size, patches=spec is None and not single):
                job = Sweep(self, path, known, slopes or {}, upper, width, count)
                job.run(target, own, None if spec is None else spec[:, own], need, low, high)
        if rows is not None and spec is None:
            low = np.take_along_axis(low, rows, axis=1)
            high = None if high is None else np.take_along_axis(high, rows, axis=1)
        return low, high

    def _groups(
        self, target: int, path: Sequence[int], ids: Array, size: int, *, patches: bool
    ) -> Iterator[Array]:
        """Rows that begin a sweep together: of a convolution, those of one patch."""
        nodes = self.network.structure.nodes
        shape, groups = nodes[target].shape, [ids]
        if patches and len(shape) > 1 and any(isinstance(nodes[i].op, Conv) for i in path):
            groups = tiles(shape, ids, max(1, PATCH // self.samples))
        for group in groups:
            for start in range(0, len(group), size):
                yield group[start : start + size]

    def slopes(self, index: int, known: Mapping[int, Pair]) -> tuple[Array, ...]:
        """Default slopes ``(N or 1, 1, *shape)`` of a nonlinear node, as :meth:`sweep` takes them.

        With them a sweep gives what it gives without slopes.
        """
        node = self.network.structure.nodes[index]
        boxes = [Interval(*known[j]) for j in node.inputs]
        planes = planes_of(node.op, self._weights(self.network, index), boxes)
        first = 2 if isinstance(node.op, Select) else 0  # what is compared has no slopes
        return (*planes.below[first:], *planes.above[first:])

    def step(self, index: int, known: Mapping[int, Pair], chosen: tuple[Array, ...] | None) -> Step:
        """The way back through a node; kept as long as the bounds before it are the same."""
        node = self.network.structure.nodes[index]
        pairs = tuple(known[j] for j in node.inputs)
        if chosen is None and index in self._steps:
            old, step = self._steps[index]
            if all(a is b for a, b in zip(old, pairs, strict=True)):
                return step
        sizes = tuple(np.maximum(np.abs(a), np.abs(b)) for a, b in pairs)
        with _named(node.name, node.op), np.errstate(all="ignore"):
            step = self._step(index, pairs, sizes, chosen)
        if chosen is None:
            self._steps[index] = (pairs, step)
        return step

    def _step(
        self,
        index: int,
        pairs: tuple[Pair, ...],
        sizes: tuple[Array, ...],
        slopes: tuple[Array, ...] | None,
    ) -> Step:
        nodes = self.network.structure.nodes
        node, params = nodes[index], self._weights(self.network, index)
        if node.op.affine:
            return AffineStep.of(self.linear(index), node.inputs, sizes, node.shape)
        boxes = [Interval(*pair) for pair in pairs]
        if isinstance(node.op, MatMul):
            return MatMulStep.of(boxes, (node.inputs[0], node.inputs[1]), (sizes[0], sizes[1]))
        planes = planes_of(node.op, params, boxes, slopes)
        return PlanesStep.of(planes, node.inputs, sizes, node.shape)


class _named:
    """Puts the name of the layer before an error's message."""

    def __init__(self, name: str, op: Op) -> None:
        self.name, self.op = name, op

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, UnsupportedError):
            raise UnsupportedError(f"layer {self.name!r}: {error}") from None
        if isinstance(error, InputError):
            raise InputError(f"layer {self.name!r} ({self.op.kind}): {error}") from None
