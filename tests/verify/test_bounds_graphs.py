"""Random graphs of all families of op: no point of the box escapes, and points stay points."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tangency.models import Builder
from tangency.models.activations import get
from tangency.models.ops import (
    Activate,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Extremum,
    Gather,
    GroupSort,
    Householder,
    LayerNorm,
    LogSumExp,
    MatMul,
    MaxPool,
    Prelu,
    Product,
    Quotient,
    Reduce,
    Reshape,
    Scale,
    Select,
    Softmax,
    Subtract,
    Transpose,
    Upsample,
    numpy_backend,
)
from tangency.verify.bounds import Box, bound

SHAPE = (2, 6)
ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "sin", "leaky_relu", "softplus", "abs", "atan")


def random_graph(rng, steps):
    """A DAG in which every value has the shape SHAPE; each step takes any of the values before."""
    b = Builder("float64")
    key = iter(range(10000))

    def w(*shape, low=None):
        array = rng.normal(size=shape) if low is None else rng.uniform(low, 2, size=shape)
        return f"w{next(key)}", array / (np.sqrt(shape[-1]) if low is None else 1.0)

    def unit(groups, size):
        v = rng.normal(size=(groups, size))
        return f"w{next(key)}", v / np.linalg.norm(v, axis=1, keepdims=True)

    def act(v, name):
        return b.emit(Activate(get(name)), [v])

    same = ((1, 1),)
    layers = (
        lambda v, _: b.emit(Dense(), [v], {"weight": w(6, 6), "bias": w(6)}),
        lambda v, _: b.emit(Conv((1,), same, (1,), 1), [v], {"weight": w(2, 2, 3), "bias": w(2)}),
        lambda v, _: b.emit(
            ConvTranspose((1,), same, (1,), 2, (0,)), [v], {"weight": w(2, 1, 3), "bias": w(2)}
        ),
        lambda v, _: act(v, ACTIVATIONS[rng.integers(len(ACTIVATIONS))]),
        lambda v, _: b.emit(GroupSort(3, 1, bool(rng.integers(2))), [v]),
        lambda v, _: b.emit(Householder(1), [v], {"vectors": unit(2, 3)}),
        lambda v, _: b.emit(Softmax(int(rng.integers(2))), [v]),
        lambda v, _: b.emit(LayerNorm((-1,), 1e-3), [v], {"weight": w(6), "bias": w(6)}),
        lambda v, _: b.emit(MaxPool((3,), (1,), same, (1,)), [v]),
        lambda v, _: b.emit(AveragePool((3,), (1,), same, bool(rng.integers(2))), [v]),
        lambda v, _: b.emit(
            BatchNorm(0, 1e-5), [v], {"mean": w(2), "var": w(2, low=0.1), "weight": w(2)}
        ),
        lambda v, _: b.emit(Scale(), [v], {"scale": w(6)}),
        lambda v, _: b.emit(Prelu(0), [v], {"slope": w(2)}),
        lambda v, _: b.emit(Gather(tuple(rng.integers(0, 6, 6).tolist()), 1), [v]),
        lambda v, _: b.emit(Upsample((6,), "linear"), [half(v)]),
        lambda v, _: b.emit(Reshape(SHAPE), [b.emit(Transpose((1, 0)), [v])]),
        lambda v, u: b.emit(Add(), [v, u]),
        lambda v, u: b.emit(Subtract(), [v, u]),
        lambda v, u: b.emit(Product(), [v, act(u, "tanh")]),
        lambda v, u: b.emit(Quotient(), [v, b.shift(act(u, "abs"), np.array(0.5))]),
        lambda v, u: b.emit(Extremum(("max", "min")[rng.integers(2)]), [v, u]),
        # Against a constant: a tie of two values leaves both branches open, even at a point.
        lambda v, u: b.emit(
            Select(), [v, b.emit(Constant(), [], {"value": w(6)}), u, act(v, "tanh")]
        ),
        lambda v, u: b.emit(MatMul(), [b.emit(MatMul(), [v, b.emit(Transpose((1, 0)), [u])]), v]),
        lambda v, u: b.emit(Concat(0), [row(v), b.emit(Reshape((1, 6)), [mean(u)])]),
        lambda v, u: b.emit(Add(), [v, b.emit(Reshape((2, 1)), [b.emit(LogSumExp((1,)), [u])])]),
    )

    def row(v):
        return b.emit(Reshape((1, 6)), [b.emit(Reduce("sum", (0,)), [v])])

    def half(v):
        return b.emit(MaxPool((2,), (2,), ((0, 0),), (1,)), [v])

    def mean(v):
        return b.emit(Reduce("mean", (0,)), [v])

    values = [b.input((1, *SHAPE))]
    for _ in range(steps):
        # Mostly the newest value, so that graphs are deep.
        v, u = (values[max(0, len(values) - 1 - rng.geometric(0.6) + 1)] for _ in range(2))
        values.append(layers[rng.integers(len(layers))](v, u))
    return b.finish([b.emit(Add(), [values[-1], values[0]])])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 10), log_eps=st.floats(-9, 0))
def test_no_point_escapes_a_random_graph(seed, steps, log_eps):
    rng = np.random.default_rng(seed)
    network = random_graph(rng, steps)
    x = rng.normal(size=SHAPE)
    box = Box.around(x, 10.0**log_eps)
    found = bound(network, box, keep=True)
    points = np.where(
        rng.random((600, *SHAPE)) < 0.5,
        rng.uniform(box.lower, box.upper, size=(600, *SHAPE)),
        np.where(rng.random((600, *SHAPE)) < 0.5, box.lower, box.upper),
    ).astype(np.longdouble)
    weights = {k: w.astype(np.longdouble) for k, w in network.weights.items()}
    values = network.structure.values(numpy_backend(), weights, [points])
    for node, y in zip(network.structure.nodes, values, strict=True):
        low, high = found.intermediate[node.name]
        assert ((low <= y) & (y <= high)).all(), node
    at_point = bound(network, Box(x, x), keep=True)
    scale = max(1.0, *(np.abs(ends).max() for ends in at_point.intermediate.values()))
    assert (at_point.upper - at_point.lower).max() <= 1e-8 * scale  # values may cancel on the way
