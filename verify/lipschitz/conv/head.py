r"""The dense head of a convolutional chain: which part of each output a frequency may use.

The last layer gives one pixel, :math:`df = \sum_wp_w\hat W(w)\,d\hat X(w)`, and by the inequality
of Cauchy and Schwarz :math:`|df|^2 \le \sum_wp_w\,d\hat X^*\hat W^*J^{-1}\hat W\,d\hat X` for every
J(w) of mean :math:`\sum_wp_wJ(w) \preceq I`. With the gradient G(w) of the objective in
:math:`Y = \hat W^*J^{-1}\hat W` the best J for what is linear in Y is the geometric mean

.. math:: J = A \mathbin{\#} X, \qquad A = \hat WG\hat W^*,

X such that the mean of J is I. So :math:`\Theta = X^{-1}` is the barycentre of the A(w) in the
metric of Bures and Wasserstein, and the fixed point for this finds it. A step to it is taken where
the objective falls.

References
----------
.. [1] R. Bhatia, Positive Definite Matrices, Princeton (2007), chapter 4 (geometric means).
.. [2] P. C. Alvarez-Esteban et al., A fixed-point approach to barycenters in Wasserstein space,
       arXiv 1511.05355, theorem 4.2.
"""

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.matrix import Array

__all__ = ["allotted", "balanced", "gram"]

Stack = npt.NDArray[np.complex128]
_FLOOR = 1e-5  # of the mean eigenvalue: what every output has of every frequency


def gram(weight: Stack, head: Stack) -> Stack:
    """Return W* J^{-1} W, Hermitian.

    Parameters
    ----------
    weight : (f, m, c) array
    head : (f, m, m) array
    """
    found = weight.conj().swapaxes(1, 2) @ np.linalg.solve(head, weight)
    return np.asarray(0.5 * (found + found.conj().swapaxes(1, 2)))


def balanced(head: Stack, shares: Array) -> Stack:
    """Return S^{-1/2} J S^{-1/2}, S the real part of the mean of J: of mean one.

    Parameters
    ----------
    head : (f, m, m) array
    shares : (f,) array
    """
    values, vectors = np.linalg.eigh(np.tensordot(shares, head.real, axes=(0, 0)))
    root = (vectors / np.sqrt(values)) @ vectors.T
    return np.asarray(root @ head @ root)


def allotted(weight: Stack, flow: Stack, shares: Array, *, rounds: int = 20) -> Stack:
    """Return J of mean one that is best for a gradient.

    Parameters
    ----------
    weight : (f, m, c) array
    flow : (f, c, c) array
        The gradient in Y, each matrix positive semidefinite.
    shares : (f,) array
    rounds : int
        Of the fixed point.
    """
    target = weight @ flow @ weight.conj().swapaxes(1, 2) / shares[:, None, None]
    target = 0.5 * (target + target.conj().swapaxes(1, 2))
    m = target.shape[1]
    size = float(shares @ np.trace(target, axis1=1, axis2=2).real) / m
    target = target / size + _FLOOR * np.eye(m)
    middle = np.eye(m)
    for _ in range(rounds):
        found = _mean(target, middle)
        inverse = np.linalg.inv(np.tensordot(shares, found.real, axes=(0, 0)))
        middle = inverse @ middle @ inverse
        middle = 0.5 * (middle + middle.T)
    return balanced(_mean(target, middle), shares)


def _mean(stack: Stack, middle: Array) -> Stack:
    """Return the geometric means of Hermitian matrices with one real matrix."""
    values, vectors = np.linalg.eigh(middle)
    values = np.maximum(values, 1e-300)
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    spectra, frames = np.linalg.eigh(inverse @ stack @ inverse)
    inner = (frames * np.sqrt(np.maximum(spectra, 0.0))[:, None, :]) @ frames.conj().swapaxes(1, 2)
    found = root @ inner @ root
    return np.asarray(0.5 * (found + found.conj().swapaxes(1, 2)))
