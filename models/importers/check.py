"""The check that every import passes: the network and the model agree wherever they are asked.

Agreement at samples proves nothing, so the check never accepts what the rules of an importer do
not: it refuses. What may differ is rounding. Each entry of the output is compared by itself, and
where a model cancels, the digits that it loses are measured: our network is evaluated in float64
with every value inside it changed by some units in the last place of the model's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.importers.coupling import find_coupling
from tangency.models.importers.probes import make_probes
from tangency.models.network import Network
from tangency.models.ops import (
    Extremum,
    GroupSort,
    LayerNorm,
    MaxPool,
    ReduceExtremum,
    Select,
    numpy_backend,
)

__all__ = ["RTOL", "check_import"]

#: Error of an entry relative to itself that is always allowed, by dtype of the network.
RTOL = {"float32": 1e-5, "float64": 1e-12}

#: Values inside are changed by up to so many units of roundoff (an exponential or an error
#: function of a framework is good to about four), and the change of the output counts so often:
#: a sum of n terms in sequence is off by up to sqrt(n) times what its terms' rounding makes.
ULPS, DRAWS, TIMES = 4.0, 8, 16.0

#: Ops that give back one of their operands, however large the others are.
CHOICES = (Extremum, GroupSort, MaxPool, ReduceExtremum, Select)

#: Inputs that a model which takes one sample at a time is asked for.
SINGLES = 24

#: What mixes the samples of a batch as a rule, for messages.
MIXERS = "batch norm in training mode, dropout, a maximum or mean over the batch?"

Reference = Callable[..., Any]


def check_import(
    network: Network,
    reference: Reference,
    *,
    batched: bool,
    constants: Iterable[float] = (),
    softplus: float = 0.0,
) -> None:
    """Compare a network with the model that it was imported from.

    The inputs are those of :func:`~tangency.models.importers.probes.make_probes`. A model with a
    batch axis is asked for all of them at once and for a part of them in another order, so that a
    model whose samples see each other, or which changes from call to call, is found out; and with
    samples of any size among them, where it is compared with itself
    (:func:`~tangency.models.importers.coupling.find_coupling`).

    Parameters
    ----------
    network : Network
        What was imported.
    reference : callable
        The framework's own evaluation: NumPy arrays in, one for each input, in the network's
        dtype; an array or a sequence of arrays out. With ``batched`` it takes and gives a batch
        axis in front.
    constants : iterable of float
        Numbers in the model's own code, around which it is asked too.
    softplus : float
        How far ``beta softplus`` of the framework may be off the exact function.

    Raises
    ------
    UnsupportedError
        When they differ by more than rounding, the samples of a batch influence each other, or
        the model gives another output when it is asked again.
    """
    probes = make_probes(network, constants)
    ours = _Ours(network, probes.inputs, softplus)
    count = len(probes.words)
    order = np.random.default_rng(1).permutation(count)
    calls: list[np.ndarray] = []  # the rows of each call
    answers: list[list[np.ndarray]] = []
    if batched:
        for rows in (order, order[count // 2 :: -1]):
            try:
                outputs = _listed(reference(*probes.rows(rows)))
            except Exception:  # a model whose batch size is written in it
                continue
            calls.append(rows)
            answers.append(outputs)
    asked_in_batches = bool(calls)

    def one(i: int) -> list[np.ndarray]:
        outputs = _listed(reference(*probes.rows(slice(i, i + 1) if batched else i)))
        return outputs if batched else [y[None] for y in outputs]

    if not calls:  # one sample at a time, the first one twice
        few = np.append(np.arange(min(count, SINGLES)), 0)
        each = [one(i) for i in few]
        calls.append(few)
        answers.append([np.concatenate(ys) for ys in zip(*each, strict=True)])
    for rows, outputs in zip(calls, answers, strict=True):
        found = ours.difference(rows, outputs)
        if found is not None:
            raise UnsupportedError(_explained(found, probes.words[found.row], ours, one))
    if asked_in_batches:
        rows, outputs = calls[-1], answers[-1]
        coupled = find_coupling(
            lambda *inputs: _listed(reference(*inputs)),
            probes.rows(rows),
            outputs,
            count=count,
            rtol=ours.rtol,
            spread=lambda places: ours.spread(rows[places]),
        )
        if coupled is not None:
            raise UnsupportedError(f"the model mixes its samples ({MIXERS}): {coupled}")


@dataclass(frozen=True)
class _Difference:
    """The first entry of an output that differs."""

    row: int
    output: int
    entry: tuple[int, ...]
    size: float
    ours: float
    theirs: float
    allowed: float


def _explained(found: _Difference, words: str, ours: _Ours, one: Callable[[int], Any]) -> str:
    """What is wrong: samples that are mixed, a model that changes, or an op that was misread."""
    row = np.array([found.row])
    entry = f", entry {found.entry}" if found.entry else ""
    where = (
        f"output {found.output}{entry}, at {words} (the largest is {found.size:.3g}): the model "
        f"gives {found.theirs:.9g}, the network {found.ours:.9g}, where rounding explains "
        f"{found.allowed:.1e}"
    )
    alone, again = one(found.row), one(found.row)
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(alone, again, strict=True))
    agrees = [ours.difference(row, y) is None for y in (alone, again)]
    if agrees == [True, True]:
        return (
            "the outputs of a batch differ from those of its samples one by one, or the model "
            f"mixes its samples otherwise ({MIXERS}); put it in evaluation mode. {where}"
        )
    if not same:
        return f"the model's output changes from call to call (dropout, a counter?). {where}"
    return (
        f"the imported network differs from the model in {where}: an op was misread, please "
        "report it"
    )


class _Ours:
    """The network's own outputs at the probes, and how far rounding may move them."""

    def __init__(self, network: Network, inputs: list[np.ndarray], softplus: float) -> None:
        self.network = network
        self.inputs = inputs
        self.softplus = softplus
        self.rtol = RTOL[network.dtype]
        self.info = np.finfo(network.dtype)
        self.outputs = [np.asarray(y, float) for y in _listed(network.evaluate(*inputs))]
        self._known: dict[int, tuple[list[np.ndarray], list[np.ndarray], float]] = {}

    def difference(self, rows: np.ndarray, theirs: list[np.ndarray]) -> _Difference | None:
        """The first entry in which outputs at these probes differ from ours, if there is one.

        Raises
        ------
        UnsupportedError
            When there is another number of outputs, or one of another shape.
        """
        if len(theirs) != len(self.outputs):
            raise UnsupportedError(
                f"the model has {len(theirs)} outputs, {len(self.outputs)} were found"
            )
        theirs = [np.asarray(y, float) for y in theirs]
        suspect = np.zeros(len(rows), bool)
        for a, b in zip(self.outputs, theirs, strict=True):
            if b.shape != (len(rows), *a.shape[1:]):
                raise UnsupportedError(
                    f"the model gives shape {b.shape} for a batch of {len(rows)} samples, the "
                    f"network {(len(rows), *a.shape[1:])}: the batch is not the axis of its "
                    "output that it is of its input, or the model mixes its samples"
                )
            with np.errstate(invalid="ignore"):
                near = np.abs(a[rows] - b) <= self.rtol * np.abs(b) + self.floor
                near |= (a[rows] == b) | (np.isnan(a[rows]) & np.isnan(b))
            suspect |= ~near.reshape(len(rows), -1).all(axis=1)
        at = np.flatnonzero(suspect)
        return self._confirmed(rows[at], [b[at] for b in theirs]) if at.size else None

    @property
    def floor(self) -> float:
        """Where a framework may give zero: at the subnormal numbers."""
        return 4 * float(self.info.tiny)

    def spread(self, rows: np.ndarray) -> list[np.ndarray]:
        """How far rounding moves the outputs at these probes."""
        return [np.stack(ys) for ys in zip(*(k[1] for k in self._at(rows)), strict=True)]

    def _at(self, rows: np.ndarray) -> list[tuple[list[np.ndarray], list[np.ndarray], float]]:
        """What :meth:`_rounding` says of each probe; it is asked once."""
        new = np.array([i for i in rows if i not in self._known], int)
        if new.size:
            self._known |= dict(zip(new.tolist(), self._rounding(new), strict=True))
        return [self._known[i] for i in rows.tolist()]

    def _confirmed(self, rows: np.ndarray, theirs: list[np.ndarray]) -> _Difference | None:
        """The first entry whose difference is more than rounding explains."""
        known = self._at(rows)
        exact, noise = (
            [np.stack(ys) for ys in zip(*(k[j] for k in known), strict=True)] for j in (0, 1)
        )
        largest = np.array([k[2] for k in known])
        # An exponential of such a value overflows, in the model's arithmetic or in float64: what
        # comes of it (inf - inf, 0 inf) says nothing about the function.
        over, over_wide = (
            largest > 0.9 * np.log(np.finfo(t).max) for t in (self.info.dtype, float)
        )
        for k, (y, spread, b) in enumerate(zip(exact, noise, theirs, strict=True)):
            lead = (-1, *(1,) * (y.ndim - 1))
            with np.errstate(invalid="ignore", over="ignore"):
                allowed = self.rtol * np.abs(y) + TIMES * spread + self.floor
                near = np.abs(y - b) <= allowed
            finite, known = np.isfinite(b), np.isfinite(y)
            same = np.where(finite & known, near, np.isinf(spread))
            same |= ~finite & (~known | over.reshape(lead) | (np.abs(y) > self.info.max))
            same |= ~known & over_wide.reshape(lead)
            same |= (b == 0) & over.reshape(lead)  # a number divided by an overflow
            if not same.all():
                at = tuple(int(i) for i in np.argwhere(~same)[0])
                row = int(rows[at[0]])
                size = max(float(np.abs(x[row]).max()) for x in self.inputs)
                numbers = float(y[at]), float(b[at]), float(allowed[at])
                return _Difference(row, k, at[1:], size, *numbers)
        return None

    @cached_property
    def _wide(self) -> Network:
        return self.network.astype("float64")

    def _rounding(self, rows: np.ndarray) -> list[tuple[list[np.ndarray], list[np.ndarray], float]]:
        """Of each probe its outputs in float64, how far rounding moves them, its largest number.

        Every value inside is changed by a few units of roundoff, of itself, and of the argument
        and of one after a function: ``0.5 x (1 + erf(x))`` is good to a unit of x, ``exp(x) - 1``
        to one of 1. (What was chosen among others, by a maximum or a condition, has no part of
        theirs.) That is done some times, and the largest change of an output counts; it is
        infinite where an output is a number at some times only (the logarithm of a sum near zero).
        """
        network, rng = self._wide, np.random.default_rng(2)
        structure, n = network.structure, len(rows)
        unit = ULPS * float(self.info.eps) / 2
        inputs = (x[rows].astype(float) for x in self.inputs)
        given = dict(zip(structure.inputs, inputs, strict=True))
        values: list[Any] = []
        largest = np.zeros(n)
        with np.errstate(all="ignore"):
            for i, node in enumerate(structure.nodes):
                if i in given:
                    x = np.tile(given[i], (1 + DRAWS, *(1,) * (given[i].ndim - 1)))
                    size = np.abs(x)
                else:
                    params = {p.role: network.weights[p.key] for p in node.params}
                    taken = [values[j] for j in node.inputs]
                    x = node.op.apply(numpy_backend(), params, *taken)
                    x = np.broadcast_to(x, ((1 + DRAWS) * n, *x.shape[1:]))
                    size = np.abs(x)
                    if node.op.affine and params and taken:
                        # A bias or a mean that cancels what it is added to rounds as itself.
                        terms = {
                            r: -np.abs(v) if r == "mean" else np.abs(v) for r, v in params.items()
                        }
                        zero = [np.zeros_like(v[:1]) for v in taken]
                        size = size + np.abs(node.op.apply(numpy_backend(), terms, *zero))
                    if not (node.op.affine or _chooses(node.op)):
                        like = [np.abs(v) for v in taken if v.shape == x.shape]
                        size = np.max([size, *like, np.ones_like(size)], axis=0)
                    if isinstance(node.op, LayerNorm):
                        size = size * _lost_digits(node.op, taken[0])
                change = unit * size * rng.uniform(-1, 1, x.shape)
                record = getattr(node.op, "activation", None)
                if record is not None and record.name == "softplus":
                    off = self.softplus / float(dict(record.params).get("beta", 1.0))
                    change += off * rng.uniform(-1, 1, x.shape)
                change[:n] = 0  # the first copy stays as it is
                finite = np.where(np.isfinite(x[:n]), np.abs(x[:n]), 0.0)  # a pole is no overflow
                largest = np.maximum(largest, finite.reshape(n, -1).max(axis=1, initial=0.0))
                values.append(x + change)
            exact, noise = [], []
            for j in structure.outputs:
                y = values[j].reshape(1 + DRAWS, n, *values[j].shape[1:])
                spread = np.abs(y[1:] - y[0]).max(axis=0)
                sure = (np.isfinite(y) == np.isfinite(y[0])).all(axis=0)
                exact.append(y[0])
                noise.append(np.where(sure, spread, np.inf))
        return [([y[i] for y in exact], [y[i] for y in noise], float(largest[i])) for i in range(n)]


def _chooses(op: Any) -> bool:
    record = getattr(op, "activation", None)
    return isinstance(op, CHOICES) or (record is not None and record.name == "relu")


def _lost_digits(op: LayerNorm, x: np.ndarray) -> np.ndarray:
    """What a variance loses that is computed as E x^2 - (E x)^2, as some kernels do."""
    axes = tuple(a % (x.ndim - 1) + 1 for a in op.axes)
    square = (x**2).mean(axis=axes, keepdims=True)
    ratio: np.ndarray = 1 + square / (x.var(axis=axes, keepdims=True) + op.eps)
    return ratio


def _listed(outputs: Any) -> list[np.ndarray]:
    if isinstance(outputs, tuple | list):
        return [np.asarray(y) for y in outputs]
    return [np.asarray(outputs)]
