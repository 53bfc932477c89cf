"""Train a digits classifier three ways and show what interval training buys, and why.

    python examples/train_robust.py

needs scikit-learn and takes about a minute. One network is trained on the samples alone, one on
interval bounds over l-infinity balls, one on CROWN-IBP bounds that give way to intervals. For each
it prints, on 200 samples that none saw: accuracy, accuracy under attack, accuracy certified in
rigorous arithmetic by intervals and by CROWN, and the local tightness of the intervals, which
robust training raises (Mao et al., arXiv 2306.10426). Pictures go where ``--out`` says.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tangency.models import Network, from_layers
from tangency.verify.bounds import certify_robust
from tangency.verify.tightness import local_tightness
from tangency.verify.training import initialised, train

TEST = 200


def data() -> tuple[np.ndarray, np.ndarray]:
    """Digits as 64 numbers in [0, 1], in the order of ``train.py``: the first 200 are for tests."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return (digits.data[order] / 16).astype(np.float32), digits.target[order]


def network(sizes: tuple[int, ...]) -> Network:
    """A ReLU network of these sizes; its weights are drawn before training."""
    layers = [(np.zeros((m, n), np.float32), np.zeros(m, np.float32)) for n, m in pairwise(sizes)]
    return from_layers(layers, "relu")


def main() -> None:
    """Train, certify, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eps", type=float, default=0.05, help="radius of the balls")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, help="folder for the pictures of the three trainings")
    given = parser.parse_args()
    x, y = data()
    x_test, y_test, clip = x[:TEST], y[:TEST], (0.0, 1.0)
    start = network((64, 64, 64, 10))
    print(f"eps {given.eps:g}, {given.epochs} epochs, {start!r}")
    print("training   clean  attacked  by intervals  by CROWN  tightness")
    for loss, how in (("standard", "kaiming"), ("ibp", "ibp"), ("crown-ibp", "ibp")):
        done = train(
            initialised(start, how=how),
            x[TEST:],
            y[TEST:],
            eps=given.eps,
            loss=loss,
            epochs=given.epochs,
            clip=clip,
        )
        intervals, crown = (
            certify_robust(done.network, x_test, y_test, given.eps, method=m, clip=clip)
            for m in ("ibp", "crown")
        )
        tau = local_tightness(done.network, x_test, labels=y_test).mean
        print(
            f"{loss:10s} {intervals.clean_accuracy:6.3f} {intervals.attacked_accuracy:9.3f}"
            f" {intervals.certified_accuracy:13.3f} {crown.certified_accuracy:9.3f} {tau:10.3f}"
        )
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            done.plot().savefig(given.out / f"{loss}.png", dpi=120)


if __name__ == "__main__":
    main()
