"""The Principles of Deep Learning Theory: the four-point vertex of ReLU and tanh with depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.propagation import DepthMap, finite_width, sample_ensemble
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
WIDTH = 64
TARGET = (
    "ReLU: V/K^2 = 5(l-1) to 1e-9; tanh at l = 1000: 2lK = 1 to 0.005 and V/(lK^2) = 2/3 to 0.01; "
    "random tanh networks of width 128 within 15 % of 2 + V/K^2 for l <= 40, and nearer to it than "
    "those of width 64; ReLU networks of width 64 within 15 % of that width's exact law, l <= 10"
)


def main(quick: bool) -> Verdict:
    """Recursions to depth 1000, and random networks of width 64 beside them."""
    draws = 12_000 if quick else 100_000
    relu = finite_width(DepthMap("relu", 2.0), 100)
    tanh = finite_width(DepthMap("tanh", 1.0), 1000)
    depths = np.arange(1, 101)
    exact = float(np.max(np.abs(relu.normalised_vertex - 5.0 * (depths - 1))))
    samples = {
        name: sample_ensemble(DepthMap(name, c_w), WIDTH, 40, draws=draws, seed=2106 + i)
        for i, (name, c_w) in enumerate((("relu", 2.0), ("tanh", 1.0)))
    }
    wide = sample_ensemble(DepthMap("tanh", 1.0), 2 * WIDTH, 40, draws=draws, seed=2109)
    theory = {"relu": relu.normalised_vertex[:40], "tanh": tanh.normalised_vertex[:40]}
    # For ReLU the second moment of |z|^2/n is known at every width: (1 + 2/n) (1 + 5/n)^(l-1).
    # At n = 64 it leaves its first order, 5(l-1)/n, after a dozen layers, and soon all weight is
    # in the tail: random networks are compared with the exact law, where they can measure it.
    compound = WIDTH * ((1.0 + 5.0 / WIDTH) ** np.arange(40) * (1.0 + 2.0 / WIDTH) - 1.0)
    off = {
        "tanh": _gap(samples["tanh"].fluctuation, theory["tanh"]),
        "wide": _gap(wide.fluctuation, theory["tanh"]),
        "relu": float(np.max(np.abs(samples["relu"].fluctuation / compound - 1.0)[:10])),
    }
    measured = {
        "relu: max |V/K^2 - 5(l-1)|, l <= 100": exact,
        "tanh: 2lK at l = 1000": float(2000.0 * tanh.kernel[-1]),
        "tanh: V/(lK^2) at l = 1000": float(tanh.normalised_vertex[-1] / 1000.0),
        "tanh, n = 64: largest relative gap to 2 + V/K^2, l <= 40": off["tanh"],
        "tanh, n = 128: the same": off["wide"],
        "relu, n = 64: largest relative gap to the law of that width, l <= 10": off["relu"],
    }
    passed = (
        exact < 1e-9
        and abs(measured["tanh: 2lK at l = 1000"] - 1.0) < 0.005
        and abs(measured["tanh: V/(lK^2) at l = 1000"] - 2.0 / 3.0) < 0.01
        and off["wide"] < min(0.15, off["tanh"])
        and off["relu"] < 0.15
    )
    figure = None if quick else _draw(theory, samples, compound)
    claim = (
        "At criticality non-Gaussianity grows linearly with depth over width: "
        "V/(nK^2) = 5(l-1)/n for ReLU and tends to (2/3) l/n for tanh, with 2lK -> 1."
    )
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _gap(found, vertex) -> float:
    """The largest relative distance of fluctuations to ``2 + V / K^2``."""
    return float(np.max(np.abs(found / (2.0 + vertex) - 1.0)))


def _draw(theory, samples, compound) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    depth = np.arange(1, 41)
    laws = {"relu": "5 (ℓ − 1)", "tanh": "recursion, → (2/3) ℓ"}
    for axes, name in zip(figure.subplots(1, 2), ("relu", "tanh"), strict=True):
        found = samples[name]
        axes.plot(depth, theory[name], label=f"theory at first order: {laws[name]}")
        if name == "relu":
            axes.plot(depth, compound - 2.0, "--", label="exact at this width")
        axes.errorbar(
            depth[::2],
            found.fluctuation[::2] - 2.0,
            2.0 * found.fluctuation_error[::2],
            fmt=".",
            color="black",
            label=f"random networks, n = {WIDTH} (2 s.e.)",
        )
        axes.set_xlabel("layer ℓ")
        axes.set_ylabel("V / K²  (n × non-Gaussianity)")
        axes.set_title(name)
        axes.legend(loc="upper left" if name == "relu" else "lower right", fontsize="small")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
