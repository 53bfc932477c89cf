"""Nonlinear layers: any Activation record, and the names that neural-tangents' users know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tangency.theory.kernels import duals
from tangency.theory.kernels.layers import Layer
from tangency.theory.kernels.plan_builder import PlanBuilder

__all__ = [
    "ABRelu",
    "Abs",
    "Activation",
    "Cos",
    "Erf",
    "Exp",
    "ExpNormalized",
    "Gabor",
    "Gaussian",
    "Gelu",
    "Hermite",
    "LeakyRelu",
    "Monomial",
    "Polynomial",
    "Rbf",
    "RectifiedMonomial",
    "Relu",
    "Sigmoid_like",
    "Sign",
    "Sin",
]


@dataclass(frozen=True)
class Activation(Layer):
    """A function of one variable on every entry.

    Attributes
    ----------
    function : Activation record, str or DualFunction
        What :func:`tangency.theory.kernels.dual_of` takes: any record has a kernel.
    """

    function: Any

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layer to a plan."""
        return plan.activate(node, duals.dual_of(self.function))


def _layer(dual: duals.DualFunction) -> Activation:
    return Activation(dual)


def Relu() -> Activation:
    """``max(x, 0)``."""
    return Activation("relu")


def ABRelu(a: float, b: float) -> Activation:
    """``a min(x, 0) + b max(x, 0)``."""
    return _layer(duals.Rectified(None, 1, a, b))


def LeakyRelu(alpha: float) -> Activation:
    """``alpha min(x, 0) + max(x, 0)``."""
    return ABRelu(alpha, 1.0)


def Abs() -> Activation:
    """``|x|``."""
    return ABRelu(-1.0, 1.0)


def Sign() -> Activation:
    """The sign; its tangent kernel is zero."""
    return Activation("sign")


def RectifiedMonomial(degree: int) -> Activation:
    """``x^n`` for x >= 0, else 0."""
    return _layer(duals.Rectified(None, degree, 0.0, 1.0))


def Erf(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Activation:
    """``a erf(b x) + c``."""
    return _layer(duals.Erf(None, a, b, c))


def Sigmoid_like() -> Activation:
    """``erf(x / 2.4020563531719796) / 2 + 1/2``, near the logistic sigmoid."""
    return Erf(0.5, 1.0 / 2.4020563531719796, 0.5)


def Gelu() -> Activation:
    """``x Phi(x)``."""
    return Activation("gelu")


def Sin(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Activation:
    """``a sin(b x + c)``."""
    return _layer(duals.Wave(None, a, b, c))


def Cos(a: float = 1.0, b: float = 1.0, c: float = 0.0) -> Activation:
    """``a cos(b x + c)``."""
    return Sin(a, b, c + math.pi / 2.0)


def Rbf(gamma: float = 1.0) -> Activation:
    """``sqrt(2) sin(sqrt(2 gamma) x + pi/4)``: its kernel is ``exp(-gamma |u - v|^2)``."""
    return Sin(math.sqrt(2.0), math.sqrt(2.0 * gamma), math.pi / 4.0)


def Exp(a: float = 1.0, b: float = 1.0) -> Activation:
    """``a exp(b x)``."""
    return _layer(duals.Exponential(None, a, b))


def Gaussian(a: float = 1.0, b: float = -1.0) -> Activation:
    """``a exp(b x^2)``."""
    return _layer(duals.Bell(None, a, b))


def Gabor() -> Activation:
    """``exp(-x^2) sin x``."""
    return _layer(duals.Gabor(None))


def ExpNormalized(gamma: float = 1.0, shift: float = -1.0) -> Activation:
    """The kernel ``sqrt(q1 q2) exp(gamma (cos + shift))``."""
    return _layer(duals.NormalisedExponential(None, gamma, shift))


def Polynomial(coef: Sequence[float]) -> Activation:
    """``sum_n coef[n] x^n``."""
    return _layer(duals.Polynomial(None, tuple(float(c) for c in coef)))


def Monomial(degree: int) -> Activation:
    """``x^n``."""
    return Polynomial([*([0.0] * degree), 1.0])


def Hermite(degree: int) -> Activation:
    """The Hermite polynomial of norm one under N(0, 1)."""
    return Polynomial(duals.hermite_polynomial(degree))
