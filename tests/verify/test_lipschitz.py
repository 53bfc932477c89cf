"""Lipschitz bounds of chains: known answers, published numbers, other formulations."""

import math
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.lipschitz import (
    Chain,
    Function,
    GroupSort,
    Matrix,
    Slopes,
    attack,
    bound_chain,
    product_bound,
)

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "maxmin").is_dir(), reason="no ../shared/data/maxmin")


def random_chain(sizes, seed, activation="relu"):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) for a, b in pairwise(sizes)]
    return Chain.from_matrices(weights, activation)


def published(name):
    from scipy.io import loadmat

    return [w.astype(float) for w in loadmat(DATA / "maxmin" / name)["W"].ravel()]


def clarabel_optimum(weights, a, b):
    """Return LipSDP-Neuron's optimum by the dense inequality of the paper (theorem 2)."""
    import cvxpy as cp

    hidden, inputs = sum(w.shape[0] for w in weights[:-1]), weights[0].shape[1]
    first = np.zeros((hidden, inputs + hidden))
    row = column = 0
    for w in weights[:-1]:
        first[row : row + w.shape[0], column : column + w.shape[1]] = w
        row, column = row + w.shape[0], column + w.shape[1]
    second = np.hstack([np.zeros((hidden, inputs)), np.eye(hidden)])
    t, rho = cp.Variable(hidden, nonneg=True), cp.Variable()
    cross = first.T @ cp.diag(t) @ second
    form = -2 * a * b * first.T @ cp.diag(t) @ first + (a + b) * (cross + cross.T)
    form = form - 2 * second.T @ cp.diag(t) @ second
    head = np.zeros((inputs + hidden,) * 2)
    head[:inputs, :inputs] = np.eye(inputs)
    tail = np.zeros_like(head)
    last = weights[-1].shape[1]
    tail[-last:, -last:] = weights[-1].T @ weights[-1]
    problem = cp.Problem(cp.Minimize(rho), [rho * head - tail - form >> 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver="CLARABEL")
    return float(np.sqrt(rho.value))


@needs_data
@pytest.mark.parametrize(
    ("name", "product", "paper", "exact"),
    [
        ("2fc_16", 23.4615, 22.5944, 22.0213),
        ("2fc_64", 83.9875, 73.774, None),
        ("5fc_32", 298.415, 224.526, None),
    ],
)
def test_published_maxmin_networks(name, product, paper, exact):
    chain = Chain.from_matrices(published(f"weights_l2_{name}.mat"), "maxmin")
    found = bound_chain(chain)
    assert found.certified
    assert found.method == "lipsdp"
    assert found.product == pytest.approx(product, rel=1e-5)
    assert found.upper < paper  # the sums are eliminated exactly; the reference drops them
    if exact is not None:
        assert found.upper == pytest.approx(22.0744, rel=1e-5)
        assert found.lower == pytest.approx(exact, rel=1e-5)  # every pattern is reached
    assert 0.6 * found.upper < found.lower < found.upper


@pytest.mark.parametrize("solver", ["scs", "clarabel"])
@pytest.mark.parametrize(
    ("sizes", "slopes"),
    [
        ((4, 8, 1), (0.0, 1.0)),
        ((4, 20, 20, 1), (0.0, 1.0)),
        ((6, 10, 10, 10, 3), (0.0, 1.0)),
        ((5, 12, 8, 2), (0.1, 1.0)),
        ((5, 12, 8, 2), (-0.2, 1.1)),
        ((3, 9, 9, 2), (-1.0, 1.0)),
    ],
)
def test_lipsdp_neuron_meets_the_optimum(sizes, slopes, solver):
    chain = random_chain(sizes, 7, slopes)
    best = clarabel_optimum([w.midpoint for w in chain.weights], *slopes)
    found = bound_chain(chain, solver=solver)
    assert found.method == "lipsdp"
    assert found.upper <= best * (1 + 2e-4)
    assert found.upper >= best * (1 - 1e-6)
    assert found.lower <= found.upper


def test_counterexample_of_the_coupling_multiplier():
    # LipSDP-Network "certifies" 0.9512 for this network
    first = np.array([[-1.119, 0.936], [1.792, -1.008], [1.565, -1.399], [0.322, -0.505]])
    chain = Chain.from_matrices([first, np.array([[-0.258, 0.987, -0.679, -1.59]])])
    found = bound_chain(chain)
    assert found.upper >= 2.4
    assert found.upper == pytest.approx(2.4001, rel=2e-4)
    assert found.lower >= 2.4


@pytest.mark.parametrize("activation", ["relu", "maxmin", "abs"])
def test_orthogonal_networks_give_one(activation):
    rng = np.random.default_rng(3)
    weights = [np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(4)]
    found = bound_chain(Chain.from_matrices(weights, activation))
    assert 1.0 - 1e-12 <= found.upper <= 1.0 + 1e-6
    assert found.certified


def test_linear_networks_give_the_norm_of_the_product():
    chain = random_chain((5, 7, 6, 4), 1, "identity")
    first, second, third = (w.midpoint for w in chain.weights)
    norm = np.linalg.norm(third @ second @ first, 2)
    found = bound_chain(chain)
    assert norm * (1 - 1e-12) <= found.upper <= norm * (1 + 1e-9)
    assert found.lower == pytest.approx(norm, rel=1e-9)
    assert found.ratio == pytest.approx(1.0, abs=1e-8)


def test_a_single_maxmin_gives_one():
    found = bound_chain(Chain.from_matrices([np.eye(2), np.eye(2)], "maxmin"))
    assert 1.0 <= found.upper <= 1.0 + 1e-12


def test_a_single_layer_and_a_zero_layer():
    matrix = np.random.default_rng(0).standard_normal((3, 5))
    single = bound_chain(Chain.from_matrices([matrix]))
    assert single.upper == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-10)
    assert single.lower <= single.upper
    zero = bound_chain(Chain.from_matrices([matrix, np.zeros((2, 3))]))
    assert (zero.upper, zero.lower, zero.ratio) == (0.0, 0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from([2, 4, 6]), min_size=3, max_size=5),
    st.lists(
        st.sampled_from(["relu", "maxmin", "identity", "abs", (0.1, 1.0), (-0.5, 2.0), (0.3, 0.3)]),
        min_size=3,
        max_size=3,
    ),
)
def test_sampled_below_lipsdp_below_product(seed, sizes, activations):
    chain = random_chain(sizes, seed, activations[: len(sizes) - 2])
    found = bound_chain(chain)
    assert found.lower <= found.upper <= found.product == product_bound(chain)
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 200, sizes[0]))
    quotient = np.linalg.norm(forward(chain, x) - forward(chain, y), axis=1)
    assert (quotient <= found.upper * np.linalg.norm(x - y, axis=1) * (1 + 1e-12)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_each_neuron_with_its_own_slopes(seed, depth):
    rng = np.random.default_rng(seed)
    sizes = (3, *[5] * depth, 2)
    weights, activations, functions = [], [], []
    for a, b in pairwise(sizes):
        weights.append(Matrix(rng.standard_normal((b, a))))
    for _ in range(depth):
        low, high = np.sort(rng.uniform(-1, 1, (2, 5)), axis=0)
        linear = rng.random(5) < 0.4
        high[linear] = low[linear]
        activations.append(Slopes(low, high))
        functions.append(
            Function(
                lambda z, low=low, high=high: np.where(z > 0, high * z, low * z),
                lambda z, low=low, high=high: np.where(z > 0, high, low),
                homogeneous=True,
            )
        )
    found = bound_chain(Chain(tuple(weights), tuple(activations), (), tuple(functions)))
    assert found.method == "lipsdp"
    assert 0.5 * found.upper < found.lower <= found.upper


def forward(chain, x):
    for k, weight in enumerate(chain.weights):
        x = x @ weight.midpoint.T
        if k < len(chain.activations):
            activation = chain.activations[k]
            if isinstance(activation, GroupSort):
                groups = x.reshape(len(x), -1, activation.size)
                x = -np.sort(-groups, axis=-1).reshape(x.shape)
            else:
                x = chain.functions[k].value(x)
    return x


@pytest.mark.parametrize(
    ("first", "second"),
    [(1e-150, 1e150), (1e-150, 1e-140), (1e150, 1e150), (1e-300, 1e5), (1e-160, 1e-160)],
)
def test_badly_scaled_weights(first, second):
    plain = random_chain((4, 6, 2), 5)
    scaled = Chain.from_matrices(
        [s * w.midpoint for s, w in zip((first, second), plain.weights, strict=True)]
    )
    reference = bound_chain(plain).upper
    found = bound_chain(scaled).upper
    log = math.log(found) - math.log(first) - math.log(second)
    assert log == pytest.approx(math.log(reference), abs=1e-4)


@pytest.mark.parametrize("norm", ["2", "1", "inf"])
@pytest.mark.parametrize("low", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("steepest", [2.0**500, 2.0**1020])
def test_slopes_of_any_size_only_scale_the_bound(steepest, low, norm):
    weights = [[[1.0, 1.0], [0.0, 1.0]], [[1.0, -1.0]]]
    plain, steep = (
        bound_chain(Chain.from_matrices(weights, (low * s, s)), norm=norm) for s in (1.0, steepest)
    )
    assert steep.product / steepest == pytest.approx(plain.product, rel=1e-12)
    if low == 0.0 or steepest <= 2.0**500:  # the product of both slopes is within float64
        assert steep.upper / steepest == pytest.approx(plain.upper, rel=1e-4)
    else:
        assert steep.upper == steep.product


def test_out_of_range_is_refused():
    with pytest.raises(NotProvedError, match="range"):
        bound_chain(Chain.from_matrices([1e200 * np.eye(3), 1e200 * np.eye(3)]))


def test_groups_of_three_and_radii_and_vectors_of_slopes():
    exact = random_chain((4, 6, 3), 2, GroupSort(3))
    found = bound_chain(exact)
    assert found.lower <= found.upper < found.product
    loose = Chain((Matrix(exact.weights[0].midpoint, np.full((6, 4), 1e-9)), exact.weights[1]),
                  exact.activations)  # fmt: skip
    wider = bound_chain(loose)
    assert found.upper * (1 - 1e-4) < wider.upper < found.upper * (1 + 1e-3)
    slopes = Slopes(np.array([0, 0.1, -0.2, 1, 0.5, -1.0]), np.array([1, 0.1, 0.3, 1, 1, -0.5]))
    mixed = bound_chain(Chain(exact.weights, (slopes,)))
    assert mixed.lower is None
    assert mixed.ratio == np.inf
    assert mixed.upper < mixed.product


def test_smooth_activation_with_biases():
    chain = random_chain((6, 10, 4), 4)
    tanh = Function(np.tanh, lambda z: 1 / np.cosh(z) ** 2)
    smooth = Chain(chain.weights, chain.activations, (np.ones(10), None), (tanh,))
    found = bound_chain(smooth)
    assert 0.5 * found.upper < found.lower < found.upper


def test_attack_is_deterministic():
    chain = random_chain((64, 32, 32, 10), 0)
    assert attack(chain, seed=1) == attack(chain, seed=1)
    assert attack(chain) > 0.3 * product_bound(chain) ** 0.5


def test_result_for_programs_and_for_people():
    found = bound_chain(random_chain((3, 4, 2), 0))
    assert list(found.as_dict()) == [
        "upper", "lower", "certified", "method", "norm", "output", "seconds", "certificate",
    ]  # fmt: skip
    assert found.as_dict()["certificate"] is None
    axes = found.plot().axes[0]
    assert len(axes.patches) == 3
    assert "certified" in axes.get_title()
    assert bound_chain(random_chain((3, 4, 2), 0), method="product", attack=False).lower is None


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Chain.from_matrices([]), "at least one"),
        (lambda: Chain.from_matrices([np.eye(2), np.eye(3)]), "layer 2 takes 3"),
        (lambda: Chain.from_matrices([np.eye(2), np.array([[np.nan, 0]])]), "layer 2 holds a NaN"),
        (lambda: Chain.from_matrices([np.eye(3), np.eye(3)], "maxmin"), "groups of 2"),
        (lambda: Chain.from_matrices([np.eye(3), np.eye(3)], "swish"), "unknown activation"),
        (lambda: Chain.from_matrices([np.eye(3), np.eye(3)], ["relu"] * 2), "as many"),
        (lambda: Chain.from_matrices([np.eye(3)], biases=[np.ones(2)]), "bias of layer 1"),
        (lambda: Chain.from_matrices([np.zeros((0, 2))]), "empty"),
        (lambda: Chain.from_matrices([[["a"]]]), "real numbers"),
        (lambda: Chain((Matrix(np.eye(2)),) * 2, (Slopes(1.0, 0.0),)), "exceeds"),
        (lambda: Chain((Matrix(np.eye(2)),) * 2), "take 1 activations"),
    ],
)
def test_bad_chains_are_refused(make, word):
    with pytest.raises(InputError, match=word):
        make()


def test_bad_options_are_refused():
    chain = random_chain((3, 4, 2), 0)
    with pytest.raises(InputError, match="lipsdp, eclipse_fast, product"):
        bound_chain(chain, method="network")
    with pytest.raises(InputError, match="clarabel"):
        bound_chain(chain, solver="mosek")
    with pytest.raises(UnsupportedError, match="norm"):
        bound_chain(chain, norm="3")
    with pytest.raises(InputError, match="rtol"):
        bound_chain(chain, rtol=0.0)
    with pytest.raises(InputError, match=r"150 hidden .* hidden_limit=200"):
        bound_chain(random_chain((4, 100, 100, 1), 0), solver="scs")
    few = random_chain((3, 4, 4, 2), 0)
    with pytest.raises(InputError, match=r"given at most 7 hidden neurons, this chain has 8"):
        bound_chain(few, solver="clarabel", hidden_limit=7)
    assert bound_chain(few, solver="clarabel", hidden_limit=8).solver == "clarabel"
