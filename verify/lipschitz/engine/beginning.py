"""Where the engine's search begins: the best of the points that closed forms give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.eclipse import EDGE, eclipse_start, takes_eclipse
from tangency.verify.lipschitz.engine.assemble import Assembly
from tangency.verify.lipschitz.engine.coarse import coarse_start, takes_coarse
from tangency.verify.lipschitz.engine.objective import Objective, State
from tangency.verify.lipschitz.engine.solve import FIRST

__all__ = ["Begun", "begin_search"]

AFTER_COARSE = 3e-3  # mu: what a larger one would change, the small chain has settled
_SHARE, _LONGEST = 1 / 12, 20.0  # of the time, and seconds, for the small chain
_TILT = 1e-3  # of the multipliers of each layer above the next, where a pivot needs room


@dataclass(frozen=True, eq=False)
class Begun:
    """The first point of a search.

    Parameters
    ----------
    theta : (d,) array
    mu : float or None
        The barrier's first weight; None for what the search chooses.
    interrupted : bool
        Whether the user asked for the end already.
    edge : (d,) array or None
        ECLipsE-Fast's own multipliers, at the edge of what is positive: where the search had no
        time to pass them, they are what is proved.
    edge_square : float
        The square of its bound.
    """

    theta: Array
    mu: float | None = None
    interrupted: bool = False
    edge: Array | None = None
    edge_square: float = math.inf

    def better(self, theta: Array, square: float) -> Array:
        """Return the better of a search's last point and the edge."""
        return theta if self.edge is None or square <= self.edge_square else self.edge


def begin_search(
    chain: Chain,
    weights: Sequence[Array],
    exponents: Sequence[int],
    assembly: Assembly,
    objective: Objective,
    *,
    time_limit: float | None = None,
) -> Begun | None:
    """Return the first point of a search, or None where the storages leave float64.

    Parameters
    ----------
    chain : Chain
    weights : sequence of (n_k, n_{k-1}) arrays
        Divided by 2**exponents, the last that of the output searched for.
    exponents : sequence of int
    assembly : Assembly
        Of these weights.
    objective : Objective
        Of the assembly.
    time_limit : float, optional
        Seconds for the whole search.
    """
    theta = np.zeros(objective.size)
    begin = objective.parts[0].stop
    # An l1 output begins with nu = m: all storages are m times those of l2.
    growth = math.log(weights[-1].shape[0]) if objective.output == "1" else 0.0
    theta[begin : begin + assembly.start.size] = assembly.start + growth
    if objective.norm == "inf":
        storage = objective.input_storage(theta)
        if storage is None:
            return None
        # A diagonal matrix above Y_0: the sums of its rows in absolute value.
        sums = np.abs(storage).sum(axis=1)
        theta[objective.parts[0]] = np.log(np.maximum(2.0 * sums, 1e-12 * sums.max()))
    if objective.norm != "2" or objective.output != "2":
        return Begun(theta)
    state: State | None = None
    if takes_coarse(assembly.layers):
        share = _LONGEST if time_limit is None else min(_SHARE * time_limit, _LONGEST)
        try:
            coarse = coarse_start(
                assembly.layers, assembly.last, time_limit=share, check=objective.clock.check
            )
        except KeyboardInterrupt:
            return Begun(theta, interrupted=True)
        state = None if coarse is None else _evaluated(objective, coarse)
    if not takes_eclipse(chain):
        return Begun(theta) if state is None else Begun(state.theta, AFTER_COARSE)
    other = objective.evaluate(eclipse_start(list(weights), assembly, exponents), FIRST)
    if other is None:
        return Begun(theta) if state is None else Begun(state.theta, AFTER_COARSE)
    if state is not None and state.square <= other.square:
        return Begun(state.theta, AFTER_COARSE)
    return Begun(other.theta, edge=other.theta - EDGE, edge_square=other.square * math.exp(-EDGE))


def _evaluated(objective: Objective, theta: Array) -> State | None:
    """Return the state at a point, or at one nearby where every pivot has room."""
    state = objective.evaluate(theta, AFTER_COARSE)
    if state is None:
        layers = len(objective.counts)
        tilt = np.repeat(np.arange(layers, 0, -1), objective.counts)
        state = objective.evaluate(theta + _TILT * tilt, AFTER_COARSE)
    return state
