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
    "kernel in training, and distance of trained from predicted outputs, smaller at the largest "
    "width than at the smallest by at least a factor of 2"
)


def main(quick: bool) -> Verdict:
    """Compare kernels of drawn networks with the limit; then train and compare with the flow."""
    widths = [32, 128, 512] if quick else [64, 256, 1024]
    draws = 10 if quick else 12
    rng = np.random.default_rng(1806)
    x = rng.normal(size=(SAMPLES + TESTS, DIMENSION))
    x *= math.sqrt(DIMENSION) / np.linalg.norm(x, axis=1, keepdims=True)
    y = np.sin(2 * x[:SAMPLES, 0]) + 0.5 * x[:SAMPLES, 1]
    kernel = infinite_kernel([Dense(1, W_std=math.sqrt(2)), Relu(), Dense(1)])
    exact = np.asarray(kernel(x[:SAMPLES], get="ntk"))
    errors, moved, apart = [], [], []
    for width in widths:
        found = []
        for draw in range(draws):
            model = _network(width, seed=10_000 * draw + width)
            theta = np.asarray(empirical_ntk(model, x[:SAMPLES]).ntk)
            found.append(np.linalg.norm(theta - exact) / np.linalg.norm(exact))
        errors.append(found)
        trained = [_trained(width, seed, x, y) for seed in range(2 if quick else 4)]
        moved.append([t[0] for t in trained])
        apart.append([t[1] for t in trained])
    slopes = {
        name: float(np.polyfit(np.log(widths), np.log(np.mean(rows, axis=1)), 1)[0])
        for name, rows in (("kernel", errors), ("movement", moved), ("prediction", apart))
    }
    measured = {
        "widths": widths,
        "relative distance to the infinite kernel": [float(np.mean(e)) for e in errors],
        "slope of that": slopes["kernel"],
        "relative change of the kernel in training": [float(np.mean(m)) for m in moved],
        "slope of the change": slopes["movement"],
        "distance of trained from predicted outputs": [float(np.mean(a)) for a in apart],
        "slope of the distance": slopes["prediction"],
        "least eigenvalue of the infinite kernel": float(np.linalg.eigvalsh(exact)[0]),
    }
    passed = (
        abs(slopes["kernel"] + 0.5) <= 0.07
        and np.mean(moved[-1]) <= np.mean(moved[0]) / 2
        and np.mean(apart[-1]) <= np.mean(apart[0]) / 2
        and measured["least eigenvalue of the infinite kernel"] > 0
    )
    claim = (
        "With growing width the tangent kernel of a random network tends to a fixed one, stays "
        "there in training, and gradient descent becomes kernel regression."
    )
    figure = None if quick else _draw(widths, errors, moved, apart)
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
    """Gradient descent on sum (f - y)^2 / 2: change of the kernel, and distance to the flow's."""
    import torch

    model = _network(width, seed=77_000 + seed)
    train, target = torch.from_numpy(x[:SAMPLES]), torch.from_numpy(y)
    whole = np.asarray(empirical_ntk(model, x).ntk)
    before = whole[:SAMPLES, :SAMPLES]
    with torch.no_grad():
        start = model(torch.from_numpy(x)).numpy()[:, 0]
    for _ in range(steps):
        loss = 0.5 * ((model(train)[:, 0] - target) ** 2).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight -= rate * gradient
    after = np.asarray(empirical_ntk(model, x[:SAMPLES]).ntk)
    with torch.no_grad():
        end = model(torch.from_numpy(x)).numpy()[SAMPLES:, 0]
    grams = Grams(ntk=(before, whole[SAMPLES:, :SAMPLES]))
    flow = gradient_flow_mse(
        grams, y, t=steps, learning_rate=rate, f0=start[:SAMPLES], f0_test=start[SAMPLES:], discrete=True
    )
    return np.linalg.norm(after - before) / np.linalg.norm(before), _rms(end - flow.test)


def _rms(values) -> float:
    return float(np.sqrt(np.mean(np.asarray(values) ** 2)))


def _draw(widths, errors, moved, apart) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    ax = figure.add_subplot()
    for rows, name in (
        (errors, "empirical kernel to its limit"),
        (moved, "change of the kernel in training"),
        (apart, "trained network to the linear flow (RMSE)"),
    ):
        spread = np.std(rows, axis=1) / math.sqrt(len(rows[0]))
        ax.errorbar(widths, np.mean(rows, axis=1), 2 * spread, fmt="o-", capsize=3, label=name)
    law = np.mean(errors[0]) * (np.array(widths) / widths[0]) ** -0.5
    ax.plot(widths, law, "k--", label="width^(−1/2)")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("width of the hidden layer")
    ax.set_ylabel("relative distance (2 s.e.)")
    ax.legend(fontsize=8)
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
