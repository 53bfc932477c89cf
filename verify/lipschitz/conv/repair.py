"""From multipliers to a proved bound: margins for every inequality, then the check."""

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.conv import ConvWitness, check_conv
from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.conv.recursion import Problem, Stack, adjoint

__all__ = ["prove"]


def prove(problem: Problem, theta: Array) -> tuple[float, ConvWitness]:
    """Return a bound that the checker has accepted, and its witness.

    The multipliers grow from the output to the input by factors 1 + d, which by homogeneity leaves
    every pivot a relative margin of d and costs the square of the bound at most (1 + d)^l; d is
    raised until the check succeeds.

    Parameters
    ----------
    problem : Problem
    theta : (d,) array
        Logarithms of multipliers with positive pivots.

    Raises
    ------
    NotProvedError
        If no margin suffices.
    """
    margin, reason = 1e-11, "no pivot is positive"
    while margin < 0.2:
        witness = _witness(problem, theta, margin)
        if witness is not None:
            try:
                return check_conv(
                    problem.layers, problem.activations, problem.size, witness
                ), witness
            except NotProvedError as error:
                reason = str(error)
        margin *= 10.0
    raise NotProvedError(f"the convolutional bound could not be proved: {reason}")


def _witness(problem: Problem, theta: Array, margin: float) -> ConvWitness | None:
    count = len(problem.parts)
    strengths = [
        np.exp(theta[part]) * (1.0 + margin) ** (count - k) for k, part in enumerate(problem.parts)
    ]
    storages: list[Stack] = []
    storage = adjoint(problem.weights[-1]) @ problem.weights[-1]
    with np.errstate(all="ignore"):
        for k in range(count - 1, -1, -1):
            storage = (1.0 + 0.25 * margin) * storage
            index = np.arange(len(strengths[k]))
            storage[:, index, index] += 0.25 * margin * strengths[k]
            storages.append(_hermitian(storage))
            found = problem.step(k, strengths[k], storages[-1])
            if found is None or not np.isfinite(found[0]).all():
                return None
            storage = found[0]
        square = float(np.linalg.eigvalsh(storage)[:, -1].max()) * (1.0 + margin)
    return ConvWitness(
        square, problem.torus, problem.exponents, tuple(strengths), tuple(storages[::-1])
    )


def _hermitian(stack: Stack) -> Stack:
    """Return the lower triangle and its mirror image: Hermitian to the last bit."""
    low = np.tril(stack, -1)
    result = low + adjoint(low)
    index = np.arange(stack.shape[1])
    result[:, index, index] = np.diagonal(stack, axis1=1, axis2=2).real
    return np.asarray(result)
