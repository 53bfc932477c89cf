"""Kernels on sites as a device runs them: its threads, blocks and shuffles, on the host."""

import shutil

import numpy as np
import pytest

from tangency.gpu.sites import SitesKernel
from tangency.theory import kernels as k
from tangency.theory.kernels.device_plans import site_layers

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

CONV = k.Conv(8, (3, 3), padding="SAME", W_std=1.3, b_std=0.3)
WIDE = k.Conv(8, (5, 5), (2, 1), padding="SAME", W_std=1.2)
POOL, END = k.AvgPool((2, 2), (2, 2)), k.Dense(1, 1.1, 0.2)
PAIR = [CONV, k.Relu(), CONV, k.LeakyRelu(0.1)]
NETS = {
    "all forms": [*PAIR, POOL, *PAIR, CONV, k.residual(k.serial(k.Relu(), CONV)), k.Gelu(), *PAIR,
                  k.GlobalAvgPool(), END],
    "series, strides": [WIDE, k.Activation("tanh"), k.GlobalAvgPool(), END],
}  # fmt: skip


@pytest.fixture
def device(cupy_stand_in, load_module):
    cupy_stand_in.RawModule = load_module("gpu/warps.py").Module
    return "cuda"


def kernels(name, shape, dtype, device):
    kernel = k.infinite_kernel(k.serial(*NETS[name]), method="reference")
    layers = site_layers(kernel.plan(shape))
    return SitesKernel(*layers, dtype, device), SitesKernel(*layers, dtype, "cpu")


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("all forms", (4, 34, 1), np.float32),  # too wide for a warp at first, a half of it then
        ("all forms", (6, 4, 2), np.float64),
        ("series, strides", (9, 17, 2), np.float32),  # a mean so long that a warp shares it
    ],
)
def test_device_code_equals_the_host_build(name, shape, dtype, device, rng):
    x = rng.normal(size=(3, int(np.prod(shape[:2])), shape[2]))
    ours, host = kernels(name, shape, dtype, device)
    for other in (None, x[1:] + 0.1):
        got, want = ours(x, other), host(x, other)
        for kind in got:
            assert type(got[kind]) is np.ndarray
            error = np.abs(got[kind] - want[kind]).max() / np.abs(want[kind]).max()
            assert error < (1e-6 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gram_on_a_device(dtype, device, rng):
    """From the user's call to the kernels and back, in tiles, with one side and with two."""
    kernel = k.infinite_kernel(k.serial(*NETS["series, strides"]), method="reference")
    x, y = rng.normal(size=(5, 9, 17, 2)), rng.normal(size=(3, 9, 17, 2))
    for other in (None, y):
        got = k.gram(kernel, x, other, device=device, dtype=dtype, tile=2)
        want = kernel(x, other)
        for kind in ("nngp", "ntk"):
            assert getattr(got, kind).dtype == dtype
            # float32 holds 6e-8, the tangent kernel a few roundings of it.
            tolerance = 1e-10 if dtype == np.float64 else 1e-5
            assert np.allclose(getattr(got, kind), getattr(want, kind), rtol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NETS)
def test_device_equals_host(name, dtype, rng):
    x = rng.normal(size=(4, 32 * 32, 3))
    ours, host = kernels(name, (32, 32, 3), dtype, "cuda")
    got, want = ours(x), host(x)
    for kind in got:
        assert np.allclose(got[kind], want[kind], rtol=1e-6 if dtype == np.float32 else 1e-12)
