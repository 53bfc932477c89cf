"""Gradient flow of general losses against closed forms, neural-tangents and each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from tangency.models.errors import InputError
from tangency.theory.prediction import Grams, Loss, gradient_flow, gradient_flow_mse
from tangency.theory.prediction.losses import LOSSES, loss_of

RNG = np.random.default_rng(8)
TIGHT = {"rtol": 1e-9, "atol": 1e-11}


def grams(n=6, m=3):
    a = RNG.standard_normal((n + m, 9))
    k = a @ a.T / 9
    return Grams(ntk=(k[:n, :n], k[n:, :n]))


def one_hot(n=6, classes=3):
    return np.eye(classes)[RNG.integers(0, classes, n)]


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_squared_loss_is_the_closed_form(ridge):
    g, y, f0, f0_test = grams(), *(RNG.standard_normal((k, 2)) for k in (6, 6, 3))
    options = {"t": [0.0, 3.0, 1.0], "f0": f0, "f0_test": f0_test, "learning_rate": 0.5}
    want = gradient_flow_mse(g, y, ridge=ridge, **options)
    got = gradient_flow(g, y, "squared", ridge=ridge, **options, **TIGHT)
    np.testing.assert_allclose(got.train, want.train, atol=1e-7)
    np.testing.assert_allclose(got.test, want.test, atol=1e-7)
    np.testing.assert_allclose(got.coefficients, want.coefficients, atol=1e-7)
    assert got.steps > 0


def test_cross_entropy_is_that_of_neural_tangents():
    with np.load(Path(__file__).parent / "golden" / "predictions.npz") as file:
        g = Grams(ntk=(file["ntk_train"], file["ntk_cross"]))
        options = {"f0": file["f0"], "f0_test": file["f0_test"], "t": file["entropy_t"]}
        rate = float(file["rate"])
        got = gradient_flow(
            g, file["labels"], "cross_entropy", learning_rate=rate, **options, **TIGHT
        )
        # The peer integrates to 1e-6 or so.
        np.testing.assert_allclose(got.train, file["entropy_train"], atol=1e-5)
        np.testing.assert_allclose(got.test, file["entropy_test"], atol=1e-5)


def test_logistic_loss_of_one_sample_has_a_closed_form():
    # g' = k sigmoid(-g): g + exp(g) = 1 + k t from g = 0.
    got = gradient_flow(Grams(ntk=np.array([[2.0]])), np.array([1.0]), "logistic", t=5.0, **TIGHT)
    want = brentq(lambda g: g + np.exp(g) - 11.0, 0, 5, xtol=1e-14)
    np.testing.assert_allclose(got.train, [want], rtol=1e-8)


def test_two_classes_are_logistic_at_twice_the_rate():
    g = grams()
    y = one_hot(classes=2)
    two = gradient_flow(g, y, "cross_entropy", t=2.0, **TIGHT)
    sign = y[:, 1] - y[:, 0]
    one = gradient_flow(g, sign, "logistic", t=2.0, learning_rate=2.0, **TIGHT)
    np.testing.assert_allclose(two.test[:, 1] - two.test[:, 0], one.test, atol=1e-7)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_against_central_differences(name):
    y = np.sign(RNG.standard_normal((4, 3))) if name == "logistic" else one_hot(4)
    loss = loss_of(name, y)
    f = 3 * RNG.standard_normal((4, 3))
    got = loss.gradient(f, y)
    for index in np.ndindex(f.shape):
        step = np.zeros_like(f)
        step[index] = 1e-5
        want = (loss.value(f + step, y) - loss.value(f - step, y)) / 2e-5
        np.testing.assert_allclose(got[index], want, rtol=1e-6, atol=1e-8)


def test_losses_do_not_overflow():
    y = np.array([[1.0, 0.0]])
    far = np.array([[-2000.0, 2000.0]])
    assert LOSSES["cross_entropy"][0].value(far, y) == 4000.0
    np.testing.assert_array_equal(LOSSES["cross_entropy"][0].gradient(far, y), [[-1.0, 1.0]])
    logistic = LOSSES["logistic"][0]
    np.testing.assert_allclose(logistic.gradient(np.array([-2000.0]), np.array([1.0])), [-1.0])


def test_a_traced_function_and_a_loss_are_the_named_one():
    jax = pytest.importorskip("jax")
    g, y = grams(), one_hot()

    def entropy(f, target):
        return -(target * jax.nn.log_softmax(f)).sum()

    mine = Loss("mine", lambda f, y: 0.0, LOSSES["cross_entropy"][0].gradient)
    want = gradient_flow(g, y, "cross_entropy", t=1.0, **TIGHT).test
    for loss in (entropy, mine):
        got = gradient_flow(g, y, loss, t=1.0, **TIGHT).test
        np.testing.assert_allclose(got, want, atol=1e-10)
    assert loss_of(entropy, y).value(np.zeros((6, 3)), y) == pytest.approx(6 * np.log(3))


def test_a_stiff_flow_is_given_up_and_an_implicit_method_takes_it():
    k = np.diag([1e5, 1.0])
    y = np.array([1.0, -1.0])
    with pytest.raises(InputError, match="stiff"):
        gradient_flow(Grams(ntk=k), y, "squared", t=50.0, max_gradients=2000)
    got = gradient_flow(Grams(ntk=k), y, "squared", t=5.0, method="LSODA", max_gradients=2000)
    np.testing.assert_allclose(got.train, [1.0, np.exp(-5.0) - 1.0], atol=1e-4)


def test_errors_name_what_is_wrong():
    g, y = grams(), one_hot()
    wrong = [
        (lambda: gradient_flow(g, y, "hinge", t=1.0), "'cross_entropy'"),
        (lambda: gradient_flow(g, y[:, 0], "cross_entropy", t=1.0), "one-hot"),
        (lambda: gradient_flow(g, y, "logistic", t=1.0), "-1 and 1"),
        (lambda: gradient_flow(g, y, "squared", t=np.inf), "gradient_flow_mse"),
        (lambda: gradient_flow(g, y, "squared", t=1.0, method="Euler"), "RK45"),
        (
            lambda: gradient_flow(g, y, Loss("bad", lambda f, y: 0.0, lambda f, y: f[0]), t=1.0),
            "gradient of loss 'bad'",
        ),
        (lambda: Loss("none", 1.0, 2.0), "functions"),
    ]
    for call, message in wrong:
        with pytest.raises(InputError, match=message):
            call()
