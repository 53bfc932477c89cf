"""Layer plans as plain data: what a kernel source is generated from.

A plan is a tuple of layers; each takes the outputs of earlier ones by their place in the tuple.
Whoever has a network translates it: nothing here knows networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError

__all__ = ["FAMILIES", "Activation", "Dense", "Layer", "Norm", "Scale", "Series", "Sum", "checked"]

Array = np.ndarray[Any, Any]

# Families in closed form, with their parameters.
FAMILIES = {
    "rectified": ("a", "b", "n"),  # a min(x, 0)^n + b max(x, 0)^n, n = 0, 1 or 2
    "erf": ("a", "b", "c"),  # a erf(b x) + c
    "gelu": (),
    "sine": ("a", "b", "c"),  # a sin(b x + c)
    "exp": ("a", "b"),  # a exp(b x)
}


@dataclass(frozen=True)
class Dense:
    """A dense layer: variance ``weight q + bias``; the gains are what training adds to the NTK.

    Attributes
    ----------
    source : int
        The layer before it, -1 for the input.
    weight, bias, weight_gain, bias_gain : float
        ``W_std^2`` and ``b_std^2``, and (both parametrisations differ in them) what the NTK gains:
        ``weight_gain`` times the covariance of the inputs, plus ``bias_gain``.
    """

    source: int
    weight: float = 1.0
    bias: float = 0.0
    weight_gain: float = 1.0
    bias_gain: float = 0.0


@dataclass(frozen=True)
class Activation:
    """An activation of a family in :data:`FAMILIES`, with its parameters in that order."""

    source: int
    family: str = "rectified"
    parameters: tuple[float, ...] = (0.0, 1.0, 1.0)

    @property
    def kink(self) -> float | None:
        """``(a - b)^2 / ((a^2 + b^2) pi)`` of a piecewise linear function, None for others."""
        if self.family != "rectified" or self.parameters[2] != 1:
            return None
        a, b = self.parameters[:2]
        return (a - b) ** 2 / ((a * a + b * b) * math.pi)


@dataclass(frozen=True, eq=False)
class Series:
    """Any other activation, by its Hermite coefficients.

    Attributes
    ----------
    source : int
    function : callable
        Either ``phi(x)``, or with ``rows=True`` the coefficients themselves,
        ``q (n,) -> (terms, n)`` of ``E[phi(sqrt(q) z) h_l(z)]`` with normalised ``h_l``.
    terms : int
    rows : bool
    slopes : callable, optional
        ``q (n,) -> E phi'(sqrt(q) z)^2``, without the cut of the series: for a sample with itself.
    far : tuple of int
        With ``rows``: the orders of the last coefficients, far above the others, which stand for
        all that are cut off; they are felt just before cos = 1 (and -1) alone.
    parity : int
        1 or -1 for an even or odd function, 0 for another: that of the far terms at -cos.
    """

    source: int
    function: Callable[[Array], Array]
    terms: int = 48
    rows: bool = False
    slopes: Callable[[Array], Array] | None = None
    far: tuple[int, ...] = ()
    parity: int = 0

    @property
    def orders(self) -> Array:
        """The order of each coefficient."""
        return np.array([*range(self.terms - len(self.far)), *self.far], dtype=np.float64)


@dataclass(frozen=True)
class Sum:
    """``sum_i weights[i] s_i`` of uncorrelated branches."""

    sources: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Norm:
    """Division by the root of the variance plus ``eps``."""

    source: int
    eps: float = 0.0


@dataclass(frozen=True)
class Scale:
    """A fixed factor, ``square`` its square."""

    source: int
    square: float


Layer = Dense | Activation | Series | Sum | Norm | Scale


def checked(plan: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The plan as a tuple.

    Raises
    ------
    PlanError
        If it is empty, a layer is none of this module's, takes one behind it or has parameters
        that its family does not take.
    """
    plan = tuple(plan)
    if not plan:
        raise PlanError("the plan has no layers: give a tuple of Dense, Activation, ...")
    for i, layer in enumerate(plan):
        if not isinstance(layer, Layer):
            raise PlanError(f"layer {i} is {layer!r}: it is one of {Layer}")
        before = layer.sources if isinstance(layer, Sum) else (layer.source,)
        if any(not -1 <= k < i for k in before):
            raise PlanError(f"layer {i} takes {before}: earlier layers have numbers -1 to {i - 1}")
        if isinstance(layer, Activation):
            check_family(i, layer)
        if isinstance(layer, Series) and not 1 <= layer.terms <= 512:
            raise PlanError(f"layer {i} has {layer.terms} terms: 1 to 512 are taken")
        if isinstance(layer, Series):
            check_far(i, layer)
        if isinstance(layer, Sum) and len(layer.weights) != len(layer.sources):
            raise PlanError(
                f"layer {i}: {len(layer.weights)} weights, {len(layer.sources)} sources"
            )
        if isinstance(layer, Dense) and min(layer.weight, layer.bias) < 0.0:
            raise PlanError(f"layer {i}: variances {layer.weight}, {layer.bias} are negative")
    return plan


def check_family(i: int, layer: Activation) -> None:
    """Whether an activation's parameters are those of its family; PlanError if not."""
    names = FAMILIES.get(layer.family)
    if names is None:
        raise PlanError(f"layer {i}: family {layer.family!r} is none of {', '.join(FAMILIES)}")
    if len(names) != len(layer.parameters):
        raise PlanError(f"layer {i}: {layer.family} takes ({', '.join(names)})")
    if layer.family == "rectified":
        a, b, n = layer.parameters
        if n not in (0, 1, 2) or (a == 0.0 and b == 0.0):
            raise PlanError(f"layer {i}: rectified takes n = 0, 1 or 2, not both slopes 0")


def check_far(i: int, layer: Series) -> None:
    """Whether a series' far terms are some that the kernels take; PlanError if not."""
    if len(layer.far) > 2 or (layer.far and (not layer.rows or layer.terms <= len(layer.far))):
        raise PlanError(f"layer {i}: two far orders at most, behind others of rows=True")
