"""From multipliers to a proved bound: margins for every inequality, then the check."""

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.conv import check_conv
from tangency.verify.certificate.conv_witness import ConvWitness
from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.conv.frequency_chain import Stack, adjoint
from tangency.verify.lipschitz.conv.head import balanced, gram
from tangency.verify.lipschitz.conv.recursion import Problem

__all__ = ["prove"]


def prove(problem: Problem, theta: Array, head: Stack | None = None) -> tuple[float, ConvWitness]:
    """Return a bound that the checker has accepted, and its witness.

    The multipliers grow from the output to the input by factors 1 + d, which by homogeneity leaves
    every pivot a relative margin of d and costs the square of the bound at most (1 + d)^l; d is
    raised until the check succeeds.

    Parameters
    ----------
    problem : Problem
    theta : (d,) array
        Logarithms of multipliers with positive pivots.
    head : (f, m, m) array, optional
        J of a dense head.

    Raises
    ------
    NotProvedError
        If no margin suffices.
    """
    margin, reason = 1e-11, "no pivot is positive"
    while margin < 0.2:
        witness = _witness(problem, theta, head, margin)
        if witness is not None:
            try:
                return check_conv(
                    problem.layers, problem.activations, problem.size, witness
                ), witness
            except NotProvedError as error:
                reason = str(error)
        margin *= 10.0
    raise NotProvedError(f"the convolutional bound could not be proved: {reason}")


def _witness(
    problem: Problem, theta: Array, head: Stack | None, margin: float
) -> ConvWitness | None:
    count = len(problem.parts)
    strengths = [problem.strengths(theta, k) * (1.0 + margin) ** (count - k) for k in range(count)]
    storages: list[Stack] = []
    multipliers: list[Array] = []
    kept: list[Array] = []
    storage = problem.last
    if head is not None:
        head = _hermitian((1.0 - 0.1 * margin) * balanced(head, problem.shares))
        storage = gram(problem.weights[-1], head)
    with np.errstate(all="ignore"):
        for k in range(count - 1, -1, -1):
            neurons, strength = problem.neurons[k], strengths[k]
            mixing = problem.mixing(theta, k)
            if mixing is not None:
                mixing = mixing * (1.0 + margin) ** (count - k)
            storage = (1.0 + 0.25 * margin) * storage
            index = np.arange(len(strength))
            storage[:, index, index] += 0.25 * margin * strength
            own = storage
            if neurons.basis is not None:  # back from sums and what is orthogonal to them
                own = neurons.basis.T @ storage @ neurons.basis
                size, groups = neurons.size, len(strength) // neurons.size
                sums = mixing
                if sums is None:
                    sums = np.eye(groups, len(strength)) * strength
                kept.append(np.asarray(sums @ neurons.basis / np.sqrt(size), np.float64))
                rest = strength[groups :: size - 1] if size > 1 else np.zeros(groups)
                multipliers.append(2.0 * rest / size)
            else:
                multipliers.append(strength)
            storages.append(_hermitian(own))
            found = problem.step(k, strength, storage, slice(None), mixing)
            if found is None or not np.isfinite(found[0]).all():
                return None
            storage = found[0]
        square = float(np.linalg.eigvalsh(storage)[:, -1].max()) * (1.0 + margin)
    return ConvWitness(
        square,
        problem.torus,
        problem.exponents,
        tuple(multipliers[::-1]),
        tuple(storages[::-1]),
        tuple(kept[::-1]),
        head,
    )


def _hermitian(stack: Stack) -> Stack:
    """Return the lower triangle and its mirror image: Hermitian to the last bit."""
    low = np.tril(stack, -1)
    result = low + adjoint(low)
    index = np.arange(stack.shape[1])
    result[:, index, index] = np.diagonal(stack, axis1=1, axis2=2).real
    return np.asarray(result)
