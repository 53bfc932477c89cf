"""Kernel ridge regression by each solver, on each device that a stand-in can be: one answer."""

import sys
import warnings

import numpy as np
import pytest

from tangency.gpu.engines import available_devices
from tangency.models.errors import InputError, MissingPackageError
from tangency.theory import gp_posterior, kernel_ridge
from tangency.theory.kernels import Dense, Relu, gram, infinite_kernel, serial
from tangency.theory.prediction import Grams, NoiseFloorWarning

KERNEL = infinite_kernel(serial(Dense(8, 1.4), Relu(), Dense(8, 1.4), Relu(), Dense()))
N = 300


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 5))
    y = np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2], np.zeros(N)], axis=1)
    return x, KERNEL(x, get="ntk"), y


@pytest.fixture
def stand_in(monkeypatch, load_module):
    module = load_module("gpu/stand_in.py")

    def install(**options):
        for name, made in module.module(**options).items():
            monkeypatch.setitem(sys.modules, name, made)

    return install


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("free", [1 << 30, 1 << 10])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_solvers_agree(solver, device, free, data, stand_in):
    stand_in(free=free)
    _, matrix, y = data
    truth = np.linalg.solve(matrix + 1e-3 * np.diag(matrix).mean() * np.eye(N), y)
    options = {} if solver == "cholesky" else {"tol": 1e-11}
    fit = kernel_ridge(matrix, y, ridge=1e-3, solver=solver, device=device, **options)
    np.testing.assert_allclose(fit.coefficients, truth, atol=1e-8 * np.abs(truth).max())
    assert fit.method.startswith(solver)
    if solver == "cholesky":
        there = kernel_ridge(matrix, y, ridge=1e-3, leave_one_out=True, device=device)
        here = kernel_ridge(matrix, y, ridge=1e-3, leave_one_out=True)
        np.testing.assert_allclose(there.leave_one_out, here.leave_one_out, rtol=1e-9, atol=1e-9)


def test_a_float32_file_is_read_by_rows(data, tmp_path):
    x, matrix, y = data
    stored = gram(KERNEL, x, get="ntk", dtype=np.float32, out=tmp_path / "k.npy", tile=128)
    assert isinstance(stored, np.memmap)
    exact = kernel_ridge(matrix, y, ridge=1e-2)
    fit = kernel_ridge(stored, y[:, 0], ridge=1e-2, solver="cg")
    want = exact.coefficients[:, 0]
    np.testing.assert_allclose(fit.coefficients, want, atol=2e-4 * np.abs(want).max())
    np.testing.assert_allclose(fit.predict(matrix[:9]), exact.predict(matrix[:9])[:, 0], atol=1e-5)


def test_landmarks_spare_products(data):
    _, matrix, y = data
    steps = [
        int(kernel_ridge(matrix, y, ridge=1e-5, solver="cg", landmarks=k).method.split()[1])
        for k in (0, 60, 200)
    ]
    assert steps[0] > 1.5 * steps[1] > 1.5 * steps[2]


def test_pairs_of_outputs(data):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20 * 3, 90))
    whole = features @ features.T / 90
    pairs = whole.reshape(20, 3, 20, 3).transpose(0, 2, 1, 3)
    y = rng.normal(size=(20, 3))
    want = kernel_ridge(pairs, y, ridge=0.1).coefficients
    got = kernel_ridge(pairs, y, ridge=0.1, solver="cg", tol=1e-12).coefficients
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_what_cannot_be_solved_is_said(data, stand_in):
    _, matrix, y = data
    for options, word in (
        ({"solver": "qr"}, "'cholesky', 'cg'"),
        ({"solver": "cg", "ridge": 0.0}, "ridge above 0"),
        ({"solver": "cg", "leave_one_out": True}, "leave_one_out"),
        ({"solver": "cg", "landmarks": N + 1}, "from 0 to 300"),
        ({"solver": "cg", "tol": 0.0}, "tol=0"),
        ({"solver": "cg", "max_products": 2}, "after 2 products"),
        ({"device": "tpu"}, "'cpu' or 'cuda'"),
    ):
        with pytest.raises(InputError, match=word):
            kernel_ridge(matrix, y, **{"ridge": 1e-3, **options})
    broken = matrix - 2 * np.diag(matrix).mean() * np.eye(N) * (np.arange(N) == 7)
    stand_in()
    for options in ({}, {"device": "cuda"}, {"solver": "cg", "landmarks": 0}):
        with pytest.raises(InputError, match="not positive definite"):
            kernel_ridge(broken, y, ridge=1e-3, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoiseFloorWarning)
        with pytest.raises(NoiseFloorWarning):
            kernel_ridge(matrix.astype(np.float32), y, ridge=1e-6, solver="cg")


@pytest.mark.skipif("cuda" in available_devices(), reason="there is a GPU")
def test_no_device_says_what_to_install(data):
    with pytest.raises(MissingPackageError, match="CuPy"):
        kernel_ridge(data[1], data[2], ridge=1e-3, device="cuda")


def test_the_posterior_mean_is_the_regression(data):
    x, matrix, y = data
    cross = KERNEL(x[:5] + 0.1, x, get="ntk")
    mean = gp_posterior(Grams(ntk=(matrix, cross)), y, get="ntk", ridge=1e-2).mean
    fit = kernel_ridge(matrix, y, ridge=1e-2, solver="cg", tol=1e-11)
    np.testing.assert_allclose(fit.predict(cross), mean, atol=1e-7)
