"""The stages of training: closed forms, gradient descent and each other."""

import numpy as np
import pytest
from scipy.optimize import minimize

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.hierarchical import (
    descend,
    feature_correlation,
    held_out_ridge,
    hierarchical_target,
    inner_layer,
    train_feature,
    train_layerwise,
    train_layerwise_seeds,
)
from tangency.theory.hierarchical.linear_stage import held_out_stage, ridge_path


def data(n, m, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, m)) * 3
    return features, features @ rng.standard_normal(m) + rng.standard_normal(n)


@pytest.mark.parametrize(("n", "m"), [(40, 7), (9, 30)])
def test_ridge_minimises_its_loss(n, m):
    features, y = data(n, m)
    scale = np.mean(features**2)
    for ridge, found in zip((0.01, 1.0), ridge_path(features, y, (0.01, 1.0)), strict=True):

        def loss(c, ridge=ridge):
            left = features @ c - y
            slope = 2 * (features.T @ left / n + ridge * scale * c)
            return left @ left / n + ridge * scale * c @ c, slope

        best = minimize(loss, np.zeros(m), jac=True, tol=1e-12).x
        np.testing.assert_allclose(found, best, rtol=1e-4, atol=1e-5)


def test_the_chosen_ridge_is_the_best_of_the_held_out_ones():
    features, y = data(60, 40, 3)
    ridges = (1e-3, 1e-1, 1.0, 10.0)
    stage = held_out_ridge(features, y + 5, folds=4, ridges=ridges)
    fold = np.arange(60) % 4
    errors = []
    for ridge in ridges:
        total = 0.0
        for i in range(4):
            f, t = features[fold != i], (y + 5)[fold != i]
            shift = len(f) * ridge * np.mean(f**2)
            c = np.linalg.solve(f.T @ f + shift * np.eye(40), f.T @ (t - t.mean()))
            total += np.sum((features[fold == i] @ c + t.mean() - (y + 5)[fold == i]) ** 2)
        errors.append(total / 60)
    assert stage.choice == ridges[int(np.argmin(errors))]
    assert stage.held_out_error == pytest.approx(min(errors), rel=1e-8)
    assert stage.offset == pytest.approx(np.mean(y + 5))


def test_descent_with_weight_decay_ends_at_ridge_regression():
    features, y = data(30, 6)
    found = descend(features, y, steps=3000, weight_decay=0.2)
    n = len(y)
    exact = np.linalg.solve(features.T @ features / n + 0.2 * np.eye(6), features.T @ y / n)
    np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_descent_follows_its_closed_form_step_by_step():
    features, y = data(12, 20)
    found = descend(features, y, steps=7, learning_rate=0.004, weight_decay=0.1)
    c = np.zeros(20)
    for _ in range(7):
        c = c - 0.004 * (features.T @ (features @ c - y) / 12 + 0.1 * c)
    np.testing.assert_allclose(found, c, rtol=1e-11, atol=1e-13)


def test_the_automatic_rate_is_just_below_the_largest_curvature():
    features, y = data(30, 6, 1)
    step = descend(features, y, steps=1)
    largest = np.linalg.eigvalsh(features.T @ features / 30)[-1]
    np.testing.assert_allclose(step, features.T @ y / 30 / (1.05 * largest), rtol=1e-3)


def test_descent_of_many_seeds_is_that_of_each():
    sets = [data(15, 4, seed) for seed in range(3)]
    together = descend(np.stack([f for f, _ in sets]), np.stack([y for _, y in sets]), steps=20)
    for row, (f, y) in zip(together, sets, strict=True):
        np.testing.assert_allclose(row, descend(f, y, steps=20), rtol=1e-10)


