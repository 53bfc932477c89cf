"""Kernels of imported Networks: the same as of the layers that they are made of."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from tangency.models import InputError, from_layers, from_torch
from tangency.theory import as_kernel, infinite_kernel
from tangency.theory.kernels import Activation as Act
from tangency.theory.kernels import (
    AvgPool,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    Relu,
    parallel,
    residual,
    serial,
)

RNG = np.random.default_rng(0)
W, B = 1.3, 0.4  # standard deviations


def dense(width, *, bias=True):
    return Dense(width, W, B if bias else None)


def conv(channels, size, stride=(1, 1), padding="SAME", *, bias=True):
    return Conv(channels, size, stride, padding, W, B if bias else None)


def same(network, layers, x, parametrisation):
    """Both kernels agree; ``x`` is laid out as the network takes it."""
    ours = infinite_kernel(
        network, parametrisation=parametrisation, weight_variance=W**2, bias_variance=B**2
    )
    last = np.moveaxis(x, 1, -1) if x.ndim > 2 else x
    gram, want = ours(x), infinite_kernel(layers, parametrisation=parametrisation)(last)
    np.testing.assert_allclose(gram.nngp, want.nngp, rtol=1e-12)
    np.testing.assert_allclose(gram.ntk, want.ntk, rtol=1e-12)


def imported(module, shape):
    return from_torch(module.eval(), torch.zeros(1, *shape)).astype("float64")


class Block(nn.Module):
    """A pre-activation residual block, then a downsampling one."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.short = nn.Conv2d(8, 6, 1, stride=2)
        self.end = nn.Linear(6, 2)

    def forward(self, x):
        x = self.first(x)
        x = x + self.inner(torch.relu(x))
        y = torch.relu(x)
        x = self.down(y) + self.short(y)
        return self.end(torch.relu(x).mean((2, 3)))


class Dense2(nn.Module):
    """A dense block: its input beside its output."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(4, 12), nn.Linear(16, 3)

    def forward(self, x):
        h = self.a(x)
        return self.c(torch.relu(torch.cat([h, self.b(torch.tanh(h))], dim=1)))


class Skip(nn.Module):
    """A shortcut from the input itself."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.c(x + self.b(torch.relu(self.a(x))))


