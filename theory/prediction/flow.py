"""Gradient flow of squared loss under a constant tangent kernel, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.grams import Block, Grams, product, restore, targets
from tangency.theory.prediction.krylov import krylov_coefficients
from tangency.theory.prediction.spectrum import spectrum, times

__all__ = ["Flow", "gradient_flow_mse"]

METHODS = ("eigh", "lanczos")


@dataclass(frozen=True)
class Flow:
    """Outputs of a network during training.

    Attributes
    ----------
    t : (T,) array or float
        The times asked for.
    train : (T, n, ...) array, or (n, ...) for one time
        Outputs at the training inputs.
    test : (T, m, ...) array, or (m, ...), or None
        Outputs at the test inputs, where the Gram matrices have them.
    coefficients : (T, n, ...) array, or (n, ...)
        ``f_t(x) = f_0(x) + Theta(x, X) coefficients_t`` at any other input.
    method : str
        How it was found.
    steps : int
        Evaluations of the loss's gradient by an integrator; 0 for a closed form.
    """

    t: np.ndarray | float
    train: np.ndarray
    test: np.ndarray | None
    coefficients: np.ndarray
    method: str
    steps: int = 0


@dataclass(frozen=True)
class Start:
    """Targets and initial outputs as columns."""

    y: np.ndarray
    train: np.ndarray
    test: np.ndarray | None
    shape: tuple[int, ...]


def gradient_flow_mse(
    grams: Grams,
    y: Any,
    *,
    t: Any,
    learning_rate: float = 1.0,
    f0: Any = None,
    f0_test: Any = None,
    get: str = "ntk",
    ridge: float = 0.0,
    reduction: str = "sum",
    discrete: bool = False,
    error: float | None = None,
    method: str = "eigh",
    tol: float = 1e-8,
    max_products: int = 500,
) -> Flow:
    """Outputs at time t of gradient flow on squared loss.

    For the loss ``|f - y|^2 / 2`` and a kernel that does not change,
    ``f_t = f_0 + Theta (Theta + s)^-1 (1 - exp(-lr t (Theta + s))) (y - f_0)``, and the same with
    Theta(x, X) in front at a test input x; s is the ridge times the mean diagonal (weight decay
    towards the initial weights).

    Parameters
    ----------
    grams : Grams
        With the block ``get``.
    y : (n, ...) array
        Targets.
    t : float or (T,) array
        Times; ``numpy.inf`` is the end of training, the minimum-norm solution.
    learning_rate : float
        Multiplies t.
    f0 : (n, ...) array, optional
        Outputs at the training inputs at t = 0, by default zero.
    f0_test : (m, ...) array, optional
        Likewise at the test inputs.
    get : {"ntk", "nngp"}
        All weights are trained, or those of the last layer alone.
    ridge : float
        Relative to the mean diagonal.
    reduction : {"sum", "mean"}
        Whether the loss is a sum over all entries of y, or their mean as in neural-tangents.
    discrete : bool
        Gradient descent, t counted in steps, in place of the flow: ``(1 - lr (Theta + s))^t``
        takes the place of the exponential.
    error : float, optional
        Relative error of the Gram's entries, where it is worse than their dtype's.
    method : {"eigh", "lanczos"}
        One eigendecomposition, exact to rounding; or products with the Gram matrix alone, by
        rows, so that it may be a float32 memory-map.
    tol : float
        Of ``lanczos``: the defect ``|df/dt - its formula|`` that is left, relative to
        ``|y - f0|``; at t = inf it is the misfit of the training outputs.
    max_products : int
        Of ``lanczos``: products with the Gram matrix before it is given up.

    Returns
    -------
    Flow

    Raises
    ------
    InputError
        For arrays that do not fit, negative times; for ``discrete`` steps to infinity with a
        learning rate at which they diverge; for a Lanczos iteration that does not converge.

    Warns
    -----
    NoiseFloorWarning
        Where training is so long that it fits eigenvalues below the noise floor.

    References
    ----------
    Lee et al., "Wide neural networks of any depth evolve as linear models under gradient
    descent", arXiv 1902.06720, equations 8 to 11.
    """
    block = grams.block(get)
    begin = start(block, y, f0, f0_test)
    clock = times(t, learning_rate, reduction, begin.y.size, discrete=discrete)
    if method not in METHODS:
        raise InputError(f"method={method!r}: one of {', '.join(map(repr, METHODS))}")
    if method == "lanczos":
        if discrete:
            raise InputError("discrete=True needs method='eigh'")
        found = krylov_coefficients(
            block.train,
            begin.y - begin.train,
            clock,
            ridge,
            error=error,
            tol=tol,
            max_steps=max_products,
            stacklevel=2,
        )
        pairs = [begin.train + product(block.train, a) for a in found.coefficients]
        name = f"lanczos, {found.steps} products, defect {found.defect:.1e}"
        return assemble(block, begin, clock.squeeze, t, np.array(pairs), found.coefficients, name)
    basis = spectrum(block.train, ridge, error=error)
    basis.warn(clock, 2)
    residual = basis.vectors.T @ (begin.y - begin.train)
    scaled = basis.fitted(clock)[:, :, None] * residual
    coefficients = basis.vectors @ scaled
    # Through the eigenvalues and not through coefficients: no cancellation where v is small.
    train = begin.train + basis.vectors @ (basis.values[:, None] * scaled)
    return assemble(block, begin, clock.squeeze, t, train, coefficients, "closed form")


def start(block: Block, y: Any, f0: Any, f0_test: Any) -> Start:
    """Targets and initial outputs as columns; zeros where they are not given."""
    n = len(block.train)
    columns, shape = targets("y", y, n, block.outputs)
    zeros = np.zeros((n, *shape))
    train, shape0 = targets("f0", zeros if f0 is None else f0, n, block.outputs)
    if shape0 != shape:
        raise InputError(f"f0 has shape {(n, *shape0)}, y has {(n, *shape)}")
    if block.cross is None:
        if f0_test is not None:
            raise InputError("f0_test is given, and the Gram matrices have no cross block")
        return Start(columns, train, None, shape)
    m = len(block.cross)
    given = np.zeros((m, *shape)) if f0_test is None else f0_test
    test, shape0 = targets("f0_test", given, m, block.outputs)
    if shape0 != shape:
        raise InputError(f"f0_test has shape {(m, *shape0)}: {(m, *shape)} fits y")
    if f0 is not None and f0_test is None:
        raise InputError("f0 is given without f0_test, the outputs at the test inputs at t = 0")
    return Start(columns, train, test, shape)


def assemble(
    block: Block,
    begin: Start,
    squeeze: Any,
    t: Any,
    train: np.ndarray,
    coefficients: np.ndarray,
    method: str,
    steps: int = 0,
) -> Flow:
    """The result, from columns (T, N, C)."""
    test = None
    if block.cross is not None:
        moved = [begin.test + product(block.cross, a) for a in coefficients]
        test = squeeze(restore(np.array(moved), begin.shape))
    instant = np.asarray(t, np.float64)
    return Flow(
        t=float(instant) if instant.ndim == 0 else instant,
        train=squeeze(restore(train, begin.shape)),
        test=test,
        coefficients=squeeze(restore(coefficients, begin.shape)),
        method=method,
        steps=steps,
    )
