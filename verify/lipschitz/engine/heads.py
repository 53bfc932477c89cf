r"""What the bound makes of the storage matrix at the input: one smooth head for each norm.

From :math:`|df|^2 \le dx^TY_0\,dx`:

- l2: :math:`L^2 = \lambda_{\max}(Y_0)`, smoothed as
  :math:`\min_\rho \log\rho - \mu\log\det(I - Y_0/\rho)`;
- l1: :math:`L^2 = \max_i (Y_0)_{ii}`, smoothed alike;
- l-infinity: :math:`L^2 = \min\{1^Td : \mathrm{diag}(d) \succeq Y_0\}`, with log d among the
  variables and the barrier :math:`-\mu\log\det(I - D^{-1/2}Y_0D^{-1/2})`.

The smooth value never lies below log L^2 of the same storage, and the head's gradient is positive
definite.
"""

from dataclasses import dataclass

import numpy as np

from tangency.verify.certificate.matrix import Array

__all__ = ["HeadValue", "head_value"]


@dataclass(frozen=True, eq=False)
class HeadValue:
    """A head at one storage matrix.

    Parameters
    ----------
    square : float
        L^2, not smoothed.
    value : float
        The smooth logarithm.
    gradient : (n, n) array
        In the storage.
    slope : (n,) array
        In log d (l-infinity), otherwise empty.
    scale : float
        rho (l2 and l1).
    stiffness : float
        The second derivative of the smooth value in log rho.
    """

    square: float
    value: float
    gradient: Array
    slope: Array
    scale: float = 0.0
    stiffness: float = 0.0


def head_value(norm: str, storage: Array, variables: Array, mu: float) -> HeadValue | None:
    """Return the head of an input norm, or None where it is not defined.

    Parameters
    ----------
    norm : {"2", "1", "inf"}
    storage : (n, n) array
        Y_0, symmetric.
    variables : (n,) array
        log d for "inf", otherwise empty.
    mu : float
    """
    if not np.isfinite(storage).all():
        return None
    if norm == "inf":
        return _diagonal_head(storage, variables, mu)
    if norm == "1":
        values, vectors = np.maximum(np.diagonal(storage), 0.0), None
    else:
        values, vectors = np.linalg.eigh(storage)
        values = np.maximum(values, 0.0)
    top = float(values.max())
    if top <= 0.0:
        return None
    rho = top * (1.0 + _gap(values / top, mu))
    room = 1.0 - values / rho
    value = float(np.log(rho) - mu * np.log(room).sum())
    weights = mu / (rho * room)
    gradient = np.diag(weights) if vectors is None else (vectors * weights) @ vectors.T
    stiffness = float(mu * ((values / rho) / room**2).sum())
    return HeadValue(top, value, gradient, np.zeros(0), rho, stiffness)


def _gap(ratios: Array, mu: float) -> float:
    """Solve mu sum r / (1 + s - r) = 1 for s > 0, r at most 1: concave after inversion, Newton."""
    low, high = mu, mu * float(ratios.sum())  # one ratio is 1
    s = low
    for _ in range(60):
        room = 1.0 + s - ratios
        total = mu * float((ratios / room).sum())
        slope = mu * float((ratios / room**2).sum())
        move = (total - 1.0) * total / slope  # Newton for 1 / total
        s = min(max(s + move, low), high)
        if abs(move) <= 1e-14 * s:
            break
    return s


def _diagonal_head(storage: Array, variables: Array, mu: float) -> HeadValue | None:
    from scipy.linalg.lapack import dpotrf, dpotri

    d = np.exp(variables)
    root = np.exp(-0.5 * variables)
    pivot = -(root[:, None] * storage) * root
    pivot[np.diag_indices_from(pivot)] += 1.0
    factor, info = dpotrf(pivot.T, lower=1, overwrite_a=1, clean=0)
    if info != 0 or not np.isfinite(np.diagonal(factor)).all():
        return None
    logdet = 2.0 * float(np.log(np.diagonal(factor)).sum())
    inverse, _ = dpotri(factor, lower=1, overwrite_c=1)
    full = np.tril(inverse)
    full += np.tril(inverse, -1).T
    top = float(d.max())
    square = top * float((d / top).sum())
    slope = d / square + mu * (1.0 - np.diagonal(full))
    gradient = mu * (root[:, None] * full) * root
    return HeadValue(square, float(np.log(square)) - mu * logdet, gradient, slope)
