r"""A lower bound of the Lipschitz constant: the largest Jacobian norm that a search finds.

.. math:: L \ge \|W_l D_{l-1} W_{l-1} \cdots D_1 W_1\|_2

at any point where the activations are differentiable, D_k their Jacobians there. Many points climb
at once: each step changes some coordinates of each point and keeps what is better. Where the first
layer is onto, the coordinates are its pre-activations, so that a step flips chosen neurons.
"""

import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tangency.verify.certificate.layers import GroupSort
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.clock import Clock, TimeUp
from tangency.verify.lipschitz.scaling import norm_exponents, reduced

__all__ = ["attack", "is_small"]

_POINTS = 96
_WORK = 2.5e9  # multiplications in all, well under a second on one core
_LARGE = 4.0  # times that, for the fewest steps: beyond, whole Jacobians are too dear
_STEPS = (40, 600)


def is_small(chain: Chain) -> bool:
    """Return whether whole Jacobians, of many points at once, cost little."""
    return _STEPS[0] * _work(chain, min(chain.sizes[:2])) <= _LARGE * _WORK


def attack(chain: Chain, *, seed: int = 0, clock: Clock | None = None) -> float | None:
    """Return a lower bound of the l2 Lipschitz constant of a chain.

    Parameters
    ----------
    chain : Chain
        With a function for each activation that is not GroupSort; weights with a radius are taken
        at their midpoints.
    seed : int
        The search is deterministic but for its end by time.
    clock : Clock, optional
        Looked at before each layer of each step.

    Returns
    -------
    float or None
        The norm of a Jacobian at a point, rounded down by 1e-12 relative; it is computed in float64
        and not proved. None if a function is not known.

    Examples
    --------
    >>> round(attack(Chain.from_matrices([np.eye(2), 3 * np.eye(2)])), 6)
    3.0
    """
    pairs = zip(chain.activations, chain.functions, strict=True)
    if any(f is None and not isinstance(a, GroupSort) for a, f in pairs):
        return None
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        problem = _prepare(chain, Clock(None) if clock is None else clock)
        best = _climb(problem, rng) if chain.activations else problem.norms(np.zeros((1, 1)))[0]
        root = best * (1.0 - 1e-12)
        try:
            return math.ldexp(root, problem.exponent) if math.isfinite(root) else 0.0
        except OverflowError:
            return 0.0


@dataclass(frozen=True, eq=False)
class _Problem:
    """The chain in reduced coordinates u: the first pre-activation is `entry` u + bias."""

    chain: Chain
    weights: list[Array]  # for the forward pass
    biases: list[Array]
    factors: list[Array]  # for the Jacobian, of norm about one
    exponent: int
    entry: Array
    scale: float
    clock: Clock

    def norms(self, u: Array) -> Array:
        """Return the Jacobian norm at each row of u."""
        jacobian = self.factors[0]
        if self.chain.activations:
            z = u @ self.entry.T + self.biases[0]
            for k in range(len(self.chain.activations)):
                self.clock.check()
                x, jacobian = self._activate(k, z, jacobian)
                jacobian = self.factors[k + 1] @ jacobian
                z = x @ self.weights[k + 1].T + self.biases[k + 1]
        jacobian = jacobian if jacobian.ndim == 3 else jacobian[None]
        finite = np.isfinite(jacobian).all(axis=(1, 2), keepdims=True)
        jacobian = np.where(finite, jacobian, 0.0)
        if jacobian.shape[1] > jacobian.shape[2]:
            jacobian = jacobian.swapaxes(1, 2)
        gram = jacobian @ jacobian.swapaxes(1, 2)
        values: Array = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0.0))
        return values

    def _activate(self, k: int, z: Array, jacobian: Array) -> tuple[Array, Array]:
        activation, function = self.chain.activations[k], self.chain.functions[k]
        jacobian = np.broadcast_to(jacobian, (len(z), *jacobian.shape[-2:]))
        if isinstance(activation, GroupSort):
            groups = z.reshape(len(z), -1, activation.size)
            order = np.argsort(-groups if activation.descending else groups, axis=-1)
            order = order + np.arange(0, z.shape[1], activation.size)[:, None]
            index = order.reshape(len(z), -1)
            moved = np.take_along_axis(jacobian, index[:, :, None], axis=1)
            return np.take_along_axis(z, index, axis=1), moved
        assert function is not None
        return function.value(z), function.derivative(z)[:, :, None] * jacobian


