"""The three-layer learner as an estimator in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.hierarchical.network import inner_layer
from tangency.theory.hierarchical.single_output import (
    SingleOutputRegressor,
    TransformerBase,
    validate_inputs,
)
from tangency.theory.hierarchical.training import train_layerwise

__all__ = ["ThreeLayerRegressor"]


class ThreeLayerRegressor(TransformerBase, SingleOutputRegressor):  # type: ignore[misc]
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
        X, y = self._training_data(X, y)
        rng = np.random.default_rng(self.random_state)
        order = rng.permutation(len(X))
        X, y = X[order], y[order]
        # Neither stage has fewer samples than folds, as far as there are so many.
        least = min(self.folds, len(X) // 2)
        second = max(round(len(X) * self.outer_fraction), least)
        n = len(X) - second
        if not 0 < self.outer_fraction < 1 or n < 1:
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
        X = validate_inputs(self, X)
        return self.model_(X)

    def transform(self, X: Any) -> np.ndarray:
        """The learnt feature, (n, 1)."""
        X = validate_inputs(self, X)
        return self.model_.feature(X)[:, None]

    def __sklearn_tags__(self) -> Any:
        """A transformer too; what is not a polynomial of its degree it does not learn."""
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = self.activation == "hermite"
        return tags
