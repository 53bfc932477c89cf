"""What the learners of hierarchical polynomials share as estimators: one number a sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.estimator_base import RegressorBase, check_fitted, validate

__all__ = ["SingleOutputRegressor", "TransformerBase", "check_fitted", "validate_inputs"]

TransformerBase: Any
try:
    from sklearn.base import TransformerMixin
except ImportError:

    class _PlainTransformer:
        def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
            """``fit(X, y)``, then ``transform(X)``."""
            return self.fit(X, y).transform(X)  # type: ignore[attr-defined, no-any-return]

    TransformerBase = _PlainTransformer
else:
    TransformerBase = TransformerMixin


class SingleOutputRegressor(RegressorBase):  # type: ignore[misc]
    """A regressor of inputs (n, d) and targets (n,), which says so in scikit-learn's tags."""

    def __sklearn_tags__(self) -> Any:
        """The tags of a regressor of one output."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        return tags

    def _training_data(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """X (n, d) and y (n,) of a call of ``fit``, in float64; the number of inputs is kept.

        Raises
        ------
        InputError
            For other shapes, or fewer than two samples.
        """
        X, y = validate(self, X, y, y_numeric=True)
        if X.ndim != 2 or y.ndim != 1:
            raise InputError(f"X has shape {X.shape} and y {y.shape}: (n, d) and (n,)")
        if len(X) < 2:
            raise InputError(f"n_samples = {len(X)}: at least 2, one to train and one held out")
        return X.astype(np.float64), np.asarray(y, np.float64)


def validate_inputs(estimator: Any, X: Any) -> np.ndarray:
    """Inputs (n, d) of a call after ``fit``, in float64.

    Raises
    ------
    InputError
        For another number of axes or of features.
    """
    check_fitted(estimator)
    X = validate(estimator, X)
    if X.ndim != 2:
        raise InputError(f"X has shape {X.shape}: (n, d)")
    values: np.ndarray = X.astype(np.float64)
    return values
