"""Hierarchical polynomials h = g o p of the class that the theorem is about."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.hierarchical.hermite import hermite_sum, information_exponent

__all__ = ["HierarchicalTarget", "hierarchical_target"]


@dataclass(frozen=True, eq=False)
class HierarchicalTarget:
    """A polynomial ``h = g o p`` of Gaussian inputs.

    ``p(x) = L^(-1/2) sum_i weights_i prod_j <directions_ij, x>`` with all directions orthonormal
    and ``E p^2 = 1``; ``g(z) = sum_j link_j h_j(z)`` in the normalised Hermite basis. Every p of
    this class is a harmonic of its degree, near to Gaussian for large L.

    Attributes
    ----------
    directions : (L, k, d) array
    weights : (L,) array
        With ``sum weights^2 = L``.
    link : (q + 1,) array

    References
    ----------
    Wang, Nichani and Lee, arXiv:2311.13774.
    """

    directions: np.ndarray
    weights: np.ndarray
    link: np.ndarray

    def __post_init__(self) -> None:
        """Refuse what is outside the class."""
        if self.directions.ndim != 3:
            raise InputError(f"directions have shape {self.directions.shape}: (L, k, d)")
        flat = self.directions.reshape(-1, self.dimension)
        if not np.allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-8):
            raise InputError("directions are not orthonormal")
        if self.weights.shape != (self.terms,) or not np.isclose(
            np.sum(self.weights**2), self.terms
        ):
            raise InputError(f"weights: ({self.terms},) with sum of squares {self.terms}")

    @property
    def terms(self) -> int:
        """The number L of products in p."""
        return int(self.directions.shape[0])

    @property
    def degree(self) -> int:
        """The degree k of p."""
        return int(self.directions.shape[1])

    @property
    def dimension(self) -> int:
        """The number d of inputs."""
        return int(self.directions.shape[2])

    @property
    def outer_degree(self) -> int:
        """The degree q of g."""
        return len(self.link) - 1

    @property
    def information_exponent(self) -> int | None:
        """That of g; the theorem asks for 1."""
        return information_exponent(self.link)

    def feature(self, x: Any) -> np.ndarray:
        """Values of p at x (n, d), an (n,) array."""
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise InputError(f"x has shape {x.shape}: (n, {self.dimension})")
        flat = self.directions.reshape(-1, self.dimension)
        factors = (x @ flat.T).reshape(len(x), self.terms, self.degree)
        values: np.ndarray = factors.prod(2) @ self.weights / sqrt(self.terms)
        return values

    def __call__(self, x: Any) -> np.ndarray:
        """Values of h at x (n, d), an (n,) array."""
        return hermite_sum(self.feature(x), self.link)

    def sample(
        self, n: int, rng: np.random.Generator, *, noise: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Standard Gaussian inputs (n, d) and their values (n,) with Gaussian noise added."""
        x = rng.standard_normal((n, self.dimension))
        return x, self(x) + noise * rng.standard_normal(n)

    def asymptotic_correlation(self, *, lower_degrees: bool = False) -> float:
        """The correlation with p of the best degree-k approximation of h.

        What stage 1 finds from endless samples is the part of h in the inner activation's
        degrees, and at finite L that is not p alone: ``p^2`` leaks into degree ``2 m`` with
        squared norm ``C(k, m) 2^m sum(weights^4) / L^2``, and ``p^3`` turns the weights
        ``w_i`` of p into ``w_i (3 + (3^k - 3) w_i^2 / L)``. For k = 2,
        ``g = (z + h_2(z)) / sqrt 2`` and equal weights this is ``1 / sqrt(1 + 2 / L)``.

        Parameters
        ----------
        lower_degrees : bool
            Whether the inner activation has the degrees 1 to k - 1 as well as k.

        Raises
        ------
        UnsupportedError
            For a link of degree above 3.
        """
        if self.outer_degree > 3:
            raise UnsupportedError(
                f"a link of degree {self.outer_degree}: the finite-L correlation is known up to 3"
            )
        a = np.zeros(4)
        a[: len(self.link)] = self.link
        k, total, squares = self.degree, self.terms, self.weights**2
        along = self.weights * (a[1] + a[3] / sqrt(6) * (3**k - 3) * squares / total)
        parts = [m for m in range(1, k // 2 + 1) if lower_degrees or 2 * m == k]
        leak = sum(comb(k, m) * 2**m for m in parts) * np.sum(squares**2) / total**2
        norm = np.sum(along**2) / total + a[2] ** 2 / 2 * leak
        return float(np.sum(along * self.weights) / total / sqrt(norm)) if norm else 0.0


def hierarchical_target(
    dimension: int,
    *,
    degree: int = 2,
    terms: int | None = None,
    link: Any = (0.0, 1.0, 1.0),
    weights: Any = None,
    rng: np.random.Generator | None = None,
) -> HierarchicalTarget:
    """A target of the theorem's class.

    Parameters
    ----------
    dimension : int
    degree : int
        Of p.
    terms : int, optional
        L; by default as many as there is room for, ``dimension // degree``.
    link : (q + 1,) array
        Coefficients of g in the normalised Hermite basis; scaled to ``sum link^2 = 1``. By
        default ``g = (z + h_2(z)) / sqrt 2``.
    weights : (terms,) array, optional
        Of the products; scaled to ``sum weights^2 = terms``. Equal by default.
    rng : Generator, optional
        Rotates the directions at random; without it they are the coordinates.

    Returns
    -------
    HierarchicalTarget

    Raises
    ------
    InputError
        Where the directions do not fit into the dimension, or the link is zero.
    """
    count = dimension // degree if terms is None and degree > 0 else terms or 0
    if degree < 1 or count < 1 or count * degree > dimension:
        raise InputError(
            f"terms = {count} of degree {degree}: both at least 1, and terms * degree directions "
            f"have to fit into dimension {dimension}"
        )
    values = np.asarray(link, np.float64)
    if values.ndim != 1 or not np.any(values):
        raise InputError("link: a (q + 1,) array that is not zero")
    scale = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if scale.shape != (count,) or not np.any(scale):
        raise InputError(f"weights have shape {scale.shape}: ({count},), and are not all zero")
    frame = np.eye(dimension)
    if rng is not None:
        frame, triangle = np.linalg.qr(rng.standard_normal((dimension, dimension)))
        frame = frame * np.sign(np.diag(triangle))  # so that the law is Haar's
    return HierarchicalTarget(
        directions=frame.T[: count * degree].reshape(count, degree, dimension),
        weights=scale * sqrt(count / np.sum(scale**2)),
        link=values / np.linalg.norm(values),
    )
