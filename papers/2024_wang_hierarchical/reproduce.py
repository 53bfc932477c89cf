"""Hierarchical polynomials: d^k samples for a three-layer network, and what kernels do there."""

from __future__ import annotations

import json
import sys
from functools import partial
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import write
from tangency.theory.hierarchical import (
    HeldOutKernelRidge,
    SampleComplexity,
    ThreeLayerRegressor,
    TwoLayerRegressor,
    feature_correlation,
    hierarchical_target,
    inner_layer,
    inner_product_kernel,
    sample_complexity,
    train_feature,
)
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
# The lines were drawn before these seeds were run; README.md says what changed after that.
FIRST_SEED = 2000
# The parts that were measured later (k = 3 at larger d, growth at equal error) have fresh seeds.
LATER_SEED = 3000
# p of four products at every d: what d alone does, as L = d // 3 changes the tails of h too.
FIXED, FIXED_SEED = "k = 3, L = 4", 4000
EXPONENT, EXPONENT_CUBIC, ASYMPTOTE, RATIO = 0.25, 0.5, 0.015, 2.0
LEVEL = 0.7
RIDGES = (1e-2, 1e-1, 0.3, 1.0, 3.0, 10.0)
# The asymptote is one of endless samples and no ridge: a floor under the ridge biases the feature.
SMALL_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MANY = {12: 256, 16: 512}
KERNEL_RIDGES = (1e-3, 1e-2, 1e-1)
# Test error over the target's variance at which samples are counted for both learners: half of
# what a quadratic leaves of the target, and above the learner's own limit at these d.
ERROR = 0.3
TARGET = (
    "k = 2, d = 12 to 44, 9 seeds: exponent of n*(d) 2.0 +- 0.25; correlation at n >= 256 d^2 "
    "within 1.5 % of 1/sqrt(1 + 2/L); NMSE of the kernel at least twice the learner's at d = 24, "
    "n = 8 d^2, and the ratio grows with d; k = 3, d = 12 to 21, and with p of four products at "
    "d = 12 to 18: exponents 3.0 +- 0.5; samples for NMSE 0.3: the kernel's exponent above the "
    "learner's, their 95 % intervals apart"
)
TARGET_QUICK = (
    "k = 2, d = 12 to 24, 9 seeds: exponent of n*(d) 2.0 +- 0.5; correlation at n >= 256 d^2 "
    "within 1.5 % of 1/sqrt(1 + 2/L); the ratio of the kernel's NMSE to the learner's grows with d"
)


def correlation(
    dimension: int,
    n: int,
    seed: int,
    degree: int,
    ridges: tuple[float, ...] = RIDGES,
    terms: int | None = None,
) -> float:
    """Correlation of the learnt feature with p, over its asymptote at this dimension."""
    rng = np.random.default_rng([seed, dimension, degree])
    target = hierarchical_target(dimension, degree=degree, terms=terms, rng=rng)
    inner = inner_layer(dimension, rng=rng, degree=degree)
    # One stream of samples a seed: more samples are those of before and further ones.
    stage = train_feature(inner, target.sample(n, rng), ridges=ridges)
    found = feature_correlation(inner, stage.coefficients, target)
    return found / target.asymptotic_correlation()


def errors(dimension: int, seed: int, *, two_layer: bool) -> dict[str, float]:
    """Test error over the target's variance of each learner with n = 8 d^2 samples."""
    rng = np.random.default_rng([seed, dimension, 8])
    target = hierarchical_target(dimension, rng=rng)
    x, y = target.sample(8 * dimension**2, rng)
    test, answer = target.sample(10_000, rng)
    learners: dict[str, Any] = {
        "three layers": ThreeLayerRegressor(random_state=seed),
        "kernel": HeldOutKernelRidge(ridges=KERNEL_RIDGES, folds=3, random_state=seed),
    }
    if two_layer:
        learners["two layers"] = TwoLayerRegressor(steps=300, width=128, random_state=seed)
    return {
        name: float(np.mean((learner.fit(x, y).predict(test) - answer) ** 2) / np.var(answer))
        for name, learner in learners.items()
    }


