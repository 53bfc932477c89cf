"""What infinitely wide networks predict, on 200 of scikit-learn's digits.

    python examples/kernel_regression.py

takes a few seconds and needs nothing beyond tangency itself. It fits kernel ridge regression by the
kernels of two architectures, follows the training of the wider one in closed form, and compares the
spread of an ensemble with the errors that it makes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.kernels import Conv, Dense, Flatten, Relu, infinite_kernel
from tangency.theory.prediction import (
    Grams,
    NTKClassifier,
    ensemble_prediction,
    gradient_flow_mse,
    max_learning_rate,
)

HERE = Path(__file__).resolve().parent
TRAIN = 140
W = {"W_std": 2**0.5, "b_std": 0.1}


def main() -> dict[str, float]:
    """Print the figures and return them."""
    with np.load(HERE / "digits_test.npz") as file:
        x, y = file["x"].astype(np.float64), file["y"]
    images = x.reshape(-1, 8, 8, 1)
    kernels = {
        "dense": (infinite_kernel([Dense(**W), Relu(), Dense(**W), Relu(), Dense(**W)]), x),
        "conv": (
            infinite_kernel([Conv(**W), Relu(), Conv(**W), Relu(), Flatten(), Dense()]),
            images,
        ),
    }
    figures: dict[str, float] = {}
    print("accuracy of kernel regression on 60 digits, 140 in training")
    for name, (kernel, inputs) in kernels.items():
        for get in ("nngp", "ntk"):
            model = NTKClassifier(kernel, get=get, ridge=1e-3).fit(inputs[:TRAIN], y[:TRAIN])
            figures[f"{name} {get}"] = model.score(inputs[TRAIN:], y[TRAIN:])
            print(f"  {name:5} {get:4}  {figures[f'{name} {get}']:.3f}")

    targets = np.eye(10)[y[:TRAIN]] - 0.1
    grams = Grams.of(kernels["dense"][0], x[:TRAIN], x[TRAIN:])
    rate = max_learning_rate(grams.ntk)
    print(f"gradient flow of the dense network (largest stable learning rate {rate:.4f})")
    times = np.array([1, 10, 100, 1000, np.inf])
    flow = gradient_flow_mse(grams, targets, t=times, learning_rate=rate)
    for t, train, test in zip(times, flow.train, flow.test, strict=True):
        loss = float(np.mean((train - targets) ** 2))
        accuracy = float(np.mean(test.argmax(1) == y[TRAIN:]))
        print(f"  t = {t:6g}  training loss {loss:.2e}  test accuracy {accuracy:.3f}")
    figures["end of flow"] = accuracy

    spread = ensemble_prediction(grams, targets, ridge=1e-3)
    error = np.sqrt(np.mean((spread.test_mean - (np.eye(10)[y[TRAIN:]] - 0.1)) ** 2, 1))
    figures["rank"] = float(
        np.corrcoef(error.argsort().argsort(), spread.test_deviation.argsort().argsort())[0, 1]
    )
    print(
        f"ensemble of trained networks: deviation {spread.test_deviation.mean():.3f}, error "
        f"{error.mean():.3f}, rank correlation {figures['rank']:.2f}"
    )
    return figures


if __name__ == "__main__":
    main()
