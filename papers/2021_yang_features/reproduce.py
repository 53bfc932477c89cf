"""Tensor Programs IV: features move in muP and freeze in NTK parametrisation as width grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.propagation import feature_movement, linear_feature_limit, parametrisation
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
TARGET = (
    "slope of rms |dh_L| in width: -0.50 +- 0.10 (NTK), 0.00 +- 0.05 (muP); of |df|: 0 +- 0.15 in "
    "both; distance of linear muP nets to their limit: slope -0.50 +- 0.10"
)


def main(quick: bool) -> Verdict:
    """Train networks of growing width in both parametrisations."""
    widths = (128, 256, 512, 1024) if quick else (128, 256, 512, 1024, 2048)
    seeds = 24 if quick else 96
    rng = np.random.default_rng(2011)
    x = rng.standard_normal((8, 16))
    y = np.sign(x @ rng.standard_normal(16))
    found = {
        name: feature_movement(
            "tanh",
            name,
            widths,
            inputs=x,
            targets=y,
            probe=x[0],
            steps=5,
            learning_rate=0.1,
            seeds=seeds,
            seed=14522,
        )
        for name in ("ntk", "mup")
    }
    sizes = np.array([64, 256, 1024, 4096, 16384])
    gaps = np.array([_gap(x, y, int(n), 200) for n in sizes])
    limit = float(np.polyfit(np.log(sizes), np.log(gaps), 1)[0])
    measured = {
        f"{name}: slope of {what}": list(slope)
        for name, moved in found.items()
        for what, slope in (("|dh|", moved.feature_slope), ("|df|", moved.output_slope))
    }
    measured |= {
        "regimes by the rule": {n: parametrisation(n).regime for n in ("ntk", "mup")},
        "linear muP: slope of the distance to the limit": limit,
    }
    passed = (
        abs(found["ntk"].feature_slope[0] + 0.5) <= 0.10
        and abs(found["mup"].feature_slope[0]) <= 0.05
        and all(abs(moved.output_slope[0]) <= 0.15 for moved in found.values())
        and abs(limit + 0.5) <= 0.10
    )
    figure = None if quick else _draw(found)
    claim = (
        "Features move by n^(-1/2) in NTK parametrisation and by order 1 in muP, while the "
        "function moves by order 1 in both: the first is a kernel, the second learns features."
    )
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _gap(x, y, n: int, seeds: int) -> float:
    """Root mean square distance of linear muP networks of width n to the infinite one."""
    options = {"steps": 10, "learning_rate": 0.1}
    limit = linear_feature_limit(x, y, **options)[0][-1]
    squares = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, n])
        rows = rng.standard_normal((n, 1 + x.shape[1]))
        rows[:, 1:] /= np.sqrt(x.shape[1])
        net = linear_feature_limit(x, y, moments=rows.T @ rows / n, **options)[0][-1]
        squares.append(np.sum((net - limit) ** 2))
    return float(np.sqrt(np.mean(squares)))


def _draw(found) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    for axes, what, text in zip(
        figure.subplots(1, 2),
        ("features", "outputs"),
        ("rms |Δh| of the last hidden layer", "|Δf| of the output"),
        strict=True,
    ):
        for (name, moved), expected in zip(found.items(), (-0.5, 0.0), strict=True):
            values = getattr(moved, what)
            rms = np.sqrt(np.mean(values**2, axis=1))
            # Two standard errors of the root of a mean of squares.
            bar = np.std(values**2, axis=1) / np.sqrt(values.shape[1]) / rms
            shown = {"ntk": "NTK", "mup": "μP"}[name]
            line = axes.errorbar(moved.widths, rms, bar, fmt="o", capsize=3, label=shown)
            power = expected if what == "features" else 0.0
            level = np.exp(np.mean(np.log(rms) - power * np.log(moved.widths)))
            axes.plot(
                moved.widths,
                level * moved.widths**power,
                "--",
                color=line[0].get_color(),
                label=f"theory: n^{power:g}",
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("width n")
        axes.set_ylabel(f"{text} (2 s.e.)")
        low, high = axes.get_ylim()
        axes.set_ylim(low / 1.3, high * 2.0 if what == "outputs" else high * 1.3)
        axes.legend(fontsize=8, ncols=2)
    panels = figure.axes
    panels[0].set_title("Features move in μP and freeze in NTK", fontsize="medium")
    panels[1].set_title("The function moves in both", fontsize="medium")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
