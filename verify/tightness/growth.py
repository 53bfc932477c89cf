r"""Tightness at initialisation: how interval boxes grow with the width and the depth.

Take normal weights, independent and of mean zero, L layers with hidden widths ``w_1 .. w_{L-1}``.
With the rows above given, one entry of the product ``W_L ... W_1`` is normal, and its deviation is
the norm of a row, which a layer multiplies by an independent chi variable; the product of absolute
values multiplies by ``w E|N|`` instead. So for the ratio of the expected half-widths

.. math:: \frac{E \delta^*}{E \delta^+} = \prod_{l=1}^{L-1} \tau(w_l), \qquad
   \tau(w) = \frac{E \chi_w}{w \sqrt{2/\pi}}
           = \frac{\sqrt{\pi}\, \Gamma((w+1)/2)}{w\, \Gamma(w/2)} \approx \sqrt{\pi / 2w},

exactly, for any variances, inputs and outputs. At a ReLU network without biases, at a point, the
same holds with the number of active units, ``M ~ Binomial(w, 1/2)``, in place of w: the signs of
the weights above a unit are independent of its activity, so that the paths through active units
are distributed as those of a linear network of width M. The ratio is then

.. math:: \tau_{ReLU}(w) = \frac{E \chi_M}{(w/2) \sqrt{2/\pi}} \approx \sqrt 2 \, \tau(w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, lgamma, log, pi, prod, sqrt
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["InitialTightness", "depth_bound", "expected_tightness", "initial_tightness"]

Array = Any
NETWORKS = ("linear", "relu")


def expected_tightness(widths: int | Sequence[int], *, network: str = "linear") -> float:
    """Expected optimal over expected interval half-width at initialisation, in closed form.

    Parameters
    ----------
    widths : int or sequence of int
        Hidden widths: one for two layers, L - 1 for L layers.
    network : {"linear", "relu"}
        Deep linear network, or a ReLU network at a point (local tightness).

    Raises
    ------
    InputError
        For a width below 1 or another kind of network.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, section 3 (two linear layers).

    Examples
    --------
    >>> round(expected_tightness(32), 4), round(expected_tightness(32, network="relu"), 4)
    (0.2198, 0.3072)
    >>> expected_tightness([32, 32]) == expected_tightness(32) ** 2
    True
    """
    widths = _widths(widths)
    if network not in NETWORKS:
        raise InputError(f"network {network!r}: the closed form knows {', '.join(NETWORKS)}")
    return prod(_linear(w) if network == "linear" else _relu(w) for w in widths)


def depth_bound(width: int, layers: int) -> float:
    """Upper bound ``tau(w)^floor(L/2)`` of the paper for L linear layers of one width.

    The exact value is ``tau(w)^(L-1)``, :func:`expected_tightness`.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, section 3.
    """
    _count("layers", layers, 1)
    return expected_tightness(width) ** (layers // 2)


def _chi(w: int) -> float:
    """Mean norm of w independent standard normal variables."""
    return sqrt(2) * exp(lgamma((w + 1) / 2) - lgamma(w / 2)) if w else 0.0


def _linear(w: int) -> float:
    return _chi(w) / (w * sqrt(2 / pi))


def _relu(w: int) -> float:
    logs = [lgamma(w + 1) - lgamma(m + 1) - lgamma(w - m + 1) - w * log(2) for m in range(w + 1)]
    return sum(exp(p) * _chi(m) for m, p in enumerate(logs)) / (w / 2 * sqrt(2 / pi))


@dataclass(frozen=True, eq=False)
class InitialTightness:
    """Tightness of randomly drawn networks beside the closed form.

    Attributes
    ----------
    widths, layers : (R,) array of int
        Hidden width and number of layers of each row.
    ratio : (R,) array
        Mean optimal over mean interval half-width, of all draws.
    error : (R,) array
        Standard error of the ratio.
    tau : (R,) array
        Mean of the ratios of single outputs, which is what a network shows.
    expected : (R,) array
        The closed form of the ratio.
    network : {"linear", "relu"}
        What was drawn.
    """

    widths: Array
    layers: Array
    ratio: Array
    error: Array
    tau: Array = field(repr=False)
    expected: Array
    network: str

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        names = ("widths", "layers", "ratio", "error", "tau", "expected")
        return {
            "network": self.network,
            "certified": False,
            **{name: getattr(self, name).tolist() for name in names},
        }

    def plot(self) -> Any:
        """Measured and expected tightness against what varies: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 3.8), layout="constrained")
        axes = figure.add_subplot()
        deep = len(set(self.layers.tolist())) > 1
        across = self.layers if deep else self.widths
        axes.errorbar(across, self.ratio, 2 * self.error, fmt="o", label="drawn (2 std. errors)")
        axes.plot(across, self.expected, label="closed form")
        if not deep:
            axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set(xlabel="layers" if deep else "hidden width", ylabel="tightness")
        axes.set_title(f"{self.network} networks at initialisation")
        axes.legend()
        return figure


