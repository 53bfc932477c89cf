"""Ridge regression by moments: a solve with a Gram matrix, and Gram matrices that folds share.

With more samples than features one Gram matrix a fold serves all: a training set's moments are the
sum of those of the other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

__all__ = ["Moments", "solved"]


def solved(gram: np.ndarray, shift: float, right: np.ndarray) -> np.ndarray:
    """``(gram + shift I)^-1 right`` by Cholesky."""
    shifted = gram.copy()
    shifted[np.diag_indices_from(shifted)] += shift
    found: np.ndarray = cho_solve(cho_factor(shifted, overwrite_a=True, check_finite=False), right)
    return found


@dataclass(frozen=True, eq=False)
class Moments:
    """What the ridge solution needs of some samples; moments of two sets add up.

    Attributes
    ----------
    count : int
    gram : (m, m) array
        ``F^T F`` of the features F.
    features : (m,) array
        Sums of the features.
    products : (m,) array
        ``F^T y``.
    total : float
        Sum of y.
    """

    count: int
    gram: np.ndarray
    features: np.ndarray
    products: np.ndarray
    total: float

    @staticmethod
    def of(features: np.ndarray, y: np.ndarray) -> Moments:
        """Of features (n, m) and y (n,)."""
        gram = features.T @ features
        return Moments(len(y), gram, features.sum(0), features.T @ y, float(y.sum()))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.gram + other.gram,
            self.features + other.features,
            self.products + other.products,
            self.total + other.total,
        )

    @property
    def mean(self) -> float:
        """Of y: the output's bias."""
        return self.total / self.count

    def path(self, ridges: Sequence[float]) -> list[np.ndarray]:
        """Coefficients of the features for ``y - mean`` at each ridge."""
        right = self.products - self.mean * self.features
        scale = float(np.trace(self.gram)) / (self.count * len(right)) or 1.0
        return [solved(self.gram, self.count * ridge * scale, right) for ridge in ridges]
