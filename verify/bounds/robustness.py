"""Certified robustness of a classifier on labelled samples, with an attack beside it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.verify.bounds.attack import ATTACKS, candidates
from tangency.verify.bounds.engine import (
    bound,
    check_classifier,
    check_network,
    scores_and_margins,
)
from tangency.verify.bounds.jobs import Job
from tangency.verify.bounds.perturbations import Perturbations
from tangency.verify.certificate.source import Samples
from tangency.verify.result import Robustness, Statement
from tangency.verify.sets import Box, around
from tangency.verify.spec import check_labels, margin_spec

__all__ = ["Robustness", "certify_robust", "margin_at"]

Array = Any
Progress = Callable[[int, int], None]


def certify_robust(
    network: Network,
    x: Array,
    labels: Array,
    eps: float,
    *,
    norm: str | int = "inf",
    method: str = "ibp",
    rigorous: bool = True,
    plain: bool = False,
    mode: str = "last",
    steps: int = 20,
    clip: tuple[float, float] | None = None,
    attack: str = "pgd",
    batch: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Robustness:
    """Prove or refute that the label of each sample wins on the whole ball around it.

    Parameters
    ----------
    network : Network
        With one input and one output, a vector of K >= 2 scores.
    x : (N, *shape) array, float32 or float64
        Samples.
    labels : (N,) array of integers
        Classes, from 0.
    eps : float
        Radius >= 0.
    norm : {"inf", "2", "1"}
        Of the balls, over all entries of a sample together; 2 and 1 may be numbers.
    method, rigorous, plain, mode, steps
        Of the bounds, as in :func:`bound`. Without ``rigorous`` what is called verified is an
        estimate, and ``certified`` says so.
    clip : (float, float), optional
        Range of valid inputs, which the balls do not leave.
    attack : {"pgd", "corners", "none"}
        Gradient descent in JAX that is steepest in the norm, random corners (directions, for l2)
        in NumPy, or the sample alone.
    batch : int
        Samples bounded at once.
    seed : int
        Of the attack's random points.
    progress : callable (done, total), optional
        Called after each batch.

    Raises
    ------
    InputError
        For an empty data set, arrays or labels that do not fit, eps < 0, an unknown norm, method
        or attack.
    """
    start = perf_counter()
    job = Job(method, rigorous, plain, mode, steps)
    x, labels, radius = _checked(network, x, labels, eps, attack, batch)
    data = Samples(x, radius, labels, norm=str(norm), clip=clip)
    classes = check_classifier(network)
    wide = network.astype("float64")
    columns: list[tuple[Array, ...]] = []
    statements: list[Statement] = []
    for i in range(0, len(x), batch):
        points, own = x[i : i + batch], labels[i : i + batch]
        spec = margin_spec(own, classes)
        region = around(points, radius, data.norm, clip)
        scores, margin, stated = scores_and_margins(network, region, spec, job)
        if stated is not None:
            statements.append(stated)
        weakest = margin.lower.argmin(axis=1)
        weakest += weakest >= own  # the rows of the specification skip the label
        # A last, smaller batch is filled up, so that nothing recompiles.
        fill = np.arange(batch if attack == "pgd" else len(points)) % len(points)
        balls = Perturbations(points[fill], radius, data.norm, clip)
        found = candidates(network, balls, own[fill], weakest[fill], attack=attack, seed=seed)
        tried = [p[: len(points)] for p in found]
        attained = np.stack([margin_at(network, p, spec) for p in tried])
        chosen = attained.argmin(axis=0), np.arange(len(points))
        best = wide.evaluate(points).argmax(axis=1)
        proved = margin.lower.min(axis=1)
        worst = np.stack(tried)[chosen]
        columns.append((scores.lower, scores.upper, proved, attained[chosen], worst, best))
        if progress is not None:
            progress(min(i + batch, len(x)), len(x))
    lower, upper, proved, attained, worst, best = map(np.concatenate, zip(*columns, strict=True))
    return Robustness(
        verified=proved > 0,
        attacked=attained <= 0,
        lower=lower,
        upper=upper,
        margin_lower=proved,
        margin_upper=attained,
        prediction=best,
        labels=labels,
        eps=radius,
        norm=data.norm,
        method=method,
        attack=attack,
        seconds=perf_counter() - start,
        certified=job.certified,
        statement=Statement.joined(statements),
        points=worst,
        source=data.source(np.flatnonzero(proved > 0)),
    )


def _checked(
    network: Any, x: Any, labels: Any, eps: Any, attack: str, batch: int
) -> tuple[Array, Array, float]:
    check_network(network)
    if attack not in ATTACKS:
        raise InputError(f"attack {attack!r}: give one of {', '.join(ATTACKS)}")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is {batch!r}: give a number of samples >= 1")
    classes, shape = check_classifier(network), network.input_shape
    check_array("x", x, finite=True)
    x = np.array(x, dtype=np.float64, order="C")
    if x.shape[1:] != shape or x.ndim != len(shape) + 1:
        text = ", ".join(map(str, shape))
        raise InputError(f"x has shape {x.shape}: the network takes (N, {text})")
    if len(x) == 0:
        raise InputError("the data set is empty: x has no samples")
    if isinstance(eps, bool) or np.ndim(eps) != 0:
        raise InputError(f"eps is {eps!r}: give one number >= 0")
    try:
        radius = float(eps)
    except (TypeError, ValueError):
        raise InputError(f"eps is {eps!r}: give one number >= 0") from None
    return x, check_labels(labels, len(x), classes), radius


def margin_at(network: Network, points: Array, spec: Array) -> Array:
    """Proved upper bounds of the margins at single points, ``(N,)`` of ``(N, *shape)``."""
    points = np.ascontiguousarray(points)
    return bound(network, Box(points, points), spec=spec).upper.min(axis=1)
