"""The search for channel-shared multipliers: barriers that fall, Newton's method, best point kept.

At each weight mu of the barrier L-BFGS runs until the gradient is small beside mu, with the Hessian
of all layers, renewed every few steps, as its first matrix. The path begins where the barrier
outweighs the bound: begun later, the search ends in a corner far above the optimum, since a
frequency has but a small share of the barrier. Layers that sort are searched twice: with diagonal
multipliers of the sums, then from the middle of that path with a matrix of them, by L-BFGS alone.
A dense head takes its best share of each frequency now and then on the way.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.conv.curvature import preconditioner
from tangency.verify.lipschitz.conv.recursion import Problem, State
from tangency.verify.lipschitz.engine.lbfgs import Memory

__all__ = ["Found", "minimise"]

#: Times the number of neurons: the barrier at first, that below which it falls faster, and that at
#: which multipliers of sums become matrices.
FIRST, EASY, FREED = 30.0, 3.0, 0.1
FALL, STEEPEST = 0.6, 0.1  # of the barrier
STEPS, LONG, CAP, TOLERANCE = 30, 200, 1.5, 0.3  # steps of a level, with Hessians and without
REFRESH, WHOLE = 3, 3000  # steps for which a Hessian serves, multipliers it is computed for


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
    head : (f, m, m) array or None
        J of a dense head.
    """

    theta: Array
    square: float
    gap: float
    steps: int
    finished: bool
    head: npt.NDArray[np.complex128] | None = None


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
        The barrier falls until the gap that it leaves is estimated below this.
    progress : callable, optional
        Called with the square of the bound whenever it falls by a percent.
    """
    deadline = math.inf if time_limit is None else time.perf_counter() + time_limit
    search = _Search(deadline, rtol, progress)
    sorts = any(neurons.size > 1 for neurons in problem.neurons)
    if sorts and time_limit is not None:
        search.deadline = deadline - 0.6 * time_limit
    count = sum(w.shape[2] for w in problem.weights)
    start = problem.start()
    if start is not None:
        search.run(problem, start, FIRST / count)
    if search.best is None:
        return None
    if sorts and search.middle is not None:  # again, with a matrix of multipliers for the sums
        problem.set_head(search.middle.head)
        search.anchor, search.finished, search.deadline = None, False, deadline
        search.run(problem, problem.free_sums(search.middle.theta), FREED / count)
    best = search.best
    return Found(best.theta, best.square, search.gap, search.steps, search.finished, best.head)


class _Search:
    """A path of falling barriers.

    `anchor` is the minimum at the barrier `mu`, the last that was reached.
    """

    def __init__(
        self, deadline: float, rtol: float, progress: Callable[[float], None] | None
    ) -> None:
        self.deadline, self.rtol, self.progress = deadline, rtol, progress
        self.best: State | None = None
        self.anchor: State | None = None
        self.middle: State | None = None  # the last minimum above FREED
        self.mu, self.gap, self.finished = math.inf, math.inf, False
        self.steps, self.shown = 0, math.inf

    def offer(self, state: State) -> None:
        if self.best is None or state.square < self.best.square:
            self.best = state
        if self.progress is not None and self.best.square < 0.98 * self.shown:
            self.shown = self.best.square
            self.progress(self.shown)

    def run(self, problem: Problem, theta: Array, mu: float) -> None:
        """Follow the path from mu until the gap is small."""
        # At the barrier's minimum log rho lies this many mu above the optimum at most.
        count = sum(w.shape[2] for w in problem.weights)
        floor = 0.2 * self.rtol / count
        shrink = FALL
        state = problem.evaluate(theta, mu)
        if state is None:
            return
        self.offer(state)
        try:
            while time.perf_counter() < self.deadline:
                begin = state.value
                state, taken, settled = self._level(problem, state, mu)
                if settled:
                    before, last = self.anchor, self.mu
                    self.anchor, self.mu, self.gap = state, mu, 0.5 * count * mu
                    if before is not None and last > mu:
                        fall = 0.5 * math.log(before.square / state.square)
                        if fall > 0.0:  # the distance to the optimum is about proportional to mu
                            self.gap = min(self.gap, fall * mu / (last - mu))
                    if mu <= floor or self.gap < 0.5 * self.rtol:
                        self.finished = True
                        return
                    if mu >= FREED / count:
                        self.middle = state
                    if mu < EASY / count:
                        shrink = shrink**1.5 if taken <= 5 else shrink
                        shrink = max(shrink, STEEPEST)
                    mu = max(shrink * mu, floor)
                elif state.value > begin - 1e-4 * mu:  # rounding errors leave no way down
                    return
                again = problem.evaluate(state.theta, mu)
                if again is None:
                    return
                state = again
        except KeyboardInterrupt:
            self.finished = False

    def _level(self, problem: Problem, state: State, mu: float) -> tuple[State, int, bool]:
        """Minimise at one weight of the barrier: the point, the steps, whether it settled."""
        memory = Memory(30)
        state = problem.improve_head(state, mu)
        slope, _ = problem.gradient(state, mu)
        curved = len(state.theta) == problem.size_theta <= WHOLE
        first: Callable[[Array], Array] | None = None
        limit = STEPS if curved else LONG
        for taken in range(limit):
            if float(np.abs(slope).max()) < TOLERANCE * mu:
                return state, taken, True
            if time.perf_counter() > self.deadline:
                return state, taken, False
            if taken and taken % REFRESH == 0 and problem.head is not None:
                state = problem.improve_head(state, mu)
                slope, _ = problem.gradient(state, mu)
                memory.clear()
            if curved and taken % REFRESH == 0:
                found = preconditioner(problem, state, slope, mu)
                if found is not None:
                    first = found
                    memory.clear()
            way = memory.direction(slope, first)
            if float(way @ slope) >= 0.0 or (first is None and not taken):
                memory.clear()
                first = None
                way = -slope / float(np.abs(slope).max()) * 0.1
            way *= min(1.0, CAP / float(np.abs(way).max()))
            trial = _line(problem, state, way, float(way @ slope), mu)
            if trial is None:
                return state, taken, False
            after, _ = problem.gradient(trial, mu)
            memory.add(trial.theta - state.theta, after - slope)
            state, slope = trial, after
            self.steps += 1
            self.offer(state)
        return state, limit, False


def _line(problem: Problem, state: State, way: Array, rate: float, mu: float) -> State | None:
    """Shorten the step until the value falls enough; None where it does not."""
    step = 1.0
    noise = 1e-13 * max(1.0, abs(state.value))
    for _ in range(30):
        found = problem.evaluate(state.theta + step * way, mu)
        if found is not None and found.value <= state.value + 1e-4 * step * rate:
            return found
        if -step * rate < noise:
            return None
        step *= 0.5
    return None
