"""Kernel ridge regression: (K + ridge)^-1 y by Cholesky or conjugate gradients in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.cholesky import factorise
from tangency.theory.prediction.grams import Block, as_array, matrix, restore, targets
from tangency.theory.prediction.iterative import iterate

__all__ = ["KernelRidge", "kernel_ridge"]

SOLVERS = ("cholesky", "cg")


@dataclass(frozen=True)
class KernelRidge:
    """A kernel ridge regression.

    Attributes
    ----------
    coefficients : (n, ...) array
        The dual coefficients, of the targets' shape.
    ridge : float
        Relative to the mean diagonal of the Gram matrix.
    mean_diagonal : float
        ``ridge * mean_diagonal`` is what was added to the diagonal.
    noise_floor : float
        The least ridge that the Gram's precision supports (:func:`noise_floor`).
    leave_one_out : (n, ...) array or None
        Prediction at each training input by the regression on all others, where asked for.
    method : str
        How the coefficients were found; of an iteration with its products and its residual.
    """

    coefficients: np.ndarray
    ridge: float
    mean_diagonal: float
    noise_floor: float
    leave_one_out: np.ndarray | None = None
    method: str = "cholesky"

    def predict(self, cross: Any) -> np.ndarray:
        """Predictions (m, ...) from the kernel of test by training inputs, (m, n[, K, K])."""
        rows = as_array("cross", cross)
        columns, shape = targets(
            "coefficients",
            self.coefficients,
            len(self.coefficients),
            rows.shape[2] if rows.ndim == 4 else None,
        )
        if rows.ndim not in (2, 4) or rows.shape[1] != len(self.coefficients):
            raise InputError(
                f"cross has shape {rows.shape}: (m, {len(self.coefficients)}), test by train"
            )
        return restore(matrix(rows) @ columns, shape)


def kernel_ridge(
    gram: Any,
    y: Any,
    *,
    ridge: float = 0.0,
    error: float | None = None,
    leave_one_out: bool = False,
    solver: str = "cholesky",
    device: str = "cpu",
    landmarks: int | None = None,
    tol: float = 1e-8,
    max_products: int = 1000,
) -> KernelRidge:
    """Kernel ridge regression on a Gram matrix.

    ``f(x) = k(x, X) (k(X, X) + ridge * mean_diagonal * I)^-1 y``. With ``ridge=0`` this is the
    minimum-norm interpolant, the limit of gradient flow from zero.

    Parameters
    ----------
    gram : (n, n) or (n, n, K, K) array, or Block
        Kernel of the training inputs, of any float dtype; the algebra is float64.
    y : (n, ...) array
        Targets; any number of outputs.
    ridge : float
        Relative to the mean diagonal.
    error : float, optional
        Relative error of the Gram's entries, where it is worse than their dtype's.
    leave_one_out : bool
        Also find, in closed form, the n regressions that leave one sample out: with the same
        ridge in absolute terms, ``y_i - a_i / ((K + s)^-1)_ii``.
    solver : {"cholesky", "cg"}
        A factorisation, in memory; or preconditioned conjugate gradients, which read the matrix
        by rows, so that it may be a float32 memory map, and need a positive ridge.
    device : {"cpu", "cuda"}
        Where the matrix is factorised, or multiplied. On a GPU that does not hold it, panels of
        it are copied while others are worked on.
    landmarks : int, optional
        Of ``"cg"``: columns of which its preconditioner is made, by default about 4 sqrt(n).
    tol : float
        Of ``"cg"``: the residual that it may leave, relative to each output's targets.
    max_products : int
        Of ``"cg"``: at most so many products with the matrix.

    Returns
    -------
    KernelRidge

    Raises
    ------
    InputError
        Where the matrix is not positive definite, naming its least eigenvalue and the ridge
        that is needed; for targets that do not fit; where an iteration does not converge.
    MissingPackageError
        For ``device="cuda"`` without CuPy or a GPU.

    Warns
    -----
    NoiseFloorWarning
        Where a positive ridge, or without one the least eigenvalue, is below
        ``2 e sqrt(n)`` of the mean diagonal.

    References
    ----------
    Frangella, Tropp, Udell, "Randomized Nystrom Preconditioning", arXiv 2110.02820, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> fit = kernel_ridge(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, -1.0]), ridge=0.5)
    >>> fit.predict(np.array([[2.0, 1.0]])).round(12)
    array([0.5])
    """
    gram = gram.train if isinstance(gram, Block) else Block(gram).train
    columns, shape = targets("y", y, len(gram), gram.shape[2] if gram.ndim == 4 else None)
    if leave_one_out and gram.ndim == 4:
        raise InputError("leave_one_out: a sample of a kernel of all pairs of outputs is K rows")
    if solver not in SOLVERS:
        raise InputError(f"solver={solver!r}: one of {', '.join(map(repr, SOLVERS))}")
    if solver == "cg":
        if leave_one_out:
            raise InputError("leave_one_out needs solver='cholesky'")
        found = iterate(
            gram, columns, ridge, error=error, landmarks=landmarks, tol=tol,
            max_products=max_products, device=device, stacklevel=2,
        )  # fmt: skip
        return KernelRidge(
            coefficients=restore(found.weights, shape),
            ridge=found.ridge,
            mean_diagonal=found.mean_diagonal,
            noise_floor=found.noise_floor,
            method=f"cg, {found.steps} products, residual {found.residual:.1e}",
        )
    factor = factorise(gram, ridge, error=error, stacklevel=2, device=device)
    weights = factor.solve(columns)
    left_out = None
    if leave_one_out:
        left_out = restore(columns - weights / factor.inverse_diagonal[:, None], shape)
    return KernelRidge(
        coefficients=restore(weights, shape),
        ridge=factor.ridge,
        mean_diagonal=factor.mean_diagonal,
        noise_floor=factor.noise_floor,
        leave_one_out=left_out,
    )
