"""More is better: the errors of random features, predicted from a spectrum and simulated."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tangency.theory.spectral import optimal_ridge, power_law, ridge_risk
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
MODES, ALPHA, BETA, NOISE = 1500, 1.5, 1.6, 0.1
VALUES, COEFFICIENTS = power_law(ALPHA, MODES), np.sqrt(power_law(BETA, MODES))
TARGET = (
    "median of |theory - simulation| / theory at most 3 % over 20 points (n, k, ridge), and their "
    "mean with its sign at most 1.5 %; error at the optimal ridge strictly decreasing in n and in k"
)


def main(quick: bool) -> Verdict:
    """Simulate Gaussian power-law features and compare with the two implicit equations."""
    draws = 24 if quick else 100
    grid = [
        (n, k, ridge)
        for n, k in ((32, 128), (64, 64), (64, 256), (128, 32), (128, 128), (256, 64), (256, 256))
        for ridge in (0.01, 0.3, 3.0)
    ][:20]
    rng = np.random.default_rng(20_240_611)
    rows = []
    for n, k, ridge in grid:
        found = [_error(rng, n, k, ridge) for _ in range(draws)]
        theory = ridge_risk(VALUES, COEFFICIENTS, n, features=k, ridge=ridge, noise=NOISE)
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0) / math.sqrt(draws)
        rows.append((n, k, ridge, theory.test, mean[0], spread[0], theory.train, mean[1]))
    signed = np.array([(r[4] - r[3]) / r[3] for r in rows])
    gaps = np.abs(signed)
    train_gaps = np.array([abs(r[6] - r[7]) / r[6] for r in rows])
    sizes = [16, 64, 256, 1024, 4096]
    best = np.array(
        [
            [
                optimal_ridge(VALUES, COEFFICIENTS, n, features=k, noise=NOISE).test
                for k in (*sizes, math.inf)
            ]
            for n in sizes
        ]
    )
    worst = rows[int(np.argmax(gaps))]
    measured = {
        "median relative gap, test error": float(np.median(gaps)),
        "median relative gap, training error": float(np.median(train_gaps)),
        "mean relative gap with its sign": float(signed.mean()),
        "largest relative gap": float(gaps.max()),
        "at (n, k, ridge)": [worst[0], worst[1], worst[2]],
        "draws": draws,
        "optimal error, n = 256, k = 16 .. 4096, inf": [float(b) for b in best[2]],
        "largest step in n": float(np.diff(best, axis=0).max()),
        "largest step in k": float(np.diff(best, axis=1).max()),
    }
    passed = np.median(gaps) <= 0.03 and abs(signed.mean()) <= 0.015
    passed = passed and (np.diff(best, axis=0) < 0).all()
    passed = passed and (np.diff(best, axis=1) < 0).all()
    claim = (
        "The test error of random-feature ridge regression follows from the kernel's spectrum, "
        "and at the best ridge it falls with every sample and every feature: infinitely many "
        "features are optimal."
    )
    figure = None if quick else _draw(rows, sizes, best)
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _error(rng, n: int, k: int, ridge: float) -> tuple[float, float]:
    """Exact test error and training error of one draw of samples, features and noise."""
    x = rng.normal(size=(n, MODES))
    y = x @ COEFFICIENTS + math.sqrt(NOISE) * rng.normal(size=n)
    maps = np.sqrt(VALUES)[:, None] * rng.normal(size=(MODES, k)) / math.sqrt(k)
    features = x @ maps
    weights = features.T @ np.linalg.solve(features @ features.T + ridge * np.eye(n), y)
    test = float(np.sum((maps @ weights - COEFFICIENTS) ** 2)) + NOISE
    return test, float(np.mean((features @ weights - y) ** 2))


def _draw(rows, sizes, best) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    theory = np.array([r[3] for r in rows])
    left.errorbar(
        theory,
        [r[4] for r in rows],
        [2 * r[5] for r in rows],
        fmt="o",
        capsize=3,
        label="simulation (2 s.e.)",
    )
    ends = [theory.min() * 0.9, theory.max() * 1.1]
    left.loglog(ends, ends, "k-", linewidth=1, label="theory = simulation")
    ticks = [0.3, 0.5, 1.0]
    for axis in (left.xaxis, left.yaxis):  # the default labels overlap within a decade
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axis.set_ticks([0.4, 0.6, 0.7, 0.8, 0.9, 2.0], labels=[], minor=True)
    left.set_xlabel("predicted test error (MSE)")
    left.set_ylabel("simulated test error (MSE)")
    left.legend()
    for n, row in zip(sizes, best, strict=True):
        right.loglog(sizes, row[:-1], "o-", label=f"n = {n}")
        right.axhline(row[-1], color="0.8", linewidth=0.8, zorder=0)
    ticks = [0.15, 0.2, 0.3, 0.5, 1.0]
    right.set_yticks(ticks, [f"{t:g}" for t in ticks])
    right.set_yticks([], minor=True)
    right.set_xlabel("random features k (grey: infinitely many)")
    right.set_ylabel("test error at the best ridge (MSE)")
    right.legend(fontsize=8)
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
