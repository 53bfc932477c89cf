"""Which nodes are bounded how, and in which order: one schedule for every engine.

An engine knows two steps: an interval step, from the bounds of a node's inputs to its own, and a
sweep, which carries linear functions of a node back to the inputs of the network. The schedule
decides which steps are taken:

- *crown-ibp*: interval steps alone; the caller then sweeps from the output.
- *crown*: the inputs of nonlinear ops are swept as well, where an interval step is not exact.

As the default, each node is bounded by an interval step from the tightened bounds before it, only
the entries are swept that this leaves undecided, and both bounds are intersected. With ``plain``
all entries are swept and what the sweep says is kept, as the literature has it; only where an
activation is not defined everywhere the interval step still has its word.

References
----------
Zhang et al., arXiv 1811.00866 (CROWN); Zhang et al., arXiv 1906.06316 (CROWN-IBP).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    BatchNorm,
    Concat,
    Constant,
    Input,
    Pad,
    Prelu,
    Reshape,
    Scale,
    Slice,
    Transpose,
)
from tangency.verify.rigorous.sets import InputSet, batch_of

__all__ = ["Engine", "Known", "Pair", "intermediate", "restricted"]

Array = Any
Pair = tuple[Array, Array]
Known = dict[int, Pair]

#: Affine ops that act on each entry alone and repeat none.
ENTRYWISE = (BatchNorm, Concat, Constant, Pad, Reshape, Scale, Slice, Transpose)


class Engine(Protocol):
    """What bounds nodes: in rigorous NumPy, or in JAX.

    Attributes
    ----------
    network : Network
        Lowered: affine ops, Activate, Prelu, Product, MatMul and Select alone.
    inputs : sequence of InputSet
        One for each input.
    """

    network: Network
    inputs: Sequence[InputSet]

    def interval(self, index: int, known: Mapping[int, Pair]) -> Pair:
        """Bounds ``(N or 1, *shape)`` of a node from those of its inputs."""

    def sweep(
        self,
        target: int,
        known: Mapping[int, Pair],
        *,
        rows: Array | None = None,
        spec: Array | None = None,
        slopes: Mapping[int, tuple[Array, ...]] | None = None,
        upper: bool = True,
    ) -> tuple[Array, Array | None]:
        """Bounds of linear functions of a node, by a backward pass to the inputs.

        Parameters
        ----------
        target : int
            The node.
        known : mapping of int to (array, array)
            Bounds of every node met on the way.
        rows : (N, R) array of int, optional
            Entries of the flattened node, for each sample; one may come twice.
        spec : (N or 1, S, n) array, optional
            Linear maps of the flattened node in their place.
        slopes : mapping of int to tuple of arrays, optional
            Slopes of the relaxation of some nodes, ``(N or 1, S or 1, *shape)``.
        upper : bool
            Whether upper bounds are asked for.

        Returns
        -------
        lower, upper : (N, R), (N, S) or (N, n) arrays
            ``upper`` is None where it was not asked for.
        """


def intermediate(
    engine: Engine,
    targets: Iterable[int],
    *,
    method: str,
    plain: bool = False,
    slopes: Mapping[int, tuple[Array, ...]] | None = None,
    on_node: Callable[[int, Pair], None] | None = None,
) -> Known:
    """Bounds of every node that the targets depend on, the targets included.

    Parameters
    ----------
    engine : Engine
        Takes the steps.
    targets : iterable of int
        Nodes whose bounds the caller goes on with; they get interval steps.
    method : {"crown", "crown-ibp"}
        Whether inputs of nonlinear ops are swept.
    plain : bool
        As the literature has it: see above.
    slopes : mapping of int to tuple of arrays, optional
        Slopes that sweeps use where they are given; shared by all rows.
    on_node : callable (index, (lower, upper)), optional
        Told each node's bounds as soon as they are final.
    """
    network = engine.network
    needed = network.structure.ancestors(targets)
    given = dict(zip(network.structure.inputs, engine.inputs, strict=True))
    loose = _loose(network, needed, engine.inputs) if method == "crown" else set()
    asked = _consumers(network, needed) if method == "crown" else {}
    samples, known = batch_of(engine.inputs), Known()
    for i in needed:
        if i in given:
            pair = (given[i].lower, given[i].upper)
        else:
            pair = engine.interval(i, known)
            if i in loose and asked.get(i):
                known[i] = pair
                pair = _swept(engine, i, known, asked[i], samples, plain, slopes)
        known[i] = pair
        if on_node is not None:
            on_node(i, pair)
    return known


def _swept(
    engine: Engine,
    i: int,
    known: Known,
    consumers: Sequence[Any],
    samples: int,
    plain: bool,
    slopes: Mapping[int, tuple[Array, ...]] | None,
) -> Pair:
    shape = engine.network.structure.nodes[i].shape
    low, high = (np.broadcast_to(end, (samples, *shape)) for end in known[i])
    low, high = (np.array(end).reshape((samples, -1)) for end in (low, high))
    if plain:
        new_low, new_high = _both(engine.sweep(i, known, slopes=slopes))
        if not any(restricted(op) for op in consumers):
            return new_low.reshape(samples, *shape), new_high.reshape(samples, *shape)
        rows = None
    else:
        rows = _open_rows(low, high, consumers)
        if rows is None:
            return known[i]
        new_low, new_high = _both(engine.sweep(i, known, rows=rows, slopes=slopes))
    if rows is None:
        low, high = np.maximum(low, new_low), np.minimum(high, new_high)
    else:
        best = np.maximum(np.take_along_axis(low, rows, 1), new_low)
        np.put_along_axis(low, rows, best, 1)
        best = np.minimum(np.take_along_axis(high, rows, 1), new_high)
        np.put_along_axis(high, rows, best, 1)
    return low.reshape(samples, *shape), high.reshape(samples, *shape)


def _both(pair: tuple[Array, Array | None]) -> tuple[Array, Array]:
    return np.asarray(pair[0]), np.asarray(pair[1])


def _open_rows(low: Array, high: Array, consumers: Sequence[Any]) -> Array | None:
    """Entries worth a sweep, ``(N, R)``; short lists end with repetitions of their last entry."""
    undecided = high > low
    if all(_kinked(op) for op in consumers):
        undecided &= (low < 0) & (high > 0)
    counts = undecided.sum(axis=1)
    most = int(counts.max(initial=0))
    if most == 0:
        return None
    order = np.argsort(~undecided, axis=1, kind="stable")[:, :most]
    last = np.maximum(counts - 1, 0)[:, None]
    place = np.minimum(np.arange(most)[None, :], last)
    return np.take_along_axis(order, place, axis=1)


def _kinked(op: Any) -> bool:
    """Straight on both sides of zero: decided by the sign of the input."""
    if isinstance(op, Prelu):
        return True
    return isinstance(op, Activate) and op.activation.homogeneous == 1


def restricted(op: Any) -> bool:
    """Whether an activation is not defined everywhere."""
    if not isinstance(op, Activate):
        return False
    record = op.activation
    return bool(record.poles) or bool(np.isfinite(record.domain).any())


def _consumers(network: Network, needed: Sequence[int]) -> dict[int, list[Any]]:
    """The nonlinear ops that take each node."""
    found: dict[int, list[Any]] = {}
    for i in needed:
        node = network.structure.nodes[i]
        if not node.op.affine:
            for j in node.inputs:
                found.setdefault(j, []).append(node.op)
    return found


def _loose(network: Network, needed: Sequence[int], inputs: Sequence[InputSet]) -> set[int]:
    """Nodes at which a sweep may beat an interval step.

    The box of one mixing (or repetition) of the inputs is exact; behind a second one, behind a
    nonlinear op, where values meet that both depend on the inputs, or where an input is a ball, it
    is not. Constants are exact (level -1).
    """
    balls = any(x.ball is not None for x in inputs)
    level: dict[int, int] = {}
    for i in needed:
        node = network.structure.nodes[i]
        before = [level[j] for j in node.inputs if level[j] >= 0]
        if isinstance(node.op, Input):
            level[i] = int(balls)
        elif not before:
            level[i] = -1
        elif not node.op.affine or len(before) > 1:
            level[i] = 2
        else:
            level[i] = before[0] + (not isinstance(node.op, ENTRYWISE))
    return {i for i, mixed in level.items() if mixed >= 2}
