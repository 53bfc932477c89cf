"""Grokking as the way from lazy to rich training: the larger the output scale, the longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
DIMENSION, SAMPLES, UNITS, EPSILON, THRESHOLD = 30, 300, 60, 0.25, 0.1
TARGET = (
    "median over seeds of t_test / t_train (loss below 10 % of its start) at alpha = 8 at least "
    "twice that at alpha = 0.25; closed form of the test loss within 1 % of 1e6 samples"
)


def main(quick: bool) -> Verdict:
    """Train the committee from rich to lazy, and time both losses."""
    scales = (0.25, 8.0) if quick else (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    seeds = range(901, 902 if quick else 910)
    runs = {a: [_train(a, seed, keep=a in (0.25, 8.0)) for seed in seeds] for a in scales}
    ratios = {a: [r["test time"] / r["train time"] for r in found] for a, found in runs.items()}
    checked = runs[8.0][0]
    sampled = _sampled(checked, np.random.default_rng(999))
    gap = abs(sampled / checked["test"][-1] - 1)
    medians = {a: float(np.median(r)) for a, r in ratios.items()}
    measured = {
        "median t_test / t_train": {f"alpha {a:g}": m for a, m in medians.items()},
        "all": {f"alpha {a:g}": [float(r) for r in found] for a, found in ratios.items()},
        "last alignment with the target": {
            f"alpha {a:g}": float(np.median([r["alignment"][-1] for r in found]))
            for a, found in runs.items()
        },
        "closed form against samples, relative": float(gap),
        "seeds": len(seeds),
    }
    if not quick:  # too few samples to learn the target from: the test loss stays where it is
        few = _train(1.0, 901, keep=False, samples=60, most=12_000)
        measured["60 samples: least test loss of 12000 steps over the first"] = float(
            min(few["test"]) / few["test"][0]
        )
    passed = medians[8.0] >= 2 * medians[0.25] and gap <= 0.01
    claim = (
        "A network grokks where it first fits with its initial features (lazy) and learns the "
        "target's only later (rich): the delay grows with the scale alpha of its output."
    )
    figure = None if quick else _draw(runs, ratios)
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _train(
    alpha: float, seed: int, *, keep: bool, samples: int = SAMPLES, most: int = 60_000
) -> dict:
    """Gradient descent on f - f_0, f = alpha mean phi(w.x), phi = h + eps h^2 / 2, to both times.

    The rate is N / alpha^2, for which function space moves alike at all alpha.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, DIMENSION)) / np.sqrt(DIMENSION)
    beta = rng.normal(size=DIMENSION)
    beta *= np.sqrt(DIMENSION) / np.linalg.norm(beta)
    y = 0.5 * (x @ beta) ** 2
    w = rng.normal(size=(UNITS, DIMENSION))
    start = w.copy()
    first = _output(x @ w.T, alpha)
    rate = 1.0 * UNITS / alpha**2
    times, train, test, alignment = [], [], [], []
    reached: dict[str, int] = {}
    for t in range(most):
        h = x @ w.T
        residual = _output(h, alpha) - first - y
        if t < 200 or t % 10 == 0:
            times.append(t)
            train.append(float(np.mean(residual**2)))
            test.append(_population(w, start, beta, alpha))
            moment = w.T @ w / UNITS
            alignment.append(float(beta @ moment @ beta / (np.linalg.norm(moment) * (beta @ beta))))
            for name, losses in (("train", train), ("test", test)):
                if name not in reached and losses[-1] < THRESHOLD * losses[0]:
                    reached[name] = max(t, 1)
            if len(reached) == 2:
                break
        slope = (residual[:, None] * (1 + EPSILON * h)).T @ x
        w -= rate * 2 * alpha / (UNITS * samples) * slope
    return {
        "train time": float(reached.get("train", most)),
        "test time": float(reached.get("test", most)),
        "alignment": alignment,
        "test": test,
        "times": times if keep else [],
        "train": train if keep else [],
        "state": (w, start, beta, alpha),
    }


def _output(h, alpha: float):
    return alpha * np.mean(h + EPSILON * h**2 / 2, axis=1)


def _population(w, start, beta, alpha: float) -> float:
    """The expected squared error in closed form: constant, quadratic and linear parts.

    f - f_0 - y is a linear form in x, alpha (w - w_0), and a quadratic one, of the matrix
    (alpha eps (M - M_0) - beta beta^T) / 2, with M the mean of w w^T.
    """
    d = DIMENSION
    quadratic = alpha * EPSILON * (w.T @ w - start.T @ start) / UNITS - np.outer(beta, beta)
    linear = alpha * (w.mean(0) - start.mean(0))
    return float(
        np.trace(quadratic) ** 2 / (4 * d**2)
        + np.sum(quadratic**2) / (2 * d**2)
        + linear @ linear / d
    )


def _sampled(run, rng) -> float:
    w, start, beta, alpha = run["state"]
    losses = []
    for _ in range(20):
        x = rng.normal(size=(50_000, DIMENSION)) / np.sqrt(DIMENSION)
        change = _output(x @ w.T, alpha) - _output(x @ start.T, alpha)
        losses.append(np.mean((change - 0.5 * (x @ beta) ** 2) ** 2))
    return float(np.mean(losses))


def _draw(runs, ratios) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for alpha, colour in ((0.25, "C0"), (8.0, "C1")):
        run = runs[alpha][0]
        times = np.maximum(run["times"], 1)
        left.plot(times, run["train"], "--", color=colour, label=f"α = {alpha:g}, training")
        left.plot(times, run["test"], "-", color=colour, label=f"α = {alpha:g}, test")
    left.axhline(
        THRESHOLD * run["test"][0], color="k", linestyle=":", label="10 % of the start, test"
    )
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("steps of gradient descent")
    left.set_ylabel("mean squared error")
    left.set_title("One seed, to the step where both are below 10 %", fontsize="medium")
    left.legend(fontsize=8)
    scales = sorted(ratios)
    middle = np.array([np.median(ratios[a]) for a in scales])
    ends = np.array([np.percentile(ratios[a], (25, 75)) for a in scales]).T
    for a in scales:
        right.plot([a] * len(ratios[a]), ratios[a], "o", color="0.7", markersize=3, zorder=1)
    count = len(ratios[scales[0]])
    right.errorbar(
        scales,
        middle,
        np.abs(ends - middle),
        fmt="o-",
        capsize=3,
        label=f"median and quartiles, {count} seeds",
    )
    right.axhline(2 * middle[0], color="k", linestyle=":", label="twice that at the smallest α")
    right.set_xscale("log", base=2)
    right.set_xticks(scales, [f"{a:g}" for a in scales])
    right.set_xlabel("output scale α (rich to lazy)")
    right.set_ylabel("t_test / t_train")
    right.set_title("Delay of generalisation", fontsize="medium")
    right.legend(fontsize=8)
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
