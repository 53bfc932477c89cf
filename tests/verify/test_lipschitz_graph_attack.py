"""Lower bounds by ascent on the graph, and local bounds of residual networks beside them."""

import numpy as np
import pytest

from tangency.models import Builder, InputError, activations, from_layers
from tangency.models.ops import Add, GroupSort, Householder, MaxPool
from tangency.verify import Box, LocalBound, check, lipschitz_bound, write_certificate
from tangency.verify.chain.networks import chain_of, local_chain
from tangency.verify.lipschitz import attack
from tangency.verify.lipschitz.network_attack import attack_network

ORDERS = {"2": 2, "1": 1, "inf": np.inf}


def residual(kind="relu", seed=0, inputs=3, width=6, outputs=2):
    """Two blocks x + G phi(W x), or layers of another kind, between dense layers."""
    rng = np.random.default_rng(seed)
    builder, count = Builder("float64"), iter(range(99))

    def dense(x, rows, columns):
        i = next(count)
        weight = rng.standard_normal((rows, columns)) / np.sqrt(columns)
        keys = (f"{i}.weight", f"{i}.bias")
        return builder.dense(x, weight, 0.3 * rng.standard_normal(rows), keys=keys)

    x = dense(builder.input((1, inputs)), width, inputs)
    for _ in range(2):
        inner = dense(x, width, width)
        if kind == "householder":
            v = rng.standard_normal((width // 2, 2))
            normals = v / np.linalg.norm(v, axis=1, keepdims=True)
            key = f"{next(count)}.v"
            x = builder.emit(Householder(), [inner], {"vectors": (key, normals)})
            continue
        if kind == "sort":
            inner = builder.emit(GroupSort(2), [inner], {})
        else:
            inner = builder.activation(inner, activations.get(kind))
        x = builder.elementwise(Add(), x, dense(inner, width, width))
    return builder.finish([dense(x, outputs, width)], source="test")


def quotients(network, box, norm, output, count=4000, seed=5):
    """The largest difference quotient of random pairs in a box."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(box.lower, box.upper, (count, *box.shape))
    step = 1e-5 * rng.standard_normal(x.shape)
    if norm == "inf":
        step = 1e-5 * np.sign(step)
    if norm == "1":
        step = 1e-5 * np.eye(box.shape[0])[rng.integers(box.shape[0], size=count)]
    y = np.clip(x + step, box.lower, box.upper)
    change = network.evaluate(y) - network.evaluate(x)
    size = np.linalg.norm(change, axis=1, ord=ORDERS[output])
    length = np.linalg.norm(y - x, axis=1, ord=ORDERS[norm])
    return float((size[length > 0] / length[length > 0]).max())


@pytest.mark.parametrize("activation", ["relu", "maxmin", "tanh"])
def test_as_good_as_the_search_on_the_chain(activation):
    rng = np.random.default_rng(0)
    sizes = ((12, 4), (12, 12), (3, 12))
    network = from_layers([rng.standard_normal(s) for s in sizes], activation)
    found, other = attack_network(network), attack(chain_of(network))
    assert found >= 0.97 * other
    assert found <= lipschitz_bound(network, attack=False).upper


@pytest.mark.parametrize("kind", ["relu", "sort", "householder", "tanh"])
def test_every_layer_has_a_lower_bound_beside_the_upper(kind):
    network = residual(kind)
    found = lipschitz_bound(network)
    wide = Box(np.full(3, -3.0), np.full(3, 3.0))
    sampled = quotients(network, wide, "2", "2")
    assert 0.98 * sampled <= found.lower <= found.upper
    assert found.ratio < 1.7
    assert lipschitz_bound(network, attack=False).lower is None


@pytest.mark.parametrize(("norm", "output"), [("2", "inf"), ("1", "2"), ("inf", "margin:0,1")])
def test_norms(norm, output):
    network = residual("relu", seed=1)
    asked = ("margin", 0, 1) if ":" in output else output
    found = lipschitz_bound(network, norm=norm, output=asked, time_limit=None)
    assert 0.0 < found.lower <= found.upper
    if ":" not in output:
        wide = Box(np.full(3, -3.0), np.full(3, 3.0))
        assert found.lower >= 0.98 * quotients(network, wide, norm, output)


def test_a_linear_map_has_its_norms_and_a_kink_no_derivative_of_its_own():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((4, 5))
    network = from_layers([matrix, np.eye(4)], "identity")
    for norm in ("2", "1", "inf"):
        want = np.linalg.norm(matrix, ord=ORDERS[norm])
        assert attack_network(network, norm=norm, output=norm) == pytest.approx(want, rel=1e-6)
    # |x| - |x| = 0: the slopes of the parts at 0 are not those of the sum.
    network = from_layers([np.array([[1.0], [1.0]]), np.array([[1.0, -1.0]])], "relu")
    assert attack_network(network, box=Box(np.zeros(1), np.zeros(1))) == 0.0


@pytest.mark.parametrize("kind", ["relu", "sort", "householder", "tanh"])
def test_local_bounds_of_residual_networks(kind):
    network = residual(kind, seed=2)
    everywhere = lipschitz_bound(network)
    uppers = []
    for eps in (1.0, 0.1, 0.001):
        box = Box.around(np.array([0.2, -0.4, 0.3]), eps)
        found = lipschitz_bound(network, box=box)
        assert isinstance(found, LocalBound)
        assert found.certified
        assert quotients(network, box, "2", "2", 500) * (1 - 1e-5) <= found.upper
        assert 0.0 < found.lower <= found.upper
        assert found.upper <= everywhere.upper * (1 + 1e-4)
        uppers.append(found.upper)
    assert uppers == sorted(uppers, reverse=True)
    if kind in ("relu", "tanh"):
        assert uppers[-1] == pytest.approx(found.lower, rel=1e-2)  # nearly linear there
        assert uppers[-1] < everywhere.upper


def test_a_box_where_no_neuron_switches_is_linear():
    network = residual("relu", seed=2)
    x = np.array([0.2, -0.4, 0.3])
    box = Box.around(x, 1e-7)
    jacobian = np.stack(
        [(network.evaluate(x + h) - network.evaluate(x - h)) / 2e-8 for h in 1e-8 * np.eye(3)], 1
    )
    found = lipschitz_bound(network, box=box, norm="inf", output=("margin", 0, 1))
    want = np.abs(jacobian[0] - jacobian[1]).sum()
    # A linear chain in l-infinity: the norm up to the relaxation of the vertices.
    assert want * (1 - 1e-5) <= found.upper <= 1.3 * want
    found = lipschitz_bound(network, box=box)
    assert found.upper == pytest.approx(np.linalg.norm(jacobian, 2), rel=1e-5)


def test_branch_and_bound_and_certificates_of_residual_networks(tmp_path):
    network = residual("relu", seed=3, inputs=2)
    box = Box.around(np.array([0.1, 0.2]), 0.4)
    once = lipschitz_bound(network, box=box)
    cut = lipschitz_bound(network, box=box, branch=True, max_boxes=12)
    assert cut.lower <= cut.upper <= once.upper * (1 + 1e-4)
    assert cut.upper >= quotients(network, box, "2", "2") * (1 - 1e-5)
    file = tmp_path / "one.cert"
    write_certificate(file, once, network)
    assert check(file, network).holds
    assert not check(file, residual("relu", seed=4, inputs=2)).holds


def test_pooling_keeps_its_constraint_on_a_box():
    rng = np.random.default_rng(0)
    builder = Builder("float64")
    x = builder.reshape(builder.input((1, 4)), (1, 1, 4))
    x = builder.emit(MaxPool((2,), (2,), ((0, 0),), (1,)), [x], {})
    x = builder.reshape(x, (1, 2))
    keys = ("w", "b")
    x = builder.dense(x, rng.standard_normal((2, 2)), np.zeros(2), keys=keys)
    network = builder.finish([builder.activation(x, activations.get("relu"))], source="test")
    box = Box.around(np.array([1.0, 0.5, -1.0, 0.3]), 0.1)
    found = lipschitz_bound(network, box=box)
    assert quotients(network, box, "2", "2") * (1 - 1e-5) <= found.upper
    with pytest.raises(InputError, match="one box"):
        local_chain(network, Box(np.zeros((2, 4)), np.ones((2, 4))))
