"""The product of norms: the simplest upper bound, always available."""

import math

import numpy as np

from tangency.verify.certificate.directed import multiply_up
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.lipschitz.chain import Chain

__all__ = ["product_bound"]


def product_bound(chain: Chain) -> float:
    r"""Return a proved upper bound of the product of norms, rounded upward.

    .. math:: L \le \prod_k \|W_k\|_2 \prod_k \mathrm{Lip}(\varphi_k)

    Parameters
    ----------
    chain : Chain

    Returns
    -------
    float
        Infinite if the product exceeds the range of float64.

    Examples
    --------
    >>> round(product_bound(Chain.from_matrices([[[3.0, 4.0]], [[2.0]]])), 9)
    10.0
    """
    factors = [spectral_norm_bound(w) for w in chain.weights]
    factors += [activation.lipschitz() for activation in chain.activations]
    if 0.0 in factors:
        return 0.0
    if math.inf in factors:
        return math.inf
    mantissa, exponent = 1.0, 0  # kept apart: the product of the first few may leave the range
    for factor in factors:
        if factor == 1.0:  # the usual activation costs no rounding
            continue
        part, shift = math.frexp(multiply_up(mantissa, math.frexp(factor)[0]))
        mantissa, exponent = part, exponent + shift + math.frexp(factor)[1]
    try:
        bound = math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf
    return bound if bound > 1e-300 else float(np.nextafter(bound, np.inf))
