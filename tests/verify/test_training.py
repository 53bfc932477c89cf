"""Robust training: bounds in JAX against proved ones, the losses, and what training does."""

import importlib.util
import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tangency.models import Builder, InputError, UnsupportedError, from_layers
from tangency.models.activations import get
from tangency.models.intervals import Interval
from tangency.models.network import precision
from tangency.models.ops import Activate, Conv, Dense, LayerNorm, MatMul, Reshape, Softmax
from tangency.verify.bounds import Box, bound, certify_robust, margins
from tangency.verify.rigorous.walk import walk
from tangency.verify.spec import margin_spec
from tangency.verify.tightness import local_tightness
from tangency.verify.training import (
    Schedule,
    crown_ibp_loss,
    ibp_loss,
    initialised,
    standard_loss,
    train,
)
from tangency.verify.training.adam import adam_start, adam_step
from tangency.verify.training.intervals import interval_walk
from tangency.verify.training.margins import crown_ibp_margins, ibp_margins
from tangency.verify.training.ranges import activation_range


def random_graph(rng, steps):
    path = Path(__file__).parent / "test_bounds_graphs.py"
    spec = importlib.util.spec_from_file_location("tangency_tests_graphs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.random_graph(rng, steps)


def dense(rng, sizes, activation="relu", dtype="float64"):
    layers = [
        (rng.normal(size=(m, n)).astype(dtype) / np.sqrt(n).astype(dtype), np.zeros(m, dtype))
        for n, m in pairwise(sizes)
    ]
    return from_layers(layers, activation)


def blobs(rng, samples, classes=3, size=6):
    centres = np.random.default_rng(5).normal(size=(classes, size))
    labels = rng.integers(0, classes, samples)
    return (centres[labels] + rng.normal(size=(samples, size)) * 0.25).astype("float32"), labels


def others(values, y):
    """Without the label's own column."""
    keep = np.arange(values.shape[1]) != y[:, None]
    return np.asarray(values)[keep].reshape(len(y), -1)


# --- bounds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sin", "maxmin"])
def test_margins_are_those_of_the_rigorous_walks(name):
    rng = np.random.default_rng(0)
    network = dense(rng, (6, 8, 8, 4), name)
    x, y = rng.normal(size=(5, 6)), np.array([0, 1, 2, 3, 0])
    box = Box.around(x, 0.1)
    with precision("float64"):
        data = (network.structure, dict(network.weights), x, y, 0.1)
        static, data = data[0], data[1:]
        interval = others(jax.jit(partial(ibp_margins, static))(*data), y)
        linear, same = (others(m, y) for m in jax.jit(partial(crown_ibp_margins, static))(*data))
    proved = margins(network, box, y, method="ibp")
    np.testing.assert_allclose(interval, proved, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(same, interval, rtol=1e-12)
    if name == "maxmin":  # there an op of several variables stands for its interval
        points = box.lower[:, None] + rng.random((5, 200, 6)) * 0.2
        scores = network.evaluate(points.reshape(-1, 6)).reshape(5, 200, 4)
        own = np.take_along_axis(scores, y[:, None, None], 2)
        assert (linear <= others((own - scores).min(axis=1), y) + 1e-9).all()
        return
    proved = bound(network, box, spec=margin_spec(y, 4), method="crown-ibp", plain=True).lower
    np.testing.assert_allclose(linear, proved, rtol=1e-6, atol=1e-6)
    assert linear.mean() > interval.mean()


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6))
def test_intervals_are_those_of_the_rigorous_walk(seed):
    rng = np.random.default_rng(seed)
    network = random_graph(rng, 6)
    structure = network.structure
    x = rng.normal(size=(3, *network.input_shape))
    boxes = [Interval(x - 0.1, x + 0.1)] * len(structure.inputs)
    ends = list(range(len(structure.nodes)))
    try:
        proved = walk(network, boxes, ends, keep=True).found
        with precision("float64"):
            pairs = [(b.lower, b.upper) for b in boxes]
            found = interval_walk(structure, dict(network.weights), pairs)
    except (UnsupportedError, InputError):
        return  # an op without a rule in training, or a divisor that may be zero
    # The proved rule of a product of matrices multiplies entry by entry, which is tighter.
    looser = any(isinstance(node.op, MatMul) for node in structure.nodes)
    for i in ends:
        (low, high), (mine_low, mine_high) = (proved[i].lower, proved[i].upper), found[i]
        close = 1e-7 * (1 + np.abs(low).max() + np.abs(high).max())
        assert (np.asarray(mine_low) <= low + close).all()
        assert (np.asarray(mine_high) >= high - close).all()
        if not looser:
            np.testing.assert_allclose(np.asarray(mine_low), low, rtol=0, atol=close)
            np.testing.assert_allclose(np.asarray(mine_high), high, rtol=0, atol=close)


