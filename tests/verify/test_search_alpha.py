"""Optimised slopes: never looser than CROWN, beaten by no point, proved by the other walk."""

from pathlib import Path

import numpy as np
import pytest

from tangency.models import Builder
from tangency.models.activations import get
from tangency.models.ops import Activate, Add, Dense, Product, numpy_backend
from tangency.verify.bounds.search import JaxEngine, optimised
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import intermediate
from tangency.verify.rigorous.sets import InputSet

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bounds_reference.npz"


def network_of(record, seed=0, gated=False, hidden=2):
    """Return a network; compiling its search costs seconds for each layer of a smooth function."""
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    v = b.input((1, 4))
    for k, (m, n) in enumerate(((4, 8), *[(8, 8)] * (hidden - 1), (8, 3))):
        w, c = rng.normal(size=(n, m)) / np.sqrt(m), 0.3 * rng.normal(size=n)
        v = b.emit(Dense(), [v], {"weight": (f"w{k}", w), "bias": (f"b{k}", c)})
        if k < hidden:
            v = b.emit(Activate(get(record)), [v])
        if gated and k == hidden - 1:
            w = rng.normal(size=(8, 8)) / 3
            v = b.emit(Product(), [v, b.emit(Dense(), [v], {"weight": ("gate", w)})])
    return b.finish([v])


def prepared(network, eps, samples=3):
    x = np.random.default_rng(1).normal(size=(samples, 4))
    sets = [InputSet(x - eps, x + eps)]
    engine = JaxEngine(network, sets)
    (end,) = network.structure.outputs
    return engine, end, intermediate(engine, [end], method="crown"), sets


@pytest.mark.parametrize("record", ["relu", "sigmoid", "sin"])
def test_never_looser_than_crown_and_proved_by_the_rigorous_walk(record):
    network = network_of(record, hidden=1 if record == "sin" else 2)
    engine, end, known, sets = prepared(network, 0.5)
    spec = np.array([[[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]]])
    crown = engine.sweep(end, known, spec=spec)
    found = optimised(engine, end, known, spec=spec, upper=True, steps=25)
    assert (found.lower >= crown[0] - 1e-12).all()
    assert (found.upper <= crown[1] + 1e-12).all()
    assert found.lower.mean() > crown[0].mean() + 1e-4
    proof = NumpyEngine(network, sets).sweep(end, known, spec=spec, slopes=found.slopes)
    # The lines of the search are padded by some units in the last place, proofs by theirs.
    assert np.abs(proof[0] - found.lower).max() <= 1e-8
    assert np.abs(proof[1] - found.upper).max() <= 1e-8
    again = engine.sweep(end, known, spec=spec, slopes=found.slopes)
    assert np.abs(again[0] - found.lower).max() <= 1e-12
    x = np.random.default_rng(2).uniform(sets[0].lower, sets[0].upper, size=(500, 3, 4))
    y = network.structure.apply(numpy_backend(), network.weights, [x.reshape(-1, 4)])
    margins = np.stack([y[:, 0] - y[:, 1], y[:, 1] - y[:, 2]], -1).reshape(500, 3, 2)
    assert (margins >= found.lower - 1e-9).all()
    assert (margins <= found.upper + 1e-9).all()


def test_more_steps_are_never_worse_for_a_product():
    network = network_of("relu", gated=True, hidden=1)
    engine, end, known, _ = prepared(network, 0.3)
    crown = engine.sweep(end, known)
    found = optimised(engine, end, known, upper=True, steps=20)
    assert (found.lower >= crown[0] - 1e-12).all()
    assert (found.upper <= crown[1] + 1e-12).all()
    assert (found.upper - found.lower).mean() < (crown[1] - crown[0]).mean() - 1e-4


def test_one_unstable_neuron_is_solved_exactly():
    # y = relu(x) - x / 2 on [-1, 1]: the least value is 0, with slope 1/2 below; CROWN says -1/2.
    b = Builder("float64")
    v = b.input((1, 1))
    r = b.emit(Activate(get("relu")), [v])
    v = b.emit(Dense(), [v], {"weight": ("w", np.array([[-0.5]]))})
    network = b.finish([b.emit(Add(), [r, v])])
    engine = JaxEngine(network, [InputSet(np.array([[-1.0]]), np.array([[1.0]]))])
    (end,) = network.structure.outputs
    known = intermediate(engine, [end], method="crown")
    assert engine.sweep(end, known)[0][0, 0] == pytest.approx(-0.5)
    assert optimised(engine, end, known, steps=20).lower[0, 0] == pytest.approx(0.0, abs=1e-2)


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["mlp", "mnistfc2"])
def test_the_reference_networks(name):
    data = np.load(REFERENCE)
    n = 4
    b = Builder("float32")
    v = b.input((1, 784))
    for k in range(3):
        params = {
            "weight": (f"w{k}", data[f"{name}/W{k}"]),
            "bias": (f"b{k}", data[f"{name}/b{k}"]),
        }
        v = b.emit(Dense(), [v], params)
        v = b.emit(Activate(get("relu")), [v]) if k < 2 else v
    network = b.finish([v])
    low, high = (data[f"{name}/{end}"][:n].reshape(n, 784).astype(float) for end in ("xl", "xu"))
    engine = JaxEngine(network, [InputSet(low, high)])
    (end,) = network.structure.outputs
    known = intermediate(engine, [end - 1], method="crown", plain=True)
    spec = data[f"{name}/C"][:n]
    crown, _ = engine.sweep(end, known, spec=spec, upper=False)
    if name == "mlp":  # the other one's reference mixes in interval bounds, see bounds.md, note (b)
        assert np.abs(crown - data["mlp/CROWN/mlb"][:n]).max() <= 1e-5
        peer = data["mlp/alpha-fix/mlb"][:n].mean()
        assert optimised(engine, end, known, spec=spec, steps=100).lower.mean() >= peer - 1e-3
    else:
        known = intermediate(engine, [end - 1], method="crown")
        best = optimised(engine, end, known, spec=spec, steps=20).lower
        assert best.mean() > crown.mean()
        peer = data["mnistfc2/alpha-fix/mlb"][:n]
        assert best.mean() >= peer.mean()