def initial_tightness(
    widths: int | Sequence[int],
    *,
    layers: int | Sequence[int] = 2,
    network: str = "linear",
    inputs: int = 64,
    outputs: int = 16,
    draws: int = 50,
    seed: int = 0,
) -> InitialTightness:
    """Draw networks of normal weights and measure their (local) tightness.

    Parameters
    ----------
    widths : int or sequence of int
        Hidden widths.
    layers : int or sequence of int
        Numbers of layers, >= 2; every width is drawn with every number.
    network : {"linear", "relu"}
        Linear, or ReLU without biases at a random normal point.
    inputs, outputs : int
        Sizes of the ends.
    draws : int
        Networks a row, >= 2.
    seed : int
        Of the random numbers.

    Raises
    ------
    InputError
        For sizes below 1 (layers and draws: 2) or another kind of network.
    """
    if network not in NETWORKS:
        raise InputError(f"network {network!r}: give one of {', '.join(NETWORKS)}")
    for name, value, least in (("inputs", inputs, 1), ("outputs", outputs, 1), ("draws", draws, 2)):
        _count(name, value, least)
    depths = _widths(layers)
    if min(depths) < 2:
        raise InputError("layers: a network here has 2 or more")
    rng, rows = np.random.default_rng(seed), []
    for width in _widths(widths):
        for depth in depths:
            sizes = [inputs, *[width] * (depth - 1), outputs]
            pairs = np.array([_draw(sizes, network == "relu", rng) for _ in range(draws)])
            best, box = pairs.mean(axis=2).T
            ratio = best.mean() / box.mean()
            spread = (best - ratio * box).std(ddof=1) / box.mean()
            alive = pairs[:, 1] > 0
            tau = (pairs[:, 0][alive] / pairs[:, 1][alive]).mean()
            expected = expected_tightness([width] * (depth - 1), network=network)
            rows.append((width, depth, ratio, spread / sqrt(draws), tau, expected))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    names = ("widths", "layers", "ratio", "error", "tau", "expected")
    return InitialTightness(**dict(zip(names, columns, strict=True)), network=network)


def _draw(sizes: Sequence[int], relu: bool, rng: np.random.Generator) -> tuple[Array, Array]:
    """Optimal and interval half-widths of one network, each (outputs,)."""
    x, product, box = rng.normal(size=sizes[0]), np.eye(sizes[0]), np.ones(sizes[0])
    last = len(sizes) - 2
    for i, (n, m) in enumerate(pairwise(sizes)):
        w = rng.normal(size=(m, n)) * sqrt(2 / n)  # the size of the signal stays
        if relu and i < last:
            w = np.where((w @ x > 0)[:, None], w, 0.0)
        x, product, box = w @ x, w @ product, np.abs(w) @ box
    return np.abs(product).sum(axis=1), box


def _widths(widths: int | Sequence[int]) -> list[int]:
    given = [widths] if isinstance(widths, int | np.integer) else list(widths)
    if not given:
        raise InputError("give one width or number of layers, or more")
    for w in given:
        _count("a width or number of layers", w, 1)
    return [int(w) for w in given]


def _count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}: give a whole number >= {least}")
