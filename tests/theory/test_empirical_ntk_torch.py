"""The torch front end against torch.func's Jacobians and against JAX on the imported network."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models import InputError
from tangency.theory.ntk import empirical_ntk

torch = pytest.importorskip("torch")
nn = torch.nn


def jacobian_kernel(module, x1, x2=None):
    """Contract whole Jacobians, a sample at a time, by plain autograd."""

    def jacobian(x):
        rows = []
        for i in range(len(x)):
            out = module(x[i : i + 1]).reshape(-1)
            for a in range(len(out)):
                params = [p for p in module.parameters() if p.requires_grad]
                grads = torch.autograd.grad(out[a], params, retain_graph=True, allow_unused=True)
                rows.append(torch.cat([
                    (torch.zeros_like(p) if g is None else g).reshape(-1)
                    for p, g in zip(params, grads, strict=True)
                ]))  # fmt: skip
        return torch.stack(rows).reshape(len(x), -1, rows[0].numel())

    j1 = jacobian(x1)
    j2 = j1 if x2 is None else jacobian(x2)
    return torch.einsum("iap,jbp->ijab", j1, j2).detach().numpy()


def agree(module, x, **options):
    want = jacobian_kernel(module, x)
    k, scale = want.shape[2], np.abs(want).max()
    tight = {"rtol": 1e-9, "atol": 1e-11 * scale}
    got = empirical_ntk(module, x, outputs="full", **options)
    assert got.ntk.dtype == np.float64
    np.testing.assert_allclose(got.ntk, want, **tight)
    diagonal = empirical_ntk(module, x, outputs="diagonal", **options).ntk
    np.testing.assert_allclose(diagonal, np.einsum("ijaa->ija", want), **tight)
    trace = empirical_ntk(module, x, **options).ntk
    np.testing.assert_allclose(trace, np.einsum("ijaa->ij", want) / k, **tight)
    total = empirical_ntk(module, x, outputs="sum", **options).ntk
    np.testing.assert_allclose(total, want.sum((2, 3)) / k, rtol=1e-9, atol=1e-10 * scale)


def disturbed(module):
    """Double precision and no parameter or statistic at its special first value."""
    module = module.double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, t in [*module.named_parameters(), *module.named_buffers()]:
            if t.is_floating_point():
                noise = torch.randn(t.shape, generator=generator, dtype=t.dtype)
                t += 0.3 * (noise.abs() if "var" in name else noise)
    return module


class Reshaped(nn.Module):
    def __init__(self, inner, shape):
        super().__init__()
        self.inner, self.shape = inner, shape

    def forward(self, x):
        return self.inner(x).reshape(len(x), *self.shape)


MODULES = {
    "conv": (lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, padding_mode="circular"), nn.BatchNorm2d(4),
        nn.ReLU(inplace=True), nn.Conv2d(4, 6, (3, 2), padding="same", groups=2, dilation=2),
        nn.GroupNorm(3, 6), nn.PReLU(6), nn.InstanceNorm2d(6, affine=True), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 3)), (2, 8, 7)),
    "conv1d": (lambda: nn.Sequential(
        nn.Conv1d(3, 4, 3, bias=False), nn.PReLU(), nn.ConvTranspose1d(4, 2, 3, stride=2),
        nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(22, 2)), (3, 7)),
    "sequence": (lambda: nn.Sequential(
        nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 6, bias=False),
        nn.LayerNorm((5, 6)), nn.Flatten(), nn.Linear(30, 2)), (5, 4)),
    "attention": (lambda: nn.TransformerEncoderLayer(
        4, 2, 6, dropout=0.0, batch_first=True), (3, 4)),
    "recurrent": (lambda: Last(nn.GRU(3, 4, batch_first=True)), (5, 3)),
}  # fmt: skip


class Last(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        return self.cell(x)[0][:, -1]


@pytest.mark.parametrize("name", list(MODULES))
def test_modules_against_autograd(name):
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module = disturbed(make())
    x = torch.randn(4, *shape, dtype=torch.float64)
    agree(module, x)
    agree(module, x, batch_size=3, memory=5000)


def test_embedding_with_padding():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 3, padding_idx=0)
            self.out = nn.Linear(3, 2)

        def forward(self, tokens):
            return self.out(torch.tanh(self.table(tokens)).mean(1))

    module = disturbed(Bag())
    tokens = torch.tensor([[0, 1, 2, 2], [3, 0, 1, 6], [0, 0, 0, 5], [4, 4, 2, 1], [6, 5, 4, 3]])
    agree(module, tokens)
    agree(module, tokens, batch_size=2)


class Shared(nn.Module):
    """One layer called twice, one weight used outside its layer, one tied, one of its own."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.outside = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.outside.weight
        self.own = nn.Parameter(torch.ones(4))
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        y = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        y = torch.tanh(self.outside(y)) * self.own
        return self.tied(y) + y @ self.twice.weight.T


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.conv = nn.Linear(4, 4), nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        y = torch.tanh(self.layer(torch.tanh(self.layer(x))))
        return self.conv(torch.tanh(self.conv(y[:, None])))[:, 0]


