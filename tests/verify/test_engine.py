"""The Lipschitz engine: known answers, references, orders between bounds, anytime behaviour."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.certificate import GroupSort, Householder, Matrix, Residual, Slopes
from tangency.verify.lipschitz import Chain, bound_chain
from tangency.verify.lipschitz.engine.assemble import _started, assemble
from tangency.verify.lipschitz.engine.curvature import hessian
from tangency.verify.lipschitz.engine.objective import Objective
from tangency.verify.lipschitz.engine.search import engine_bound

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "maxmin"


def generated(depth, width, seed=None):
    """The nets of ECLipsE's generator: 4-[w]*(l-1)-1, Gaussian, spectral norms U(0.4, 1.8)."""
    rng = np.random.default_rng(7 * width + 13 * depth if seed is None else seed)
    dims = [4, *[width] * (depth - 1), 1]
    weights = []
    for a, b in pairwise(dims):
        w = rng.standard_normal((b, a))
        weights.append(w * (rng.uniform(0.4, 1.8) / np.linalg.norm(w, 2)))
    return weights


def maxmin(name):
    path = DATA / f"{name}.mat"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    from scipy.io import loadmat

    return [np.asarray(w, dtype=np.float64) for w in loadmat(path)["W"].ravel()]


def sort_groups(z, size):
    return np.sort(z.reshape(*z.shape[:-1], -1, size), axis=-1).reshape(z.shape)


def apply(activation, z):
    """Evaluate an activation on rows of pre-activations."""
    if isinstance(activation, GroupSort):
        return sort_groups(z, activation.size)
    if isinstance(activation, Householder):
        v = activation.normals / np.linalg.norm(activation.normals, axis=1, keepdims=True)
        x = z.reshape(*z.shape[:-1], *v.shape)
        inner = (x * v).sum(-1, keepdims=True)
        return np.where(inner > 0, x, x - 2 * inner * v).reshape(z.shape)
    lower, upper = activation.arrays(z.shape[-1])
    return np.where(z > 0, upper * z, lower * z)


def sampled(chain, norm="2", output="2", count=4000, seed=0):
    """The largest difference quotient over random pairs, near and far."""
    rng = np.random.default_rng(seed)
    n = chain.sizes[0]
    x = rng.standard_normal((count, n))
    step = rng.standard_normal((count, n)) * 10.0 ** rng.uniform(-3, 1, (count, 1))
    if norm == "inf":
        step = np.sign(step) * np.abs(step).max(axis=1, keepdims=True)
    if norm == "1":
        step = step * np.eye(n)[rng.integers(n, size=count)]
    difference = values(chain, x + step) - values(chain, x)
    orders = {"2": 2, "1": 1, "inf": np.inf}
    if output == "margin":
        top = np.abs(difference[:, 0] - difference[:, 1])
    else:
        top = np.linalg.norm(difference, ord=orders[output], axis=1)
    return float((top / np.linalg.norm(step, ord=orders[norm], axis=1)).max())


def values(chain, x):
    for w, activation in zip(chain.weights, chain.activations, strict=False):
        if isinstance(activation, Residual):
            branch = apply(activation.inner, x @ w.midpoint.T)
            outer = np.eye(len(x[0])) if activation.output is None else activation.output.midpoint
            x = x + branch @ outer.T
        else:
            x = apply(activation, x @ w.midpoint.T)
    return x @ chain.weights[-1].midpoint.T


def random_chain(rng, sizes, activation):
    weights = [rng.standard_normal((b, a)) for a, b in pairwise(sizes)]
    return Chain.from_matrices(weights, activation)


def best(chain, **options):
    found = engine_bound(chain, **options)
    assert found is not None
    return found.witness.bound


@pytest.mark.parametrize("activation", ["relu", "maxmin", "abs"])
def test_orthogonal_networks_have_constant_one(activation):
    rng = np.random.default_rng(0)
    weights = [np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(4)]
    bound = best(Chain.from_matrices(weights, activation))
    assert bound == pytest.approx(1.0, abs=2e-6)


