"""Mean and covariance, over random initialisations, of wide networks at a time of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.grams import Grams, matrix, restore, targets
from tangency.theory.prediction.spectrum import spectrum, times

__all__ = ["Ensemble", "ensemble_prediction"]


@dataclass(frozen=True)
class Ensemble:
    """Gaussian outputs of an ensemble of trained networks.

    Attributes
    ----------
    t : (T,) array or float
        The times asked for; every array below has an axis of times in front where t has.
    train_mean, test_mean : (T, n, ...), (T, m, ...) array
    train_covariance, test_covariance : (T, n, n), (T, m, m) array
        One for all outputs where the kernels do not mix them.

    The test arrays are None where the Gram matrices have no such block.
    """

    t: np.ndarray | float
    train_mean: np.ndarray
    train_covariance: np.ndarray
    test_mean: np.ndarray | None
    test_covariance: np.ndarray | None

    @property
    def test_deviation(self) -> np.ndarray:
        """Standard deviation at each test input, (T, m).

        Raises
        ------
        InputError
            Where there is no covariance.
        """
        if self.test_covariance is None:
            raise InputError("no covariance: the Gram matrices have no test block")
        diagonal = np.diagonal(self.test_covariance, axis1=-2, axis2=-1)
        return np.asarray(np.sqrt(np.maximum(diagonal, 0.0)))


def ensemble_prediction(
    grams: Grams,
    y: Any,
    *,
    t: Any = np.inf,
    learning_rate: float = 1.0,
    get: str = "ntk",
    ridge: float = 0.0,
    reduction: str = "sum",
    discrete: bool = False,
    error: float | None = None,
) -> Ensemble:
    """Ensemble of infinitely wide networks trained for a time t by gradient flow.

    A network drawn with outputs of covariance K (the NNGP) and trained on squared loss under the
    tangent kernel Theta has ``f_t(x) = f_0(x) + A_t (y - f_0(X))``, with
    ``A_t = Theta(x, X) Theta^-1 (1 - exp(-lr t Theta))``; so the mean is ``A_t y`` and the
    covariance ``K_** + A_t K A_t^T - A_t K_*^T - K_* A_t^T``. At a training input
    ``1 - A_t = exp(-lr t Theta)``.

    Parameters
    ----------
    grams : Grams
        With both blocks; ``get="nngp"`` needs the NNGP alone.
    y : (n, ...) array
        Targets.
    t : float or (T,) array
        Times, by default the end of training.
    learning_rate, ridge, reduction, discrete, error
        As for :func:`gradient_flow_mse`.
    get : {"ntk", "nngp"}
        All weights are trained, or those of the last layer alone; the latter, at t = inf
        and without a ridge, is the Bayesian posterior of :func:`gp_posterior`.

    Returns
    -------
    Ensemble

    Raises
    ------
    InputError
        For missing blocks and arrays that do not fit.

    Warns
    -----
    NoiseFloorWarning
        As :func:`gradient_flow_mse`.

    References
    ----------
    Lee et al., arXiv 1902.06720, equations 13 to 16.
    """
    prior, tangent = grams.block("nngp"), grams.block(get)
    if prior.outputs != tangent.outputs:
        raise InputError("nngp and ntk: either both or neither are kernels of pairs of outputs")
    columns, shape = targets("y", y, len(tangent.train), tangent.outputs)
    clock = times(t, learning_rate, reduction, columns.size, discrete=discrete)
    basis = spectrum(tangent.train, ridge, error=error)
    basis.warn(clock, 2)
    fitted = basis.fitted(clock)
    v = basis.vectors
    k = v.T @ matrix(prior.train) @ v
    learned = v.T @ columns
    # What is left of the initial outputs: exp(-lr t v) without a ridge.
    left = 1.0 - basis.values * fitted
    train_mean = v @ ((basis.values * fitted)[:, :, None] * learned)
    train_covariance = v @ (left[:, :, None] * k * left[:, None, :]) @ v.T
    test_mean = test_covariance = None
    if tangent.cross is not None and prior.cross is not None:
        front = matrix(tangent.cross) @ v
        test_mean = restore(front @ (fitted[:, :, None] * learned), shape)
        if prior.test is not None:
            a = front * fitted[:, None, :]
            mixed = a @ (matrix(prior.cross) @ v).T
            test_covariance = matrix(prior.test) + a @ k @ a.swapaxes(1, 2)
            test_covariance = test_covariance - mixed - mixed.swapaxes(1, 2)
            test_covariance = clock.squeeze(_symmetric(test_covariance))
        test_mean = clock.squeeze(test_mean)
    instant = np.asarray(t, np.float64)
    return Ensemble(
        t=float(instant) if instant.ndim == 0 else instant,
        train_mean=clock.squeeze(restore(train_mean, shape)),
        train_covariance=clock.squeeze(_symmetric(train_covariance)),
        test_mean=test_mean,
        test_covariance=test_covariance,
    )


def _symmetric(a: np.ndarray) -> np.ndarray:
    return np.asarray((a + a.swapaxes(-1, -2)) / 2)
