"""Kernels on sites: the host build against the float64 walk of theory, and against sampling."""

import shutil

import numpy as np
import pytest

from tangency.gpu.sites import SitesKernel
from tangency.gpu.sites_plan import SitesPlan
from tangency.gpu.sites_program import Stage
from tangency.theory import kernels as k
from tangency.theory.kernels.device_plans import site_layers

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


def conv(size=3, stride=1, **options):
    options = {"padding": "SAME", "W_std": 1.3, "b_std": 0.3, **options}
    return k.Conv(8, (size, size), stride=(stride, stride), **options)


POOL = k.AvgPool((2, 2), (2, 2))
PAIR = [conv(), k.Relu(), conv(), k.LeakyRelu(0.2)]
SHORT = k.residual(
    k.serial(k.Relu(), conv(3, 2), k.Relu(), conv()), shortcut=conv(1, 2, b_std=None)
)
GAP, FLAT, END = k.GlobalAvgPool(), k.Flatten(), k.Dense(1, 1.1, 0.2)
# How many stages go through registers is part of what is said.
NETS = {
    "strided 5 x 5": (0, [conv(5, 2), k.Relu(), conv(1), k.Relu(), GAP, END]),
    "explicit padding": (0, [conv(5, 2, padding=((2, 1), (0, 2))), k.Gelu(), FLAT, END]),
    "valid, dilated": (0, [conv(padding="VALID", dilation=(1, 2)), k.Abs(), GAP, END]),
    "circular": (0, [conv(padding="CIRCULAR"), k.Relu(), GAP, END]),
    "local pools": (2, [*PAIR, POOL, *PAIR, POOL, conv(1), k.Relu(), GAP, END]),
    "pool, flatten": (1, [*PAIR, POOL, *PAIR, FLAT, END]),
    "gelu, erf": (0, [conv(), k.Gelu(), conv(), k.Erf(1.1, 0.8, 0.2), POOL, conv(1), k.Gelu(),
                      GAP, END]),
    "tanh": (0, [conv(), k.Activation("tanh"), POOL, conv(), k.Activation("tanh"), FLAT, END]),
    "waves": (0, [conv(), k.Sin(1.1, 0.7, 0.4), conv(), k.Cos(), conv(), k.Exp(0.9, 0.4), FLAT,
                  END]),
    "powers": (0, [conv(), k.RectifiedMonomial(2), conv(), k.Sign(), GAP, END]),
    "residual": (0, [conv(), SHORT, SHORT, GAP, k.Dense(4), k.Relu(), END]),
    "branches": (1, [*PAIR, k.concat(conv(1), k.product(conv(), conv(5))), conv(), GAP, END]),
    "norms": (0, [conv(), k.LayerNorm(gain=True), k.Relu(), conv(), k.LayerNorm((0, 1)), k.Relu(),
                  k.Dropout(0.8), conv(), GAP, END]),
    "dense tail": (1, [conv(), k.Relu(), GAP, k.Dense(4), k.Gelu(), k.Dense(4), k.Relu(), END]),
}  # fmt: skip


def built(net, shape, dtype=np.float64, **options):
    kernel = k.infinite_kernel(k.serial(*net), method="reference")
    plan = kernel.plan(shape)
    ours = SitesKernel(*site_layers(plan), dtype, "cpu", **options)
    return kernel, ours, plan.extract[0]


def far(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", NETS)
def test_the_walk_of_theory(name, rng):
    """Across, one batch with itself, diagonals; both types; with stages and without."""
    x = rng.normal(size=(5, 8, 6, 2))
    stages, net = NETS[name]
    across = same = own = None
    # T and the polynomials are in the type of the recursion, and so is S within stages: some
    # hundred roundings of 6e-8 each.
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-6)):
        for through in {True, stages == 0}:
            kernel, ours, extract = built(net, x.shape[1:], dtype, stages=through)
            launches = ours.program.launches
            assert sum(isinstance(one, Stage) for one in launches) == (stages if through else 0)
            if across is None:
                across, same, own = kernel(x[:2], x[2:]), kernel(x), kernel.diagonal(x)
            f = extract(x)
            found = [(ours(f[:2], f[2:]), across), (ours(f), same), (ours.diagonal(f), own)]
            for (got, want), kind in ((pair, kind) for pair in found for kind in ("nngp", "ntk")):
                assert far(got[kind], getattr(want, kind)) < tolerance
            assert far(ours(f, get="nngp")["nngp"], same.nngp) < tolerance


