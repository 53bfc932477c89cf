"""Orthogonal weights: fluctuations of tanh networks that do not grow with depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.propagation import DepthMap, finite_width, sample_ensemble, sample_ntk
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
WIDTH, DEPTH = 64, 60
TARGET = (
    "tanh, n = 64, l = 60: n Var(|z|^2/n)/mean^2 at most 0.3 for orthogonal weights and at least 35 "
    "for Gaussian ones; relative NTK variance of orthogonal networks: log-log slope in depth after "
    "l = 20 at most 0.1 (no growth)"
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
    ends = {kind: float(norms[kind].fluctuation[-1]) for kind in kinds}
    measured = {
        "orthogonal: n Var / mean^2 at l = 60": ends["orthogonal"],
        "Gaussian: n Var / mean^2 at l = 60": ends["gaussian"],
        "orthogonal: slope of the NTK variance, l >= 20": slopes["orthogonal"],
        "Gaussian: slope of the NTK variance, l >= 20": slopes["gaussian"],
        "NTK measured at width": width,
    }
    passed = ends["orthogonal"] <= 0.3 and ends["gaussian"] >= 35.0 and slopes["orthogonal"] <= 0.1
    figure = None if quick else _draw(layer, norms, kernels)
    claim = (
        "With orthogonal weights the fluctuations of a tanh network at first order in 1/n do not "
        "grow with depth, nor, from depth 20 on, do those of its NTK; with Gaussian weights both "
        "grow linearly."
    )
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _draw(layer, norms, kernels) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    theory = finite_width(layer, DEPTH)
    depth = np.arange(1, DEPTH + 1)
    for axes, found, law, text in (
        (left, norms, 2.0 + theory.normalised_vertex, "n Var(|z|²/n) / mean²"),
        (right, kernels, theory.ntk_variance, "n Var(NTK) / NTK²"),
    ):
        for kind, colour in (("gaussian", "C0"), ("orthogonal", "C1")):
            sample = found[kind]
            axes.errorbar(
                depth[1::3],
                sample.fluctuation[1::3],
                2.0 * sample.fluctuation_error[1::3],
                fmt=".",
                color=colour,
                label=f"{kind}, n = {sample.width} (2 s.e.)",
            )
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
