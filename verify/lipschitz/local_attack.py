r"""A lower bound of the Lipschitz constant on a box: ascent of the Jacobian's norm inside it.

.. math:: L \ge \|J(x)\|_{p \to q} \ge \|J(x)\,v\|_q / \|v\|_p

at any point x in the interior where f is differentiable, for any direction v. The direction is
improved by power iteration [1]_, the point by projected gradient ascent of :math:`u^T J(x) v`. The
derivative of a slope is taken as a difference quotient as wide as the activation's input varies, so
that kinks nearby attract or repel too; the norms themselves are those of true Jacobians.

References
----------
.. [1] D. W. Boyd, Linear Algebra Appl. 9 (1974), The power method for l^p norms.
"""

import math
from contextlib import suppress
from typing import Any

import numpy as np

from tangency.verify.certificate.layers import GroupSort, Residual
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.clock import Clock, TimeUp
from tangency.verify.sets import Ball, Region

__all__ = ["attack_box", "drawn_in"]

_POINTS = 64
_DRAWN = 1024  # points that those are chosen from
_STEPS = (8, 60)
_WORK = 4e8  # multiplications in all
_POWER = 3  # steps of the power method for each step of the point


def attack_box(
    chain: Chain,
    box: Region,
    *,
    norm: str = "2",
    output: str = "2",
    seed: int = 0,
    clock: Clock | None = None,
) -> float | None:
    """Return a lower bound of the constant of a chain on a box or a ball.

    Parameters
    ----------
    chain : Chain
        With a function for each activation but GroupSort; weights are taken at their midpoints.
    box : Box or Ball
        One, of as many entries as the chain has inputs.
    norm : {"2", "1", "inf"}
        Of the input.
    output : {"2", "1", "inf"} or "margin:i,j"
        Of the output.
    seed : int
        The search is deterministic but for its end by time.
    clock : Clock, optional
        Looked at before each step of the power method.

    Returns
    -------
    float or None
        A norm of a Jacobian, rounded down by 1e-12 relative; it is computed in float64 and not
        proved. None if a function is not known.

    Examples
    --------
    >>> from tangency.verify.bounds import Box
    >>> chain = Chain.from_matrices([[[1.0], [1.0]], [[3.0, -1.0]]], "relu")
    >>> round(attack_box(chain, Box(np.array([-1.0]), np.array([1.0]))), 9)
    2.0
    """
    pairs = zip(chain.activations, chain.functions, strict=True)
    if any(
        isinstance(a, Residual) or (f is None and not isinstance(a, GroupSort)) for a, f in pairs
    ):
        return None
    with np.errstate(all="ignore"):
        search = _Search(chain, box, norm, output, Clock(None) if clock is None else clock)
        with suppress(TimeUp):
            search.run(np.random.default_rng(seed))
        best = search.best * (1.0 - 1e-12)
    return best if math.isfinite(best) else 0.0


def drawn_in(region: Region | None, x: Array) -> Array:
    """Return points of the box around a region, ``(N, n)``, drawn into it towards its centre.

    Examples
    --------
    >>> drawn_in(Ball(np.zeros(2), 1.0), np.array([[3.0, 4.0], [0.1, 0.0]])).round(6)
    array([[0.6, 0.8],
           [0.1, 0. ]])
    """
    if not isinstance(region, Ball):
        return x
    centre = region.center.reshape(-1)
    size = np.linalg.norm(x - centre, ord=region.norm, axis=1, keepdims=True)
    share = np.asarray(region.eps).reshape(-1) * (1.0 - 1e-9) / np.maximum(size, 1e-300)
    return np.where(share < 1.0, centre + share * (x - centre), x)


