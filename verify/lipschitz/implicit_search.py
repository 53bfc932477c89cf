r"""The search behind `implicit`: multipliers and scalings by cvxpy, repaired until they check.

The sums that GroupSort keeps, and neurons of one slope, are linear equations in (dx, dz): they are
eliminated in the search and penalised in the proof (Finsler's lemma).
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.implicit import ImplicitWitness, check_implicit, check_well_posed
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["proved", "well_posed"]

_LOOSENINGS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def well_posed(weight: Matrix, activation: Slopes | GroupSort, solver: str) -> tuple[str, Array]:
    """Return a proof that the fixed point is unique, or raise."""
    import cvxpy

    n = weight.shape[0]
    ones = np.ones(n)
    w = weight.midpoint
    groups = n
    lower, upper = -ones, ones
    if isinstance(activation, GroupSort):
        groups = activation.groups(n)
    else:
        lower, upper = activation.arrays(n)
    steepest = np.maximum(np.abs(lower), np.abs(upper))
    spread = np.kron(np.eye(groups), np.ones((n // groups, 1)))
    conditions: list[tuple[str, Callable[[Any], Any]]] = [
        (
            "contraction",
            lambda d: (
                cvxpy.diag(d) - (steepest[:, None] * w).T @ cvxpy.diag(d) @ (steepest[:, None] * w)
            ),
        ),
    ]
    if (lower >= 0).all():
        wb = w * upper

        def monotone(d: Any) -> Any:
            return 2 * cvxpy.diag(d) - cvxpy.diag(d) @ wb - wb.T @ cvxpy.diag(d)

        conditions.append(("monotone", monotone))
    for posed, form in conditions:
        if _holds(weight, activation, posed, ones):
            return posed, ones
        unknown, room = cvxpy.Variable(groups), cvxpy.Variable()
        matrix = form(spread @ unknown)
        constraints = [(matrix + matrix.T) / 2 >> room * np.eye(n), unknown >= 0, unknown <= 1]
        _solve(cvxpy.Problem(cvxpy.Maximize(room), constraints), solver)
        if unknown.value is None:
            continue
        scaling = spread @ np.maximum(unknown.value, 1e-9)
        if _holds(weight, activation, posed, scaling):
            return posed, scaling
    size = float(np.linalg.norm(w, 2)) * activation.lipschitz()
    raise NotProvedError(
        "the layer is not proved well-posed, so it has no Lipschitz bound: z = phi(W z + h) must "
        f"have one solution for each h, but |W| Lip(phi) is {size:.6g}, not below 1, no diagonal "
        "scaling makes W a contraction, and no monotone-operator inequality holds"
    )


def _holds(weight: Matrix, activation: Slopes | GroupSort, posed: str, scaling: Array) -> bool:
    try:
        with np.errstate(all="ignore"):
            check_well_posed(weight, activation, posed, scaling)
    except NotProvedError:
        return False
    return True


def proved(
    weight: Matrix,
    inputs: Matrix,
    output: Matrix,
    activation: Slopes | GroupSort,
    posed: str,
    scaling: Array,
    solver: str,
) -> ImplicitWitness | None:
    """Return a checked witness, the least loosened that can be proved, or None."""
    w = weight.midpoint
    sizes = [float(np.linalg.norm(p.midpoint, 2)) for p in (inputs, output)]
    # The row space of U alone matters.
    u = np.asarray(np.linalg.qr(inputs.midpoint.T / sizes[0], mode="r")).T
    c = output.midpoint / sizes[1]
    found = _search(w, u, c, activation, solver)
    if found is None:
        return None
    groups = found.size
    for loosening in _LOOSENINGS:
        strength = (np.maximum(found, 0.0) + loosening * float(found.max())) * (1.0 + loosening)
        penalty = np.zeros(0)
        large = max(float(strength.max()), 1.0) / loosening
        if isinstance(activation, GroupSort):
            penalty = np.full(groups, large)
        else:  # a neuron of one slope is an equation too
            lower, upper = activation.arrays(groups)
            strength = np.where(lower == upper, large, strength)
        matrix = _form(w, u, activation, strength, penalty)
        m = u.shape[1]
        matrix[m:, m:] += c.T @ c
        try:  # q + |C dz|^2 <= rho |dx|^2 by the Schur complement
            factor = np.linalg.cholesky(-matrix[m:, m:])
        except np.linalg.LinAlgError:
            continue
        half = np.linalg.solve(factor, matrix[m:, :m])
        rho = float(np.linalg.eigvalsh(matrix[:m, :m] + half.T @ half)[-1])
        if not rho > 0.0:
            continue
        bound = math.sqrt(rho) * sizes[0] * sizes[1] * (1.0 + loosening)
        witness = ImplicitWitness(
            bound, strength * sizes[1] ** 2, penalty * sizes[1] ** 2, posed, scaling
        )
        try:
            check_implicit(weight, inputs, output, activation, witness)
        except NotProvedError:
            continue
        return witness
    return None


def _form(w: Array, u: Array, activation: Slopes | GroupSort, strength: Any, penalty: Any) -> Any:
    """Return the matrix of q, of numbers or of cvxpy expressions."""
    n, m = u.shape
    z, y = np.hstack([u, w]), np.eye(n, m + n, m)

    def squared(v: Array, weights: Any) -> Any:
        if isinstance(weights, np.ndarray):
            return v.T @ (weights[:, None] * v)
        import cvxpy

        return v.T @ cvxpy.diag(weights) @ v

    if isinstance(activation, GroupSort):
        groups = activation.groups(n)
        spread = np.kron(np.eye(groups), np.ones((activation.size, 1)))
        kept = spread.T @ (z - y)
        found = squared(z, spread @ strength) - squared(y, spread @ strength)
        return found if penalty is None else found - squared(kept, penalty)
    lower, upper = activation.arrays(n)
    # 2 (y - a z)(b z - y), by squares alone: |(b - a) z|^2 / 2 - |2 y - (a + b) z|^2 / 2.
    near, far = (upper - lower)[:, None] * z, 2.0 * y - (lower + upper)[:, None] * z
    return squared(near, strength / 2.0) - squared(far, strength / 2.0)


def _search(
    w: Array, u: Array, c: Array, activation: Slopes | GroupSort, solver: str
) -> Array | None:
    """Return the multipliers that a solver finds, whatever they are worth."""
    import cvxpy

    n, m = u.shape
    groups = activation.groups(n) if isinstance(activation, GroupSort) else n
    strength, rho = cvxpy.Variable(groups), cvxpy.Variable()
    whole = rho * np.diag(np.arange(m + n) < m).astype(float)
    whole = whole - _form(w, u, activation, strength, None)
    lost = np.zeros((m + n, m + n))
    lost[m:, m:] = c.T @ c
    whole = whole - lost
    equations = _equations(w, u, activation)
    if len(equations):
        from scipy.linalg import null_space

        free = null_space(equations)
        whole = free.T @ whole @ free
    constraints = [(whole + whole.T) / 2 >> 0, strength >= 0]
    _solve(cvxpy.Problem(cvxpy.Minimize(rho), constraints), solver)
    return None if strength.value is None else np.asarray(strength.value, dtype=np.float64)


def _equations(w: Array, u: Array, activation: Slopes | GroupSort) -> Array:
    """Return what vanishes on (dx, dz): changes of kept sums, and of neurons of one slope."""
    n, m = u.shape
    z, y = np.hstack([u, w]), np.eye(n, m + n, m)
    if isinstance(activation, GroupSort):
        groups = activation.groups(n)
        sums = np.kron(np.eye(groups), np.ones((1, activation.size)))
        return np.asarray(sums @ (z - y), dtype=np.float64)
    lower, upper = activation.arrays(n)
    return np.asarray((lower[:, None] * z - y)[lower == upper], dtype=np.float64)


def _solve(problem: Any, solver: str) -> None:
    import cvxpy

    options = {"eps_abs": 1e-8, "eps_rel": 1e-8, "max_iters": 50000} if solver == "scs" else {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # whatever is found is repaired and checked
        try:
            problem.solve(solver=solver.upper(), **options)
        except cvxpy.error.SolverError:
            return
