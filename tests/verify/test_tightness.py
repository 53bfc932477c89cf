"""Tightness of interval bounds: local, true, at initialisation, and where it is one."""

import importlib.util
import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from tangency.models import Builder, InputError, UnsupportedError, from_layers
from tangency.models.activations import get
from tangency.models.ops import Activate, Add, Conv, Dense, Prelu, Reshape, numpy_backend
from tangency.verify.bounds import Box, bound
from tangency.verify.tightness import (
    depth_bound,
    embedding_experiment,
    expected_growth,
    expected_tightness,
    initial_tightness,
    local_tightness,
    opposed_minors,
    path_signs,
    train_reconstruction,
    true_tightness,
)


def matrices(rng, sizes):
    return [rng.normal(size=(m, n)) for n, m in pairwise(sizes)]


def dense(rng, sizes, activation="relu"):
    return from_layers([(w, rng.normal(size=len(w))) for w in matrices(rng, sizes)], activation)


def random_graph(rng, steps):
    path = Path(__file__).parent / "test_bounds_graphs.py"
    spec = importlib.util.spec_from_file_location("tangency_tests_graphs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.random_graph(rng, steps)


def convolutional(rng):
    """A convolution, a leaky ReLU, a skip connection, a PReLU and a head."""
    b = Builder("float64")
    x = b.input((1, 1, 3, 3))
    conv = Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    weight = {"weight": ("conv", rng.normal(size=(1, 1, 3, 3)))}
    bent = b.emit(Activate(get("leaky_relu")), [b.emit(conv, [x], weight)])
    both = b.emit(Prelu(0), [b.emit(Add(), [bent, x])], {"slope": ("slope", np.array([0.3]))})
    flat = b.emit(Reshape((9,)), [both])
    head = {"weight": ("head", rng.normal(size=(3, 9))), "bias": ("b", rng.normal(size=3))}
    return b.finish([b.emit(Dense(), [flat], head)])


# --- local tightness --------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, np.array([0, 2, 1, 0])])
def test_local_tightness_is_the_formula(labels):
    rng = np.random.default_rng(0)
    w1, w2, w3 = matrices(rng, (5, 9, 8, 3))
    b1, b2 = rng.normal(size=9), rng.normal(size=8)
    network = from_layers([(w1, b1), (w2, b2), w3], "relu")
    x, eps = rng.normal(size=(4, 5)), rng.random(5)
    found = local_tightness(network, x, labels=labels, eps=eps)
    plain = local_tightness(network, x, labels=labels, eps=eps, linear=True)
    for i in range(4):
        last = w3 if labels is None else np.delete(w3[labels[i]] - w3, labels[i], axis=0)
        h1 = w1 @ x[i] + b1
        h2 = w2 @ np.maximum(h1, 0) + b2
        for result, d1, d2 in ((found, h1 > 0, h2 > 0), (plain, h1 == h1, h2 == h2)):
            best = np.abs(last * d2 @ w2 * d1 @ w1) @ eps
            box = np.abs(last * d2) @ (np.abs(w2 * d1) @ (np.abs(w1) @ eps))
            np.testing.assert_allclose(result.optimal[i], best, rtol=1e-12)
            np.testing.assert_allclose(result.interval[i], box, rtol=1e-12)
            np.testing.assert_allclose(result.tau[i], best / box, rtol=1e-12)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6))
