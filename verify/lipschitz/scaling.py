"""Powers of two and orthogonal reductions that bring a chain to numbers of order one."""

import math

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.certificate.norms import scale_exponent
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.spectra import spectral_norm

__all__ = ["norm_exponents", "reduced", "scaled_midpoints"]


def norm_exponents(chain: Chain) -> tuple[int, ...]:
    """Return e_k such that the spectral norm of W_k / 2**e_k is about one (zero matrices: 0)."""
    exponents = []
    for weight in chain.weights:
        first = scale_exponent(weight.midpoint)
        norm = spectral_norm(np.ldexp(weight.midpoint, -first))
        exponents.append(first + (math.frexp(norm)[1] if norm else 0))
    return tuple(exponents)


def scaled_midpoints(chain: Chain, exponents: tuple[int, ...]) -> list[Array]:
    """Return W_k / 2**e_k in plain float64, with a wide first layer reduced."""
    weights = [np.ldexp(w.midpoint, -e) for w, e in zip(chain.weights, exponents, strict=True)]
    weights[0] = reduced(weights[0])
    return weights


def reduced(weight: Array) -> Array:
    """Return R^T with W = R^T Q^T, Q orthonormal, if W is wide: the same map up to an isometry.

    Examples
    --------
    >>> reduced(np.ones((2, 5))).shape
    (2, 2)
    """
    if weight.shape[1] <= weight.shape[0]:
        return weight
    return np.asarray(np.linalg.qr(weight.T).R.T)
