"""Linear bounds against exact ranges, attacks and corners; balls; robustness; what is refused."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy.optimize import linprog

from tangency.models import Builder, InputError, from_layers
from tangency.models.activations import get
from tangency.models.ops import Activate, Add, Constant, Product
from tangency.verify import Ball, Box, bound, certify_robust, margins
from tangency.verify.bounds.attack import candidates
from tangency.verify.bounds.perturbations import Perturbations
from tangency.verify.spec import margin_spec

METHODS = ("crown-ibp", "crown", "forward")


def random_layers(rng, widths, *, positive=False):
    layers = []
    for n, m in pairwise(widths):
        w, b = rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m) / 2
        layers.append((np.abs(w) if positive else w, b))
    return layers


def exact_range(layers, low, high):
    """Range of each output of a ReLU network with one hidden layer, by all activation patterns."""
    (w, b), (v, c) = layers
    best = np.full((2, len(c)), [[np.inf], [-np.inf]])
    for pattern in product((0.0, 1.0), repeat=len(b)):
        on = np.array(pattern)
        sign = 1 - 2 * on  # on: w x + b >= 0
        maps, shifts = (v * on) @ w, v @ (on * b) + c
        for k in range(len(c)):
            for side, s in enumerate((1.0, -1.0)):
                done = linprog(
                    s * maps[k],
                    sign[:, None] * w,
                    -sign * b,
                    bounds=list(zip(low, high, strict=True)),
                )
                if done.status == 0:
                    pick = min if side == 0 else max
                    best[side, k] = pick(best[side, k], maps[k] @ done.x + shifts[k])
    return best


@pytest.mark.parametrize("seed", range(3))
def test_exact_ranges_of_tiny_networks_are_enclosed(seed):
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, (2, 5, 2))
    network = from_layers(layers, "relu")
    x = rng.normal(size=2)
    for eps in (1e-3, 0.5):
        box = Box.around(x, eps)
        low, high = exact_range(layers, box.lower, box.upper)
        for method in METHODS:
            found = bound(network, box, method=method)
            assert (found.lower[0] <= low + 1e-9).all()
            assert (found.upper[0] >= high - 1e-9).all()
            if eps == 1e-3:  # every sign is known: the network is affine on the box
                assert np.abs(found.lower[0] - low).max() <= 1e-8
                assert np.abs(found.upper[0] - high).max() <= 1e-8


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "maxmin"])
def test_monotone_networks_are_exact(method, activation):
    """With weights >= 0 intervals are exact, and no default bound is looser than they are."""
    rng = np.random.default_rng(0)
    network = from_layers(random_layers(rng, (20, 30, 30, 6), positive=True), activation)
    box = Box.around(rng.normal(size=(5, 20)), 0.3)
    found = bound(network, box, method=method)
    low, high = network.evaluate(box.lower), network.evaluate(box.upper)
    assert np.abs(found.lower - low).max() <= 1e-12 * np.abs(low).max()
    assert np.abs(found.upper - high).max() <= 1e-12 * np.abs(high).max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "maxmin", "softplus"])
def test_attacks_and_corners_stay_inside(method, activation):
    rng = np.random.default_rng(1)
    network = from_layers(random_layers(rng, (8, 12, 12, 4)), activation)
    x = rng.normal(size=(6, 8))
    labels = network.evaluate(x).argmax(axis=1)
    box = Box.around(x, 0.3)
    proved = margins(network, box, labels, method=method)
    plain = margins(network, box, labels, method=method, plain=True)
    spec = margin_spec(labels, 4)
    weakest = proved.argmin(axis=1)
    targets = weakest + (weakest >= labels)
    attained = np.inf
    for attack in ("pgd", "corners"):
        balls = Perturbations(x, 0.3, "inf", None)
        for point in candidates(network, balls, labels, targets, attack=attack, seed=0):
            value = (spec @ network.evaluate(point)[..., None])[..., 0]
            attained = np.minimum(attained, value)
    assert (proved <= attained + 1e-9).all()
    assert (plain <= attained + 1e-9).all()
    assert (attained - proved).mean() <= 4.0 * (attained.max() - attained.min())


def test_tighter_by_method():
    """Intervals, CROWN over intervals, CROWN: mean widths fall, over a deep network by factors."""
    rng = np.random.default_rng(2)
    network = from_layers(random_layers(rng, (10, 40, 40, 40, 5)), "relu")
    box = Box.around(rng.normal(size=(8, 10)), 0.05)
    widths = []
    for method in ("ibp", "crown-ibp", "crown"):
        found = bound(network, box, method=method)
        widths.append(np.mean(found.upper - found.lower))
    assert widths[0] > 1.5 * widths[1] > 1.5 * widths[2]


# --- balls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", [1, 2])
def test_affine_maps_of_balls_are_exact(norm, method):
    """The range is the value at the centre +- eps times the dual norm of the row."""
    rng = np.random.default_rng(3)
    (w, b), (v, c) = random_layers(rng, (7, 9, 4))
    network = from_layers([(w, b), (v, c)], "identity")
    x, eps = rng.normal(size=(3, 7)), np.array([0.0, 0.1, 2.0])
    found = bound(network, Ball(x, eps, norm), method=method, plain=True)
    rows = v @ w
    dual = np.abs(rows).max(axis=1) if norm == 1 else np.linalg.norm(rows, axis=1)
    middle = x @ rows.T + v @ b + c
    assert np.allclose(found.lower, middle - eps[:, None] * dual, rtol=0, atol=1e-11)
    assert np.allclose(found.upper, middle + eps[:, None] * dual, rtol=0, atol=1e-11)
    assert found.as_dict()["norm"] == f"l{norm}"


@pytest.mark.parametrize("norm", [1, 2])
def test_balls_are_much_smaller_than_their_boxes(norm):
    rng = np.random.default_rng(4)
    network = from_layers(random_layers(rng, (60, 30, 30, 3)), "relu")
    x = rng.normal(size=(4, 60))
    ball = bound(network, Ball(x, 0.2, norm), method="crown")
    box = bound(network, Box.around(x, 0.2), method="crown")
    assert (ball.lower >= box.lower - 1e-12).all()
    assert (ball.upper <= box.upper + 1e-12).all()
    assert np.mean(ball.upper - ball.lower) <= 0.5 * np.mean(box.upper - box.lower)
    ibp = bound(network, Ball(x, 0.2, norm))
    assert np.allclose(ibp.lower, bound(network, Box.around(x, 0.2)).lower)


def test_a_clipped_ball_and_two_kinds_of_input():
    rng = np.random.default_rng(5)
    network = from_layers(random_layers(rng, (6, 8, 2)), "relu")
    x = rng.random((3, 6))
    clipped = bound(network, Ball(x, 0.4, clip=(0.0, 1.0)), method="crown")
    whole = bound(network, Ball(x, 0.4), method="crown")
    assert (clipped.lower >= whole.lower - 1e-12).all()
    assert (clipped.upper < whole.upper - 1e-6).any()


def test_what_balls_refuse():
    x = np.zeros((2, 3))
    for bad, text in (
        ({"norm": np.inf}, "Box.around"),
        ({"eps": -1.0}, "radius"),
        ({"eps": np.array([1.0, 2.0, 3.0])}, "3 radii for 2 samples"),
        ({"eps": np.nan}, "radius"),
        ({"eps": np.ones((2, 3))}, "one a sample"),
        ({"clip": (1.0, 2.0)}, "clip"),
    ):
        with pytest.raises(InputError, match=text):
            Ball(**{"center": x, "eps": 0.1, **bad})
    with pytest.raises(InputError, match="NaN"):
        Ball(np.full(3, np.nan), 0.1)
    with pytest.raises(InputError, match="float64"):
        Ball(np.zeros(3, dtype=int), 0.1)


# --- options and robustness -----------------------------------------------------------------------


def test_options_are_checked():
    network = from_layers([np.eye(2)])
    box = Box(np.zeros(2), np.ones(2))
    for options, text in (
        ({"method": "magic"}, "crown-ibp"),
        ({"mode": "none"}, "joint"),
        ({"steps": 0}, "steps"),
        ({"steps": True}, "steps"),
    ):
        with pytest.raises(InputError, match=text):
            bound(network, box, **options)
    for low, high in ((np.inf, np.inf), (-np.inf, 0.0), (1.0, 0.0), (0.0, np.nan)):
        with pytest.raises(InputError):
            bound(network, Box(np.array([low, 0.0]), np.array([high, 1.0])), method="crown")
    with pytest.raises(InputError, match="shape"):
        bound(network, Box(np.zeros(3), np.ones(3)), method="crown")
    with pytest.raises(InputError, match="Ball"):
        bound(network, np.zeros(2), method="crown")


@pytest.mark.parametrize("method", METHODS)
def test_certified_robustness(method):
    rng = np.random.default_rng(6)
    network = from_layers(random_layers(rng, (6, 16, 3)), "relu")
    x = rng.normal(size=(20, 6))
    labels = network.evaluate(x).argmax(axis=1)
    done = certify_robust(network, x, labels, 0.1, method=method, batch=8)
    ibp = certify_robust(network, x, labels, 0.1, batch=8, attack="none")
    assert done.certified
    assert done.method == method
    assert (done.margin_lower <= done.margin_upper + 1e-12).all()
    assert (done.margin_lower >= ibp.margin_lower - 1e-9).all()
    assert done.verified.sum() > ibp.verified.sum()
    assert not (done.verified & done.attacked).any()
    assert (done.lower <= network.evaluate(x) + 1e-12).all()
    low = margins(network, Box.around(x, 0.1), labels, method=method).min(axis=1)
    assert np.allclose(low, done.margin_lower, rtol=0, atol=1e-9)


def test_specifications_of_one_box_and_of_each_sample():
    rng = np.random.default_rng(7)
    network = from_layers(random_layers(rng, (5, 9, 9, 3)), "relu")
    spec = rng.normal(size=(4, 2, 3))
    for options in ({"method": "crown"}, {"method": "crown", "plain": True}, {"method": "forward"}):
        alone = Box.around(rng.normal(size=5), 0.1)
        many = Box(np.repeat(alone.lower[None], 4, 0), np.repeat(alone.upper[None], 4, 0))
        shared = bound(network, alone, spec=spec, **options)
        each = bound(network, many, spec=spec, **options)
        assert shared.lower.shape == (4, 2)
        assert np.allclose(shared.lower, each.lower, rtol=0, atol=1e-11)
        assert np.allclose(shared.upper, each.upper, rtol=0, atol=1e-11)
        flipped = bound(network, many, spec=-spec, **options)
        assert np.allclose(flipped.lower, -each.upper, rtol=0, atol=1e-11)


# --- estimates and searched slopes ------------------------------------------------------------


def test_estimates_agree_with_what_is_proved():
    rng = np.random.default_rng(8)
    network = from_layers(random_layers(rng, (6, 10, 3)), "relu").astype("float32")
    box = Box.around(rng.normal(size=(4, 6)), 0.2)
    proved = bound(network, box, method="crown")
    guess = bound(network, box, method="crown", rigorous=False)
    assert proved.certified
    assert not guess.certified
    assert np.allclose(proved.lower, guess.lower, rtol=0, atol=1e-5)
    assert np.allclose(proved.upper, guess.upper, rtol=0, atol=1e-5)
    for method in ("ibp", "forward"):  # these always are
        assert bound(network, box, method=method, rigorous=False).certified


def test_searched_slopes_are_proved():
    """Slopes of a float32 search give margins that are larger than CROWN's, and true.

    Larger again where the boxes of the hidden layers are searched too.
    """
    rng = np.random.default_rng(9)
    network = from_layers(random_layers(rng, (6, 16, 16, 3)), "relu").astype("float32")
    box = Box.around(rng.normal(size=(5, 6)), 0.3)
    labels = np.zeros(5, dtype=int)
    points = rng.uniform(box.lower, box.upper, size=(2000, 5, 6))
    y = network.astype("float64").evaluate(points.reshape(-1, 6)).reshape(2000, 5, 3)
    attained = (y[..., :1] - y[..., 1:]).min(axis=0)
    low = margins(network, box, labels, method="crown")
    for mode in ("last", "joint"):
        better = margins(network, box, labels, method="alpha-crown", steps=10, mode=mode)
        assert (better <= attained).all()
        assert mode == "joint" or (better >= low - 1e-5).all()
        assert better.mean() > low.mean() + 0.05 * (attained - low).mean()
        low = better


@pytest.mark.parametrize("method", ["ibp", *METHODS])
def test_several_inputs_and_outputs(method):
    """An input, a constant, a function of a constant and two functions of both inputs come out."""
    b = Builder("float64")
    x, y = b.input((1, 3)), b.input((1,))
    c = b.emit(Constant(), [], {"value": ("c", np.arange(2.0))})
    s = b.emit(Add(), [b.emit(Activate(get("relu")), [b.dense(x, np.ones((2, 3)))]), c])
    e = b.emit(Activate(get("exp")), [c])
    network = b.finish([x, c, s, b.emit(Product(), [s, y]), e])
    sets = (Box(np.zeros((2, 3)), np.ones((2, 3))), Ball(np.array(1.0), 0.5))
    wanted = [(0, 1), ([0, 1], [0, 1]), ([0, 1], [3, 4]), ([0, 0.5], [4.5, 6]), None]
    for plain in (False, True):
        found = bound(network, sets, method=method, plain=plain)
        for pair, ends in zip(found.outputs, wanted, strict=True):
            assert pair[0].shape[0] == pair[1].shape[0] == 2
            low, high = ends or (np.exp([0, 1]),) * 2
            assert np.allclose(pair[0], low, rtol=0, atol=1e-12)
            assert np.allclose(pair[1], high, rtol=0, atol=1e-12)
