"""The posterior of a Gaussian process whose covariance is a network's kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.cholesky import factorise
from tangency.theory.prediction.grams import Grams, matrix, restore, targets

__all__ = ["Posterior", "gp_posterior"]


@dataclass(frozen=True)
class Posterior:
    """A Gaussian posterior at the test inputs.

    Attributes
    ----------
    mean : (m, ...) array
    covariance : (m, m) or (m K, m K) array or None
        Of the function without observation noise; one for all outputs where the kernel does
        not mix them. None where the kernel between test inputs was not given.
    log_evidence : float
        Log marginal likelihood of the training targets, summed over outputs.
    ridge : float
        Noise variance relative to the mean diagonal.
    noise_floor : float
        The least ridge that the Gram's precision supports.
    """

    mean: np.ndarray
    covariance: np.ndarray | None
    log_evidence: float
    ridge: float
    noise_floor: float

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation at each test input, (m,) or (m K,).

        Raises
        ------
        InputError
            Where there is no covariance.
        """
        if self.covariance is None:
            raise InputError("no covariance: the Gram matrices have no test block")
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))


def gp_posterior(
    grams: Grams, y: Any, *, get: str = "nngp", ridge: float = 0.0, error: float | None = None
) -> Posterior:
    """Posterior of a Gaussian process with one of a network's kernels as prior covariance.

    ``mean = K_* (K + s I)^-1 y`` and ``covariance = K_** - K_* (K + s I)^-1 K_*^T``, with s the
    ridge times the mean diagonal. With ``get="nngp"`` this is the Bayesian posterior of the
    infinitely wide network. With ``get="ntk"`` the tangent kernel itself is the prior, whose mean
    is that of infinitely trained networks; the covariance of those networks is another, and
    :func:`ensemble_prediction` gives it (neural-tangents' ``gp_inference`` with ``get="ntk"``
    means that one).

    Parameters
    ----------
    grams : Grams
        With the block ``get``; its ``cross`` is needed, its ``test`` for a covariance.
    y : (n, ...) array
        Targets.
    get : {"nngp", "ntk"}
    ridge : float
        Noise variance relative to the mean diagonal.
    error : float, optional
        Relative error of the Gram's entries, where it is worse than their dtype's.

    Returns
    -------
    Posterior

    Raises
    ------
    InputError
        For missing blocks, or a matrix that is not positive definite.

    Warns
    -----
    NoiseFloorWarning
        As :func:`kernel_ridge`.

    References
    ----------
    Rasmussen, Williams, "Gaussian Processes for Machine Learning", algorithm 2.1; Lee et al.,
    "Deep neural networks as Gaussian processes", arXiv 1711.00165.
    """
    block = grams.block(get)
    if block.cross is None:
        raise InputError("the Gram matrices have no cross block: give x_test")
    columns, shape = targets("y", y, len(block.train), block.outputs)
    factor = factorise(block.train, ridge, error=error, stacklevel=2)
    weights = factor.solve(columns)
    cross = matrix(block.cross)
    covariance = None
    if block.test is not None:
        half = factor.half_solve(cross.T)
        covariance = matrix(block.test) - half.T @ half
        covariance = (covariance + covariance.T) / 2
    evidence = -0.5 * float(np.sum(columns * weights))
    evidence -= (
        0.5 * columns.shape[1] * (factor.log_determinant + len(columns) * math.log(2 * math.pi))
    )
    return Posterior(
        mean=restore(cross @ weights, shape),
        covariance=covariance,
        log_evidence=evidence,
        ridge=factor.ridge,
        noise_floor=factor.noise_floor,
    )