class _Search:
    """A population of points and directions."""

    def __init__(self, chain: Chain, region: Region, norm: str, output: str, clock: Clock) -> None:
        self.clock, self.best = clock, 0.0
        self.chain, self.region, box = chain, region, region.interval
        self.low, self.high = box.lower.reshape(-1), box.upper.reshape(-1)
        self.weights = [w.midpoint for w in chain.weights]
        self.biases = [
            np.zeros(w.shape[0]) if b is None else b
            for w, b in zip(self.weights, chain.biases, strict=True)
        ]
        self.norm = norm
        self.output, _, margin = output.partition(":")
        if margin:
            i, j = map(int, margin.split(","))
            self.weights[-1] = self.weights[-1][[i]] - self.weights[-1][[j]]
            self.biases[-1] = np.zeros(1)
            self.output = "2"

    def run(self, rng: np.random.Generator) -> None:
        """Search; the best norm found is `best`, at any time."""
        size = sum(w.size for w in self.weights)
        steps = int(np.clip(_WORK / (_POINTS * size * (2 * _POWER + 5)), *_STEPS))
        width = self.high - self.low
        drawn = int(np.clip(_WORK / (3 * size * (8 * _POWER + 1)), _POINTS, _DRAWN))
        # A different distance from the edges for each point and entry: no point of the grid of
        # corners and centres, where many kinks may meet and slopes have no meaning.
        margin = width * 10.0 ** rng.uniform(-9, -6, (drawn, len(width)))
        low, high = self.low + margin, self.high - margin
        x = self.low + width * rng.uniform(0, 1, (drawn, len(width)))
        near = 10.0 ** rng.uniform(-4, 0, (len(x[1::4]), 1))
        x[1::4] = (x[1::4] - self.low - width / 2) * near + self.low + width / 2
        x[::4] = np.where(rng.random(x[::4].shape) < 0.5, low[::4], high[::4])  # corners
        x = np.where(low <= high, np.clip(x, low, high), (self.low + self.high) / 2)
        x = drawn_in(self.region, x)
        v = _ball(rng.standard_normal(x.shape), self.norm)
        chosen = np.argsort(-self.values(x, v, _POWER)[0], kind="stable")[:_POINTS]
        x, v, low, high = x[chosen], v[chosen], low[chosen], high[chosen]
        value, u, v, slopes, z = self.values(x, v, 4 * _POWER)
        reach = np.full((_POINTS, 1), 0.25)
        for step in range(steps):
            gradient = self.gradient(u, v, slopes, z)
            kind = rng.random((_POINTS, 1))
            move = np.where(kind < 0.7, np.sign(gradient), rng.uniform(-1, 1, x.shape))
            trial = x + reach * width * move
            trial = np.where(low <= high, np.clip(trial, low, high), x)
            trial = drawn_in(self.region, trial)
            found = self.values(trial, v, _POWER)
            better = found[0] > value
            value = np.where(better, found[0], value)
            x[better], u[better], v[better] = trial[better], found[1][better], found[2][better]
            for mine, theirs in zip((*slopes, *z), (*found[3], *found[4]), strict=True):
                mine[better] = theirs[better]
            reach = np.where(better[:, None], np.minimum(2 * reach, 0.5), reach * 0.6)
            if step % 15 == 14:
                reach = np.maximum(reach, 10.0 ** rng.uniform(-4, -0.5, reach.shape))
        self.values(x, v, 20)

    def values(
        self, x: Array, v: Array, count: int
    ) -> tuple[Array, Array, Array, list[Any], list[Array]]:
        """Return |J v| / |v|, its direction u, a better v, the slopes and pre-activations at x."""
        slopes: list[Any] = []
        inputs: list[Array] = []
        for k, activation in enumerate(self.chain.activations):
            z = x @ self.weights[k].T + self.biases[k]
            inputs.append(z)
            function = self.chain.functions[k]
            if isinstance(activation, GroupSort):
                index = _order(z, activation)
                slopes.append(index)
                x = np.take_along_axis(z, index, axis=1)
            else:
                assert function is not None
                slopes.append(np.nan_to_num(function.derivative(z), posinf=0.0, neginf=0.0))
                x = function.value(z)
        best = np.full(len(v), -np.inf)
        best_u, best_v = np.zeros((len(v), self.weights[-1].shape[0])), v
        for step in range(count + 1):
            self.clock.check()
            forward = self.push(v, slopes)
            size = np.nan_to_num(_norm(forward, self.output), nan=0.0, posinf=0.0)
            u = _dual(forward, self.output)
            better = (size > best)[:, None]
            best = np.maximum(size, best)
            self.best = max(self.best, float(best.max()))
            best_u, best_v = np.where(better, u, best_u), np.where(better, v, best_v)
            if step < count:
                v = _ball(self.pull(u, slopes), self.norm)
        return best, best_u, best_v, slopes, inputs

    def push(self, v: Array, slopes: list[Any]) -> Array:
        """Return J v."""
        for k, slope in enumerate(slopes):
            v = self.through(k, v @ self.weights[k].T, slope)
        return np.asarray(v @ self.weights[-1].T)

    def pull(self, u: Array, slopes: list[Any]) -> Array:
        """Return J^T u."""
        for k in range(len(slopes), 0, -1):
            u = self.back(k - 1, u @ self.weights[k], slopes[k - 1])
        return np.asarray(u @ self.weights[0])

    def through(self, k: int, t: Array, slope: Any) -> Any:
        if isinstance(self.chain.activations[k], GroupSort):
            return np.take_along_axis(t, slope, axis=1)
        return slope * t

    def back(self, k: int, t: Array, slope: Any) -> Any:
        if not isinstance(self.chain.activations[k], GroupSort):
            return slope * t
        out = np.empty_like(t)
        np.put_along_axis(out, slope, t, axis=1)
        return out

    def gradient(self, u: Array, v: Array, slopes: list[Any], inputs: list[Array]) -> Array:
        """Return the gradient of u^T J(x) v by x, kinks smoothed."""
        tangents = []
        for k, slope in enumerate(slopes):
            tangents.append(v @ self.weights[k].T)
            v = self.through(k, tangents[-1], slope)
        tangent = u @ self.weights[-1]  # adjoint of the tangent behind the activation
        value = np.zeros_like(tangent)  # adjoint of the value there
        for k in range(len(slopes) - 1, -1, -1):
            down = self.back(k, value, slopes[k])
            function = self.chain.functions[k]
            if function is not None:
                width = 0.1 * inputs[k].std(axis=0) + 1e-12
                high, low = (function.derivative(inputs[k] + s * width) for s in (1.0, -1.0))
                curvature = np.nan_to_num((high - low) / (2 * width), posinf=0.0, neginf=0.0)
                down = down + curvature * tangents[k] * tangent
            tangent = self.back(k, tangent, slopes[k]) @ self.weights[k]
            value = down @ self.weights[k]
        return np.nan_to_num(value)


