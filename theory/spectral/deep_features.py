r"""Deep random features through their linear Gaussian equivalents.

A layer ``h_l = phi(W_l h_{l-1} / sqrt(k_{l-1}))`` of an odd activation acts on covariances as the
linear map plus noise ``kappa_1 W / sqrt(k) h + kappa_* xi``, with

.. math:: \kappa_1 = E\,\phi'(\sqrt{r_l} z), \quad
          \kappa_*^2 = E\,\phi(\sqrt{r_l} z)^2 - r_l \kappa_1^2, \quad
          r_{l+1} = E\,\phi(\sqrt{r_l} z)^2 .

Covariances of any teacher and any student follow by matrix products, and the errors of ridge
regression on the student's features from them alone.

References
----------
Schröder, Cui, Dmitriev and Loureiro, "Deterministic equivalent and error universality of deep
random features learning", arXiv 2302.00401.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation, get
from tangency.models.errors import InputError
from tangency.theory.spectral.risk import ridge_risk

__all__ = [
    "FeatureRisk",
    "LayerConstants",
    "deep_feature_risk",
    "feature_covariances",
    "layer_constants",
]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class LayerConstants:
    """One layer's linear equivalent.

    Attributes
    ----------
    variance : float
        ``r``: of the preactivations.
    linear, noise : float
        ``kappa_1`` and ``kappa_*``.
    """

    variance: float
    linear: float
    noise: float


def layer_constants(
    activations: Sequence[Activation | str], *, variance: float = 1.0
) -> tuple[LayerConstants, ...]:
    """The constants of each layer, the first one's preactivations having this variance.

    Raises
    ------
    InputError
        For an activation whose mean is not zero (the equivalent then has a rank-one part more).
    """
    found: list[LayerConstants] = []
    for item in activations:
        record = get(item) if isinstance(item, str) else item
        moments = record.gaussian_moments(variance)
        if abs(moments.mean) > 1e-9 * math.sqrt(moments.second):
            raise InputError(f"{record.name} has mean {moments.mean:.3g}: an odd activation needed")
        rest = max(0.0, moments.second - variance * moments.slope_mean**2)
        found.append(LayerConstants(variance, moments.slope_mean, math.sqrt(rest)))
        variance = moments.second
    return tuple(found)


def feature_covariances(
    weights: Sequence[Any], constants: Sequence[LayerConstants], covariance: Any
) -> tuple[Array, Array]:
    """Covariance of the last features, and of the features with the inputs.

    Parameters
    ----------
    weights : sequence of (k_l, k_{l-1}) arrays
        With the scale that the layers apply: entries of variance ``1 / k_{l-1}``.
    constants : sequence of LayerConstants
    covariance : (d, d) array
        Of the inputs.

    Returns
    -------
    ((k_L, k_L) array, (k_L, d) array)

    Raises
    ------
    InputError
        For shapes that do not follow each other.
    """
    omega = np.asarray(covariance, np.float64)
    if omega.ndim != 2 or omega.shape[0] != omega.shape[1]:
        raise InputError(f"covariance has shape {omega.shape}: (d, d)")
    if len(weights) != len(constants):
        raise InputError(f"{len(weights)} weights and {len(constants)} layers of constants")
    cross = omega
    for i, (weight, layer) in enumerate(zip(weights, constants, strict=True)):
        w = np.asarray(weight, np.float64)
        if w.ndim != 2 or w.shape[1] != len(omega):
            raise InputError(f"weights {i} have shape {w.shape}: (k, {len(omega)})")
        omega = layer.linear**2 * (w @ omega @ w.T)
        omega.flat[:: len(omega) + 1] += layer.noise**2
        cross = layer.linear * (w @ cross)
    return omega, cross


@dataclass(frozen=True)
class FeatureRisk:
    """Errors of ridge regression on Gaussian features.

    Attributes
    ----------
    test, train : float
        Mean squared errors.
    classification : float
        The probability that the prediction has another sign than the teacher's field.
    """

    test: float
    train: float
    classification: float


def deep_feature_risk(
    omega: Any,
    overlap: Any,
    field_variance: float,
    samples: float,
    *,
    ridge: float,
    labels: str = "linear",
    noise: float = 0.0,
) -> FeatureRisk:
    """Errors of ``w = (F^T F + ridge I)^-1 F^T y`` on features of covariance omega.

    Parameters
    ----------
    omega : (k, k) array
        Covariance of the features.
    overlap : (k,) array
        Covariance of the features with the teacher's field.
    field_variance : float
        Variance of the teacher's field, which is Gaussian.
    samples : float
    ridge : float
        Positive, or 0 away from ``samples = k``.
    labels : {"linear", "sign"}
        The field itself or its sign.
    noise : float
        Variance of what is added to the labels.

    Raises
    ------
    InputError
        Where the overlap is more than these variances allow, and for shapes that do not fit.
    """
    matrix, overlap = np.asarray(omega, np.float64), np.asarray(overlap, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or overlap.shape != (len(matrix),):
        raise InputError(f"omega has shape {matrix.shape}, overlap {overlap.shape}: (k, k), (k,)")
    if labels not in ("linear", "sign"):
        raise InputError(f"labels={labels!r}: 'linear' or 'sign'")
    if not field_variance > 0:
        raise InputError(f"field_variance={field_variance!r}: a positive number")
    values, vectors = np.linalg.eigh(matrix)
    kept = values > len(values) * np.finfo(np.float64).eps * values[-1]
    values, aim = values[kept], (vectors.T @ overlap)[kept]
    # E[sign(t) t] = sqrt(2 / pi) of a standard t: the linear part of the label.
    scale = 1.0 if labels == "linear" else math.sqrt(2.0 / (math.pi * field_variance))
    power = float(field_variance) if labels == "linear" else 1.0
    explained = scale**2 * float((aim**2 / values).sum())
    if explained > power * (1 + 1e-9):
        raise InputError("overlap: features explain more of the labels than there is of them")
    rest = max(0.0, power - explained) + noise
    risk = ridge_risk(values, scale * aim / np.sqrt(values), samples, ridge=ridge, noise=rest)
    align = float((aim**2 / (values + risk.gamma)).sum()) * scale
    size = max(risk.test - power - noise + 2.0 * scale * align, 0.0)
    cosine = align / math.sqrt(field_variance * size) if size > 0 else 0.0
    angle = math.acos(min(1.0, max(-1.0, cosine)))
    return FeatureRisk(risk.test, risk.train, angle / math.pi)
