"""The three-layer learner as an estimator in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.hierarchical.network import inner_layer
from tangency.theory.hierarchical.training import train_layerwise
from tangency.theory.prediction.estimator_base import RegressorBase, check_fitted, validate

__all__ = ["ThreeLayerRegressor"]


class ThreeLayerRegressor(RegressorBase):  # type: ignore[misc]
    """Three-layer network trained layer by layer, weight decay chosen on held-out samples.

    ``fit`` splits the samples, after a permutation, into those of stage 1 and those of stage 2;
    each stage holds out its own in turn. The sample size of the theorem is that of all.

    Parameters
    ----------
    degree : int
        That of the feature p to be learnt.
    activation : {"hermite", "polynomial", "relu"} or callable
        Of the inner layer, see :func:`inner_layer`.
    inner_width : int, optional
        By default twice the number of monomials of the degree.
    outer_width : int
    method : {"ridge", "gradient_descent"}
    outer_fraction : float
        The share of the samples that stage 2 trains on.
    folds : int
        Each stage holds out each part of its samples once to choose its weight decay.
    random_state : int

    Attributes
    ----------
    model_ : ThreeLayerNetwork
    training_ : Training

    References
    ----------
    Wang, Nichani and Lee, arXiv:2311.13774.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.theory.hierarchical import hierarchical_target
    >>> target = hierarchical_target(6, link=(0.0, 1.0))
    >>> X, y = target.sample(600, np.random.default_rng(0))
    >>> learner = ThreeLayerRegressor().fit(X[:400], y[:400])
    >>> learner.score(X[400:], y[400:]) > 0.9
    True
    """

    def __init__(
        self,
        *,
        degree: int = 2,
        activation: str | Callable[[np.ndarray], np.ndarray] = "hermite",
        inner_width: int | None = None,
        outer_width: int = 128,
        method: str = "ridge",
        outer_fraction: float = 0.1,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.degree = degree
        self.activation = activation
        self.inner_width = inner_width
        self.outer_width = outer_width
        self.method = method
        self.outer_fraction = outer_fraction
        self.folds = folds
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ThreeLayerRegressor:
        """Train both stages on X (n, d) and y (n,)."""
        X, y = validate(self, X, y, y_numeric=True)
        if y.ndim != 1 or X.ndim != 2:
            raise InputError(f"X has shape {X.shape} and y {y.shape}: (n, d) and (n,)")
        rng = np.random.default_rng(self.random_state)
        order = rng.permutation(len(X))
        X, y = X[order].astype(np.float64), np.asarray(y, np.float64)[order]
        n = len(X) - round(len(X) * self.outer_fraction)
        if not 0 < n < len(X):
            raise InputError(f"{len(X)} samples and outer_fraction = {self.outer_fraction}")
        inner = inner_layer(
            X.shape[1],
            rng=rng,
            width=self.inner_width,
            degree=self.degree,
            activation=self.activation,
        )
        self.training_ = train_layerwise(
            inner,
            (X[:n], y[:n]),
            (X[n:], y[n:]),
            rng=rng,
            outer_width=self.outer_width,
            method=self.method,
            folds=self.folds,
        )
        self.model_ = self.training_.network
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n,)."""
        check_fitted(self)
        return self.model_(validate(self, X))

    def transform(self, X: Any) -> np.ndarray:
        """The learnt feature, (n, 1)."""
        check_fitted(self)
        return self.model_.feature(validate(self, X))[:, None]
