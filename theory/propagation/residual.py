r"""Residual networks of infinite width and depth, with branches scaled by ``1 / sqrt(depth)``.

For ``Y_l = Y_{l-1} + L^(-1/2) W_l phi(Y_{l-1})``, ``W ~ N(0, C_W / n)``, the covariances of two
inputs tend, for width ``n`` and depth ``L`` to infinity in any order, to the flow

.. math:: \dot q = C_W E[phi(\sqrt q z)^2], \qquad \dot s = C_W E[phi(u) phi(v)], \qquad
          0 \le t \le 1.

For ReLU at ``C_W = 1`` this is ``q_1 = q_0 sqrt(e)``. With branches scaled by ``1 / depth`` nothing
moves: ``q_1 = q_0``. (Abstracts that circulate say ``1 / depth``; the published one does not.)

References
----------
Hayou, Yang, "Width and Depth Limits Commute in Residual Networks", arXiv 2302.00453.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.theory.kernels.duals import dual_of
from tangency.theory.propagation.gauss import Array, record_of

__all__ = ["ResidualFlow", "ResidualSample", "residual_flow", "sample_residual"]


@dataclass(frozen=True, eq=False)
class ResidualFlow:
    """The covariances of two inputs along the depth of an infinite residual network.

    Attributes
    ----------
    times : (m,) array
        ``l / L``.
    first, second, covariance : (m,) arrays
        The variances of the two inputs, and their covariance.
    """

    times: Array
    first: Array
    second: Array
    covariance: Array

    @property
    def correlation(self) -> Array:
        """Correlation of the two inputs."""
        return np.asarray(self.covariance / np.sqrt(self.first * self.second))


@dataclass(frozen=True, eq=False)
class ResidualSample:
    """Covariances at the last layer of networks drawn at random, one entry a draw: (draws,)."""

    width: int
    depth: int
    first: Array
    second: Array
    covariance: Array


def residual_flow(
    activation: Activation | str,
    *,
    weight_variance: float = 1.0,
    first: float = 1.0,
    second: float = 1.0,
    covariance: float = 0.0,
    points: int = 101,
) -> ResidualFlow:
    """Integrate the flow of variances and covariance from time 0 to 1.

    >>> round(float(residual_flow("relu").first[-1]), 6)  # sqrt(e)
    1.648721

    Raises
    ------
    InputError
        If the three numbers are no covariance matrix.
    """
    from scipy.integrate import solve_ivp

    record = record_of(activation)
    dual = dual_of(record)
    _check_covariance(first, second, covariance)

    def speed(_: float, state: Array) -> Array:
        q1, q2, s = state
        limit = float(np.sqrt(q1 * q2))
        s = float(np.clip(s, -limit, limit))
        pair = dual.pair(q1, q2, s)
        return weight_variance * np.array([dual.variance(q1), dual.variance(q2), pair.k])

    times = np.linspace(0.0, 1.0, points)
    start = np.array([first, second, covariance])
    found = solve_ivp(speed, (0.0, 1.0), start, t_eval=times, rtol=1e-9, atol=1e-12)
    return ResidualFlow(times, *found.y)


def sample_residual(
    activation: Activation | str,
    width: int,
    depth: int,
    *,
    weight_variance: float = 1.0,
    branch_power: float = 0.5,
    first: float = 1.0,
    second: float = 1.0,
    covariance: float = 0.0,
    draws: int = 100,
    seed: int = 0,
) -> ResidualSample:
    """Draw residual networks, with branches scaled by ``depth**-branch_power``.

    The two inputs start with exactly these covariances. ``W (phi(y), phi(y'))`` is, given the
    layer before, Gaussian with the Gram matrix of the two; no matrix of weights is drawn.

    Raises
    ------
    InputError
        If a size is not positive, or the three numbers are no covariance matrix.
    """
    if width < 2 or depth < 1 or draws < 1:
        raise InputError("depth and draws must be positive, and width at least 2")
    _check_covariance(first, second, covariance)
    record = record_of(activation)
    rng = np.random.default_rng(seed)
    # Two orthonormal directions times a root of the covariance matrix.
    frame = np.linalg.qr(rng.standard_normal((draws, width, 2)))[0] * np.sqrt(width)
    y = frame @ _root(first, second, covariance).T
    scale = np.sqrt(weight_variance) * depth**-branch_power
    for _ in range(depth):
        phi = np.asarray(record(y))
        g11, g22 = (np.mean(phi[..., i] ** 2, axis=1) for i in (0, 1))
        g12 = np.mean(phi[..., 0] * phi[..., 1], axis=1)
        a = np.sqrt(g11)
        b = np.divide(g12, a, out=np.zeros_like(a), where=a > 0.0)
        c = np.sqrt(np.maximum(g22 - b * b, 0.0))
        noise = scale * rng.standard_normal((draws, width, 2))
        y[..., 1] += b[:, None] * noise[..., 0] + c[:, None] * noise[..., 1]
        y[..., 0] += a[:, None] * noise[..., 0]
    one, two = y[..., 0], y[..., 1]
    return ResidualSample(
        width,
        depth,
        np.mean(one * one, axis=1),
        np.mean(two * two, axis=1),
        np.mean(one * two, axis=1),
    )


def _root(first: float, second: float, covariance: float) -> Array:
    """Lower triangular root of the covariance matrix."""
    a = np.sqrt(first)
    b = covariance / a
    return np.array([[a, 0.0], [b, np.sqrt(max(second - b * b, 0.0))]])


def _check_covariance(first: float, second: float, covariance: float) -> None:
    if not (first > 0.0 and second > 0.0 and covariance**2 <= first * second * (1.0 + 1e-12)):
        raise InputError(
            f"variances {first}, {second} and covariance {covariance} are of no two inputs"
        )
