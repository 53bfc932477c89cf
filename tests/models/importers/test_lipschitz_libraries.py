"""from_torch on the layers of 1-Lipschitz training libraries (deel-torchlip, orthogonium).

Modules of our own do what those do: weights computed from others, sorting in every spelling, scaled
pooling. The libraries' own layers are read too where they are installed.
"""

import copy

import numpy as np
import pytest

import tangency
from tangency.models import UnsupportedError, from_torch
from tangency.models.ops import GroupSort

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
parametrize = torch.nn.utils.parametrize

V, I = (8,), (4, 8, 8)  # noqa: E741


def kinds(network):
    return [node.op.kind for node in network.structure.nodes]


def read(module, shape):
    return from_torch(module, torch.zeros(1, *shape))  # compares with the module itself


def bound_of(network):
    return tangency.lipschitz_bound(network, method="product")


# --- weights computed from others ---------------------------------------------------------------


class Orthonormal(nn.Module):
    """The polar factor, by Newton's iteration, while training; what it last was, afterwards."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("last", weight.detach().clone())

    def forward(self, weight):
        if self.training:
            for _ in range(25):
                weight = 1.5 * weight - 0.5 * weight @ weight.T @ weight
            self.last = weight.detach()
            return weight
        return self.last


class UnitRows(nn.Module):
    def forward(self, weight):
        return weight / weight.norm(dim=1, keepdim=True)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, weight):
        return self.factor * weight


class Powered(nn.Module):
    """Divides by the largest singular value, whose vector is improved in every call."""

    def __init__(self, weight):
        super().__init__()
        self.vector = nn.Parameter(torch.randn(weight.shape[1]), requires_grad=False)
        parametrize.register_parametrization(self, "vector", Unit())

    def forward(self, weight):
        self.vector = weight.T @ (weight @ self.vector)
        return weight / (weight @ self.vector.detach()).norm()


class Unit(nn.Module):
    def forward(self, vector):
        return vector / vector.norm()

    def right_inverse(self, vector):
        return vector / vector.norm()


def orthonormal(inputs, outputs, *, factor=None):
    layer = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(inputs, outputs))
    parametrize.register_parametrization(layer, "weight", Orthonormal(layer.weight))
    if factor is not None:
        parametrize.register_parametrization(layer, "weight", Times(factor))
    layer(torch.randn(3, inputs))  # as in training
    return layer


def constrained(kind):
    torch.manual_seed(1)
    layer = nn.Linear(8, 6)
    if kind == "orthonormal":
        return orthonormal(8, 6)
    if kind == "a multiple":
        return orthonormal(8, 6, factor=2.0)
    if kind == "with state":
        parametrize.register_parametrization(layer, "weight", Powered(layer.weight))
    else:
        parametrize.register_parametrization(layer, "weight", UnitRows())
    return layer


@pytest.mark.parametrize("kind", ["orthonormal", "a multiple", "unit rows", "with state"])
def test_the_effective_weight_is_imported_under_its_own_name(kind):
    module = nn.Sequential(constrained(kind), nn.ReLU())
    network = read(module, V)
    assert kinds(network) == ["input", "dense", "activation"]
    assert sorted(network.weights) == ["0.bias", "0.weight"]
    assert network.structure.trainable == ("0.weight", "0.bias")
    weight = module.eval()[0].weight.detach().numpy()
    rtol = 1e-2 if kind == "with state" else 1e-6  # the vector moves on in every call
    np.testing.assert_allclose(network.weights["0.weight"], weight, rtol=rtol)
    if kind in ("orthonormal", "a multiple"):
        length = 1.0 if kind == "orthonormal" else 2.0
        assert bound_of(network).upper == pytest.approx(length, rel=1e-5)


@pytest.mark.parametrize("kind", ["orthonormal", "unit rows", "with state"])
def test_the_module_is_left_as_it_was(kind):
    module = constrained(kind)
    before, type_before = copy.deepcopy(module.state_dict()), type(module)
    read(module, V)
    assert type(module) is type_before
    assert module.training
    assert parametrize.is_parametrized(module, "weight")
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    module.train()(torch.randn(2, 8)).sum().backward()


def test_a_weight_made_of_a_buffer_is_no_parameter():
    module = nn.Module()
    module.register_buffer("table", torch.eye(3))
    parametrize.register_parametrization(module, "table", Times(3.0))
    module.forward = lambda x: x  # never called: only the copy's tensor matters
    from tangency.models.importers.torch_parametrized import fix_parametrized

    fix_parametrized(module)
    assert "table" in dict(module.named_buffers())
    assert torch.equal(module.table, 3 * torch.eye(3))


# --- activations --------------------------------------------------------------------------------


class Sorted(nn.Module):
    """Groups along axis 1, by minimum and maximum or by sort."""

    def __init__(self, size=None):
        super().__init__()
        self.size = size

    def forward(self, x):
        size = self.size or x.shape[1]
        wide = x.view(x.shape[0], x.shape[1] // size, size, *x.shape[2:])
        if size == 2:
            low, high = (f(wide, 2, keepdim=True)[0] for f in (torch.min, torch.max))
            return torch.cat([low, high], dim=2).view(x.shape)
        return wide.sort(dim=2)[0].reshape(x.shape)


class Halves(nn.Module):
    def __init__(self, axis=1):
        super().__init__()
        self.axis = axis

    def forward(self, x):
        a, b = x.split(x.shape[self.axis] // 2, self.axis)
        return torch.cat([torch.max(a, b), torch.min(a, b)], dim=self.axis)


class BothSigns(nn.Module):
    def forward(self, x):
        return torch.cat((F.relu(x), F.relu(-x)), dim=1)


class Pooled(nn.AvgPool2d):
    def forward(self, x):
        return super().forward(x) * self.kernel_size


@pytest.mark.parametrize("shape", [V, I])
@pytest.mark.parametrize("size", [2, 4, None])
def test_sorting(size, shape):
    network = read(Sorted(size), shape)
    assert kinds(network) == ["input", "group_sort"]
    assert network.structure.nodes[1].op == GroupSort(size or shape[0], 0, descending=False)


@pytest.mark.parametrize(("axis", "shape"), [(1, V), (1, I), (3, I)])
def test_sorting_halves(axis, shape):
    network = read(Halves(axis), shape)
    assert kinds(network) == ["input", "reshape", "group_sort", "reshape"]


def test_positive_and_negative_parts_are_one_activation():
    network = read(nn.Sequential(nn.Linear(8, 8), BothSigns(), nn.Linear(16, 4)), V)
    assert kinds(network) == ["input", "dense", "scale", "concat", "activation", "dense"]
    assert bound_of(network).certified


def test_scaled_pooling_of_an_orthonormal_convolution():
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    conv = nn.Conv2d(4, 4, 1, bias=False)
    conv.weight.data = turn[:, :, None, None].float()
    network = read(nn.Sequential(conv, Sorted(2), Pooled(2), nn.Flatten()), (4, 4, 4))
    assert kinds(network)[:5] == ["input", "conv", "group_sort", "average_pool", "scale"]
    bound = bound_of(network)
    assert 0.9 <= bound.lower <= bound.upper <= 1 + 1e-3


# --- certificates -------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [lambda: Sorted(2), lambda: Sorted(None), Halves])
def test_an_orthogonal_net_has_lipschitz_constant_one(activation):
    torch.manual_seed(2)
    layers = []
    for _ in range(3):
        layer = nn.Linear(8, 8)
        layer.weight.data = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0].float()
        layers += [layer, activation()]
    network = read(nn.Sequential(*layers[:-1]), V)
    bound = tangency.lipschitz_bound(network)
    assert bound.certified
    assert 1 - 1e-3 <= bound.lower <= bound.upper <= 1 + 1e-3


# --- the libraries' own layers ------------------------------------------------------------------

IMAGE = ["input", "conv"]
PADDED = ["input", "gather", "gather", "conv"]


def deel_cases(t):
    return [
        (t.MaxMin(), V, ["input", "scale", "concat", "activation"]),
        (t.GroupSort2(), V, ["input", "group_sort"]),
        (t.GroupSort2(), I, ["input", "group_sort"]),
        (t.GroupSort(4), V, ["input", "group_sort"]),
        (t.GroupSort(2, k_coef_lip=2.0), V, ["input", "group_sort", "scale"]),
        (t.FullSort(), V, ["input", "group_sort"]),
        (t.LPReLU(), V, ["input", "prelu"]),
        (t.HouseHolder(8), V, None),
        (t.SpectralLinear(8, 6), V, ["input", "dense"]),
        (t.SpectralLinear(8, 6, k_coef_lip=2.0), V, ["input", "dense"]),
        (t.FrobeniusLinear(8, 6), V, ["input", "dense"]),
        (t.SpectralConv1d(4, 6, 3), (4, 9), IMAGE),
        (t.SpectralConv2d(4, 6, 3, padding=1), I, IMAGE),
        (t.SpectralConv2d(4, 6, 3, padding=1, padding_mode="circular"), I, PADDED),
        (t.SpectralConv2d(4, 6, 3, padding=1, padding_mode="symmetric"), I, PADDED),
        (t.FrobeniusConv2d(4, 6, 3), I, IMAGE),
        (t.SpectralConvTranspose2d(4, 6, 2, stride=2), I, ["input", "conv_transpose"]),
        (t.ScaledAvgPool2d(2), I, ["input", "average_pool", "scale"]),
        (t.ScaledAdaptiveAvgPool2d((1, 1)), I, ["input", "average_pool", "scale"]),
        (t.ScaledL2NormPool2d(2), I, None),
        (t.InvertibleDownSampling(2), I, ["input", "reshape", "transpose", "reshape"]),
        (t.InvertibleUpSampling(2), I, ["input", "reshape", "transpose", "reshape"]),
        (t.LayerCentering(4), I, None),
    ]


def test_deel_torchlip_layers():
    t = pytest.importorskip("deel.torchlip")
    for module, shape, expected in deel_cases(t):
        network = read(module, shape)
        assert expected is None or kinds(network) == expected, module
        if hasattr(module, "vanilla_export"):
            assert kinds(read(module.vanilla_export(), shape)) == kinds(network), module


def test_a_deel_torchlip_net_is_certified():
    t = pytest.importorskip("deel.torchlip")
    torch.manual_seed(0)
    layers = (t.SpectralLinear(8, 16), t.GroupSort2(), t.SpectralLinear(16, 16), t.FullSort())
    module = t.Sequential(*layers, t.FrobeniusLinear(16, 1))
    module(torch.randn(4, 8))
    chain = ["input", *("dense", "group_sort") * 2, "dense"]
    for form in (module, module.vanilla_export()):
        network = read(form, V)
        assert kinds(network) == chain
        assert sorted(network.weights) == [
            f"{i}.{k}" for i in (0, 2, 4) for k in ("bias", "weight")
        ]
        assert tangency.lipschitz_bound(network).upper <= 1 + 1e-3


def test_deel_torchlip_batch_centering_goes_by_its_export():
    t = pytest.importorskip("deel.torchlip")
    module = t.BatchCentering(8)
    module(torch.randn(5, 8))
    with pytest.raises(UnsupportedError, match="vanilla_export"):
        read(module, V)
    assert kinds(read(module.eval().vanilla_export(), V)) == ["input", "constant", "add"]


def test_orthogonium_layers():
    pytest.importorskip("orthogonium")
    activations = pytest.importorskip("orthogonium.layers.custom_activations")
    linear = pytest.importorskip("orthogonium.layers.linear.ortho_linear")
    conv = pytest.importorskip("orthogonium.layers.conv.AOC.ortho_conv")
    aol = pytest.importorskip("orthogonium.layers.conv.AOL.aol")
    halves = ["input", "reshape", "group_sort", "reshape"]
    circular = {"padding": "same", "padding_mode": "circular"}
    for module, shape, expected in [
        (activations.Abs(), V, ["input", "activation"]),
        (activations.MaxMin(), V, halves),
        (activations.MaxMin(), I, halves),
        (activations.HouseHolder(4), I, None),
        (linear.OrthoLinear(8, 6), V, ["input", "dense"]),
        (linear.UnitNormLinear(8, 6), V, ["input", "dense"]),
        (conv.AdaptiveOrthoConv2d(4, 6, 3, **circular), I, PADDED),
        (conv.AdaptiveOrthoConvTranspose2d(4, 6, 2, stride=2), I, ["input", "conv_transpose"]),
        (aol.AOLConv2D(4, 6, 3, padding=1), I, IMAGE),
    ]:
        network = read(module, shape)
        assert expected is None or kinds(network) == expected, module


def test_an_orthogonium_net_is_certified():
    pytest.importorskip("orthogonium")
    activations = pytest.importorskip("orthogonium.layers.custom_activations")
    linear = pytest.importorskip("orthogonium.layers.linear.ortho_linear")
    torch.manual_seed(0)
    layers = [linear.OrthoLinear(8, 8), activations.MaxMin(), linear.OrthoLinear(8, 8)]
    bound = tangency.lipschitz_bound(read(nn.Sequential(*layers), V))
    assert bound.certified
    assert bound.upper <= 1 + 1e-3