PADDED = ((1, 1), (1, 1))
NETWORKS = {
    "mlp": (
        nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 4, bias=False), nn.ReLU(),
                      nn.Linear(4, 2)),
        serial(dense(7), Act("gelu"), dense(4, bias=False), Relu(), dense(2)),
        (5,),
    ),
    "tanh": (
        nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4), nn.SiLU(), nn.Linear(4, 1)),
        serial(dense(7), Act("tanh"), dense(4), Act("silu"), dense(1)),
        (5,),
    ),
    "convolutional": (
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
                      nn.Conv2d(8, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 2)),
        serial(conv(8, (3, 3), padding=PADDED), Relu(), AvgPool((2, 2), (2, 2)),
               conv(4, (3, 3), padding="VALID"), Act("leaky_relu"), Flatten(), dense(2)),
        (3, 8, 8),
    ),
    "pooled": (
        nn.Sequential(nn.Conv2d(3, 8, (3, 2), stride=(1, 2)), nn.ReLU(),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
        serial(conv(8, (3, 2), (1, 2), "VALID"), Relu(), GlobalAvgPool(), dense(2)),
        (3, 6, 6),
    ),
    "flattened_input": (
        nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)),
        None,
        (3, 2, 2),
    ),
    "residual": (
        Block(),
        serial(
            conv(8, (3, 3), padding=PADDED),
            residual(serial(Relu(), conv(8, (3, 3), padding=PADDED))),
            Relu(),
            parallel(conv(6, (3, 3), (2, 2), PADDED), conv(6, (1, 1), (2, 2), "VALID")),
            Relu(),
            GlobalAvgPool(),
            dense(2),
        ),
        (3, 6, 6),
    ),
    "skip": (Skip(), serial(residual(serial(dense(8), Relu(), dense(5))), dense(2)), (5,)),
    "layer_norm": (
        nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 2)),
        serial(dense(7), LayerNorm((), 1e-5, True, True), Relu(), dense(2)),
        (5,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("parametrisation", ["ntk", "standard"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_network_equals_its_layers(name, parametrisation):
    module, layers, shape = NETWORKS[name]
    x = RNG.normal(size=(3, *shape))
    if name == "convolutional":
        layers = serial(*(Act(_leaky(module)) if _is_leaky(a) else a for a in layers.layers))
    if layers is None:
        layers = serial(dense(8), Relu(), dense(2))
        ours = infinite_kernel(
            imported(module, shape),
            parametrisation=parametrisation,
            weight_variance=W**2,
            bias_variance=B**2,
        )(x)
        want = infinite_kernel(layers, parametrisation=parametrisation)(x.reshape(3, -1))
        np.testing.assert_allclose(ours.ntk, want.ntk, rtol=1e-13)
        return
    same(imported(module, shape), layers, x, parametrisation)


def _is_leaky(layer):
    return isinstance(layer, Act) and layer.function == "leaky_relu"


def _leaky(module):
    from tangency.models.activations import get

    return get("leaky_relu", negative_slope=module[4].negative_slope)


def test_activation_passes_through_a_concatenation():
    x = RNG.normal(size=(4, 5))
    hidden = Dense(12, W, B)
    # tangency's own combinators have no branch that shares its first layer with the other, so
    # the dense block is compared by hand: channels are means weighted by width.
    a, b = (
        infinite_kernel(serial(dense(4), *more, Relu(), Dense(1)))(x)
        for more in ((), (Act("tanh"), hidden))
    )
    nngp = (4 * a.nngp + 12 * b.nngp) / 16
    ntk = (4 * (a.ntk - a.nngp) + 12 * (b.ntk - b.nngp)) / 16
    kernel = infinite_kernel(imported(Dense2(), (5,)), weight_variance=W**2, bias_variance=B**2)
    gram = kernel(x)
    np.testing.assert_allclose(gram.nngp, W**2 * nngp + B**2, rtol=1e-13)
    np.testing.assert_allclose(gram.ntk, W**2 * (nngp + ntk) + B**2, rtol=1e-13)


def test_batch_norm_at_initialisation():
    """Inference with running mean 0 and variance 1: by empirical kernels of wide networks."""
    shape = (2, 3, 3)
    x = RNG.normal(size=(2, *shape)).astype(np.float32)
    torch.manual_seed(0)
    ntks = []
    width = 384
    module = nn.Sequential(
        nn.Conv2d(2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1, bias=False),
    ).eval()  # fmt: skip
    kernel = infinite_kernel(imported(module, shape), parametrisation="standard")
    for _ in range(40):
        for layer in (module[0], module[5]):
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=fan_in**-0.5)
        rows = []
        for sample in torch.from_numpy(x):
            module.zero_grad()
            module(sample[None]).sum().backward()
            rows.append(torch.cat([p.grad.ravel() for p in module.parameters()]).numpy())
        ntks.append(np.stack(rows) @ np.stack(rows).T)
    exact = kernel(x, get="ntk")
    spread = np.std(ntks, axis=0) / np.sqrt(len(ntks))
    assert (np.abs(np.mean(ntks, axis=0) - exact) < 4.5 * spread + 0.005 * np.abs(exact)).all()
    assert (4.5 * spread < 0.05 * np.abs(exact)).all()


def test_only_the_architecture_enters():
    weights = [RNG.normal(size=(6, 4)), RNG.normal(size=(3, 6))]
    x = RNG.normal(size=(3, 4))
    kernels = [infinite_kernel(from_layers([k * w for w in weights], "relu")) for k in (1.0, 5.0)]
    np.testing.assert_array_equal(kernels[0](x, get="ntk"), kernels[1](x, get="ntk"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_compiled_code_is_taken_where_it_fits(dtype):
    x = RNG.normal(size=(330, 5))
    layers = serial(dense(8), residual(serial(Act("gelu"), dense(8))), Relu(), dense(1))
    auto = infinite_kernel(layers, dtype=dtype)
    fused, reference = (
        infinite_kernel(layers, dtype=dtype, method=method) for method in ("fused", "reference")
    )
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    for which in ("nngp", "ntk"):
        gram = auto(x, get=which)
        assert gram.dtype == dtype
        np.testing.assert_array_equal(gram, fused(x, get=which))
        want = reference(x, get=which)
        root = np.sqrt(np.diag(want))
        assert (np.abs(gram - want) / (root[:, None] * root)).max() < tolerance


@pytest.mark.parametrize("end", [GlobalAvgPool(), Flatten()])
def test_compiled_convolutions(end):
    x = RNG.normal(size=(6, 8, 8, 2))
    x[1] = x[0] + 1e-7 * x[1]
    layers = serial(
        conv(4, (3, 3)), residual(serial(Relu(), conv(4, (3, 3)))), Relu(), end, dense(1)
    )
    gram = infinite_kernel(layers, method="reference")(x)
    for method in ("auto", "fused") if isinstance(end, GlobalAvgPool) else ("auto",):
        again = infinite_kernel(layers, method=method)(x)
        # The compiled form carries covariances: near images cost it half of the last digits.
        np.testing.assert_allclose(again.nngp, gram.nngp, rtol=1e-12)
        np.testing.assert_allclose(again.ntk, gram.ntk, rtol=1e-8)
        np.testing.assert_allclose(again.ntk[2:, 2:], gram.ntk[2:, 2:], rtol=1e-12)


def test_pickled_and_as_kernel():
    kernel = infinite_kernel([Dense(4), Act("tanh"), Dense(1)])
    x = RNG.normal(size=(3, 4))
    again = pickle.loads(pickle.dumps(kernel))
    np.testing.assert_array_equal(kernel(x, get="ntk"), again(x, get="ntk"))
    assert again.fingerprint == kernel.fingerprint
    assert infinite_kernel([Dense(4), Dense(1)]).fingerprint != kernel.fingerprint
    assert as_kernel(kernel) is kernel
    plain = as_kernel(lambda a, b: np.exp(a @ b.T))
    np.testing.assert_allclose(plain.diagonal(x, get="nngp"), np.diag(plain(x, get="nngp")))
    with pytest.raises(InputError, match="one kernel"):
        plain(x)
    with pytest.raises(InputError, match="no kernel"):
        as_kernel(3)
