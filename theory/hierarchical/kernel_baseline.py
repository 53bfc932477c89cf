"""Kernel ridge regression with a held-out ridge: what does not learn features."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.hierarchical.moments import solved
from tangency.theory.hierarchical.single_output import SingleOutputRegressor, validate_inputs
from tangency.theory.kernels import Dense, Relu, gram, infinite_kernel, serial

__all__ = ["KERNEL_RIDGES", "HeldOutKernelRidge", "arc_cosine_ntk", "inner_product_kernel"]

#: Ridges that are tried, relative to the mean diagonal of the Gram matrix.
KERNEL_RIDGES = tuple(float(r) for r in np.geomspace(1e-4, 3.0, 6))


def arc_cosine_ntk(x1: Any, x2: Any = None, *, depth: int = 1) -> np.ndarray:
    """The NTK of a ReLU network with ``depth`` hidden layers, by the arc-cosine kernels.

    Weights of variance 2 over the fan-in, no biases: variances are kept from layer to layer. The
    closed form in a few lines; :func:`tangency.theory.kernels.infinite_kernel` is the same faster.

    Parameters
    ----------
    x1 : (n1, d) array
    x2 : (n2, d) array, optional
    depth : int

    Returns
    -------
    (n1, n2) array

    References
    ----------
    Cho and Saul, NeurIPS 2009; Jacot, Gabriel and Hongler, arXiv:1806.07572.
    """
    if depth < 1:
        raise InputError(f"depth = {depth}: at least one hidden layer")
    x1 = np.asarray(x1, np.float64)
    symmetric = x2 is None
    x2 = x1 if x2 is None else np.asarray(x2, np.float64)
    norms = np.outer(np.linalg.norm(x1, axis=1), np.linalg.norm(x2, axis=1)) / x1.shape[1]
    safe = np.where(norms > 0, norms, 1.0)
    cosine = np.clip(x1 @ x2.T / x1.shape[1] / safe, -1.0, 1.0)
    ntk: np.ndarray = cosine.copy()
    for _ in range(depth):
        if symmetric:  # the angle of a rounded cosine near 1 is right to 1e-8 only
            np.fill_diagonal(cosine, 1.0)
        angle = np.arccos(cosine)
        slope = 1.0 - angle / np.pi
        cosine = np.clip(np.sqrt(1.0 - cosine**2) / np.pi + cosine * slope, -1.0, 1.0)
        ntk = cosine + slope * ntk
    scaled: np.ndarray = norms * ntk
    return scaled


def inner_product_kernel(coefficients: Any) -> Any:
    """The kernel ``sum_j coefficients[j] (<x1, x2> / d)^j`` as a function of two batches.

    Raises
    ------
    InputError
        For a negative coefficient: that is no kernel.
    """
    weights = np.asarray(coefficients, np.float64)
    if weights.ndim != 1 or not len(weights) or weights.min() < 0:
        raise InputError("coefficients: a list of numbers that are not negative")

    def kernel(x1: Any, x2: Any = None) -> np.ndarray:
        x1 = np.asarray(x1, np.float64)
        inner = x1 @ (x1 if x2 is None else np.asarray(x2, np.float64)).T / x1.shape[1]
        values: np.ndarray = np.polynomial.polynomial.polyval(inner, weights)
        return values

    return kernel


class HeldOutKernelRidge(SingleOutputRegressor):
    """Kernel ridge regression whose ridge held-out samples choose.

    Each part of the samples is held out once, and after the choice all are fitted, as the
    three-layer learner does it. Gram matrices come from :func:`tangency.theory.kernels.gram`,
    tile by tile.

    Parameters
    ----------
    kernel : optional
        Whatever :func:`tangency.theory.kernels.as_kernel` takes; its NTK is used. By default
        that of an infinitely wide ReLU network with one hidden layer.
    ridges : sequence of float
        Relative to the mean diagonal.
    folds : int
    random_state : int
    device : str
        Where the Gram matrices are computed, as in :func:`tangency.theory.kernels.gram`.

    Attributes
    ----------
    ridge_ : float
        The ridge that was chosen.
    """

    def __init__(
        self,
        *,
        kernel: Any = None,
        ridges: Any = KERNEL_RIDGES,
        folds: int = 5,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.kernel = kernel
        self.ridges = ridges
        self.folds = folds
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> HeldOutKernelRidge:
        """Choose the ridge and fit X (n, d), y (n,)."""
        X, y = self._training_data(X, y)
        if not 2 <= self.folds <= len(X):
            raise InputError(f"folds = {self.folds}: at least 2, at most the {len(X)} samples")
        if not len(self.ridges) or min(self.ridges) <= 0:
            raise InputError("ridges: at least one, all positive")
        order = np.random.default_rng(self.random_state).permutation(len(X))
        X, y = X[order], y[order]
        whole = self._values(X, None)
        scale = float(np.mean(np.diag(whole)))
        errors = np.zeros(len(self.ridges))
        fold = np.arange(len(X)) % self.folds
        for i in range(self.folds):
            train, held = np.flatnonzero(fold != i), np.flatnonzero(fold == i)
            block, cross = whole[np.ix_(train, train)], whole[np.ix_(held, train)]
            offset = y[train].mean()
            for j, ridge in enumerate(self.ridges):
                dual = solved(block, ridge * scale, y[train] - offset)
                errors[j] += np.sum((cross @ dual + offset - y[held]) ** 2) / len(X)
        self.ridge_ = float(self.ridges[int(np.argmin(errors))])
        self.offset_ = float(y.mean())
        self.X_ = X
        self.model_ = solved(whole, self.ridge_ * scale, y - self.offset_)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n,)."""
        X = validate_inputs(self, X)
        values: np.ndarray = self._values(X, self.X_) @ self.model_ + self.offset_
        return values

    def _values(self, x1: np.ndarray, x2: np.ndarray | None) -> np.ndarray:
        kernel = _two_layer_kernel() if self.kernel is None else self.kernel
        return np.asarray(gram(kernel, x1, x2, get="ntk", device=self.device), np.float64)


@cache
def _two_layer_kernel() -> Any:
    """The kernel of :func:`arc_cosine_ntk` with one hidden layer, for the Gram engine."""
    return infinite_kernel(serial(Dense(1, W_std=2**0.5), Relu(), Dense(1)))