def _prepare(chain: Chain, clock: Clock) -> _Problem:
    """Return the search problem, rescaled where the activations commute with scaling."""
    exponents = norm_exponents(chain)
    factors = [np.ldexp(w.midpoint, -e) for w, e in zip(chain.weights, exponents, strict=True)]
    biases = [np.zeros(n) if b is None else b
              for b, n in zip(chain.biases, chain.sizes[1:], strict=True)]  # fmt: skip
    forward = [w.midpoint for w in chain.weights]
    pairs = zip(chain.activations, chain.functions, strict=True)
    if all(isinstance(a, GroupSort) or (f is not None and f.homogeneous) for a, f in pairs):
        forward = factors
        shifts = np.cumsum(exponents)
        biases = [np.ldexp(b, -int(s)) for b, s in zip(biases, shifts, strict=True)]
    first, forward = reduced(forward[0]), list(forward)
    factors[0] = reduced(factors[0])
    forward[0] = first
    onto = first.shape[0] == first.shape[1] and np.linalg.cond(first) < 1e8
    if onto:
        entry, scale = np.eye(first.shape[0]), 1.0
        biases[0] = np.zeros_like(biases[0])  # the pre-activation itself is the coordinate
    else:
        entry, scale = first, 1.0
    spread = max(float(np.abs(b).max(initial=0.0)) for b in biases)
    return _Problem(
        chain, forward, biases, factors, sum(exponents), entry, max(scale, spread), clock
    )


def _climb(problem: _Problem, rng: np.random.Generator) -> float:
    """Return the best Jacobian norm of a population of points."""
    dimension = problem.entry.shape[1]
    steps = int(np.clip(_WORK / _work(problem.chain, dimension), *_STEPS))
    reach = problem.scale * 10.0 ** rng.uniform(-2, 2, (_POINTS, 1))
    u = reach * rng.standard_normal((_POINTS, dimension))
    value = np.zeros(_POINTS)
    with suppress(TimeUp):
        value = problem.norms(u)
        _improve(problem, rng, u, value, reach, steps)
    return float(value.max())


def _work(chain: Chain, dimension: int) -> float:
    """Return the multiplications of one step."""
    sizes = chain.sizes
    narrow = min(dimension, sizes[-1])
    products = sum(a * b for a, b in pairwise(sizes[1:]))
    return float(_POINTS * (dimension * products + 20 * narrow**3))


def _improve(
    problem: _Problem, rng: np.random.Generator, u: Array, value: Array, reach: Array, steps: int
) -> None:
    """Move the points, in place, and keep what is better."""
    dimension = u.shape[1]
    for step in range(steps):
        trial = u.copy()
        share = rng.choice([1.5 / dimension, 0.1, 0.3, 1.0], (_POINTS, 1))
        chosen = rng.random(u.shape) < share
        kind = rng.random((_POINTS, 1))
        fresh = reach * rng.standard_normal(u.shape)
        near = u + fresh * 10.0 ** rng.uniform(-3, 0, (_POINTS, 1))
        move = np.where(kind < 0.3, -u, np.where(kind < 0.6, fresh, near))
        trial[chosen] = move[chosen]
        found = problem.norms(trial)
        better = found > value
        u[better], value[better] = trial[better], found[better]
        if step % 40 == 39:  # the worse half starts again from the better one
            order = np.argsort(value)
            half = _POINTS // 2
            u[order[:half]] = u[order[-half:]]
            value[order[:half]] = value[order[-half:]]