def test_local_tightness_is_the_limit_of_small_boxes(seed):
    rng = np.random.default_rng(seed)
    network = random_graph(rng, 4)
    nodes = network.structure.nodes
    if any(node.op.kind == "layer_norm" for node in nodes):
        return  # its interval rule bounds numerator and denominator apart, which is looser
    x, eps = rng.normal(size=(2, *network.input_shape)), 1e-7
    values = network.structure.values(numpy_backend(), network.weights, [x])
    bent = [values[node.inputs[0]] for node in nodes if isinstance(node.op, Activate | Prelu)]
    if any(np.abs(v).min() < 1e-4 for v in bent):
        return  # at a kink, where an entry minus itself stands, a box has two sides
    found = local_tightness(network, x)
    box = bound(network, Box.around(x, eps))
    wide = (box.upper - box.lower).reshape(2, -1) / (2 * eps)
    np.testing.assert_allclose(found.interval, wide, rtol=1e-4, atol=1e-5 * wide.max())
    assert (found.optimal <= found.interval * (1 + 1e-9) + 1e-12).all()
    for i in range(2):  # the optimum by differences, coordinate by coordinate
        moves = (1e-6 * np.eye(x[i].size)).reshape(-1, *x[i].shape)
        steps = (network.evaluate(x[i] + moves) - network.evaluate(x[i] - moves)) / 2e-6
        best = np.abs(steps.reshape(len(moves), -1)).sum(axis=0)
        np.testing.assert_allclose(found.optimal[i], best, rtol=1e-4, atol=1e-5 * best.max())


def test_monotone_networks_are_exact():
    rng = np.random.default_rng(1)
    layers = [(np.abs(w), 5 + rng.normal(size=len(w))) for w in matrices(rng, (4, 8, 8, 2))]
    network, x = from_layers(layers, "relu"), rng.normal(size=(3, 4))
    np.testing.assert_allclose(local_tightness(network, x).tau, 1.0, rtol=1e-12)
    exact = true_tightness(network, x, 0.5)
    np.testing.assert_allclose(exact.tau, 1.0, rtol=1e-6)
    assert exact.lower.max() <= exact.upper.max() <= 1 + 1e-6


def test_where_a_network_is_constant_there_is_no_tightness():
    network = from_layers([(np.ones((2, 2)), -np.ones(2) * 9), np.ones((1, 2))], "relu")
    found = local_tightness(network, np.zeros((1, 2)))
    assert np.isnan(found.tau).all()
    assert np.isnan(found.mean)


# --- true tightness -----------------------------------------------------------------------------


def by_milp(network, low, high, row):
    """The range of ``row . output`` of a dense ReLU net by big-M, independent of our search."""
    sizes = [network.weights[f"layer{i}.weight"].shape for i in range(3)]
    n, (a, b) = sizes[0][1], (sizes[0][0], sizes[1][0])
    w = [network.weights[f"layer{i}.weight"] for i in range(3)]
    c = [network.weights[f"layer{i}.bias"] for i in range(3)]
    big, count = 1e3, n + 2 * (a + b)  # x, h1, h2 and a switch for each ReLU
    rows, lower, upper = [], [], []
    for i, (size, place, before) in enumerate(((a, n, 0), (b, n + a, n))):
        for k in range(size):
            pre = np.zeros(count)
            pre[before : before + w[i].shape[1]] = w[i][k]
            own, switch = np.zeros(count), np.zeros(count)
            own[place + k], switch[n + a + b + i * a + k] = 1, 1
            rows += [own - pre, own - pre + big * switch, own - big * switch]
            lower += [c[i][k], -np.inf, -np.inf]
            upper += [np.inf, c[i][k] + big, 0.0]
    ends = np.concatenate([np.stack([low, high]), np.tile([[0], [big]], count - n)], axis=1)
    ends[1, n + a + b :] = 1
    aim = np.zeros(count)
    aim[n + a : n + a + b] = row @ w[2]
    whole = np.arange(count) >= n + a + b
    values = [
        sign
        * milp(
            sign * aim,
            constraints=LinearConstraint(np.array(rows), lower, upper),
            bounds=tuple(ends),
            integrality=whole,
        ).fun
        for sign in (1, -1)
    ]
    return np.array(values) + row @ c[2]


def test_true_tightness_is_that_of_integer_programs():
    rng = np.random.default_rng(2)
    network, x, y = dense(rng, (3, 7, 6, 3)), rng.normal(size=(2, 3)), np.array([1, 2])
    found = true_tightness(network, x, 0.4, labels=y)
    assert found.gap < 1e-6
    for i in range(2):
        others = np.delete(np.arange(3), y[i])
        for s, j in enumerate(others):
            row = np.eye(3)[y[i]] - np.eye(3)[j]
            low, high = by_milp(network, x[i] - 0.4, x[i] + 0.4, row)
            assert (high - low) / 2 == pytest.approx(found.optimal_upper[i, s], rel=1e-5)
    assert ((found.lower >= 0) & (found.upper <= 1 + 1e-9)).all()