def error_quality(name: str, dimension: int, n: int, seed: int) -> float:
    """Minus a learner's test error over the target's variance with n samples.

    The kernel is the kindest of its class: the inner product's powers two and four, the degrees
    of the target, with nothing wasted on others.
    """
    rng = np.random.default_rng([seed, dimension, 4])
    target = hierarchical_target(dimension, rng=rng)
    test, answer = target.sample(10_000, rng)
    x, y = target.sample(n, rng)
    learner: Any = ThreeLayerRegressor(random_state=seed)
    if name == "kernel":
        kernel = inner_product_kernel([0.0, 0.0, 1.0, 0.0, 1.0])
        learner = HeldOutKernelRidge(kernel=kernel, ridges=KERNEL_RIDGES, folds=3)
    learner.fit(x, y)
    return -float(np.mean((learner.predict(test) - answer) ** 2) / np.var(answer))


def growth(
    degree: int, sizes: list[int], seeds: int, first: int, quick: bool, terms: int | None = None
) -> dict[str, Any]:
    """The samples for the feature at each dimension, of d // k products or of so many."""

    def quality(dimension: int, n: int, seed: int) -> float:
        return correlation(dimension, n, seed, degree, terms=terms)

    def start(dimension: int) -> int:
        return round(3.2 * comb(dimension + degree - 1, degree))

    label = f"k = {degree}" if terms is None else f"k = {degree}, L = {terms}"
    return _searched(label, quality, LEVEL, sizes, start, seeds, first, quick)


def error_growth(name: str, sizes: list[int], seeds: int, first: int) -> dict[str, Any]:
    """The samples for a test error of 30 % of the target's variance at each dimension."""

    def quality(dimension: int, n: int, seed: int) -> float:
        return error_quality(name, dimension, n, seed)

    def start(dimension: int) -> int:
        return round(0.04 * dimension**4) if name == "kernel" else 8 * dimension**2

    label = f"samples of the {name}"
    return _searched(label, quality, -ERROR, sizes, start, seeds, first, False)


def _searched(
    label: str,
    quality: Any,
    level: float,
    sizes: list[int],
    start: Any,
    seeds: int,
    first: int,
    quick: bool,
) -> dict[str, Any]:
    def progress(dimension: int, seed: int, n: float) -> None:
        _say(quick, f"{label}, d = {dimension}, seed {seed}: n* = {n:.0f}")

    found = sample_complexity(
        quality,
        sizes,
        level=level,
        start=start,
        seeds=seeds,
        first_seed=first,
        factor=1.4,
        ratio=1.15,
        progress=progress,
    )
    return _rows(found)


def main(quick: bool) -> Verdict:
    """Measure the exponents, the asymptote and the errors beside the kernel's."""
    results = {
        name: _part(quick, name, setting, measure)
        for name, (setting, measure) in _parts(quick).items()
    }
    square, reached, table = results["k = 2"], results["asymptote"], _table(results)
    ratios = {
        int(d): float(np.median([row["kernel"] / row["three layers"] for row in rows]))
        for d, rows in table.items()
    }
    least, most = min(ratios), max(ratios)
    measured: dict[str, Any] = _growth_lines(square, 2)
    for d, value in reached.items():
        measured[f"correlation over its asymptote, d = {d}"] = value
    for d, ratio in ratios.items():
        measured[f"NMSE of the kernel over the learner's, d = {d}"] = ratio
        for name in table[str(d)][0]:
            middle = float(np.median([row[name] for row in table[str(d)]]))
            measured[f"NMSE, {name}, d = {d}"] = middle
    passed = (
        abs(square["exponent"][0] - 2.0) <= (0.5 if quick else EXPONENT)
        and all(abs(v - 1.0) <= ASYMPTOTE for v in reached.values())
        and ratios[most] > ratios[least]
    )
    figure = None
    if not quick:
        cubics = [results[name] for name in ("k = 3", FIXED)]
        measured |= _growth_lines(cubics[0], 3) | _growth_lines(cubics[1], 3, FIXED)
        ends = {}
        for name in ("learner", "kernel"):
            rows = results[f"samples of the {name}"]
            value, *ends[name] = rows["exponent"]
            measured[f"NMSE {ERROR}: exponent of the {name}"] = value
            measured[f"NMSE {ERROR}: 95 % interval of the {name}"] = np.round(
                ends[name], 3
            ).tolist()
            pairs = zip(rows["sizes"], rows["medians"], strict=True)
            measured[f"NMSE {ERROR}: samples of the {name}"] = {f"d = {d}": n for d, n in pairs}
        passed = (
            passed
            and all(abs(rows["exponent"][0] - 3.0) <= EXPONENT_CUBIC for rows in cubics)
            and ratios[most] >= RATIO
            and ends["kernel"][0] > ends["learner"][1]
        )
        figure = draw(results)
    claim = (
        "A three-layer network trained layer by layer learns g(p(x)), p of degree k, from about "
        "d^k Gaussian samples; kernels need about d^(kq)."
    )
    target = TARGET_QUICK if quick else TARGET
    return Verdict(FOLDER.name, claim, measured, target, bool(passed), figure)


