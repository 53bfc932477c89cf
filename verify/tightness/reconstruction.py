r"""Linear reconstruction trained on intervals: tightness bought with width and error.

A two-layer linear network ``x -> D E x`` is trained on points of a subspace, by

.. math:: \mathrm{mean} \; (|D E x - x| + |D| |E| \, \varepsilon)^2,

the greatest squared error that intervals leave possible on a ball of radius eps. At eps = 0 the
best network is the projection on the principal components, whose boxes grow with their number
(see :mod:`.embedding`); the larger eps and the smaller the width, the closer are the trained
weights to propagation invariance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import precision

__all__ = ["Reconstruction", "train_reconstruction"]

Array = Any


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A trained linear reconstruction, beside the principal components of the same width.

    Attributes
    ----------
    encoder, decoder : (w, d) array, (d, w) array
        E and D.
    error, pca_error : float
        Mean squared error at the points, per entry, of the training and of the components.
    growth, pca_growth : float
        Mean growth ``|D| |E| 1`` of the interval box of both.
    tau, pca_tau : float
        Mean tightness ``|D E| 1 / |D| |E| 1`` of both.
    losses : (steps,) array
        The loss that was descended.
    eps : float
        Its radius.
    """

    encoder: Array = field(repr=False)
    decoder: Array = field(repr=False)
    error: float
    pca_error: float
    growth: float
    pca_growth: float
    tau: float
    pca_tau: float
    losses: Array = field(repr=False)
    eps: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        names = ("error", "pca_error", "growth", "pca_growth", "tau", "pca_tau", "eps")
        width = len(self.encoder)
        return {"width": width, "certified": False, **{n: float(getattr(self, n)) for n in names}}

    def plot(self) -> Any:
        """The loss against the step: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.semilogy(self.losses)
        axes.set(xlabel="step", ylabel="worst squared error by intervals")
        axes.set_title(f"width {len(self.encoder)}: tau {self.tau:.3g}, of PCA {self.pca_tau:.3g}")
        return figure


def train_reconstruction(
    x: Array, width: int, eps: float, *, steps: int = 1500, rate: float = 3e-3, seed: int = 0
) -> Reconstruction:
    """Train a linear reconstruction on interval bounds of its error, by Adam on all points at once.

    Parameters
    ----------
    x : (N, d) array
        Points.
    width : int
        Hidden width w >= 1.
    eps : float
        Radius >= 0 of the l-infinity balls.
    steps : int
        Of Adam; its rate falls to zero as a cosine.
    rate : float
        At the start.
    seed : int
        Of the random first weights.

    Raises
    ------
    InputError
        For points, a width, a radius or steps that do not fit.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, figure 4.
    """
    import jax
    import jax.numpy as jnp

    from tangency.verify.training.adam import adam_start, adam_step

    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or x.size == 0 or not np.isfinite(x).all():
        raise InputError(f"x has shape {x.shape}: give finite points (N, d)")
    if width < 1 or steps < 1 or not (np.isfinite(eps) and eps >= 0):
        raise InputError(f"width {width}, steps {steps}, eps {eps}: >= 1, >= 1, and a radius >= 0")
    d = x.shape[1]
    rng = np.random.default_rng(seed)
    start = {
        "encoder": rng.normal(size=(width, d)) / np.sqrt(d),
        "decoder": rng.normal(size=(d, width)) / np.sqrt(width),
    }
    with precision("float64"):
        points = jnp.asarray(x)

        def loss(w: Any) -> Any:
            error = points @ w["encoder"].T @ w["decoder"].T - points
            radius = jnp.abs(w["decoder"]) @ jnp.abs(w["encoder"]).sum(axis=1) * eps
            return ((jnp.abs(error) + radius) ** 2).mean()

        def step(carry: Any, t: Any) -> Any:
            weights, state = carry
            value, gradient = jax.value_and_grad(loss)(weights)
            falling = rate * 0.5 * (1 + jnp.cos(jnp.pi * t / steps))
            return adam_step(weights, gradient, state, falling), value

        first = {k: jnp.asarray(w) for k, w in start.items()}
        run = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))
        (weights, _), losses = run((first, adam_start(first)))
        encoder, decoder = (np.asarray(weights[k]) for k in ("encoder", "decoder"))
    _, sizes, parts = np.linalg.svd(x, full_matrices=False)
    parts = parts[:width][sizes[:width] > 1e-9 * sizes[0]]  # directions of rounding are none
    mine, theirs = _measures(x, encoder, decoder), _measures(x, parts, parts.T)
    return Reconstruction(
        encoder=encoder,
        decoder=decoder,
        error=mine[0],
        pca_error=theirs[0],
        growth=mine[1],
        pca_growth=theirs[1],
        tau=mine[2],
        pca_tau=theirs[2],
        losses=np.asarray(losses),
        eps=float(eps),
    )


def _measures(x: Array, encoder: Array, decoder: Array) -> tuple[float, float, float]:
    """Mean squared error, growth of the interval box, tightness."""
    box = np.abs(decoder) @ np.abs(encoder).sum(axis=1)
    best = np.abs(decoder @ encoder).sum(axis=1)
    error = ((x @ encoder.T @ decoder.T - x) ** 2).mean()
    there = box > 0
    tau = float((best[there] / box[there]).mean()) if there.any() else float("nan")
    return float(error), float(box.mean()), tau
