r"""Layers of a chain that are exact for something else: maxima, reflections, values carried past.

- Max pooling is exact: :math:`\mathrm{maxpool} = S \circ \mathrm{GroupSort} \circ D`, where D lays
  out the windows one after the other and S takes the largest entry of each. (A window cut by the
  padding repeats one of its entries.) With m the largest number of windows that an entry is in,
  :math:`\|D\|_2 = \sqrt m`, since :math:`D^TD` is diagonal and counts them, and
  :math:`|S| \le 1`: without padding max pooling is :math:`\sqrt m`-Lipschitz in l2,
  :math:`m \le \prod_i\lceil k_i/s_i\rceil` for windows k_i and strides s_i.
- Householder with a stored v is the block :math:`z + v\,g(v^Tz)`, g of slopes in [-2, 0], exactly,
  whether or not v has unit length in float64.
- A value carried past an activation is a neuron of slope one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tangency.verify.certificate import GroupSort, Matrix, Residual, Slopes
from tangency.verify.chain.chain import Function
from tangency.verify.chain.layouts import rows

__all__ = ["IDENTITY", "Layer", "carried_past", "largest_of", "reflection"]

IDENTITY = Function(lambda z: z, np.ones_like, homogeneous=True)


class Layer(NamedTuple):
    """An affine map, the activation behind it, and how that is evaluated, if it is elementwise."""

    matrix: Matrix
    bias: np.ndarray
    activation: Slopes | GroupSort | Residual
    function: Function | None


def largest_of(matrix: Matrix, bias: np.ndarray, chosen: np.ndarray) -> tuple[Layer, np.ndarray]:
    """Return max pooling behind an affine map, and which window each entry is the maximum of.

    Parameters
    ----------
    matrix : (m, n) Matrix
    bias : (m,) array
    chosen : (w, k) array of int
        The entries of each window.

    Returns
    -------
    Layer, (w * k,) array of int
        The number of a window where its maximum is, -1 where there is another of its entries.
    """
    kept = np.full(chosen.shape, -1)
    kept[:, 0] = np.arange(len(chosen))  # the largest comes first
    order = chosen.reshape(-1)
    matrix, bias = rows(matrix, order), bias[order]
    if chosen.shape[1] > 1:
        return Layer(matrix, bias, GroupSort(chosen.shape[1]), None), kept.reshape(-1)
    return Layer(matrix, bias, Slopes(1.0, 1.0), IDENTITY), kept.reshape(-1)


def reflection(normals: np.ndarray, repeats: int) -> Layer:
    """Return z + V g(V^T z), which reflects groups of entries of z.

    Parameters
    ----------
    normals : (g, k) array
        v of each group of adjacent entries.
    repeats : int
        How often the groups follow one another.
    """
    groups, size = normals.shape
    spread = np.zeros((groups * size, groups))
    for j, normal in enumerate(normals):
        spread[j * size : (j + 1) * size, j] = normal
    spread = np.asarray(np.kron(np.eye(repeats), spread), dtype=np.float64)
    kink = Function(
        lambda t: np.where(t > 0, 0.0, -2.0 * t), lambda t: np.where(t > 0, 0.0, -2.0), True
    )
    block = Residual(Slopes(-2.0, 0.0), Matrix(spread))
    return Layer(Matrix(spread.T.copy()), np.zeros(spread.shape[1]), block, kink)


def carried_past(layer: Layer, below: np.ndarray) -> Layer:
    """Return an elementwise layer beside which values pass unchanged.

    Parameters
    ----------
    layer : Layer
        Of slopes.
    below : (p, n) array
        Rows that pick the values, of the layer's input.
    """
    matrix, bias, activation, function = layer
    assert isinstance(activation, Slopes)
    n = matrix.shape[0]
    radius = None if matrix.radius is None else np.vstack([matrix.radius, 0 * below])
    ones = np.ones(len(below))
    lower, upper = activation.arrays(n)
    return Layer(
        Matrix(np.vstack([matrix.midpoint, below]), radius),
        np.append(bias, 0 * ones),
        Slopes(np.append(lower, ones), np.append(upper, ones)),
        None if function is None else _first(function, n),
    )


def _first(function: Function, n: int) -> Function:
    """A function on the first n entries, the identity on the others."""

    def value(z: np.ndarray) -> np.ndarray:
        return np.concatenate([function.value(z[..., :n]), z[..., n:]], axis=-1)

    def derivative(z: np.ndarray) -> np.ndarray:
        rest = np.ones_like(z[..., n:])
        return np.concatenate([function.derivative(z[..., :n]), rest], axis=-1)

    return Function(value, derivative, function.homogeneous)
