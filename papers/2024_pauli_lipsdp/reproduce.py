"""LipSDP for GroupSort: MaxMin networks keep the norm that slope restrictions lose."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from tangency.theory.verdict import Verdict, reproduce
from tangency.verify.lipschitz import Chain, bound_chain
from tangency.verify.lipschitz.reference import maxmin_as_relu, reference_bound

FOLDER = Path(__file__).parent
TARGET = (
    "MaxMin alone: 1 to 1e-3; its form with two ReLUs: sqrt(2) to 1e-3; on random 6-12-4 nets "
    "attack <= brute force <= certified bound <= every other bound, and bound / brute force at "
    "most 1.01 on average"
)


def main(quick: bool) -> Verdict:
    """Bound MaxMin alone, then random nets whose 64 sorting patterns can all be tried."""
    alone = Chain.from_matrices([np.eye(2), np.eye(2)], "maxmin")
    single = bound_chain(alone, attack=False).upper
    forms = {
        name: reference_bound(alone, rewriting=maxmin_as_relu(name)).value
        for name in ("one_relu", "two_relu", "skip_free")
    }
    rows = []
    for seed in range(5_200, 5_203 if quick else 5_224):
        rng = np.random.default_rng(seed)
        matrices = [rng.normal(size=(12, 6)), rng.normal(size=(4, 12))]
        chain = Chain.from_matrices(matrices, "maxmin")
        bound = bound_chain(chain, seed=seed)
        rows.append(
            {
                "attack": bound.lower,
                "brute force": _brute_force(*matrices),
                "LipSDP, GroupSort": bound.upper,
                "LipSDP, two ReLUs": reference_bound(
                    chain, rewriting=maxmin_as_relu("two_relu")
                ).value,
                "product": bound_chain(chain, method="product", attack=False).upper,
                "certified": bound.certified,
            }
        )
    ratios = {
        name: [row[name] / row["brute force"] for row in rows]
        for name in ("attack", "LipSDP, GroupSort", "LipSDP, two ReLUs", "product")
    }
    measured = {
        "MaxMin alone": float(single),
        "MaxMin alone, rewritten with ReLUs": forms,
        "largest ratio of the bound to brute force": max(ratios["LipSDP, GroupSort"]),
        "smallest": min(ratios["LipSDP, GroupSort"]),
        "mean ratios to brute force": {k: float(np.mean(v)) for k, v in ratios.items()},
        "nets": len(rows),
    }
    passed = abs(single - 1) <= 1e-3 and abs(forms["two_relu"] - math.sqrt(2)) <= 1e-3
    passed = passed and np.mean(ratios["LipSDP, GroupSort"]) <= 1.01
    for row in rows:
        exact, best = row["brute force"], row["LipSDP, GroupSort"]
        passed = passed and row["certified"] and row["attack"] <= exact * (1 + 1e-9)
        passed = passed and exact <= best * (1 + 1e-12)
        passed = passed and best <= min(row["LipSDP, two ReLUs"], row["product"]) * (1 + 1e-6)
    claim = (
        "A quadratic constraint that knows that GroupSort permutes its inputs gives MaxMin "
        "networks bounds that no slope restriction of a rewriting with ReLUs reaches."
    )
    figure = None if quick else _draw(ratios)
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _brute_force(first, second) -> float:
    """The largest norm of ``W2 P W1`` over all ways to sort the pairs: a bound from above.

    A pattern that no input has may win, so that this is at least the Lipschitz constant.
    """
    groups = len(first) // 2
    best = 0.0
    for swaps in itertools.product((False, True), repeat=groups):
        order = np.arange(len(first)).reshape(groups, 2)
        order[np.array(swaps)] = order[np.array(swaps)][:, ::-1]
        best = max(best, float(np.linalg.norm(second @ first[order.ravel()], 2)))
    return best


def _draw(ratios) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    ax = figure.add_subplot()
    for i, values in enumerate(ratios.values()):
        across = i + np.linspace(-0.2, 0.2, len(values))
        ax.plot(across, values, "o", markersize=4, color=f"C{i}")
    ax.axhline(1.0, color="k", linewidth=0.8)
    ax.annotate("all sorting patterns", (2.6, 1.0), (2.45, 1.03), fontsize=8)
    ax.set_xticks(range(len(ratios)), list(ratios), fontsize=8)
    ax.set_ylabel("bound / brute force over patterns")
    ax.set_title("Lipschitz bounds of random 6-12-4 MaxMin networks")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
