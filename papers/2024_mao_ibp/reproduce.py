"""How loose interval bounds are: tightness at initialisation, and what interval training does."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from tangency.models import from_layers
from tangency.theory.verdict import Verdict, reproduce
from tangency.verify.tightness import expected_tightness, initial_tightness, local_tightness
from tangency.verify.training import initialised, train

FOLDER = Path(__file__).parent
TARGET = (
    "two layers: measured over closed form within 2 % (linear) and 3 % (ReLU) for widths >= 16; "
    "ReLU over linear within 0.05 of its limit sqrt(2) for widths >= 64; log tightness a layer at "
    "width 100 within 0.02 of ln tau(100) = -2.079; tightness of every trained network rises under "
    "interval training, and more than under standard training"
)


def main(quick: bool) -> Verdict:
    """Draw networks, then train one small classifier in two ways."""
    widths, draws = [16, 64, 256, 1024], 60 if quick else 400
    linear = initial_tightness(widths, draws=draws, seed=61)
    relu = initial_tightness(widths, network="relu", draws=2 * draws, seed=62)
    ratio = relu.ratio / linear.expected
    layers = [2, 3, 4, 5] if quick else [2, 3, 4, 5, 6, 7]
    deep = initial_tightness(100, layers=layers, draws=draws, seed=63)
    slope = float(np.polyfit(layers, np.log(deep.ratio), 1)[0])
    law = math.log(expected_tightness(100))
    found = [_trained(65 + 10 * i, epochs=15 if quick else 60) for i in range(1 if quick else 5)]
    trained = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    measured = {
        "tau by width": {str(w): float(t) for w, t in zip(widths, linear.ratio, strict=True)},
        "closed form": {str(w): float(t) for w, t in zip(widths, linear.expected, strict=True)},
        "ReLU over linear by width": {str(w): float(r) for w, r in zip(widths, ratio, strict=True)},
        "ReLU over linear, closed form": {
            str(w): float(r / t)
            for w, r, t in zip(widths, relu.expected, linear.expected, strict=True)
        },
        "log tau a layer, width 100": slope,
        "ln tau(100)": law,
        "local tightness": trained,
        "trained networks": len(found),
    }
    passed = (
        np.abs(linear.ratio / linear.expected - 1).max() <= 0.02
        and np.abs(relu.ratio / relu.expected - 1).max() <= 0.03
        and np.abs(ratio[1:] - math.sqrt(2)).max() <= 0.05
        and abs(slope - law) <= 0.02
        and all(one["interval training"] > one["initialisation"] for one in found)
        and all(one["interval training"] > one["standard training"] for one in found)
    )
    claim = (
        "Interval bounds of random networks are looser by sqrt(pi / 2w) with every layer of width "
        "w, and training on interval bounds makes networks for which they are tight."
    )
    figure = None if quick else _draw(linear, relu, deep, found)
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _trained(seed: int, *, epochs: int) -> dict[str, float]:
    """Local tightness of the margins of a small classifier, before and after training."""
    rng = np.random.default_rng(64)
    centres = rng.uniform(0.2, 0.8, size=(4, 12))
    labels = rng.integers(0, 4, size=600)
    x = (centres[labels] + 0.08 * rng.normal(size=(600, 12))).astype(np.float32)
    sizes = [12, 48, 48, 4]
    zeros = [np.zeros((m, n)) for n, m in itertools.pairwise(sizes)]
    start = initialised(from_layers(zeros, "relu"), seed=seed)
    found = {"initialisation": local_tightness(start, x[:200], labels=labels[:200]).mean}
    for name, loss in (("standard training", "standard"), ("interval training", "ibp")):
        fitted = train(start, x, labels, eps=0.05, loss=loss, epochs=epochs, seed=seed + 1).network
        found[name] = local_tightness(fitted, x[:200], labels=labels[:200]).mean
    return {name: float(value) for name, value in found.items()}


def _draw(linear, relu, deep, trained) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for found, name, colour in ((linear, "linear", "C0"), (relu, "ReLU", "C1")):
        left.errorbar(
            found.widths,
            found.ratio,
            2 * found.error,
            fmt="o",
            color=colour,
            label=f"{name}, drawn (2 s.e.)",
        )
        left.loglog(found.widths, found.expected, "-", color=colour, label=f"{name}, closed form")
    left.set_xlabel("hidden width of two layers")
    left.set_ylabel("tightness τ: optimal / interval half-width")
    left.set_title("At random weights, by width", fontsize="medium")
    left.legend(fontsize=8)
    middle.errorbar(deep.layers, deep.ratio, 2 * deep.error, fmt="o", label="drawn (2 s.e.)")
    middle.semilogy(deep.layers, deep.expected, "-", color="C0", label="closed form, τ(100)^(L−1)")
    middle.set_xlabel("layers of width 100, linear")
    middle.set_ylabel("tightness τ")
    middle.set_title("By depth", fontsize="medium")
    middle.legend(fontsize=8)
    for place, (name, colour) in enumerate(zip(trained[0], ("0.4", "C0", "C2"), strict=True)):
        values = [one[name] for one in trained]
        right.plot([place] * len(values), values, "o", color=colour, markersize=4, alpha=0.5)
        bar = 2 * np.std(values, ddof=1) / math.sqrt(len(values))
        right.errorbar(place + 0.15, np.mean(values), bar, fmt="s", color=colour, capsize=3)
    names = ["random\nweights", "standard\ntraining", "interval\ntraining"]
    right.set_xticks(range(3), names, fontsize=8)
    right.set_xlim(-0.5, 2.5)
    right.set_ylim(0, 1)
    right.set_ylabel("mean local tightness of the margins")
    title = f"{len(trained)} networks (squares: mean, 2 s.e.)"
    right.set_title(title, fontsize="medium")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
