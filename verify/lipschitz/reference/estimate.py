"""What a conic solver says of an inequality: a number that is not proved, and its residual."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError

__all__ = ["SOLVERS", "Estimate", "minimise"]

SOLVERS = ("scs", "clarabel")


@dataclass(frozen=True)
class Estimate:
    """The optimum of an inequality as a solver found it.

    Parameters
    ----------
    value : float
        The bound of the Lipschitz constant that the solver found; an estimate.
    residual : float
        How far the solver's point violates the inequalities: the most negative eigenvalue or
        entry, zero where there is none. Computed in float64.
    status : str
        The solver's own word; nothing depends on it.
    solver : str
        "scs" or "clarabel".
    seconds : float
        Assembly by cvxpy and solution.
    proved : bool
        Always False: only `tangency.verify.certificate` proves.
    """

    value: float
    residual: float
    status: str
    solver: str
    seconds: float
    proved: bool = False


def minimise(
    objective: Any, matrices: Sequence[Any], signed: Sequence[Any], *, solver: str, eps: float
) -> tuple[float, float, str, float]:
    """Minimise an expression subject to symmetric matrices >= 0 and nonnegative vectors.

    Parameters
    ----------
    objective : cvxpy expression
    matrices : sequence of (n, n) cvxpy expressions
        Positive semidefinite; symmetric in exact arithmetic.
    signed : sequence of cvxpy variables
        Nonnegative.
    solver : {"scs", "clarabel"}
    eps : float
        Accuracy asked of SCS.

    Returns
    -------
    value, residual, status, seconds

    Raises
    ------
    InputError
        If the solver is unknown.
    NotProvedError
        If it returns no point.
    """
    import cvxpy

    if solver not in SOLVERS:
        raise InputError(f"unknown solver {solver!r}: give one of {', '.join(SOLVERS)}")
    begin = time.perf_counter()
    halves = [(m + m.T) / 2 for m in matrices]
    constraints = [h >> 0 for h in halves] + [v >= 0 for v in signed]
    problem = cvxpy.Problem(cvxpy.Minimize(objective), constraints)
    options: dict[str, Any] = {"solver": solver.upper()}
    if solver == "scs":
        options |= {"eps_abs": eps, "eps_rel": eps, "max_iters": 50000}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # an inaccurate solution shows in the residual
        try:
            problem.solve(**options)
        except cvxpy.error.SolverError as error:
            raise NotProvedError(f"{solver} found no point: {error}") from None
    if objective.value is None:
        raise NotProvedError(f"{solver} found no point: its status is {problem.status}")
    least = [float(np.linalg.eigvalsh(h.value)[0]) for h in halves]
    least += [float(np.min(v.value)) for v in signed]
    seconds = time.perf_counter() - begin
    return float(objective.value), max(0.0, -min(least)), str(problem.status), seconds
