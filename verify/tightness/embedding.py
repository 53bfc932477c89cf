r"""The embedding experiment: what intervals cost a linear reconstruction, and what is needed.

Points of a random k-dimensional subspace of R^d are encoded and decoded by ``x -> U U^T x`` with
orthonormal columns U. The interval box grows by ``|U| |U|^T 1``, of expectation

.. math:: k \left( \frac1d + \frac{2 (d-1)}{\pi d} \right) \approx \frac{2k}{\pi},

while the smallest box grows by ``|P| 1``, ``P = U U^T``. The diagonal of P is Beta distributed,
``B ~ Beta(k/2, (d-k)/2)``, and the rest of a row has norm ``sqrt(B (1 - B))`` and a uniform
direction, so that its expectation is

.. math:: \frac kd + (d-1) \, \frac{\Gamma((d-1)/2)}{\sqrt\pi\, \Gamma(d/2)} \, E \sqrt{B (1-B)}
   \approx \frac kd + \sqrt{\frac{2 k (d-k)}{\pi d}}.

Reconstruction under intervals costs of the order of k, the optimum of the order of ``sqrt(k)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, pi, sqrt
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["Embedding", "embedding_experiment", "expected_growth"]

Array = Any


def expected_growth(inputs: int, rank: int) -> tuple[float, float]:
    """Expected growth of the interval box and of the smallest box, both exact.

    Parameters
    ----------
    inputs : int
        d >= 2.
    rank : int
        k, 1 <= k <= d.

    Returns
    -------
    (float, float)
        ``E delta+ / eps`` and ``E delta* / eps`` of an output.

    Raises
    ------
    InputError
        For sizes outside of these ranges.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, section 3 (the limits).

    Examples
    --------
    >>> [round(g, 3) for g in expected_growth(400, 20)]
    [12.751, 3.48]
    """
    d, k = _sizes(inputs, rank)
    interval = k * (1 / d + 2 * (d - 1) / (pi * d))
    direction = exp(lgamma((d - 1) / 2) - lgamma(d / 2)) / sqrt(pi)
    if k == d:
        return interval, 1.0
    a, b = k / 2, (d - k) / 2
    # E sqrt(B (1 - B)) = Beta(a + 1/2, b + 1/2) / Beta(a, b)
    spread = lgamma(a + 0.5) + lgamma(b + 0.5) - lgamma(a + b + 1)
    spread -= lgamma(a) + lgamma(b) - lgamma(a + b)
    return interval, k / d + (d - 1) * direction * exp(spread)


@dataclass(frozen=True, eq=False)
class Embedding:
    """Growth of boxes through random embeddings, measured and expected.

    Attributes
    ----------
    inputs : int
        d.
    ranks : (R,) array of int
        k of each row.
    interval, optimal : (R,) array
        Mean growth of the interval box and of the smallest box, over outputs and draws.
    expected_interval, expected_optimal : (R,) array
        Their expectations in closed form.
    """

    inputs: int
    ranks: Array
    interval: Array
    optimal: Array
    expected_interval: Array
    expected_optimal: Array

    @property
    def tau(self) -> Array:
        """(R,) array: optimal over interval growth."""
        return self.optimal / self.interval

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        names = ("ranks", "interval", "optimal", "expected_interval", "expected_optimal", "tau")
        return {
            "inputs": self.inputs,
            "certified": False,
            **{name: getattr(self, name).tolist() for name in names},
        }

    def plot(self) -> Any:
        """Both growths against the rank: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for name, color in (("interval", "tab:orange"), ("optimal", "tab:blue")):
            expected = getattr(self, f"expected_{name}")
            axes.loglog(self.ranks, getattr(self, name), "o", color=color, label=f"{name}, drawn")
            axes.loglog(self.ranks, expected, color=color, label=f"{name}, expected")
        axes.set(
            xlabel="rank k", ylabel="growth of the box", title=f"embedding in d = {self.inputs}"
        )
        axes.legend()
        return figure


def embedding_experiment(
    inputs: int = 400,
    ranks: Sequence[int] = (5, 20, 80, 200),
    *,
    draws: int = 5,
    seed: int = 0,
) -> Embedding:
    """Draw random orthonormal embeddings and measure both growths.

    Parameters
    ----------
    inputs : int
        d.
    ranks : sequence of int
        Values of k.
    draws : int
        Embeddings for each k.
    seed : int
        Of the random numbers.

    Raises
    ------
    InputError
        For ranks outside of 1 .. d, or no draws.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, section 3 and figure 4.
    """
    if draws < 1 or not len(ranks):
        raise InputError("give one rank and one draw, or more")
    rng, rows = np.random.default_rng(seed), []
    for rank in ranks:
        d, k = _sizes(inputs, rank)
        measured = []
        for _ in range(draws):
            # QR turns normal columns into a basis of a uniformly distributed subspace, but the
            # basis itself is uniform only with the signs of the diagonal of R taken back.
            basis, r = np.linalg.qr(rng.normal(size=(d, k)))
            basis = basis * np.sign(np.diag(r))
            size = np.abs(basis)
            box = size @ size.sum(axis=0)
            measured.append((box.mean(), np.abs(basis @ basis.T).sum(axis=1).mean()))
        rows.append((k, *np.mean(measured, axis=0), *expected_growth(d, k)))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Embedding(inputs, *columns)


def _sizes(inputs: Any, rank: Any) -> tuple[int, int]:
    whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in (inputs, rank))
    if not whole or inputs < 2 or not 1 <= rank <= inputs:
        raise InputError(
            f"inputs {inputs!r}, rank {rank!r}: whole numbers, 1 <= rank <= inputs >= 2"
        )
    return int(inputs), int(rank)