@pytest.mark.parametrize("parametrisation", ["ntk", "standard"])
def test_one_axis_and_three(parametrisation, rng):
    line = [k.Conv(8, (5,), stride=(2,), b_std=0.1), k.Relu(), k.Conv(4, (3,)), k.Relu()]
    cube = [k.Conv(8, (3, 3, 3)), k.Relu(), k.AvgPool((2, 2, 2), (2, 2, 2)), k.Conv(4, (1, 1, 1))]
    for net, shape in ((line, (11, 3)), (cube, (4, 2, 4, 2))):
        x = rng.normal(size=(3, *shape))
        whole = k.serial(*net, GAP, END)
        kernel = k.infinite_kernel(whole, parametrisation=parametrisation, method="reference")
        plan = kernel.plan(shape)
        ours = SitesKernel(*site_layers(plan), np.float64, "cpu")(plan.extract[0](x))
        assert far(ours["ntk"], kernel(x, get="ntk")) < 1e-12


def test_registers_equal_memory(rng):
    """Stages of all four forms, on a full warp too, and steps for the same layers."""
    wide = [conv(), k.Relu(), conv(5), k.Relu(), conv(), k.Abs(), GAP, END]
    deep = [*PAIR, POOL, *PAIR, conv(5), k.Relu(), conv(), k.Relu(), GAP, END]
    tall = [conv(), k.Relu(), GAP, k.Dense(4), k.Relu(), END]
    for net, shape, count, types in (
        (wide, (2, 32, 1), 2, {np.float64: 1e-13}),
        (deep, (8, 6, 2), 3, {np.float64: 1e-13, np.float32: 1e-6}),
        (tall, (8, 6, 2), 1, {np.float64: 1e-13, np.float32: 1e-6}),
    ):
        x = rng.normal(size=(3, *shape))
        for dtype, tolerance in types.items():
            _, mixed, extract = built(net, shape, dtype)
            _, plain, _ = built(net, shape, dtype, stages=False)
            assert sum(isinstance(one, Stage) for one in mixed.program.launches) == count
            for kind in ("nngp", "ntk"):
                one, two = mixed(extract(x))[kind], plain(extract(x))[kind]
                assert far(one, two) < tolerance
                # A sample meets itself at an angle of exactly 0, in float32 too.
                assert far(np.diag(one), np.diag(two)) < tolerance


def test_near_duplicates_in_float32(rng):
    """What S in float64 buys: equal images in two batches, and flattened ones with themselves."""
    x = rng.normal(size=(2, 6, 6, 2))
    kernel, ours, extract = built([conv(), k.Relu(), conv(5), k.Relu(), FLAT, END], (6, 6, 2),
                                  np.float32)  # fmt: skip
    for other in (x, x + 1e-6 * rng.normal(size=x.shape)):
        got = ours(extract(x), extract(other))["ntk"]
        assert far(got, kernel(x, other, get="ntk")) < 1e-6


