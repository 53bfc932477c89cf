"""Where an import is compared with its model: inputs at which misread functions differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from math import prod
from typing import Any

import numpy as np

from tangency.models.network import Network
from tangency.models.ops import Shape, numpy_backend

__all__ = ["Probes", "make_probes"]

#: Multiply-adds that the probes of one import may cost in one evaluation.
BUDGET = 5e7
FEWEST, MOST = 6, 160
#: Constants that are placed, and constants and ratios of them together.
CONSTANTS, TARGETS = 24, 160
#: Largest entry of an input that a ray leads to.
FARTHEST = 2e4

Draw = Callable[[np.random.Generator, Shape], np.ndarray]


class Probes:
    """A batch of inputs, each with words that say what it is.

    Attributes
    ----------
    inputs : list of (n, *shape) arrays
        One for each input of the network, in its dtype.
    words : list of n str
        For messages.
    """

    def __init__(self, inputs: list[np.ndarray], words: list[str]) -> None:
        self.inputs = inputs
        self.words = words

    def rows(self, index: Any) -> list[np.ndarray]:
        """The inputs of some probes."""
        return [x[index] for x in self.inputs]


def make_probes(network: Network, constants: Iterable[float] = ()) -> Probes:
    """Inputs of scales 1e-3 to 1e4, constant ones, and ones around constants of the model.

    The first ones are the most telling: a network that is costly to evaluate has those alone.

    Parameters
    ----------
    network : Network
        What was imported; the parameters of its ops and its small weights are constants too.
    constants : iterable of float
        Numbers that the model's own code holds.
    """
    rng = np.random.default_rng(0)
    count = int(np.clip(BUDGET // _work(network), FEWEST, MOST))
    drawn: list[tuple[str, list[np.ndarray]]] = []
    for words, draw in _broad()[:count]:
        drawn.append((words, [draw(rng, s) for s in network.input_shapes]))
    targets = _targets([*constants, *_own_constants(network)])
    rest = count - len(drawn)
    if rest > 0:
        placed = _placed(network, targets, rng, rest - rest // 2)
        base = [np.stack([x[i] for _, x in drawn]) for i in range(len(network.input_shapes))]
        reached = _reached(network, targets, base, rng, rest // 2)
        drawn += [("entries around constants of the model", x) for x in placed]
        drawn += [("a value inside at a constant of the model", x) for x in reached]
    inputs = [np.stack(x).astype(network.dtype) for x in zip(*(x for _, x in drawn), strict=True)]
    return Probes(inputs, [words for words, _ in drawn])


def _work(network: Network) -> float:
    """About the multiply-adds of one sample."""
    total = 1
    for node in network.structure.nodes:
        weight = max((p.shape for p in node.params), key=prod, default=())
        total += prod(node.shape) * max(1, prod(weight[1:]))
    return float(total)


def _broad() -> list[tuple[str, Draw]]:
    """Draws over scales and signs, the most telling first."""

    def normal(scale: float) -> tuple[str, Draw]:
        return f"normal entries of scale {scale:g}", lambda r, s: scale * r.standard_normal(s)

    def constant(c: float) -> tuple[str, Draw]:
        return f"all entries {c:g}", lambda r, s: np.full(s, c)

    def positive(scale: float) -> tuple[str, Draw]:
        words = f"positive entries up to {scale:g}"
        return words, lambda r, s: scale * r.uniform(0.1, 0.9, s)

    def mixed(r: np.random.Generator, s: Shape) -> np.ndarray:
        return np.asarray(10.0 ** r.uniform(-3, 4, s) * r.choice([-1.0, 1.0], s))

    return [
        *(normal(1), positive(1), normal(100), constant(0), normal(1e4), normal(1e-2)),
        *(constant(1), normal(10), normal(1e3), normal(0.1), normal(1e-3), constant(-10)),
        *(constant(100), positive(1e3), ("entries of all scales", mixed), constant(-1)),
        *(constant(10), constant(-1e3), constant(1e4), positive(10), normal(3), normal(30)),
    ]


def _own_constants(network: Network) -> list[float]:
    """Parameters of ops and of their activations, and the entries of small weights."""
    found: list[float] = []

    def add(value: Any) -> None:
        if isinstance(value, float):
            found.append(value)
        elif isinstance(value, tuple):
            for item in value:
                add(item)

    for node in network.structure.nodes:
        for field in fields(node.op):
            value = getattr(node.op, field.name)
            add(value)
            if hasattr(value, "kinks"):  # an activation
                add(tuple(v for _, v in value.params))
                add((*value.kinks, *value.jumps))
    for w in network.weights.values():
        if w.size <= 4:
            found += [float(v) for v in w.flat]
    return found


def _targets(constants: list[float]) -> np.ndarray:
    """Constants of both signs, and ratios, inverses and square roots of them."""
    sizes = np.abs(np.asarray(constants, float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 1e-8) & (sizes < 1e8)]
    first = np.sort(np.unique(sizes, return_index=True)[1])[:CONSTANTS]
    sizes = sizes[first]
    ratios = (sizes[:, None] / np.append(1.0, sizes)[None, :]).reshape(-1)
    derived = np.concatenate([sizes, ratios, 1 / sizes, np.sqrt(sizes)])
    derived = derived[(derived > 1e-6) & (derived < 1e8)]
    kept = np.sort(np.unique(derived, return_index=True)[1])[:TARGETS]
    return derived[kept] if kept.size else np.ones(1)


def _around(rng: np.random.Generator, targets: np.ndarray) -> np.ndarray:
    """The targets with a sign: as they are, or a part of 1e-7 to 1 away."""
    away = 10.0 ** rng.uniform(-7, 0, targets.shape) * rng.choice([-0.5, 0, 1.0], targets.shape)
    return np.asarray(targets * (1 + away) * rng.choice([-1.0, 1.0], targets.shape))


def _placed(
    network: Network, targets: np.ndarray, rng: np.random.Generator, count: int
) -> list[list[np.ndarray]]:
    """Inputs whose entries lie around the targets, all targets in turn."""
    sizes = [prod(s) for s in network.input_shapes]
    turn = np.resize(rng.permutation(targets), count * sum(sizes)).reshape(count, -1)
    cuts = np.cumsum(sizes)[:-1]
    return [
        [x.reshape(s) for x, s in zip(np.split(row, cuts), network.input_shapes, strict=True)]
        for row in _around(rng, turn)
    ]


def _reached(
    network: Network,
    targets: np.ndarray,
    base: list[np.ndarray],
    rng: np.random.Generator,
    count: int,
) -> list[list[np.ndarray]]:
    """Inputs at which a value inside the network is around a target, by one secant step.

    Between two base points a and b the value is taken as affine, which is exact for what the first
    layers compute.
    """
    structure = network.structure
    with np.errstate(all="ignore"):
        values = structure.values(
            numpy_backend(), network.weights, [x.astype(network.dtype) for x in base]
        )
    read = {j for node in structure.nodes if not node.op.affine for j in node.inputs} | set(
        structure.outputs
    )
    places = [values[j] for j in sorted(read) if values[j].shape[0] == len(base[0])]
    found: list[list[np.ndarray]] = []
    for target in _around(rng, np.resize(rng.permutation(np.append(targets, 0.0)), 4 * count)):
        if len(found) == count or not places:
            break
        a, b = rng.choice(len(base[0]), 2, replace=False)
        value = places[rng.integers(len(places))].reshape(len(base[0]), -1)
        start, end = value[[a, b], rng.integers(value.shape[1])].astype(float)
        if np.isfinite(start) and np.isfinite(end) and start != end:
            t = (target - start) / (end - start)
            inputs = [x[a] + t * (x[b] - x[a]) for x in base]
            # Far out, frameworks lose more digits than they need to (a variance in one pass).
            if max(np.abs(x).max(initial=0.0) for x in inputs) <= FARTHEST:
                found.append(inputs)
    return found
