r"""A witness that a chain of layers is Lipschitz in l2, and its check in rigorous arithmetic.

The chain is :math:`x_0 \mapsto W_1x_0 \mapsto \varphi_1 \mapsto \dots \mapsto W_l x_{l-1}`, biases
apart. For differences of two inputs the witness gives symmetric storage matrices Q_k that bound
what remains, :math:`|df|^2 \le dx_k^T Q_k\,dx_k`, from the last layer to the first, where
:math:`Q_0 = \rho I` and :math:`L = \sqrt\rho`. The check proves, layer by layer, with z = W x:

- last layer: :math:`Q_{l-1} - W_l^TW_l \succ 0`;
- slopes in [a, b], multipliers :math:`\Lambda \ge 0`:

  .. math:: \begin{bmatrix} Q_{k-1} + 2W^T\Lambda abW & -W^T\Lambda(a+b) \\
            -\Lambda(a+b)W & 2\Lambda - Q_k\end{bmatrix} \succ 0,

  because :math:`(dx_k - a\,dz)(b\,dz - dx_k) \ge 0`; where a = b, dx_k = a dz is put in its place;
- GroupSort, multipliers :math:`\lambda \ge 0` and :math:`\gamma` of any sign:
  :math:`T - Q_k \succ 0` and :math:`Q_{k-1} - W^TTW \succ 0` with
  :math:`T = \mathrm{diag}(\lambda)\otimes I + \mathrm{diag}(\gamma)\otimes 11^T`, because each
  group is nonexpansive and keeps its sum (lemma 1 of [1]_ with S = P = 0).

Every W_k is first multiplied by the power of two that the witness names; all these activations
commute with such a scaling in what is used of them, their slopes and their sorting.
A multiplier shared between different neurons ("LipSDP-Network") has no place here: it is unsound.

References
----------
.. [1] P. Pauli et al., Novel Quadratic Constraints for Extending LipSDP beyond Slope-Restricted
       Activations, ICLR 2024, arXiv 2401.14033, lemma 1 and theorem 1.
.. [2] M. Fazlyab et al., Efficient and Accurate Estimation of Lipschitz Constants for Deep Neural
       Networks, NeurIPS 2019, arXiv 1906.04893, theorem 2 (with diagonal T only).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.definite import definiteness
from tangency.verify.certificate.directed import (
    ETA,
    UNIT,
    congruence,
    difference,
    down,
    product,
    scale_rows,
    total,
    up,
)
from tangency.verify.certificate.layers import Activation, GroupSort, Slopes
from tangency.verify.certificate.matrix import Array, Matrix

Mask: TypeAlias = npt.NDArray[np.bool_]

__all__ = ["ChainWitness", "check_chain", "sorting_multiplier"]


@dataclass(frozen=True, eq=False)
class ChainWitness:
    """What a search hands to the checker; nothing in it is trusted.

    Parameters
    ----------
    bound : float
        The claim: the chain is `bound`-Lipschitz from l2 to l2.
    exponents : tuple of int, length l
        Layer k is checked as W_k / 2**exponents[k].
    multipliers : tuple of arrays, length l - 1
        (n_k,) array lambda for slopes; (2, groups) array of lambda and gamma for GroupSort.
    storage : tuple of (n_k, n_k) arrays, length l - 1
        Q_1, ..., Q_{l-1}, symmetric.
    """

    bound: float
    exponents: tuple[int, ...]
    multipliers: tuple[Array, ...]
    storage: tuple[Array, ...]


def check_chain(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ChainWitness
) -> float:
    """Prove the claim of a witness from the weights alone.

    Parameters
    ----------
    weights : sequence of l (n_k, n_{k-1}) Matrix
        W_1, ..., W_l; with a radius, the claim is proved for every matrix of the enclosure.
    activations : sequence of l - 1 Slopes or GroupSort
    witness : ChainWitness

    Returns
    -------
    float
        The proved bound, which is the witness's.

    Raises
    ------
    NotProvedError
        If a step cannot be proved; the message names the layer and the reason.
    InputError
        If weights or activations are not valid.

    Examples
    --------
    >>> one = np.eye(1)
    >>> witness = ChainWitness(1.01, (0, 0), (1.004 * one[0],), (1.001 * one,))
    >>> check_chain([Matrix(one), Matrix(one)], [Slopes(0.0, 1.0)], witness)
    1.01
    """
    with np.errstate(all="ignore"):  # what overflows is refused, not warned of
        _check(weights, activations, witness)
    return witness.bound


def sorting_multiplier(multiplier: Array, size: int) -> Matrix:
    """Return an enclosure of T = diag(lambda) x I + diag(gamma) x 11^T.

    Parameters
    ----------
    multiplier : (2, groups) array
        lambda and gamma.
    size : int
        Entries in a group.

    Returns
    -------
    (n, n) Matrix
    """
    strength, coupling = multiplier
    midpoint = np.kron(np.diag(coupling), np.ones((size, size))).astype(np.float64)
    diagonal = np.repeat(strength + coupling, size)
    np.fill_diagonal(midpoint, diagonal)
    error: Array = up(np.abs(diagonal) * (2 * UNIT)) + ETA
    return Matrix(midpoint, np.diag(error))


def _check(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ChainWitness
) -> None:
    """Prove every layer's inequality, or raise."""
    matrices = [Matrix.of(w, name=f"weight {k + 1}") for k, w in enumerate(weights)]
    _require_fit(matrices, activations, witness)
    scaled = [w.scaled(-e) for w, e in zip(matrices, witness.exponents, strict=True)]
    if not all(np.isfinite(w.midpoint).all() for w in scaled):
        raise NotProvedError("an exponent of the witness makes the weights overflow")
    storages = [_first_storage(witness, matrices[0].shape[1])]
    storages += [_symmetric(q, k + 1) for k, q in enumerate(witness.storage)]
    last = len(scaled)
    for k in range(1, last):
        name = f"layer {k}"
        activation, multiplier = activations[k - 1], witness.multipliers[k - 1]
        before, after, weight = storages[k - 1], storages[k], scaled[k - 1]
        if isinstance(activation, GroupSort):
            _check_sorting(activation, weight, multiplier, before, after, name)
        else:
            _check_slopes(activation, weight, multiplier, before, after, name)
    _require(difference(storages[-1], congruence(scaled[-1], np.ones(scaled[-1].shape[0]))),
             f"layer {last} (last)")  # fmt: skip


