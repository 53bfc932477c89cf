"""The datasheet of an activation: its card, its dual kernel and what it does to deep networks."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation, get
from tangency.models.activations.card import Card, card
from tangency.models.errors import InputError
from tangency.theory.kernels.duals import DualFunction, dual_of
from tangency.theory.propagation.criticality import (
    CorrelationRate,
    correlation_rate,
    edge_of_chaos,
)
from tangency.theory.propagation.gauss import Array
from tangency.theory.propagation.universality import UniversalityClass, universality_class

__all__ = ["Datasheet", "datasheet"]

_SHOWN = (-0.5, 0.0, 0.5, 1.0)  # correlations at which the dual is listed


@dataclass(frozen=True)
class Datasheet:
    """One page about an activation; ``str(sheet)`` prints it, ``sheet.plot()`` draws it.

    Attributes
    ----------
    card : Card
        Formula, rigorous slope range, Gaussian moments, critical initialisation at q = 1, and the
        classifier that an infinitely deep network becomes.
    dual : DualFunction or None
        The dual kernel; None where the activation has no Gaussian moments, as all that follows.
    universality : UniversalityClass or None
    rate : CorrelationRate or None
        How fast inputs merge on the edge of chaos at q = 1; None where q = 1 is not on it.
    """

    card: Card
    dual: DualFunction | None
    universality: UniversalityClass | None
    rate: CorrelationRate | None

    @property
    def activation(self) -> Activation:
        """The record."""
        return self.card.activation

    @functools.cached_property
    def dual_values(self) -> dict[float, float]:
        """``E[phi(u) phi(v)]`` at unit variance, by correlation."""
        if self.dual is None:
            return {}
        found = self.dual.pair(1.0, 1.0, np.array(_SHOWN)).k
        return dict(zip(_SHOWN, map(float, found), strict=True))

    def rows(self) -> list[tuple[str, str]]:
        """Label and text, line by line."""
        rows = self.card.rows()
        if self.dual is not None:
            kind = "closed form" if self.dual.closed_form else "Hermite series"
            values = ", ".join(f"k({c:g}) = {k:.5f}" for c, k in self.dual_values.items())
            rows.append(("dual kernel", f"{kind}: {values}"))
        if self.universality is not None:
            rows.append(("universality class", str(self.universality)))
        if self.rate is not None:
            law = f"1 - c ~ {self.rate.constant:.4g} / l^{self.rate.power}"
            rows.append(("edge of chaos, q = 1", law))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers, for programs."""
        parts: dict[str, Any] = {"dual": None, "universality": None, "correlation_rate": None}
        if self.dual is not None:
            values = {f"{c:g}": k for c, k in self.dual_values.items()}
            parts["dual"] = {"closed_form": self.dual.closed_form, "values": values}
        if self.universality is not None:
            parts["universality"] = asdict(self.universality)
        if self.rate is not None:
            parts["correlation_rate"] = asdict(self.rate)
        return self.card.as_dict() | parts

    def __str__(self) -> str:
        rows = self.rows()
        wide = 2 + max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{wide}}{text}" for label, text in rows)

    def plot(self) -> Any:
        """Value and slope, the dual kernel and the edge of chaos; a matplotlib Figure."""
        from matplotlib.figure import Figure

        from tangency.models.activations.plot import draw

        if self.dual is None:
            figure = Figure(figsize=(4.5, 3.6), layout="constrained")
            draw(figure.add_subplot(), self.activation)
            return figure
        figure = Figure(figsize=(13.0, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        draw(left, self.activation)
        _draw_dual(middle, self.dual)
        _draw_edge(right, self.activation)
        return figure


def datasheet(activation: Activation | str) -> Datasheet:
    """Collect the datasheet of an activation.

    Raises
    ------
    InputError
        If no activation has that name.
    """
    record = get(activation) if isinstance(activation, str) else activation
    found = card(record)
    if found.moments is None:
        return Datasheet(found, None, None, None)
    rate: CorrelationRate | None = None
    try:
        rate = correlation_rate(record)
    except InputError:  # no edge of chaos at q = 1, or nothing moves on it
        pass
    return Datasheet(found, dual_of(record), universality_class(record), rate)


def _draw_dual(axes: Any, dual: DualFunction) -> None:
    rho = np.linspace(-1.0, 1.0, 201)
    found = dual.pair(1.0, 1.0, rho)
    axes.plot(rho, found.k, label="E φ(u) φ(v)")
    slope: Array = np.where(np.abs(found.slope) < 1e3, found.slope, math.nan)
    axes.plot(rho, slope, "--", label="E φ′(u) φ′(v)")
    axes.set_xlabel("correlation of u and v (unit variance)")
    axes.set_ylabel("dual kernel")
    axes.set_title("dual kernel")
    axes.legend()


def _draw_edge(axes: Any, record: Activation) -> None:
    if record.staircase or record.jumps:
        axes.text(0.5, 0.5, "jumps: no edge of chaos", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    edge = edge_of_chaos(record, np.geomspace(1e-3, 30.0, 30))
    axes.plot(np.sqrt(edge.bias_variances), np.sqrt(edge.weight_variances), ".-")
    axes.set_xlabel("σ_b (biases)")
    axes.set_ylabel("σ_w (weights, × √width)")
    exists = bool(np.isfinite(edge.weight_variances).any())
    axes.set_title("edge of chaos" if exists else "edge of chaos: none")
