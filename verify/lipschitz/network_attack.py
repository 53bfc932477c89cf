r"""A lower bound of the Lipschitz constant of any Network: ascent of the Jacobian's norm in JAX.

.. math:: L \ge \|J(x)\|_{p \to q} \ge \|J(x)\,v\|_q / \|v\|_p

A population of points climbs. At each of them the direction v is improved by power iteration [1]_,
through derivatives of the graph forward and backward; the point moves along the gradient of the
norm where there is one (a piecewise linear network has none) and at random otherwise, and what is
better is kept. It needs no chain: residual, Householder and pooling layers are ops like others.

What JAX calls a derivative at a kink may be none. So a value counts only up to the quotient
:math:`\|f(x + hv) - f(x - hv)\|_q / \|2hv\|_p`, which is a lower bound wherever the points lie.

References
----------
.. [1] D. W. Boyd, Linear Algebra Appl. 9 (1974), The power method for l^p norms.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache, partial
from typing import Any

import numpy as np

from tangency.models.network import Network, precision
from tangency.models.ops import jax_backend
from tangency.models.structure import Structure
from tangency.verify.lipschitz.local_attack import _ball, _dual, _norm, drawn_in
from tangency.verify.sets import Region

__all__ = ["attack_network"]

_POINTS = 48
_STEPS = 300
_SECONDS = 1.0  # after compilation
_POWER = 2  # steps of the power method for each step of the points
_NEAR = 1e-6  # h, relative to the point's size

Array = np.ndarray


def attack_network(
    network: Network,
    *,
    norm: str = "2",
    output: str = "2",
    box: Region | None = None,
    seed: int = 0,
) -> float:
    """Return a lower bound of the constant of a network, everywhere, on a box or on a ball.

    Parameters
    ----------
    network : Network
        One input, one output; any graph that JAX evaluates.
    norm : {"2", "1", "inf"}
        Of the input.
    output : {"2", "1", "inf"} or "margin:i,j"
        Of the output.
    box : Box or Ball, optional
        One, in which all points lie.
    seed : int
        The search is deterministic but for its end by time.

    Returns
    -------
    float
        Computed in float64 and rounded down by 1e-9 relative; it is not proved.

    Examples
    --------
    >>> from tangency.models import from_layers
    >>> network = from_layers([np.eye(2), np.array([[3.0, 4.0]])], "relu")
    >>> round(attack_network(network), 6)
    5.0
    """
    climb = _Climb(network.astype("float64"), norm, output, box, seed)
    with precision("float64"), np.errstate(all="ignore"):
        found = climb.run()
    return found * (1.0 - 1e-9) if math.isfinite(found) else 0.0


class _Climb:
    """A population of points, each with a direction."""

    def __init__(
        self, network: Network, norm: str, output: str, box: Region | None, seed: int
    ) -> None:
        self.network, self.norm = network, norm
        self.shape = network.input_shape
        self.output, _, pair = output.partition(":")
        self.pick = np.eye(math.prod(network.output_shape))
        if pair:
            i, j = map(int, pair.split(","))
            self.pick = self.pick[[i]] - self.pick[[j]]
            self.output = "2"
        self.rng = np.random.default_rng(seed)
        self.low = self.high = None
        self.region = box
        if box is not None:
            around = box.interval
            self.low, self.high = around.lower.reshape(-1), around.upper.reshape(-1)
        value, push, pull, slope = _compiled(network.structure)
        weights = dict(network.weights)
        self._value: Any = partial(value, weights)
        self._push: Any = partial(push, weights)
        self._pull: Any = partial(pull, weights)
        self._slope: Any = partial(slope, weights)

    def run(self) -> float:
        """Return the best value found."""
        rng, n = self.rng, math.prod(self.shape)
        if self.low is None or self.high is None:
            reach = 10.0 ** rng.uniform(-2, 2, (_POINTS, 1))
            x = reach * rng.standard_normal((_POINTS, n))
        else:
            reach = np.broadcast_to((self.high - self.low) / 2, (_POINTS, n)).copy()
            x = self.inside(self.low + (self.high - self.low) * rng.uniform(0, 1, (_POINTS, n)))
        v = _ball(rng.standard_normal(x.shape), self.norm)
        value, u, v = self.improved(x, v, 6 * _POWER)
        begin = time.perf_counter()  # JAX has compiled all but the gradient
        share = np.ones((_POINTS, 1))
        for step in range(_STEPS):
            gradient = np.nan_to_num(self.flat(self._slope(self.full(x), self.full(v), u)))
            kind = rng.random((_POINTS, 1))
            move = np.sign(gradient)
            still = ~move.any(axis=1, keepdims=True)
            noise = rng.standard_normal(x.shape)
            noise *= rng.random(x.shape) < rng.choice([1.5 / n, 0.1, 0.3, 1.0], (_POINTS, 1))
            trial = x + share * reach * np.where((kind < 0.5) & ~still, move, noise)
            mirrored = (kind > 0.9) & (self.low is None)
            trial = self.inside(np.where(mirrored, np.where(noise != 0.0, -x, x), trial))
            found, u_found, v_found = self.improved(trial, v, _POWER)
            better = found > value
            value = np.where(better, found, value)
            x[better], u[better], v[better] = trial[better], u_found[better], v_found[better]
            share = np.where(better[:, None], np.minimum(2 * share, 1.0), 0.7 * share)
            share = np.maximum(share, 10.0 ** rng.uniform(-4, 0, share.shape))
            if step % 40 == 39:  # the worse half starts again from the better one
                order = np.argsort(value, kind="stable")
                worse, good = order[: _POINTS // 2], order[-(_POINTS // 2) :]
                for array in (x, u, v, value, reach):
                    array[worse] = array[good]
            if time.perf_counter() - begin > _SECONDS:
                break
        value, u, v = self.improved(x, v, 20)
        return float(np.minimum(value, self.quotient(x, v)).max())

    def improved(self, x: Array, v: Array, count: int) -> tuple[Array, Array, Array]:
        """Return |J v|, its dual direction u, and v after steps of the power method."""
        point, best = self.full(x), np.full(len(x), -np.inf)
        best_u, best_v = np.zeros((len(x), len(self.pick))), v
        for step in range(count + 1):
            image = np.asarray(self._push(point, self.full(v))).reshape(len(x), -1) @ self.pick.T
            size = np.nan_to_num(_norm(image, self.output), nan=0.0, posinf=0.0)
            u = _dual(image, self.output)
            better = (size > best)[:, None]
            best = np.maximum(size, best)
            best_u, best_v = np.where(better, u, best_u), np.where(better, v, best_v)
            if step < count:
                v = _ball(np.nan_to_num(self.flat(self._pull(point, u @ self.pick))), self.norm)
        return best, best_u @ self.pick, best_v

    def quotient(self, x: Array, v: Array) -> Array:
        """Return the difference quotients along v close to x."""
        h = _NEAR * np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-3)
        ends = [self._value(self.full(x + s * h * v)) for s in (1.0, -1.0)]
        change = (np.asarray(ends[0]) - np.asarray(ends[1])).reshape(len(x), -1) @ self.pick.T
        step = {"2": 2, "1": 1, "inf": np.inf}[self.norm]
        length = np.linalg.norm((x + h * v) - (x - h * v), ord=step, axis=1)
        size = _norm(change, self.output) / length
        return np.asarray(np.nan_to_num(size, nan=0.0, posinf=0.0))

    def inside(self, x: Array) -> Array:
        """Return the points moved into the region, off the corners and centres of its box."""
        if self.low is None or self.high is None:
            return x
        margin = (self.high - self.low) * 10.0 ** self.rng.uniform(-9, -6, x.shape)
        low, high = self.low + margin, self.high - margin
        middle = (self.low + self.high) / 2
        return drawn_in(self.region, np.where(low <= high, np.clip(x, low, high), middle))

    def full(self, x: Array) -> Array:
        return x.reshape(len(x), *self.shape)

    def flat(self, x: Any) -> Array:
        return np.asarray(x, dtype=np.float64).reshape(len(x), -1)


@lru_cache(maxsize=64)
def _compiled(structure: Structure) -> Any:
    """Return f, J v, J^T u and the gradient of u^T J v by the point, for batches."""
    import jax

    backend = jax_backend()

    def value(weights: Any, x: Any) -> Any:
        return structure.apply(backend, weights, [x]).reshape(x.shape[0], -1)

    def push(weights: Any, x: Any, v: Any) -> Any:
        return jax.jvp(lambda at: value(weights, at), (x,), (v,))[1]

    def pull(weights: Any, x: Any, u: Any) -> Any:
        return jax.vjp(lambda at: value(weights, at), x)[1](u)[0]

    def slope(weights: Any, x: Any, v: Any, u: Any) -> Any:
        return jax.grad(lambda at: (u * push(weights, at, v)).sum())(x)

    return tuple(jax.jit(function) for function in (value, push, pull, slope))