def test_linear_networks_have_their_norm():
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((5, 5)) for _ in range(3)]
    product = weights[2] @ weights[1] @ weights[0]
    chain = Chain.from_matrices(weights, "identity")
    for norm, order in (("2", 2), ("1", 1), ("inf", np.inf)):
        bound = best(chain, norm=norm, output=norm)
        true = np.linalg.norm(product, order)
        assert bound >= true
        # |.|_1 and |.|_inf of a matrix are quadratic programs only up to their relaxation.
        assert bound <= (1 + 1e-6) * true if norm == "2" else bound <= 2.0 * true
    row = best(chain, norm="1", output="inf")
    assert row == pytest.approx(np.abs(product).max(), rel=1e-6)
    half = Chain.from_matrices(weights[:2], Slopes(np.full(5, 0.5), np.full(5, 0.5)))
    assert best(half) == pytest.approx(np.linalg.norm(weights[1] @ weights[0], 2) / 2, rel=1e-8)


def test_a_single_maxmin_layer_is_one():
    assert best(Chain.from_matrices([np.eye(4), np.eye(4)], "maxmin")) == pytest.approx(1, abs=1e-6)
    block = Residual(GroupSort(2), Matrix(-np.eye(4)))  # x - sort(x): what is not kept may double
    chain = Chain.from_matrices([np.eye(4), np.eye(4)], [block])
    assert best(chain) == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "ceiling", "plain", "activations"),
    [
        ("weights_l2_2fc_16", 22.0744, 22.5944, "maxmin"),
        ("weights_l2_2fc_64", 72.768, 73.774, "maxmin"),
        ("weights_l2_5fc_32", 193.185, 224.526, "maxmin"),
        ("weights_l2_8fc_32", 309.203, 401.033, "maxmin"),
        ("weights_l2_18fc_64", 14641.0, 22845.0, "maxmin"),
        ("resweights_5_32", 29.75, 55.65, ["identity", *[Residual(GroupSort(2))] * 3]),
    ],
)
def test_published_networks(name, ceiling, plain, activations):
    chain = Chain.from_matrices(maxmin(name), activations)
    found = engine_bound(chain, rtol=1e-4)
    assert found is not None
    assert sampled(chain, count=200) <= found.witness.bound <= ceiling * (1 + 2e-4)
    assert found.witness.bound < plain


@pytest.mark.parametrize(("depth", "width"), [(3, 20), (5, 20), (2, 40)])
def test_lipsdp_equals_clarabel(depth, width):
    chain = Chain.from_matrices(generated(depth, width))
    ours = best(chain)
    reference = bound_chain(chain, solver="clarabel", attack=False).lipsdp
    assert reference is not None
    assert reference * (1 - 2e-6) <= ours <= reference * (1 + 2e-4)


def paper_linf(weights):
    """Solve the l-infinity inequality of Pauli et al. (2024) for a ReLU net and one output."""
    import cvxpy as cp

    w1, w2, c = weights
    n0, n1, n2 = w1.shape[1], w1.shape[0], w2.shape[0]
    mu, t1, t2, rho = (
        cp.Variable(n0, nonneg=True),
        cp.Variable(n1, nonneg=True),
        cp.Variable(n2, nonneg=True),
        cp.Variable(),
    )
    d1, d2, zero = cp.diag(t1), cp.diag(t2), np.zeros
    matrix = cp.bmat(
        [
            [cp.diag(mu), -w1.T @ d1, zero((n0, n2)), zero((n0, 1))],
            [-d1 @ w1, 2 * d1, -w2.T @ d2, zero((n1, 1))],
            [zero((n2, n0)), -d2 @ w2, 2 * d2, c.T],
            [zero((1, n0)), zero((1, n1)), c, cp.reshape(2 * rho - cp.sum(mu), (1, 1), order="C")],
        ]
    )
    problem = cp.Problem(cp.Minimize(rho), [(matrix + matrix.T) / 2 >> 0])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return float(rho.value)


@pytest.mark.parametrize("seed", range(20))
def test_linf_equals_the_inequality_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    chain = random_chain(rng, (3, 5, 4, 1), "relu")
    bound = best(chain, norm="inf", rtol=1e-8)
    reference = paper_linf([w.midpoint for w in chain.weights])
    assert bound == pytest.approx(reference, rel=1e-6)
    assert sampled(chain, "inf", "inf") <= bound


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    depth=st.sampled_from([2, 2, 2, 2, 3, 4]),  # a layer more is 35 milliseconds an example
    width=st.sampled_from([2, 4]),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 4),
)
def test_order_of_bounds_on_random_maxmin_networks(seed, depth, width, inputs, outputs):
    rng = np.random.default_rng(seed)
    chain = random_chain(rng, (inputs, *[width] * (depth - 1), outputs), "maxmin")
    plus = best(chain, rtol=1e-4)
    # Without the sums (S = P = 0): each group is a map that is merely nonexpansive.
    turned = nonexpansive(chain)
    plain = bound_chain(chain, method="product", attack=False).upper
    assert sampled(chain, count=300) <= plus * (1 + 1e-9)
    assert plus <= turned * (1 + 2e-4)
    assert turned <= plain * (1 + 2e-4)


