"""Deep kernel machines against conditions derived by hand, and Gaussian process regression."""

import numpy as np
import pytest

from tangency.models.errors import InputError
from tangency.theory.spectral import deep_kernel_machine

RNG = np.random.default_rng(0)
N = 8
X = RNG.normal(size=(N, 3))
Y = np.sin(2 * X[:, 0]) + 0.3 * X[:, 1]
Y = (Y - Y.mean()) / Y.std()
X_TEST = RNG.normal(size=(5, 3))


def arc_cosine(gram):
    d = np.sqrt(np.diag(gram))
    cos = np.clip(gram / np.outer(d, d), -1, 1)
    return np.outer(d, d) * (np.sqrt(1 - cos**2) + (np.pi - np.arccos(cos)) * cos) / np.pi


def test_the_process_has_the_kernels_by_their_formulas():
    squares = ((X[:, None] - X[None]) ** 2).sum(-1) / 3
    for kernel, gram in (
        ("squared exponential", np.exp(-squares / 2)),
        ("relu", arc_cosine(X @ X.T / 3)),
        ("linear", X @ X.T / 3 + 1e-3 * np.mean((X**2).sum(1) / 3) * np.eye(N)),
    ):
        jitter = 1e-3 if kernel == "linear" else 1e-12  # three inputs give a Gram of rank three
        machine = deep_kernel_machine(X, Y, nu=1e9, kernel=kernel, output="linear", jitter=jitter)
        assert machine.process_grams[0] == pytest.approx(gram, abs=1e-8)


def test_the_gram_matrix_satisfies_the_stationarity_condition():
    """d/dG of log N(y; 0, G + s I) - nu KL, from the formulas of matrix calculus."""
    nu = 2.0
    machine = deep_kernel_machine(X, Y, nu=nu, output="linear", noise=0.2, jitter=1e-6)
    gram, prior = machine.grams[0], machine.process_grams[0]
    inverse = np.linalg.inv(gram + (0.2 + 1e-6 * np.mean(np.diag(gram))) * np.eye(N))
    fit = inverse @ np.outer(Y, Y) @ inverse - inverse
    # d KL / dG = (K^-1 - G^-1) / 2, multiplied on both sides by G against its conditioning.
    pull = nu * (gram @ np.linalg.solve(prior, gram) - gram)
    assert np.abs(gram @ fit @ gram - pull).max() < 1e-4 * np.abs(pull).max() + 1e-5


def test_wide_layers_are_the_gaussian_process():
    inner = np.vstack([X, X_TEST]) @ np.vstack([X, X_TEST]).T / 3
    gram = arc_cosine(arc_cosine(inner))
    whole = gram[:N, :N] + 0.1 * np.eye(N)
    mean = gram[N:, :N] @ np.linalg.solve(whole, Y)
    variance = np.diag(gram[N:, N:] - gram[N:, :N] @ np.linalg.solve(whole, gram[:N, N:]))
    machine = deep_kernel_machine(X, Y, nu=1e9, noise=0.1)
    found, spread = machine.predict(X_TEST)
    assert found.ravel() == pytest.approx(mean, abs=1e-5)
    assert spread == pytest.approx(variance, abs=1e-5)


def test_deviation_falls_as_one_over_nu_and_narrow_layers_align():
    def deviation(nu):
        machine = deep_kernel_machine(X, Y, nu=nu, kernel="squared exponential", output="linear")
        prior = machine.process_grams[0]
        return np.linalg.norm(machine.grams[0] - prior) / np.linalg.norm(prior), machine.grams[0]

    far, near = deviation(1000.0)[0], deviation(100.0)[0]
    assert near / far == pytest.approx(10.0, rel=0.15)
    gram = deviation(0.01)[1]
    assert Y @ gram @ Y / (np.linalg.norm(gram) * (Y @ Y)) > 0.99


def test_all_inputs_inducing_is_the_full_machine_and_fewer_are_a_bound():
    options = {"nu": 5.0, "depth": 2, "jitter": 1e-7}
    full = deep_kernel_machine(X, Y, **options)
    same = deep_kernel_machine(X, Y, inducing=X, **options)
    assert same.objective == pytest.approx(full.objective, rel=1e-3)
    assert same.predict(X_TEST)[0] == pytest.approx(full.predict(X_TEST)[0], abs=5e-3)
    few = deep_kernel_machine(X, Y, inducing=X[:6], nu=1e9, jitter=1e-7)
    process = deep_kernel_machine(X, Y, nu=1e9, jitter=1e-7)
    assert few.objective < process.objective
    assert few.grams[0].shape == (6, 6)


def test_learning_raises_the_objective():
    targets = np.stack([Y, Y**2], 1)
    learnt = deep_kernel_machine(X, targets, depth=2, nu=(2.0, 4.0))
    process = deep_kernel_machine(X, targets, depth=2, nu=1e9)
    assert learnt.objective > process.objective
    assert len(learnt.grams) == 2
    assert learnt.predict(X_TEST)[0].shape == (5, 2)


def test_options_are_checked():
    for options, word in (
        ({"kernel": "tanh"}, "kernel"),
        ({"nu": -1.0}, "nu"),
        ({"nu": (1.0, 2.0)}, "nu"),
        ({"depth": 0}, "depth"),
        ({"noise": 0.0}, "noise"),
        ({"inducing": X[:, :2]}, "inducing"),
    ):
        with pytest.raises(InputError, match=word):
            deep_kernel_machine(X, Y, **options)
