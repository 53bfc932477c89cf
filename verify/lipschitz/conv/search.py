"""The search for channel-shared multipliers: barriers that fall, L-BFGS, best point kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.conv.recursion import Problem, State
from tangency.verify.lipschitz.engine.lbfgs import Memory

__all__ = ["Found", "minimise"]

_FIRST, _FALL, _STEPS, _CAP = 3e-2, 0.3, 60, 1.5


@dataclass(frozen=True, eq=False)
class Found:
    """The best multipliers.

    Parameters
    ----------
    theta : (d,) array
        Their logarithms.
    square : float
        The square of the bound in the problem's scale, not proved.
    gap : float
        How far the bound is estimated to lie above the optimum, relative; not proved.
    steps : int
    finished : bool
        Whether the search ended by itself.
    """

    theta: Array
    square: float
    gap: float
    steps: int
    finished: bool


def minimise(
    problem: Problem,
    *,
    time_limit: float | None = None,
    rtol: float = 1e-4,
    progress: Callable[[float], None] | None = None,
) -> Found | None:
    """Return the best point found; None if not even the closed form has a finite objective.

    Parameters
    ----------
    problem : Problem
    time_limit : float, optional
        Seconds.
    rtol : float
        The barrier falls until the gap that it leaves is below this.
    progress : callable, optional
        Called with the square of the bound whenever it falls by a percent.
    """
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    # The barrier's parameter: at its minimum log rho lies this many mu above the optimum at most.
    count = problem.size_theta + problem.weights[0].shape[2]
    last = 2.0 * rtol / count
    mu = _FIRST
    state = problem.evaluate(problem.start(), mu)
    if state is None:
        return None
    best = state
    steps, shown = 0, math.inf
    gap, finished = math.inf, False
    try:
        while time.perf_counter() < deadline:
            state, taken, settled = _level(problem, state, mu, deadline)
            steps += taken
            if state.square < best.square:
                best = state
            if progress is not None and best.square < 0.98 * shown:
                shown = best.square
                progress(shown)
            if settled:
                gap = 0.5 * count * mu
            if mu <= last:
                finished = settled
                break
            mu = max(_FALL * mu, last)
            again = problem.evaluate(state.theta, mu)
            if again is None:
                break
            state = again
    except KeyboardInterrupt:
        finished = False
    return Found(best.theta, best.square, gap, steps, finished)


def _level(problem: Problem, state: State, mu: float, deadline: float) -> tuple[State, int, bool]:
    """Minimise at one weight of the barrier; return the point, the steps, whether it settled."""
    memory = Memory(30)
    slope = problem.gradient(state, mu)
    for taken in range(_STEPS):
        if float(np.abs(slope).max()) < 0.3 * mu:
            return state, taken, True
        if time.perf_counter() > deadline:
            return state, taken, False
        way = memory.direction(slope, None)
        if not taken:
            way = -slope / float(np.abs(slope).max()) * 0.1
        if float(way @ slope) >= 0.0:
            memory.clear()
            way = -slope / float(np.abs(slope).max()) * 0.1
        way *= min(1.0, _CAP / float(np.abs(way).max()))
        found = _line(problem, state, way, float(way @ slope), mu)
        if found is None:
            return state, taken, False
        after = problem.gradient(found, mu)
        memory.add(found.theta - state.theta, after - slope)
        state, slope = found, after
    return state, _STEPS, False


def _line(problem: Problem, state: State, way: Array, rate: float, mu: float) -> State | None:
    step = 1.0
    for _ in range(25):
        found = problem.evaluate(state.theta + step * way, mu)
        if found is not None and found.value <= state.value + 1e-4 * step * rate:
            return found
        step *= 0.4
    return None
