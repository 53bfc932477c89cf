r"""Every activation as slopes, in rational arithmetic: :math:`dy = A\,dx + B\,dw`, :math:`u = Vx`.

The constraint on the free coordinates is
:math:`\sum_i\lambda_i(dw_i - a_i\,du_i)(b_i\,du_i - dw_i) \ge 0`. GroupSort keeps the sum of each
group and Householder what is orthogonal to the normal (lemmas 1 and 2 of [1]_); on the rest they
are nonexpansive, group by group, which is slopes in [-1, 1] with one multiplier a group in an
orthogonal basis F whose vectors have the squared lengths h: :math:`V = h^{-1}F^TW`, B = F, and
:math:`\lambda h` in place of :math:`\lambda`.

References
----------
.. [1] P. Pauli et al., ICLR 2024, arXiv 2401.14033.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.certificate.layers import Activation, GroupSort, Householder, Residual, Slopes
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.certificate.rationals import (
    Rational,
    identity,
    multiply,
    number,
    rational,
    zeros,
)

__all__ = ["Form", "form_of"]


@dataclass(frozen=True, eq=False)
class Form:
    """A layer of n entries with m free coordinates, on an input of p.

    Parameters
    ----------
    inner : (m, p) array
        V.
    strength, lower, upper : (m,) arrays
        lambda, a and b.
    linear : (n, p) array
        A.
    spread : (n, m) array
        B.
    """

    inner: Rational
    strength: Rational
    lower: Rational
    upper: Rational
    linear: Rational
    spread: Rational


def form_of(
    activation: Activation, weight: Rational, multiplier: Array, *, scale: Fraction, name: str
) -> Form:
    """Return the form of a layer.

    Parameters
    ----------
    activation : Slopes, GroupSort, Householder or Residual
    weight : (n, p) array
        Divided by a power of two.
    multiplier : array
        In the form of a witness, for the weight as it is given.
    scale : Fraction
        What the weight was divided by, and a residual block's G is multiplied by.
    name : str
        Of the layer, for messages.

    Raises
    ------
    NotProvedError
        If the multipliers do not have their shape, or one is negative.
    UnsupportedError
        For another activation.
    """
    n, p = weight.shape
    if isinstance(activation, Residual):
        inside = form_of(activation.inner, weight, multiplier, scale=scale, name=name)
        outer = identity(n) if activation.output is None else _exact(activation.output, name)
        if outer.shape != (p, n):
            raise NotProvedError(f"{name}: the residual block's output is not {p} by {n}")
        outer = outer * number(scale)
        linear = identity(p) + multiply(outer, inside.linear)
        return replace(inside, linear=linear, spread=multiply(outer, inside.spread))
    if isinstance(activation, Slopes):
        strength = _strength(multiplier, n, name)
        lower, upper = activation.arrays(n, name=name)
        free = np.flatnonzero(lower != upper)
        linear = np.where((lower == upper)[:, None], rational(lower)[:, None] * weight, zeros(n, p))
        a, b = rational(lower[free]), rational(upper[free])
        return Form(weight[free], strength[free], a, b, linear, identity(n)[:, free])
    if isinstance(activation, GroupSort):
        groups = activation.groups(n, name=name)
        basis: Array = np.kron(np.eye(groups), _complement(activation.size)).astype(np.float64)
    elif isinstance(activation, Householder):
        groups = activation.groups(n, name=name)
        basis = np.zeros((n, groups))
        basis[np.arange(n), np.arange(n) // activation.size] = activation.normals.ravel()
    else:
        kind = type(activation).__name__
        raise UnsupportedError(f"{name}: {kind} has no exact check yet")
    strength = _strength(multiplier, groups, name)
    spread = rational(basis)
    lengths = (spread * spread).sum(axis=0)
    inner = multiply(spread.T, weight) / lengths[:, None]
    one = rational(np.ones(len(lengths)))
    repeated = np.repeat(strength, len(lengths) // groups)
    return Form(inner, repeated * lengths, -one, one, weight - multiply(spread, inner), spread)


def _exact(matrix: Matrix, name: str) -> Rational:
    if matrix.radius is not None and matrix.radius.any():
        raise InputError(f"{name}: a matrix is an enclosure, not exact in float64")
    return rational(matrix.midpoint)


def _complement(size: int) -> Array:
    """Return an integer orthogonal basis of what sums to zero, as (size, size - 1) columns."""
    basis = np.zeros((size, size - 1))
    for j in range(1, size):
        basis[:j, j - 1] = 1.0
        basis[j, j - 1] = -float(j)
    return basis


def _strength(multiplier: Array, count: int, name: str) -> Rational:
    if multiplier.shape != (count,):
        raise NotProvedError(f"{name}: the multipliers do not have the shape ({count},)")
    if not (multiplier >= 0).all():
        raise NotProvedError(f"{name}: a multiplier is negative")
    return rational(multiplier)