@pytest.mark.parametrize("name", ["reciprocal", "tan", "gcu"])
def test_activations_without_a_range_are_refused(name):
    with pytest.raises(UnsupportedError, match=name):
        activation_range(get(name), np.zeros(1), np.ones(1))


@pytest.mark.parametrize(
    "name",
    ["relu", "gelu", "sin", "cos", "hardshrink", "square", "rational", "sign", "log", "rsqrt"],
)
def test_ranges_are_those_of_the_record(name):
    rng, record = np.random.default_rng(1), get(name)
    low, high = max(record.domain[0], -6.0), min(record.domain[1], 6.0)
    ends = np.sort(rng.uniform(low, high, (2, 200)), axis=0)
    ends[1, :60] = np.minimum(ends[0, :60] + 0.05, high)
    with precision("float64"):
        run = jax.jit(lambda a, b: activation_range(record, a, b))
        found = [np.asarray(v) for v in run(*ends)]
    values = np.asarray(record(ends[0] + np.linspace(0, 1, 101)[:, None] * (ends[1] - ends[0])))
    close = 1e-9 * (1 + np.abs(values).max(axis=0))
    assert (found[0] <= values.min(axis=0) + close).all()
    assert (found[1] >= values.max(axis=0) - close).all()
    proved = record.range_on(*ends)
    assert (found[0] >= proved.lower - close).all()
    assert (found[1] <= proved.upper + close).all()


def test_softmax_keeps_small_entries_beside_large_ones():
    b = Builder("float64")
    network = b.finish([b.emit(Softmax(-1), [b.input((1, 3))])])
    x = np.array([[0.0, -50.0, 90.0], [0.0, 0.1, 0.2]])
    with precision("float64"):
        found = interval_walk(network.structure, {}, [(x - 60, x + 60)])[-1]
    proved = bound(network, Box(x - 60, x + 60))
    np.testing.assert_allclose(np.asarray(found[0]), proved.lower, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(np.asarray(found[1]), proved.upper, rtol=1e-9)


def test_an_op_without_a_rule_is_named():
    b = Builder("float64")
    value = b.emit(LayerNorm((-1,), 1e-3), [b.input((1, 4)).node], view=(1, 4))
    network = b.finish([value])
    with pytest.raises(UnsupportedError, match="layer_norm"):
        ibp_loss(network.structure, dict(network.weights), np.ones((1, 4)), np.array([0]), 0.1)


# --- losses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [ibp_loss, crown_ibp_loss])
def test_robust_losses_lie_above_any_attack(loss):
    rng = np.random.default_rng(2)
    network = dense(rng, (6, 16, 16, 3))
    x, y = rng.random((8, 6)), rng.integers(0, 3, 8)
    with precision("float64"):
        structure, weights = network.structure, dict(network.weights)
        run = jax.jit(
            lambda eps, kappa, clip: loss(
                structure, weights, x, y, eps, kappa=kappa, clip=(-clip, 1.0 + clip)
            )
        )
        clean_of = jax.jit(lambda points: standard_loss(structure, weights, points, y))
        robust, mixed = float(run(0.1, 0.0, 0.0)), float(run(0.1, 0.25, 0.0))
        unclipped, at_points = float(run(0.1, 0.0, 9.0)), float(run(0.0, 0.0, 0.0))
        clean = float(clean_of(x))
        worst = max(
            float(clean_of(np.clip(x + 0.1 * rng.choice([-1, 1], x.shape), 0, 1)))
            for _ in range(50)
        )
    assert clean < worst < robust < unclipped
    assert mixed == pytest.approx(0.25 * clean + 0.75 * robust)
    assert at_points == pytest.approx(clean, rel=1e-9)
    scores = network.evaluate(x)
    by_hand = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(8), y]
    assert clean == pytest.approx(by_hand.mean())