@pytest.mark.parametrize(("n", "m"), [(40, 7), (15, 30)])
def test_ridge_of_many_seeds_is_that_of_each(n, m):
    sets = [data(n, m, seed) for seed in range(4)]
    sets[2] = (sets[2][0], np.random.default_rng(9).standard_normal(n))  # noise: another choice
    together = held_out_ridge(np.stack([f for f, _ in sets]), np.stack([y for _, y in sets]))
    alone = [held_out_ridge(f, y) for f, y in sets]
    assert len({stage.choice for stage in alone}) > 1
    for ours, stage in zip(together, alone, strict=True):
        assert ours.choice == stage.choice
        assert ours.held_out_error == pytest.approx(stage.held_out_error, rel=1e-9)
        assert ours.offset == pytest.approx(stage.offset, rel=1e-12)
        np.testing.assert_allclose(ours.coefficients, stage.coefficients, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("method", ["ridge", "gradient_descent"])
def test_training_of_many_seeds_is_that_of_each(method):
    targets = [hierarchical_target(5, rng=np.random.default_rng(s)) for s in range(3)]
    drawn = [np.random.default_rng(10 + s) for s in range(3)]
    inners = [inner_layer(5, rng=rng) for rng in drawn]
    firsts = [t.sample(150, rng) for t, rng in zip(targets, drawn, strict=True)]
    seconds = [t.sample(40, rng) for t, rng in zip(targets, drawn, strict=True)]
    options = {"method": method, "outer_width": 16}
    together = train_layerwise_seeds(
        inners, firsts, seconds, rngs=[np.random.default_rng(s) for s in range(3)], **options
    )
    fresh = np.random.default_rng(0).standard_normal((200, 5))
    for s, found in enumerate(together):
        alone = train_layerwise(
            inners[s], firsts[s], seconds[s], rng=np.random.default_rng(s), **options
        )
        assert found.inner_stage.choice == alone.inner_stage.choice
        assert found.outer_stage.choice == alone.outer_stage.choice
        np.testing.assert_allclose(found.network(fresh), alone.network(fresh), rtol=1e-6, atol=1e-8)
    with pytest.raises(InputError, match="for every seed"):
        train_layerwise_seeds(inners, firsts[:2], seconds, rngs=drawn)
    short = [*firsts[:2], (firsts[2][0][:9], firsts[2][1][:9])]
    with pytest.raises(InputError, match="equally many samples"):
        train_layerwise_seeds(inners, short, seconds, rngs=drawn)


@pytest.mark.parametrize(
    ("degree", "activation"), [(2, "hermite"), (2, "polynomial"), (3, "polynomial")]
)
def test_the_exact_correlation_is_that_of_samples(degree, activation):
    rng = np.random.default_rng(5)
    target = hierarchical_target(6, degree=degree, rng=rng)
    inner = inner_layer(6, rng=rng, degree=degree, activation=activation)
    x, y = target.sample(2000, rng)
    u = train_feature(inner, (x, y)).coefficients
    fresh = rng.standard_normal((100_000, 6))
    sampled = np.corrcoef(inner(fresh) @ u, target.feature(fresh))[0, 1]
    assert feature_correlation(inner, u, target) == pytest.approx(sampled, abs=0.015)
    assert feature_correlation(inner, 0 * u, target) == 0.0


def test_a_feature_that_is_p_has_correlation_one():
    target = hierarchical_target(4)
    rng = np.random.default_rng(0)
    inner = inner_layer(4, rng=rng)
    x = rng.standard_normal((400, 4))
    u = np.linalg.lstsq(inner(x), target.feature(x), rcond=None)[0]
    assert feature_correlation(inner, u, target) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    ("degree", "dimension", "link"), [(2, 8, (0, 1, 1)), (2, 4, (0, 1, 0.5)), (3, 6, (0, 1, 0.2))]
)
def test_endless_samples_reach_the_finite_asymptote(degree, dimension, link):
    # the tails of a link of degree 2 over a cubic are too heavy for this many samples: a mild one
    target = hierarchical_target(dimension, degree=degree, link=link)
    rng = np.random.default_rng(2)
    inner = inner_layer(dimension, rng=rng, degree=degree)
    stage = train_feature(inner, target.sample(60_000, rng), ridges=(1e-6, 1e-4, 1e-2))
    found = feature_correlation(inner, stage.coefficients, target)
    assert found == pytest.approx(target.asymptotic_correlation(), rel=0.02)


@pytest.mark.parametrize("method", ["ridge", "gradient_descent"])
def test_the_second_stage_learns_the_link(method):
    target = hierarchical_target(6, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    inner = inner_layer(6, rng=rng)
    # the first stage is given p itself, so that the second has the whole link to find
    x, _ = target.sample(1500, rng)
    second = target.sample(1500, rng)
    trained = train_layerwise(inner, (x, target.feature(x)), second, rng=rng, method=method)
    fresh, answer = target.sample(5000, rng)
    before = np.mean((trained.network.feature(fresh) - answer) ** 2)
    after = np.mean((trained.network(fresh) - answer) ** 2)
    assert after < 0.15 * before


def test_relu_features_learn_and_have_no_exact_correlation():
    rng = np.random.default_rng(0)
    target = hierarchical_target(4)
    inner = inner_layer(4, rng=rng, width=300, activation="relu")
    stage = train_feature(inner, target.sample(2000, rng))
    fresh = rng.standard_normal((5000, 4))
    assert np.corrcoef(inner(fresh) @ stage.coefficients, target.feature(fresh))[0, 1] > 0.5
    with pytest.raises(UnsupportedError, match="polynomial"):
        feature_correlation(inner, stage.coefficients, target)


def test_refusals():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="activation = 'tanh'"):
        inner_layer(3, rng=rng, activation="tanh")
    with pytest.raises(InputError, match="width"):
        inner_layer(3, rng=rng, width=0)
    features, y = data(6, 2)
    with pytest.raises(InputError, match="folds = 1"):
        held_out_ridge(features, y, folds=1)
    with pytest.raises(InputError, match="ridges"):
        held_out_ridge(features, y, ridges=(0.0, 1.0))
    with pytest.raises(InputError, match="features"):
        held_out_ridge(features, y[:3])
    with pytest.raises(InputError, match="diverges"):
        descend(features, y, steps=3000, learning_rate=50.0)
    with pytest.raises(InputError, match="steps"):
        descend(features, y, steps=0)
    inner = inner_layer(2, rng=rng)
    with pytest.raises(InputError, match="method = 'magic'"):
        train_feature(inner, (features, y), method="magic")
    with pytest.raises(InputError, match="outer_width"):
        train_layerwise(inner, (features, y), (features, y), rng=rng, outer_width=0)


@pytest.mark.parametrize("n", [37, 41, 200])
def test_folds_by_their_moments_are_the_folds_themselves(n):
    # Up to 40 samples leave a training set smaller than the features; beyond, moments are used.
    rng = np.random.default_rng(5)
    features = rng.normal(size=(n, 32)) + 0.5
    y = features @ rng.normal(size=32) + 3.0 + rng.normal(size=n)
    ridges = (1e-3, 0.03, 1.0, 30.0)
    found = held_out_ridge(features, y, ridges=ridges)
    want = held_out_stage(ridge_path, features, y, 5, ridges)
    np.testing.assert_allclose(found.coefficients, want.coefficients, rtol=1e-8, atol=1e-10)
    assert found.choice == want.choice
    assert found.offset == pytest.approx(want.offset)
    assert found.held_out_error == pytest.approx(want.held_out_error, rel=1e-8)
