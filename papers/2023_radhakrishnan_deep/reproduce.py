"""Infinitely deep networks as classifiers, with activations chosen for the dimension."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tangency.theory.spectral import (
    deep_kernel_scores,
    depth_limit,
    explicit_activation,
    hilbert_scores,
    nearest_neighbour_scores,
    singular_kernel,
)
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
TARGET = (
    "fitted singular exponent within 0.02 of d for d = 1, 2, 4, 8; deep classifier agrees with the "
    "Hilbert estimate on at least 0.994 of test inputs (pooled over these d); ReLU's limit is "
    "majority vote, He3's the nearest neighbour (agreement at least 0.99 where it decides)"
)
#: Dimension of the sphere -> Dirichlet parameters of both classes, and depth: the authors'.
SETTINGS = {
    1: ([1, 2], [2, 1], 100),
    2: ([0.5, 0.5, 2.5], [2.5, 0.1, 0.5], 100),
    4: ([3, 1, 2, 1, 1], [1, 2, 2, 2, 3], 50),
    8: ([1, 2, 1, 2, 1, 1, 1, 1, 1], [1, 1, 1, 2, 3, 4, 2, 2, 1], 100),
}


def main(quick: bool) -> Verdict:
    """Fit the exponents, and classify Dirichlet data on spheres."""
    slopes, kernels = {}, {}
    distances = np.geomspace(1e-7, 1e-1, 61)
    for d in (1, 2, 4, 8):
        kernels[d] = singular_kernel(explicit_activation(d), distances**2 / 2)
        near = distances < 1e-3
        slopes[d] = float(np.polyfit(np.log(distances[near]), np.log(kernels[d][near]), 1)[0])
    train, test = (400, 500) if quick else (3000, 2000)
    scores: dict[int, dict[str, float]] = {}
    for d, (one, two, depth) in SETTINGS.items():
        rng = np.random.default_rng(8_000 + d)
        (x, y), (x_test, y_test) = _draws(rng, train, one, two), _draws(rng, test, one, two)
        deep = np.sign(deep_kernel_scores(x, y, x_test, explicit_activation(d), depth=depth))
        hilbert = np.sign(hilbert_scores(x, y, x_test, exponent=d))
        nearest = nearest_neighbour_scores(x, y, x_test)
        scores[d] = {
            "deep": float(np.mean(deep == y_test)),
            "Hilbert": float(np.mean(hilbert == y_test)),
            "nearest neighbour": float(np.mean(nearest == y_test)),
            "majority": float(max(np.mean(y_test > 0), np.mean(y_test < 0))),
            "Bayes": float(np.mean(_bayes(x_test, one, two) == y_test)),
            "agreement": float(np.mean(deep == hilbert)),
        }
        if not quick:
            sys.stderr.write(f"d = {d}: {scores[d]}\n")
            sys.stderr.flush()
        if d == 4:  # where no two training inputs are nearly one
            cubic = np.sign(deep_kernel_scores(x, y, x_test, "hermite3", depth=12))
            decided = cubic != 0
            neighbour = float(np.mean(cubic[decided] == nearest[decided]))
    agreement = float(np.mean([s["agreement"] for s in scores.values()]))
    kinds = {name: depth_limit(name).kind for name in ("relu", "hermite3")}
    measured = {
        "fitted slope": {f"d = {d}": s for d, s in slopes.items()},
        "agreement of deep and Hilbert": agreement,
        "accuracy": {f"d = {d}": s for d, s in scores.items()},
        "agreement of deep He3 and nearest neighbour": neighbour,
        "limits": kinds,
        "training inputs": train,
    }
    passed = (
        all(abs(s + d) <= 0.02 for d, s in slopes.items())
        and agreement >= 0.994
        and neighbour >= 0.99
        and kinds == {"relu": "majority vote", "hermite3": "nearest neighbour"}
    )
    claim = (
        "An infinitely wide and deep network classifies by majority vote, by nearest neighbour or "
        "by a singular kernel, as its activation decides; the singular ones whose exponent is the "
        "dimension of the data are consistent for classification."
    )
    figure = None if quick else _draw(distances, kernels, scores, test)
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _draws(rng, n, one, two):
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    x = np.where((y > 0)[:, None], rng.dirichlet(one, n), rng.dirichlet(two, n))
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


def _bayes(x, one, two):
    from scipy.stats import dirichlet

    x = np.maximum(x, 1e-300)
    points = (x / x.sum(1, keepdims=True)).T
    return np.sign(
        dirichlet.logpdf(points, one) + np.log(0.4) - dirichlet.logpdf(points, two) - np.log(0.6)
    )


def _draw(distances, kernels, scores, test) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (d, kernel) in enumerate(kernels.items()):
        left.loglog(distances[::2], kernel[::2], "o", color=f"C{i}", markersize=3)
        law = kernel[0] * (distances / distances[0]) ** -float(d)
        left.loglog(distances, law, "-", color=f"C{i}", label=f"d = {d}: |x − x'|^−{d}")
    left.set_xlabel("distance |x − x'| on the sphere")
    left.set_ylabel("limit of ψ^L / ψ'(0)^L (points)")
    left.legend(fontsize=8)
    names = ["majority", "nearest neighbour", "Hilbert", "deep", "Bayes"]
    for i, name in enumerate(names):
        heights = np.array([s[name] for s in scores.values()])
        # The spread of a share of so many test inputs, about its expectation.
        bars = 2 * np.sqrt(heights * (1 - heights) / test)
        right.errorbar(
            np.arange(len(scores)) + 0.12 * (i - 2), heights, bars, fmt="o", capsize=3, label=name
        )
    right.set_xticks(range(len(scores)), [f"d = {d}" for d in scores])
    right.set_ylim(0.5, 1.0)
    right.set_xlabel("dimension of the sphere")
    right.set_ylabel("accuracy on test inputs (2 s.e.)")
    handles = right.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=5, fontsize=8)
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
