r"""How far features and outputs move in training, as a function of the width.

Fully connected networks of growing width are trained by full-batch gradient descent on a small
set of samples; ``rms |h_L(T) - h_L(0)|`` and ``|f(T) - f(0)|`` at another input are fitted by
powers of the width. A parametrisation of feature exponent ``r`` moves features by ``n^(-r)``.

For one hidden linear layer in muP the infinite-width limit is closed: with ``M = E r r^T`` for the
weights ``r = (v, u)`` of one neuron, ``f(x) = M_{0,1:} x`` and a step of gradient ``g`` maps
``M`` to ``(I + eta S) M (I + eta S)``, ``S = [[0, g^T], [g, 0]]``.

References
----------
Yang, Hu, "Feature Learning in Infinite-Width Neural Networks", arXiv 2011.14522, sections 3, 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.theory.propagation.gauss import Array, record_of
from tangency.theory.propagation.parametrisation import Parametrisation, parametrisation

__all__ = ["FeatureMovement", "feature_movement", "linear_feature_limit"]


@dataclass(frozen=True, eq=False)
class FeatureMovement:
    """Movement of the last hidden layer and of the output, by width.

    Attributes
    ----------
    parametrisation : Parametrisation
    widths : (w,) array
    features, outputs : (w, seeds) arrays
        ``rms |Delta h_L|`` and ``|Delta f|``.
    """

    parametrisation: Parametrisation
    widths: Array
    features: Array
    outputs: Array

    @property
    def feature_slope(self) -> tuple[float, float]:
        """Exponent of the width in the features' movement, and its standard error over seeds."""
        return _slope(self.widths, self.features)

    @property
    def output_slope(self) -> tuple[float, float]:
        """The same for the output, from root mean squares over the seeds."""
        return _slope(self.widths, self.outputs)


