r"""The storage recursion from the output to the input, and its adjoint.

With :math:`|df|^2 \le dy^TY\,dy` after a layer and multipliers \lambda > 0, the layer's free
part is eliminated by its pivot R, which must be positive definite:

.. math::
    R &= 2\Lambda - B^TYB, \qquad S = (a+b)\Lambda W + B^TYA, \\
    Y' &= A^TYA - 2W^T\Lambda abW + S^TR^{-1}S, \qquad |df|^2 \le dx^TY'dx.

The worst dw for a given dx is T dx, T = R^{-1} S. By the envelope theorem the derivative of a
function of Y' with gradient G' is :math:`G = ZG'Z^T` in Y, Z = A + B T, and
:math:`2\,\mathrm{diag}\bigl((T - aW)G'(bW - T)^T\bigr)` in the multipliers; the barrier
:math:`-\mu\log\det R` adds :math:`\mu BR^{-1}B^T` and :math:`-2\mu\,\mathrm{diag}R^{-1}`. So G is
the covariance of y where x has the covariance G' and dw = T dx + noise of covariance
:math:`\mu R^{-1}`: a Markov chain, whose correlations give the second derivatives too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.engine.layers import Layer

__all__ = ["Adjoint", "Elimination", "backward", "eliminate", "forward"]


@dataclass(frozen=True, eq=False)
class Elimination:
    """A layer's pivot and half of its worst case: R = L L^T, V = L^{-1} S.

    Parameters
    ----------
    factor : (m, m) array
        L^T in C order (its upper triangle).
    half : (m, p) array
        V.
    logdet : float
        log det(Lambda^{-1/2} R Lambda^{-1/2}).
    """

    factor: Array
    half: Array
    logdet: float


@dataclass(frozen=True, eq=False)
class Adjoint:
    """What the backward sweep leaves of a layer, for second derivatives.

    Parameters
    ----------
    first, second : (m, p) arrays
        T - a W and b W - T.
    step : (n, p) array
        Z.
    noise : (m, m) array
        mu R^{-1}.
    before : (p, p) array
        G'.
    """

    first: Array
    second: Array
    step: Array
    noise: Array
    before: Array


def eliminate(layer: Layer, strength: Array, storage: Array) -> tuple[Elimination, Array] | None:
    """Return a layer's elimination and Y', or None if the pivot is not positive definite.

    Parameters
    ----------
    layer : Layer
    strength : (m,) array
        Lambda, positive.
    storage : (n, n) array
        Y.
    """
    from scipy.linalg.blas import dtrsm
    from scipy.linalg.lapack import dpotrf

    if layer.width == 0:
        assert layer.linear is not None
        before = layer.linear.T @ (storage @ layer.linear)
        return Elimination(np.zeros((0, 0)), np.zeros((0, storage.shape[0])), 0.0), before
    pivot = -layer.inner(storage)
    pivot[np.diag_indices_from(pivot)] += 2.0 * strength
    # A C-ordered array is the transpose of a Fortran-ordered one: no copy is made.
    factor, info = dpotrf(pivot.T, lower=1, overwrite_a=1, clean=0)
    if info != 0:
        return None
    diagonal = np.diagonal(factor)
    if not np.isfinite(diagonal).all():
        return None
    logdet = 2.0 * float(np.log(diagonal).sum()) - float(np.log(strength).sum())
    sums = layer.lower + layer.upper
    if layer.linear is not None:
        image = storage @ layer.linear
        side = layer.inner_left(image)
        if sums.any():
            side = side + (sums * strength)[:, None] * layer.weight
    else:
        image, side = None, (sums * strength)[:, None] * layer.weight
    half = dtrsm(1.0, factor, np.ascontiguousarray(side).T, side=1, lower=1, trans_a=1).T
    before = half.T @ half
    if image is not None and layer.linear is not None:
        before += layer.linear.T @ image
    curve = layer.lower * layer.upper
    if curve.any():
        before -= layer.weight.T @ ((2.0 * strength * curve)[:, None] * layer.weight)
    return Elimination(factor, half, logdet), before


def forward(
    layers: Sequence[Layer],
    strengths: Sequence[Array],
    storage: Array,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[Elimination], Array] | None:
    """Eliminate all layers from the last to the first.

    Parameters
    ----------
    layers : sequence of Layer
    strengths : sequence of (m_k,) arrays
    storage : (n, n) array
        At the output of the last layer.
    check : callable
        Called before each layer: what it raises ends the sweep.

    Returns
    -------
    eliminations : list of Elimination, in the order of the layers
    storage : (n_0, n_0) array
        At the input; None for both where a pivot is not positive definite.
    """
    found: list[Elimination] = []
    for layer, strength in zip(reversed(layers), reversed(strengths), strict=True):
        check()
        step = eliminate(layer, strength, storage)
        if step is None:
            return None
        elimination, storage = step
        # What rounding leaves asymmetric would grow from layer to layer.
        storage += storage.T
        storage *= 0.5
        found.append(elimination)
    return found[::-1], storage


def backward(
    layers: Sequence[Layer],
    eliminations: Sequence[Elimination],
    gradient: Array,
    mu: float,
    *,
    keep: bool = False,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[Array], Array, list[Adjoint]]:
    """Return the derivatives in the multipliers, the gradient at the output, and the adjoints.

    Parameters
    ----------
    layers : sequence of Layer
    eliminations : sequence of Elimination
    gradient : (n_0, n_0) array
        In the storage at the input, symmetric.
    mu : float
        Weight of the barrier -log det R of each layer.
    keep : bool
        Whether to return the adjoints.
    check : callable
        As in `forward`.
    """
    from scipy.linalg.blas import dtrsm
    from scipy.linalg.lapack import dpotri

    slopes: list[Array] = []
    adjoints: list[Adjoint] = []
    for layer, done in zip(layers, eliminations, strict=True):
        check()
        if layer.width == 0:
            assert layer.linear is not None
            none = np.zeros((0, gradient.shape[0]))
            slopes.append(np.zeros(layer.count))
            adjoints.append(Adjoint(none, none, layer.linear, np.zeros((0, 0)), gradient))
            gradient = layer.linear @ gradient @ layer.linear.T
            continue
        worst = dtrsm(1.0, done.factor, done.half.T, side=1, lower=1).T
        if keep:
            inverse, _ = dpotri(done.factor, lower=1)
        else:
            inverse, _ = dpotri(done.factor, lower=1, overwrite_c=1)
        noise = np.tril(inverse)
        noise += np.tril(inverse, -1).T
        noise *= mu
        first = worst - layer.lower[:, None] * layer.weight if layer.lower.any() else worst
        second = layer.upper[:, None] * layer.weight - worst
        step = layer.outer_left(worst)
        after = step @ gradient
        moved = after if step is first else first @ gradient
        slope = 2.0 * (np.einsum("ij,ij->i", moved, second) - np.diagonal(noise))
        slopes.append(layer.collect(slope))
        if keep:
            adjoints.append(Adjoint(first, second, step, noise, gradient))
        gradient = after @ step.T
        layer.outer_sum(gradient, noise)
    return slopes, gradient, adjoints