def _parts(quick: bool) -> dict[str, tuple[Any, Any]]:
    """Each part's setting, and the function that measures it there."""

    def cells(setting: list[int]) -> list[dict[str, float]]:
        d, seeds = setting
        rows = []
        for s in range(seeds):
            row = errors(d, FIRST_SEED + s, two_layer=not quick and d <= 16)
            rows.append({name: round(value, 5) for name, value in row.items()})
            _say(quick, f"n = 8 d^2, d = {d}: {rows[-1]}")
        return rows

    def asymptote(dimensions: list[int]) -> dict[str, float]:
        reached = {}
        for d in dimensions:
            n = MANY[d] * d * d
            seen = [correlation(d, n, FIRST_SEED + s, 2, SMALL_RIDGES) for s in range(3)]
            reached[str(d)] = round(float(np.median(seen)), 5)
            _say(quick, f"correlation over its asymptote, d = {d}: {reached[str(d)]}")
        return reached

    squares = [12, 16, 24] if quick else [12, 16, 20, 24, 32, 44]
    parts: dict[str, tuple[Any, Any]] = {
        "k = 2": (squares, lambda sizes: growth(2, sizes, 9, FIRST_SEED, quick)),
        "asymptote": ([12] if quick else [12, 16], asymptote),
    }
    for d, seeds in ((8, 3), (16, 3)) if quick else ((8, 9), (16, 9), (24, 5)):
        parts[f"errors, d = {d}"] = ([d, seeds], cells)
    if not quick:
        # Multiples of 3, so that p uses every input.
        later = {"k = 3": [12, 15, 18, 21], FIXED: [12, 15, 18]}
        later |= {"samples of the learner": [16, 20, 24, 32]}
        later |= {"samples of the kernel": [8, 12, 16, 20]}

        def measure(name: str, setting: list[Any]) -> dict[str, Any]:
            sizes, seeds, first = setting
            if name in ("k = 3", FIXED):
                return growth(3, sizes, seeds, first, quick, 4 if name == FIXED else None)
            return error_growth(name.rpartition(" ")[2], sizes, seeds, first)

        for name, sizes in later.items():
            first = FIXED_SEED if name == FIXED else LATER_SEED
            parts[name] = ([sizes, 9, first], partial(measure, name))
    return parts


