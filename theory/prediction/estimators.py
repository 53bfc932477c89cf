"""Kernel ridge regression and classification by a network's kernel, as scikit-learn estimators."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.estimator_base import (
    ClassifierBase,
    RegressorBase,
    check_fitted,
    validate,
)
from tangency.theory.prediction.ridge import kernel_ridge
from tangency.theory.prediction.sources import default_kernel, evaluate, shaped

__all__ = ["NTKClassifier", "NTKRegressor"]


class _KernelModel:
    """Fitting and predicting that both estimators share."""

    def __init__(
        self,
        kernel: Any = None,
        *,
        get: str = "ntk",
        ridge: float = 1e-4,
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.kernel = kernel
        self.get = get
        self.ridge = ridge
        self.input_shape = input_shape

    def _fit(self, X: np.ndarray, y: np.ndarray) -> None:
        if self._precomputed() and (X.ndim != 2 or X.shape[0] != X.shape[1]):
            raise InputError(
                f"kernel='precomputed': X is the Gram matrix (n, n) of the training inputs, "
                f"not {X.shape}; fit takes no other"
            )
        self.X_fit_ = X
        self.model_ = kernel_ridge(self._gram(X, None), y, ridge=self.ridge)
        self.dual_coef_ = self.model_.coefficients

    def _decide(self, X: Any) -> np.ndarray:
        check_fitted(self)
        X = validate(self, X)
        return self.model_.predict(self._gram(X, self.X_fit_))

    def _gram(self, x1: np.ndarray, x2: np.ndarray | None) -> np.ndarray:
        if self._precomputed():
            return x1
        if self.get not in ("nngp", "ntk"):
            raise InputError(f"get={self.get!r}: 'nngp' or 'ntk'")
        kernel = default_kernel() if self.kernel is None else self.kernel
        left = shaped(x1, self.input_shape)
        right = None if x2 is None else shaped(x2, self.input_shape)
        return evaluate(kernel, left, right, (self.get,))[self.get]

    def _precomputed(self) -> bool:
        return isinstance(self.kernel, str) and self.kernel == "precomputed"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.pairwise = self._precomputed()
        return tags


class NTKRegressor(_KernelModel, RegressorBase):  # type: ignore[misc]
    """Kernel ridge regression by the kernel of a network, usually its tangent kernel.

    The mean prediction of infinitely wide networks trained to convergence with weight decay
    towards their initial weights. A scikit-learn regressor where scikit-learn is installed, with
    the same methods where it is not.

    Parameters
    ----------
    kernel : Kernel, callable, "precomputed", optional
        What :func:`tangency.theory.kernels.as_kernel` accepts: a kernel of tangency, a
        neural-tangents ``kernel_fn``, a function (x1, x2) -> array. ``"precomputed"``: X is the
        Gram matrix itself in ``fit``, and the kernel of test by training inputs in ``predict``.
        By default a fully connected ReLU network with two hidden layers.
    get : {"ntk", "nngp"}
        All weights are trained, or those of the last layer alone.
    ridge : float
        Relative to the mean diagonal of the Gram matrix.
    input_shape : tuple of int, optional
        Of one input of the kernel, where X has flat rows: (H, W, C) for a convolutional one.

    Attributes
    ----------
    dual_coef_ : (n, ...) array
    X_fit_ : (n, ...) array
    model_ : KernelRidge
    n_features_in_ : int
    """

    def fit(self, X: Any, y: Any) -> NTKRegressor:
        """Fit to inputs X (n, ...) and targets y (n,) or (n, outputs).

        Raises
        ------
        InputError
            For a kernel that does not take these inputs, or a Gram matrix that is not positive
            definite. It is a ValueError, as scikit-learn's own.

        Warns
        -----
        NoiseFloorWarning
            Where the ridge is below what the Gram's precision supports.
        """
        X, y = validate(self, X, y, multi_output=True, y_numeric=True)
        self._fit(X, y)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (m,) or (m, outputs)."""
        return self._decide(X)


class NTKClassifier(_KernelModel, ClassifierBase):  # type: ignore[misc]
    """Classification by kernel ridge regression on centred one-hot targets.

    Targets are ``1 - 1/K`` for the class and ``-1/K`` for the others; the class with the greatest
    prediction is the answer (Arora et al., arXiv 1904.11955, section 6; Lee et al., arXiv
    2007.15801).

    Parameters
    ----------
    kernel, get, ridge, input_shape
        As for :class:`NTKRegressor`.

    Attributes
    ----------
    classes_ : (K,) array
    dual_coef_ : (n, K) array
    X_fit_ : (n, ...) array
    model_ : KernelRidge
    n_features_in_ : int
    """

    def fit(self, X: Any, y: Any) -> NTKClassifier:
        """Fit to inputs X (n, ...) and labels y (n,).

        Raises
        ------
        InputError
            As :meth:`NTKRegressor.fit`, and for targets that are no labels.

        Warns
        -----
        NoiseFloorWarning
            Where the ridge is below what the Gram's precision supports.
        """
        X, y = validate(self, X, y)
        self.classes_, index = _labels(y)
        count = len(self.classes_)
        self._fit(X, np.eye(count)[index] - 1.0 / count)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Predicted targets, (m, K); for two classes the second's less the first's, (m,)."""
        f = self._decide(X)
        return f[:, 1] - f[:, 0] if f.shape[1] == 2 else f

    def predict(self, X: Any) -> np.ndarray:
        """Labels (m,)."""
        f = self._decide(X)
        labels: np.ndarray = self.classes_[f.argmax(1)]
        return labels


def _labels(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes in order, and the index of each sample's."""
    try:
        from sklearn.utils.multiclass import check_classification_targets
        from sklearn.utils.validation import column_or_1d
    except ImportError:
        if y.ndim != 1:
            raise InputError(f"y has shape {y.shape}: labels are (n,)") from None
    else:
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
    classes, index = np.unique(y, return_inverse=True)
    return classes, index
