"""Spectra of a symmetric operator by Lanczos: top eigenvalues and the density of all.

Every Ritz value theta has an eigenvalue within its residual ``beta |s|`` (float arithmetic), which
is reported beside it. The density is stochastic Lanczos quadrature: Ritz values weighted by the
squared first components, averaged over random starts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.lanczos import Lanczos
from tangency.models.errors import InputError

__all__ = ["Spectrum", "lanczos", "spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """Spectrum of a symmetric positive operator.

    Attributes
    ----------
    top : (t,) array
        Largest eigenvalues, descending.
    residual : (t,) array
        An eigenvalue lies within this of each (in float arithmetic: an estimate, no proof).
    nodes, weights : (m,) arrays
        The density of eigenvalues as point masses, of total weight one.
    trace : float
        Estimate of the trace, size times the mean of the density.
    size : int
        Order of the operator.
    products : int
        Products with the operator that were made.
    seconds : float
        Wall-clock time.
    """

    top: np.ndarray
    residual: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    trace: float
    size: int
    products: int
    seconds: float

    def density(self, grid: Any, *, width: float = 0.1) -> np.ndarray:
        """Density in log10 of the eigenvalue at the points of ``grid``, smoothed by a Gaussian.

        Parameters
        ----------
        grid : (g,) array
            Positive eigenvalues.
        width : float
            Standard deviation of the Gaussian, in decades.
        """
        grid = np.asarray(grid, np.float64)
        if grid.ndim != 1 or not (grid > 0).all() or width <= 0:
            raise InputError("density: a vector of positive eigenvalues and a positive width")
        floor = np.finfo(np.float32).eps * max(float(self.nodes.max()), np.finfo(float).tiny)
        where = np.log10(np.maximum(self.nodes, floor))
        z = (np.log10(grid)[:, None] - where) / width
        bell = np.exp(-0.5 * z * z) / (width * np.sqrt(2 * np.pi))
        return np.asarray(bell @ self.weights)

    def plot(self) -> Any:
        """A matplotlib figure: the top eigenvalues and the density."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.errorbar(
            np.arange(1, len(self.top) + 1), self.top, yerr=self.residual, fmt=".-", capsize=2
        )
        left.set(title="top eigenvalues", xlabel="index", ylabel="eigenvalue", yscale="log")
        high = float(self.nodes.max())
        grid = np.logspace(np.log10(high) - 7, np.log10(high) + 0.5, 400)
        right.semilogx(grid, self.density(grid))
        right.set(title="density", xlabel="eigenvalue", ylabel="share per decade")
        return figure


def lanczos(
    operator: Any, start: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tridiagonal matrix of Lanczos with full reorthogonalisation, float64.

    Returns
    -------
    (m,) diagonal, (m,) off-diagonal, whose last entry is the residual's, (m, size) basis; m is
    less than ``steps`` where an invariant subspace is met.
    """
    run = _iterated(operator, start, steps)
    count = len(run)
    basis = run.combine(np.eye(count)[:, :, None])[:, :, 0]
    return run.tridiagonal()[0], np.array(run.beside)[:, 0], basis


def _iterated(operator: Any, start: np.ndarray, steps: int) -> Lanczos:
    """So many products, or fewer where a subspace is invariant."""

    def product(q: np.ndarray) -> np.ndarray:
        return np.asarray(operator @ q[:, 0], np.float64)[:, None]

    run = Lanczos(product, np.asarray(start, np.float64)[:, None])
    while len(run) < steps and (len(run) == 0 or run.beside[-1][0] > 0):
        run.step()
    return run


def spectrum(
    operator: Any, *, top: int = 10, steps: int | None = None, starts: int = 4, seed: int = 0
) -> Spectrum:
    """Top eigenvalues and density of a symmetric operator.

    Parameters
    ----------
    operator : object
        With ``shape`` and ``@``: an :class:`~tangency.theory.ntk.products.NTKOperator`, an array.
    top : int
        Largest eigenvalues wanted.
    steps : int, optional
        Lanczos steps from each start, by default ``max(4 top, 40)``, at most the order.
    starts : int
        Random starts, which the density is the mean of; the first serves the top eigenvalues.
    seed : int
        Of the starts.

    Raises
    ------
    InputError
        For an operator that is not square, or counts below one.

    References
    ----------
    Golub and Van Loan, Matrix Computations, section 10.1; Ubaru, Chen, Saad, "Fast estimation of
    tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix Anal. 38 (2017); Ghorbani, Krishnan,
    Xiao, arXiv 1901.10159 (densities for networks).
    """
    from scipy.linalg import eigh_tridiagonal

    begin = time.perf_counter()
    if len(getattr(operator, "shape", ())) != 2:
        raise InputError(
            f"a {type(operator).__name__} is no operator: give NTKOperator(network, x), or a matrix"
        )
    rows, columns = operator.shape
    if rows != columns:
        raise InputError(f"an operator {rows} x {columns} has no spectrum: it must be square")
    if min(top, starts) < 1 or (steps is not None and steps < 1):
        raise InputError(f"top={top}, steps={steps}, starts={starts}: at least one of each")
    top = min(top, rows)
    steps = min(rows, max(4 * top, 40) if steps is None else max(steps, top))
    rng = np.random.default_rng(seed)
    nodes, weights, products = [], [], 0
    for index in range(starts):
        run = _iterated(operator, rng.choice([-1.0, 1.0], rows), steps)
        products += len(run)
        values, vectors = eigh_tridiagonal(*run.tridiagonal())
        nodes.append(values)
        weights.append(vectors[0] ** 2 / starts)
        if index == 0:
            best = values[::-1][:top]
            residual = np.abs(run.beside[-1][0] * vectors[-1, ::-1][:top])
    every, share = np.concatenate(nodes), np.concatenate(weights)
    return Spectrum(
        top=best,
        residual=residual,
        nodes=every,
        weights=share,
        trace=float(rows * (every @ share)),
        size=rows,
        products=products,
        seconds=time.perf_counter() - begin,
    )
