"""Certified robustness: never against an attack that succeeds, and honest about its input."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tangency.models import Builder, InputError, from_layers
from tangency.models.ops import Softmax
from tangency.verify.bounds import Box, bound, certify_robust, margins


def blobs(rng, samples, classes=3, size=6):
    """A network of random features that fits Gaussian clusters, and samples of them."""
    centres = rng.normal(size=(classes, size)) * 2
    labels = rng.integers(0, classes, samples)
    x = centres[labels] + rng.normal(size=(samples, size)) * 0.9
    w, b = rng.normal(size=(40, size)) * 0.3, rng.normal(size=40)
    h = np.maximum(x @ w.T + b, 0)
    h = np.concatenate([h, np.ones((samples, 1))], axis=1)
    last = np.linalg.solve(h.T @ h + 0.1 * np.eye(41), h.T @ np.eye(classes)[labels]).T
    layers = [(w, b), (np.ascontiguousarray(last[:, :-1]), np.ascontiguousarray(last[:, -1]))]
    return layers, x, labels


@pytest.fixture(scope="module")
def problem():
    return blobs(np.random.default_rng(0), 90)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("attack", ["pgd", "corners", "none"])
def test_never_certified_and_refuted(problem, dtype, attack):
    layers, x, labels = problem
    network = from_layers([(w.astype(dtype), b.astype(dtype)) for w, b in layers], "relu")
    certified = []
    for eps in (0.0, 0.1, 0.2, 1.0):
        found = certify_robust(network, x, labels, eps, attack=attack, batch=40)
        assert not (found.verified & found.attacked).any()
        assert (found.margin_lower <= found.margin_upper).all()
        assert found.certified_accuracy <= found.attacked_accuracy <= found.clean_accuracy
        certified.append(found.certified_accuracy)
    assert certified == sorted(certified, reverse=True)
    assert certified[0] == found.clean_accuracy > 0.8  # at eps = 0 everything is decided
    assert 0 < certified[2] < certified[0]
    assert certified[3] == 0


def test_attack_points_are_in_the_ball_and_hurt(problem):
    layers, x, labels = problem
    network = from_layers(layers, "relu")
    none, corners, pgd = (
        certify_robust(network, x, labels, 1.0, attack=a) for a in ("none", "corners", "pgd")
    )
    assert (pgd.margin_upper <= none.margin_upper).all()
    assert pgd.margin_upper.mean() < corners.margin_upper.mean() < none.margin_upper.mean()
    assert pgd.attacked_accuracy < pgd.clean_accuracy


def test_linear_classifier_is_decided_exactly():
    """Of one affine layer the certificate and the attack meet."""
    rng = np.random.default_rng(1)
    network = from_layers([(rng.normal(size=(4, 9)), rng.normal(size=4))])
    x = rng.normal(size=(30, 9))
    labels = network.evaluate(x).argmax(axis=1)
    found = certify_robust(network, x, labels, 0.05)
    assert (found.verified ^ found.attacked).all()
    assert found.margin_upper == pytest.approx(found.margin_lower, rel=1e-9)


def test_clip_shrinks_the_ball(problem):
    layers, x, labels = problem
    network = from_layers(layers, "relu")
    x = np.clip(x, 0, 1)
    free = certify_robust(network, x, labels, 0.05, attack="none")
    clipped = certify_robust(network, x, labels, 0.05, attack="none", clip=(0.0, 1.0))
    assert (clipped.margin_lower >= free.margin_lower).all()
    assert (clipped.margin_lower > free.margin_lower).any()


def test_progress_result_and_plot(problem):
    layers, x, labels = problem
    network = from_layers(layers, "relu")
    calls = []
    found = certify_robust(
        network, x, labels, 0.01, batch=50, progress=lambda i, n: calls.append((i, n))
    )
    assert calls == [(50, 90), (90, 90)]
    y = network.evaluate(x)
    assert (found.lower <= y).all()
    assert (y <= found.upper).all()
    record = found.as_dict()
    json.dumps(record)
    assert record["samples"] == 90
    assert record["certified"] is True
    assert record["certified_accuracy"] == found.certified_accuracy
    assert found.plot().axes[0].texts[0].get_text().endswith("%")
    with pytest.raises(AttributeError):
        found.eps = 1.0


def test_bounds_result_and_plot(problem):
    layers, x, _ = problem
    network = from_layers(layers, "relu")
    found = bound(network, Box.around(x[:2], 0.1), keep=True)
    assert found.certified
    assert (
        list(found.intermediate) == list(found.widths) == [n.name for n in network.structure.nodes]
    )
    low, high = found.intermediate["activation0"]
    assert low.shape == high.shape == (2, 40)
    assert (low >= 0).all()
    assert found.intermediate["layer1"][0] == pytest.approx(found.lower)
    json.dumps(found.as_dict())
    axes = found.plot().axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "layer"
    assert axes.get_ylabel() == "mean width of the bounds"
    assert not bound(network, Box.around(x[:2], 0.1)).intermediate


# --- several inputs and outputs -----------------------------------------------------------------


def two_by_two():
    b = Builder("float64")
    x, y = b.input((1, 3), name="x"), b.input((1, 2), name="y")
    joined = b.concat([x, y], 1)
    return b.finish([b.dense(joined, np.ones((2, 5))), b.emit(Softmax(-1), [x])])


def test_several_inputs_and_outputs():
    x, y = np.zeros((4, 3)), np.ones(2)
    found = bound(two_by_two(), (Box.around(x, 0.5), Box(y, y)))
    (low, high), (least, most) = found.outputs
    assert low == pytest.approx(np.full((4, 2), 0.5))
    assert high == pytest.approx(np.full((4, 2), 3.5))
    assert least.shape == most.shape == (4, 3)
    json.dumps(found.as_dict())
    with pytest.raises(InputError, match="2 outputs"):
        _ = found.lower
    with pytest.raises(InputError, match="2 inputs"):
        bound(two_by_two(), Box(y, y))
    with pytest.raises(InputError, match="samples"):
        bound(two_by_two(), (Box.around(x, 0.5), Box.around(np.ones((3, 2)), 0.1)))


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0, np.nan], [1.0, 1.0], r"lower is nan at index \(1,\)"),
        ([0.0, 0.0], [1.0, np.inf], r"upper is inf at index \(1,\)"),
        ([0.0, 2.0], [1.0, 1.0], r"lower > upper at index \(1,\): 2 > 1"),
        ([0.0, 0.0], [1.0, 1.0, 1.0], r"\(2,\) and upper \(3,\)"),
        ([], [], "empty"),
        ([0, 0], [1, 1], "int64"),
        (np.zeros(4)[::2], np.ones(2), "contiguous"),
        (np.zeros(2, np.float16), np.ones(2, np.float16), "float16"),
    ],
)
def test_bad_boxes(lower, upper, message):
    with pytest.raises(InputError, match=message):
        Box(np.asarray(lower), np.asarray(upper))


def test_box_refuses_what_is_no_array():
    with pytest.raises(InputError, match="list"):
        Box([0.0], [1.0])


@pytest.mark.parametrize("eps", [-0.1, np.nan, np.inf, "wide", None, np.array([0.1, 0.2, 0.3])])
def test_bad_eps(eps):
    with pytest.raises(InputError, match="eps"):
        Box.around(np.zeros(2), eps)


def test_bad_centres_and_clips():
    with pytest.raises(InputError, match="int64"):
        Box.around(np.zeros(2, dtype=int), 0.1)
    with pytest.raises(InputError, match="NaN"):
        Box.around(np.array([np.nan]), 0.1)
    with pytest.raises(InputError, match=r"clip.*x is 2 at \(1,\)"):
        Box.around(np.array([0.5, 2.0]), 0.1, clip=(0.0, 1.0))


@pytest.fixture
def network():
    return from_layers([np.eye(3), np.ones((2, 3))], "relu")


def test_bad_calls_of_bounds(network):
    box = Box(np.zeros(3), np.ones(3))
    with pytest.raises(InputError, match=r"method 'crow'.*ibp"):
        bound(network, box, method="crow")
    with pytest.raises(InputError, match=r"takes \(N, 3\) or \(3\)"):
        bound(network, Box(np.zeros(4), np.ones(4)))
    with pytest.raises(InputError, match="give a Box"):
        bound(network, np.zeros(3))
    with pytest.raises(InputError, match="network is a str"):
        bound("net.onnx", box)
    for spec in (np.ones((1, 3)), np.ones(2), np.ones((3, 1, 2, 2)), np.ones((0, 2))):
        with pytest.raises(InputError, match="spec"):
            bound(network, box, spec=spec)
    with pytest.raises(InputError, match="spec"):
        bound(network, box, spec=np.array([[np.nan, 1.0]]))
    with pytest.raises(InputError, match="spec is int64"):
        bound(network, box, spec=np.ones((1, 2), dtype=int))
    with pytest.raises(InputError, match="spec"):
        bound(network, Box(np.zeros((3, 3)), np.ones((3, 3))), spec=np.ones((2, 1, 2)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1.0]), "float64"),
        (np.array([0, 2]), "label 2 of sample 1"),
        (np.array([-1, 0]), "label -1 of sample 0"),
        (np.array([0]), r"\(1,\)"),
        (np.array([[0], [1]]), r"\(2, 1\)"),
        (np.array([True, False]), "bool"),
    ],
)
def test_bad_labels(network, labels, message):
    x = np.zeros((2, 3))
    with pytest.raises(InputError, match=message):
        certify_robust(network, x, labels, 0.1, attack="none")
    with pytest.raises(InputError, match=message):
        margins(network, Box(x, x), labels)


def test_bad_calls_of_certify_robust(network):
    x, labels = np.zeros((2, 3)), np.array([0, 1])
    cases = [
        ((network, np.zeros((0, 3)), labels[:0], 0.1), {}, "empty"),
        ((network, x, labels, -0.1), {}, "eps"),
        ((network, x, labels, np.array([0.1, 0.1])), {}, "eps"),
        ((network, x, labels, "big"), {}, "eps"),
        ((network, np.zeros((2, 4)), labels, 0.1), {}, r"takes \(N, 3\)"),
        ((network, np.zeros(3), labels, 0.1), {}, r"takes \(N, 3\)"),
        ((network, x.astype(int), labels, 0.1), {}, "int64"),
        ((network, x, labels, 0.1), {"method": "magic"}, "magic"),
        ((network, x, labels, 0.1), {"attack": "magic"}, "magic"),
        ((network, x, labels, 0.1), {"batch": 0}, "batch"),
        ((from_layers([np.ones((1, 3))]), x, labels, 0.1), {}, "K >= 2"),
    ]
    for args, options, message in cases:
        with pytest.raises(InputError, match=message):
            certify_robust(*args, **options)


def test_bounds_need_numpy_alone():
    code = (
        "import sys, numpy as np\n"
        "from tangency.models import from_layers\n"
        "from tangency.verify.bounds import Box, bound, certify_robust\n"
        "net = from_layers([np.eye(2), np.eye(2)], 'relu')\n"
        "x = np.ones((1, 2)); bound(net, Box.around(x, 0.1))\n"
        "certify_robust(net, x, np.array([0]), 0.1, attack='corners')\n"
        "print([m for m in ('jax', 'matplotlib', 'torch', 'scipy', 'cvxpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
