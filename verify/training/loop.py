"""A small training loop: Adam, a schedule of radii, one compiled scan an epoch."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.network import Network, precision
from tangency.models.ops import jax_backend
from tangency.models.structure import Structure
from tangency.verify.training.adam import adam_start, adam_step
from tangency.verify.training.losses import crown_ibp_loss, ibp_loss, standard_loss
from tangency.verify.training.margins import check_scores, crown_ibp_margins, ibp_margins
from tangency.verify.training.result import Training
from tangency.verify.training.schedule import Schedule

__all__ = ["LOSSES", "train"]

LOSSES = ("ibp", "crown-ibp", "standard")

Array = Any
Clip = tuple[float, float] | None


def train(
    network: Network,
    x: Array,
    labels: Array,
    *,
    eps: float | Schedule,
    loss: str = "ibp",
    epochs: int = 60,
    batch: int = 64,
    rate: float = 2e-3,
    clip: Clip = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Train a classifier from its present weights, by default for robustness under intervals.

    The rate is constant until the radius is full and then falls to zero as a cosine. Weights that
    the network does not count as trainable (running statistics, masks) stay.

    Parameters
    ----------
    network : Network
        With one input and one output, a vector of K >= 2 scores; :func:`.initialised` draws it
        anew.
    x : (N, *shape) array, float32 or float64
        Samples.
    labels : (N,) array of integers
        Classes, from 0.
    eps : float or Schedule
        Radius of the l-infinity balls at the end, or the whole plan.
    loss : {"ibp", "crown-ibp", "standard"}
        What is descended; the last ignores eps but for the curves.
    epochs, batch : int
        Passes over the samples, and samples a step; the last N mod batch of an epoch's order wait.
    rate : float
        Of Adam.
    clip : (float, float), optional
        Range of valid inputs, which the balls do not leave.
    seed : int
        Of the order of the samples.
    progress : callable (done, total), optional
        Called after each epoch.

    Returns
    -------
    Training

    Raises
    ------
    InputError
        For samples, labels or options that do not fit, or a loss that is no number any more.
    UnsupportedError
        For a network that is no such classifier, or an op without a rule, by its layer's name.

    References
    ----------
    Gowal et al., arXiv 1810.12715; Zhang et al., arXiv 1906.06316.
    """
    start = perf_counter()
    plan = eps if isinstance(eps, Schedule) else Schedule(float(eps))
    x, labels = _checked(network, x, labels, loss, epochs, batch)
    batch = min(batch, len(x))
    steps, rng = len(x) // batch, np.random.default_rng(seed)
    curves: list[np.ndarray] = []
    with precision(network.dtype):
        run = _epoch(network.structure, loss, clip)
        weights = dict(network.weights)
        moving = {key: weights.pop(key) for key in network.structure.trainable}
        state = (moving, adam_start(moving))
        for epoch in range(epochs):
            order = rng.permutation(len(x))[: steps * batch].reshape(steps, batch)
            times = (epoch * steps + np.arange(steps)) / (epochs * steps)
            knobs = np.array([(plan.radius(t), *plan.shares(t), _rate(plan, t)) for t in times])
            knobs[:, 3] *= rate
            state, seen = run(weights, state, x[order], labels[order], knobs.astype(network.dtype))
            mean = np.asarray(seen, dtype=np.float64).mean(axis=0)
            if not np.isfinite(mean[0]):
                raise InputError(
                    f"the loss is {mean[0]} in epoch {epoch + 1} of {epochs}: "
                    "take a smaller rate or eps, or initialised(network) to start from"
                )
            curves.append(np.array([*mean, plan.radius(float(times[-1]))]))
            if progress is not None:
                progress(epoch + 1, epochs)
        trained = {key: np.asarray(w) for key, w in state[0].items()}
    columns = np.array(curves).T
    return Training(
        network=network.replace(trained),
        losses=columns[0],
        accuracy=columns[1],
        verified=columns[2],
        radii=columns[3],
        loss=loss,
        eps=plan.eps,
        seconds=perf_counter() - start,
    )


def _rate(plan: Schedule, t: float) -> float:
    """One until the ramp ends, then a cosine to zero."""
    full = plan.warmup + plan.ramp
    return 1.0 if t <= full else float(0.5 * (1 + np.cos(np.pi * (t - full) / (1 - full))))


def _epoch(structure: Structure, loss: str, clip: Clip) -> Any:
    """The compiled pass over the batches of an epoch."""
    import jax
    import jax.numpy as jnp

    def objective(moving: Any, fixed: Any, x: Any, y: Any, knobs: Any) -> Any:
        weights, (radius, kappa, beta) = {**fixed, **moving}, knobs[:3]
        if loss == "ibp":
            return ibp_loss(structure, weights, x, y, radius, kappa=kappa, clip=clip)
        if loss == "standard":
            return standard_loss(structure, weights, x, y)
        return crown_ibp_loss(structure, weights, x, y, radius, kappa=kappa, beta=beta, clip=clip)

    def seen(weights: Any, x: Any, y: Any, radius: Any) -> tuple[Any, Any]:
        scores = structure.apply(jax_backend(), weights, [x])
        if loss == "crown-ibp":
            margins = jnp.maximum(*crown_ibp_margins(structure, weights, x, y, radius, clip=clip))
        else:
            margins = ibp_margins(structure, weights, x, y, radius, clip=clip)
        others = jnp.arange(scores.shape[1])[None] != y[:, None]
        robust = jnp.where(others, margins > 0, True).all(axis=1)
        return (scores.argmax(axis=1) == y).mean(), robust.mean()

    def step(fixed: Any, carry: Any, rows: Any) -> Any:
        (moving, state), (x, y, knobs) = carry, rows
        value, gradient = jax.value_and_grad(objective)(moving, fixed, x, y, knobs)
        right, robust = seen({**fixed, **moving}, x, y, knobs[0])
        moved = adam_step(moving, gradient, state, knobs[3])
        return moved, jnp.stack([value, right.astype(value.dtype), robust.astype(value.dtype)])

    def run(fixed: Any, carry: Any, x: Any, y: Any, knobs: Any) -> Any:
        return jax.lax.scan(lambda c, r: step(fixed, c, r), carry, (x, y, knobs))

    return jax.jit(run)


def _checked(
    network: Any, x: Any, labels: Any, loss: str, epochs: int, batch: int
) -> tuple[Array, Array]:
    if not isinstance(network, Network):
        raise InputError(f"network is a {type(network).__name__}: give a tangency Network")
    if loss not in LOSSES:
        raise InputError(f"loss {loss!r}: give one of {', '.join(LOSSES)}")
    for name, value in (("epochs", epochs), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}: give a whole number >= 1")
    classes, shape = check_scores(network.structure), network.input_shape
    check_array("x", x, finite=True)
    x, y = np.asarray(x, dtype=network.dtype), np.asarray(labels)
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape or len(x) == 0:
        text = ", ".join(map(str, shape))
        raise InputError(f"x has shape {x.shape}: the network takes (N, {text}), N >= 1")
    if y.dtype.kind not in "iu" or y.shape != (len(x),):
        raise InputError(f"labels are {y.dtype} of shape {y.shape}: give {len(x)} integers")
    if y.min() < 0 or y.max() >= classes:
        raise InputError(
            f"labels run from {y.min()} to {y.max()}: the classes are 0 to {classes - 1}"
        )
    return x, y.astype(np.int32)