def test_beta_mixes_the_bounds():
    rng = np.random.default_rng(4)
    network = dense(rng, (6, 16, 16, 3))
    x, y = rng.normal(size=(4, 6)), np.array([0, 1, 2, 0])
    with precision("float64"):
        data = (network.structure, dict(network.weights), x, y, 0.1)
        run = jax.jit(lambda beta: (crown_ibp_loss(*data, beta=beta), ibp_loss(*data)))
        (none, interval), (half, _), (full, _) = (run(beta) for beta in (0.0, 0.5, 1.0))
    assert float(none) == pytest.approx(float(interval))
    assert float(full) < float(half) < float(interval)


# --- the parts of the loop --------------------------------------------------------------------


def test_adam_is_torchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, target = rng.normal(size=7), rng.normal(size=7)
    theirs = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.05)
    with precision("float64"):
        mine, state = {"w": jax.numpy.array(start)}, adam_start({"w": jax.numpy.array(start)})
        step = jax.jit(lambda w, s: adam_step(w, {"w": 4 * (w["w"] - target) ** 3}, s, 0.05))
        for _ in range(20):
            optimiser.zero_grad()
            ((theirs - torch.tensor(target)) ** 4).sum().backward()
            torch.nn.utils.clip_grad_norm_([theirs], 10.0)
            optimiser.step()
            mine, state = step(mine, state)
        np.testing.assert_allclose(np.asarray(mine["w"]), theirs.detach().numpy(), rtol=1e-6)


def test_schedule():
    plan = Schedule(0.2, warmup=0.1, ramp=0.4, kappa=(1.0, 0.5), beta=(1.0, 0.0))
    assert plan.radius(0.1) == 0 < plan.radius(0.2) < plan.radius(0.5) == plan.radius(1.0) == 0.2
    assert plan.shares(0.0) == (1.0, 1.0)
    assert plan.shares(0.3) == pytest.approx((0.75, 0.5))
    assert plan.shares(1.0) == (0.5, 0.0)
    assert Schedule(0.2, warmup=0.0, ramp=0.0).radius(0.01) == 0.2
    for wrong in (
        {"eps": -0.1},
        {"eps": float("nan")},
        {"eps": 0.1, "warmup": 0.6, "ramp": 0.6},
        {"eps": 0.1, "kappa": (1.0, 1.5)},
    ):
        with pytest.raises(InputError):
            Schedule(**wrong)


def test_ibp_initialisation_keeps_the_width_of_boxes():
    network = from_layers([np.ones((300, 300)) for _ in range(7)], "relu")
    box = Box.around(np.zeros(300), 1.0)
    widths = {}
    for how in ("ibp", "kaiming"):
        drawn = initialised(network, how=how, seed=1)
        before = bound(drawn, box, keep=True).intermediate
        names = [node.name for node in drawn.structure.nodes if node.op.kind == "activation"]
        widths[how] = [float((before[n][1] - before[n][0]).mean()) for n in names]
    steps = np.array(widths["ibp"])[1:] / np.array(widths["ibp"])[:-1]
    np.testing.assert_allclose(steps, 1.0, atol=0.05)
    steps = np.array(widths["kaiming"])[1:] / np.array(widths["kaiming"])[:-1]
    np.testing.assert_allclose(steps, np.sqrt(300 / np.pi), rtol=0.05)
    assert initialised(network, seed=1) == initialised(network, seed=1)
    with pytest.raises(InputError, match="ibp, kaiming"):
        initialised(network, how="xavier")


