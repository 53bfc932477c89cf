r"""Networks of finite width drawn at random: Gaussian or orthogonal weights.

One input needs no matrices. Given the layer before, ``W phi`` is in law ``|phi|`` times a Gaussian
vector or, for Haar orthogonal weights, times a uniform point of the sphere; tens of thousands of
networks are then drawn in seconds. The tangent kernel does need them:

.. math:: H' = (\lambda_b + \lambda_W |\phi|^2 / n) I + W D H D W^T, \qquad
          D = diag(\phi').

What is measured is ``n Var(|z|^2 / n) / mean^2``: for Gaussian weights ``2 + V / K^2`` to leading
order, which grows with depth; for orthogonal ones there is no such growth if ``phi`` is critical
at variance 0 (tanh).

References
----------
Day, Kahn, Roberts, "Feature Learning and Generalization in Deep Networks with Orthogonal Weights",
arXiv 2310.07765; Mezzadri, "How to Generate Random Matrices from the Classical Compact Groups",
arXiv math-ph/0609050.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.propagation.gauss import Array
from tangency.theory.propagation.maps import DepthMap

__all__ = ["Ensemble", "Weights", "orthogonal_weights", "sample_ensemble", "sample_ntk"]

Weights = Literal["gaussian", "orthogonal"]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Statistics over random networks, layer by layer; every array is ``(depth,)``.

    Attributes
    ----------
    width, draws : int
    mean : array
        Of ``|z|^2 / n``, or of the diagonal of the tangent kernel.
    mean_error : array
        Its standard error.
    fluctuation : array
        ``n Var / mean^2``.
    fluctuation_error : array
        Standard error of the fluctuation, by batches of draws.
    """

    width: int
    draws: int
    mean: Array
    mean_error: Array
    fluctuation: Array
    fluctuation_error: Array


def orthogonal_weights(rng: np.random.Generator, rows: int, columns: int, draws: int = 1) -> Array:
    """Haar-distributed matrices of orthonormal rows (or columns, whichever are fewer).

    Returns
    -------
    (draws, rows, columns) array

    Notes
    -----
    The triangle of QR is given a positive diagonal: without that the law is not Haar's.
    """
    tall, thin = max(rows, columns), min(rows, columns)
    q, r = np.linalg.qr(rng.standard_normal((draws, tall, thin)))
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    q = q * np.where(diagonal < 0.0, -1.0, 1.0)[:, None, :]
    return np.asarray(q if rows >= columns else q.transpose(0, 2, 1))


def sample_ensemble(
    layer: DepthMap,
    width: int,
    depth: int,
    *,
    weights: Weights = "gaussian",
    variance: float = 1.0,
    draws: int = 1000,
    seed: int = 0,
) -> Ensemble:
    """Draw networks and measure ``|z|^2 / n`` of one input at every layer.

    Parameters
    ----------
    layer : DepthMap
        Activation and initialisation.
    width, depth : int
        Width of every layer, and the number of layers of preactivations.
    weights : "gaussian" or "orthogonal"
        Independent ``N(0, C_W / n)``, or ``sqrt(C_W)`` times a Haar orthogonal matrix.
    variance : float
        ``K`` of the first layer, whose ``|z|^2 / n`` is exactly that for orthogonal weights
        without biases.
    draws, seed : int

    Raises
    ------
    InputError
        If a size is not positive, or the weights are of another kind.
    """
    _check(width, depth, draws, weights)
    rng = np.random.default_rng(seed)
    c_b = layer.bias_variance
    norms = np.empty((depth, draws))
    size = np.full(draws, np.sqrt(width * max(variance - c_b, 0.0)))
    for level in range(depth):
        z = size[:, None] * _directions(rng, draws, width, weights)
        if c_b:
            z += np.sqrt(c_b) * rng.standard_normal(z.shape)
        norms[level] = np.mean(z * z, axis=1)
        phi = np.asarray(layer.activation(z))
        size = np.sqrt(layer.weight_variance * np.sum(phi * phi, axis=1))
    return _statistics(norms, width, draws)


def sample_ntk(
    layer: DepthMap,
    width: int,
    depth: int,
    *,
    weights: Weights = "gaussian",
    variance: float = 1.0,
    ntk_bias: float = 0.0,
    ntk_weight: float = 1.0,
    draws: int = 100,
    seed: int = 0,
) -> Ensemble:
    """Draw networks and measure the diagonal of their tangent kernel at every layer.

    The parameters are those of :func:`sample_ensemble`; ``ntk_bias`` and ``ntk_weight`` are
    ``lambda_b`` and ``lambda_W``. A network costs ``O(depth n^3)``.

    Raises
    ------
    InputError
        If a size is not positive, or the weights are of another kind.
    """
    _check(width, depth, draws, weights)
    rng = np.random.default_rng(seed)
    c_w, c_b, n = layer.weight_variance, layer.bias_variance, width
    found = np.empty((depth, draws, n))
    first = max(variance - c_b, 0.0)
    z = np.sqrt(first * n) * _directions(rng, draws, n, weights)
    z += np.sqrt(c_b) * rng.standard_normal(z.shape)
    eye = np.eye(n)
    h = np.broadcast_to((ntk_bias + ntk_weight * first / c_w) * eye, (draws, n, n))
    found[0] = np.diagonal(h, axis1=1, axis2=2)
    for level in range(1, depth):
        phi, slope = np.asarray(layer.activation(z)), np.asarray(layer.activation.slope(z))
        if weights == "gaussian":
            w = rng.standard_normal((draws, n, n)) * np.sqrt(c_w / n)
        else:
            w = orthogonal_weights(rng, n, n, draws) * np.sqrt(c_w)
        z = (w @ phi[:, :, None])[:, :, 0] + np.sqrt(c_b) * rng.standard_normal(z.shape)
        carried = w * slope[:, None, :]
        own = ntk_bias + ntk_weight * np.mean(phi * phi, axis=1)
        h = carried @ h @ carried.transpose(0, 2, 1) + own[:, None, None] * eye
        found[level] = np.diagonal(h, axis1=1, axis2=2)
    return _statistics(found, width, draws)


def _check(width: int, depth: int, draws: int, weights: str) -> None:
    if min(width, depth) < 1 or draws < 20:
        raise InputError("width and depth must be positive, and draws at least 20")
    if weights not in ("gaussian", "orthogonal"):
        raise InputError(f"weights must be 'gaussian' or 'orthogonal', not {weights!r}")


def _directions(rng: np.random.Generator, draws: int, width: int, weights: str) -> Array:
    """``W v / |v|`` in law, ``(draws, width)`` array."""
    g = rng.standard_normal((draws, width))
    if weights == "gaussian":
        return np.asarray(g / np.sqrt(width))
    return np.asarray(g / np.linalg.norm(g, axis=1, keepdims=True))


def _statistics(values: Array, width: int, draws: int) -> Ensemble:
    """Statistics of ``(depth, draws)`` or, over exchangeable neurons too, ``(depth, draws, n)``."""
    values = values.reshape(*values.shape[:2], -1)
    mean = values.mean(axis=(1, 2))
    squares = ((values - mean[:, None, None]) ** 2).mean(axis=2)  # by draw
    fluctuation = width * squares.sum(axis=1) / (draws - 1) / mean**2
    mean_error = values.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(draws)
    parts = np.array_split(squares, 20, axis=1)
    spread = np.stack([part.mean(axis=1) for part in parts]).std(axis=0, ddof=1) / np.sqrt(20)
    return Ensemble(width, draws, mean, mean_error, fluctuation, width * spread / mean**2)
