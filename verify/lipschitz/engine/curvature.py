r"""Second derivatives of the objective: Newton's method as a preconditioner.

The barrier of the whole chain is :math:`-\log\det M` of the matrix inequality, in which multiplier
i enters as the product of two linear functionals, :math:`-2\lambda_ip_iq_i`, p = dw - a dz,
q = b dz - dw. With the covariances C of the Markov chain of `recursion`,

.. math:: \frac{\partial^2F}{\partial\lambda_i\partial\lambda_j} =
          \frac2\mu(C_{p_ip_j}C_{q_iq_j} + C_{p_iq_j}C_{q_ip_j}),

Hadamard products of matrices that cost one product a pair of layers: no matrix larger than the
layers is factorised but the Hessian itself, d by d for d multipliers. In the logarithms of the
multipliers :math:`\mathrm{diag}(\lambda\,\partial F/\partial\lambda)` is left out, so that it stays
positive definite.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.engine.objective import Objective, State
from tangency.verify.lipschitz.engine.recursion import Adjoint

__all__ = ["hessian", "preconditioner"]

RIDGE = 0.3  # times mu: bounds the steps of multipliers that matter little


def preconditioner(
    objective: Objective, state: State, adjoints: list[Adjoint], mu: float
) -> Callable[[Array], Array] | None:
    """Return v -> H^{-1} v, or None if the Hessian is not positive definite in float64.

    Parameters
    ----------
    objective : Objective
    state : State
    adjoints : list of Adjoint
    mu : float
    """
    from scipy.linalg import cho_solve

    factor = _factor(hessian(objective, state, adjoints, mu))
    objective.clock.check()
    if factor is None:
        return None

    def apply(vector: Array) -> Array:
        return np.asarray(cho_solve(factor, vector, check_finite=False))

    if objective.norm != "2" or state.head.stiffness <= 0.0:
        return apply
    # The bound rho itself was minimised out of F: a correction of rank one.
    coupling = _coupling(objective, state, adjoints, mu)
    image = apply(coupling)
    denominator = state.head.stiffness - float(coupling @ image)
    if denominator <= 1e-3 * state.head.stiffness:
        return apply

    def corrected(vector: Array) -> Array:
        result = apply(vector)
        return np.asarray(result + image * (float(coupling @ result) / denominator))

    return corrected


def _factor(matrix: Array) -> Any:
    from scipy.linalg.lapack import dpotrf

    if not np.isfinite(matrix).all():
        return None
    diagonal = np.diagonal(matrix).copy()
    floor = max(float(diagonal.max()), 1e-300)
    for ridge in (1e-12, 1e-9, 1e-6, 1e-3):
        trial = matrix.copy()
        trial[np.diag_indices_from(trial)] += ridge * diagonal + 1e-10 * ridge * floor
        factor, info = dpotrf(trial.T, lower=1, overwrite_a=1, clean=0)
        if info == 0 and np.isfinite(np.diagonal(factor)).all():
            return factor, True
    return None


def hessian(objective: Objective, state: State, adjoints: list[Adjoint], mu: float) -> Array:
    """Return the Hessian in the logarithms at a fixed bound rho, without its first-order part."""
    count = len(objective.layers)
    parts = objective.parts
    matrix = np.zeros((objective.size, objective.size))
    scale = np.exp(state.theta)
    for k in range(count + 1):
        objective.clock.check()
        rows = parts[k]
        if k == 0 and objective.head_count == 0:
            continue
        if k == 0:  # + d_i x_i^2
            before = state.head.gradient
            matrix[rows, rows] = before * before
            share = np.exp(state.theta[parts[k]] - np.log(state.head.square))
            matrix[rows, rows] += np.diag(mu * share / scale[parts[k]] ** 2)
            moved = np.hstack([before, before])
            sign = -0.5
            collect = _identity
        else:
            layer, adjoint = objective.layers[k - 1], adjoints[k - 1]
            p, q = adjoint.first @ adjoint.before, adjoint.second @ adjoint.before
            pp = p @ adjoint.first.T + adjoint.noise
            qq = q @ adjoint.second.T + adjoint.noise
            pq = p @ adjoint.second.T - adjoint.noise
            matrix[rows, rows] = _both(2.0 * (pp * qq + pq * pq.T), layer.collect, layer.collect)
            moved = adjoint.step @ np.vstack([p, q]).T
            moved += layer.outer_right(np.hstack([adjoint.noise, -adjoint.noise]))
            sign, collect = 1.0, layer.collect
        for m in range(k + 1, count + 1):
            later, far = objective.layers[m - 1], adjoints[m - 1]
            columns = parts[m]
            p = far.first @ moved
            q = far.second @ moved
            half = moved.shape[1] // 2
            block = p[:, :half] * q[:, half:] + p[:, half:] * q[:, :half]
            matrix[columns, rows] = _both(2.0 * sign * block, later.collect, collect)
            matrix[rows, columns] = matrix[columns, rows].T
            if m < count:
                moved = p if far.step is far.first else far.step @ moved
    matrix *= scale[:, None] * scale / mu
    matrix[np.diag_indices_from(matrix)] += RIDGE * mu
    return matrix


def _identity(values: Array) -> Array:
    return values


def _both(block: Array, rows: Any, columns: Any) -> Array:
    """Sum a block over the coordinates that share a multiplier, in both directions."""
    if getattr(rows, "__self__", None) is None and getattr(columns, "__self__", None) is None:
        return block
    return _columns(_columns(block, columns).T, rows).T


def _columns(block: Array, collect: Any) -> Array:
    layer = getattr(collect, "__self__", None)
    if layer is None or layer.group is None:
        return block
    result = np.zeros((block.shape[0], layer.count))
    np.add.at(result.T, layer.group, block.T)
    return result


def _coupling(objective: Objective, state: State, adjoints: list[Adjoint], mu: float) -> Array:
    """Return the mixed second derivatives in log rho and the logarithms."""
    result = np.zeros(objective.size)
    moved = state.head.gradient
    scale = np.exp(state.theta)
    for layer, part, adjoint in zip(objective.layers, objective.parts[1:-1], adjoints, strict=True):
        p = adjoint.first @ moved
        q = adjoint.second @ moved
        value = np.einsum("ij,ij->i", p, q)
        result[part] = layer.collect(value) * scale[part]
        moved = p if adjoint.step is adjoint.first else adjoint.step @ moved
    return result * (-2.0 * state.head.scale / mu)
