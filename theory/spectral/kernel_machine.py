r"""Deep kernel machines: infinitely wide networks that still learn their representations.

The Gram matrices ``G_1, ..., G_L`` of the layers maximise

.. math:: \log p(Y \mid G_L) - \sum_l \nu_l\,
          \mathrm{KL}\big(N(0, G_l) \,\|\, N(0, K(G_{l-1}))\big),

with ``Y`` a Gaussian process of kernel ``K(G_L)``, or another of ``G_L``, and noise. As
``nu -> inf`` the Gram matrices become those of the network Gaussian process,
``G_l = K(G_{l-1})``; as ``nu -> 0`` the last one aligns with ``Y Y^T``. With inducing inputs the
KL terms are of their small Gram matrices, and the likelihood is the collapsed bound of Titsias;
with all inputs inducing it is the full one.

References
----------
Yang, Robeyns, Milsom, Anson, Schoots and Aitchison, "A theory of representation learning gives a
deep generalisation of kernel methods", arXiv 2108.13097; Titsias, AISTATS 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError
from tangency.theory.spectral.gram_kernels import GRAM_KERNELS
from tangency.theory.spectral.machine_objective import Objective

__all__ = ["DeepKernelMachine", "deep_kernel_machine"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class DeepKernelMachine:
    """A deep kernel machine at a maximum of its objective.

    Attributes
    ----------
    grams : tuple of (m, m) arrays
        ``G_1, ..., G_L`` of the inducing inputs (of all inputs where none were chosen).
    process_grams : tuple of (m, m) arrays
        The same of the network Gaussian process, where the search started.
    objective : float
        The maximum, per output column of ``y``.
    gradient : float
        Greatest entry of its gradient there, relative to ``max(1, nu)``.
    steps : int
        Of the search.
    """

    grams: tuple[Array, ...]
    process_grams: tuple[Array, ...]
    objective: float
    gradient: float
    steps: int
    _machine: Objective

    def predict(self, x_test: Any) -> tuple[Array, Array]:
        """Mean (t, p) and variance (t,) of the noiseless outputs at test inputs (t, d)."""
        x_test = np.asarray(x_test, np.float64)
        if x_test.ndim != 2 or x_test.shape[1] != self._machine.x.shape[1]:
            raise InputError(f"x_test has shape {x_test.shape}: (t, {self._machine.x.shape[1]})")
        return self._machine.predict(self.grams, x_test)


def deep_kernel_machine(
    x: Any,
    y: Any,
    *,
    depth: int = 1,
    nu: float | Sequence[float] = 1.0,
    kernel: str = "relu",
    output: str | None = None,
    noise: float = 0.1,
    inducing: Any = None,
    jitter: float = 1e-8,
    most: int = 2000,
) -> DeepKernelMachine:
    """Find the Gram matrices of a deep kernel machine, from those of the Gaussian process on.

    Parameters
    ----------
    x : (n, d) array
        ``G_0 = x x^T / d``.
    y : (n,) or (n, p) array
        Targets; the log-likelihood is a mean over columns, so that nu weighs layers against
        one output.
    depth : int
        Learnt layers L.
    nu : float or sequence of depth floats
        Ratio of a layer's width to the number of outputs.
    kernel : {"relu", "squared exponential", "linear"}
        ``K`` as a function of a Gram matrix.
    output : str, optional
        Another kernel for the outputs, ``Y ~ N(0, output(G_L) + noise I)``: with "linear" the
        outputs are linear in the last features.
    noise : float
        Variance of the targets' noise.
    inducing : (m, d) array, optional
    jitter : float
        Added to each kernel's diagonal, relative to its mean.
    most : int
        Steps of the search (L-BFGS on Cholesky factors relative to the Gaussian process's).

    Raises
    ------
    InputError
        For options out of range or shapes that do not fit.
    NotProvedError
        Where the search does not come to rest within its steps.
    """
    x = np.asarray(x, np.float64)
    y = np.asarray(y, np.float64)
    if x.ndim != 2 or len(x) == 0:
        raise InputError(f"x has shape {x.shape}: (n, d)")
    if y.ndim not in (1, 2) or len(y) != len(x):
        raise InputError(f"y has shape {y.shape}, x has {len(x)} rows")
    if isinstance(depth, bool) or depth != int(depth) or depth < 1:
        raise InputError(f"depth={depth!r}: a whole number >= 1")
    weights = np.broadcast_to(np.asarray(nu, np.float64), (int(depth),)) if np.ndim(nu) == 0 else nu
    weights = np.asarray(weights, np.float64)
    if weights.shape != (depth,) or not (weights > 0).all():
        raise InputError(f"nu={nu!r}: a positive number, or {depth} of them")
    output = kernel if output is None else output
    for name in (kernel, output):
        if name not in GRAM_KERNELS:
            raise InputError(f"kernel {name!r}: one of {', '.join(sorted(GRAM_KERNELS))}")
    if not noise > 0 or not jitter > 0:
        raise InputError(f"noise={noise!r}, jitter={jitter!r}: positive numbers")
    points = None if inducing is None else np.asarray(inducing, np.float64)
    if points is not None and (points.ndim != 2 or points.shape[1] != x.shape[1]):
        raise InputError(f"inducing has shape {points.shape}: (m, {x.shape[1]})")
    machine = Objective(x, y.reshape(len(y), -1), points, weights, kernel, output, noise, jitter)
    return _maximise(machine, most)


def _maximise(machine: Objective, most: int) -> DeepKernelMachine:
    from scipy.optimize import minimize

    start = machine.start()
    found = minimize(
        machine.loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": most, "maxfun": 2 * most, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30},
    )
    gradient = float(np.abs(found.jac).max())
    if not np.isfinite(found.fun) or gradient > 1e-3:
        raise NotProvedError(
            f"the search stopped after {found.nit} steps with a gradient of {gradient:.1e}: "
            "raise most, jitter or noise"
        )
    grams = machine.grams(found.x)
    return DeepKernelMachine(
        grams,
        machine.grams(start),
        -float(found.fun) * machine.scale,
        gradient,
        int(found.nit),
        machine,
    )