class Overwritten(nn.Module):
    """A layer's input is overwritten in place behind it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
        for p in self.second.parameters():
            p.requires_grad_(True)
        self.second.weight.requires_grad_(False)

    def forward(self, x):
        y = self.first(x)
        return self.second(torch.relu_(y)) + y.mul(1).tanh_()[:, :3]


@pytest.mark.parametrize("make", [Shared, Twice, Overwritten])
def test_weights_used_in_unusual_ways(make):
    torch.manual_seed(0)
    module = disturbed(make())
    agree(module, torch.randn(5, 4, dtype=torch.float64))


class Positions(nn.Module):
    """As every small GPT has them: a layer that is called without an axis of samples."""

    def __init__(self, length):
        super().__init__()
        self.length = length
        self.tokens, self.places = nn.Embedding(7, 4), nn.Embedding(length, 4)
        self.norm, self.mixed, self.head = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.tokens(x) + self.places(torch.arange(self.length))
        scale = self.mixed(torch.ones(2, 4, dtype=h.dtype)).mean()  # two rows, and no samples
        return self.head(torch.tanh(self.mixed(self.norm(h))).mean(1)) * scale


# Where the length is 2 it is that of the two samples that decide, too.
@pytest.mark.parametrize("length", [1, 2, 5])
def test_layers_called_without_samples(length):
    torch.manual_seed(1)
    agree(disturbed(Positions(length)), torch.randint(0, 7, (4, length)))


def test_what_hooks_cannot_see_goes_to_torch_func():
    from tangency.theory.ntk.torch_kernel import TorchModel

    model = TorchModel(disturbed(Shared()))
    model.inputs("x", torch.randn(3, 4, dtype=torch.float64))
    assert set(model._rest) >= {"twice.weight", "outside.weight", "own"}
    assert "twice.bias" not in model._rest


def test_weight_norm_and_a_subclass_with_another_forward():
    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    module = disturbed(nn.Sequential(normed, nn.Tanh(), Doubled(5, 2)))
    agree(module, torch.randn(4, 4, dtype=torch.float64))


def test_frozen_parameters_do_not_enter():
    module = disturbed(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    module[0].weight.requires_grad_(False)
    module[2].requires_grad_(False)
    agree(module, torch.randn(4, 3, dtype=torch.float64))
    assert all(p.grad is None for p in module.parameters())
    assert module[0].weight.requires_grad is False


def test_torch_and_jax_agree():
    from tangency.models import from_torch

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 4),
    ).eval()  # fmt: skip
    x = torch.randn(6, 3, 8, 8)
    ours = empirical_ntk(module, x, outputs="full").ntk
    other = empirical_ntk(from_torch(module, x), x.numpy(), outputs="full").ntk
    assert ours.dtype == other.dtype == np.float32
    assert np.abs(ours - other).max() <= 1e-5 * np.abs(other).max()


def test_two_sets_and_arrays_of_numpy():
    module = disturbed(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Reshaped(nn.Linear(4, 6), (2, 3))))
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    want = jacobian_kernel(module, x, y)
    got = empirical_ntk(module, x.numpy(), y, outputs="full", batch_size=2)
    np.testing.assert_allclose(got.ntk, want, rtol=1e-9, atol=1e-11)
    assert not got.symmetric


def test_what_is_refused():
    x = torch.randn(3, 4)
    normed = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    dropped = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    linear = nn.Linear(4, 4)
    for module, data, says in [
        (normed, x, r"1 \(BatchNorm1d\) takes its statistics from the batch"),
        (dropped, x, r"1 \(Dropout\) is in training mode"),
        (nn.ReLU(), x, "no parameter with requires_grad"),
        (linear, x.double(), "x1 is torch.float64 and the module torch.float32"),
        (linear, x[:0], "x1 is empty"),
        (linear, x * float("nan"), "x1 has a NaN"),
        (linear, [[1.0]], "x1 is a list"),
        (linear, x + 1j, "x1 is torch.complex64: real numbers"),
        (linear, x[:, :0], r"x1 is empty, of shape \(3, 0\)"),
        (linear, x[:, :3], r"the module fails on samples \(2, 3\): mat1 and mat2"),
        (nn.LSTM(4, 4, batch_first=True), x[:, None], "give one of a tensor"),
    ]:
        with pytest.raises(InputError, match=says):
            empirical_ntk(module, data)
    empirical_ntk(normed.eval(), x)
    with pytest.raises(InputError, match="a dict has no empirical kernel"):
        empirical_ntk({}, x)


def test_jax_alone_does_not_import_torch():
    import subprocess
    import sys

    code = (
        "import numpy as np, sys\nfrom tangency.models import from_layers\n"
        "from tangency.theory.ntk import empirical_ntk\n"
        "empirical_ntk(from_layers([np.eye(2)], 'relu'), np.eye(2))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 3)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.second(torch.relu(self.first(x))))
        return self.out(y.mean((2, 3)))


def test_channels_that_stay_apart_share_one_gradient():
    from tangency.theory.ntk.torch_kernel import TorchModel

    torch.manual_seed(0)
    module = disturbed(Pooled())
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    agree(module, x)
    model = TorchModel(module)
    held = model.sites(model.inputs("x", x), np.eye(3), outputs="full", n=4, chunk=4)
    assert [site.kind for site in held[0]].count("channel") == 1
    assert model._apart == {id(module.first): False, id(module.second): True}


def test_samples_that_contradict_the_first_start_afresh():
    # The first sample kills every unit of the first layer, so its zero cotangents say nothing.
    torch.manual_seed(0)
    module = disturbed(Pooled())
    with torch.no_grad():
        module.first.bias.fill_(-0.1)
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    x[0] = 0
    agree(module, x, batch_size=1)