def feature_movement(
    activation: Activation | str,
    scaling: Parametrisation | str,
    widths: Sequence[int],
    *,
    hidden: int = 2,
    inputs: Array | None = None,
    targets: Array | None = None,
    probe: Array | None = None,
    steps: int = 1,
    learning_rate: float = 0.1,
    seeds: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureMovement:
    """Train networks of each width and measure how far features and outputs moved.

    Parameters
    ----------
    activation : Activation or str
    scaling : Parametrisation or str
        Or the name of one.
    widths : sequence of int
    hidden : int
        Number of hidden layers.
    inputs, targets : (m, d) and (m,) arrays, optional
        By default 8 samples in 16 dimensions with targets +-1, drawn with the seed.
    probe : (d,) array, optional
        The input at which movement is measured; by default the mean of the inputs plus noise.
    steps, learning_rate : int, float
        Gradient descent on ``(1 / 2m) sum (f - y)^2``, at ``learning_rate * n**-c``.
    seeds, seed : int
    progress : callable ``(done, total)``, optional

    Raises
    ------
    InputError
        If there are fewer than two widths, or the arrays do not fit.
    """
    record = record_of(activation)
    scheme = parametrisation(scaling) if isinstance(scaling, str) else scaling
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((8, 16)) if inputs is None else np.asarray(inputs, dtype=np.float64)
    if x.ndim != 2:
        raise InputError(f"inputs must be an (m, d) array, not of shape {x.shape}")
    y = np.sign(rng.standard_normal(len(x))) if targets is None else np.asarray(targets, float)
    p = x.mean(axis=0) + rng.standard_normal(x.shape[1]) if probe is None else np.asarray(probe)
    if len(widths) < 2 or y.shape != (len(x),) or p.shape != (x.shape[1],):
        raise InputError("two widths or more are needed, with targets (m,) and a probe (d,)")
    moved = np.empty((2, len(widths), seeds))
    for i, n in enumerate(widths):
        for j in range(seeds):
            net = _Net(record, scheme, n, hidden, x.shape[1], np.random.default_rng([seed, j, n]))
            before = net.at(p[None])
            for _ in range(steps):
                net.step(x, y, learning_rate)
            after = net.at(p[None])
            moved[0, i, j] = np.sqrt(np.mean((after[0] - before[0]) ** 2))
            moved[1, i, j] = abs(after[1] - before[1])
            if progress is not None:
                progress(i * seeds + j + 1, len(widths) * seeds)
    return FeatureMovement(scheme, np.asarray(widths, dtype=np.float64), *moved)


def linear_feature_limit(
    inputs: Any, targets: Any, *, steps: int, learning_rate: float, moments: Any = None
) -> tuple[Array, Array]:
    """One hidden linear layer in muP at infinite width, trained by gradient descent.

    Parameters
    ----------
    inputs, targets : (m, d) and (m,) arrays
    steps, learning_rate : int, float
    moments : (1 + d, 1 + d) array, optional
        ``M`` at the start; by default ``diag(1, I / d)``, and that of a sample of ``n`` neurons
        gives the network of width ``n`` exactly.

    Returns
    -------
    (functions, moments)
        ``(steps + 1, d)`` array of the linear function after each step, and the last ``M``.
    """
    x, y = np.asarray(inputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    d = x.shape[1]
    m = np.diag([1.0, *[1.0 / d] * d]) if moments is None else np.array(moments, dtype=np.float64)
    functions = [m[0, 1:].copy()]
    for _ in range(steps):
        g = -x.T @ (x @ m[0, 1:] - y) / len(x)
        move = np.eye(d + 1)
        move[0, 1:] += learning_rate * g
        move[1:, 0] += learning_rate * g
        m = move @ m @ move
        functions.append(m[0, 1:].copy())
    return np.stack(functions), m


class _Net:
    """A fully connected network without biases, and its gradient step."""

    def __init__(
        self,
        record: Activation,
        scheme: Parametrisation,
        width: int,
        hidden: int,
        inputs: int,
        rng: np.random.Generator,
    ) -> None:
        places = [0, *[1] * (hidden - 1), 2]
        shapes = [(width, inputs), *[(width, width)] * (hidden - 1), (1, width)]
        self.record = record
        self.rate = float(width) ** -scheme.c
        self.multipliers = [float(width) ** -scheme.a[p] for p in places]
        self.multipliers[0] /= np.sqrt(inputs)
        self.weights = [
            rng.standard_normal(s) * float(width) ** -scheme.b[p]
            for s, p in zip(shapes, places, strict=True)
        ]

    def at(self, x: Array) -> tuple[Array, float]:
        """Last hidden preactivations and output at one input."""
        *_, h, f = self._forward(x)
        return h[:, 0], float(f[0, 0])

    def _forward(self, x: Array) -> list[Array]:
        out, now = [], x.T
        for m, w in zip(self.multipliers, self.weights, strict=True):
            out.append(m * (w @ now))
            now = np.asarray(self.record(out[-1]))
        return out

    def step(self, x: Array, y: Array, learning_rate: float) -> None:
        h = self._forward(x)
        back = (h[-1] - y) / len(x)
        for i in reversed(range(len(self.weights))):
            below = x.T if i == 0 else np.asarray(self.record(h[i - 1]))
            gradient = self.multipliers[i] * (back @ below.T)
            if i:
                back = self.multipliers[i] * (self.weights[i].T @ back)
                back = back * np.asarray(self.record.slope(h[i - 1]))
            self.weights[i] = self.weights[i] - learning_rate * self.rate * gradient


def _slope(widths: Array, moved: Array) -> tuple[float, float]:
    """Slope of log rms against log width, and its standard error by leaving out one seed."""
    x = np.log(widths)
    x = x - x.mean()

    def fit(columns: Array) -> float:
        return float(x @ np.log(np.mean(columns**2, axis=1)) / 2.0 / (x @ x))

    seeds = moved.shape[1]
    if seeds < 2:
        return fit(moved), float("nan")
    left = np.array([fit(np.delete(moved, j, axis=1)) for j in range(seeds)])
    error = np.sqrt((seeds - 1) / seeds * np.sum((left - left.mean()) ** 2))
    return fit(moved), float(error)
