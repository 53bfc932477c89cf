"""The contraction on a device, run by NumPy: the same kernels as where the model runs."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest

from tangency.gpu.engines import HostEngine, available_devices
from tangency.models import InputError, from_layers, from_torch
from tangency.models.errors import MissingPackageError
from tangency.theory.ntk import device, empirical_ntk, evolution, project_ntk
from tangency.theory.ntk.jax_kernel import JaxModel
from tangency.theory.ntk.tiles import MEMORY, assemble

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch, request):
    """``device="cuda"`` is NumPy here, unless a test says that it wants the real one."""
    if not request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(device, "available_devices", lambda: ("cuda", "cpu"))
        monkeypatch.setattr(device, "engine_for", lambda name: HostEngine())


def mlp(dtype):
    rng = np.random.default_rng(2)
    layers = [
        (rng.standard_normal((m, n)).astype(dtype), rng.standard_normal(m).astype(dtype))
        for n, m in pairwise((5, 9, 7, 3))
    ]
    return from_layers(layers, "tanh"), rng.standard_normal((14, 5)).astype(dtype)


def convolutions(dtype):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(100, 3)
    )
    x = torch.randn(14, 2, 7, 7)
    return from_torch(module, x[:1]).astype(dtype), x.numpy().astype(dtype)


def close(got, want, dtype):
    assert got.dtype == want.dtype == np.dtype(dtype)
    assert np.abs(got - want).max() <= TOLERANCE[dtype] * np.abs(want).max()


@pytest.mark.parametrize(
    ("make", "outputs", "dtype"),
    [(mlp, "trace", "float32"), (mlp, "trace", "float64"), (mlp, "full", "float64"),
     (mlp, "diagonal", "float32"), (mlp, "sum", "float32"), (convolutions, "full", "float64")],
)  # fmt: skip
def test_the_device_gives_the_models_own_numbers(make, outputs, dtype):
    network, x = make(dtype)
    direct = np.full((1, 3), 3**-0.5) if outputs == "sum" else np.eye(3)
    kind = "trace" if outputs == "sum" else outputs
    options = {"outputs": kind, "tile": None, "memory": MEMORY}
    own = assemble(JaxModel(network), x, None, direct.astype(dtype), **options)  # in JAX alone
    own = own / np.asarray(3 if outputs == "trace" else 1, dtype)
    for batch_size in (None, 7):  # one tile, and several with their mirrors
        options = {"outputs": outputs, "batch_size": batch_size, "sample": 7}
        gpu = empirical_ntk(network, x, **options, device="cuda")
        close(gpu.ntk, own, dtype)
    other = empirical_ntk(network, x[:7], x, outputs=outputs, sample=7, device="cuda")
    close(other.ntk, own[:7], dtype)
    if outputs == "sum":
        cpu = empirical_ntk(network, x, **options, device="cpu")
        assert gpu.error == pytest.approx(cpu.error, rel=1e-4)


def test_many_samples_on_the_cpu_take_the_same_way(monkeypatch):
    network, x = mlp("float64")
    few = empirical_ntk(network, x, device="cpu").ntk
    monkeypatch.setattr(device, "FEW", 4)
    close(empirical_ntk(network, x, device="cpu").ntk, few, "float64")


def test_projections_are_the_same_on_the_device():
    network, x = mlp("float64")
    gpu = project_ntk(network, x, features=40, device="cuda").features
    close(gpu, project_ntk(network, x, features=40, device="cpu").features, "float64")


def test_torch_modules_of_every_kind_of_layer():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(11, 4, padding_idx=0)
            self.norm = torch.nn.LayerNorm(4)
            self.head = torch.nn.Linear(12, 2)
            self.scale = torch.nn.Parameter(torch.tensor([1.5]))

        def forward(self, x):
            return self.scale * self.head(torch.tanh(self.norm(self.table(x))).flatten(1))

    words, index = Words(), torch.randint(0, 11, (9, 3))
    pictures = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.PReLU(4),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    for module, x in ((words, index), (pictures, torch.randn(9, 2, 7, 7))):
        for outputs in ("trace", "full", "diagonal"):
            own = empirical_ntk(module, x, outputs=outputs).ntk
            moved = empirical_ntk(module, x, outputs=outputs, device="cuda", batch_size=4).ntk
            close(moved, own, "float32")
        cpu, gpu = (project_ntk(module, x, features=8, device=d).features for d in (None, "cuda"))
        np.testing.assert_allclose(gpu, cpu, rtol=1e-5, atol=1e-5)


def test_where_a_model_is_contracted_by_default(monkeypatch):
    network, x = mlp("float32")
    model = JaxModel(network)
    assert isinstance(device.placed(model, None), device.DeviceModel)
    assert isinstance(device.placed(model, None).algebra.engine, HostEngine)
    for home in ("cuda", "mps"):  # what runs there is contracted there, by its own library
        elsewhere = type("Elsewhere", (), {"home": home, "dtype": np.dtype("float32")})()
        assert device.placed(elsewhere, None) is elsewhere
        with pytest.raises(InputError, match=f"the model is on {home}"):
            device.placed(elsewhere, "cpu")
    with pytest.raises(InputError, match="device='tpu'"):
        empirical_ntk(network, x, device="tpu")
    followed = evolution([network], x, device="cuda", keep=True)
    close(followed.kernels[0].astype("float32"), empirical_ntk(network, x).ntk, "float32")


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    from tangency.gpu import engines

    network, x = mlp("float32")
    monkeypatch.setattr(device, "engine_for", engines.engine_for)
    monkeypatch.setattr(device, "available_devices", engines.available_devices)
    monkeypatch.setitem(sys.modules, "cupy", None)  # its import fails
    for call in (empirical_ntk, project_ntk):
        with pytest.raises(MissingPackageError, match=r"pip install 'tangency\[cuda13\]'"):
            call(network, x, device="cuda")
    assert empirical_ntk(network, x).ntk.shape == (14, 14)  # by default what is there


@pytest.mark.gpu
@pytest.mark.skipif("cuda" not in available_devices(), reason="no CUDA device, or no CuPy")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [mlp, convolutions])
def test_a_real_device(make, dtype):
    network, x = make(dtype)
    for outputs in ("trace", "full", "diagonal"):
        cpu, gpu = (empirical_ntk(network, x, outputs=outputs, device=d) for d in ("cpu", "cuda"))
        close(gpu.ntk, cpu.ntk, dtype)
