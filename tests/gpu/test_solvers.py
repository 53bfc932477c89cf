"""Solvers on NumPy: against LAPACK, with residuals recomputed."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.gpu.cholesky import cholesky, cholesky_solve
from tangency.gpu.errors import PlanError
from tangency.gpu.gradients import nystrom, solve, tiled_product
from tangency.gpu.spectra import gradient_flow, top_spectrum


def positive(n, seed=0, decay=1.0):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return basis * np.arange(1.0, n + 1.0) ** -decay @ basis.T


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 1000))
def test_blocked_cholesky_is_lapacks(n, block, seed):
    matrix = positive(n, seed)
    work = matrix + np.triu(np.full((n, n), np.nan), 1)  # the upper triangle is not read
    factor = cholesky(work, block=block, ridge=0.1)
    assert np.isnan(factor[np.triu_indices(n, 1)]).all()
    lower = np.tril(np.nan_to_num(factor))
    truth = np.linalg.cholesky(matrix + 0.1 * np.eye(n))
    assert np.allclose(lower, truth, atol=1e-13)
    right = np.random.default_rng(seed).normal(size=(n, 2))
    x = cholesky_solve(lower, right, block=block)
    assert np.allclose((matrix + 0.1 * np.eye(n)) @ x, right, atol=1e-11)
    assert np.allclose(cholesky_solve(lower, right[:, 0], block=block), x[:, 0], atol=1e-12)


def test_cholesky_on_disk_and_of_a_matrix_that_is_not_positive(tmp_path):
    matrix = positive(30)
    disk = np.lib.format.open_memmap(tmp_path / "k.npy", "w+", np.float64, (30, 30))
    disk[:] = matrix
    factor = cholesky(disk, block=8, ridge=0.01)
    assert factor is disk
    assert np.allclose(np.tril(disk), np.linalg.cholesky(matrix + 0.01 * np.eye(30)), atol=1e-13)
    matrix[20, 20] = -1.0
    with pytest.raises(PlanError, match="columns 16 to 23"):
        cholesky(matrix, block=8)


def test_gradients_with_and_without_landmarks():
    n, ridge = 300, 1e-6
    matrix, right = positive(n, decay=2.0), np.random.default_rng(1).normal(size=(n, 3))
    truth = scipy.linalg.solve(matrix + ridge * np.eye(n), right, assume_a="pos")
    chosen = np.random.default_rng(2).choice(n, 150, replace=False)
    helper = nystrom(matrix[:, chosen], chosen)
    assert np.allclose(helper.vectors.T @ helper.vectors, np.eye(150), atol=1e-10)

    def product(v):
        return matrix @ v

    plain = solve(product, right, ridge=ridge, tolerance=1e-9, steps=5000)
    fast = solve(product, right, ridge=ridge, preconditioner=helper, tolerance=1e-9, steps=5000)
    for solution in (plain, fast):
        assert solution.converged
        gap = right - matrix @ solution.x - ridge * solution.x
        assert np.linalg.norm(gap, axis=0).max() < 2e-9 * np.linalg.norm(right, axis=0).max()
        assert np.allclose(solution.x, truth, rtol=1e-3, atol=1e-5 * np.abs(truth).max())
    assert fast.steps < plain.steps / 3
    short = solve(product, right[:, 0], ridge=ridge, tolerance=1e-9, steps=2)
    assert not short.converged
    assert short.x.shape == (n,)
    assert np.array_equal(solve(product, np.zeros(n), ridge=ridge).x, np.zeros(n))
    with pytest.raises(PlanError, match="not positive definite"):
        solve(lambda v: -matrix @ v, right, ridge=ridge)
    with pytest.raises(PlanError, match="landmarks"):
        nystrom(matrix[:, :3], [1, 1, 2])


def test_landmarks_everywhere_are_the_matrix():
    matrix = positive(40)
    helper = nystrom(matrix, np.arange(40))
    v = np.random.default_rng(0).normal(size=(40, 2))
    assert np.allclose((helper.vectors * helper.values) @ helper.vectors.T, matrix, atol=1e-10)
    ours = helper.apply_inverse(v, 0.3)
    assert np.allclose(ours, np.linalg.solve(matrix + 0.3 * np.eye(40), v), atol=1e-9)


def test_products_by_tiles_that_are_not_kept():
    matrix, v = positive(37), np.random.default_rng(0).normal(size=(37, 2))
    asked = []

    def compute(here, there):
        asked.append(there.start >= here.start)
        return matrix[here, there]

    assert np.allclose(tiled_product(compute, 37, tile=10)(v), matrix @ v, atol=1e-14)
    assert all(asked)


def test_spectrum_and_gradient_flow():
    matrix = positive(200, decay=1.5)

    def product(v):
        return matrix @ v

    spectrum = top_spectrum(product, 200, 8)
    truth = np.linalg.eigvalsh(matrix)[::-1]
    # Each value lies within its error of an eigenvalue, and these are the largest.
    assert (np.abs(spectrum.values - truth[:8]) <= spectrum.errors + 1e-14).all()
    assert np.allclose(spectrum.values, truth[:8], rtol=1e-8)
    assert np.allclose(top_spectrum(product, 200, 200, steps=200).values, truth, atol=1e-12)
    same = top_spectrum(lambda v: 2.0 * v, 12, 5)  # every space is invariant
    assert np.allclose(same.values, 2.0)
    start = np.random.default_rng(3).normal(size=200)
    times = np.array([0.0, 0.5, 20.0, 300.0])
    flow = gradient_flow(product, start, times)
    exact = np.stack([scipy.linalg.expm(-t * matrix) @ start for t in times])
    assert np.abs(flow - exact).max() < 1e-9
    assert np.array_equal(gradient_flow(product, 0 * start, times), np.zeros((4, 200)))
    with pytest.raises(PlanError, match="eigenvalues"):
        top_spectrum(product, 200, 0)