# --- training -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    network = dense(rng, (6, 24, 24, 3), dtype="float32")
    x, y = blobs(rng, 320)
    plan = {"eps": 0.3, "epochs": 25, "batch": 32, "rate": 5e-3}
    return {
        loss: train(initialised(network, how="kaiming"), x, y, loss=loss, **plan)
        for loss in ("standard", "ibp", "crown-ibp")
    }


def test_robust_training_raises_certified_accuracy_and_tightness(trained):
    x, y = blobs(np.random.default_rng(1), 100)
    found = {k: certify_robust(t.network, x, y, 0.3, attack="none") for k, t in trained.items()}
    tau = {k: local_tightness(t.network, x, labels=y).mean for k, t in trained.items()}
    assert all(f.clean_accuracy > 0.9 for f in found.values())
    for loss in ("ibp", "crown-ibp"):
        assert found[loss].certified_accuracy > found["standard"].certified_accuracy + 0.2
        assert tau[loss] > 1.5 * tau["standard"]


def test_training_is_told(trained):
    told = trained["ibp"]
    assert told.losses[-1] < 0.5 * told.losses[0]
    assert told.accuracy[-1] > 0.9
    assert told.radii[0] < told.radii[-1] == told.eps == 0.3
    data = json.loads(json.dumps(told.as_dict()))
    assert data["epochs"] == 25
    assert not data["certified"]
    assert told.plot().axes[0].get_ylabel() == "ibp loss"


def test_training_is_repeatable_and_leaves_what_is_not_trainable():
    rng = np.random.default_rng(1)
    b, kernel = Builder("float32"), rng.normal(size=(2, 1, 3, 3)).astype("float32")
    value = b.emit(Conv(), [b.input((1, 1, 4, 4))], {"weight": ("fixed", kernel)}, trainable=False)
    value = b.emit(Reshape((8,)), [b.emit(Activate(get("relu")), [value])])
    head = rng.normal(size=(2, 8)).astype("float32")
    network = b.finish([b.emit(Dense(), [value], {"weight": ("head", head)})])
    x = rng.random((20, 1, 4, 4)).astype("float32")
    y = rng.integers(0, 2, 20)
    seen = []
    first = train(network, x, y, eps=0.05, epochs=2, batch=8, progress=lambda *n: seen.append(n))
    again = train(network, x, y, eps=0.05, epochs=2, batch=8)
    other = train(network, x, y, eps=0.05, epochs=2, batch=8, seed=1)
    assert first.network == again.network != other.network
    assert seen == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(first.network.weights["fixed"], kernel)
    assert not np.array_equal(first.network.weights["head"], head)


def test_wrong_input_is_refused():
    network = dense(np.random.default_rng(0), (4, 5, 3), dtype="float32")
    x, y = np.ones((6, 4), "float32"), np.zeros(6, int)
    wrong = (
        ((None, x, y), {}, "Network"),
        ((network, x[:, :3].copy(), y), {}, "takes"),
        ((network, x, y[:3]), {}, "labels"),
        ((network, x, y + 3), {}, "classes"),
        ((network, x, y.astype(float)), {}, "labels"),
        ((network, x, y), {"loss": "sabr"}, "crown-ibp"),
        ((network, x, y), {"epochs": 0}, "epochs"),
        ((network, x, y), {"eps": -1.0}, "radius"),
    )
    for args, options, message in wrong:
        with pytest.raises(InputError, match=message):
            train(*args, **{"eps": 0.1, **options})
    with pytest.raises(UnsupportedError, match="scores"):
        train(from_layers([np.ones((1, 4), "float32")]), x, y, eps=0.1)
    with pytest.raises(InputError, match="smaller rate"):
        train(network, x * 3e38, y, eps=0.1, epochs=1)