def _check_sorting(
    activation: GroupSort,
    weight: Matrix,
    multiplier: Array,
    before: Matrix,
    after: Matrix,
    name: str,
) -> None:
    """Prove T - Q_k > 0 and Q_{k-1} - W^T T W > 0."""
    if multiplier.shape != (2, activation.groups(weight.shape[0])):
        raise NotProvedError(f"{name}: the multipliers do not have the shape (2, groups)")
    if not (multiplier[0] >= 0).all():
        raise NotProvedError(f"{name}: a multiplier is negative")
    middle = sorting_multiplier(multiplier, activation.size)
    _require(difference(middle, after), f"{name}, multiplier against storage")
    _require(difference(before, congruence(weight, middle)), f"{name}, storage before")


def _check_slopes(
    activation: Slopes, weight: Matrix, multiplier: Array, before: Matrix, after: Matrix, name: str
) -> None:
    """Prove the block inequality of slope-restricted neurons, linear ones substituted."""
    n = weight.shape[0]
    lower, upper = activation.arrays(n, name=name)
    if multiplier.shape != (n,):
        raise NotProvedError(f"{name}: the multipliers do not have the shape ({n},)")
    if not (multiplier >= 0).all():
        raise NotProvedError(f"{name}: a multiplier is negative")
    free, linear = lower != upper, lower == upper
    strength, a, b = multiplier[free], lower[free], upper[free]
    inner = weight.rows(free)
    top = before
    if ((a != 0) & (b != 0)).any():
        # 2 lambda a b, the number and its radius, as a diagonal matrix
        ab = scale_rows(a, Matrix((2.0 * b)[:, None]))
        term = scale_rows(strength, ab)
        diagonal = Matrix(np.diag(term.midpoint[:, 0]), _diagonal(term.radius))
        top = total(top, congruence(inner, diagonal))
    sums = Matrix((a + b)[:, None], up(np.abs(a + b) * (2 * UNIT))[:, None] + ETA)
    factor = scale_rows(strength, sums)
    side = product(Matrix(np.diag(factor.midpoint[:, 0]), _diagonal(factor.radius)), inner)
    corner = _block(after, free, free)
    if linear.any():
        exact = scale_rows(lower[linear], weight.rows(linear))
        top = difference(top, congruence(exact, _block(after, linear, linear)))
        side = total(side, product(_block(after, free, linear), exact))
    corner = difference(Matrix(np.diag(2.0 * strength)), corner)
    midpoint = np.block([[top.midpoint, -side.midpoint.T], [-side.midpoint, corner.midpoint]])
    zero = np.zeros_like
    r_top, r_side, r_corner = (
        zero(m.midpoint) if m.radius is None else m.radius for m in (top, side, corner)
    )
    _require(Matrix(midpoint, np.block([[r_top, r_side.T], [r_side, r_corner]])), name)


