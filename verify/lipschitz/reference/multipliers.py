r"""Quadratic constraints with unknown multipliers, as cvxpy expressions.

A constraint of phi on n neurons is a symmetric (2n, 2n) matrix M, linear in the multipliers, with
:math:`[dz; dy]^TM[dz; dy] \ge 0` for all differences dz of inputs and dy of outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.verify.certificate.layers import GroupSort, Householder, Slopes
from tangency.verify.certificate.matrix import Array

__all__ = ["FORMS", "Constraint", "constraint_of"]

FORMS = ("neuron", "layer")


@dataclass(frozen=True, eq=False)
class Constraint:
    """The blocks of M = [[a, b], [b^T, c]] and the multipliers that must be nonnegative."""

    a: Any
    b: Any
    c: Any
    signed: tuple[Any, ...]


def constraint_of(
    activation: Slopes | GroupSort | Householder, n: int, *, form: str = "neuron", free: bool = True
) -> Constraint:
    r"""Return the constraint of n neurons.

    For slopes in [a, b] it is that of LipSDP [1]_ with diagonal T,

    .. math:: M = \begin{bmatrix} -2abT & (a+b)T \\ (a+b)T & -2T\end{bmatrix},

    for GroupSort and Householder that of [2]_,

    .. math:: M = \begin{bmatrix} T-2S & P+S \\ P+S & -T-2P\end{bmatrix}, \quad
        T = \mathrm{diag}(\lambda)\otimes I + K(\gamma), \; P = K(\nu), \; S = K(\tau),

    where K puts :math:`11^T` (GroupSort) or :math:`I - vv^T` (Householder) in each group.

    Parameters
    ----------
    activation : Slopes, GroupSort or Householder
    n : int
        Neurons.
    form : {"neuron", "layer"}
        One multiplier for each neuron or group, or one for the layer. The "network" form couples
        neurons, is unsound, and is refused.
    free : bool
        Whether P and S are free or zero.

    Raises
    ------
    InputError
        If the form is unknown.
    UnsupportedError
        For the form "network".

    References
    ----------
    .. [1] M. Fazlyab et al., NeurIPS 2019, arXiv 1906.04893, theorem 2, diagonal T.
    .. [2] P. Pauli et al., ICLR 2024, arXiv 2401.14033, lemmas 1 and 2.
    """
    import cvxpy

    if form == "network":
        raise UnsupportedError(
            "LipSDP-Network couples neurons by multipliers that no slope bound justifies: it "
            'proves too small bounds and is not offered; use form="neuron"'
        )
    if form not in FORMS:
        raise InputError(f"unknown form {form!r}: give one of {', '.join(FORMS)}")
    groups = n if isinstance(activation, Slopes) else activation.groups(n)
    strength = cvxpy.Variable(groups if form == "neuron" else 1, name="lambda")
    spread = np.kron(np.eye(groups), np.ones((n // groups, 1)))
    each = spread @ (strength if form == "neuron" else np.ones((groups, 1)) @ strength)
    if isinstance(activation, Slopes):
        lower, upper = activation.arrays(n)
        return Constraint(
            cvxpy.diag(cvxpy.multiply(-2 * lower * upper, each)),
            cvxpy.diag(cvxpy.multiply(lower + upper, each)),
            -2 * cvxpy.diag(each),
            (strength,),
        )
    kept = _kept(activation, groups)
    if not free:
        t = cvxpy.diag(each) + _weighted(kept, cvxpy.Variable(groups))
        return Constraint(t, np.zeros((n, n)), -t, (strength,))
    # One of gamma, nu, tau is redundant: what they make of the kept parts (s, s') are the
    # symmetric 2 x 2 matrices whose entries sum to zero, two dimensions. gamma = 0 here.
    t, p, s = cvxpy.diag(each), *(_weighted(kept, cvxpy.Variable(groups)) for _ in range(2))
    return Constraint(t - 2 * s, p + s, -t - 2 * p, (strength,))


def _kept(activation: GroupSort | Householder, groups: int) -> list[Array]:
    """Return, for each group, vectors (as columns) of what the activation keeps."""
    ones = np.ones((activation.size, 1))
    planes = [ones] * groups
    if isinstance(activation, Householder):  # orthonormal bases of the complements of v
        planes = [np.linalg.svd(v[None, :])[2][1:].T for v in activation.normals]
    each = zip(np.eye(groups), planes, strict=True)
    return [np.asarray(np.kron(e[:, None], plane), dtype=np.float64) for e, plane in each]


def _weighted(kept: list[Array], weights: Any) -> Any:
    """Return sum_j w_j K_j K_j^T as U diag(w) U^T."""
    import cvxpy

    columns = np.hstack(kept)
    repeats = np.kron(np.eye(len(kept)), np.ones((kept[0].shape[1], 1)))
    return columns @ cvxpy.diag(repeats @ weights) @ columns.T
