"""A network of infinite width learns a permutation of bits from its k basis vectors alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tangency.theory.kernels import infinite_kernel
from tangency.theory.kernels.layers import Dense
from tangency.theory.kernels.layers_activations import Relu
from tangency.theory.prediction import kernel_ridge
from tangency.theory.verdict import Verdict, reproduce

FOLDER = Path(__file__).parent
#: Means beyond this are counted as positive: at the training inputs the others are 0 exactly.
TOLERANCE = 1e-9
TARGET = (
    "all 2^k - 1 nonzero inputs permuted without an error, k = 16; the normalised kernel of two "
    "basis vectors is 1/(2 pi) to 1e-12"
)


def main(quick: bool) -> Verdict:
    """Predict all inputs with the tangent kernel, by the sign of the mean."""
    bits = 12 if quick else 16
    kernel = infinite_kernel([Dense(1), Relu(), Dense(1)])
    rng = np.random.default_rng(71)
    permutation = rng.permutation(bits)
    basis = np.eye(bits)
    gram = np.asarray(kernel(basis, get="ntk"))
    between = float(gram[0, 1] / gram[0, 0])
    fit = kernel_ridge(gram, basis[permutation])  # input bit i becomes output bit permutation[i]
    numbers = np.arange(1, 2**bits)
    wrong, inside, outside = 0, [], []
    for block in np.array_split(numbers, max(1, len(numbers) // 4096)):
        x = (block[:, None] >> np.arange(bits) & 1).astype(float)
        mean = fit.predict(kernel(x / np.linalg.norm(x, axis=1, keepdims=True), basis, get="ntk"))
        answer = np.zeros_like(x)
        answer[:, permutation] = x
        wrong += int(((mean > TOLERANCE) != (answer > 0)).any(axis=1).sum())
        ones = x.sum(1).astype(int)
        for m in np.unique(ones):
            rows = ones == m
            inside.append((m, float(mean[rows][answer[rows] > 0].min())))
            if m < bits:
                outside.append((m, float(mean[rows][answer[rows] == 0].max())))
    low = {m: min(v for n, v in inside if n == m) for m in range(1, bits + 1)}
    high = {m: max(v for n, v in outside if n == m) for m in range(1, bits)}
    measured = {
        "bits": bits,
        "inputs": len(numbers),
        "inputs with an error": wrong,
        "kernel of two basis vectors": between,
        "1 / (2 pi)": 1 / (2 * np.pi),
        "least mean on a bit that is on": min(low.values()),
        "largest mean on a bit that is off, beyond training inputs": max(
            v for m, v in high.items() if m > 1
        ),
    }
    passed = wrong == 0 and abs(between - 1 / (2 * np.pi)) <= 1e-12
    claim = (
        "Trained on the k basis vectors, the mean of infinitely wide two-layer ReLU networks is "
        "positive on exactly the bits that the permutation sets, for every nonzero input."
    )
    figure = None if quick else _draw(low, high)
    return Verdict(FOLDER.name, claim, measured, TARGET, bool(passed), figure)


def _draw(low, high) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    ax = figure.add_subplot()
    ax.plot(list(low), list(low.values()), "o-", label="least mean on bits that should be on")
    ax.plot(list(high), list(high.values()), "s-", label="largest mean on bits that should be off")
    ax.axhline(0.0, color="k", linewidth=0.8)
    ax.set_xlabel("bits that are on in the input")
    ax.set_ylabel("mean prediction of the tangent kernel")
    ax.legend()
    path = FOLDER / "figure.png"
    figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    reproduce(main, FOLDER)
