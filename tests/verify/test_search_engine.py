"""The JAX engine against the rigorous one, dense arithmetic, samples, and its count of compiles."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tangency.models import Builder
from tangency.models.activations import get
from tangency.models.ops import (
    Activate,
    Add,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    Dense,
    MatMul,
    Prelu,
    Product,
    Reshape,
    Select,
    Subtract,
    Transpose,
    numpy_backend,
)
from tangency.verify.bounds.search import JaxEngine
from tangency.verify.bounds.search.affine import transposed
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import intermediate
from tangency.verify.rigorous.sets import BallPart, InputSet

METHODS = ("crown-ibp", "crown")


def mlp(seed, sizes=(5, 8, 7, 3), record="relu"):
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    v = b.input((1, sizes[0]))
    for k, (m, n) in enumerate(pairwise(sizes)):
        w = (f"w{k}", rng.normal(size=(n, m)) / np.sqrt(m))
        v = b.emit(Dense(), [v], {"weight": w, "bias": (f"b{k}", 0.3 * rng.normal(size=n))})
        if k < len(sizes) - 2:
            v = b.emit(Activate(get(record)), [v])
    return b.finish([v])


def convolutional(seed, stride, padding, kernel):
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    v = b.input((1, 2, 9, 8))
    for k, channels in enumerate((3, 4)):
        w = rng.normal(size=(channels, (2, 3)[k], *kernel)) / 3
        op = Conv(stride, (padding, padding), (1, 1), 1)
        v = b.emit(op, [v], {"weight": (f"w{k}", w), "bias": (f"b{k}", rng.normal(size=channels))})
        v = b.emit(Activate(get("relu")), [v])
    n = int(np.prod(v.shape[1:]))
    v = b.emit(Reshape((n,)), [v])
    return b.finish([b.emit(Dense(), [v], {"weight": ("last", rng.normal(size=(3, n)))})])


def random_graph(seed):
    """A graph of simple ops, of values of shape (2, 3)."""
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    count = iter(range(1000))

    def w(*shape):
        return f"w{next(count)}", rng.normal(size=shape) / np.sqrt(shape[-1])

    def act(v):
        names = ("relu", "sigmoid", "leaky_relu", "softplus", "hardtanh")
        return b.emit(Activate(get(names[rng.integers(len(names))])), [v])

    layers = (
        lambda v, u: b.emit(Dense(), [v], {"weight": w(3, 3), "bias": w(3)}),
        lambda v, u: act(v),
        lambda v, u: b.emit(Prelu(0), [v], {"slope": w(2)}),
        lambda v, u: b.emit(Add(), [v, u]),
        lambda v, u: b.emit(Subtract(), [v, b.emit(Constant(), [], {"value": w(3)})]),
        lambda v, u: b.emit(Product(), [act(v), b.emit(Dense(), [u], {"weight": w(3, 3)})]),
        lambda v, u: b.emit(
            Select(), [v, b.emit(Constant(), [], {"value": w(3)}), u, b.emit(Add(), [u, v])]
        ),
        lambda v, u: b.emit(
            MatMul(), [b.emit(MatMul(), [v, b.emit(Transpose((1, 0)), [act(u)])]), v]
        ),
        lambda v, u: b.emit(
            BatchNorm(0), [v], {"mean": w(2), "var": (f"v{next(count)}", rng.uniform(0.5, 2, 2))}
        ),
        lambda v, u: b.emit(
            Dense(),
            [b.emit(Concat(1), [v, u])],
            {"weight": w(3, 6)},
        ),
    )
    values = [b.input((1, 2, 3))]
    for _ in range(4):
        v, u = (values[max(0, len(values) - rng.integers(1, 3))] for _ in range(2))
        values.append(layers[rng.integers(len(layers))](v, u))
    return b.finish([values[-1]])


def box(network, samples, eps, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, *network.input_shape))
    return InputSet(x - eps, x + eps)


def swept(engine, method, plain=False, **options):
    (end,) = engine.network.structure.outputs
    known = intermediate(engine, [end], method=method, plain=plain)
    return engine.sweep(end, known, **options), known


def close(found, wanted, tolerance=1e-9):
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, np.abs(b).max())
        assert np.abs(np.asarray(a) - b).max() <= tolerance * scale


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_network_gets_the_rigorous_engines_bounds(method, plain, samples):
    network = mlp(1)
    sets = [box(network, samples, 0.3)]
    found, _ = swept(JaxEngine(network, sets), method, plain)
    wanted, _ = swept(NumpyEngine(network, sets), method, plain)
    close(found, wanted)
    assert found[0].shape == (samples, 3)


def test_float32_differs_by_its_rounding_alone():
    network = mlp(2)
    sets = [box(network, 3, 0.3)]
    found, _ = swept(JaxEngine(network.astype("float32"), sets), "crown")
    assert found[0].dtype == np.float32
    close(found, swept(NumpyEngine(network, sets), "crown")[0], 1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "kernel"),
    [((1, 1), (1, 1), (3, 3)), ((2, 2), (1, 2), (4, 3)), ((2, 1), (0, 0), (3, 2)),
     ((3, 2), (1, 0), (2, 2))],
)  # fmt: skip
def test_convolutions(stride, padding, kernel):
    network = convolutional(0, stride, padding, kernel)
    sets = [box(network, 2, 0.1)]
    close(
        swept(JaxEngine(network, sets), "crown")[0],
        swept(NumpyEngine(network, sets), "crown")[0],
    )


@pytest.mark.parametrize("stride", [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((2, 1), (0, 2))])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (5, 4)])
def test_a_convolution_goes_back_by_its_transpose(stride, padding, kernel):
    rng = np.random.default_rng(0)
    op, shape = Conv(stride, padding, (1, 1), 1), (2, 7, 8)
    w = rng.normal(size=(3, 2, *kernel)).astype(np.float32)
    out = op.infer((shape,), {"weight": w.shape})
    x = rng.normal(size=(4, *shape)).astype(np.float32)
    c = rng.normal(size=(2, 4, *out)).astype(np.float32)
    (back,) = transposed(op, {"weight": w}, [shape], c)
    assert back.shape == (2, 4, *shape)
    y = op.apply(numpy_backend(), {"weight": w}, x)
    left = (np.asarray(back) * x).reshape(2, 4, -1).sum(-1)
    right = (c * y).reshape(2, 4, -1).sum(-1)
    assert np.abs(left - right).max() <= 1e-4 * np.abs(right).max()


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), log_eps=st.floats(-3, -0.5))
def test_random_graphs(seed, log_eps):
    network = random_graph(seed)
    sets = [box(network, 2, 10.0**log_eps, seed)]
    (low, high), known = swept(JaxEngine(network, sets), "crown")
    rng = np.random.default_rng(seed)
    x = rng.uniform(sets[0].lower, sets[0].upper, size=(300, 2, 2, 3))
    x[:100] = np.where(rng.random(x[:100].shape) < 0.5, sets[0].lower, sets[0].upper)
    for k in range(2):
        y = network.evaluate(np.ascontiguousarray(x[:, k])).reshape(300, -1)
        slack = 1e-9 * max(1.0, np.abs(y).max(), np.abs(low[k]).max())
        assert (low[k] - slack <= y).all()
        assert (y <= high[k] + slack).all()
    for i, (a, b) in known.items():
        assert np.isfinite(a).all() and (a <= b + 1e-9 * (1 + np.abs(b))).all(), i  # noqa: PT018


def test_rows_specifications_and_slopes_by_dense_arithmetic():
    network = mlp(3, (4, 6, 3))
    sets = [box(network, 2, 0.4)]
    engine = JaxEngine(network, sets)
    known = intermediate(engine, [3], method="crown")
    w = [network.weights[f"w{k}"] for k in range(2)]
    b = [network.weights[f"b{k}"] for k in range(2)]
    spec = np.random.default_rng(0).normal(size=(2, 4, 3))
    slopes = np.random.default_rng(1).uniform(0, 1, size=(2, 8, 6))
    below = np.where(known[1][0][:, None] >= 0, 1.0, np.where(known[1][1][:, None] <= 0, 0, slopes))
    _, above = (known[1][1], known[1][1].clip(0) / (known[1][1].clip(0) - known[1][0].clip(max=0)))
    low, high = engine.sweep(3, known, spec=spec, slopes={2: (below, above[:, None])})
    for n in range(2):
        for side, found in ((1.0, low), (-1.0, high)):
            for s in range(4):
                a = side * spec[n, s] @ w[1]
                row = below[n, s + (4 if side < 0 else 0)]
                new = a.clip(0) * row + a.clip(max=0) * above[n]
                offset = side * spec[n, s] @ b[1]
                offset += a.clip(max=0) @ (-above[n] * known[1][0][n].clip(max=0))
                c = new @ w[0]
                least = (
                    offset
                    + new @ b[0]
                    + np.minimum(c * sets[0].lower[n], c * sets[0].upper[n]).sum()
                )
                assert abs(side * found[n, s] - least) <= 1e-9
    whole = engine.sweep(3, known)
    rows = np.array([[2, 0, 0], [1, 2, 1]])
    for a, b_ in zip(engine.sweep(3, known, rows=rows), whole, strict=True):
        assert (a == np.take_along_axis(b_, rows, 1)).all()
    unit = np.eye(3)[None]
    close(engine.sweep(3, known, spec=unit), whole)
    assert engine.sweep(3, known, spec=unit, upper=False)[1] is None


@pytest.mark.parametrize("norm", [1, 2])
def test_balls(norm):
    network = mlp(4)
    x = np.random.default_rng(0).normal(size=(2, 5))
    sets = [InputSet(x - 0.5, x + 0.5, BallPart(x, np.full(1, 0.5), norm))]
    found, _ = swept(JaxEngine(network, sets), "crown")
    close(found, swept(NumpyEngine(network, sets), "crown")[0])


def test_the_second_network_compiles_nothing():
    compiles = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiles.append(name) if "backend_compile" in name else None
    )

    def run(seed, samples):
        network = mlp(seed, (3, 9, 9, 2)).astype("float32")
        before = len(compiles)
        swept(JaxEngine(network, [box(network, samples, 0.5, seed)]), "crown")
        return len(compiles) - before

    assert run(0, 3) > 0
    assert run(1, 4) == 0
    assert run(2, 2) == 0
    assert run(3, 5) > 0  # another bucket
    assert run(4, 16) == 0