def test_one_input_is_exact_at_its_breakpoints():
    rng = np.random.default_rng(3)
    network = dense(rng, (1, 12, 10, 2))
    found = true_tightness(network, np.zeros((1, 1)), 2.0)
    line = np.linspace(-2, 2, 400_001)[:, None]
    values = network.evaluate(line)
    sampled = (values.max(axis=0) - values.min(axis=0)) / 2
    assert (sampled <= found.optimal_upper[0] + 1e-9).all()
    np.testing.assert_allclose(sampled, found.optimal_lower[0], rtol=1e-3)


def test_leaky_skips_and_convolutions_and_clip():
    rng = np.random.default_rng(4)
    network, x = convolutional(rng), rng.random((1, 1, 3, 3))
    found = true_tightness(network, x, 0.3, clip=(0.0, 1.0))
    corners = np.array(list(product((0, 1), repeat=9))).reshape(-1, 1, 3, 3)
    low, high = np.maximum(x - 0.3, 0), np.minimum(x + 0.3, 1)
    values = network.evaluate(np.where(corners == 1, high, low))
    attained = (values.max(axis=0) - values.min(axis=0)) / 2
    assert (attained <= found.optimal_upper[0] + 1e-9).all()
    assert (attained >= 0.8 * found.optimal_upper[0]).all()
    assert found.gap < 1e-6


def test_small_balls_have_the_local_tightness_and_an_unfinished_search_encloses():
    rng = np.random.default_rng(5)
    network, x, y = dense(rng, (4, 10, 10, 3)), rng.normal(size=(2, 4)), np.array([0, 1])
    near = true_tightness(network, x, 1e-5, labels=y)
    local = local_tightness(network, x, labels=y)
    np.testing.assert_allclose(near.tau, local.tau, rtol=1e-4)
    exact = true_tightness(network, x, 0.7, labels=y)
    early = true_tightness(network, x, 0.7, labels=y, nodes=1)
    assert early.gap > 1e-3 > exact.gap
    assert (early.lower <= exact.upper + 1e-7).all()
    assert (early.upper >= exact.lower - 1e-7).all()
    crown = true_tightness(network, x, 0.7, labels=y, method="crown")
    assert crown.mean > exact.mean


def test_true_tightness_refuses_what_it_cannot_search():
    rng = np.random.default_rng(6)
    smooth = from_layers(matrices(rng, (2, 3, 1)), "tanh")
    with pytest.raises(UnsupportedError, match="tanh"):
        true_tightness(smooth, np.zeros(2), 0.1)
    with pytest.raises(UnsupportedError, match="group_sort"):
        true_tightness(from_layers(matrices(rng, (2, 4, 1)), "maxmin"), np.zeros(2), 0.1)
    with pytest.raises(UnsupportedError, match="2,000"):
        true_tightness(from_layers(matrices(rng, (2, 2000, 1))), np.zeros(2), 0.1)
    small = from_layers(matrices(rng, (2, 3, 1)), "relu")
    for eps in (0.0, -1.0, float("nan"), np.ones(2)):
        with pytest.raises(InputError, match="radius"):
            true_tightness(small, np.zeros(2), eps)
    with pytest.raises(InputError, match="takes"):
        local_tightness(small, np.zeros(3))
    with pytest.raises(InputError, match="radii"):
        local_tightness(small, np.zeros(2), eps=-1.0)
    with pytest.raises(InputError, match="scores"):
        local_tightness(small, np.zeros((1, 2)), labels=np.array([0]))
    with pytest.raises(InputError, match="Network"):
        local_tightness(None, np.zeros(2))