def nonexpansive(chain):
    """The optimum without sum preservation: slopes [-1, 1], one multiplier a group."""
    from dataclasses import replace

    from tangency.verify.lipschitz.engine.solve import minimise

    form = assemble(
        [w.midpoint for w in chain.weights], chain.activations, [0] * len(chain.weights)
    )
    layers = []
    for layer, weight in zip(form.layers, chain.weights, strict=False):
        n = weight.shape[0]
        given = np.zeros((n, layer.weight.shape[1]))
        given[layer.free], kept = layer.weight, np.arange(n) % 2 == 0
        given[kept] = layer.linear[kept]
        ones, group = np.ones(n), np.arange(n) // 2
        layers.append(
            replace(
                layer, weight=given, lower=-ones, upper=ones, linear=None, free=None, group=group
            )
        )
    count = len(layers)
    form = _started(layers, form.last, list(form.exponents), [None] * count, [False] * count)
    solution = minimise(Objective(form.layers, form.last), form.start, rtol=1e-4)
    assert solution is not None
    return math.ldexp(math.sqrt(solution.square), sum(form.exponents))


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("kind", ["groupsort", "householder", "residual"])
@pytest.mark.parametrize(
    ("norm", "output"), [("2", "2"), ("inf", "1"), ("1", "inf"), ("2", "margin")]
)
def test_other_layers_and_norms_against_sampling(kind, size, norm, output):
    rng = np.random.default_rng(size)
    n = 2 * size
    normals = rng.standard_normal((2, size))
    activation = {
        "groupsort": GroupSort(size),
        "householder": Householder(normals),
        "residual": Residual(GroupSort(size), Matrix(rng.standard_normal((n, n)))),
    }[kind]
    chain = random_chain(rng, (n, n, n, 3), [activation, activation])
    found = bound_chain(chain, norm=norm, output=("margin", 0, 1) if output == "margin" else output)
    low = sampled(chain, norm, output)
    assert found.certified
    assert low <= found.upper <= 6.0 * low
    assert found.witness is not None
    assert found.upper < found.product


def test_lipsdp_network_counterexample_is_never_certified():
    w1 = np.array([[-1.119, 0.936], [1.792, -1.008], [1.565, -1.399], [0.322, -0.505]])
    w2 = np.array([[-0.258, 0.987, -0.679, -1.59]])
    bound = best(Chain.from_matrices([w1, w2]))
    assert 2.400325 <= bound <= 2.40033  # attained by a Jacobian; 'Network' would give .9512


@pytest.mark.parametrize("norm", ["2", "1", "inf"])
@pytest.mark.parametrize("output", ["2", "1"])
@pytest.mark.parametrize("kind", ["relu", "sort", "block"])
def test_gradient_and_hessian_against_differences(norm, output, kind):
    rng = np.random.default_rng(3)
    activation = {
        "relu": Slopes(np.array([0.0, -0.3, 0.2, 0.5]), np.array([1.0, 1.1, 0.9, 0.5])),
        "sort": GroupSort(2),
        "block": Residual(GroupSort(2), Matrix(rng.standard_normal((4, 4)))),
    }[kind]
    weights = [rng.standard_normal((4, 4)) for _ in range(3)]
    weights.append(rng.standard_normal((3, 4)))
    form = assemble(weights, [activation] * 3, [0] * 4)
    objective = Objective(form.layers, form.last, norm=norm, output=output)
    theta = np.zeros(objective.size)
    theta[objective.parts[0].stop :][: form.start.size] = form.start + 2.0
    theta[objective.parts[0]] = 30.0 if kind == "block" else 12.0
    theta += 0.1 * rng.standard_normal(theta.size)
    mu, step = 1e-2, 1e-5

    def gradient(point):
        state = objective.evaluate(point, mu)
        return objective.gradient(state, mu)[0]

    def value(point):
        return objective.evaluate(point, mu).value

    basis = step * np.eye(theta.size)
    numeric = [(value(theta + e) - value(theta - e)) / (2 * step) for e in basis]
    assert gradient(theta) == pytest.approx(numeric, abs=1e-7)
    if norm == "inf" and output == "2":
        state = objective.evaluate(theta, mu)
        first, adjoints, _ = objective.gradient(state, mu, keep=True)
        second = np.array([(gradient(theta + e) - gradient(theta - e)) / (2 * step) for e in basis])
        inner = slice(objective.parts[0].stop, objective.size)
        ones = np.concatenate([layer.collect(np.ones(layer.width)) for layer in form.layers])
        ours = hessian(objective, state, adjoints, mu)[inner, inner]
        exact = ours - 0.3 * mu * np.eye(ones.size) + np.diag(first[inner] - mu * ones)
        assert exact == pytest.approx(second[inner, inner], abs=1e-6)


