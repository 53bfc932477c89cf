"""The pads of elementary functions: softplus and sigmoid, composed of two, and what overflows."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from tangency.models import interval_functions
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval

MAX = float(np.finfo(np.float64).max)
TRUE = {
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: (
        mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))
    ),
}


def hostile() -> np.ndarray:
    """Where values are subnormal, where exp overflows or is lost in a sum; tiny, huge, ordinary."""
    rng = np.random.default_rng(0)
    powers = 2.0 ** rng.uniform(-1073.0, 1023.0, 400)
    parts = [
        rng.uniform(-746.0, -700.0, 500),
        rng.uniform(700.0, 746.0, 100),
        rng.uniform(-40.0, 40.0, 600),
        rng.uniform(-0.1, 0.1, 300),
        powers * rng.choice([-1.0, 1.0], 400),
        np.log(2.0) * np.arange(-1075.0, 60.0, 7.0),  # values beside powers of two
        [0.0, -0.0, 5e-324, -5e-324, MAX, -MAX, -708.3964185322641, -745.1332191019411],
    ]
    return np.concatenate([np.asarray(part) for part in parts])


def encloses(name: str, x: np.ndarray) -> None:
    found = getattr(interval_namespace, name)(Interval(x))
    with mpmath.workprec(200):
        for value, low, high in zip(x, found.lower, found.upper, strict=True):
            true = TRUE[name](mpmath.mpf(float(value)))
            assert mpmath.mpf(float(low)) <= true <= mpmath.mpf(float(high)), (name, value)


@pytest.mark.parametrize("name", TRUE)
def test_composed_functions_are_enclosed(name):
    encloses(name, hostile())


class Erring:
    """NumPy with an exp and a log1p that err by some ulp, in one direction each."""

    def __init__(self, exp: int, log1p: int) -> None:
        self.exp, self.log1p = self._moved(np.exp, exp), self._moved(np.log1p, log1p)

    @staticmethod
    def _moved(function, ulps):
        def moved(x):
            value = function(x)
            return np.maximum(value + ulps * np.spacing(value), 0.0)

        return moved

    def __getattr__(self, name: str):
        return getattr(np, name)


@pytest.mark.parametrize("name", TRUE)
@pytest.mark.parametrize("exp", [-8, 8])
@pytest.mark.parametrize("log1p", [-8, 8])
def test_they_may_err_by_twice_what_is_assumed(name, exp, log1p, monkeypatch):
    monkeypatch.setattr(interval_functions, "np", Erring(exp, log1p))
    encloses(name, hostile())


def test_what_overflows_may_lie_below_the_largest_float():
    for sign in (1.0, -1.0):
        low, high = interval_functions._pad(np.array([sign * np.inf]))
        near = low if sign > 0 else -high
        far = high if sign > 0 else -low
        assert near[0] <= MAX - 4 * 2.0**971
        assert far[0] == np.inf
