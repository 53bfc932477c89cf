r"""Every activation as slopes: what is linear, and free coordinates with slopes in [a, b].

For differences of two inputs, with z = W x and free coordinates u = V x,

.. math:: dy = A\,dx + B\,dw, \qquad
          \sum_i\lambda_i(dw_i - a_i\,du_i)(b_i\,du_i - dw_i) \ge 0,

in interval matrices. A GroupSort layer keeps the sum of each group; in the integer basis F of the
complement, (1, -1, 0, ...), (1, 1, -2, ...), ..., with squared lengths h,

.. math:: A = \tfrac1g 11^TW, \quad B = F, \quad V = \mathrm{diag}(1/h)F^TW, \quad
          \lambda \to \lambda h, \quad [a, b] = [-1, 1],

because :math:`\sum_ih_i\,dw_i^2 \le \sum_ih_i\,du_i^2` says that the complement does not expand
(lemma 1 of [1]_, sums eliminated exactly; for MaxMin these are a + b and a - b, and nothing is
rounded). For Householder F is the normal of each group, and what is orthogonal to it is kept.

References
----------
.. [1] P. Pauli et al., ICLR 2024, arXiv 2401.14033, lemmas 1 and 2.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.diagonal import reciprocal, scaled, times
from tangency.verify.certificate.directed import difference, product, total
from tangency.verify.certificate.layers import Activation, GroupSort, Householder, Residual, Slopes
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["Reduction", "reduce"]


@dataclass(frozen=True, eq=False)
class Reduction:
    """A layer in the form of this module.

    Parameters
    ----------
    inner : (m, p) Matrix
        V.
    strength : (m, 1) Matrix
        lambda, nonnegative.
    lower, upper : (m,) arrays
        a and b.
    linear : (n, p) Matrix or None
        A; None where it is zero.
    spread : (n, m) Matrix or None
        B; None for the identity.
    """

    inner: Matrix
    strength: Matrix
    lower: Array
    upper: Array
    linear: Matrix | None = None
    spread: Matrix | None = None


def reduce(
    activation: Activation, weight: Matrix, multiplier: Array, *, exponent: int = 0, name: str
) -> Reduction:
    """Return the reduction of a layer with given multipliers.

    Parameters
    ----------
    activation : Slopes, GroupSort, Householder or Residual
    weight : (n, p) Matrix
        Already divided by 2**exponent.
    multiplier : array
        In the form of a witness.
    exponent : int
        What a residual block's G is multiplied by.
    name : str
        Of the layer, for messages.

    Raises
    ------
    NotProvedError
        If the multipliers do not fit, or one is negative.
    InputError
        If the activation is not valid.
    """
    if isinstance(activation, Residual):
        return _residual(activation, weight, multiplier, exponent, name)
    if isinstance(activation, GroupSort | Householder):
        count = activation.groups(weight.shape[0], name=name)
    else:
        count = weight.shape[0]
    if multiplier.shape != (count,):
        raise NotProvedError(f"{name}: the multipliers do not have the shape ({count},)")
    if not (multiplier >= 0).all():
        raise NotProvedError(f"{name}: a multiplier is negative")
    if isinstance(activation, GroupSort):
        return _sorting(activation, weight, multiplier)
    if isinstance(activation, Householder):
        return _reflections(activation, weight, multiplier, name)
    return _slopes(activation, weight, multiplier, name)


def _slopes(activation: Slopes, weight: Matrix, multiplier: Array, name: str) -> Reduction:
    n = weight.shape[0]
    lower, upper = activation.arrays(n, name=name)
    free = lower != upper
    if free.all():
        return Reduction(weight, Matrix(multiplier[:, None]), lower, upper)
    factors = np.where(free, 0.0, lower)
    spread = np.eye(n)[:, free]
    strength = Matrix(multiplier[free][:, None])
    inner, linear = weight.rows(free), scaled(factors, weight)
    return Reduction(inner, strength, lower[free], upper[free], linear, Matrix(spread))


def _sorting(activation: GroupSort, weight: Matrix, multiplier: Array) -> Reduction:
    size, n = activation.size, weight.shape[0]
    groups = n // size
    local = np.zeros((size, size - 1))
    for j in range(1, size):
        local[:j, j - 1] = 1.0
        local[j, j - 1] = -float(j)
    squares = np.array([float(j * (j + 1)) for j in range(1, size)])
    inner = times(reciprocal(Matrix(np.tile(squares, groups)[:, None])), _locally(local.T, weight))
    sums = _locally(np.ones((1, size)), weight)
    means = times(reciprocal(Matrix(np.full((groups, 1), float(size)))), sums)
    linear = means.rows(np.repeat(np.arange(groups), size))
    strength = scaled(np.tile(squares, groups), Matrix(np.repeat(multiplier, size - 1)[:, None]))
    ones = np.ones(groups * (size - 1))
    spread: Array = np.kron(np.eye(groups), local).astype(np.float64)
    return Reduction(inner, strength, -ones, ones, linear, Matrix(spread))


def _reflections(
    activation: Householder, weight: Matrix, multiplier: Array, name: str
) -> Reduction:
    groups, size = activation.normals.shape
    normals = activation.normals
    spread = np.zeros((groups * size, groups))
    for j in range(groups):
        spread[j * size : (j + 1) * size, j] = normals[j]
    basis = Matrix(spread)
    lengths = product(basis.transpose, basis)
    assert lengths.radius is not None
    squares = Matrix(
        np.diagonal(lengths.midpoint)[:, None].copy(), np.diagonal(lengths.radius)[:, None].copy()
    )
    if not (squares.midpoint > 2.0 * np.asarray(squares.radius)).all():
        raise NotProvedError(f"{name}: a normal is too short to be told from zero")
    inner = times(reciprocal(squares), product(basis.transpose, weight))
    linear = difference(weight, product(basis, inner))
    strength = times(squares, Matrix(multiplier[:, None]))
    return Reduction(inner, strength, -np.ones(groups), np.ones(groups), linear, basis)


def _residual(
    activation: Residual, weight: Matrix, multiplier: Array, exponent: int, name: str
) -> Reduction:
    inside = reduce(activation.inner, weight, multiplier, name=name)
    p, n = weight.shape[1], weight.shape[0]
    identity = Matrix(np.eye(p))
    outer = Matrix(np.eye(n)) if activation.output is None else activation.output
    if outer.shape != (p, n):
        raise NotProvedError(f"{name}: the residual block's output is not {p} by {n}")
    outer = outer.scaled(exponent)
    linear = identity
    if inside.linear is not None:
        linear = total(identity, product(outer, inside.linear))
    spread = outer if inside.spread is None else product(outer, inside.spread)
    return Reduction(inside.inner, inside.strength, inside.lower, inside.upper, linear, spread)


def _locally(local: Array, weight: Matrix) -> Matrix:
    """Return an enclosure of (I x local) W for a small matrix."""
    rows, size = local.shape
    n, p = weight.shape
    groups = n // size

    def turned(part: npt.NDArray[np.float64]) -> Array:
        return np.ascontiguousarray(part.reshape(groups, size, p).transpose(1, 0, 2)).reshape(
            size, groups * p
        )

    def back(part: npt.NDArray[np.float64]) -> Array:
        return np.ascontiguousarray(part.reshape(rows, groups, p).transpose(1, 0, 2)).reshape(
            groups * rows, p
        )

    flat = Matrix(turned(weight.midpoint), None if weight.radius is None else turned(weight.radius))
    found = product(Matrix(local), flat)
    assert found.radius is not None
    return Matrix(back(found.midpoint), back(found.radius))
