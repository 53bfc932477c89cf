r"""Minimise the engine's objective: a path of barriers, quasi-Newton first, then Newton.

The weight mu of the barrier falls from 3e-2. At each mu L-BFGS runs until the gradient is small
beside mu; below `CURVED`, for chains of at most `WHOLE` multipliers, the Hessian of all layers
replaces its first matrix every few steps. (Measured: far from the optimum plain L-BFGS is faster;
Hessians of windows of layers, with or without a coarse level, do not pay for larger chains.) Every
point at which the objective is finite is a valid bound: the best one so far is kept, and a time
limit or an interrupt returns it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.clock import Clock, TimeUp, now
from tangency.verify.lipschitz.engine.curvature import preconditioner
from tangency.verify.lipschitz.engine.lbfgs import Memory
from tangency.verify.lipschitz.engine.objective import Objective, State

__all__ = ["Keep", "Solution", "minimise"]

FIRST, HURRIED, LAST = 3e-2, 1e-2, 1e-9
FEW = 200  # steps in the time limit, below which the path begins at HURRIED
CURVED = 2e-3
WHOLE, REFRESH, STEPS = 4200, 8, 150
EARLY = 250  # steps at most where mu >= CURVED: deep chains go astray if hurried there
CAP = 1.5  # the longest step in a logarithm


@dataclass(frozen=True, eq=False)
class Solution:
    """The best point that was found.

    Parameters
    ----------
    theta : (d,) array
    square : float
        The bound's square in the objective's scale.
    gap : float
        An estimate of how far the bound lies above the optimum, relative; not proved.
    steps : int
        Gradients computed.
    finished : bool
        Whether the search ended by itself: not by time, nor by an interrupt.
    """

    theta: Array
    square: float
    gap: float
    steps: int
    finished: bool


#: Called with a point, mu, the bound's square there, and whether the search is over.
Keep: TypeAlias = Callable[[Array, float, float, bool], None]


class _Search:
    def __init__(
        self,
        objective: Objective,
        progress: Callable[[float], None] | None,
        keep: Keep | None = None,
    ) -> None:
        self.objective = objective
        self.progress = progress
        self.keep = keep
        self.best: State | None = None
        self.steps = 0
        self.shown = math.inf
        self.end = math.inf  # the square where the last level ended

    def offer(self, state: State | None) -> None:
        if state is None or (self.best is not None and state.square >= self.best.square):
            return
        self.best = state
        self.objective.clock.found()
        if self.progress is not None and state.square < self.shown * (1.0 - 1e-4):
            self.shown = state.square
            self.progress(state.square)

    def level(self, theta: Array, mu: float, tolerance: float) -> tuple[Array, bool]:
        """Minimise at one mu; return the point and whether the gradient vanished."""
        objective = self.objective
        state = objective.evaluate(theta, mu)
        self.offer(state)
        if state is None:
            return theta, False
        memory = Memory()
        curved = mu < CURVED and _newton(objective)
        first: Callable[[Array], Array] | None = None
        before: tuple[Array, Array] | None = None
        for count in range(STEPS if mu < CURVED else EARLY):
            objective.clock.check()
            if self.keep is not None and self.best is not None:
                self.keep(self.best.theta, mu, self.best.square, False)
            fresh = curved and count % REFRESH == 0
            gradient, adjoints, _ = objective.gradient(state, mu, keep=fresh)
            self.steps += 1
            self.end = state.square
            if before is not None:
                memory.add(theta - before[0], gradient - before[1])
            if float(np.abs(gradient).max(initial=0.0)) <= tolerance * mu:
                return theta, True
            if fresh:
                found = preconditioner(objective, state, adjoints, mu)
                if found is not None:
                    first = found
                    memory.clear()
            direction = memory.direction(gradient, first)
            slope = float(gradient @ direction)
            if not slope < 0.0:
                memory.clear()
                first = None
                direction, slope = -gradient, -float(gradient @ gradient)
            longest = float(np.abs(direction).max())
            step = min(1.0, CAP / longest)
            if first is None and before is None:
                step = min(1.0, 0.5 / longest)
            accepted = self._line(state, direction, slope, step, mu)
            if accepted is None:
                return theta, False
            before = (theta, gradient)
            state, theta = accepted, accepted.theta
            self.offer(state)
        return theta, False

    def _line(
        self, state: State, direction: Array, slope: float, step: float, mu: float
    ) -> State | None:
        """Halve the step until the value falls enough; None where it does not."""
        noise = 1e-14 * max(1.0, abs(state.value))
        for _ in range(30):
            trial = self.objective.evaluate(state.theta + step * direction, mu)
            if trial is not None and trial.value <= state.value + 1e-4 * step * slope:
                return trial
            if -step * slope < noise:
                return None
            step *= 0.5
        return None


def minimise(
    objective: Objective,
    start: Array,
    *,
    time_limit: float | None = None,
    rtol: float = 1e-6,
    progress: Callable[[float], None] | None = None,
    first: float | None = None,
    keep: Keep | None = None,
) -> Solution | None:
    """Return the best point of the objective that was found, or None if the start has no value.

    Parameters
    ----------
    objective : Objective
    start : (d,) array
    time_limit : float, optional
        Seconds from now, in place of the objective's clock.
    rtol : float
        Stop where the estimated distance of the bound to its optimum is below this, relative.
    progress : callable, optional
        Called with the square of each clearly better bound.
    first : float, optional
        The first mu, of a start that an earlier search found.
    keep : callable, optional
        Called at every step with the best point, mu, the bound's square, and whether it is the
        last.
    """
    if time_limit is not None:
        objective.clock = Clock(time_limit)
    search = _Search(objective, progress, keep)
    theta, last, gap, finished = start, math.inf, math.inf, False
    mu = FIRST if first is None else max(first, 2.0 * LAST)
    try:
        left = objective.clock.left()
        if first is None and left < math.inf and _cost(objective, start) * FEW > left:
            mu = HURRIED
        with np.errstate(all="ignore"):  # what overflows is refused
            while mu > LAST:
                theta, settled = search.level(theta, mu, 0.1)
                if search.best is None:
                    return None
                newton = mu < CURVED and _newton(objective)
                shrink = 0.2 if newton else 1.0 / 3.0
                if mu < CURVED and (settled or not newton):
                    # The distance to the optimum is about proportional to mu.
                    fall = 0.5 * math.log(last / search.end)
                    gap = fall * shrink / (1.0 - shrink) if fall > 0.0 else math.inf
                    if gap < 0.5 * rtol:
                        finished = True
                        break
                last = search.end
                mu *= shrink
            else:
                finished = True
    except (TimeUp, KeyboardInterrupt):
        pass
    if search.best is None:
        return None
    if keep is not None:
        keep(search.best.theta, mu, search.best.square, True)
    return Solution(search.best.theta, search.best.square, gap, search.steps, finished)


def _newton(objective: Objective) -> bool:
    """Whether the Hessian is that of `curvature`, and small enough."""
    return 0 < objective.size <= WHOLE and objective.norm != "1" and not objective.tail_count


def _cost(objective: Objective, theta: Array) -> float:
    """Return the seconds of one step."""
    begin = now()
    state = objective.evaluate(theta, FIRST)
    if state is not None:
        objective.gradient(state, FIRST)
    return now() - begin
