"""The edge of chaos: how slowly the correlation of two inputs tends to 1, by activation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.propagation import DepthMap, correlation_rate, edge_of_chaos, phase
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
TARGET = (
    "ReLU: (1-c) l^2 = 9 pi^2/2 to 1 % at l = 1e4; tanh, sigma_b = 0.2: (1-c) l = beta_q to 1 % at "
    "l = 3000; off the edge log(1-c) is a straight line in l: correlation below -0.999, slope "
    "log(chi) to 1 %"
)


def main(quick: bool) -> Verdict:
    """Iterate the correlation maps on the edge of chaos and off it."""
    relu_depth, tanh_depth = 10_000, 3_000
    relu = DepthMap("relu", 2.0).correlations(0.5, 1.0, relu_depth)
    relu_law = correlation_rate("relu").constant
    q = _variance_of("tanh", 0.04)
    point = edge_of_chaos("tanh", [q])
    layer = DepthMap("tanh", float(point.weight_variances[0]), float(point.bias_variances[0]))
    tanh = layer.correlations(0.5, q, tanh_depth)
    tanh_law = correlation_rate("tanh", q).constant
    ordered = DepthMap("tanh", 1.0, 0.04)
    deep = ordered.correlations(0.5, ordered.fixed_point(), 60)
    straight = float(np.corrcoef(np.arange(10, 61), np.log(deep[10:]))[0, 1])
    decay = float(np.polyfit(np.arange(30, 61), np.log(deep[30:]), 1)[0])
    decay_law = float(np.log(phase(ordered).perpendicular))
    relu_seen, tanh_seen = relu[-1] * relu_depth**2, tanh[-1] * tanh_depth
    measured = {
        "relu: (1-c) l^2 at l = 1e4": float(relu_seen),
        "relu: 9 pi^2 / 2": float(relu_law),
        "tanh: (1-c) l at l = 3000": float(tanh_seen),
        "tanh: beta_q": float(tanh_law),
        "tanh ordered: correlation of log(1-c) with l": straight,
        "tanh ordered: slope of log(1-c)": decay,
        "tanh ordered: log(chi)": decay_law,
        "tanh ordered: phase": phase(ordered).name,
    }
    passed = (
        abs(relu_law - 9.0 * np.pi**2 / 2.0) < 1e-9
        and abs(relu_seen / relu_law - 1.0) < 0.01
        and abs(tanh_seen / tanh_law - 1.0) < 0.01
        and straight < -0.999
        and abs(decay / decay_law - 1.0) < 0.01
    )
    figure = None if quick else _draw(relu, relu_law, tanh, tanh_law, deep, decay_law)
    claim = (
        "On the edge of chaos 1 - c_l falls like 9 pi^2 / (2 l^2) for ReLU and like beta_q / l for "
        "smooth activations; off it, exponentially."
    )
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _variance_of(name: str, bias: float) -> float:
    """The fixed point at which the edge of chaos has this bias variance."""
    low, high = 1e-2, 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if float(edge_of_chaos(name, [middle]).bias_variances[0]) < bias:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _draw(relu, relu_law, tanh, tanh_law, deep, decay_law) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for found, law, power, name, colour in (
        (relu, relu_law, 2, "ReLU", "C0"),
        (tanh, tanh_law, 1, "tanh, σ_b = 0.2", "C1"),
    ):
        depth = np.unique(np.geomspace(1, len(found) - 1, 40).astype(int))
        left.loglog(depth, found[depth], ".", color=colour, label=f"{name}, on the edge")
        far = depth[depth > 20]
        left.loglog(
            far, law / far**power, "-", color=colour, label=f"theory: {law:.2f} / ℓ^{power}"
        )
    layers = np.arange(1, 61)
    left.loglog(layers[::3], deep[1::3], ".", color="0.4", label="tanh, ordered phase")
    law = deep[30] * np.exp(decay_law * (layers - 30))
    left.loglog(layers, law, "-", color="0.4", label="theory: χ^ℓ")
    left.set_title("Two inputs with depth (points: iterated maps)", fontsize="medium")
    left.set_ylim(1e-13, 2.0)
    left.set_xlabel("layer ℓ")
    left.set_ylabel("1 − c  (c: correlation of two inputs)")
    left.legend(fontsize="small")
    for name in ("tanh", "elu", "silu", "relu"):
        edge = edge_of_chaos(name, np.geomspace(1e-3, 20.0, 60))
        marks = "o" if name == "relu" else "-"
        right.plot(np.sqrt(edge.bias_variances), np.sqrt(edge.weight_variances), marks, label=name)
    right.set_xlabel("σ_b (standard deviation of the biases)")
    right.set_ylabel("σ_w (of the weights, times √fan-in)")
    right.set_title("Edge of chaos, by activation", fontsize="medium")
    right.legend()
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