def test_it_is_anytime():
    chain = Chain.from_matrices(generated(20, 40))
    seen = []
    slow = engine_bound(chain, progress=lambda bound, seconds: seen.append((bound, seconds)))
    assert slow is not None
    assert slow.finished
    assert len(seen) > 5
    assert all(a[0] > b[0] and a[1] <= b[1] for a, b in pairwise(seen))
    fast = bound_chain(chain, time_limit=0.05, attack=False)
    assert fast.certified
    assert not fast.finished
    assert slow.witness.bound < fast.upper < fast.product

    def interrupt(bound, seconds):
        if bound < 1.5 * slow.witness.bound:
            raise KeyboardInterrupt

    stopped = engine_bound(chain, progress=interrupt)
    assert stopped is not None
    assert not stopped.finished
    assert slow.witness.bound <= stopped.witness.bound < 1.6 * slow.witness.bound


@pytest.mark.parametrize("power", [-150, -20, 30, 150])
def test_ill_conditioned_networks(power):
    rng = np.random.default_rng(5)
    chain = random_chain(rng, (3, 6, 6, 2), "relu")
    reference = best(chain)
    scale = 10.0**power
    weights = [w.midpoint for w in chain.weights]
    opposite = Chain.from_matrices([weights[0] * scale, weights[1] / scale, weights[2]])
    assert best(opposite) == pytest.approx(reference, rel=1e-5)
    rows = np.repeat([scale, 1.0], 3)  # neurons of very different size: the function is the same
    within = Chain.from_matrices([rows[:, None] * weights[0], weights[1] / rows, weights[2]])
    try:
        found = bound_chain(within)
    except NotProvedError:
        return
    assert found.upper >= reference * (1 - 1e-6)


def test_deep_networks_need_no_special_scales():
    weights = [w * 0.5 for w in generated(60, 12)]
    bound = best(Chain.from_matrices(weights), time_limit=None)
    doubled = best(Chain.from_matrices([2.0 * w for w in weights]), time_limit=None)
    assert doubled == pytest.approx(2.0**60 * bound, rel=1e-3)


def test_refusals():
    chain = random_chain(np.random.default_rng(0), (3, 4, 2), "relu")
    with pytest.raises(InputError, match="margin"):
        bound_chain(chain, output=("margin", 0, 2))
    with pytest.raises(UnsupportedError, match="norm"):
        bound_chain(chain, norm=3)
    with pytest.raises(UnsupportedError, match="scs"):
        bound_chain(chain, norm="inf", solver="scs")
    with pytest.raises(UnsupportedError, match="slopes in"):
        bound_chain(random_chain(np.random.default_rng(0), (3, 4, 2), "abs"), method="eclipse_fast")
    with pytest.raises(InputError, match="normal"):
        random_chain(np.random.default_rng(0), (3, 4, 2), [Householder(np.zeros((2, 2)))])
    with pytest.raises(InputError, match="time_limit"):
        bound_chain(chain, time_limit=0.0)


def test_eclipse_fast_lies_between():
    chain = Chain.from_matrices(generated(10, 20))
    fast = bound_chain(chain, method="eclipse_fast", attack=False)
    assert fast.method == "eclipse_fast"
    assert best(chain) < fast.upper < fast.product
