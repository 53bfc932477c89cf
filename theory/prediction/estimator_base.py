"""What the estimators stand on: scikit-learn's base classes, or the same manners without it.

scikit-learn is optional. Where it is installed the estimators are scikit-learn's own kind, so that
pipelines, searches and ``clone`` take them; where it is not, they still fit, predict and score.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from tangency.models.errors import InputError

#: Stands for targets that are not there; None is what a user forgot.
NO_TARGETS = object()

__all__ = ["ClassifierBase", "RegressorBase", "check_fitted", "validate"]


class _Parameters:
    """get_params and set_params of the constructor's arguments."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` is there for scikit-learn's sake."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Any:
        """Set arguments of the constructor by name.

        Raises
        ------
        InputError
            For a name that is none of them.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise InputError(f"{type(self).__name__} has no parameter {name!r}: {list(known)}")
            setattr(self, name, value)
        return self


class _PlainRegressor(_Parameters):
    def score(self, X: Any, y: Any) -> float:
        """Coefficient of determination, the mean over outputs."""
        y = np.asarray(y, np.float64)
        left = np.sum((y - self.predict(X)) ** 2, 0)  # type: ignore[attr-defined]
        return float(np.mean(1.0 - left / np.sum((y - y.mean(0)) ** 2, 0)))


class _PlainClassifier(_Parameters):
    def score(self, X: Any, y: Any) -> float:
        """Accuracy."""
        return float(np.mean(self.predict(X) == np.asarray(y)))  # type: ignore[attr-defined]


RegressorBase: Any
ClassifierBase: Any
try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
except ImportError:
    RegressorBase, ClassifierBase = _PlainRegressor, _PlainClassifier
else:
    # scikit-learn walks the method resolution order for its tags: mixins to the left.
    RegressorBase = type(
        "RegressorBase", (MultiOutputMixin, RegressorMixin, BaseEstimator), {"__doc__": ""}
    )
    ClassifierBase = type("ClassifierBase", (ClassifierMixin, BaseEstimator), {"__doc__": ""})


def validate(estimator: Any, X: Any, y: Any = NO_TARGETS, **options: Any) -> Any:
    """Inputs (and targets, where given) as arrays of floats; the number of features is kept.

    ``options`` are those of ``sklearn.utils.validation.validate_data``, which does the work where
    scikit-learn is installed.
    """
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:
        return _validate(estimator, X, y)
    given = {} if y is NO_TARGETS else {"y": y}
    kinds = (np.float64, np.float32)
    return validate_data(
        estimator, X, **given, dtype=kinds, allow_nd=True, reset=y is not NO_TARGETS, **options
    )


def check_fitted(estimator: Any) -> None:
    """Refuse to predict before ``fit``."""
    if hasattr(estimator, "model_"):
        return
    message = f"this {type(estimator).__name__} is not fitted yet: call fit before predict"
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        raise InputError(message) from None
    raise NotFittedError(message)


def _validate(estimator: Any, X: Any, y: Any) -> Any:
    X = np.asarray(X)
    X = X if X.dtype == np.float32 else X.astype(np.float64)
    if X.ndim < 2 or len(X) == 0:
        raise InputError(f"X has shape {X.shape}: (n, features), n >= 1")
    if not np.isfinite(X).all():
        raise InputError("X has a NaN or infinite entry")
    if y is NO_TARGETS:
        if X.shape[1] != estimator.n_features_in_:
            raise InputError(
                f"X has {X.shape[1]} features, {type(estimator).__name__} was fitted on "
                f"{estimator.n_features_in_}"
            )
        return X
    if y is None:
        raise InputError(f"{type(estimator).__name__} needs targets: y is None")
    y = np.asarray(y)
    if len(y) != len(X):
        raise InputError(f"X has {len(X)} samples, y has {len(y)}")
    estimator.n_features_in_ = X.shape[1]
    return X, y
