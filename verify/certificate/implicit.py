r"""The check of a bound of an implicit layer z = phi(W z + U x + b), y = C z.

For differences of two inputs, v = (dx, dz) and du = [U W] v, the layer is L-Lipschitz if

.. math:: L^2|dx|^2 - |C\,dz|^2 - q(v) > 0 \quad (v \ne 0)

for a q that is not negative on the graph of phi: with :math:`\lambda \ge 0`

.. math:: q = 2\sum_i\lambda_i(dz_i - a_i\,du_i)(b_i\,du_i - dz_i)

for slopes in [a, b], and for GroupSort, whose groups j keep their sums,

.. math:: q = \sum_j\lambda_j(|du_j|^2 - |dz_j|^2) - \sum_j\kappa_j(1^T(du_j - dz_j))^2.

This presumes that there is one z for each x, which is proved apart, with a diagonal
:math:`D \succ 0` (constant on groups), in one of two ways:

- contraction: :math:`D - W^TDm^2W \succ 0`, m the largest slopes in absolute value: Banach's
  theorem in the norm of D;
- monotone, for slopes in [0, b]: :math:`2D - DWb - bW^TD \succ 0` ([1]_, theorem 1; [2]_).

References
----------
.. [1] M. Revay, R. Wang, I. R. Manchester, Lipschitz Bounded Equilibrium Networks (2020),
       arXiv 2010.01732.
.. [2] E. Winston, J. Z. Kolter, Monotone operator equilibrium networks, NeurIPS 2020,
       arXiv 2006.08591.
.. [3] P. Pauli et al., ICLR 2024, arXiv 2401.14033, lemma 1.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.definite import definiteness
from tangency.verify.certificate.diagonal import diagonal, times
from tangency.verify.certificate.directed import (
    congruence,
    difference,
    multiply_down,
    product,
    scale_rows,
    total,
)
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["ImplicitWitness", "check_implicit", "check_well_posed"]


@dataclass(frozen=True, eq=False)
class ImplicitWitness:
    """What proves the bound of an implicit layer.

    Parameters
    ----------
    bound : float
        The claim: x -> y is `bound`-Lipschitz in l2.
    multipliers : (n,) array for slopes, (groups,) array for GroupSort
        lambda.
    penalties : (groups,) array for GroupSort
        kappa; empty for slopes.
    posed : {"contraction", "monotone"}
        How the fixed point is proved to exist and to be unique.
    scaling : (n,) array
        D.
    """

    norm: ClassVar[str] = "2"
    output: ClassVar[str] = "2"
    margin: ClassVar[tuple[int, ...]] = ()

    bound: float
    multipliers: Array
    penalties: Array
    posed: str
    scaling: Array


def check_implicit(
    weight: Matrix,
    inputs: Matrix,
    output: Matrix,
    activation: Slopes | GroupSort,
    witness: ImplicitWitness,
) -> float:
    """Prove the claim of a witness from the weights alone.

    Parameters
    ----------
    weight, inputs, output : (n, n), (n, m) and (p, n) Matrix
        W, U and C.
    activation : Slopes or GroupSort
    witness : ImplicitWitness

    Returns
    -------
    float
        The proved bound.

    Raises
    ------
    NotProvedError
        If a step cannot be proved; the message names it.
    InputError
        If the activation or a matrix is not valid.
    """
    parts = (("W", weight), ("U", inputs), ("C", output))
    weight, inputs, output = (Matrix.of(part, name=name) for name, part in parts)
    n = weight.shape[0]
    if weight.shape[1] != n or inputs.shape[0] != n or output.shape[1] != n:
        raise NotProvedError("W, U and C do not fit together")
    with np.errstate(all="ignore"):  # what overflows is refused, not warned of
        check_well_posed(weight, activation, witness.posed, witness.scaling)
        bound = witness.bound
        if not (isinstance(bound, float) and math.isfinite(bound) and bound > 0):
            raise NotProvedError(f"the claimed bound {bound!r} is not a positive finite number")
        whole = _quadratic(weight, inputs, activation, witness)
        m = inputs.shape[1]
        square = np.append(np.full(m, multiply_down(bound, bound)), np.zeros(n))
        whole = difference(Matrix(np.diag(square)), whole)
        lost = congruence(output, np.ones(output.shape[0]))
        _require(difference(whole, _embedded(lost, m)), "the bound")
    return bound


def check_well_posed(
    weight: Matrix, activation: Slopes | GroupSort, posed: str, scaling: Array
) -> None:
    """Prove that z = phi(W z + h) has exactly one solution for each h, or raise.

    Parameters
    ----------
    weight : (n, n) Matrix
        W.
    activation : Slopes or GroupSort
    posed : {"contraction", "monotone"}
    scaling : (n,) array
        D, constant on the groups of GroupSort.

    Raises
    ------
    NotProvedError
        If it is not proved.
    """
    n = weight.shape[0]
    scaling = _positive(scaling, n, "the scaling", strictly=True)
    if isinstance(activation, GroupSort):
        groups = scaling.reshape(activation.groups(n), activation.size)
        if not (groups == groups[:, :1]).all():
            raise NotProvedError("the scaling is not constant on each group")
        lower, upper = -np.ones(n), np.ones(n)
    else:
        lower, upper = activation.arrays(n)
    middle = Matrix(scaling[:, None])
    if posed == "contraction":
        largest = Matrix(np.maximum(np.abs(lower), np.abs(upper))[:, None])
        image = times(largest, weight)
        rest = difference(diagonal(middle), congruence(image, scaling))
    elif posed == "monotone":
        if (lower < 0).any():
            raise NotProvedError("the monotone condition takes slopes that are not negative")
        image = times(middle, times(Matrix(upper[:, None]), weight.transpose).transpose)
        rest = difference(diagonal(Matrix(2.0 * scaling[:, None])), total(image, image.transpose))
    else:
        raise NotProvedError(f"unknown condition {posed!r} of well-posedness")
    _require(rest, f"the fixed point ({posed})")


def _quadratic(
    weight: Matrix, inputs: Matrix, activation: Slopes | GroupSort, witness: ImplicitWitness
) -> Matrix:
    """Return an enclosure of the matrix of q."""
    n, m = inputs.shape
    both = _hstack(inputs, weight)
    if isinstance(activation, GroupSort):
        groups, size = activation.groups(n), activation.size
        strength = _positive(witness.multipliers, groups, "the multipliers")
        penalty = _positive(witness.penalties, groups, "the penalties")
        strength = np.repeat(strength, size)
        found = difference(congruence(both, strength), _embedded(Matrix(np.diag(strength)), m))
        sums: Array = np.kron(np.eye(groups), np.ones((1, size))).astype(np.float64)
        kept = product(Matrix(sums), both)
        kept = difference(kept, Matrix(np.hstack([np.zeros((groups, m)), sums])))
        return difference(found, congruence(kept, penalty))
    if witness.penalties.size:
        raise NotProvedError("slopes have no penalties")
    lower, upper = activation.arrays(n)
    strength = _positive(witness.multipliers, n, "the multipliers")
    column = Matrix(strength[:, None])
    side = times(times(column, total(Matrix(lower[:, None]), Matrix(upper[:, None]))), both)
    cross = _hstack(Matrix(np.zeros((m + n, m))), side.transpose)
    found = total(cross, cross.transpose)
    found = difference(found, _embedded(Matrix(np.diag(2.0 * strength)), m))
    if (lower * upper != 0).any() or ((lower != 0) & (upper != 0)).any():
        term = times(column, scale_rows(lower, Matrix((2.0 * upper)[:, None])))
        found = difference(found, product(both.transpose, times(term, both)).mirrored())
    return found


def _positive(values: Array, size: int, name: str, *, strictly: bool = False) -> Array:
    if not (isinstance(values, np.ndarray) and values.dtype == np.float64):
        raise NotProvedError(f"{name} are not float64")
    if values.shape != (size,) or not np.isfinite(values).all():
        raise NotProvedError(f"{name} are not {size} finite numbers")
    if (values < 0).any() or (strictly and (values == 0).any()):
        raise NotProvedError(f"{name}: a number is not positive")
    return values


def _hstack(a: Matrix, b: Matrix) -> Matrix:
    midpoint = np.hstack([a.midpoint, b.midpoint])
    if a.radius is None and b.radius is None:
        return Matrix(midpoint)
    radii = [np.zeros(p.shape) if p.radius is None else p.radius for p in (a, b)]
    return Matrix(midpoint, np.hstack(radii))


def _embedded(matrix: Matrix, m: int) -> Matrix:
    """Return the matrix with m rows and columns of zeros before its own."""

    def padded(part: Array) -> Array:
        return np.pad(part, ((m, 0), (m, 0)))

    return Matrix(padded(matrix.midpoint), None if matrix.radius is None else padded(matrix.radius))


def _require(matrix: Matrix, name: str) -> None:
    symmetric = matrix.mirrored()
    found = definiteness(symmetric.midpoint, symmetric.radius)
    if not found.proved:
        raise NotProvedError(f"{name}: not proved positive definite: {found.reason}")