# --- invariance -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_path_signs_tell_where_integer_networks_are_exact(seed, hidden):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, hidden + 2)
    chain = [rng.integers(-1, 3, (m, n)).astype(float) for n, m in pairwise(sizes)]
    signed, size = np.eye(sizes[0]), np.eye(sizes[0])
    for w in chain:
        signed, size = w @ signed, np.abs(w) @ size  # integers: no rounding
    found = path_signs(chain)
    np.testing.assert_array_equal(found.mixed, np.abs(signed) != size)
    pure = ~found.mixed
    np.testing.assert_array_equal(found.signs[pure], np.sign(signed)[pure])
    assert found.invariant == bool((np.abs(signed) == size).all())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_opposed_minors_are_witnesses(seed):
    rng = np.random.default_rng(seed)
    first = rng.integers(-1, 2, (2, 3)).astype(float)
    second = rng.integers(-1, 2, (3, 2)).astype(float)
    found = {tuple(row) for row in opposed_minors(first, second).tolist()}
    w = second @ first
    expected = set()
    for i, k in ((0, 1), (0, 2), (1, 2)):
        for a, b in ((0, 1), (0, 2), (1, 2)):
            through = [second[i, u] * second[k, u] * first[u, a] * first[u, b] for u in range(2)]
            if any(through) and w[i, a] * w[i, b] * w[k, a] * w[k, b] < 0:
                expected.add((i, k, a, b))
    assert found == expected
    if found:
        assert not path_signs([first, second]).invariant


def test_two_layers_and_their_minors():
    corner = np.array([[1.0, 1.0], [1.0, -1.0]])
    # A minor of negative product alone is no witness: behind the identity all is invariant.
    assert path_signs([corner, np.eye(2)]).invariant
    assert len(opposed_minors(corner, np.eye(2))) == 0
    rng = np.random.default_rng(7)
    u, v = rng.normal(size=6), rng.normal(size=4)
    outer, inner = np.abs(rng.normal(size=(6, 5))), np.abs(rng.normal(size=(5, 4)))
    rank_one_signs = [inner * np.sign(v), outer * np.sign(u)[:, None]]
    assert path_signs(rank_one_signs).invariant
    assert len(opposed_minors(*rank_one_signs)) == 0
    wide = [rng.normal(size=(30, 4)), rng.normal(size=(6, 30))]
    assert not path_signs(wide).invariant
    assert len(opposed_minors(*wide)) > 0
    network = from_layers(rank_one_signs, "identity")
    np.testing.assert_allclose(local_tightness(network, np.zeros(4)).tau, 1.0, rtol=1e-12)
    for wrong in ([], [np.ones(3)], [np.ones((2, 3)), np.ones((2, 3))], [np.full((1, 1), np.nan)]):
        with pytest.raises(InputError):
            path_signs(wrong)
    with pytest.raises(InputError, match="minors"):
        opposed_minors(np.ones((1, 100)), np.ones((100, 1)))


# --- initialisation and embedding ---------------------------------------------------------------


def test_expected_tightness_is_the_published_table():
    for width, value in ((2, 0.785), (8, 0.430), (32, 0.2198), (128, 0.1106), (512, 0.0554)):
        assert expected_tightness(width) == pytest.approx(value, rel=2e-3)
    for width in (64, 256, 1024):
        ratio = expected_tightness(width, network="relu") / expected_tightness(width)
        assert ratio == pytest.approx(np.sqrt(2), rel=1 / width)
    slope = np.log(expected_tightness([100] * 9)) - np.log(expected_tightness([100] * 8))
    assert slope == pytest.approx(np.log(np.sqrt(np.pi / 200)), abs=0.01)
    for layers in range(2, 12):
        exact = expected_tightness([16] * (layers - 1))
        assert exact <= depth_bound(16, layers) * (1 + 1e-12)
    assert expected_tightness(1) == pytest.approx(1.0)


@pytest.mark.parametrize("network", ["linear", "relu"])
def test_drawn_networks_have_the_expected_tightness(network):
    across = initial_tightness([4, 16, 64], network=network, draws=200)
    deep = initial_tightness(12, layers=[2, 3, 5], network=network, draws=400, outputs=8)
    for found in (across, deep):
        assert (np.abs(found.ratio - found.expected) < 4.5 * found.error).all()
        assert (found.error < 0.1 * found.expected).all()
    assert across.tau[0] > across.tau[1] > across.tau[2]
    assert across.plot().axes[0].get_xlabel() == "hidden width"
    assert deep.plot().axes[0].get_xlabel() == "layers"
    assert json.loads(json.dumps(deep.as_dict()))["layers"] == [2, 3, 5]


