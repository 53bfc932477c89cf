"""The estimators, the baselines, and the search for the samples that they need."""

import numpy as np
import pytest

from tangency.models.errors import InputError, NotProvedError
from tangency.theory.hierarchical import (
    HeldOutKernelRidge,
    ThreeLayerRegressor,
    TwoLayerRegressor,
    arc_cosine_ntk,
    fit_exponent,
    hierarchical_target,
    inner_product_kernel,
    sample_complexity,
    samples_needed,
    train_layerwise,
)
from tangency.theory.kernels import Dense, Relu, infinite_kernel, serial


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(11)
    target = hierarchical_target(16, rng=rng)
    return target, target.sample(8 * 256, rng), target.sample(4000, rng)


def test_three_layers_beat_the_kernel_where_features_can_be_learnt(task):
    target, (x, y), (test, answer) = task
    learner = ThreeLayerRegressor().fit(x, y)
    kernel = HeldOutKernelRidge(ridges=(1e-3, 1e-2, 1e-1), folds=3).fit(x, y)
    three, other = learner.score(test, answer), kernel.score(test, answer)
    assert three > other + 0.1
    assert other < 0.6  # about the part of degree k alone
    found = np.corrcoef(learner.transform(test)[:, 0], target.feature(test))[0, 1]
    assert 0.85 * target.asymptotic_correlation() < found < 1


def test_cubic_features_and_cubic_links_are_learnt():
    rng = np.random.default_rng(4)
    for degree, link in ((3, (0, 1, 0.4)), (2, (0, 1, 0.5, 0.5))):
        target = hierarchical_target(9, degree=degree, link=link, rng=rng)
        x, y = target.sample(8000, rng)
        test, _ = target.sample(4000, rng)
        learner = ThreeLayerRegressor(degree=degree).fit(x, y)
        found = np.corrcoef(learner.transform(test)[:, 0], target.feature(test))[0, 1]
        assert found > 0.75


def test_the_stages_share_no_sample_and_leave_none_out(task, monkeypatch):
    from tangency.theory.hierarchical import estimator

    _, (x, y), _ = task
    seen = []

    def watched(inner, first, second, **options):
        seen.append((first, second))
        return train_layerwise(inner, first, second, **options)

    monkeypatch.setattr(estimator, "train_layerwise", watched)
    ThreeLayerRegressor(outer_fraction=0.25, outer_width=8).fit(x[:200], y[:200])
    ((first, second),) = seen
    assert (len(first[0]), len(second[0])) == (150, 50)
    rows = {tuple(row) for row in np.vstack([first[0], second[0]])}
    assert rows == {tuple(row) for row in x[:200]}
    together = np.concatenate([first[1], second[1]])
    np.testing.assert_array_equal(np.sort(together), np.sort(y[:200]))


def test_gradient_descent_and_ridge_find_alike(task):
    _, (x, y), (test, answer) = task
    one = ThreeLayerRegressor(method="ridge").fit(x, y)
    two = ThreeLayerRegressor(method="gradient_descent").fit(x, y)
    assert two.score(test, answer) == pytest.approx(one.score(test, answer), abs=0.1)
    assert np.corrcoef(one.transform(test)[:, 0], two.transform(test)[:, 0])[0, 1] > 0.9


