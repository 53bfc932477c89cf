"""Linear bounds of random graphs of all families of op: no point escapes, all as tight as IBP."""

import importlib.util
from pathlib import Path

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
    Conv,
    MaxPool,
    Subtract,
    numpy_backend,
)
from tangency.verify.bounds import Ball, Box, bound, linear
from tangency.verify.rigorous import numpy_engine, sweep
from tangency.verify.rigorous.cropping import support
from tangency.verify.rigorous.lowering import lowered
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import intermediate
from tangency.verify.rigorous.sets import InputSet

_path = Path(__file__).resolve().parent / "test_bounds_graphs.py"
_spec = importlib.util.spec_from_file_location("bounds_graphs", _path)
graphs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(graphs)

SHAPE = graphs.SHAPE
quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def values(network, points):
    """Every node at points, in extended precision."""
    weights = {k: w.astype(np.longdouble) for k, w in network.weights.items()}
    return network.structure.values(numpy_backend(), weights, [points.astype(np.longdouble)])


def points_of(rng, box, count=400):
    inner = rng.uniform(box.lower, box.upper, size=(count, *box.shape))
    corner = np.where(rng.random((count, *box.shape)) < 0.5, box.lower, box.upper)
    return np.where(rng.random((count, *box.shape)) < 0.5, inner, corner)


@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 8),
    log_eps=st.floats(-9, 0),
    method=st.sampled_from(["crown", "crown-ibp", "forward"]),
    plain=st.booleans(),
)
def test_no_point_escapes_a_random_graph(seed, steps, log_eps, method, plain):
    rng = np.random.default_rng(seed)
    network = graphs.random_graph(rng, steps)
    box = Box.around(rng.normal(size=SHAPE), 10.0**log_eps)
    found = bound(network, box, method=method, plain=plain, keep=True)
    held = values(network, points_of(rng, box))
    for node, y in zip(network.structure.nodes, held, strict=True):
        if node.name in found.intermediate:
            low, high = found.intermediate[node.name]
            assert ((low <= y) & (y <= high)).all(), node
    assert ((found.lower <= held[-1]) & (held[-1] <= found.upper)).all()


@quick
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 8), log_eps=st.floats(-9, 0))
def test_the_default_is_never_looser_than_intervals(seed, steps, log_eps):
    rng = np.random.default_rng(seed)
    network = graphs.random_graph(rng, steps)
    box = Box.around(rng.normal(size=(2, *SHAPE)), 10.0**log_eps)
    spec = rng.normal(size=(3, int(np.prod(SHAPE))))
    for options in ({}, {"spec": spec}):
        ibp = bound(network, box, **options)
        for method in ("crown", "crown-ibp", "forward"):
            found = bound(network, box, method=method, **options)
            slack = 1e-9 * (1.0 + np.abs(ibp.lower) + np.abs(ibp.upper))
            assert (found.lower >= ibp.lower - slack).all()
            assert (found.upper <= ibp.upper + slack).all()


@quick
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 6), norm=st.sampled_from([1, 2]))
def test_no_point_of_a_ball_escapes(seed, steps, norm):
    rng = np.random.default_rng(seed)
    network = graphs.random_graph(rng, steps)
    centre, eps = rng.normal(size=SHAPE), 10.0 ** rng.uniform(-6, 0)
    method = ("crown", "forward")[seed % 2]
    found = bound(network, Ball(centre, eps, norm), method=method)
    assert found.norm == f"l{norm}"
    away = rng.normal(size=(600, *SHAPE))
    away[:200] *= rng.random((200, *SHAPE)) < 0.2  # few entries: the corners of the l1 ball
    size = (np.abs(away) ** norm).sum(axis=(1, 2), keepdims=True) ** (1 / norm)
    part = rng.random((600, 1, 1)) ** 0.1 * (1 - 1e-12)
    y = values(network, centre + away / np.maximum(size, 1e-300) * eps * part)[-1]
    assert ((found.lower <= y) & (y <= found.upper)).all()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(2, 7))