def test_drawn_tightness_is_that_of_the_networks():
    """The draws compute the same quantity as local_tightness."""
    rng = np.random.default_rng(0)
    layers = [w / np.sqrt(w.shape[1]) for w in matrices(rng, (64, 64, 64, 16))]
    network, x = from_layers(layers, "relu"), rng.normal(size=(20, 64))
    found = initial_tightness(64, layers=3, network="relu", draws=50)
    assert local_tightness(network, x).mean == pytest.approx(found.tau[0], rel=0.05)


def test_embeddings_grow_as_expected():
    found = embedding_experiment(100, (1, 10, 40, 100), draws=12)
    np.testing.assert_allclose(found.interval, found.expected_interval, rtol=0.04)
    np.testing.assert_allclose(found.optimal, found.expected_optimal, rtol=0.04)
    assert found.optimal[-1] == pytest.approx(1.0)  # all of the space: the identity
    assert found.tau[0] == pytest.approx(1.0)  # rank one: invariant
    for d, k in ((400, 5), (400, 80), (100, 40)):
        interval, optimal = expected_growth(d, k)
        assert interval == pytest.approx(2 * k / np.pi, rel=0.05)
        assert optimal == pytest.approx(k / d + np.sqrt(2 * k * (d - k) / (np.pi * d)), rel=0.06)
    for wrong in ((1, 1), (10, 11), (10, 0), (10, 2.5)):
        with pytest.raises(InputError):
            expected_growth(*wrong)
    assert json.loads(json.dumps(found.as_dict()))["inputs"] == 100


def test_reconstruction_trained_on_intervals_is_tighter_than_components():
    rng = np.random.default_rng(9)
    basis = np.linalg.qr(rng.normal(size=(24, 6)))[0]
    x = rng.normal(size=(200, 6)) @ basis.T
    found = {w: train_reconstruction(x, w, 0.02, steps=600, rate=0.01) for w in (1, 6, 12)}
    for w, result in found.items():
        assert result.growth < result.pca_growth or w == 1
        assert result.tau >= result.pca_tau - 1e-9
        assert result.losses[-1] < 0.5 * result.losses[0]
        # On the loss that was descended it beats the components.
        radius = 0.02 * np.abs(result.decoder) @ np.abs(result.encoder).sum(axis=1)
        error = np.abs(x @ result.encoder.T @ result.decoder.T - x)
        assert ((error + radius) ** 2).mean() <= 1.01 * result.losses[-1]
    assert found[1].tau == pytest.approx(1.0)
    assert found[6].tau > 1.5 * found[6].pca_tau
    assert found[6].error < 1e-6 + 0.1 * found[1].error
    parts = np.linalg.svd(x)[2][:6]
    box = np.abs(parts.T) @ np.abs(parts).sum(axis=1)
    assert found[6].pca_growth == found[12].pca_growth == pytest.approx(box.mean())
    assert found[6].plot().axes
    assert json.loads(json.dumps(found[6].as_dict()))["width"] == 6
    for wrong in ((x[0], 2, 0.1), (x, 0, 0.1), (x, 2, -1.0)):
        with pytest.raises(InputError):
            train_reconstruction(*wrong)


def test_results_draw_themselves():
    rng = np.random.default_rng(8)
    network, x = dense(rng, (2, 4, 2)), rng.normal(size=(2, 2))
    local, exact = local_tightness(network, x), true_tightness(network, x, 0.3)
    signs = path_signs(matrices(rng, (2, 4, 2)))
    for result in (local, exact, signs, embedding_experiment(10, (2, 4), draws=1)):
        assert result.plot().axes
        json.dumps(result.as_dict())
    with pytest.raises(InputError, match="linear, relu"):
        expected_tightness(3, network="tanh")
    with pytest.raises(InputError, match="layers"):
        initial_tightness(3, layers=1)
    with pytest.raises(InputError, match="width"):
        expected_tightness(0)
