"""``gram(device="cuda")``: translated plans on the host build equal the reference walk."""

import shutil

import numpy as np
import pytest

from tangency.gpu.dense import DenseKernel
from tangency.gpu.engines import available_devices
from tangency.gpu.images import ImagesKernel
from tangency.gpu.sites import SitesKernel
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
def test_near_duplicates_of_a_dense_series(rng):
    """Its far terms carry what the cut series would lose just before cos = 1: 3e-4 of it here."""
    wide = kernels.Dense(8, 4.0, 0.1)
    net = kernels.serial(wide, kernels.Activation("tanh"), wide, kernels.Activation("tanh"), wide)
    kernel = kernels.infinite_kernel(net, method="reference")
    x = rng.normal(size=(3, 7))
    backend = DeviceBackend(kernel.plan((7,)), np.float64, "cpu")
    for shift in (1e-4, 1e-2, 0.1):
        y = x + shift * rng.normal(size=x.shape)
        y[0] = -y[0]
        tile, truth = backend.tile(x, y), kernel(x, y)
        assert np.allclose(tile.nngp, truth.nngp, rtol=1e-11)
        assert np.allclose(tile.ntk, truth.ntk, rtol=1e-11)


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


CONV = kernels.Conv(8, (3, 3), padding="SAME", W_std=1.4, b_std=0.3)
CHAIN = [CONV, kernels.Relu(), CONV, kernels.Abs()]
POOLED = [*CHAIN, kernels.AvgPool((2, 2), (2, 2)), CONV, kernels.Gelu(), kernels.GlobalAvgPool()]
OTHERS = {
    "dense": (DenseKernel, (7,), DENSE["relu"]),
    "chain": (ImagesKernel, (8, 6, 2), [*CHAIN, kernels.Flatten(), kernels.Dense(1)]),
    "too wide": (SitesKernel, (2, 33, 1), [*CHAIN, kernels.Flatten(), kernels.Dense(1)]),
    "pooled": (SitesKernel, (8, 6, 2), [*POOLED, kernels.Dense(1)]),
    "dropout": (SitesKernel, (7,), [kernels.Dense(8), kernels.Dropout(0.5), kernels.Dense(1)]),
}


@PLAIN
@pytest.mark.parametrize("name", OTHERS)
def test_each_plan_has_its_kernel(name, rng):
    form, shape, net = OTHERS[name]
    kernel = kernels.infinite_kernel(kernels.serial(*net), method="reference")
    x, y = rng.normal(size=(4, *shape)), rng.normal(size=(3, *shape))
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-5)):
        backend = DeviceBackend(kernel.plan(shape), dtype, "cpu")
        assert isinstance(backend.kernel, form)
        for other in (None, y):
            tile, truth = backend.tile(x, other), kernel(x, other)
            assert tile.ntk.dtype == dtype
            # An image meets itself in ImagesKernel at an angle of sqrt(1e-16): see its module.
            close = 1e-7 if other is None and name == "chain" else 0.0
            for kind in ("nngp", "ntk"):
                ours, theirs = getattr(tile, kind), getattr(truth, kind)
                assert np.allclose(ours, theirs, rtol=max(tolerance, close))
        begun = backend.tiles(x, y, memory=1e8)(slice(1, 4), slice(0, 2))()
        assert np.allclose(begun["ntk"], kernel(x[1:], y[:2], get="ntk"), rtol=tolerance)


@PLAIN
def test_a_network_of_torch(rng):
    """Channels first, a strided shortcut, batch norm: the plan of an imported Network."""
    torch = pytest.importorskip("torch")
    from tangency.models import from_torch

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(2, 4, 3, stride=2, padding=1)
            self.norm, self.second = torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 4, 3, padding=1)
            self.short, self.end = torch.nn.Conv2d(2, 4, 1, stride=2), torch.nn.Linear(4, 1)

        def forward(self, x):
            y = self.second(torch.relu(self.norm(self.first(x)))) + self.short(x)
            return self.end(torch.tanh(y).mean(dim=(2, 3)))

    network = from_torch(Block().eval(), torch.zeros(1, 2, 6, 6))
    kernel = kernels.infinite_kernel(network, weight_variance=1.7, bias_variance=0.2)
    x = rng.normal(size=(4, 2, 6, 6))
    tile, truth = DeviceBackend(kernel.plan((2, 6, 6)), np.float64, "cpu").tile(x), kernel(x)
    assert np.allclose(tile.nngp, truth.nngp, rtol=1e-10)
    assert np.allclose(tile.ntk, truth.ntk, rtol=1e-10)


def test_what_has_no_form_is_said():
    bent = kernels.serial(kernels.Dense(4), kernels.Activation("hardtanh"), kernels.Dense(1))
    with pytest.raises(UnsupportedError, match="device='cpu'"):
        make_backend(kernels.infinite_kernel(bent), (3,), np.float64)
    attention = [CONV, kernels.Attention(4), kernels.Flatten(), kernels.Dense(1)]
    plan = kernels.infinite_kernel(kernels.serial(*attention)).plan((6, 6, 1))
    with pytest.raises(UnsupportedError, match=r"Attention has no CUDA form: .* use device='cpu'"):
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
