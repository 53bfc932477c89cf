"""Panels that are read while others are multiplied: in memory, on disk, and on a stand-in GPU."""

import numpy as np
import pytest

from tangency.gpu.ahead import bring, read_ahead
from tangency.gpu.cholesky import cholesky, cholesky_solve
from tangency.gpu.errors import PlanError

N = 37


@pytest.fixture
def matrix(rng):
    a = rng.normal(size=(N, N))
    return a @ a.T / N + 0.1 * np.eye(N)


def stored(kind, matrix, folder):
    if kind == "memory":
        return matrix.copy()
    if kind == "map":
        file = np.lib.format.open_memmap(folder / "k.npy", "w+", matrix.dtype, matrix.shape)
    else:
        zarr = pytest.importorskip("zarr")
        file = zarr.create_array(
            folder / "k.zarr", shape=matrix.shape, dtype="float64", chunks=(5, 5)
        )
    file[:] = matrix
    return file


PIECES = [(slice(i, i + 9), slice(j, j + 4 + j % 3)) for i in (0, 20) for j in range(7)]


@pytest.mark.parametrize("kind", ["memory", "map", "zarr"])
@pytest.mark.parametrize("pieces", [PIECES, PIECES[:1], []])
def test_pieces_come_in_order(kind, pieces, matrix, tmp_path):
    store = stored(kind, matrix, tmp_path)
    found = [np.array(piece) for piece in read_ahead(store, pieces)]
    assert len(found) == len(pieces)
    for piece, want in zip(found, pieces, strict=True):
        np.testing.assert_array_equal(piece, matrix[want])


@pytest.mark.parametrize("kind", ["memory", "map"])
def test_pieces_on_a_device(kind, cupy_stand_in, matrix, tmp_path):
    xp, store = cupy_stand_in, stored(kind, matrix, tmp_path)
    for piece, want in zip(read_ahead(store, PIECES, xp), PIECES, strict=True):
        assert type(piece) is xp.ndarray
        np.testing.assert_array_equal(xp.asnumpy(piece), matrix[want])
    inside = xp.asarray(matrix)
    for piece, want in zip(read_ahead(inside, PIECES, xp), PIECES, strict=True):
        assert np.shares_memory(piece, inside)
        np.testing.assert_array_equal(xp.asnumpy(piece), matrix[want])


@pytest.mark.parametrize("kind", ["memory", "map", "zarr"])
@pytest.mark.parametrize("rows", [1, 10, 100])
def test_a_matrix_is_brought_by_bands(kind, rows, cupy_stand_in, matrix, tmp_path):
    xp, store = cupy_stand_in, stored(kind, matrix, tmp_path)
    there = bring(store, xp, rows=rows)
    assert type(there) is xp.ndarray
    np.testing.assert_array_equal(xp.asnumpy(there), matrix)
    assert bring(there, xp) is there


def test_a_reader_may_stop_early(cupy_stand_in, matrix, tmp_path):
    for xp in (np, cupy_stand_in):
        reader = read_ahead(stored("map", matrix, tmp_path), PIECES, xp)
        next(reader)
        reader.close()


@pytest.mark.parametrize("block", [5, 12, 40])
@pytest.mark.parametrize("kind", ["memory", "map", "zarr", "device"])
@pytest.mark.parametrize("device", [False, True])
def test_the_factor_is_lapacks(kind, device, block, cupy_stand_in, matrix, rng, tmp_path):
    if kind == "device" and not device:
        return
    xp = cupy_stand_in if device else np
    store = xp.asarray(matrix) if kind == "device" else stored(kind, matrix, tmp_path)
    factor = cholesky(store, block=block, ridge=0.2, xp=xp)
    assert factor is store
    host = xp.asnumpy(factor) if kind == "device" else np.asarray(factor[:])
    shifted = matrix + 0.2 * np.eye(N)
    np.testing.assert_allclose(np.tril(host), np.linalg.cholesky(shifted), atol=1e-13)
    np.testing.assert_array_equal(np.triu(host, 1), np.triu(matrix, 1))
    right = rng.normal(size=(N, 2))
    x = cholesky_solve(factor, right, block=block, xp=xp)
    assert type(x) is xp.ndarray
    np.testing.assert_allclose(x.view(np.ndarray), np.linalg.solve(shifted, right), atol=1e-11)


def test_the_device_says_what_is_not_positive(cupy_stand_in, matrix):
    matrix[20, 20] = -1.0
    with pytest.raises(PlanError, match="columns 16 to 23"):
        cholesky(matrix, block=8, xp=cupy_stand_in)
