r"""From a solver's multipliers, however rough, to a witness that the checker can prove.

From the output to the input: given the storage Q_k after an activation, raise its multipliers until
the pivot (:math:`2\Lambda - Q_k`, or :math:`T - Q_k` for GroupSort) is positive, eliminate the
activation by a Schur complement, and loosen the result by a relative :math:`\delta`. This always
succeeds; the bound is the largest eigenvalue at the input. It is plain float64: proof is the
checker's business.
"""

import math
from collections.abc import Sequence

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.chain import ChainWitness, check_chain, sorting_multiplier
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.chain import Chain
from tangency.verify.lipschitz.scaling import scaled_midpoints

__all__ = ["prove", "repair"]

_SLACKS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def prove(
    chain: Chain, multipliers: Sequence[Array], exponents: tuple[int, ...]
) -> ChainWitness | None:
    """Return a checked witness with the smallest loosening that can be proved, or None.

    Parameters
    ----------
    chain : Chain
    multipliers : sequence of l - 1 arrays
        In the form of `ChainWitness`, for the weights scaled by the exponents; any numbers.
    exponents : tuple of int, length l

    Returns
    -------
    ChainWitness or None
    """
    if not chain.activations:
        slack = 0.0
    else:
        slack = min(_SLACKS, key=lambda s: _bound_with(chain, multipliers, exponents, s))
    loosening = 1e-12
    while loosening < 2e-4:
        try:
            witness = repair(chain, multipliers, exponents, loosening=loosening, slack=slack)
            check_chain(chain.weights, chain.activations, witness)
        except (NotProvedError, np.linalg.LinAlgError):
            loosening *= 10.0
        else:
            return witness
    return None


def repair(
    chain: Chain,
    multipliers: Sequence[Array],
    exponents: tuple[int, ...],
    *,
    loosening: float,
    slack: float = 0.0,
) -> ChainWitness:
    """Return a witness with positive pivots for any given multipliers; it is not checked.

    Parameters
    ----------
    chain : Chain
    multipliers : sequence of l - 1 arrays
    exponents : tuple of int, length l
    loosening : float
        Relative, at each layer: room for the checker's rounding errors.
    slack : float
        Multipliers of layer k are first raised by (1 + slack)**(l - k), which gives every pivot a
        relative margin and costs at most (1 + slack)**l: room for the solver's errors.

    Returns
    -------
    ChainWitness

    Raises
    ------
    NotProvedError
        If the numbers leave the range of float64.
    """
    weights = scaled_midpoints(chain, exponents)
    storage: list[Array] = []
    repaired: list[Array] = []
    with np.errstate(all="ignore"):
        value = weights[-1].T @ weights[-1]
        for k in range(len(weights) - 2, -1, -1):
            value = _loosened(value, loosening)
            storage.append(value)
            activation = chain.activations[k]
            given = multipliers[k] * (1.0 + slack) ** (len(weights) - 1 - k)
            room = max(loosening, slack)
            if isinstance(activation, GroupSort):
                value, multiplier = _through_sorting(activation, weights[k], given, value, room)
            else:
                value, multiplier = _through_slopes(activation, weights[k], given, value, room)
            repaired.append(multiplier)
        if not np.isfinite(value).all():
            raise NotProvedError("the storage matrices exceed the range of float64")
        rho = max(float(np.linalg.eigvalsh(value)[-1]), 0.0)
        root = math.sqrt(rho * (1.0 + loosening))
    try:
        bound = math.ldexp(root, sum(exponents))
    except OverflowError:
        bound = math.inf
    return ChainWitness(bound, exponents, tuple(repaired[::-1]), tuple(storage[::-1]))


def _bound_with(
    chain: Chain, multipliers: Sequence[Array], exponents: tuple[int, ...], slack: float
) -> float:
    try:
        return repair(chain, multipliers, exponents, loosening=1e-10, slack=slack).bound
    except (NotProvedError, np.linalg.LinAlgError):
        return math.inf


def _loosened(value: Array, loosening: float) -> Array:
    """Return the symmetric matrix with its diagonal raised by a relative amount."""
    value = (value + value.T) / 2
    diagonal = np.maximum(np.diagonal(value), 0.0)
    floor = max(float(diagonal.max()) * 1e-6, 1e-280)
    return value + np.diag(loosening * (diagonal + floor))


def _through_slopes(
    activation: Slopes, weight: Array, multiplier: Array, storage: Array, loosening: float
) -> tuple[Array, Array]:
    """Eliminate slope-restricted neurons; return the storage before them and the multipliers."""
    lower, upper = activation.arrays(weight.shape[0])
    free, linear = lower != upper, lower == upper
    a, b, inner = lower[free], upper[free], weight[free]
    exact = lower[linear, None] * weight[linear]
    after = storage[np.ix_(free, free)]
    strength = _raised(multiplier[free], np.diagonal(after) / 2)
    root = np.sqrt(strength)
    if free.any():
        ratio = float(np.linalg.eigvalsh(after / np.outer(root, root))[-1]) / 2
        strength = strength * max(1.0, ratio * (1.0 + loosening))
    side = (strength * (a + b))[:, None] * inner + storage[np.ix_(free, linear)] @ exact
    pivot = 2.0 * np.diag(strength) - after
    before = exact.T @ storage[np.ix_(linear, linear)] @ exact
    before = before + side.T @ np.linalg.solve(pivot, side)
    before = before - inner.T @ ((2.0 * strength * a * b)[:, None] * inner)
    repaired = np.zeros(weight.shape[0])
    repaired[free] = strength
    return before, repaired


def _through_sorting(
    activation: GroupSort, weight: Array, multiplier: Array, storage: Array, loosening: float
) -> tuple[Array, Array]:
    """Eliminate a GroupSort layer; return the storage before it and the multipliers."""
    size = activation.size
    level = np.diagonal(storage).reshape(-1, size).max(axis=1)
    strength = _raised(multiplier[0], 1e-3 * level)
    sums = _raised(multiplier[0] + size * multiplier[1], 1e-3 * level)  # the eigenvalue of 1
    repaired = np.stack([strength, (sums - strength) / size])
    middle = sorting_multiplier(repaired, size).midpoint
    factor = np.linalg.cholesky(middle)
    half = np.linalg.solve(factor, storage)
    ratio = float(np.linalg.eigvalsh(np.linalg.solve(factor, half.T))[-1])
    repaired = repaired * max(1.0, ratio * (1.0 + loosening))
    middle = sorting_multiplier(repaired, size).midpoint
    return weight.T @ middle @ weight, repaired


def _raised(values: Array, floor: Array) -> Array:
    """Return values no lower than a floor, and not NaN."""
    return np.maximum(np.nan_to_num(values, nan=0.0, posinf=1e100, neginf=0.0), floor)
