"""Orthogonal weights: fluctuations of tanh networks that do not grow with depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.propagation import (
    DepthMap,
    finite_width,
    sample_dntk,
    sample_ensemble,
    sample_ntk,
)
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
WIDTH, DEPTH = 64, 60
TARGET = (
    "tanh, n = 64, l = 60: n Var(|z|^2/n)/mean^2 at most 0.3 for orthogonal weights and at least "
    "35 for Gaussian ones; relative NTK variance of orthogonal networks: log-log slope in depth "
    "after l = 20 at most 0.1 (no growth); dNTK, n = 64: P/H^2 of orthogonal networks changes by "
    "less than 10 % from l = 20 to l = 60, and |Q|/H^2 stays below 0.05; P/H^2 of Gaussian ones is "
    "within 25 % of the first order at l = 20, and at l = 60 at least 5 times the orthogonal one"
)


def main(quick: bool) -> Verdict:
    """Random tanh networks with both kinds of weights."""
    draws = 3000 if quick else 20000
    layer = DepthMap("tanh", 1.0)
    kinds = ("gaussian", "orthogonal")
    norms = {
        kind: sample_ensemble(layer, WIDTH, DEPTH, weights=kind, draws=draws, seed=2310)
        for kind in kinds
    }
    width, depth, nets = (32, 60, 120) if quick else (64, 60, 200)
    kernels = {
        kind: sample_ntk(layer, width, depth, weights=kind, draws=nets, seed=2311) for kind in kinds
    }
    late = np.arange(20, depth + 1)
    slopes = {
        kind: float(np.polyfit(np.log(late), np.log(kernels[kind].fluctuation[19:]), 1)[0])
        for kind in kinds
    }
    width_d, depths = (32, (5, 20, 40)) if quick else (WIDTH, (2, 5, 10, 15, 20, 30, 40, 60))
    counts = {"gaussian": 150 if quick else 200, "orthogonal": 20 if quick else 60}
    turns = {
        kind: sample_dntk(layer, width_d, depths, weights=kind, draws=counts[kind], seed=2312)
        for kind in kinds
    }
    p = {kind: turns[kind].p / turns[kind].ntk ** 2 for kind in kinds}
    at = depths.index(20)
    first = finite_width(layer, DEPTH)
    line = float(first.p[19] / first.ntk[19] ** 2)
    q_largest = float(np.max(np.abs(turns["orthogonal"].q / turns["orthogonal"].ntk ** 2)))
    change = float(p["orthogonal"][-1] / p["orthogonal"][at] - 1.0)
    ends = {kind: float(norms[kind].fluctuation[-1]) for kind in kinds}
    measured = {
        "orthogonal: n Var / mean^2 at l = 60": ends["orthogonal"],
        "Gaussian: n Var / mean^2 at l = 60": ends["gaussian"],
        "orthogonal: slope of the NTK variance, l >= 20": slopes["orthogonal"],
        "Gaussian: slope of the NTK variance, l >= 20": slopes["gaussian"],
        "NTK measured at width": width,
        "dNTK at width and depths": [width_d, *depths],
        "orthogonal: P/H^2 by depth": p["orthogonal"],
        "orthogonal: change of it after l = 20": change,
        "orthogonal: largest |Q|/H^2": q_largest,
        "Gaussian: P/H^2 by depth": p["gaussian"],
        "Gaussian: standard error of that": turns["gaussian"].p_error / turns["gaussian"].ntk ** 2,
        "Gaussian: P/H^2 at l = 20, first order": line,
    }
    passed = (
        ends["orthogonal"] <= 0.3
        and ends["gaussian"] >= 35.0
        and slopes["orthogonal"] <= 0.1
        and abs(change) < 0.1
        and q_largest < 0.05
        and abs(p["gaussian"][at] / line - 1.0) < 0.25
        and p["gaussian"][-1] / p["orthogonal"][-1] >= 5.0
    )
    figure = None if quick else _draw(first, norms, kernels, turns)
    claim = (
        "With orthogonal weights the fluctuations of a tanh network at first order in 1/n do not "
        "grow with depth, nor, from depth 20 on, do those of its NTK and the dNTK's correlation "
        "with the outputs; with Gaussian weights all grow linearly."
    )
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _draw(theory, norms, kernels, turns) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    depth = np.arange(1, DEPTH + 1)
    some = depth[1::3]
    panels = [
        (
            axes,
            text,
            law,
            {
                k: (some, s.fluctuation[1::3], s.fluctuation_error[1::3], s.width)
                for k, s in found.items()
            },
        )
        for axes, found, law, text in (
            (left, norms, 2.0 + theory.normalised_vertex, "n Var(|z|²/n) / mean²"),
            (middle, kernels, theory.ntk_variance, "n Var(NTK) / NTK²"),
        )
    ]
    turned = {
        k: (np.array(s.depths), -s.p / s.ntk**2, s.p_error / s.ntk**2, s.width)
        for k, s in turns.items()
    }
    law = -theory.p / theory.ntk**2
    panels.append((right, "−P / H²: how the NTK turns with the output", law, turned))
    for axes, text, law, curves in panels:
        for kind, colour in (("gaussian", "C0"), ("orthogonal", "C1")):
            at, value, error, width = curves[kind]
            label = f"{kind}, n = {width} (2 s.e.)"
            axes.errorbar(at, value, 2.0 * error, fmt=".", color=colour, label=label)
        axes.plot(depth[1:], law[1:], color="C0", label="theory, Gaussian, first order")
        axes.set_yscale("log")
        axes.set_xlabel("layer ℓ")
        axes.set_ylabel(text)
        axes.legend(fontsize="small")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
