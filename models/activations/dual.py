r"""Dual activations by Hermite expansion.

For ``(u, v)`` Gaussian with variance ``q`` and correlation ``rho``,

.. math:: E[phi(u) phi(v)] = \sum_k c_k^2 rho^k, \qquad c_k = E[phi(\sqrt q z) h_k(z)],

with ``h_k`` the normalised Hermite polynomials. By Parseval the coefficients left out sum to
``E phi^2 - sum c_k^2``, and each is multiplied by at most ``|rho|^(K+1)``: that is the returned
error (an estimate up to quadrature, which is about 1e-12).

References
----------
Daniely, Frostig, Singer, "Toward Deeper Understanding of Neural Networks", arXiv 1602.05897.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.moments import gaussian_integral, gaussian_moments
from tangency.models.errors import InputError

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["Dual", "dual", "hermite_coefficients"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Dual:
    """Value of the dual activation, and an estimate of its error, of the shape of rho."""

    value: Array
    error: Array


@functools.lru_cache(maxsize=256)
def hermite_coefficients(record: "Activation", variance: float = 1.0, terms: int = 80) -> Array:
    """Coefficients ``c_0 ... c_{terms-1}`` in normalised Hermite polynomials, ``(terms,) array``.

    Raises
    ------
    InputError
        If the activation has no Gaussian moments.
    """
    gaussian_moments(record, variance)
    root = float(np.sqrt(variance))

    def integrand(z: Array) -> Array:
        h = np.empty((terms, z.size))
        h[0] = 1.0
        if terms > 1:
            h[1] = z
        for k in range(1, terms - 1):
            h[k + 1] = (z * h[k] - np.sqrt(k) * h[k - 1]) / np.sqrt(k + 1.0)
        weighted: Array = h * np.asarray(record(root * z))
        return weighted

    breaks = tuple(k / root for k in (*record.kinks, *record.jumps))
    coefficients, _ = gaussian_integral(integrand, 1.0, breaks)
    if record.parity is not None:  # zero by symmetry
        coefficients[1 if record.parity == "even" else 0 :: 2] = 0.0
    coefficients.flags.writeable = False
    return coefficients


def dual(record: "Activation", rho: Any, variance: float = 1.0, *, terms: int = 80) -> Dual:
    """Evaluate ``E[phi(u) phi(v)]`` at correlations ``rho``, with an error estimate.

    Raises
    ------
    InputError
        If ``|rho| > 1`` or the moments do not exist.
    """
    r = np.asarray(rho, dtype=np.float64)
    if np.any(np.abs(r) > 1.0):
        raise InputError("a correlation lies between -1 and 1")
    c = hermite_coefficients(record, variance, terms)
    second = gaussian_moments(record, variance).second
    value = np.polynomial.polynomial.polyval(r, c**2)
    rest = max(second - float(np.sum(c**2)), 0.0)
    # At rho = 1 the sum is E phi^2, known by itself.
    value = np.where(r == 1.0, second, value)
    error = np.where(r == 1.0, 0.0, rest * np.abs(r) ** terms) + 1e-12 * max(second, 1.0)
    return Dual(np.asarray(value, dtype=np.float64), np.asarray(error, dtype=np.float64))