def _require(matrix: Matrix, name: str) -> None:
    symmetric = matrix.mirrored()
    found = definiteness(symmetric.midpoint, symmetric.radius)
    if not found.proved:
        raise NotProvedError(f"{name}: not proved positive definite: {found.reason}")


def _first_storage(witness: ChainWitness, n: int) -> Matrix:
    """Return Q_0 = rho I with rho no more than the square of the claimed bound, scaled."""
    bound = witness.bound
    if not (isinstance(bound, float) and math.isfinite(bound) and bound > 0):
        raise NotProvedError(f"the claimed bound {bound!r} is not a positive finite number")
    mantissa, exponent = math.frexp(bound)  # 2**-1074 and 2**1023 would not survive a division
    shift = exponent - sum(witness.exponents)
    if abs(shift) > 500:
        raise NotProvedError("the claimed bound is out of proportion to the exponents")
    root = math.ldexp(mantissa, shift)
    return Matrix(np.diag(np.full(n, down(root * root))))


def _require_fit(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ChainWitness
) -> None:
    """Refuse what does not fit together, before any arithmetic."""
    count = len(weights)
    if count == 0 or len(activations) != count - 1:
        raise NotProvedError(f"{count} weights and {len(activations)} activations are no chain")
    for k in range(1, count):
        if weights[k].shape[1] != weights[k - 1].shape[0]:
            raise NotProvedError(f"layer {k + 1} takes {weights[k].shape[1]} inputs, "
                                 f"layer {k} gives {weights[k - 1].shape[0]}")  # fmt: skip
    if len(witness.exponents) != count:
        raise NotProvedError(f"the witness has {len(witness.exponents)} exponents for {count}")
    if not all(abs(e) <= 4000 for e in witness.exponents):
        raise NotProvedError("an exponent of the witness is out of range")
    if len(witness.multipliers) != count - 1 or len(witness.storage) != count - 1:
        raise NotProvedError("the witness does not have one multiplier and storage an activation")
    for k in range(count - 1):
        n = weights[k].shape[0]
        for kind, values in (("multipliers", witness.multipliers), ("storage", witness.storage)):
            part = values[k]
            if not (isinstance(part, np.ndarray) and part.dtype == np.float64):
                raise NotProvedError(f"layer {k + 1}: the {kind} are not float64")
            if not np.isfinite(part).all():
                raise NotProvedError(f"layer {k + 1}: the {kind} are not finite")
        if witness.storage[k].shape != (n, n):
            raise NotProvedError(f"layer {k + 1}: the storage is not {n} by {n}")


def _symmetric(storage: Array, k: int) -> Matrix:
    if not np.array_equal(storage, storage.T):
        raise NotProvedError(f"layer {k}: the storage is not symmetric")
    return Matrix(storage)


def _block(matrix: Matrix, rows: Mask, columns: Mask) -> Matrix:
    index = np.ix_(rows, columns)
    return Matrix(matrix.midpoint[index], None if matrix.radius is None else matrix.radius[index])


def _diagonal(radius: Array | None) -> Array:
    assert radius is not None
    return np.diag(radius[:, 0])