def _order(z: Array, activation: GroupSort) -> Any:
    groups = z.reshape(len(z), -1, activation.size)
    order = np.argsort(-groups if activation.descending else groups, axis=-1, kind="stable")
    start = np.arange(0, z.shape[1], activation.size)[:, None]
    return (order + start).reshape(len(z), -1)


def _norm(x: Array, norm: str) -> Array:
    """Norms of rows."""
    if norm == "2":
        return np.asarray(np.linalg.norm(x, axis=1))
    size = np.abs(x)
    return np.asarray(size.sum(axis=1) if norm == "1" else size.max(axis=1))


def _dual(x: Array, norm: str) -> Array:
    """Rows u of dual norm one with u^T x = |x|."""
    if norm == "2":
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300))
    if norm == "1":
        return np.where(x < 0, -1.0, 1.0)
    return _peaks(x)


def _ball(g: Array, norm: str) -> Array:
    """Rows v of norm one that maximise g^T v."""
    if norm == "1":
        return _peaks(g)
    if norm == "inf":
        return np.where(g < 0, -1.0, 1.0)
    size = np.linalg.norm(g, axis=1, keepdims=True)
    return np.where(size > 0, g / np.maximum(size, 1e-300), 1.0 / math.sqrt(g.shape[1]))


def _peaks(x: Array) -> Array:
    """Rows of zeros but for the sign of the largest entry."""
    where: Any = np.abs(x).argmax(axis=1)[:, None]
    out = np.zeros_like(x)
    np.put_along_axis(out, where, np.where(np.take_along_axis(x, where, 1) < 0, -1.0, 1.0), 1)
    return out