def _table(results: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """The errors by dimension."""
    start = "errors, d = "
    return {name[len(start) :]: rows for name, rows in results.items() if name.startswith(start)}


def _growth_lines(rows: dict[str, Any], k: int, name: str = "") -> dict[str, Any]:
    name = name or f"k = {k}"
    exponent, low, high = rows["exponent"]
    relative = np.array(rows["medians"]) / np.array(rows["sizes"], float) ** k
    return {
        f"{name}: exponent": exponent,
        f"{name}: 95 % interval": [round(low, 3), round(high, 3)],
        f"{name}: n*/d^{k}": [round(float(v), 3) for v in relative],
    }


def _rows(result: SampleComplexity) -> dict[str, Any]:
    return {
        "sizes": result.sizes.tolist(),
        "samples": np.round(result.samples, 1).tolist(),
        "medians": np.round(result.medians, 1).tolist(),
        "lower": np.round(result.lower, 1).tolist(),
        "upper": np.round(result.upper, 1).tolist(),
        "exponent": [result.exponent.value, result.exponent.lower, result.exponent.upper],
    }


def _say(quick: bool, line: str) -> None:
    if not quick:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _part(quick: bool, name: str, setting: Any, measure: Any) -> Any:
    """One part's numbers; those of a full run are kept, so that a killed run goes on.

    A kept part is taken only for the setting that it was measured with: delete ``results.json``
    to measure all afresh.
    """
    path = FOLDER / "results.json"
    kept = json.loads(path.read_text()) if path.exists() and not quick else {}
    mark = {"setting": setting, "seed": FIRST_SEED, "level": LEVEL, "ridges": list(RIDGES)}
    if name in kept and kept[name]["mark"] == mark:
        return kept[name]["found"]
    found = measure(setting)
    if not quick:
        kept[name] = {"mark": mark, "found": found}
        write(path, json.dumps(kept, indent=1) + "\n")
    return found


def draw(results: dict[str, Any]) -> Path:
    """Samples against dimension, and errors against dimension."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.2, 4.2), layout="constrained")
    left, right, last = figure.subplots(1, 3)
    for name, k, colour in (("k = 2", 2, "C0"), ("k = 3", 3, "C1"), (FIXED, 3, "C4")):
        rows = results.get(name)
        if rows is None:
            continue
        d, n = np.array(rows["sizes"]), np.array(rows["medians"])
        bars = np.abs(np.array([rows["lower"], rows["upper"]]) - n)
        slope, low, high = rows["exponent"]
        label = f"{name}: slope {slope:.2f} [{low:.2f}, {high:.2f}]"
        left.errorbar(d, n, bars, fmt="o", color=colour, capsize=3, label=label)
        law = float(np.exp(np.mean(np.log(n) - k * np.log(d))))
        left.plot(d, law * d.astype(float) ** k, "-", color=colour, lw=1)
    left.set_xscale("log")
    left.set_yscale("log")
    _dimensions(left, (12, 16, 24, 32, 44))
    left.set_ylabel("samples n* for 70 % of the asymptotic correlation")
    left.set_ylim(bottom=25)
    left.set_title("Learning p (9 seeds, 95 %; lines: theory, d^k)", fontsize="medium")
    left.legend(fontsize="small", loc="lower right")
    table = _table(results)
    names = ("three layers", "kernel", "two layers")
    titles = ("three layers, layer-wise", "NTK ridge regression", "two layers, all weights trained")
    for name, title, colour in zip(names, titles, ("C0", "C3", "C2"), strict=True):
        d = [int(s) for s in table if name in table[s][0]]
        values = [[row[name] for row in table[str(s)]] for s in d]
        if not d:
            continue
        middle = np.array([np.median(v) for v in values])
        spread = np.abs(np.array([np.percentile(v, (25, 75)) for v in values]).T - middle)
        right.errorbar(d, middle, spread, fmt="o-", color=colour, capsize=3, label=title)
    right.set_ylim(0, 1)
    right.set_xlabel("dimension d of the inputs")
    right.set_ylabel("test error / variance of the target")
    right.set_title("k = q = 2, n = 8 d² (median and quartiles)", fontsize="medium")
    right.legend(fontsize="small")
    for name, power, colour in (("learner", 2, "C0"), ("kernel", 4, "C3")):
        rows = results.get(f"samples of the {name}")
        if rows is None:
            continue
        d, n = np.array(rows["sizes"], float), np.array(rows["medians"])
        bars = np.abs(np.array([rows["lower"], rows["upper"]]) - n)
        slope, low, high = rows["exponent"]
        title = {"learner": "three layers", "kernel": "kernel of degrees 2 and 4"}[name]
        label = f"{title}: slope {slope:.2f} [{low:.2f}, {high:.2f}]"
        last.errorbar(d, n, bars, fmt="o", color=colour, capsize=3, label=label)
        law = float(np.exp(np.mean(np.log(n) - power * np.log(d))))
        last.plot(d, law * d**power, "-", color=colour, lw=1)
    last.set_xscale("log")
    last.set_yscale("log")
    _dimensions(last, (8, 12, 16, 20, 24, 32))
    last.set_ylabel(f"samples for test error / variance {ERROR}")
    last.set_ylim(bottom=60)
    last.set_title("Equal error (9 seeds, 95 %; lines: d^2 and d^4)", fontsize="medium")
    last.legend(fontsize="small", loc="lower right")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


def _dimensions(axes: Any, ticks: tuple[int, ...]) -> None:
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("dimension d of the inputs")


if __name__ == "__main__":
    reproduce(main, FOLDER)
