"""Gradient flow of any differentiable loss under a constant tangent kernel, as an ODE."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.flow import Flow, assemble, start
from tangency.theory.prediction.grams import Grams, matrix, mean_diagonal, restore
from tangency.theory.prediction.losses import loss_of
from tangency.theory.prediction.noise import check_ridge, noise_floor, warn_of_noise
from tangency.theory.prediction.spectrum import times

__all__ = ["gradient_flow"]

METHODS = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")


def gradient_flow(
    grams: Grams,
    y: Any,
    loss: Any,
    *,
    t: Any,
    learning_rate: float = 1.0,
    f0: Any = None,
    f0_test: Any = None,
    get: str = "ntk",
    ridge: float = 0.0,
    method: str = "RK45",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_gradients: int = 100_000,
) -> Flow:
    """Outputs at time t of gradient flow on a loss of the user's choice.

    ``df(x)/dt = -lr Theta(x, X) dL/df(X)``. Integrated are the n training coefficients,
    ``da/dt = -lr (dL/df(f_0 + Theta a) + s a)``, from which ``f = f_0 + Theta(., X) a`` follows at
    any input, so that test inputs cost one product. s is the ridge times the mean diagonal.

    Parameters
    ----------
    grams : Grams
        With the block ``get``.
    y : (n, ...) array
        Targets, of the outputs' shape: one-hot rows for cross-entropy, -1 and 1 for logistic.
    loss : {"squared", "cross_entropy", "logistic"}, callable or Loss
        Summed over the samples (divide ``learning_rate`` by n for a mean). A function
        (f, y) -> scalar is differentiated by JAX in float64; a :class:`Loss` brings its gradient.
    t : float or (T,) array
        Finite times.
    learning_rate : float
        Multiplies t.
    f0, f0_test : array, optional
        Outputs at t = 0, by default zero.
    get : {"ntk", "nngp"}
    ridge : float
        Relative to the mean diagonal.
    method : {"RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA"}
        Of ``scipy.integrate.solve_ivp``. The explicit ones take about ``t lr lambda_max / 3``
        steps; the implicit ones take few, and factorise matrices of n K rows.
    rtol, atol : float
        Tolerances of each step.
    max_gradients : int
        Evaluations of the gradient after which the integration is given up.

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        For times that are not finite, arrays that do not fit, an integration that fails or
        takes more than ``max_gradients``.

    Warns
    -----
    NoiseFloorWarning
        Where a positive ridge is below the noise floor.

    References
    ----------
    Lee et al., arXiv 1902.06720, section 2.2 (cross-entropy as an ODE).
    """
    from scipy.integrate import solve_ivp

    if method not in METHODS:
        raise InputError(f"method={method!r}: one of {', '.join(METHODS)}")
    block = grams.block(get)
    begin = start(block, y, f0, f0_test)
    clock = times(t, learning_rate, "sum", begin.y.size)
    if not np.isfinite(clock.t).all():
        raise InputError("t is infinite: only squared loss has an end (gradient_flow_mse)")
    ridge = check_ridge(ridge)
    if ridge > 0:
        warn_of_noise(ridge, ridge, noise_floor(block.train), 2)
    square = matrix(block.train)
    shift = ridge * mean_diagonal(block.train)
    wanted = restore(begin.y, begin.shape)
    function = loss_of(loss, wanted)
    count = 0

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        if count > max_gradients:
            raise InputError(
                f"method={method!r} needs more than {max_gradients} gradients to reach "
                f"t={clock.t.max():g}: the flow is stiff; give method='LSODA', or a shorter t"
            )
        a = state.reshape(begin.y.shape)
        f = restore(begin.train + square @ a, begin.shape)
        gradient = np.asarray(function.gradient(f, wanted), np.float64)
        if gradient.shape != f.shape:
            raise InputError(
                f"the gradient of loss {function.name!r} has shape {gradient.shape}, not {f.shape}"
            )
        return np.asarray(-clock.rate * (gradient.reshape(a.shape) + shift * a)).ravel()

    instants, places = np.unique(clock.t, return_inverse=True)
    states = np.zeros((len(instants), begin.y.size))
    if instants[-1] > 0:
        done = solve_ivp(
            slope,
            (0.0, float(instants[-1])),
            np.zeros(begin.y.size),
            t_eval=instants,
            method=method,
            rtol=rtol,
            atol=atol,
        )
        if not done.success or not np.isfinite(done.y).all():
            raise InputError(f"the integration of loss {function.name!r} failed: {done.message}")
        states = done.y.T
    coefficients = states[places].reshape(len(clock.t), *begin.y.shape)
    train = begin.train + square @ coefficients
    return assemble(block, begin, clock.squeeze, t, train, coefficients, method, count)
