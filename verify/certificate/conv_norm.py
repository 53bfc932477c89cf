r"""A proved bound of the norm of one convolution, padded with zeros or circular.

Zero padding embeds the layer in a circular one on a torus that it does not wrap round, whose norm
is the largest :math:`\|\hat W(w)\|_2`; that bounds the layer's norm (the circular one's exactly).
Each frequency is proved by :math:`\begin{bmatrix} sI & \hat W^* \\ \hat W & sI\end{bmatrix}\succ 0`
in real arithmetic. A stride makes the phases of the input channels of their own, c s1 s2 in all. A
kernel as large as its image is a matrix and bounded as such.
"""

import math

import numpy as np
import numpy.typing as npt

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.conv_stack import embedded, stack_failure
from tangency.verify.certificate.conv_symbol import ConvLayer, Symbol, symbol
from tangency.verify.certificate.directed import up
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.norms import scale_exponent, spectral_norm_bound
from tangency.verify.certificate.product import norm_is_at_most

__all__ = ["conv_norm_bound", "conv_norm_is_at_most"]

Pair = tuple[int, int]
_CHUNK = 2**22  # entries of the matrices tested at once


def conv_norm_bound(
    weight: npt.ArrayLike | ConvLayer,
    input_size: Pair,
    *,
    stride: Pair = (1, 1),
    padding: tuple[Pair, Pair] | str = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> float:
    """Return a number that the l2 norm of a convolution layer does not exceed.

    Parameters
    ----------
    weight : (o, i / groups, k1, k2) array, or ConvLayer
        Of a cross-correlation; with a ConvLayer the options are not read.
    input_size : pair of int
        Spatial size of the input.
    stride, dilation : pair of int
    padding : pair of (before, after), or "circular"
        Zeros around the input, or an input that repeats (stride 1).
    groups : int

    Returns
    -------
    float
        For a circular layer within about 1e-10 relative of the norm; for zero padding the norm of
        the embedding torus, somewhat above the layer's own.

    Raises
    ------
    InputError
        If the layer does not fit the input.
    NotProvedError
        If nothing could be proved within the range of float64.

    Examples
    --------
    >>> mean = np.full((1, 1, 1, 3), 1 / 4)
    >>> round(conv_norm_bound(mean, (1, 6), padding="circular"), 9)
    0.75
    """
    if isinstance(weight, ConvLayer):
        layer, circular = weight, False
    else:
        circular = padding == "circular"
        if isinstance(padding, str) and not circular:
            raise InputError(f'padding is "circular" or a pair of (before, after), not {padding!r}')
        pads = ((0, 0), (0, 0)) if isinstance(padding, str) else padding
        layer = ConvLayer(np.asarray(weight), stride, pads, dilation, groups)
    if circular and layer.stride != (1, 1):
        raise InputError("a circular convolution has stride 1 here")
    if not circular and layer.is_dense(input_size):
        return spectral_norm_bound(layer.weight.reshape(len(layer.weight), -1))
    torus = input_size if circular else layer.torus(input_size)
    if not layer.weight.any():
        return 0.0
    exponent = scale_exponent(layer.weight.reshape(1, -1))
    with np.errstate(all="ignore"):
        found = symbol(layer, torus, exponent=exponent)
    guess = float(np.linalg.norm(found.real + 1j * found.imag, 2, axis=(1, 2)).max())
    n = 2 * sum(found.real.shape[1:])
    inflation = 4e-16 * n * n
    while inflation < 1e-3 and math.isfinite(guess):
        bound = guess * (1.0 + inflation)
        if _holds(found, bound):
            value = math.ldexp(bound, exponent) if exponent < 1000 else math.inf
            return value if value > 1e-300 else up(value)
        inflation *= 4.0
    raise NotProvedError("the norm of the convolution could not be proved in float64")


def conv_norm_is_at_most(layer: ConvLayer, size: Pair, bound: float) -> bool:
    """Whether the l2 norm of a layer, padded with zeros, is proved to be at most a float.

    Parameters
    ----------
    layer : ConvLayer
    size : pair of int
        Spatial size of the input.
    bound : float

    Examples
    --------
    >>> mean = ConvLayer(np.full((1, 1, 1, 3), 1 / 4))
    >>> conv_norm_is_at_most(mean, (1, 6), 0.751), conv_norm_is_at_most(mean, (1, 6), 0.6)
    (True, False)
    """
    if layer.is_dense(size):
        return norm_is_at_most(Matrix(layer.weight.reshape(len(layer.weight), -1)), bound)
    if not layer.weight.any():
        return bound >= 0.0
    exponent = scale_exponent(layer.weight.reshape(1, -1))
    if not (bound > 0.0 and abs(math.frexp(bound)[1] - exponent) <= 100):  # out of proportion
        return False
    root = math.ldexp(bound, -exponent)
    if math.ldexp(root, exponent) != bound:
        return False
    with np.errstate(all="ignore"):
        return _holds(symbol(layer, layer.torus(size), exponent=exponent), root)


def _holds(found: Symbol, bound: float) -> bool:
    """Whether it is proved that no matrix of the enclosures has a norm of `bound` or more."""
    count, o, i = found.real.shape
    step = max(1, _CHUNK // (2 * (o + i)) ** 2)
    for begin in range(0, count, step):
        part = found.part(slice(begin, begin + step))
        f = len(part.real)
        corners = bound * np.broadcast_to(np.eye(i), (f, i, i)), bound * np.eye(o)
        zeros = np.zeros((f, i, i)), np.zeros((f, o, o))
        real, imag, real_radius, imag_radius = (
            np.concatenate(
                [
                    np.concatenate([a, sign * v.swapaxes(1, 2)], axis=2),
                    np.concatenate([v, np.broadcast_to(d, (f, o, o))], axis=2),
                ],
                axis=1,
            )
            for a, v, d, sign in (
                (corners[0], part.real, corners[1], 1.0),
                (zeros[0], part.imag, zeros[1], -1.0),
                (zeros[0], part.real_radius, zeros[1], 1.0),
                (zeros[0], part.imag_radius, zeros[1], 1.0),
            )
        )
        radius = np.abs(embedded(real_radius, imag_radius))
        if stack_failure(embedded(real, imag), radius):
            return False
    return True
