"""The product of norms: the simplest upper bound, always available."""

import math

import numpy as np

from tangency.verify.certificate.directed import add_up, multiply_up, sqrt_up
from tangency.verify.certificate.layers import Activation, Residual
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.clock import Clock, seconds_for

__all__ = ["product_bound"]

_ENTRY = 1000.0  # operations for which rounding counts the same as each entry of a square


def product_bound(
    chain: Chain, *, norm: str = "2", output: str = "2", seconds: float | None = None
) -> float:
    r"""Return a proved upper bound of the product of norms, rounded upward.

    .. math:: L \le \prod_k \|W_k\|_2 \prod_k \mathrm{Lip}(\varphi_k)

    A residual block has the factor :math:`1 + \|G\|\mathrm{Lip}(\varphi)\|W\|`. Other norms of
    input and output cost what they differ from l2: the roots of n_0 (l-infinity of the input),
    n_l (l1 of the output), 2 (a margin).

    Parameters
    ----------
    chain : Chain
    norm : {"2", "1", "inf"}
        Of the input.
    output : {"2", "1", "inf", "margin"}
    seconds : float, optional
        For the factorisations. A layer for which there is no time left, as foreseen, has the
        smaller of :math:`\sqrt{\|W\|_1\|W\|_\infty}` and its Frobenius norm, the smallest layers
        first.

    Returns
    -------
    float
        Infinite if the product exceeds the range of float64.

    Examples
    --------
    >>> round(product_bound(Chain.from_matrices([[[3.0, 4.0]], [[2.0]]])), 9)
    10.0
    """
    matrices = list(chain.weights)
    matrices += [
        a.output for a in chain.activations if isinstance(a, Residual) and a.output is not None
    ]
    norms = _norms(matrices, seconds)
    factors = [norms[id(chain.weights[-1])]]
    for weight, activation in zip(chain.weights, chain.activations, strict=False):
        factors += _layer(norms, weight, activation)
    changes = {"1": chain.sizes[-1], "margin": 2}
    entries = [chain.sizes[0] if norm == "inf" else 1, changes.get(output, 1)]
    factors += [sqrt_up(float(count)) for count in entries if count != 1]
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


def _norms(matrices: list[Matrix], seconds: float | None) -> dict[int, float]:
    """Return a bound of each matrix's norm, by its identity."""
    clock, norms = Clock(seconds), {}
    for matrix in sorted(matrices, key=_operations):
        dear = seconds is not None and seconds_for(_operations(matrix)) > clock.left()
        norms[id(matrix)] = spectral_norm_bound(matrix, crude=dear)
    return norms


def _operations(matrix: Matrix) -> float:
    """Return about how many operations of the BLAS a norm takes: two products, one Cholesky."""
    short, long = sorted(matrix.shape)
    return 4.0 * short**2 * long + short**3 / 3.0 + _ENTRY * short**2


def _layer(norms: dict[int, float], weight: Matrix, activation: Activation) -> list[float]:
    """Return factors of one layer."""
    norm = norms[id(weight)]
    if not isinstance(activation, Residual):
        return [norm, activation.lipschitz()]
    factor = multiply_up(norm, activation.lipschitz())
    if activation.output is not None:
        factor = multiply_up(factor, norms[id(activation.output)])
    return [add_up(1.0, factor)]
