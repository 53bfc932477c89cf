"""A picture of an activation and its derivative."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["draw", "plot"]


def plot(activation: "Activation", *, span: tuple[float, float] = (-4.0, 4.0)) -> Any:
    """Draw ``phi`` and ``phi'``; returns a matplotlib Figure (and touches no pyplot state)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    draw(figure.add_subplot(), activation, span=span)
    return figure


def draw(axes: Any, activation: "Activation", *, span: tuple[float, float] = (-4.0, 4.0)) -> None:
    """Draw ``phi`` and ``phi'`` into axes of matplotlib."""
    low, high = max(span[0], activation.domain[0]), min(span[1], activation.domain[1])
    x = np.linspace(low, high, 1001)
    y, slope = activation(x), activation.slope(x)
    for k in (*activation.kinks, *activation.jumps, *activation.poles):
        i = int(np.searchsorted(x, k))  # do not draw the jump as a line
        if 0 < i < x.size:
            slope[i - 1 : i + 1] = np.nan
            if k in activation.jumps or k in activation.poles:
                y[i - 1 : i + 1] = np.nan
    for values, label, style in ((y, "φ(x)", "-"), (slope, "φ′(x)", "--")):
        finite = np.where(np.abs(values) < 1e3, values, np.nan)
        axes.plot(x, finite, style, label=label)
    axes.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("x")
    axes.set_ylabel("φ(x), φ′(x)")
    axes.set_title(str(activation))
    axes.legend()
