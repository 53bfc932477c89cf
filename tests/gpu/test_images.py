"""Convolutional kernels: the host build, 32 lanes in lockstep, against all pairs of sites."""

import shutil

import numpy as np
import pytest

from tangency.gpu.errors import PlanError
from tangency.gpu.images import ImagesKernel
from tangency.gpu.images_plan import ImageLayer
from tangency.gpu.reference import images_reference

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

LAYERS = tuple(
    ImageLayer(1.3 + 0.1 * k, 0.1 * k, 1.0 + 0.1 * k, 0.2 * k, -0.1 * k, 1.0) for k in range(3)
)
TOLERANCES = ((np.float32, 1e-6), (np.float64, 1e-13))


def pooled(layers, a, b, pooling):
    s, t = images_reference(layers, a, b)
    h, w = s.shape[:2]
    if pooling == "global":
        return s.mean(), t.mean()
    grid = np.arange(h * w)
    s, t = s.reshape(h * w, h * w), t.reshape(h * w, h * w)
    return s[grid, grid].mean(), t[grid, grid].mean()


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 4), (3, 6, 1)])
def test_all_displacements(shape, rng):
    x, y = rng.normal(size=(2, *shape)), rng.normal(size=(1, *shape))
    cases = [(p, *t) for p in ("global", "flatten") for t in TOLERANCES]
    for pooling, dtype, tolerance in cases:
        ours = ImagesKernel(LAYERS, pooling, dtype=dtype, device="cpu", pairs=2)(x, y)
        for i in range(2):
            s, t = pooled(LAYERS, x[i], y[0], pooling)
            assert ours["nngp"][i, 0] == pytest.approx(s, rel=tolerance)
            assert ours["ntk"][i, 0] == pytest.approx(t + s, rel=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_twenty_one_layers(dtype, rng):
    """The size of published kernels: 32 x 32, 3 channels, 21 layers, float64 reference."""
    x = rng.normal(size=(2, 3, 32, 32))
    layers = (ImageLayer(),) * 21
    ours = ImagesKernel(layers, dtype=dtype, device="cpu")(x[:1], x[1:])
    s, t = images_reference(layers, x[0], x[1])
    tolerance = 1e-6 if dtype == np.float32 else 1e-13
    assert ours["nngp"][0, 0] == pytest.approx(s.mean(), rel=tolerance)
    assert ours["ntk"][0, 0] == pytest.approx((s + t).mean(), rel=tolerance)


def test_wide_networks_approach_the_kernel(rng):
    """A finite network's own covariance, which shares nothing with the recursion."""
    x = rng.normal(size=(2, 2, 4, 4))
    width, layers = 1536, (ImageLayer(2.0), ImageLayer(2.0))
    values = x
    for layer in layers:
        c = values.shape[1]
        weight = rng.normal(size=(width, c, 3, 3)) * np.sqrt(layer.weight / (9 * c))
        padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        values = np.maximum(np.einsum("ncijab,kcab->nkij", windows, weight, optimize=True), 0.0)
    mean = values.mean(axis=(2, 3))
    sampled = mean @ mean.T / width
    ours = ImagesKernel(layers, dtype=np.float64, device="cpu")(x, get="nngp")["nngp"]
    assert np.abs(ours - sampled).max() < 0.08 * ours.max()


def test_one_triangle_and_the_diagonal(rng):
    x = rng.normal(size=(4, 3, 5, 6))
    kernel = ImagesKernel(LAYERS, readout=(2.0, 0.3, 1.5, 0.4), dtype=np.float64, device="cpu")
    whole, twice, own = kernel(x), kernel(x, x), kernel.diagonal(x)
    for key in whole:
        assert np.array_equal(whole[key], whole[key].T)
        assert np.allclose(whole[key], twice[key], rtol=1e-13)
        assert np.array_equal(np.diag(whole[key]), own[key])
    wait = kernel.tiles(x)(slice(1, 4), slice(1, 4))
    assert np.allclose(wait(), whole["ntk"][1:, 1:], rtol=1e-14)


def test_wrong_images_and_layers_are_named(rng):
    with pytest.raises(PlanError, match="at most 32 x 32"):
        ImagesKernel(LAYERS, device="cpu")(rng.normal(size=(1, 1, 33, 4)))
    with pytest.raises(PlanError, match="finite"):
        ImagesKernel(LAYERS, device="cpu")(np.full((1, 1, 4, 4), np.nan))
    with pytest.raises(PlanError, match="global"):
        ImagesKernel(LAYERS, "max", device="cpu")
    with pytest.raises(PlanError, match="no convolution"):
        ImagesKernel((), device="cpu")
    with pytest.raises(PlanError, match="positive"):
        ImagesKernel((ImageLayer(weight=0.0),), device="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 5, 7), (3, 32, 32)])
def test_device_equals_host(dtype, shape, rng):
    x = rng.normal(size=(2, *shape))
    host = ImagesKernel(LAYERS, dtype=dtype, device="cpu")(x)
    device = ImagesKernel(LAYERS, dtype=dtype, device="cuda")(x)
    for key in host:
        assert np.allclose(device[key], host[key], rtol=1e-6 if dtype == np.float32 else 1e-13)
