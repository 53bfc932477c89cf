r"""Linear bounds carried forwards: every node between two affine functions of the inputs.

For all inputs x of the set, entry by entry,

.. math:: L \cdot (x, 1) - e \le z \le U \cdot (x, 1) + e

in real arithmetic. L and U have one column for each input entry and one for the constant, so that
the cost is that of evaluating the network on as many samples as it has input entries: good for
networks of few inputs and many neurons. An affine op takes :math:`W^+ L + W^- U`, a nonlinear one
does the same with the slopes of its planes; e grows by :math:`|W| e` and by what was rounded,
:math:`g |W| s` with :math:`s \ge |L| \cdot (|x|, 1)`.

References
----------
Xu et al., "Automatic perturbation analysis for scalable certified robustness and beyond",
arXiv 2002.12920, the forward mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Constant, Input, MatMul, Shape
from tangency.verify.rigorous.enclosure import UNDERFLOW, relative_error
from tangency.verify.rigorous.lines import Lines, Reach
from tangency.verify.rigorous.relaxations import planes_of
from tangency.verify.rigorous.schedule import Known, restricted
from tangency.verify.rigorous.sets import InputSet
from tangency.verify.rigorous.signed import Signed
from tangency.verify.rigorous.transpose import Linear

__all__ = ["Forward"]

Array = Any


class Forward:
    """Lines of nodes of a lowered network.

    Parameters
    ----------
    engine : NumpyEngine
        Takes the interval steps, and knows the affine ops.
    plain : bool
        Bounds of affine nodes by the lines alone; else they are intersected with interval steps.
    """

    def __init__(self, engine: Any, *, plain: bool = False) -> None:
        self.engine, self.plain = engine, plain
        self.nodes = engine.network.structure.nodes
        self.sets: Sequence[InputSet] = engine.inputs
        self.samples: int = engine.samples
        self.sizes = [prod(x.shape) for x in self.sets]
        self.columns = sum(self.sizes) + 1
        ends = [np.broadcast_to(x.interval.magnitude, (self.samples, *x.shape)) for x in self.sets]
        flat = [*(v.reshape((self.samples, -1)) for v in ends), np.ones((self.samples, 1))]
        self.reach = Reach(np.concatenate(flat, axis=1))

    def run(self, targets: Iterable[int]) -> tuple[Known, dict[int, Lines]]:
        """Bounds of all nodes that the targets depend on, and the lines of the targets."""
        wanted = set(targets)
        needed = self.engine.network.structure.ancestors(wanted)
        last_use = {j: i for i in needed for j in self.nodes[i].inputs}
        self._guarded = _guarded(self.nodes, needed)
        known, live, kept = Known(), dict[int, Lines](), dict[int, Lines]()
        with np.errstate(all="ignore"):
            for i in needed:
                live[i] = self._lines(i, live, known)
                known[i] = self._bounds(i, live[i], known)
                if i in wanted:
                    kept[i] = live[i]
                for j in self.nodes[i].inputs:
                    if last_use[j] == i:
                        live.pop(j, None)
        return known, kept

    def _bounds(self, i: int, lines: Lines, known: Known) -> tuple[Array, Array]:
        op = self.nodes[i].op
        if isinstance(op, Input):
            own = self.sets[self.engine.network.structure.inputs.index(i)]
            full = (self.samples, *own.shape)
            return np.broadcast_to(own.lower, full), np.broadcast_to(own.upper, full)
        if isinstance(op, Constant):
            pair: tuple[Array, Array] = self.engine.interval(i, known)
            return pair
        low, high = self.ends(lines)
        if self.plain and op.affine and i not in self._guarded:
            return low, high
        step = self.engine.interval(i, known)
        return np.maximum(low, step[0]), np.minimum(high, step[1])

    def ends(self, lines: Lines) -> tuple[Array, Array]:
        """Bounds ``(N, *shape)`` of a node by its lines."""
        return self._least(lines.low, lines.error), -self._least(-lines.high, lines.error)

    def _least(self, coef: Array, error: Array) -> Array:
        shape = error.shape[1:]
        rows = np.moveaxis(coef.reshape((*coef.shape[:2], -1)), 1, 2)  # (N, n, D)
        value = rows[..., -1]
        cost = error.reshape((len(error), -1)) + np.abs(value) * 2.0**-51
        start = 0
        for x, size in zip(self.sets, self.sizes, strict=True):
            part = rows[..., start : start + size].reshape((*rows.shape[:2], *x.shape))
            more, slip = x.least(part)
            value = value + more
            cost = cost + slip + np.abs(value) * 2.0**-51
            start += size
        found = np.nextafter(value - cost * (1.0 + 2.0**-20), -np.inf)
        result: Array = np.where(np.isfinite(found), found, -np.inf)
        return result.reshape((len(error), *shape))

    def mapped(
        self, lines: Lines, spec: Array, weight: Array | None = None, bias: Array | None = None
    ) -> tuple[Array, Array]:
        """Bounds ``(N, S)`` of ``spec z``, or of ``spec (weight z + bias)``, z flattened.

        Parameters
        ----------
        spec : (N or 1, S, n) array
        weight, bias : arrays, optional
            Of a last dense layer, multiplied with the specification first.
        """
        flat = (*lines.low.shape[:2], -1)
        low, high = (v.reshape(flat).swapaxes(1, 2) for v in (lines.low, lines.high))
        n = low.shape[1]
        size = self.reach.size(lines).reshape((-1, n, 1))
        error = lines.error.reshape((-1, n, 1))
        with np.errstate(all="ignore"):
            matrix, slack = spec, np.zeros_like(spec)
            shift = shift_error = np.zeros((1, spec.shape[1]))
            if weight is not None:
                g = relative_error(weight.shape[0])
                matrix = spec @ weight
                slack = g * (np.abs(spec) @ np.abs(weight)) + UNDERFLOW
                if bias is not None:
                    shift, shift_error = spec @ bias, g * (np.abs(spec) @ np.abs(bias))
            plus, minus = np.maximum(matrix, 0.0), np.minimum(matrix, 0.0)
            g = relative_error(2 * n + 2)
            cost = np.abs(matrix) @ (error + g * size) + slack @ (size + error)
            cost = cost[..., 0] + shift_error + self.reach.spill[:, None]
            ends = [plus @ low + minus @ high, plus @ high + minus @ low]
            for end in ends:
                end[..., -1] += shift
                cost = cost + 2.0**-51 * (np.abs(end[..., -1]) + np.abs(shift))
            first, second = (end.swapaxes(1, 2) for end in ends)
            return self.ends(Lines(first, second, cost))

    def _lines(self, i: int, live: Mapping[int, Lines], known: Known) -> Lines:
        node = self.nodes[i]
        n, shape = self.samples, node.shape
        if isinstance(node.op, Input):
            place = self.engine.network.structure.inputs.index(i)
            coef = np.zeros((n, self.columns, prod(shape)))
            start = sum(self.sizes[:place])
            entries = np.arange(prod(shape))
            coef[:, start + entries, entries] = 1.0
            coef = coef.reshape((n, self.columns, *shape))
            return Lines(coef, coef, np.zeros((n, *shape)))
        given = [live[j] for j in node.inputs]
        if isinstance(node.op, MatMul):
            boxes = [Interval(*known[j]) for j in node.inputs]
            return self.reach.through_product(boxes, given)
        if not node.op.affine:
            params = self.engine.weights(i)
            boxes = [Interval(*known[j]) for j in node.inputs]
            return self.reach.through_planes(planes_of(node.op, params, boxes), given, shape)
        return self._affine(i, given, shape)

    def _affine(self, i: int, given: list[Lines], shape: Shape) -> Lines:
        op, params = self.nodes[i].op, self.engine.weights(i)
        linear: Linear = self.engine.linear(i)
        n, width = self.samples, self.columns
        if not given:
            coef = np.zeros((n, width, *shape))
            coef[:, -1] = linear.shift
            return Lines(coef, coef, np.zeros((n, *shape)))
        forward = Signed(op, params, linear)
        lows = [x.low.reshape((n * width, *x.low.shape[2:])) for x in given]
        highs = [x.high.reshape((n * width, *x.high.shape[2:])) for x in given]
        low, high = (v.reshape((n, width, *shape)) for v in forward.both(lows, highs))
        sizes = [self.reach.size(x) for x in given]
        g = relative_error(sum(prod(s.shape[1:]) for s in sizes) + 2)
        carried = [x.error + g * s for x, s in zip(given, sizes, strict=True)]
        error = forward.magnitude(carried) + self.reach.spill.reshape((n, *(1,) * len(shape)))
        for slip, s, x in zip(linear.slips, sizes, given, strict=True):
            if slip is not None:
                error = error + slip(s + x.error)
        if linear.shift is not None:
            low[:, -1] += linear.shift
            high[:, -1] += linear.shift
            error = error + 2.0**-51 * (
                np.maximum(np.abs(low[:, -1]), np.abs(high[:, -1])) + np.abs(linear.shift)
            )
        if linear.slack is not None:
            error = error + linear.slack
        return Lines(low, high, error)


def _guarded(nodes: Sequence[Any], needed: Sequence[int]) -> set[int]:
    """Nodes that reach an op which is not defined everywhere, through affine ops alone."""
    found: set[int] = set()
    for i in reversed(needed):
        op = nodes[i].op
        if restricted(op) or (op.affine and i in found):
            found.update(nodes[i].inputs)
    return found
