r"""The linear matrix inequality of LipSDP, assembled as numbers.

With v the input and the outputs of all neurons that are not linear, the chain is
:math:`\sqrt\rho`-Lipschitz if

.. math:: \rho E_0 + \sum_i \theta_i G_i - C \succeq 0,

where :math:`v^TE_0v = |x_0|^2`, :math:`v^TCv = |W_lx_{l-1}|^2`, and :math:`-v^TG_iv \ge 0` holds of
every difference of two runs: for a neuron with slopes in [a, b], z = w x, and its output y,
:math:`-v^TG_iv = 2(y - az)(bz - y)`, with a multiplier :math:`\theta_i \ge 0`; for a group of a
GroupSort layer :math:`|z|^2 - |y|^2` (:math:`\theta_i \ge 0`) and :math:`(1^Tz)^2 - (1^Ty)^2`,
which is zero (:math:`\theta_i` of any sign): lemma 1 of [2]_ with S = P = 0.

References
----------
.. [1] M. Fazlyab et al., NeurIPS 2019, arXiv 1906.04893, theorem 2, T diagonal.
.. [2] P. Pauli et al., ICLR 2024, arXiv 2401.14033, lemma 1, theorem 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.verify.certificate.layers import Activation, GroupSort, Slopes
from tangency.verify.certificate.matrix import Array

__all__ = ["Inequality", "assemble"]


@dataclass(frozen=True, eq=False)
class Inequality:
    """The inequality rho E0 + sum theta_i G_i - C >= 0.

    Parameters
    ----------
    terms : (d * d, 1 + m) sparse array
        E0 and G_1, ..., G_m, one column each.
    constant : (d, d) array
        C.
    nonnegative : (m,) array of bool
        Which multipliers may not be negative.
    layers : tuple of index arrays
        The multipliers of each activation, in the form that a witness has.
    blocks : tuple of index arrays
        The variables v fall into these sets, between which nothing is coupled.
    """

    terms: Any
    constant: Array
    nonnegative: Array
    layers: tuple[Any, ...]
    blocks: tuple[Any, ...]

    def multipliers(self, theta: Array) -> list[Array]:
        """Return the multipliers of each activation: 0 for linear neurons."""
        padded = np.append(theta, 0.0)
        return [padded[index] for index in self.layers]


def assemble(weights: Sequence[Array], activations: Sequence[Activation]) -> Inequality:
    """Return the inequality of a chain of plain matrices.

    Parameters
    ----------
    weights : sequence of l (n_k, n_{k-1}) arrays
    activations : sequence of l - 1 Slopes or GroupSort

    Returns
    -------
    Inequality
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    free = [_free(a, w.shape[0]) for a, w in zip(activations, weights, strict=False)]
    inputs = weights[0].shape[1]
    d = inputs + sum(int(f.sum()) for f in free)
    x = np.eye(inputs, d)
    columns: list[Array] = [_outer(x)]
    signs: list[bool] = []
    layers: list[Any] = []
    position = inputs
    for activation, weight, mask in zip(activations, weights, free, strict=False):
        n, first = weight.shape[0], len(columns) - 1
        z = weight @ x
        x = np.zeros((n, d))
        x[mask, position + np.arange(mask.sum())] = 1.0
        position += int(mask.sum())
        if isinstance(activation, GroupSort):
            groups = n // activation.size
            zs, ys = (part.reshape(groups, activation.size, d) for part in (z, x))
            columns += [_outer(y) - _outer(z) for z, y in zip(zs, ys, strict=True)]
            zs, ys = zs.sum(axis=1, keepdims=True), ys.sum(axis=1, keepdims=True)
            columns += [_outer(y) - _outer(z) for z, y in zip(zs, ys, strict=True)]
            signs += [True] * groups + [False] * groups
            layers.append(first + np.arange(2 * groups).reshape(2, groups))
            continue
        assert isinstance(activation, Slopes)
        lower, upper = activation.arrays(n)
        x[~mask] = lower[~mask, None] * z[~mask]
        index = np.full(n, -1)
        index[mask] = first + np.arange(mask.sum())
        layers.append(index)
        for i in np.flatnonzero(mask):
            inner = _outer(x[[i]] - lower[i] * z[[i]], upper[i] * z[[i]] - x[[i]])
            columns.append(-(inner + inner.T))
            signs.append(True)
    constant = _outer(weights[-1] @ x)
    terms = sparse.hstack([sparse.csc_array(c.reshape(-1, 1)) for c in columns], format="csc")
    coupled = (abs(terms).sum(axis=1).reshape(d, d) + np.abs(constant)) > 0
    count, label = connected_components(coupled, directed=False)
    blocks = tuple(np.flatnonzero(label == c) for c in range(count))
    return Inequality(terms, constant, np.array(signs, dtype=bool), tuple(layers), blocks)


def _free(activation: Activation, n: int) -> Any:
    """Return which neurons have a variable of their own: all but those with a = b."""
    if isinstance(activation, GroupSort):
        return np.ones(n, dtype=bool)
    assert isinstance(activation, Slopes)
    lower, upper = activation.arrays(n)
    return lower != upper


def _outer(a: Array, b: Array | None = None) -> Array:
    return a.T @ (a if b is None else b)
