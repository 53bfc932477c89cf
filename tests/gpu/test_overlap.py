"""``gram`` on a device, through a stand-in for CuPy whose copies are as late as they may be."""

import shutil

import numpy as np
import pytest

from tangency.gpu import engines
from tangency.gpu.bands import Bands, free_memory, host_memory
from tangency.gpu.dense import DenseKernel
from tangency.gpu.gradients import solve, tiled_product
from tangency.gpu.plans import Activation, Dense
from tangency.gpu.tiles import fill
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory import kernels
from tangency.theory.kernels.backend import MAKERS, resolve
from tangency.theory.kernels.backend_cuda import DeviceBackend

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

NET = kernels.serial(
    kernels.Dense(8, 1.3, 0.3), kernels.Relu(), kernels.Dense(8), kernels.Relu(), kernels.Dense(1)
)
KERNEL = kernels.infinite_kernel(NET)
REFERENCE = kernels.infinite_kernel(NET, method="reference")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tiles_of_a_device_are_the_kernel(cupy_stand_in, rng, dtype, tmp_path):
    x, y = rng.normal(size=(50, 6)), rng.normal(size=(23, 6))
    x[7] = x[31]
    close = {"rtol": 1e-9 if dtype == np.float64 else 2e-6, "atol": 1e-12}
    for other in (None, y):
        found = kernels.gram(KERNEL, x, other, tile=12, dtype=dtype, device="cuda")
        for kind in ("nngp", "ntk"):
            ours = getattr(found, kind)
            assert type(ours) is np.ndarray
            np.testing.assert_allclose(ours, getattr(REFERENCE(x, other), kind), **close)
    stored = kernels.gram(
        KERNEL, x, get="ntk", tile=12, dtype=dtype, device="cuda", out=tmp_path / "k.npy"
    )
    np.testing.assert_array_equal(stored, kernels.gram(KERNEL, x, get="ntk", tile=12, dtype=dtype))
    np.testing.assert_array_equal(stored, stored.T)


def test_the_device_is_the_default_where_it_has_a_form(cupy_stand_in, monkeypatch):
    assert resolve(KERNEL, (6,))[0] == "cuda"
    assert resolve(REFERENCE, (6,))[0] == "cpu"
    assert resolve(lambda a, b: a @ b.T, (6,))[0] == "cpu"
    with pytest.raises(UnsupportedError, match="device='cpu'"):
        resolve(lambda a, b: a @ b.T, (6,), device="cuda")

    def none(kernel, shape, dtype):
        raise UnsupportedError("no form of this: use device='cpu'")

    monkeypatch.setitem(MAKERS, "cuda", none)
    assert resolve(KERNEL, (6,))[0] == "cpu"
    with pytest.raises(UnsupportedError, match="no form"):
        resolve(KERNEL, (6,), device="cuda")


def test_without_a_device_the_default_is_the_cpu(monkeypatch):
    monkeypatch.setattr(engines, "available_devices", lambda: ("cpu",))
    assert resolve(KERNEL, (6,))[0] == "cpu"


def test_a_file_is_of_one_device(cupy_stand_in, rng, tmp_path):
    x, path, told = rng.normal(size=(30, 6)), tmp_path / "k.npy", []

    def stop(done, total):
        told.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kernels.gram(KERNEL, x, get="ntk", tile=8, out=path, progress=stop)
    with pytest.raises(InputError, match="begun on device='cuda'"):
        kernels.gram(KERNEL, x, get="ntk", tile=8, out=path, device="cpu")
    again = []
    # The tile is that of the run that goes on.
    found = kernels.gram(
        KERNEL, x, get="ntk", out=path, progress=lambda done, total: again.append(done)
    )
    assert again == [*range(4, 11)]
    np.testing.assert_allclose(found, REFERENCE(x, get="ntk"), rtol=1e-9)


def test_a_tile_is_begun_before_the_last_is_copied(cupy_stand_in, rng, monkeypatch):
    order = []
    begin, fetch = DenseKernel.begin, engines.CudaEngine.fetch

    def begun(self, *arguments, **options):
        order.append("begin")
        return begin(self, *arguments, **options)

    def fetched(self, array):
        wait = fetch(self, array)
        return lambda: (order.append("wait"), wait())[1]

    monkeypatch.setattr(DenseKernel, "begin", begun)
    monkeypatch.setattr(engines.CudaEngine, "fetch", fetched)
    kernels.gram(KERNEL, rng.normal(size=(30, 6)), get="ntk", tile=10, device="cuda")
    assert order == ["begin", *["begin", "wait"] * 5, "wait"]


