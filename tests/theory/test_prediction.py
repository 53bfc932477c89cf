"""Posteriors, flows and ensembles against neural-tangents, linear algebra and Monte Carlo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tangency.models.errors import InputError
from tangency.theory.prediction import (
    Block,
    Grams,
    ensemble_prediction,
    gp_posterior,
    gradient_flow_mse,
    kernel_ridge,
    max_learning_rate,
)

GOLDEN = Path(__file__).parent / "golden" / "predictions.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def grams(golden):
    parts = ("train", "cross", "test")
    return Grams(**{k: tuple(golden[f"{k}_{p}"] for p in parts) for k in ("nngp", "ntk")})


@pytest.mark.parametrize(("tag", "share"), [("free", 0.0), ("ridge", 1.0)])
def test_neural_tangents_agrees(golden, grams, tag, share):
    ridge = share * float(golden["regular"])
    options = {"learning_rate": float(golden["rate"]), "ridge": ridge, "reduction": "mean"}
    y, t = golden["y"], golden["t"]
    starts = {"f0": golden["f0"], "f0_test": golden["f0_test"]}
    flow = gradient_flow_mse(grams, y, t=t, **starts, **options)
    np.testing.assert_allclose(flow.test, golden[f"flow_test_{tag}"], rtol=1e-9, atol=1e-10)
    # With a ridge the peer's outputs at the training inputs still go to y, which are those of no
    # network; and its "nngp" is the posterior, whose targets are noisy. Ours are tested below.
    if not ridge:
        np.testing.assert_allclose(flow.train, golden[f"flow_train_{tag}"], rtol=1e-9, atol=1e-10)
    for get in ("ntk",) if ridge else ("nngp", "ntk"):
        got = ensemble_prediction(grams, y, t=[*t, np.inf], get=get, **options)
        np.testing.assert_allclose(got.test_mean, golden[f"{get}_mean_{tag}"], atol=1e-9)
        np.testing.assert_allclose(got.test_covariance, golden[f"{get}_cov_{tag}"], atol=1e-9)
        if not ridge:
            want = golden[f"{get}_train_mean_{tag}"]
            np.testing.assert_allclose(got.train_mean[:-1], want, atol=1e-9)
            want = golden[f"{get}_train_cov_{tag}"]
            np.testing.assert_allclose(got.train_covariance[:-1], want, atol=1e-9)
    posterior = gp_posterior(grams, y, ridge=ridge)
    np.testing.assert_allclose(posterior.mean, golden[f"gp_nngp_mean_{tag}"], atol=1e-9)
    np.testing.assert_allclose(posterior.covariance, golden[f"gp_nngp_cov_{tag}"], atol=1e-9)
    # The peer's "ntk" inference is the ensemble at the end of training; its mean is ours.
    posterior = gp_posterior(grams, y, get="ntk", ridge=ridge)
    np.testing.assert_allclose(posterior.mean, golden[f"gp_ntk_mean_{tag}"], atol=1e-9)


def test_max_learning_rate_is_that_of_neural_tangents(golden, grams):
    y = golden["y"]
    got = max_learning_rate(grams.ntk, reduction="mean", outputs=y.shape[1])
    np.testing.assert_allclose(got, golden["max_rate"], rtol=1e-12)
    got = max_learning_rate(grams.ntk, reduction="mean", outputs=y.shape[1], momentum=0.5)
    np.testing.assert_allclose(got, golden["max_rate_momentum"], rtol=1e-12)


def test_the_end_of_the_flow_is_regression(golden, grams):
    y = golden["y"]
    flow = gradient_flow_mse(grams, y, t=np.inf)
    want = grams.ntk.cross @ np.linalg.solve(grams.ntk.train, y)
    np.testing.assert_allclose(flow.test, want, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(flow.train, y, atol=1e-10)
    np.testing.assert_allclose(kernel_ridge(grams.ntk, y).predict(grams.ntk.cross), want, 1e-9)
    other = grams.ntk.cross @ flow.coefficients
    np.testing.assert_allclose(flow.test, other, rtol=1e-12)
    with_ridge = gradient_flow_mse(grams, y, t=np.inf, ridge=0.1)
    fit = kernel_ridge(grams.ntk, y, ridge=0.1)
    np.testing.assert_allclose(with_ridge.test, fit.predict(grams.ntk.cross), rtol=1e-10)


def test_leave_one_out_is_the_regressions_it_stands_for():
    rng = np.random.default_rng(9)
    n = 700  # more than one block of columns
    a = rng.standard_normal((n, 30))
    kernel, y = a @ a.T / 30 + np.diag(rng.uniform(0.5, 1.0, n)), rng.standard_normal((n, 2))
    fit = kernel_ridge(kernel, y, ridge=0.2, leave_one_out=True)
    absolute = 0.2 * np.diag(kernel).mean()
    for i in (0, 1, 511, 512, 699):
        rest = np.delete(np.arange(n), i)
        inner = kernel[np.ix_(rest, rest)] + absolute * np.eye(n - 1)
        want = kernel[i, rest] @ np.linalg.solve(inner, y[rest])
        np.testing.assert_allclose(fit.leave_one_out[i], want, rtol=1e-9, atol=1e-11)
    with pytest.raises(InputError, match="K rows"):
        kernel_ridge(np.ones((2, 2, 1, 1)), np.ones((2, 1)), leave_one_out=True)


def test_a_singular_kernel_ends_at_the_minimum_norm_solution():
    rng = np.random.default_rng(3)
    features, test = rng.standard_normal((6, 3)), rng.standard_normal((2, 3))
    y = rng.standard_normal(6)
    grams = Grams(ntk=(features @ features.T, test @ features.T))
    with pytest.warns(UserWarning, match="noise floor"):
        flow = gradient_flow_mse(grams, y, t=np.inf)
    weights = np.linalg.lstsq(features, y, rcond=None)[0]
    np.testing.assert_allclose(flow.test, test @ weights, atol=1e-12)
    np.testing.assert_allclose(flow.train, features @ weights, atol=1e-12)
    # Half-way nothing of the null space is touched, and no noise is fitted.
    early = gradient_flow_mse(grams, y, t=0.1)
    assert np.abs(early.train - y).max() > 0.1


def relu_kernels(x):
    """NNGP and NTK of sqrt(2/width) v . relu(W x), W and v of unit variance: arc-cosine."""
    s = x @ x.T
    norm = np.sqrt(np.diag(s))
    cos = np.clip(s / np.outer(norm, norm), -1, 1)
    theta = np.arccos(cos)
    nngp = np.outer(norm, norm) * (np.sin(theta) + (np.pi - theta) * cos) / np.pi
    return nngp, nngp + s * (np.pi - theta) / np.pi


def test_ensemble_against_monte_carlo_of_linearised_networks():
    rng = np.random.default_rng(6)
    n, m, d, width, nets, steps = 4, 3, 3, 1000, 600, 40
    x = rng.standard_normal((n + m, d)) / np.sqrt(d)
    y = rng.standard_normal(n)
    nngp, ntk = relu_kernels(x)
    blocks = {"nngp": nngp, "ntk": ntk}
    grams = Grams(**{k: (g[:n, :n], g[n:, :n], g[n:, n:]) for k, g in blocks.items()})
    rate = 0.5 * max_learning_rate(grams.ntk)
    ends = []
    for _ in range(nets):
        w, v = rng.standard_normal((width, d)), rng.standard_normal(width)
        gate = (x @ w.T > 0) * np.sqrt(2 / width)
        first = (gate * v)[:, :, None] * x[:, None, :]
        jacobian = np.concatenate([first.reshape(n + m, -1), gate * (x @ w.T)], 1)
        f0 = (gate * (x @ w.T)) @ v
        delta = np.zeros(jacobian.shape[1])
        for _ in range(steps):
            delta -= rate * jacobian[:n].T @ (f0[:n] + jacobian[:n] @ delta - y)
        ends.append(f0 + jacobian @ delta)
    ends = np.array(ends)
    got = ensemble_prediction(grams, y, t=steps, learning_rate=rate, discrete=True)
    mean = np.concatenate([got.train_mean, got.test_mean])
    deviation = ends.std(0)
    # Five standard errors, plus the bias of order 1/width.
    assert (np.abs(ends.mean(0) - mean) < 5 * deviation / np.sqrt(nets) + 5 / width).all()
    sample = np.cov(ends[:, n:].T)
    error = 5 * np.sqrt(2 / nets) * np.outer(deviation[n:], deviation[n:]) + 5 / width
    assert (np.abs(sample - got.test_covariance) < error).all()
    np.testing.assert_allclose(got.test_deviation, deviation[n:], rtol=0.2)
    # That the test can fail: training moved the covariance by more than the tolerance.
    assert (np.abs(np.diag(grams.nngp.test - got.test_covariance)) > np.diag(error)).any()


def test_last_layer_training_ends_at_the_posterior(golden, grams):
    y = golden["y"]
    end = ensemble_prediction(grams, y, get="nngp")
    posterior = gp_posterior(grams, y)
    np.testing.assert_allclose(end.test_mean, posterior.mean, atol=1e-9)
    np.testing.assert_allclose(end.test_covariance, posterior.covariance, atol=1e-9)
    before = ensemble_prediction(grams, y, t=0.0)
    np.testing.assert_allclose(before.test_covariance, grams.nngp.test, atol=1e-13)
    assert not before.test_mean.any()


def test_ensemble_with_a_ridge_is_what_each_network_does_by_linearity(golden, grams):
    # f0 is drawn with covariance K: the map f0 -> f_t of gradient_flow_mse, applied to a basis.
    y, ridge, t = golden["y"], 0.1, 2.0
    joint = np.block([[grams.nngp.train, grams.nngp.cross.T], [grams.nngp.cross, grams.nngp.test]])
    eye = np.eye(11)
    flow = gradient_flow_mse(
        grams, np.zeros((7, 11)), t=t, f0=eye[:7], f0_test=eye[7:], ridge=ridge
    )
    for get_part, covariance in (("train", "train_covariance"), ("test", "test_covariance")):
        linear = getattr(flow, get_part)
        got = getattr(ensemble_prediction(grams, y, t=t, ridge=ridge), covariance)
        np.testing.assert_allclose(got, linear @ joint @ linear.T, atol=1e-12)


def test_shapes_follow_the_targets_and_times(golden, grams):
    y = golden["y"]
    assert gradient_flow_mse(grams, y[:, 0], t=1.0).test.shape == (4,)
    assert gradient_flow_mse(grams, y, t=[1.0]).test.shape == (1, 4, 2)
    cube = np.repeat(y[:, :, None], 3, 2)
    flow = gradient_flow_mse(grams, cube, t=[1.0, 2.0])
    assert flow.train.shape == (2, 7, 2, 3)
    np.testing.assert_allclose(flow.test[1, :, :, 2], gradient_flow_mse(grams, y, t=2.0).test)
    assert ensemble_prediction(grams, y, t=[0, 1]).test_covariance.shape == (2, 4, 4)
    # Two independent outputs as one kernel of all pairs of outputs.
    paired = {
        k: tuple(a[..., None, None] * np.eye(2) for a in (b.train, b.cross, b.test))
        for k, b in (("nngp", grams.nngp), ("ntk", grams.ntk))
    }
    for call in (gp_posterior, ensemble_prediction):
        one, two = call(grams, y), call(Grams(**paired), y)
        name = "mean" if call is gp_posterior else "test_mean"
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-10)
    fit = kernel_ridge(paired["ntk"][0], y, ridge=0.1)
    want = kernel_ridge(grams.ntk, y, ridge=0.1).predict(grams.ntk.cross)
    np.testing.assert_allclose(fit.predict(paired["ntk"][1]), want, atol=1e-12)


def test_errors_name_what_is_wrong(grams, golden):
    y = golden["y"]
    wrong = [
        (lambda: Grams(), "needs nngp"),
        (lambda: Block(np.ones((2, 3))), "Gram matrix is"),
        (lambda: Block(np.eye(2), np.ones((3, 4))), "test by train"),
        (lambda: Block(np.full((2, 2), np.nan)), "NaN"),
        (lambda: Grams(ntk=grams.ntk).block("nngp"), "no nngp"),
        (lambda: grams.block("nngk"), "'nngp' or 'ntk'"),
        (lambda: gp_posterior(Grams(nngp=np.eye(7)), y), "cross"),
        (lambda: gp_posterior(grams, y[:3]), "7 samples"),
        (lambda: gp_posterior(grams, y, ridge=-1.0), "ridge"),
        (lambda: gradient_flow_mse(grams, y, t=-1.0), "time >= 0"),
        (lambda: gradient_flow_mse(grams, y, t=1.5, discrete=True), "whole numbers"),
        (lambda: gradient_flow_mse(grams, y, t=1.0, reduction="avg"), "reduction"),
        (lambda: gradient_flow_mse(grams, y, t=1.0, f0=y), "f0_test"),
        (lambda: gradient_flow_mse(grams, y, t=1.0, learning_rate=0.0), "positive"),
        (lambda: kernel_ridge(np.eye(2), np.array(["a", "b"])), "real numbers"),
        (lambda: kernel_ridge(np.zeros((2, 2)), np.ones(2)), "mean diagonal"),
        (lambda: kernel_ridge(np.eye(2), np.ones(2)).predict(np.ones((3, 4))), "test by train"),
        (lambda: max_learning_rate(np.eye(2), momentum=1.0), "momentum"),
    ]
    for call, message in wrong:
        with pytest.raises(InputError, match=message):
            call()
