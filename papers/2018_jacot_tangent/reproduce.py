"""The neural tangent kernel: its limit with width, and training that it describes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tangency.theory.kernels import infinite_kernel
from tangency.theory.kernels.layers import Dense
from tangency.theory.kernels.layers_activations import Relu
from tangency.theory.ntk import empirical_ntk
from tangency.theory.prediction import Grams, gradient_flow_mse
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
SAMPLES, TESTS, DIMENSION = 16, 8, 6
TARGET = (
    "log-log slope of |empirical - infinite| / |infinite| over width -0.50 +- 0.07; change of the "
    "kernel in training, distance of trained from predicted outputs, and of the residual's "
    "principal components from (1 - rate x eigenvalue)^steps, smaller at the largest width than at "
    "the smallest by at least 0.7 of the theory's factor, the root of the ratio of widths"
)


def main(quick: bool) -> Verdict:
    """Compare kernels of drawn networks with the limit; then train and compare with the flow."""
    widths = [64, 512, 4096] if quick else [64, 256, 1024, 4096, 16384]
    draws, seeds = (10, 3) if quick else (40, 16)
    rng = np.random.default_rng(1806)
    x = rng.normal(size=(SAMPLES + TESTS, DIMENSION))
    x *= math.sqrt(DIMENSION) / np.linalg.norm(x, axis=1, keepdims=True)
    y = np.sin(2 * x[:SAMPLES, 0]) + 0.5 * x[:SAMPLES, 1]
    kernel = infinite_kernel([Dense(1, W_std=math.sqrt(2)), Relu(), Dense(1)])
    exact = np.asarray(kernel(x[:SAMPLES], get="ntk"))
    errors, moved, apart, off = [], [], [], []
    for width in widths:
        found = []
        for draw in range(draws):
            model = _network(width, seed=10_000 * draw + width)
            theta = np.asarray(empirical_ntk(model, x[:SAMPLES]).ntk)
            found.append(np.linalg.norm(theta - exact) / np.linalg.norm(exact))
        errors.append(found)
        trained = [_trained(width, seed, x, y) for seed in range(seeds)]
        moved.append([t[0] for t in trained])
        apart.append([t[1] for t in trained])
        off.append([_rms(t[2] - t[3]) for t in trained])
    slopes = {
        name: float(np.polyfit(np.log(widths), np.log(np.mean(rows, axis=1)), 1)[0])
        for name, rows in (
            ("kernel", errors),
            ("movement", moved),
            ("prediction", apart),
            ("components", off),
        )
    }
    least = 0.7 * math.sqrt(widths[-1] / widths[0])
    measured = {
        "widths": widths,
        "relative distance to the infinite kernel": [float(np.mean(e)) for e in errors],
        "slope of that": slopes["kernel"],
        "standard error of the slope": _slope_error(widths, errors),
        "relative change of the kernel in training": [float(np.mean(m)) for m in moved],
        "slope of the change": slopes["movement"],
        "distance of trained from predicted outputs": [float(np.mean(a)) for a in apart],
        "slope of the distance": slopes["prediction"],
        "residual along principal components, distance to the law": [
            float(np.mean(o)) for o in off
        ],
        "slope of that distance": slopes["components"],
        "draws, trained networks": [draws, seeds],
        "least eigenvalue of the infinite kernel": float(np.linalg.eigvalsh(exact)[0]),
    }
    passed = (
        abs(slopes["kernel"] + 0.5) <= 0.07
        and min(np.mean(rows[0]) / np.mean(rows[-1]) for rows in (moved, apart, off)) >= least
        and measured["least eigenvalue of the infinite kernel"] > 0
    )
    claim = (
        "With growing width the tangent kernel of a random network tends to a fixed one, stays "
        "there in training, and gradient descent becomes kernel regression."
    )
    figure = None if quick else _draw(widths, errors, moved, apart, trained[0])
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _network(width: int, *, seed: int):
    """Two layers, weights standard normal and scaled in the forward pass."""
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int, gain: float) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(
                torch.randn(outputs, inputs, dtype=torch.float64, generator=generator)
            )
            self.factor = math.sqrt(gain / inputs)

        def forward(self, values):
            return self.factor * torch.nn.functional.linear(values, self.weight)

    generator = torch.Generator().manual_seed(seed)
    return torch.nn.Sequential(
        Scaled(DIMENSION, width, 2.0), torch.nn.ReLU(), Scaled(width, 1, 1.0)
    )


def _trained(width: int, seed: int, x, y, *, steps: int = 300, rate: float = 0.02):
    """Gradient descent on sum (f - y)^2 / 2, beside the kernel's prediction of it.

    Returns the change of the kernel, the distance of test outputs from the predicted ones, and the
    residual's components along the kernel's eigenvectors, (steps, samples), measured and predicted:
    each of them relative to the residual at the start.
    """
    import torch

    model = _network(width, seed=77_000 + seed)
    train, target = torch.from_numpy(x[:SAMPLES]), torch.from_numpy(y)
    whole = np.asarray(empirical_ntk(model, x).ntk)
    before = whole[:SAMPLES, :SAMPLES]
    with torch.no_grad():
        start = model(torch.from_numpy(x)).numpy()[:, 0]
    path = []
    for _ in range(steps):
        residual = model(train)[:, 0] - target
        path.append(residual.detach().numpy())
        loss = 0.5 * (residual**2).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight -= rate * gradient
    after = np.asarray(empirical_ntk(model, x[:SAMPLES]).ntk)
    with torch.no_grad():
        end = model(torch.from_numpy(x)).numpy()[SAMPLES:, 0]
    grams = Grams(ntk=(before, whole[SAMPLES:, :SAMPLES]))
    flow = gradient_flow_mse(
        grams,
        y,
        t=steps,
        learning_rate=rate,
        f0=start[:SAMPLES],
        f0_test=start[SAMPLES:],
        discrete=True,
    )
    values, vectors = np.linalg.eigh(before)
    seen = np.array(path) @ vectors[:, ::-1] / np.linalg.norm(path[0])
    law = seen[0] * (1 - rate * values[::-1]) ** np.arange(steps)[:, None]
    change = np.linalg.norm(after - before) / np.linalg.norm(before)
    return change, _rms(end - flow.test), seen, law


def _rms(values) -> float:
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def _slope_error(widths, rows) -> float:
    """Standard error of the slope: draws at different widths are independent."""
    logs = np.log(widths) - np.mean(np.log(widths))
    errors = [np.std(r, ddof=1) / np.mean(r) / math.sqrt(len(r)) for r in rows]
    return float(np.linalg.norm(logs * errors) / np.sum(logs**2))


def _draw(widths, errors, moved, apart, path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    ax, right = figure.subplots(1, 2)
    for rows, name in (
        (errors, "empirical kernel to its limit (relative)"),
        (moved, "change of the kernel in training (relative)"),
        (apart, "trained network to the linear flow (RMSE)"),
    ):
        spread = np.std(rows, axis=1) / math.sqrt(len(rows[0]))
        ax.errorbar(widths, np.mean(rows, axis=1), 2 * spread, fmt="o-", capsize=3, label=name)
    middle = np.exp(np.mean(np.log(np.mean(errors, axis=1))))
    law = middle * (np.array(widths) / np.exp(np.mean(np.log(widths)))) ** -0.5
    ax.plot(widths, law, "k--", label="theory: width^(−1/2)")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("width of the hidden layer")
    ax.set_ylabel("distance (mean, 2 s.e.)")
    ax.set_title("Kernel and predictions with width", fontsize="medium")
    ax.legend(fontsize=8)
    _, _, seen, theory = path
    steps = np.arange(len(seen))
    shown = np.unique(np.geomspace(1, len(seen), 16).astype(int)) - 1
    # The largest components at the start: the others are lost in the picture.
    for i, k in enumerate(sorted(np.argsort(-np.abs(seen[0]))[:4])):
        right.plot(steps, np.abs(theory[:, k]), "-", color=f"C{i}", label=f"component {k + 1}")
        right.plot(steps[shown], np.abs(seen[shown, k]), "o", color=f"C{i}", markersize=4)
    right.set_yscale("log")
    right.set_ylim(1e-4, 1.5)
    right.set_xlabel("steps of gradient descent")
    right.set_ylabel("residual along it, relative to the start")
    title = f"Principal components, width {widths[-1]} (lines: theory)"
    right.set_title(title, fontsize="medium")
    right.legend(fontsize=8, loc="lower right")
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
