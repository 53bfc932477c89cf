"""The estimators: scikit-learn's conventions, and its own KernelRidge, GPR and SVC beside them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tangency.models.errors import InputError
from tangency.theory.kernels import Conv, Dense, Flatten, GlobalAvgPool, Relu, infinite_kernel
from tangency.theory.prediction import (
    Grams,
    NoiseFloorWarning,
    NTKClassifier,
    NTKRegressor,
    SklearnKernel,
    ensemble_prediction,
    gp_posterior,
    kernel_ridge,
)

sklearn = pytest.importorskip("sklearn")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KERNEL = infinite_kernel([Dense(1, W_std=1.5, b_std=0.1), Relu(), Dense(1, W_std=1.5, b_std=0.1)])


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.05 * rng.standard_normal(40)
    return x[:30], y[:30], x[30:], y[30:]


@pytest.fixture(scope="module")
def digits():
    with np.load(EXAMPLES / "digits_test.npz") as file:
        return file["x"].astype(np.float64), file["y"]


@pytest.mark.parametrize("estimator", [NTKRegressor(), NTKClassifier()], ids=repr)
def test_scikit_learn_accepts_the_estimators(estimator):
    from sklearn.utils.estimator_checks import check_estimator

    results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 40
    failed = [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")]
    assert not failed


@pytest.mark.parametrize("get", ["ntk", "nngp"])
def test_kernel_ridge_of_scikit_learn_agrees(regression, get):
    from sklearn.kernel_ridge import KernelRidge

    x, y, x_test, _ = regression
    gram, cross = KERNEL(x, get=get), KERNEL(x_test, x, get=get)
    ridge = 1e-3
    theirs = KernelRidge(kernel="precomputed", alpha=ridge * np.diag(gram).mean()).fit(gram, y)
    ours = NTKRegressor(KERNEL, get=get, ridge=ridge).fit(x, y)
    np.testing.assert_allclose(ours.predict(x_test), theirs.predict(cross), rtol=1e-10)
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, rtol=1e-9)
    given = NTKRegressor("precomputed", ridge=ridge).fit(gram, y)
    np.testing.assert_allclose(given.predict(cross), ours.predict(x_test), rtol=1e-12)


def test_gaussian_process_of_scikit_learn_agrees(regression):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

    x, y, x_test, _ = regression
    grams = Grams.of(KERNEL, x, x_test)
    for get in ("nngp", "ntk"):
        ridge = 1e-2
        alpha = ridge * np.diag(grams.block(get).train).mean()
        theirs = GaussianProcessRegressor(SklearnKernel(KERNEL, get), alpha=alpha).fit(x, y)
        mean, covariance = theirs.predict(x_test, return_cov=True)
        ours = gp_posterior(grams, y, get=get, ridge=ridge)
        np.testing.assert_allclose(ours.mean, mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ours.covariance, covariance, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(ours.log_evidence, theirs.log_marginal_likelihood_value_)
        deviation = theirs.predict(x_test, return_std=True)[1]
        np.testing.assert_allclose(ours.deviation, deviation, rtol=1e-9)
    # It composes, and the composition's hyperparameters are fitted.
    composed = ConstantKernel(2.0) * SklearnKernel(KERNEL) + WhiteKernel(0.1)
    fit = GaussianProcessRegressor(composed).fit(x, y)
    before = GaussianProcessRegressor(composed, optimizer=None).fit(x, y)
    assert fit.log_marginal_likelihood_value_ > before.log_marginal_likelihood_value_ + 1
    value, slope = fit.log_marginal_likelihood(fit.kernel_.theta, eval_gradient=True)
    step = np.array([1e-6, 0.0])
    moved = fit.log_marginal_likelihood(fit.kernel_.theta + step)
    np.testing.assert_allclose((moved - value) / 1e-6, slope[0], atol=1e-3)


def test_support_vectors_of_scikit_learn_agree(digits):
    from sklearn.svm import SVC

    x, y = digits
    kernel = SklearnKernel(KERNEL)
    by_call = SVC(kernel=kernel).fit(x[:100], y[:100])
    by_gram = SVC(kernel="precomputed").fit(KERNEL(x[:100], get="ntk"), y[:100])
    cross = KERNEL(x[100:], x[:100], get="ntk")
    want = by_gram.decision_function(cross)
    np.testing.assert_allclose(by_call.decision_function(x[100:]), want, atol=1e-10)
    assert by_call.score(x[100:], y[100:]) > 0.8
    gram = kernel(x[:5], x[:5].copy())
    np.testing.assert_array_equal(np.diag(gram), KERNEL.diagonal(x[:5], get="ntk"))
    np.testing.assert_array_equal(kernel.diag(x[:5]), np.diag(gram))
    with pytest.raises(InputError, match="leave Y out"):
        kernel(x[:5], x[5:9], eval_gradient=True)


def test_classifier_on_digits_and_in_a_search(digits):
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = digits
    model = NTKClassifier(KERNEL, ridge=1e-3).fit(x[:120], y[:120])
    assert model.score(x[120:], y[120:]) > 0.85
    assert model.decision_function(x[120:]).shape == (80, 10)
    named = np.array([f"digit {k}" for k in range(10)])
    again = clone(model).fit(x[:120], named[y[:120]])
    np.testing.assert_array_equal(again.predict(x[120:]), named[model.predict(x[120:])])
    shallow = infinite_kernel([Dense(1), Relu(), Dense(1)])
    search = GridSearchCV(
        make_pipeline(StandardScaler(), NTKClassifier()),
        {
            "ntkclassifier__kernel": [KERNEL, shallow],
            "ntkclassifier__get": ["ntk", "nngp"],
            "ntkclassifier__ridge": [1e-3, 1.0],
        },
        cv=2,
    ).fit(x[:120], y[:120])
    assert search.score(x[120:], y[120:]) > 0.8
    # The Gram matrix is cut in both directions where it is given.
    grid = {"ridge": [1e-3, 1e-1]}
    gram = KERNEL(x[:120], get="ntk")
    given = GridSearchCV(NTKClassifier("precomputed"), grid, cv=3).fit(gram, y[:120])
    taken = GridSearchCV(NTKClassifier(KERNEL), grid, cv=3).fit(x[:120], y[:120])
    np.testing.assert_allclose(
        given.cv_results_["mean_test_score"], taken.cv_results_["mean_test_score"]
    )


def test_two_classes_decide_by_sign(regression):
    x, y, x_test, y_test = regression
    model = NTKClassifier(KERNEL).fit(x, y > 0)
    decision = model.decision_function(x_test)
    assert decision.shape == (10,)
    np.testing.assert_array_equal(model.predict(x_test), decision > 0)
    plain = NTKRegressor(KERNEL).fit(x, np.where(y > 0, 1.0, -1.0))
    np.testing.assert_allclose(decision, plain.predict(x_test), atol=1e-10)
    assert model.score(x_test, y_test > 0) >= 0.6


def test_convolutional_kernels_take_flat_rows_and_images(digits):
    from sklearn.svm import SVC

    x, y = digits[0][:30], digits[1][:30]
    conv = infinite_kernel([Conv(1, (3, 3)), Relu(), GlobalAvgPool(), Dense(1)])
    images = x.reshape(-1, 8, 8, 1)
    flat = NTKClassifier(conv, input_shape=(8, 8, 1)).fit(x[:20], y[:20])
    whole = NTKClassifier(conv).fit(images[:20], y[:20])
    np.testing.assert_array_equal(
        flat.decision_function(x[20:]), whole.decision_function(images[20:])
    )
    kernel = SklearnKernel(conv, input_shape=(8, 8, 1))
    SVC(kernel=kernel).fit(x[:20], y[:20])
    np.testing.assert_array_equal(kernel(x[:3]), conv(images[:3], get="ntk"))
    with pytest.raises(InputError, match="input_shape"):
        NTKClassifier(conv, input_shape=(8, 9, 1)).fit(x, y)
    assert infinite_kernel([Conv(1), Flatten(), Dense(1)])(images[:2], get="ntk").shape == (2, 2)


def test_kernels_of_every_kind_are_taken(regression):
    x, y, x_test, _ = regression

    def guest(x1, x2, get):
        return KERNEL(x1, x2, get=get)

    def plain(x1, x2):
        return KERNEL(x1, x2, get="ntk")

    want = Grams.of(KERNEL, x, x_test)
    got = Grams.of(guest, x, x_test)
    mean = ensemble_prediction(want, y).test_mean
    np.testing.assert_allclose(ensemble_prediction(got, y).test_mean, mean, atol=1e-8)
    one = Grams.of(plain, x, x_test, get="ntk", covariance=False)
    assert one.nngp is None
    assert one.ntk.test is None
    np.testing.assert_allclose(kernel_ridge(one.ntk, y).predict(one.ntk.cross), mean, atol=1e-8)
    for kernel in (guest, plain):
        model = NTKRegressor(kernel).fit(x, y)
        np.testing.assert_allclose(
            model.predict(x_test), NTKRegressor(KERNEL).fit(x, y).predict(x_test), rtol=1e-9
        )
    with pytest.raises(InputError, match="is no kernel"):
        NTKRegressor(3.0).fit(x, y)
    with pytest.raises(InputError, match="get="):
        Grams.of(KERNEL, x, get="both")
    with pytest.raises(InputError, match="get="):
        NTKRegressor(KERNEL, get="both").fit(x, y)
    with pytest.raises(InputError, match="precomputed"):
        NTKRegressor("precomputed").fit(x, y)


def test_empirical_kernels_predict_as_well(regression):
    from tangency.models import from_layers
    from tangency.theory import empirical_ntk

    x, y, x_test, _ = regression
    rng = np.random.default_rng(1)
    w1, w2 = rng.standard_normal((16, 3)), rng.standard_normal((2, 16))
    network = from_layers([w1, w2], "tanh")
    blocks = [
        empirical_ntk(network, *pair, outputs="full") for pair in ((x,), (x_test, x), (x_test,))
    ]
    fit = kernel_ridge(blocks[0].ntk, np.stack([y, -y], 1), ridge=1e-3)
    predicted = fit.predict(blocks[1])
    assert predicted.shape == (10, 2)
    posterior = gp_posterior(Grams(ntk=tuple(blocks)), np.stack([y, -y], 1), get="ntk", ridge=1e-3)
    np.testing.assert_allclose(posterior.mean, predicted, rtol=1e-9)
    assert posterior.covariance.shape == (20, 20)


def test_the_noise_floor_warning_reaches_the_user_of_an_estimator(regression):
    x, y, x_test, _ = regression

    def single(x1, x2):
        return KERNEL(x1, x2, get="ntk").astype(np.float32)

    with pytest.warns(NoiseFloorWarning, match="noise floor"):
        NTKRegressor(single, ridge=1e-7).fit(x, y)
    NTKRegressor(single, ridge=1e-4).fit(x, y).predict(x_test)


def test_the_example_runs(capsys):
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "kernel_regression.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figures = module.main()
    assert "rank correlation" in capsys.readouterr().out
    assert min(figures["dense ntk"], figures["conv ntk"], figures["end of flow"]) > 0.85
    assert figures["rank"] > 0.2


WITHOUT = """
import sys
sys.modules["sklearn"] = None
import numpy as np
from tangency.models.errors import InputError
from tangency.theory.prediction import NTKClassifier, NTKRegressor, SklearnKernel
rng = np.random.default_rng(0)
x = rng.standard_normal((30, 3)); y = x[:, 0] * 2
model = NTKRegressor(ridge=1e-3)
assert model.get_params()["ridge"] == 1e-3 and model.set_params(ridge=1e-2).ridge == 1e-2
assert model.fit(x[:20], y[:20]).score(x[20:], y[20:]) > 0.8
labels = np.where(y > 0, "up", "down")
assert NTKClassifier().fit(x[:20], labels[:20]).score(x[20:], labels[20:]) > 0.8
assert SklearnKernel()(x).shape == (30, 30)
for call, word in (
    (lambda: NTKRegressor().predict(x), "not fitted"),
    (lambda: NTKRegressor().fit(x, None), "needs targets"),
    (lambda: NTKRegressor().fit(x, y[:3]), "samples"),
    (lambda: NTKRegressor().fit(x * np.nan, y), "NaN"),
    (lambda: NTKRegressor().fit(x, y).predict(x[:, :2]), "features"),
    (lambda: model.set_params(depth=3), "no parameter"),
):
    try:
        call()
    except InputError as error:
        assert word in str(error), error
    else:
        raise AssertionError(word)
print("done")
"""


def test_the_estimators_stand_without_scikit_learn():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "done", done.stderr
