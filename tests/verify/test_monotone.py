"""Monotonicity: proved for networks that are so by construction, refuted by pairs that hold."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models import Builder, InputError, from_layers
from tangency.models.activations import Activation, get
from tangency.models.ops import Activate, Concat, Slice
from tangency.verify.bounds import Box, bound
from tangency.verify.jacobian import certify_monotone

# The saturated form of a convex activation, here of ELU: elu(x + 1) - elu(1) below zero, and
# elu(1) - elu(1 - x) above.
SATURATED_ELU = Activation(
    "saturated_elu",
    lambda nx, x: nx.where(
        x < 0.0,
        nx.where(x < -1.0, nx.expm1(nx.minimum(x + 1.0, 0.0)), x + 1.0) - 1.0,
        1.0 - nx.where(x > 1.0, nx.expm1(nx.minimum(1.0 - x, 0.0)), 1.0 - x),
    ),
    limits=((-2.0, 0.0), (2.0, 0.0)),
    core=(-3.0, 3.0),
)
MIXES = {"relu": get("hardtanh"), "elu": SATURATED_ELU}


def constrained(rng, name, signs, sizes=(12, 12)):
    """The constrained layers: |W| on monotone inputs, convex, concave and saturated activations.

    ``signs`` tells for each input whether the network rises (1) or falls (-1) with it, or is free
    (0); behind the first layer every weight is non-negative.
    """
    b = Builder("float64")
    v = b.input((1, len(signs)))
    record = get(name)
    for k, size in enumerate((*sizes, 1)):
        w = rng.normal(size=(size, v.shape[-1])) / np.sqrt(v.shape[-1])
        if k == 0:
            w = np.where(np.array(signs) == 0, w, np.abs(w) * np.array(signs))
        else:
            w = np.abs(w)
        v = b.dense(v, w, rng.normal(size=size), keys=(f"w{k}", f"b{k}"))
        if k == len(sizes):
            break
        third = size // 3

        def part(start, stop, v=v):
            return b.emit(Slice((start,), (stop,), (1,)), [v])

        convex = b.emit(Activate(record), [part(0, third)])
        concave = b.negate(b.emit(Activate(record), [b.negate(part(third, 2 * third))]))
        saturated = b.emit(Activate(MIXES[name]), [part(2 * third, size)])
        v = b.emit(Concat(0), [convex, concave, saturated])
    return b.finish([v])


def exact(network, x):
    """The output of a ReLU network of dense layers in rational arithmetic."""
    value = [Fraction(float(v)) for v in x]
    for node in network.structure.nodes[1:]:
        if node.params:
            w = network.weights[node.params[0].key]
            value = [
                sum(Fraction(float(a)) * v for a, v in zip(row, value, strict=True)) for row in w
            ]
        else:
            value = [max(v, Fraction(0)) for v in value]
    return value


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constrained_networks_are_proved_everywhere(name, dtype):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = constrained(rng, name, (1, -1, 0, 1)).astype(dtype)
        found = certify_monotone(network, increasing=[0, 3], decreasing=[1])
        assert found.proved
        assert found.boxes == 1
        assert found.signs == (1, 1, -1)
        assert (found.lower[0, :2] >= 0).all()
        assert found.upper[0, 2] <= 0
        # The input that is free is not monotone, and neither are the others the other way round.
        other = certify_monotone(network, increasing=[1], decreasing=[0, 3])
        assert (other.verdicts == "refuted").all()


@pytest.mark.parametrize("method", ["interval", "crown"])
@pytest.mark.parametrize("name", MIXES)
def test_constrained_networks_are_proved_on_every_box(name, method):
    rng = np.random.default_rng(1)
    network = constrained(rng, name, (1, -1, 1))
    for scale in (0.0, 1e-6, 0.1, 1.0, 100.0):
        box = Box.around(rng.normal(size=3) * max(scale, 1.0), scale)
        found = certify_monotone(network, box, increasing=[0, 2], decreasing=[1], method=method)
        assert found.proved
        assert found.boxes == 1
        # Intervals are exact on a monotone network: its extremes lie at two known corners.
        corners = np.stack([np.where([1, 0, 1], box.lower, box.upper),
                            np.where([1, 0, 1], box.upper, box.lower)])  # fmt: skip
        ends = network.evaluate(corners)[:, 0]
        ibp = bound(network, box)
        np.testing.assert_allclose([ibp.lower.item(), ibp.upper.item()], ends, rtol=1e-9, atol=1e-9)


def test_nonnegative_networks_cannot_fall():
    """Non-negative weights and rising activations: every output rises with every input."""
    rng = np.random.default_rng(2)
    for name in ("relu", "tanh", "sigmoid", "softplus", "leaky_relu", "exp", "floor"):
        layers = [(np.abs(rng.normal(size=s)), rng.normal(size=s[0])) for s in ((6, 3), (2, 6))]
        found = certify_monotone(from_layers(layers, name), increasing=[0, 1, 2])
        assert found.proved, name
        assert found.verdicts.shape == (2, 3)
    silu = from_layers([np.ones((2, 1)), np.ones((1, 2))], "silu")  # it dips below zero
    assert certify_monotone(silu, increasing=[0]).verdicts.item() == "refuted"
    assert certify_monotone(silu, Box(np.zeros(1), np.ones(1)), increasing=[0]).proved


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_parts_of_the_box_decide_what_the_whole_leaves_open(method):
    """2 relu(x) - 1.5 relu(x - 1/2): its second slope is never on without its first."""
    layers = [(np.ones((2, 1)), np.array([0.0, -0.5])), np.array([[2.0, -1.5]])]
    network = from_layers(layers, "relu")
    box = Box(np.array([-1.0]), np.array([1.0]))
    found = certify_monotone(network, box, increasing=[0], method=method)
    assert found.lower.item() < 0
    assert found.proved
    assert 1 < found.boxes < 20
    few = certify_monotone(network, box, increasing=[0], method=method, boxes=2)
    assert few.verdicts.item() == "unknown"
    assert few.boxes <= 2


def test_what_is_refuted_is_refuted_exactly():
    """Pairs of points: in the box, one input apart, in the wrong order in rational arithmetic."""
    rng = np.random.default_rng(3)
    network = from_layers([rng.normal(size=s) for s in ((8, 3), (8, 8), (2, 8))], "relu")
    box = Box.around(rng.normal(size=3), 0.5)
    found = certify_monotone(network, box, increasing=[0, 1, 2], decreasing=[0, 1, 2])
    assert "refuted" in found.verdicts
    count = 0
    for (s, k, sign), (x, y) in found.pairs.items():
        assert (np.delete(x, k) == np.delete(y, k)).all()
        assert box.lower[k] <= x[k] < y[k] <= box.upper[k]
        assert sign * (exact(network, y)[s] - exact(network, x)[s]) < 0
        count += 1
    assert count == (found.verdicts == "refuted").sum()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), eps=st.sampled_from([0.02, 0.2, 1.0]))
def test_verdicts_agree_with_points(seed, eps):
    rng = np.random.default_rng(seed)
    name = ("relu", "tanh", "silu")[rng.integers(3)]
    layers = [rng.normal(size=s) for s in ((5, 2), (5, 5), (2, 5))]
    network = from_layers(layers, name)
    box = Box.around(rng.normal(size=2), eps)
    found = certify_monotone(network, box, increasing=[0, 1], decreasing=[1], boxes=40)
    x = rng.uniform(box.lower, box.upper, size=(200, 2))
    for k, (i, sign) in enumerate(zip(found.inputs, found.signs, strict=True)):
        y = x.copy()
        y[:, i] = rng.uniform(box.lower[i], box.upper[i], size=200)
        rise = (
            (network.evaluate(y) - network.evaluate(x)) * sign * np.sign(y[:, i] - x[:, i])[:, None]
        )
        for s in range(2):
            if found.verdicts[s, k] == "proved":
                assert (rise[:, s] >= -1e-12).all()
    for (s, i, sign), (a, b) in found.pairs.items():
        assert sign * (network.evaluate(b)[s] - network.evaluate(a)[s]) < 0
        assert a[i] < b[i]


def test_an_input_that_cannot_move_and_outputs_by_index():
    rng = np.random.default_rng(4)
    network = from_layers([rng.normal(size=(6, 2)), rng.normal(size=(3, 6))], "tanh")
    box = Box(np.array([0.5, -1.0]), np.array([0.5, 1.0]))
    still = certify_monotone(network, box, increasing=[0], decreasing=[0])
    assert still.proved
    one = certify_monotone(network, box, increasing=[1], outputs=[2])
    assert one.outputs == (2,)
    assert one.verdicts.shape == (1, 1)
    assert one.seconds > 0


def test_what_is_refused():
    network = from_layers([np.ones((1, 2))])
    box = Box(np.zeros((2, 2)), np.ones((2, 2)))
    for options, message in (
        ({}, "increasing"),
        ({"increasing": [2]}, r"inputs 0\.\.1"),
        ({"decreasing": [0.5]}, "list of input indices"),
        ({"increasing": [0], "boxes": 0}, "at least one"),
        ({"increasing": [0], "method": "ibp"}, "'ibp'"),
        ({"increasing": [0], "box": box}, "2 samples"),
        ({"increasing": [0], "outputs": [1]}, r"outputs 0\.\.0"),
    ):
        with pytest.raises(InputError, match=message):
            certify_monotone(network, **options)