@pytest.mark.parametrize(
    "estimator",
    [
        ThreeLayerRegressor(),
        ThreeLayerRegressor(activation="polynomial"),
        HeldOutKernelRidge(),
        # a compilation for every shape that the checks try
        pytest.param(TwoLayerRegressor(steps=50, width=16), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_scikit_learn_accepts_the_estimators(estimator):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 40
    assert not [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")]


def test_scikit_learns_manners(task):
    sklearn_base = pytest.importorskip("sklearn.base")
    _, (x, y), _ = task
    learner = ThreeLayerRegressor(inner_width=50, random_state=3)
    params = learner.get_params()
    assert params["inner_width"] == 50
    assert params["folds"] == 5
    twin = sklearn_base.clone(learner)
    np.testing.assert_array_equal(
        learner.fit(x[:300], y[:300]).predict(x), twin.fit(x[:300], y[:300]).predict(x)
    )
    with pytest.raises(Exception, match="not fitted"):
        sklearn_base.clone(learner).predict(x)
    with pytest.raises(ValueError, match="features"):
        learner.predict(x[:, :3])


def test_the_arc_cosine_ntk_is_that_of_the_infinite_network():
    x = np.random.default_rng(0).standard_normal((9, 5))
    for depth, hidden in ((1, ()), (2, (Dense(1, W_std=2**0.5), Relu()))):
        plan = serial(Dense(1, W_std=2**0.5), Relu(), *hidden, Dense(1))
        theirs = infinite_kernel(plan)(x, get="ntk")
        # the first layer's variance of 2 doubles once; ours keeps the input's own
        ours = arc_cosine_ntk(x, depth=depth)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


def test_any_kernel_serves_as_baseline(task):
    _, (x, y), (test, answer) = task
    x, y = x[:200], y[:200]
    plan = serial(Dense(1, W_std=2**0.5), Relu(), Dense(1))
    ours = HeldOutKernelRidge().fit(x, y).predict(test)
    theirs = HeldOutKernelRidge(kernel=infinite_kernel(plan)).fit(x, y).predict(test)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)
    quadratic = HeldOutKernelRidge(kernel=inner_product_kernel((1, 1, 1))).fit(x, y)
    assert quadratic.predict(test).shape == answer.shape


def test_held_out_samples_choose_the_kernels_ridge(task):
    # a linear kernel on pure noise: the more ridge the better; on its own kind, the less
    _, (x, _), _ = task
    x = x[:60, :4]
    linear = inner_product_kernel((0.0, 1.0))
    ridges = (1e-6, 1e-2, 1e3)
    noise = np.random.default_rng(0).standard_normal(60)
    assert HeldOutKernelRidge(kernel=linear, ridges=ridges).fit(x, noise).ridge_ == 1e3
    assert HeldOutKernelRidge(kernel=linear, ridges=ridges).fit(x, x[:, 0]).ridge_ == 1e-6


def test_a_quadratic_kernel_learns_quadratics_and_an_inner_product_kernel_is_positive():
    rng = np.random.default_rng(0)
    target = hierarchical_target(4, link=(0.0, 1.0))
    x, y = target.sample(200, rng)
    test, answer = target.sample(500, rng)
    kernel = inner_product_kernel((0.1, 0.1, 1.0))
    assert np.linalg.eigvalsh(kernel(x[:30])).min() > -1e-10
    learner = HeldOutKernelRidge(kernel=kernel, ridges=(1e-8, 1e-4)).fit(x, y)
    assert learner.score(test, answer) > 0.999
    with pytest.raises(InputError, match="not negative"):
        inner_product_kernel((1.0, -1.0))


def test_two_layers_learn_a_single_index_and_the_best_seed_predicts():
    rng = np.random.default_rng(0)
    target = hierarchical_target(5, degree=1, terms=1, link=(0.0, 1.0, 1.0))
    x, y = target.sample(600, rng)
    test, answer = target.sample(2000, rng)
    learner = TwoLayerRegressor(width=32, steps=300, seeds=3, learning_rate=0.01).fit(x, y)
    assert learner.held_out_errors_.shape == (3,)
    assert learner.score(test, answer) > 0.9
    with pytest.raises(InputError, match="diverges"):
        TwoLayerRegressor(width=4, steps=5, learning_rate=float("nan")).fit(
            np.full((20, 2), 1e30), np.full(20, 1e30)
        )


def test_two_layers_are_trained_as_torch_trains_them():
    """AdamW of torch from the same starts; each seed at its best step, the best seed predicts."""
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(3)
    x, test = rng.standard_normal((40, 3)), rng.standard_normal((9, 3))
    y = np.sin(x[:, 0]) + 0.5 * rng.standard_normal(40)
    options = {"learning_rate": 0.05, "weight_decay": 0.3}
    ours = TwoLayerRegressor(width=12, steps=60, seeds=3, random_state=5, **options).fit(x, y)
    order = np.random.default_rng(5).permutation(40)
    x, y = x[order].astype(np.float32), y[order].astype(np.float32)
    starts, best, last = jax.random.split(jax.random.key(5), 3), [], []
    for key in starts:
        keys = jax.random.split(key, 3)
        weights = [
            jax.random.normal(keys[0], (3, 12)) / np.sqrt(3),
            jax.random.normal(keys[1], (12,)) * 0.1,
            jax.random.normal(keys[2], (12,)) / 12,
            np.mean(y[:32]),
        ]
        tensors = [torch.tensor(np.array(w), requires_grad=True) for w in weights]
        inner, bias, outer, offset = tensors
        descent = torch.optim.AdamW(tensors, lr=options["learning_rate"], weight_decay=0.3)

        def output(points, inner=inner, bias=bias, outer=outer, offset=offset):
            return torch.relu(torch.tensor(points) @ inner + bias) @ outer + offset

        seen = []
        for _ in range(61):
            with torch.no_grad():
                error = float(((output(x[32:]) - torch.tensor(y[32:])) ** 2).mean())
                seen.append((error, output(test.astype(np.float32)).numpy()))
            descent.zero_grad()
            ((output(x[:32]) - torch.tensor(y[:32])) ** 2).mean().backward()
            descent.step()
        best.append(min(seen, key=lambda pair: pair[0]))
        last.append(seen[-1][0])
    errors = [pair[0] for pair in best]
    assert int(np.argmin(errors)) != 0
    assert min(np.array(last) / errors) > 1.01  # all were stopped before their end
    np.testing.assert_allclose(ours.held_out_errors_, errors, rtol=1e-3)
    np.testing.assert_allclose(ours.predict(test), best[int(np.argmin(errors))][1], atol=2e-3)


@pytest.mark.parametrize("start", [10, 90, 4000])
def test_the_search_finds_a_crossing(start):
    # quality log n / log 1000 reaches 0.7 at 1000^0.7
    found = samples_needed(lambda n: np.log(n) / np.log(1000), 0.7, start=start)
    assert found == pytest.approx(1000**0.7, rel=0.01)
    with pytest.raises(NotProvedError, match="not reached"):
        samples_needed(lambda n: 0.0, 0.7, start=start, most=5000)
    with pytest.raises(NotProvedError, match="already"):
        samples_needed(lambda n: 1.0, 0.7, start=start)
    with pytest.raises(InputError, match="least"):
        samples_needed(lambda n: 1.0, 0.7, start=1)


def test_exponents_and_their_intervals():
    rng = np.random.default_rng(0)
    sizes = np.array([8, 12, 20, 30])
    exact = np.repeat(3.0 * sizes[:, None] ** 1.7, 5, 1)
    fit = fit_exponent(sizes, exact)
    assert (fit.value, fit.lower, fit.upper) == pytest.approx((1.7, 1.7, 1.7))
    assert fit.prefactor == pytest.approx(3.0)
    # 95 per cent intervals hold the truth about that often
    inside = 0
    for _ in range(100):
        fit = fit_exponent(sizes, exact[:, :1] * np.exp(rng.normal(0, 0.3, (4, 9))), resamples=300)
        inside += fit.lower <= 1.7 <= fit.upper
    assert 85 <= inside <= 100
    with pytest.raises(InputError, match="two sizes"):
        fit_exponent([4], [[1.0]])
    with pytest.raises(InputError, match="positive"):
        fit_exponent([4, 5], [[1.0], [0.0]])


def test_the_search_over_sizes_and_seeds():
    seen = []
    result = sample_complexity(
        lambda size, n, seed: n / (size**2 * (1 + 0.1 * seed)),
        (10, 20, 40),
        level=1.0,
        start=lambda size: size,
        seeds=3,
        most=100_000,
        progress=lambda *told: seen.append(told),
    )
    assert result.exponent.value == pytest.approx(2.0, abs=0.01)
    np.testing.assert_allclose(result.medians, 1.1 * result.sizes**2.0, rtol=0.01)
    assert (result.lower <= result.medians).all()
    assert (result.medians <= result.upper).all()
    assert len(seen) == 9
