"""Bounds by linear functions: CROWN and its kin, through one schedule and either engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.models.ops import Constant
from tangency.verify.bounds.jobs import Job
from tangency.verify.bounds.tightened import Tightened
from tangency.verify.result import Statement
from tangency.verify.rigorous.forward import Forward
from tangency.verify.rigorous.lowering import lowered
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import Engine, Known, Pair, intermediate
from tangency.verify.rigorous.sets import InputSet, batch_of
from tangency.verify.rigorous.specification import elided, entrance, specified

if TYPE_CHECKING:
    from tangency.verify.bounds.searched import Searched
    from tangency.verify.certificate.outputs import Method

__all__ = ["LinearBounds"]

Array = Any

FORWARD = 2**22  # coefficients that are carried forwards at once


class LinearBounds:
    """The bounds of all nodes by a method, and from them those of outputs and specifications.

    Parameters
    ----------
    network : Network
        As the user has it.
    inputs : sequence of InputSet
        One for each input.
    job : Job
        What to do.
    """

    def __init__(self, network: Network, inputs: Sequence[InputSet], job: Job) -> None:
        low = lowered(network)
        self.source, self.network, self.job = network, low.network, job
        self.inputs, self.samples = inputs, batch_of(inputs)
        self.proved = NumpyEngine(low.network, inputs, source=network, origin=low.origin)
        self.engine: Engine = self.proved
        self._search: Searched | None = None
        if not job.certified or job.method == "alpha-crown":
            self._estimate()
        self.ends = low.network.structure.outputs
        self._origin = low.origin
        self._last = elided(low.network) if len(self.ends) == 1 else None
        self._targets = {*self.ends}
        if self._last is not None:
            self._targets |= {*low.network.structure.nodes[self._last].inputs}
        self.known: Known = {}
        #: Bounds without a search, where one went through all layers: CROWN's default slopes may
        #: turn out worse on tighter boxes, so that its own bounds are intersected with as well.
        self._plain: Known | None = None
        if job.method != "forward":
            schedule = "crown-ibp" if job.method == "crown-ibp" else "crown"
            self.known = intermediate(self.engine, self._targets, method=schedule, plain=job.plain)
            if job.mode == "joint" and self._search is not None:
                self._plain = self.known
                joint = intermediate(self._search, self._targets, method=schedule, plain=job.plain)
                self.known = {
                    i: (np.maximum(low, joint[i][0]), np.minimum(high, joint[i][1]))
                    for i, (low, high) in self._plain.items()
                }

    def _estimate(self) -> None:
        """Engines in JAX: of estimates, and of searches for slopes."""
        from tangency.verify.bounds.search.engine import JaxEngine

        job = self.job
        estimates = JaxEngine(self.network, self.inputs)
        if not job.rigorous:
            self.engine = estimates if job.plain else Tightened(estimates, self.proved)
        if job.method == "alpha-crown":
            from tangency.verify.bounds.searched import Searched

            proof = self.proved if job.rigorous else None
            self._search = Searched(estimates, self.engine, proof, job.steps)

    def outputs(self, *, search: bool = True) -> list[Interval]:
        """Bounds of each output, ``(N, *shape)``; without a search for slopes if that is said."""
        if self.job.method == "forward":
            return [Interval(*self._forward(i, None)) for i in self.ends]
        return [self._output(i, search) for i in self.ends]

    def _output(self, index: int, search: bool) -> Interval:
        shape = self.network.structure.nodes[index].shape
        searched = search and self._search is not None
        spec = np.eye(prod(shape))[None] if searched else None  # so that all slopes are kept
        low, high = self._swept(index, spec, upper=True, search=search)
        low, high = (v.reshape((self.samples, *shape)) for v in (low, high))
        found = self._met(low, high, self.known[index])
        self.known[index] = (found.lower, found.upper)
        return found

    def specified(self, spec: Array, *, upper: bool = True) -> Interval:
        """Bounds ``(N, S)`` of linear maps ``(N or 1, S, n)`` of the only output."""
        (index,) = self.ends
        if self.job.method == "forward":
            low, high = self._forward(index, spec)
        else:
            low, high = self._swept(index, spec, upper=upper)
        step = specified(self.network, spec, Interval(*self.known[entrance(self.network)]))
        if high is None:
            high = np.full(low.shape, np.inf)
        return self._met(low, high, (step.lower, step.upper))

    def _met(self, low: Array, high: Array, step: Pair) -> Interval:
        """Both bounds intersected, unless the literature's alone are wanted."""
        if not self.job.plain:
            low, high = np.maximum(low, step[0]), np.minimum(high, step[1])
        if not self.job.certified:  # estimates may cross by their rounding
            low, high = np.minimum(low, high), np.maximum(low, high)
        return Interval(low, high)

    def _forward(self, index: int, spec: Array | None) -> tuple[Array, Array]:
        """Lines carried forwards, some samples at a time; finds the bounds of all nodes as well."""
        sizes = [prod(node.shape) for node in self.network.structure.nodes]
        columns = 1 + sum(prod(x.shape) for x in self.inputs)
        size = max(1, FORWARD // (columns * max(sizes)))
        found: list[tuple[Array, Array]] = []
        bounds: list[Known] = []
        for start in range(0, self.samples, size):
            part = slice(start, min(start + size, self.samples))
            forward = Forward(self.proved.part(part), plain=self.job.plain)
            known, lines = forward.run(self._targets)
            bounds.append(known)
            if spec is None:
                found.append(known[index])
                continue
            own = spec if len(spec) == 1 or self.samples == 1 else spec[part]
            weight = bias = None
            if self._last is not None:
                (index,) = self.network.structure.nodes[self._last].inputs
                params = self.proved.weights(self._last)
                weight, bias = params["weight"], params.get("bias")
            found.append(forward.mapped(lines[index], own, weight, bias))
        nodes = self.network.structure.nodes
        self.known = {
            i: bounds[0][i]
            if isinstance(nodes[i].op, Constant)
            else (_joined([b[i][0] for b in bounds]), _joined([b[i][1] for b in bounds]))
            for i in bounds[0]
        }
        low, high = (_joined(list(ends)) for ends in zip(*found, strict=True))
        return low, high

    def _swept(
        self, index: int, spec: Array | None, *, upper: bool, search: bool = True
    ) -> tuple[Array, Any]:
        shape = None
        if spec is not None and len(spec) > self.samples:  # many maps on a set that all share
            shape, spec = spec.shape[:2], spec.reshape((1, -1, spec.shape[2]))
        engine: Engine = self._search if search and self._search else self.engine
        low: Array
        high: Array | None
        ends = engine.sweep(index, self.known, spec=spec, upper=upper)
        low, high = (None if v is None else np.asarray(v, np.float64) for v in ends)
        if search and self._plain is not None:
            least, most = self.engine.sweep(index, self._plain, spec=spec, upper=upper)
            low = np.maximum(low, least)
            high = None if high is None or most is None else np.minimum(high, most)
        if shape is not None:
            low, high = (None if v is None else v.reshape(shape) for v in (low, high))
        return low, high

    def statement(self, spec: Array | None, found: Interval, *, upper: bool) -> Statement | None:
        """What the bounds of outputs or of a specification say, where a certificate can hold it.

        The joint search leaves slopes of every row of every layer, which no certificate keeps.
        """
        joint = self.job.method == "alpha-crown" and self.job.mode == "joint"
        if joint or not self.job.certified or not self.job.single(self.source):
            return None
        chosen = self._search.chosen if self._search else {}
        alpha = self.job.method == "alpha-crown"
        method = cast("Method", "crown" if alpha else self.job.method)
        low, high = (v.reshape((len(v), -1)) for v in (found.lower, found.upper))
        most = high if upper else None
        return Statement(self.inputs[0], spec, low, most, method, self.job.plain, chosen)

    # --- what is reported ----------------------------------------------------------------------

    def by_name(self) -> Mapping[str, Pair]:
        """Bounds of the user's nodes."""
        names = [node.name for node in self.source.structure.nodes]
        heirs = {old: new for new, old in self._origin.items()}
        pairs = {names[old]: self.known.get(new) for old, new in sorted(heirs.items())}
        return {
            name: (np.asarray(pair[0], np.float64), np.asarray(pair[1], np.float64))
            for name, pair in pairs.items()
            if pair is not None
        }


def _joined(parts: list[Array]) -> Array:
    """Samples together again."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
