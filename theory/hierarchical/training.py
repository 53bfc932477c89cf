"""Layer-wise training of the three-layer network: first u, then c, on fresh samples.

One learner at a time, or many seeds at once by JAX: :func:`train_layerwise_seeds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.hierarchical.descent import descend
from tangency.theory.hierarchical.linear_stage import (
    RIDGES,
    LinearStage,
    held_out_ridge,
    held_out_stage,
)
from tangency.theory.hierarchical.network import InnerLayer, ThreeLayerNetwork

__all__ = ["Training", "train_feature", "train_layerwise", "train_layerwise_seeds"]

METHODS = ("ridge", "gradient_descent")
#: Numbers of steps among which early stopping chooses.
STEPS = (1, 3, 10, 30, 100, 300)

Samples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Training:
    """A network and what each stage found.

    Attributes
    ----------
    network : ThreeLayerNetwork
    inner_stage, outer_stage : LinearStage
        ``choice`` is the weight decay, or the number of steps of gradient descent.
    """

    network: ThreeLayerNetwork
    inner_stage: LinearStage
    outer_stage: LinearStage


def train_feature(
    inner: InnerLayer,
    samples: Samples,
    *,
    method: str = "ridge",
    ridges: Sequence[float] = RIDGES,
    folds: int = 5,
) -> LinearStage:
    """Stage 1: the weights u of the bottleneck, from zero.

    Parameters
    ----------
    inner : InnerLayer
    samples : pair of (n, d) and (n,) arrays
    method : {"ridge", "gradient_descent"}
        Weight decay to convergence, in closed form; or early stopping without weight decay. Samples
        held out in turn choose either, and then all are trained on.
    ridges : sequence of float
    folds : int

    Raises
    ------
    InputError
        For another method.
    """
    found: LinearStage = _stage(inner(samples[0]), samples[1], method, ridges, folds)
    return found


def train_layerwise(
    inner: InnerLayer,
    first: Samples,
    second: Samples,
    *,
    rng: np.random.Generator,
    outer_width: int = 128,
    method: str = "ridge",
    ridges: Sequence[float] = RIDGES,
    folds: int = 5,
) -> Training:
    """Both stages: u on the first samples, then c on the second, which u has not seen.

    Fresh samples matter: on its own training samples the feature looks better than it is, and c
    would learn a link for a feature that does not exist.

    Parameters
    ----------
    inner : InnerLayer
    first, second : pair of (n, d) and (n,) arrays
        Each stage holds out its own samples in turn to choose its weight decay.
    rng : Generator
        Draws the outer layer.
    outer_width : int
    method : {"ridge", "gradient_descent"}
    ridges : sequence of float
    folds : int

    Returns
    -------
    Training

    References
    ----------
    Wang, Nichani and Lee, arXiv:2311.13774.
    """
    _check_width(outer_width)
    one = train_feature(inner, first, method=method, ridges=ridges, folds=folds)
    network, g = _with_feature(inner, one, second[0], rng, outer_width)
    two = _stage(network.outer(g), second[1] - g, method, ridges, folds)
    return _finished(network, one, two)


def train_layerwise_seeds(
    inners: Sequence[InnerLayer],
    firsts: Sequence[Samples],
    seconds: Sequence[Samples],
    *,
    rngs: Sequence[np.random.Generator],
    outer_width: int = 128,
    method: str = "ridge",
    ridges: Sequence[float] = RIDGES,
    folds: int = 5,
) -> tuple[Training, ...]:
    """Both stages for many seeds at once: each stage is one JAX call, mapped over the seeds.

    What each seed finds is what :func:`train_layerwise` finds for it alone.

    Parameters
    ----------
    inners : sequence of InnerLayer
        One a seed, of one width.
    firsts, seconds : sequences of pairs of (n, d) and (n,) arrays
        One a seed, of one size.
    rngs : sequence of Generator
        One a seed; they draw the outer layers.
    outer_width : int
    method : {"ridge", "gradient_descent"}
    ridges : sequence of float
    folds : int

    Returns
    -------
    tuple of Training

    Raises
    ------
    InputError
        Where the seeds differ in number or in their sizes.
    """
    _check_width(outer_width)
    if not len(inners) or not len(inners) == len(firsts) == len(seconds) == len(rngs):
        raise InputError(
            f"{len(inners)} inner layers, {len(firsts)} and {len(seconds)} sets of samples and "
            f"{len(rngs)} generators: one of each for every seed, and at least one seed"
        )
    sizes = {
        (len(inner.directions), *x.shape, len(z))
        for inner, (x, _), (z, _) in zip(inners, firsts, seconds, strict=True)
    }
    if len(sizes) > 1:
        raise InputError("seeds at once have one width, one dimension and equally many samples")
    features = np.stack([inner(x) for inner, (x, _) in zip(inners, firsts, strict=True)])
    ones = _stage(features, np.stack([y for _, y in firsts]), method, ridges, folds)
    made = [
        _with_feature(inner, one, second[0], rng, outer_width)
        for inner, one, second, rng in zip(inners, ones, seconds, rngs, strict=True)
    ]
    outer = np.stack([network.outer(g) for network, g in made])
    left = np.stack([y - g for (_, y), (_, g) in zip(seconds, made, strict=True)])
    twos = _stage(outer, left, method, ridges, folds)
    return tuple(
        _finished(network, one, two)
        for (network, _), one, two in zip(made, ones, twos, strict=True)
    )


def _with_feature(
    inner: InnerLayer, one: LinearStage, x: np.ndarray, rng: np.random.Generator, width: int
) -> tuple[ThreeLayerNetwork, np.ndarray]:
    """The network after stage 1 with a random outer layer, and its feature at x."""
    g = inner(x) @ one.coefficients + one.offset
    network = ThreeLayerNetwork(
        inner=inner,
        u=one.coefficients,
        inner_offset=one.offset,
        signs=rng.choice([-1.0, 1.0], width),
        biases=rng.standard_normal(width) * 1.5,
        c=np.zeros(width),
        location=float(g.mean()),
        spread=float(g.std()) or 1.0,
        outer_offset=0.0,
    )
    return network, g


def _check_width(outer_width: int) -> None:
    if outer_width < 1:
        raise InputError(f"outer_width = {outer_width}: at least 1")


def _finished(network: ThreeLayerNetwork, one: LinearStage, two: LinearStage) -> Training:
    return Training(replace(network, c=two.coefficients, outer_offset=two.offset), one, two)


def _stage(features: np.ndarray, y: Any, method: str, ridges: Sequence[float], folds: int) -> Any:
    """A LinearStage, or a tuple of them where the features have seeds in front."""
    if method == "ridge":
        return held_out_ridge(features, y, folds=folds, ridges=ridges)
    if method != "gradient_descent":
        raise InputError(f"method = {method!r}: one of {METHODS}")

    def path(f: np.ndarray, t: np.ndarray, choices: Sequence[float]) -> list[np.ndarray]:
        return [descend(f, t, steps=int(steps)) for steps in choices]

    return held_out_stage(path, features, y, folds, STEPS)
