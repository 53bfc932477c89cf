"""Layer-wise training of the three-layer network: first u, then c, on fresh samples."""

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

__all__ = ["Training", "train_feature", "train_layerwise"]

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
    return _stage(inner(samples[0]), samples[1], method, ridges, folds)


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
    if outer_width < 1:
        raise InputError(f"outer_width = {outer_width}: at least 1")
    one = train_feature(inner, first, method=method, ridges=ridges, folds=folds)
    g = inner(second[0]) @ one.coefficients + one.offset
    network = ThreeLayerNetwork(
        inner=inner,
        u=one.coefficients,
        inner_offset=one.offset,
        signs=rng.choice([-1.0, 1.0], outer_width),
        biases=rng.standard_normal(outer_width) * 1.5,
        c=np.zeros(outer_width),
        location=float(g.mean()),
        spread=float(g.std()) or 1.0,
        outer_offset=0.0,
    )
    two = _stage(network.outer(g), second[1] - g, method, ridges, folds)
    done = replace(network, c=two.coefficients, outer_offset=two.offset)
    return Training(done, one, two)


def _stage(
    features: np.ndarray, y: Any, method: str, ridges: Sequence[float], folds: int
) -> LinearStage:
    if method == "ridge":
        return held_out_ridge(features, y, folds=folds, ridges=ridges)
    if method != "gradient_descent":
        raise InputError(f"method = {method!r}: one of {METHODS}")

    def path(f: np.ndarray, t: np.ndarray, choices: Sequence[float]) -> list[np.ndarray]:
        return [descend(f, t, steps=int(steps)) for steps in choices]

    return held_out_stage(path, features, y, folds, STEPS)
