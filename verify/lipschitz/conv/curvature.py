r"""Second derivatives of the objective: Newton's method for multipliers shared by a channel.

The barrier is :math:`-\sum_wp_w\log\det M(w)` of the matrix inequality at each frequency, in which
multiplier i enters as :math:`-2\lambda_i\,\mathrm{Re}(\bar p_iq_i)`, p = dX - a dZ, q = b dZ - dX.
With the covariances C = M^{-1} of these functionals,

.. math:: \frac{\partial^2F}{\partial\lambda_i\partial\lambda_j} = 2\mu\sum_wp_w\,\mathrm{Re}\big(
          \overline{C_{p_ip_j}}C_{q_iq_j} + \overline{C_{q_ip_j}}C_{p_iq_j}\big),

the formula of `tangency.verify.lipschitz.engine.curvature` summed over frequencies. A network has
few channels beside its neurons, so that the Hessian of all layers is cheap: some gradients' worth.
In logarithms :math:`\mathrm{diag}(\lambda\,\partial F/\partial\lambda)` comes to it, of which the
positive part is kept: without it Newton's method creeps where the barrier is strong, with all of it
the matrix would not be positive definite.
"""

from collections.abc import Callable

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.conv.frequency_chain import Stack, adjoint
from tangency.verify.lipschitz.conv.recursion import Problem, State

__all__ = ["hessian", "preconditioner"]

RIDGE = 0.3  # times mu: bounds the steps of multipliers that matter little


def preconditioner(
    problem: Problem, state: State, slope: Array, mu: float
) -> Callable[[Array], Array] | None:
    """Return v -> H^{-1} v, or None if the Hessian is not positive definite in float64.

    Parameters
    ----------
    problem : Problem
    state : State
    slope : (d,) array
        The gradient there.
    mu : float
    """
    matrix, coupling = hessian(problem, state, mu)
    diagonal = np.diagonal(matrix).copy()
    # lambda dF / dlambda without the part of the barrier that is linear in the logarithms.
    curved = np.maximum(slope - mu * problem.widths, 0.0)
    if not np.isfinite(matrix).all():
        return None
    from scipy.linalg import cho_factor, cho_solve

    for ridge in (1e-13, 1e-10, 1e-7, 1e-4):
        try:
            factor = cho_factor(matrix + np.diag(ridge * diagonal + curved + RIDGE * mu))
        except np.linalg.LinAlgError:
            continue
        break
    else:
        return None
    image = cho_solve(factor, coupling)
    denominator = state.stiffness - float(coupling @ image)
    bordered = denominator > 1e-3 * state.stiffness

    def apply(vector: Array) -> Array:
        result = np.asarray(cho_solve(factor, vector))
        if bordered:  # the bound rho was minimised out of F: a correction of rank one
            result = result + image * (float(coupling @ result) / denominator)
        return result

    return apply


def hessian(problem: Problem, state: State, mu: float) -> tuple[Array, Array]:
    """Return the Hessian in the logarithms at a fixed rho, and the mixed derivative in log rho.

    Without the first-order part of the logarithms.
    """
    sweeps = dict(zip((c.start for c in problem.chunks), state.sweeps, strict=True))
    found = problem.map(lambda which: _part(problem, state, mu, which, sweeps[which.start]))
    matrix = np.zeros((problem.size_theta, problem.size_theta))
    coupling = np.zeros(problem.size_theta)
    for part, mixed in found:
        matrix += part
        coupling += mixed
    matrix = np.tril(matrix) + np.tril(matrix, -1).T
    scale = np.exp(state.theta)
    return matrix * (scale[:, None] * scale), coupling * scale


def _part(
    problem: Problem, state: State, mu: float, which: slice, kept: list[tuple[Stack, Stack]]
) -> tuple[Array, Array]:
    """Return the lower triangle, and the mixed derivatives, from some of the frequencies."""
    # Products of two covariances carry the weight of their frequency, each its square root.
    roots = np.sqrt(mu * problem.shares[which])[:, None, None]
    matrix = np.zeros((problem.size_theta, problem.size_theta))
    mixed = np.zeros(problem.size_theta)
    functionals = []
    for k, (_, image) in enumerate(kept):
        weight, neurons = problem.weights[k][which], problem.neurons[k]
        first = image - neurons.lower[:, None] * weight if neurons.lower.any() else image
        functionals.append((first, neurons.upper[:, None] * weight - image))
    flow = roots * state.inner[which]
    steep = -state.rho * (flow @ flow)
    for k, (plain, image) in enumerate(kept):
        inverse = roots * plain
        first, second = functionals[k]
        rows = problem.parts[k]
        p, q = first @ flow, second @ flow
        pp = p @ adjoint(first) + inverse
        qq = q @ adjoint(second) + inverse
        pq = p @ adjoint(second) - inverse
        block = _overlap(pp, qq) + _overlap(pq.conj().swapaxes(1, 2), pq)
        matrix[rows, rows] = _both(problem, k, k, 2.0 * block)
        carried = first @ steep
        values = np.einsum("fij,fij->i", carried, second.conj()).real
        mixed[rows] = problem.neurons[k].collect(2.0 * values)
        moved_p = image @ adjoint(p) + inverse
        moved_q = image @ adjoint(q) - inverse
        for m in range(k + 1, len(kept)):
            far_first, far_second = functionals[m]
            half = moved_p.shape[2]
            moved = np.concatenate([moved_p, moved_q], axis=2)
            near, far = far_first @ moved, far_second @ moved
            block = _overlap(near[:, :, :half], far[:, :, half:])
            block += _overlap(far[:, :, :half], near[:, :, half:])
            matrix[problem.parts[m], rows] = _both(problem, m, k, 2.0 * block)
            if m + 1 < len(kept):
                after = near if far_first is kept[m][1] else kept[m][1] @ moved
                moved_p, moved_q = after[:, :, :half], after[:, :, half:]
        flow = image @ flow @ adjoint(image) + inverse
        steep = image @ steep @ adjoint(image)
    return matrix, mixed


def _overlap(a: Stack, b: Stack) -> Array:
    """Return the sum over frequencies of Re(conj(a) b), entry by entry."""
    reals = [np.ascontiguousarray(v).view(np.float64) for v in (a, b)]
    both = np.einsum("fij,fij->ij", *reals)
    return np.asarray(both[:, ::2] + both[:, 1::2])


def _both(problem: Problem, m: int, k: int, block: Array) -> Array:
    """Sum a block over the neurons that share a multiplier, in both directions."""
    for axis, neurons in ((0, problem.neurons[m]), (1, problem.neurons[k])):
        if neurons.group is not None:
            ends = np.zeros((neurons.count, block.shape[1 - axis]))
            np.add.at(ends, neurons.group, block if axis == 0 else block.T)
            block = ends if axis == 0 else ends.T
    return block
