"""Benign overfitting of lazy deep networks: noisy labels are fitted, clean ones predicted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tangency.theory.kernels import infinite_kernel
from tangency.theory.kernels.layers import Dense
from tangency.theory.kernels.layers_activations import Relu
from tangency.theory.prediction import kernel_ridge
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
SAMPLES, FLIPS, SIGNAL = 400, 0.15, 0.7
BOUND = 1 - 1 / math.pi
TARGET = (
    "all noisy training labels fitted; clean test error at most 0.5 % for d >= 1000 at every "
    "depth; least eigenvalue of the two-layer tangent kernel (K(x, x) = 2) at "
    "least 1 - 1/pi for n < d inputs uniform on the sphere"
)


def main(quick: bool) -> Verdict:
    """Interpolate flipped labels with tangent kernels of several depths, in several dimensions."""
    dimensions = (50, 200, 1000) if quick else (50, 200, 1000, 4000)
    seeds = range(81, 82 if quick else 86)
    errors, fitted, least, clustered = {}, [], {}, {}
    for d in dimensions:
        for depth in (1, 3, 6):
            found = []
            for seed in seeds:
                x, y, clean = _data(np.random.default_rng((seed, d)), d, SAMPLES + 1000)
                kernel = _network(depth)
                gram = np.asarray(kernel(x[:SAMPLES], get="ntk"))
                fit = kernel_ridge(gram, y[:SAMPLES])
                fitted.append(float(np.mean(np.sign(fit.predict(gram)) == y[:SAMPLES])))
                scores = fit.predict(kernel(x[SAMPLES:], x[:SAMPLES], get="ntk"))
                found.append(float(np.mean(np.sign(scores) != clean[SAMPLES:])))
                if depth == 1 and d > SAMPLES:
                    spread = np.random.default_rng((seed, d, 1)).normal(size=(SAMPLES, d))
                    spread /= np.linalg.norm(spread, axis=1, keepdims=True)
                    least.setdefault(d, []).append(_least(np.asarray(kernel(spread, get="ntk"))))
                    clustered.setdefault(d, []).append(_least(gram))
            errors[d, depth] = found
    measured = {
        "clean test error": {
            f"d = {d}, depth {k}": float(np.mean(e)) for (d, k), e in errors.items()
        },
        "training accuracy on noisy labels": min(fitted),
        "least eigenvalue, two layers, uniform inputs": {
            f"d = {d}": min(v) for d, v in least.items()
        },
        "the same on the two clusters": {f"d = {d}": min(v) for d, v in clustered.items()},
        "1 - 1/pi": BOUND,
        "seeds": len(seeds),
    }
    passed = (
        min(fitted) == 1.0
        and all(np.mean(e) <= 0.005 for (d, _), e in errors.items() if d >= 1000)
        and all(min(v) >= BOUND for v in least.values())
    )
    claim = (
        "On well separated data in high dimension, deep ReLU networks in the lazy regime "
        "interpolate flipped labels and still classify as well as the Bayes rule."
    )
    figure = None if quick else _draw(errors)
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _least(gram) -> float:
    """Least eigenvalue where the diagonal is 2, as it is for kappa_1 + xi kappa_0."""
    return float(2 * np.linalg.eigvalsh(gram)[0] / np.mean(np.diag(gram)))


def _network(depth: int):
    hidden = [layer for _ in range(depth) for layer in (Dense(1, W_std=math.sqrt(2)), Relu())]
    return infinite_kernel([*hidden, Dense(1)])


def _data(rng, d: int, count: int):
    """Two clusters on the sphere about opposite means; a share of the labels is flipped."""
    clean = rng.choice([-1.0, 1.0], size=count)
    x = rng.normal(size=(count, d)) / math.sqrt(d)
    x[:, 0] += SIGNAL * clean
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, np.where(rng.random(count) < FLIPS, -clean, clean), clean


def _draw(errors) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    ax = figure.add_subplot()
    for i, depth in enumerate((1, 3, 6)):
        seen = [(d, e) for (d, k), e in errors.items() if k == depth]
        means = np.array([np.mean(e) for _, e in seen])
        spread = np.array([np.std(e) for _, e in seen])
        ax.errorbar(
            [d * (1 + 0.05 * (i - 1)) for d, _ in seen],
            means,
            [np.minimum(spread, means), spread],  # an error is not negative
            fmt="o-",
            capsize=3,
            label=f"{depth} hidden layer{'s' if depth > 1 else ''}",
        )
    ax.axhline(FLIPS, color="k", linestyle=":", label="flipped training labels")
    ax.axhline(0.005, color="0.6", linestyle="--", label="0.5 %")
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set_ylim(-1e-4, 0.3)
    ax.set_yticks([0, 1e-3, 1e-2, 1e-1], ["0", "0.1 %", "1 %", "10 %"])
    dimensions = sorted({d for d, _ in errors})
    ax.set_xticks(dimensions, [str(d) for d in dimensions])
    ax.minorticks_off()
    ax.set_xlabel("input dimension d (400 samples)")
    ax.set_ylabel("error on clean test labels (mean, s.d. over 5 seeds)")
    ax.legend(fontsize=8)
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
