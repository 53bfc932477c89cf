r"""MaxMin on a box: pairs that keep their order are linear.

With the sum s = a + b and the difference d = a - b of a pair,

.. math:: \max(a, b) = (s + |d|) / 2, \qquad \min(a, b) = (s - |d|) / 2,

so in the coordinates (s, d) sorting is an activation of one variable: the sum has the slope 1 and
the difference a slope in [-1, 1], or 1 or -1 alone where the order of the pair is known. It is the
same constraint as GroupSort's where no order is known. The weights around it are turned by
enclosures: the rounding of each entry is its radius.
"""

from __future__ import annotations

import numpy as np

from tangency.models.intervals import Interval
from tangency.verify.certificate import GroupSort, Matrix, Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain, Function

__all__ = ["settle_pairs"]


def settle_pairs(chain: Chain, inputs: list[Interval]) -> Chain:
    """Return the same map with MaxMin layers in sums and differences, where that helps.

    Parameters
    ----------
    chain : Chain
    inputs : list of Interval of (n_k,) arrays
        Bounds on the inputs of the activations, in the chain's order.

    Returns
    -------
    Chain
        A layer of GroupSort in pairs, some of which keep their order, has become Slopes.

    Examples
    --------
    >>> chain = Chain.from_matrices([np.eye(2), np.eye(2)], "maxmin")
    >>> apart = Interval(np.array([1.0, -1.0]), np.array([2.0, 0.0]))
    >>> settle_pairs(chain, [apart]).activations[0].lower
    array([1., 1.])
    """
    weights, biases = list(chain.weights), list(chain.biases)
    activations, functions = list(chain.activations), list(chain.functions)
    for k, activation in enumerate(chain.activations):
        if not isinstance(activation, GroupSort) or activation.size != 2:
            continue
        # a - b, with one outward step for the rounding of the difference.
        low = np.nextafter(inputs[k].lower[::2] - inputs[k].upper[1::2], -np.inf)
        high = np.nextafter(inputs[k].upper[::2] - inputs[k].lower[1::2], np.inf)
        kept, swapped = low >= 0.0, high <= 0.0
        if not (kept | swapped).any():
            continue
        with np.errstate(all="ignore"):
            before = _turned(weights[k], 0, 1.0)
            after = _turned(weights[k + 1], 1, 1.0 if activation.descending else -1.0, 0.5)
        if before is None or after is None:
            continue
        slopes = np.ones((2, 2 * len(low)))
        slopes[0, 1::2] = np.where(kept, 1.0, -1.0)
        slopes[1, 1::2] = np.where(swapped & ~kept, -1.0, 1.0)
        activations[k] = Slopes(slopes[0], slopes[1])
        functions[k] = _FOLD
        weights[k], weights[k + 1] = before, after
        bias = biases[k]
        if bias is not None:
            biases[k] = np.stack([bias[::2] + bias[1::2], bias[::2] - bias[1::2]], 1).reshape(-1)
    return Chain(tuple(weights), tuple(activations), tuple(biases), tuple(functions))


def _fold(z: Array) -> Array:
    return np.where(np.arange(z.shape[-1]) % 2 == 0, z, np.abs(z))


def _fold_slope(z: Array) -> Array:
    return np.where((np.arange(z.shape[-1]) % 2 == 0) | (z > 0), 1.0, -1.0)


_FOLD = Function(_fold, _fold_slope, homogeneous=True)


def _turned(weight: Matrix, axis: int, sign: float, scale: float = 1.0) -> Matrix | None:
    """Return rows or columns a, b as scale (a + b) and scale sign (a - b), enclosed.

    None where a sum leaves the range of float64.

    The scale is a power of two, and by no other step than the sum is anything rounded: the radius
    is one spacing of the floats at the result, which is no less than the error of a sum or, where
    the scaling underflows, of the scaling.
    """
    parts = np.moveaxis(weight.midpoint, axis, 0)
    a, b = parts[::2], parts[1::2]
    radius = np.zeros_like(parts)
    if weight.radius is not None:
        radius = np.moveaxis(weight.radius, axis, 0)
    both = radius[::2] + radius[1::2]
    midpoints, radii = [], []
    for first, second, factor in ((a, b, scale), (sign * a, -sign * b, scale)):
        total = first + second
        midpoint = total * factor
        exact = (first == 0.0) | (second == 0.0)
        exact &= (midpoint / factor == total) & (both == 0.0)
        error = np.nextafter(
            np.nextafter(both * factor, np.inf) + np.spacing(np.abs(midpoint)), np.inf
        )
        midpoints.append(midpoint)
        radii.append(np.where(exact, 0.0, error))
    shape = parts.shape
    middle, spread = (
        np.moveaxis(np.stack(pair, 1).reshape(shape), 0, axis) for pair in (midpoints, radii)
    )
    if not (np.isfinite(middle).all() and np.isfinite(spread).all()):
        return None
    return Matrix(np.ascontiguousarray(middle), np.ascontiguousarray(spread))
