"""Formulas that exporters write for an activation function, told by the ops in them.

A formula is a tree of the ops of :data:`SCALAR` over one variable and scalar constants. Its
nonlinear ops say which functions of the catalogue it may be; being one of them is then decided by
the values on a grid, to the rounding of its constants. A formula with given nonlinear ops has few
constants, so that agreement on the whole grid leaves no room for another function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.namespace import numpy_namespace as nx

__all__ = ["CANDIDATES", "LINEAR", "SCALAR", "grid"]

Attribute = Callable[[str, Any], Any]


def _clip(attr: Attribute, x: Any, low: Any = None, high: Any = None) -> Any:
    low = attr("min", -np.inf) if low is None else low
    high = attr("max", np.inf) if high is None else high
    return np.minimum(np.maximum(x, low), high)


def _hard_sigmoid(attr: Attribute, x: Any) -> Any:
    return np.clip(attr("alpha", 0.2) * x + attr("beta", 0.5), 0, 1)


#: Evaluation of the ops that a formula may hold: attributes first, then the inputs.
SCALAR: dict[str, Callable[..., Any]] = {
    "Abs": lambda attr, x: np.abs(x),
    "Add": lambda attr, x, y: x + y,
    "Clip": _clip,
    "Div": lambda attr, x, y: np.divide(x, y),
    "Erf": lambda attr, x: nx.erf(x),
    "Exp": lambda attr, x: np.exp(x),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda attr, x: x,
    "Log": lambda attr, x: np.log(x),
    "Mul": lambda attr, x, y: x * y,
    "Neg": lambda attr, x: -x,
    "Pow": lambda attr, x, y: np.power(x, y),
    "Reciprocal": lambda attr, x: np.divide(1.0, x),
    "Sigmoid": lambda attr, x: nx.sigmoid(x),
    "Softplus": lambda attr, x: nx.softplus(x),
    "Sub": lambda attr, x, y: x - y,
    "Tanh": lambda attr, x: np.tanh(x),
}

#: Ops that do not tell formulas from each other.
LINEAR = frozenset({"Add", "Div", "Identity", "Mul", "Neg", "Pow", "Reciprocal", "Sub"})

Candidate = tuple[str, dict[str, float]]


def _plain(*names: str) -> tuple[Candidate, ...]:
    return tuple((name, {}) for name in names)


#: What a formula with these nonlinear ops may be.
CANDIDATES: dict[frozenset[str], tuple[Candidate, ...]] = {
    frozenset({"Abs"}): _plain("softsign"),
    frozenset({"Clip"}): _plain("hardswish", "hardsigmoid"),
    frozenset({"Erf"}): _plain("gelu"),
    frozenset({"Exp"}): _plain("sigmoid", "silu", "tanh"),
    frozenset({"Exp", "Log"}): _plain("softplus", "logsigmoid"),
    frozenset({"Exp", "Log", "Tanh"}): _plain("mish"),
    frozenset({"HardSigmoid"}): _plain("hardswish"),
    frozenset({"Log", "Sigmoid"}): _plain("logsigmoid"),
    frozenset({"Sigmoid"}): _plain("silu", "quick_gelu"),
    frozenset({"Softplus"}): _plain("logsigmoid"),
    frozenset({"Softplus", "Tanh"}): _plain("mish"),
    frozenset({"Tanh"}): _plain("gelu_tanh", "tanhshrink", "sigmoid"),
}


def grid(ops: set[str]) -> np.ndarray:
    """Points at which formulas are compared: dense around zero, and the tails."""
    tails = [30.0, 80.0] if "Exp" not in ops else [25.0, 34.0]
    if not ops & {"Exp", "Erf", "Tanh", "Sigmoid", "Softplus"}:
        tails += [1e3, 1e6]
    dense = np.linspace(-12.0, 12.0, 97) + 0.013  # away from kinks and zeros
    return np.concatenate([dense, tails, np.negative(tails)])
