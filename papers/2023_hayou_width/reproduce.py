"""Residual networks: the limits of width and depth commute, with branches of 1 / sqrt(depth)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tangency.theory.propagation import residual_flow, sample_residual
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
C0 = 0.2
TARGET = (
    "flow: q_1 = sqrt(e) to 1e-6; n = L = 128: mean q_1 within 0.03 of it; root mean square error "
    "of the covariance times sqrt(n) flat within a factor 1.4 along n = L; branches of 1/L: "
    "q_1 = 1 to 0.02"
)


def main(quick: bool) -> Verdict:
    """Random residual networks on three paths to infinity, beside the flow."""
    draws, sizes = (300, (32, 64, 128)) if quick else (2000, (32, 64, 128, 256))
    flow = residual_flow("relu", covariance=C0)
    paths = {
        "n = L": [(n, n) for n in sizes],
        "L = 256, n grows": [(n, 256) for n in sizes],
        "n = 256, L grows": [(256, n) for n in sizes],
    }
    found = {
        name: [_sample(n, depth, draws, flow.covariance[-1]) for n, depth in path]
        for name, path in paths.items()
    }
    scaled = [row["error"] * math.sqrt(n) for row, n in zip(found["n = L"], sizes, strict=True)]
    at_128 = found["n = L"][sizes.index(128)]
    trivial = sample_residual("relu", 256, 256, branch_power=1.0, draws=draws // 4, seed=5)
    measured = {
        "flow: q_1": float(flow.first[-1]),
        "flow: covariance and correlation at the end": [
            float(flow.covariance[-1]),
            float(flow.correlation[-1]),
        ],
        "n = L = 128: mean q_1": at_128["q"],
        "n = L: rms error of the covariance times sqrt(n)": scaled,
        "1/L branches, n = L = 256: mean q_1": float(np.mean(trivial.first)),
    }
    passed = (
        abs(flow.first[-1] - math.sqrt(math.e)) < 1e-6
        and abs(at_128["q"] - math.sqrt(math.e)) < 0.03
        and max(scaled) / min(scaled) < 1.4
        and abs(measured["1/L branches, n = L = 256: mean q_1"] - 1.0) < 0.02
    )
    figure = None if quick else _draw(paths, found)
    claim = (
        "With branches scaled by 1/sqrt(L) the covariances of a residual network have one limit, "
        "in whatever order width and depth go to infinity (ReLU: q_1 = sqrt(e)), at rate n^(-1/2) "
        "for n = L."
    )
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _sample(n: int, depth: int, draws: int, limit: float) -> dict[str, float]:
    found = sample_residual(
        "relu", n, depth, covariance=C0, draws=draws, seed=2302 + 1000 * n + depth
    )
    squares = (found.covariance - limit) ** 2
    error = float(np.sqrt(np.mean(squares)))
    return {
        "q": float(np.mean(found.first)),
        "error": error,
        "bar": float(np.std(squares) / np.sqrt(draws) / (2.0 * error)),
    }


def _draw(paths, found) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for i, (name, path) in enumerate(paths.items()):
        x = np.array([depth if name.startswith("n = 256") else n for n, depth in path])
        rows = found[name]
        axes.errorbar(
            x * 1.02**i,
            [row["error"] for row in rows],
            [2.0 * row["bar"] for row in rows],
            fmt="o-",
            capsize=3,
            label=f"path {name}",
        )
    first = found["n = L"][0]["error"] * math.sqrt(paths["n = L"][0][0])
    axes.plot(x, first / np.sqrt(x), "k--", label="theory: n^(−1/2)")
    axes.set_xlabel("size that grows (n or L)")
    axes.set_ylabel("rms distance of the covariance to its limit (2 s.e.)")
    axes.legend()
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
