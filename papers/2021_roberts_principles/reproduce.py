"""The Principles of Deep Learning Theory: the four-point vertex with depth, and what it tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.propagation import (
    DepthMap,
    finite_width,
    mixture_information,
    optimal_aspect_ratio,
    output_information,
    sample_ensemble,
    vertex_growth,
)
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
WIDTH = 64
TARGET = (
    "ReLU: V/K^2 = 5(l-1) to 1e-9; tanh at l = 1000: 2lK = 1 to 0.005 and V/(lK^2) = 2/3 to 0.01; "
    "random tanh networks of width 128 within 15 % of 2 + V/K^2 for l <= 40, and nearer to it than "
    "those of width 64; ReLU networks of width 64 within 15 % of that width's exact law, l <= 10; "
    "the third order of the exact information of 2 and of 10 outputs, extrapolated to v = 0, "
    "within 0.5 % of (20 + 3 m)/48"
)
PARTS = {2: (1, 1), 10: (5, 5)}  # outputs, in two groups


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
    ratios = {
        name: {str(m): optimal_aspect_ratio(name, outputs=m) for m in PARTS}
        for name in ("relu", "tanh")
    }
    third = {str(m): _third_order(*parts) * 48.0 / (20.0 + 3.0 * m) for m, parts in PARTS.items()}
    measured = {
        "relu: max |V/K^2 - 5(l-1)|, l <= 100": exact,
        "tanh: 2lK at l = 1000": float(2000.0 * tanh.kernel[-1]),
        "tanh: V/(lK^2) at l = 1000": float(tanh.normalised_vertex[-1] / 1000.0),
        "tanh, n = 64: largest relative gap to 2 + V/K^2, l <= 40": off["tanh"],
        "tanh, n = 128: the same": off["wide"],
        "relu, n = 64: largest relative gap to the law of that width, l <= 10": off["relu"],
        "growth nu": {name: vertex_growth(name) for name in ("relu", "tanh", "elu", "sin")},
        "r* by outputs": {n: {m: a.ratio for m, a in by.items()} for n, by in ratios.items()},
        "third order of the exact information over (20 + 3 m)/48, by outputs": third,
        "relu: exact information at r* over the cubic's, by outputs": {
            str(m): _exact(np.log1p(ratios["relu"][str(m)].vertex), *parts)
            / float(output_information(ratios["relu"][str(m)].vertex, *parts))
            for m, parts in PARTS.items()
        },
    }
    passed = (
        exact < 1e-9
        and abs(measured["tanh: 2lK at l = 1000"] - 1.0) < 0.005
        and abs(measured["tanh: V/(lK^2) at l = 1000"] - 2.0 / 3.0) < 0.01
        and off["wide"] < min(0.15, off["tanh"])
        and off["relu"] < 0.15
        and all(abs(ratio - 1.0) < 0.005 for ratio in third.values())
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


def _exact(spread: float, first: int, second: int) -> float:
    """Exact information of outputs whose variance is log-normal: ReLU networks, n to infinity.

    Their ``log G`` is a sum over ``l`` independent layers, of variance ``5 l / n`` in the limit.
    """
    t, weights = np.polynomial.hermite_e.hermegauss(81)
    return mixture_information(np.exp(np.sqrt(spread) * t - spread / 2.0), weights, first, second)


def _third_order(first: int, second: int) -> float:
    """The coefficient of ``-v^3`` in the exact information, with two more orders taken out."""

    def coefficient(spread: float) -> float:
        v = np.expm1(spread)
        return float((v**2 / 8.0 - _exact(spread, first, second) / (first * second)) / v**3)

    near, middle, far = (coefficient(s) for s in (0.001, 0.002, 0.004))
    return (4.0 * (2.0 * near - middle) - (2.0 * middle - far)) / 3.0


def _draw(theory, samples, compound) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    *panels, last = figure.subplots(1, 3)
    depth = np.arange(1, 41)
    laws = {"relu": "5 (ℓ − 1)", "tanh": "recursion, → (2/3) ℓ"}
    for axes, name in zip(panels, ("relu", "tanh"), strict=True):
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
    best = optimal_aspect_ratio("relu", outputs=10)
    ratio = np.linspace(0.0, 2.2 * best.ratio, 45)
    # The expansion is in v, which for this law is exp(5 r) - 1; r* takes its leading order, 5 r.
    v = np.expm1(best.growth * ratio)
    last.plot(ratio, 25.0 * v**2 / 8.0, ":", label="second order")
    last.plot(ratio, output_information(v, 5, 5), label="third order")
    last.plot(ratio[1:], [_exact(5.0 * r, 5, 5) for r in ratio[1:]], "--", label="exact, n → ∞")
    last.axvline(best.ratio, color="grey", linewidth=0.8, label=f"r* = {best.ratio:.3g}")
    last.set_ylim(-0.005, 0.03)
    last.set_xlabel("depth over width, r = ℓ / n")
    last.set_ylabel("information of 5 outputs on 5 others (nats)")
    last.set_title("relu")
    last.legend(loc="upper left", fontsize="small")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
