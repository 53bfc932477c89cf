"""Weights that hold the same entries of a parameter as others do: which entry stands where.

A matrix that is used as it is and transposed ("tied") gives two weights. Derivatives by the
parameter are sums over both, entry by entry, and rules lay weights out each in its own way. So the
model is written once more with numbers in place of the parameters' values: what stands in its
weights then says where each entry went.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tangency.models.builder import Builder
from tangency.models.gains import Gains
from tangency.models.importers.jaxpr.functions import Function
from tangency.models.network import Network
from tangency.models.structure import Param, Structure

__all__ = ["with_ties"]

Write = Callable[[Function], tuple[Network, Builder]]
Array = np.ndarray[Any, Any]


def with_ties(network: Network, builder: Builder, function: Function, write: Write) -> Network:
    """The network with entries and gains of tied weights, where they can be known."""
    open_ = {p.key for n in network.structure.nodes for p in n.params if p.gain is None}
    if not any(builder.held(key) for key in open_):
        return network
    numbers, _ = write(_numbered(function, builder.gains, network.dtype))
    if _graph(numbers.structure) != _graph(network.structure):  # another thing was recognised
        return network
    found = {
        key: _place(numbers.weights[key], builder.held(key)) for key in open_ if builder.held(key)
    }

    def placed(p: Param) -> Param:
        place = found.get(p.key)
        return p if place is None else replace(p, gain=place[0], entries=place[1])

    nodes = tuple(
        replace(n, params=tuple(placed(p) for p in n.params)) for n in network.structure.nodes
    )
    structure = replace(network.structure, nodes=nodes)
    return Network(structure, dict(network.weights), source=network.source)


def _numbered(function: Function, gains: Gains, dtype: str) -> Function:
    """The function with the number of each entry, from 1, in place of its value."""
    leaves = [
        replace(leaf, array=(gains.entries(leaf.key, np.shape(leaf.array)) + 1).astype(dtype))
        if leaf.trainable
        else leaf
        for leaf in function.leaves
    ]
    return replace(function, leaves=tuple(leaves))


def _graph(structure: Structure) -> list[Any]:
    """All but what is known of the weights' descent."""
    return [
        (n.op, n.inputs, n.shape, [(p.role, p.key, p.shape, p.trainable) for p in n.params])
        for n in structure.nodes
    ]


def _place(
    written: Array, notes: list[tuple[Array, float]]
) -> tuple[float, tuple[int, ...]] | None:
    """Gain, and offset and strides of the entries, of a weight written in numbers."""
    for entries, gain in notes:
        values = written.astype(np.float64) / gain - 1.0
        numbers = np.rint(values)
        # One product and its operands are rounded; from where they cannot be told apart on, none.
        room = 0.0 if abs(gain) == 1.0 else 4.0 * np.finfo(written.dtype).eps
        off = np.abs(values - numbers)
        top = 1.0 / np.finfo(written.dtype).eps
        if (off > room * np.abs(numbers)).any() or off.max() > 0.25 or numbers.max() >= top:
            continue
        if not np.array_equal(np.sort(numbers, axis=None), np.sort(entries, axis=None)):
            continue
        offset = int(numbers.flat[0])
        ends = [
            numbers[tuple(int(i == k) for i in range(numbers.ndim))]
            for k in range(numbers.ndim)
            if numbers.shape[k] > 1
        ]
        steps = iter(int(end) - offset for end in ends)
        strides = tuple(next(steps) if size > 1 else 0 for size in numbers.shape)
        place = (offset, *strides)
        if np.array_equal(Param("", "", written.shape, entries=place).places(), numbers):
            return gain, place
    return None