@pytest.mark.parametrize("name", ["tanh", "softplus", "elu"])
@pytest.mark.parametrize("std", [1.0, 4.0])
def test_near_duplicates_of_series(name, std, rng):
    """Far terms stand for those that are cut off: of smooth functions, to rounding.

    The second derivative of ELU jumps, so that its coefficients fall as a power; what two far terms
    make of them is right at cos = 1 and to some 1e-6 of the kernel before it.
    """
    wide = {"W_std": std, "b_std": 0.1}
    net = [conv(**wide), k.Activation(name), conv(1, **wide), k.Activation(name), FLAT, END]
    x = rng.normal(size=(2, 6, 6, 2))
    kernel, ours, extract = built(net, x.shape[1:])
    for shift in (0.0, 1e-3, 0.1, 1.0):
        y = x + shift * rng.normal(size=x.shape)
        got, want = ours(extract(x), extract(y)), kernel(x, y)
        for kind in ("nngp", "ntk"):
            assert far(got[kind], getattr(want, kind)) < (1e-5 if name == "elu" else 1e-12)
    itself, want = ours.diagonal(extract(x)), kernel.diagonal(x)
    assert far(itself["ntk"], want.ntk) < 1e-10


@pytest.mark.parametrize("pairs", [1, 3])
def test_blocks_of_pairs_and_bands_of_samples(pairs, rng, monkeypatch):
    x, y = rng.normal(size=(7, 8, 6, 2)), rng.normal(size=(4, 8, 6, 2))
    net = [*PAIR, POOL, conv(), k.Activation("tanh"), GAP, END]
    _, whole, extract = built(net, (8, 6, 2))
    x, y = extract(x), extract(y)
    entries = whole.program.widest(SitesPlan(whole.layers, 48))
    _, parts, _ = built(net, (8, 6, 2), memory=16.0 * entries * pairs)
    monkeypatch.setattr("tangency.gpu.sites._BAND", 3)
    for other in (None, y):
        one, two = whole(x, other), parts(x, other)
        for kind in one:
            assert far(two[kind], one[kind]) < 1e-14
    wait = parts.tiles(x, get=("nngp", "ntk"))(slice(1, 5), slice(1, 5))
    assert far(wait()["ntk"], whole(x)["ntk"][1:5, 1:5]) < 1e-14
    assert far(parts.diagonal(x)["ntk"], np.diag(whole(x)["ntk"])) < 1e-14
    assert parts(x[:0], y)["ntk"].shape == (0, 4)


def test_zero_samples_and_sites(rng):
    """No variance anywhere, and at some sites: no angle, and no number that is not one."""
    x = rng.normal(size=(3, 5, 5, 2))
    x[0], x[1, :3] = 0.0, 0.0
    bare = {"b_std": None, "padding": "SAME"}
    for act in (k.Relu(), k.Gelu(), k.Activation("tanh"), k.Sign(), k.Erf(1.0, 1.0, 0.3)):
        net = [k.Conv(4, (3, 3), **bare), act, POOL, k.Conv(4, (1, 1), **bare), act, GAP, END]
        kernel, ours, extract = built(net, x.shape[1:])
        got, want = ours(extract(x)), kernel(x)
        for kind in ("nngp", "ntk"):
            assert far(got[kind], getattr(want, kind)) < 1e-10


def test_wide_networks_approach_the_kernel(rng):
    """A finite network's own covariance, which shares nothing with the recursion."""
    x, width = rng.normal(size=(2, 2, 6, 6)), 2048
    values = x
    for size, stride in ((3, 2), (1, 1)):
        c, pad = values.shape[1], size // 2
        weight = rng.normal(size=(width, c, size, size)) * np.sqrt(1.7 / (c * size * size))
        padded = np.pad(values, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
        windows = windows[:, :, ::stride, ::stride]
        values = np.tanh(np.einsum("ncijab,kcab->nkij", windows, weight, optimize=True))
    pooled = values.mean(axis=(2, 3))
    sampled = pooled @ pooled.T / width
    options = {"W_std": 1.7**0.5, "b_std": None}
    around = ((1, 1), (1, 1))
    net = [conv(3, 2, padding=around, **options), k.Activation("tanh"), conv(1, **options),
           k.Activation("tanh"), GAP, k.Dense(1)]  # fmt: skip
    _, ours, extract = built(net, (6, 6, 2))
    got = ours(extract(x.transpose(0, 2, 3, 1)), get="nngp")["nngp"]
    assert np.abs(got - sampled).max() < 0.1 * got.max()
