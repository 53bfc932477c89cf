"""Lanczos: an orthonormal basis, a tridiagonal matrix in it, and columns that do not meet."""

import numpy as np
import pytest

from tangency.gpu.lanczos import Lanczos
from tangency.gpu.spectra import gradient_flow, top_spectrum

N = 90


@pytest.fixture
def matrix(rng):
    basis, _ = np.linalg.qr(rng.normal(size=(N, N)))
    return basis * np.arange(1.0, N + 1.0) ** -1.5 @ basis.T


def iterated(product, start, steps, xp=np):
    run = Lanczos(product, start, xp=xp)
    for _ in range(steps):
        run.step()
    return run


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 70])
def test_the_matrix_is_tridiagonal_in_the_basis(matrix, rng, steps):
    start = rng.normal(size=(N, 3))
    start[:, 1] = 0.0
    run = iterated(lambda v: matrix @ v, start, steps)
    assert len(run) == steps
    basis = run.combine(np.eye(steps)[:, :, None] * np.ones(3))  # (vectors, n, c)
    for column in (0, 2):
        q = basis[:, :, column]
        diagonal, beside = run.tridiagonal(column)
        small = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        np.testing.assert_allclose(q @ q.T, np.eye(steps), atol=1e-13)
        np.testing.assert_allclose(q @ matrix @ q.T, small, atol=1e-13)
        # What the last product leaves is orthogonal to all before, and of the size that is said.
        left = matrix @ q[-1] - q.T @ small[-1]
        assert np.linalg.norm(left) == pytest.approx(run.beside[-1][column], abs=1e-13)
        np.testing.assert_allclose(run.norms[column] * q[0], start[:, column], atol=1e-14)
        alone = iterated(lambda v: matrix @ v, start[:, [column]], steps)
        np.testing.assert_allclose(alone.tridiagonal()[0], diagonal, atol=1e-12)
    assert not basis[:, :, 1].any()
    y = rng.normal(size=(2, steps, 3))
    np.testing.assert_allclose(run.combine(y), np.einsum("tkc,knc->tnc", y, basis), atol=1e-14)


def test_an_invariant_space_ends_the_iteration_or_is_left(rng):
    matrix = np.diag([3.0, 3.0, 1.0, 1.0])
    run = iterated(lambda v: matrix @ v, np.ones((4, 1)), 2)
    assert run.beside[-1][0] == 0.0
    run.step()  # zeros, and no NaN
    assert run.diagonal[-1][0] == 0.0
    assert run.beside[-1][0] == 0.0
    run = iterated(lambda v: matrix @ v, np.ones((4, 1)), 2)
    run.restart(rng.normal(size=(4, 1)))
    run.step()
    run.restart(rng.normal(size=(4, 1)))
    run.step()
    basis = run.combine(np.eye(4)[:, :, None])[:, :, 0]
    np.testing.assert_allclose(basis @ basis.T, np.eye(4), atol=1e-13)


def test_on_a_device(cupy_stand_in, matrix, rng):
    xp = cupy_stand_in
    there = xp.asarray(matrix)

    def product(v):
        return there @ v

    spectrum = top_spectrum(product, N, 5, xp=xp)
    truth = np.linalg.eigvalsh(matrix)[::-1][:5]
    np.testing.assert_allclose(xp.asnumpy(spectrum.values), truth, rtol=1e-9)
    start, times = rng.normal(size=N), [0.0, 1.0, 30.0]
    here = gradient_flow(lambda v: matrix @ v, start, times)
    flow = gradient_flow(product, xp.asarray(start), times, xp=xp)
    assert type(flow) is xp.ndarray
    np.testing.assert_allclose(xp.asnumpy(flow), here, atol=1e-13)