def test_samples_are_prepared_once_where_they_fit(cupy_stand_in, rng, monkeypatch):
    made = []
    batch = DenseKernel.batch
    monkeypatch.setattr(DenseKernel, "batch", lambda self, x: made.append(len(x)) or batch(self, x))
    x = rng.normal(size=(40, 6))
    whole = kernels.gram(KERNEL, x, get="ntk", tile=10, device="cuda")
    assert made == [10] * 4
    made.clear()
    small = kernels.gram(KERNEL, x, get="ntk", tile=10, device="cuda", memory=2e4)
    np.testing.assert_array_equal(small, whole)
    made.clear()
    tight = kernels.gram(KERNEL, x, get="ntk", tile=10, device="cuda", memory=100.0)
    np.testing.assert_array_equal(tight, whole)
    assert len(made) > 4


def test_bands_keep_what_was_used_last():
    made = []

    def make(rows):
        made.append(rows.start)
        return np.zeros(rows.stop - rows.start)

    bands = Bands(make, 100.0)
    first, second, third = slice(0, 6), slice(6, 12), slice(12, 18)
    assert bands(first) is bands(first)
    bands(second), bands(first), bands(third)
    assert bands.size == 96
    bands(first)
    assert made == [0, 6, 12]
    bands(second)
    assert made == [0, 6, 12, 6]


def test_a_system_may_say_nothing_of_its_memory(monkeypatch):
    def absent(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr("os.sysconf", absent)
    assert host_memory() is None
    assert free_memory() == 1 << 32


def test_the_tile_is_chosen_within_the_memory(cupy_stand_in):
    for where in ("cuda", "cpu"):
        backend = resolve(KERNEL, (6,), device=where)[1]
        sides = [backend.side(("ntk",), 6, memory, 1) for memory in (1e5, 1e7, 1e9, 1e12)]
        assert sides == sorted(sides)
        assert sides[0] < 128
        assert sides[-1] == {"cuda": 8192, "cpu": 2048}[where]
        # Two tiles in work of a product and a result, or one result, and no more.
        assert {"cuda": 2 * (8 + 8) * 2, "cpu": 8}[where] * sides[1] ** 2 < 1e7
    assert free_memory(cupy_stand_in) == 1 << 30
    assert free_memory() > 1 << 20
    images = kernels.infinite_kernel(
        kernels.serial(kernels.Conv(4), kernels.Relu(), kernels.GlobalAvgPool(), kernels.Dense(1))
    )
    assert resolve(images, (32, 32, 3), device="cpu")[1].side(("ntk",), 3072, None, 1) == 32
    with pytest.raises(InputError, match="a tile of one entry"):
        kernels.gram(KERNEL, np.ones((3, 6)), memory=8.0, device="cuda")
    with pytest.raises(InputError, match="memory = 0"):
        kernels.gram(KERNEL, np.ones((3, 6)), memory=0)


def test_products_of_tiles_that_stay_on_the_device(cupy_stand_in, rng):
    xp, x = cupy_stand_in, rng.normal(size=(50, 6))
    v = rng.normal(size=(50, 2))
    layers = (Dense(-1, 2.0), Activation(0), Dense(1))
    kernel = DenseKernel(layers, np.float64, "cuda")
    matrix = kernel(x, get="ntk")["ntk"]
    for host in (True, False):
        found = kernel.tiles(x, host=host)(slice(0, 20), slice(20, 50))()
        assert type(found) is (np.ndarray if host else xp.ndarray)
        product = tiled_product(kernel.tiles(x, host=host), 50, tile=20, xp=xp)
        want = matrix @ xp.asarray(v)
        np.testing.assert_allclose(xp.asnumpy(product(xp.asarray(v))), xp.asnumpy(want), rtol=1e-12)
    solved = solve(product, xp.asarray(v), ridge=0.1, tolerance=1e-11, xp=xp)
    truth = np.linalg.solve(xp.asnumpy(matrix) + 0.1 * np.eye(50), v)
    np.testing.assert_allclose(xp.asnumpy(solved.x), truth, atol=1e-8)


@pytest.mark.parametrize("pool", [kernels.GlobalAvgPool, kernels.Flatten])
def test_images_in_float32_keep_their_diagonal(pool, rng):
    conv = kernels.Conv(8, (3, 3), padding="SAME", W_std=1.4, b_std=0.1)
    net = [conv, kernels.Relu(), conv, kernels.Relu(), pool(), kernels.Dense(1)]
    kernel = kernels.infinite_kernel(kernels.serial(*net), method="reference")
    x = rng.normal(size=(5, 4, 4, 2)).astype(np.float32)
    x[3] = x[2]
    backend = DeviceBackend(kernel.plan(x.shape[1:]), np.float32, "cpu")
    found = np.empty((5, 5))
    fill({"ntk": found}, backend.tiles(x, get="ntk"), tile=3, symmetric=True)
    want = kernel(x, get="ntk")
    error = np.abs(found / want - 1.0)
    assert np.diag(error).max() < 1e-6
    # The duplicates are of two tiles: what is said of pooled entries in float32, 1e-3 over 16.
    assert error[2, 3] < (1e-3 / 16 if pool is kernels.GlobalAvgPool else 1e-6)
    error[[2, 3], [3, 2]] = 0.0
    assert error.max() < 2e-6
    np.testing.assert_array_equal(found, found.T)
