r"""A first point for wide, deep chains, where time allows a few gradients only.

A small chain of random rows and columns, of the same norms, is minimised with one multiplier a
layer. What carries over is how near each pivot of the small chain lies to the edge,

.. math:: r_k = \lambda_{\max}(Y_k) / (2\lambda_k) < 1,

because the wide chain's own storages then give its multipliers in one sweep,
:math:`\lambda_k = \lambda_{\max}(Y_k) / (2r_k)`, for which every pivot is positive whatever the
small chain said. So a poor likeness costs tightness, never validity. (A greedy choice looks one
layer ahead; the small chain has looked through all of them.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.clock import now
from tangency.verify.lipschitz.engine.layers import Layer
from tangency.verify.lipschitz.engine.objective import Objective
from tangency.verify.lipschitz.engine.recursion import eliminate
from tangency.verify.lipschitz.engine.solve import minimise
from tangency.verify.lipschitz.engine.threads import one_thread
from tangency.verify.lipschitz.spectra import spectral_norm, top_eigenvalue

__all__ = ["coarse_start", "takes_coarse"]

WIDTH = 64  # of the small chain
WIDE = 192  # the least width of a chain that gains by it


def takes_coarse(layers: Sequence[Layer]) -> bool:
    """Return whether all layers are slopes alone, none narrow, and there are several."""
    return len(layers) > 2 and all(
        la.linear is None and la.spread is None and la.free is None and la.width >= WIDE
        for la in layers
    )


def coarse_start(
    layers: Sequence[Layer],
    last: Array,
    *,
    time_limit: float,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Array | None:
    """Return the logarithms of multipliers with positive pivots, or None if none were found.

    Parameters
    ----------
    layers : sequence of Layer
        Those that `takes_coarse` takes.
    last : (m, n) array
    time_limit : float
        Seconds for the small chain.
    seed : int
        Of the choice of rows.
    check : callable
        Called before each step on a layer of the wide chain: what it raises ends the search.
    """
    deadline = now() + time_limit
    rng = np.random.default_rng(seed)
    small, end = _small(layers, last, rng, check)
    objective = Objective(small, end)
    start = _isotropic(small, end)
    with one_thread(WIDTH):
        found = minimise(objective, start, time_limit=time_limit, rtol=1e-2)
    if found is None:
        return None
    if not found.finished and now() < deadline:
        raise KeyboardInterrupt  # the search takes it as its end; here there is more to follow
    return _carried(layers, last, _ratios(small, end, np.exp(found.theta)), check)


def _small(
    layers: Sequence[Layer],
    last: Array,
    rng: np.random.Generator,
    check: Callable[[], None],
) -> tuple[list[Layer], Array]:
    """Return the chain of random rows, one multiplier a layer."""
    columns = np.arange(layers[0].weight.shape[1])
    found = []
    for layer in layers:
        check()
        rows = np.sort(rng.choice(layer.width, WIDTH, replace=False))
        weight = layer.weight[np.ix_(rows, columns)]
        found.append(
            replace(
                layer,
                weight=_of_norm(weight, spectral_norm(layer.weight)),
                lower=layer.lower[rows],
                upper=layer.upper[rows],
                group=np.zeros(WIDTH, dtype=np.intp),
                count=1,
            )
        )
        columns = rows
    rows = np.arange(len(last))
    if len(rows) > WIDTH:
        rows = np.sort(rng.choice(len(rows), WIDTH, replace=False))
    return found, _of_norm(last[np.ix_(rows, columns)], spectral_norm(last))


def _isotropic(layers: Sequence[Layer], last: Array) -> Array:
    """Return logarithms of one multiplier a layer, each twice the least that will do."""
    return np.log(_swept(layers, last, [0.5] * len(layers)))


def _ratios(layers: Sequence[Layer], last: Array, strengths: Array) -> list[float]:
    """Return r_k of each layer."""
    storage = last.T @ last
    found: list[float] = []
    for layer, strength in zip(reversed(layers), strengths[::-1], strict=True):
        found.append(min(top_eigenvalue(storage) / (2.0 * float(strength)), 1.0 - 1e-3))
        step = eliminate(layer, np.full(layer.width, strength), storage)
        assert step is not None  # a point of the search
        storage = step[1]
    return found[::-1]


def _swept(
    layers: Sequence[Layer],
    last: Array,
    ratios: Sequence[float],
    check: Callable[[], None] = lambda: None,
) -> Array:
    """Return one multiplier a layer with the ratios given; NaN where a pivot failed."""
    storage = last.T @ last
    found = []
    for layer, ratio in zip(reversed(layers), reversed(ratios), strict=True):
        check()
        strength = top_eigenvalue(storage) / (2.0 * ratio)
        step = eliminate(layer, np.full(layer.width, strength), storage)
        if step is None or not math.isfinite(strength):
            return np.full(len(layers), np.nan)
        storage = (step[1] + step[1].T) / 2
        found.append(strength)
    return np.array(found[::-1])


def _carried(
    layers: Sequence[Layer], last: Array, ratios: Sequence[float], check: Callable[[], None]
) -> Array | None:
    with np.errstate(all="ignore"):
        strengths = np.log(_swept(layers, last, ratios, check))
    if not np.isfinite(strengths).all():
        return None
    return np.repeat(strengths, [layer.count for layer in layers])


def _of_norm(weight: Array, norm: float) -> Array:
    own = float(np.linalg.norm(weight, 2))
    return weight * (norm / own) if own > 0.0 else weight