def test_blocks_change_nothing(seed, steps):
    """Many samples at once or in blocks of a few rows: the same bounds, up to rounding."""
    rng = np.random.default_rng(seed)
    network = lowered(graphs.random_graph(rng, steps)).network
    box = Box.around(rng.normal(size=(5, *SHAPE)), 0.1)
    (end,) = network.structure.outputs
    spec = rng.normal(size=(5, 4, int(np.prod(SHAPE))))
    rows, found = np.sort(rng.integers(0, 12, size=(5, 3)), axis=1), []
    for size in (sweep.BLOCK, 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweep, "BLOCK", size)
            engine = NumpyEngine(network, [InputSet(box.lower, box.upper)])
            known = intermediate(engine, [end], method="crown")
            found.append(
                [
                    *engine.sweep(end, known),
                    *engine.sweep(end, known, rows=rows),
                    *engine.sweep(end, known, spec=spec),
                    engine.sweep(end, known, spec=spec[:1], upper=False)[0],
                ]
            )
    for a, b in zip(*found, strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-9)
    whole, some = found[0][0], found[0][2]
    assert np.allclose(np.take_along_axis(whole, rows, axis=1), some, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["crown", "forward"])
def test_samples_do_not_see_each_other(method, monkeypatch):
    rng = np.random.default_rng(0)
    network = graphs.random_graph(rng, 8)
    box = Box.around(rng.normal(size=(6, *SHAPE)), 0.05)
    monkeypatch.setattr(linear, "FORWARD", 300)
    found = bound(network, box, method=method)
    for i in range(6):
        alone = bound(network, Box(box.lower[i], box.upper[i]), method=method)
        assert np.allclose(alone.lower[0], found.lower[i], rtol=1e-9, atol=1e-9)
        assert np.allclose(alone.upper[0], found.upper[i], rtol=1e-9, atol=1e-9)


def convolutional_graph(rng):
    """Convolutions of all kinds with a branch, a batch norm, a pool and a dense end."""
    b = Builder("float64")
    key = iter(range(100))

    def w(*shape):
        return f"w{next(key)}", rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))

    def relu(v):
        return b.emit(Activate(get("relu")), [v])

    pad = ((int(rng.integers(3)), 1), (1, int(rng.integers(3))))
    h = b.input((1, 2, 9, 9))
    first = Conv((2, 1), pad, (1, 1), 1)
    h = relu(b.emit(first, [h], {"weight": w(4, 2, 3, 3), "bias": w(4)}))
    norm = {"mean": w(4), "var": ("var", rng.uniform(0.5, 2, size=4)), "weight": w(4)}
    h = b.emit(BatchNorm(0, 1e-3), [h], norm)
    same = Conv((1, 1), ((2, 2), (1, 1)), (2, 1), int(rng.choice([1, 2])))
    params = {"weight": w(4, 4 // same.groups, 3, 3)}
    h = b.emit((Add(), Subtract())[rng.integers(2)], [b.emit(same, [relu(h)], params), h])
    h = relu(h)
    if rng.integers(2):
        h = b.emit(MaxPool((2, 2), (1, 1), ((0, 0), (0, 0))), [h])
    h = b.emit(Conv((2, 2), ((4, 0), (0, 4))), [h], {"weight": w(3, 4, 2, 2), "bias": w(3)})
    h = b.reshape(relu(h), (1, int(np.prod(h.shape[1:]))))
    return b.finish([b.dense(h, rng.normal(size=(3, h.shape[1])))])


@pytest.mark.parametrize("seed", range(6))
def test_windows_of_convolutions_change_nothing(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    network = convolutional_graph(rng)
    box = Box.around(rng.normal(size=(3, 2, 9, 9)), 0.03)
    monkeypatch.setattr(numpy_engine, "PATCH", 6 + 40 * (seed % 2))
    cut = []
    monkeypatch.setattr(
        sweep, "support", lambda coef, axes: cut.append(support(coef, axes)) or cut[-1]
    )
    found = bound(network, box, method="crown", keep=True)
    assert sum(window is not None for window in cut) > 10
    y = values(network, points_of(rng, Box(box.lower[0], box.upper[0])))
    for node, value in zip(network.structure.nodes, y, strict=True):
        low, high = found.intermediate[node.name]
        assert ((low[0] <= value) & (value <= high[0])).all(), node
    monkeypatch.setattr(sweep, "support", lambda coef, axes: None)
    monkeypatch.setattr(numpy_engine, "PATCH", 10**9)
    whole = bound(network, box, method="crown", keep=True)
    for name, pair in whole.intermediate.items():
        for old, new in zip(pair, found.intermediate[name], strict=True):
            assert np.allclose(old, new, rtol=0, atol=1e-10), name
