r"""Parametrisations of width: which learn features and which become kernels.

An abc-parametrisation of a network of ``L`` hidden layers of width ``n`` has weights
``W_l = n^(-a_l) w_l`` with ``w_l ~ N(0, n^(-2 b_l))`` and learning rate ``eta n^(-c)``. With

.. math:: r = \min(a_{L+1} + b_{L+1}, 2 a_{L+1} + c) + c - 1
              + \min_{l \le L} (2 a_l + [l = 1]),

the features ``h_L`` move by ``n^(-r)`` in each step of SGD: a stable, nontrivial parametrisation
learns features if ``r = 0`` and follows a kernel if ``r > 0``.

References
----------
Yang, Hu, "Feature Learning in Infinite-Width Neural Networks" (Tensor Programs IV),
arXiv 2011.14522, Definition 3.2, Theorems 3.3, 3.4 and 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass

from tangency.models.errors import InputError

__all__ = ["Parametrisation", "parametrisation"]


@dataclass(frozen=True)
class Parametrisation:
    """An abc-parametrisation; layers 1 (input), 2 ... L (hidden), L + 1 (output).

    Attributes
    ----------
    name : str
    a, b : (first, hidden, last)
        Exponents of the multipliers and of the initial standard deviations.
    c : float
        Exponent of the learning rate.
    """

    name: str
    a: tuple[float, float, float]
    b: tuple[float, float, float]
    c: float

    @property
    def feature_exponent(self) -> float:
        """``r``: features move by ``n**-r``."""
        (first, hidden, last), b, c = self.a, self.b[2], self.c
        within = min(2.0 * first + 1.0, 2.0 * hidden)
        return min(last + b, 2.0 * last + c) + c - 1.0 + within

    @property
    def stable(self) -> bool:
        """Whether nothing blows up with the width, at initialisation and in training."""
        (a1, a, last), (b1, b, b_last) = self.a, self.b
        born = _same(a1 + b1, 0.0) and _same(a + b, 0.5) and last + b_last >= 0.5 - _EPS
        r = self.feature_exponent
        kept = r >= -_EPS and 2.0 * last + self.c >= 1.0 - _EPS
        return born and kept and last + b_last + r >= 1.0 - _EPS

    @property
    def trivial(self) -> bool:
        """Whether the function does not move in the limit."""
        last, b_last, r = self.a[2], self.b[2], self.feature_exponent
        return not (_same(last + b_last + r, 1.0) or _same(2.0 * last + self.c, 1.0))

    @property
    def regime(self) -> str:
        """One of "feature learning", "kernel", "trivial" and "unstable"."""
        if not self.stable:
            return "unstable"
        if self.trivial:
            return "trivial"
        return "feature learning" if _same(self.feature_exponent, 0.0) else "kernel"


_EPS = 1e-12

_PRESETS = {
    "standard": Parametrisation("standard", (0.0, 0.0, 0.0), (0.0, 0.5, 0.5), 0.0),
    "standard, small steps": Parametrisation(
        "standard, small steps", (0.0, 0.0, 0.0), (0.0, 0.5, 0.5), 1.0
    ),
    "ntk": Parametrisation("ntk", (0.0, 0.5, 0.5), (0.0, 0.0, 0.0), 0.0),
    "mup": Parametrisation("mup", (-0.5, 0.0, 0.5), (0.5, 0.5, 0.5), 0.0),
    "mean field": Parametrisation("mean field", (0.0, 0.5, 1.0), (0.0, 0.0, 0.0), -1.0),
}


def parametrisation(name: str) -> Parametrisation:
    """A parametrisation by name: "standard", "standard, small steps", "ntk", "mup", "mean field".

    "mean field" is that of one hidden layer, where it is the same as "mup".

    >>> parametrisation("mup").regime, parametrisation("ntk").regime
    ('feature learning', 'kernel')

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in _PRESETS:
        raise InputError(f"no parametrisation is called {name!r}; there are {', '.join(_PRESETS)}")
    return _PRESETS[name]


def _same(x: float, y: float) -> bool:
    return abs(x - y) < _EPS
