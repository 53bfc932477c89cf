"""``gram(device="cuda")``: translated plans on the host build equal the reference walk."""

import shutil

import numpy as np
import pytest

from tangency.gpu.engines import available_devices
from tangency.models.errors import MissingPackageError, UnsupportedError
from tangency.theory import kernels
from tangency.theory.kernels.backend_cuda import DeviceBackend, make_backend

PLAIN = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

DENSE = {
    "relu": [kernels.Dense(8), kernels.Relu(), kernels.Dense(8), kernels.Relu(), kernels.Dense(1)],
    "bias": [kernels.Dense(8, 1.3, 0.4), kernels.Erf(), kernels.Dense(1, 1.2, 0.2)],
    "gelu": [kernels.Dense(8, 1.3, 0.4), kernels.Gelu(), kernels.Dense(1)],
    "sine": [kernels.Dense(8), kernels.Sin(), kernels.Dense(8), kernels.Cos(), kernels.Dense(1)],
    "norm": [kernels.Dense(8), kernels.LayerNorm(), kernels.LeakyRelu(0.1), kernels.Dense(1)],
    "tanh": [kernels.Dense(8, 1.0, 0.1), kernels.Activation("tanh"), kernels.Dense(1)],
}


@PLAIN
@pytest.mark.parametrize("name", DENSE)
def test_dense_plans(name, rng):
    x, y = rng.normal(size=(12, 7)), rng.normal(size=(9, 7))
    kernel = kernels.infinite_kernel(kernels.serial(*DENSE[name]), method="reference")
    truth = kernel(x, y)
    tile = DeviceBackend(kernel.plan((7,)), np.float64, "cpu").tile(x, y)
    assert np.allclose(tile.nngp, truth.nngp, rtol=1e-9, atol=1e-12)
    assert np.allclose(tile.ntk, truth.ntk, rtol=1e-9, atol=1e-12)
    whole = DeviceBackend(kernel.plan((7,)), np.float32, "cpu").tile(x, get="ntk")
    assert whole.ntk.dtype == np.float32
    assert np.allclose(whole.ntk, kernel(x, get="ntk"), rtol=2e-6, atol=1e-6)


@PLAIN
@pytest.mark.parametrize("pool", [kernels.GlobalAvgPool, kernels.Flatten])
def test_image_plans(pool, rng):
    x = rng.normal(size=(3, 5, 6, 2))
    convolution = kernels.Conv(8, (3, 3), padding="SAME", W_std=1.4, b_std=0.3)
    body = [convolution, kernels.Relu(), convolution, kernels.LeakyRelu(0.2)]
    layers = kernels.serial(*body, pool(), kernels.Dense(1, 1.1, 0.2))
    kernel = kernels.infinite_kernel(layers, method="reference")
    truth = kernel(x[:2], x[2:])
    tile = DeviceBackend(kernel.plan((5, 6, 2)), np.float64, "cpu").tile(x[:2], x[2:])
    assert np.allclose(tile.nngp, truth.nngp, rtol=1e-12)
    assert np.allclose(tile.ntk, truth.ntk, rtol=1e-12)


def test_what_has_no_form_is_said():
    elu = kernels.serial(kernels.Dense(4), kernels.Activation("hardtanh"), kernels.Dense(1))
    with pytest.raises(UnsupportedError, match="device='cpu'"):
        make_backend(kernels.infinite_kernel(elu), (3,), np.float64)
    wide = kernels.serial(
        kernels.Conv(4, (5, 5), padding="SAME"), kernels.Relu(), kernels.Flatten()
    )
    plan = kernels.infinite_kernel(kernels.serial(wide, kernels.Dense(1))).plan((6, 6, 1))
    with pytest.raises(UnsupportedError, match="3 x 3"):
        _ = DeviceBackend(plan, device="cpu").kernel


@pytest.mark.skipif("cuda" in available_devices(), reason="there is a GPU")
def test_no_device_says_what_to_install(rng):
    kernel = kernels.infinite_kernel(kernels.serial(*DENSE["relu"]))
    with pytest.raises(MissingPackageError, match="CuPy"):
        kernels.gram(kernel, rng.normal(size=(4, 3)), device="cuda")


@pytest.mark.gpu
def test_gram_on_the_device(rng):
    kernel, x = kernels.infinite_kernel(kernels.serial(*DENSE["relu"])), rng.normal(size=(90, 7))
    device = kernels.gram(kernel, x, get="ntk", tile=40, device="cuda")
    assert np.allclose(device, kernels.gram(kernel, x, get="ntk", device="cpu"), rtol=1e-12)
