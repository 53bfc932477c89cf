"""Convolutional kernels by displacement: against plain recursions on all pairs of sites."""

import numpy as np
import pytest

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels import infinite_kernel
from tangency.theory.kernels.cntk import FusedConv
from tangency.theory.kernels.layers import AvgPool, Conv, Dense, Flatten, GlobalAvgPool
from tangency.theory.kernels.layers_activations import Abs, Activation, LeakyRelu, Relu
from tangency.theory.kernels.layers_branches import residual, serial


def conv(**options):
    return Conv(8, (3, 3), W_std=1.4, **options)


NETS = {
    "gap": serial(conv(), Relu(), conv(b_std=0.3), Relu(), GlobalAvgPool(), Dense()),
    "flat": serial(conv(), Relu(), conv(b_std=0.3), Relu(), Flatten(), Dense(1, 1.0, 0.2)),
    "kinks": serial(conv(), LeakyRelu(0.1), conv(), Abs(), GlobalAvgPool(), Dense()),
    "residual": serial(
        conv(),
        residual(serial(Relu(), conv(b_std=0.2), Relu(), conv())),
        Relu(),
        GlobalAvgPool(),
    ),
    "stages": serial(
        conv(), Relu(), AvgPool((2, 2), (2, 2)), conv(b_std=0.2), Relu(), AvgPool((2, 1), (2, 1)),
        conv(), Relu(), Flatten(), Dense(),
    ),
    "windows": serial(
        Conv(8, (5, 3)), Relu(), Conv(8, (1, 5)), Relu(), Conv(8, (1, 1)), GlobalAvgPool(), Dense()
    ),
    "local": serial(
        conv(), Relu(), conv(), Relu(), AvgPool((3, 3), (1, 1), padding="SAME"), Flatten(), Dense()
    ),
}  # fmt: skip


def images(n=4, height=8, width=6, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, height, width, 3))
    x[2:3, :4] = 0.3  # a flat region: cos = 1 between its sites
    x[1, 5:] = 0.0
    return x


def plain(x, y, depth, *, pooled):
    """ReLU layers of 3x3 convolutions (W_std^2 = 2): float64, all pairs of sites, all of 4 axes."""
    h, w, c = x.shape
    one, two, between = (np.einsum("ijc,klc->ijkl", a, b) / c for a, b in ((x, x), (y, y), (x, y)))
    blocks, tangent = [one, two, between], np.zeros((h, w, h, w))

    def box(s):
        p = np.pad(s, 1)
        shifts = [(a, b) for a in range(3) for b in range(3)]
        return sum(p[a : a + h, b : b + w, a : a + h, b : b + w] for a, b in shifts) / 9

    for layer in range(depth + 1):
        if layer == depth:
            break
        blocks = [2 * box(s) for s in blocks]
        tangent = blocks[2] + 2 * box(tangent)
        q1, q2 = (np.einsum("ijij->ij", s) for s in blocks[:2])
        new = []
        for s, (a, b) in zip(blocks, ((q1, q1), (q2, q2), (q1, q2)), strict=True):
            r = np.sqrt(a[:, :, None, None] * b)
            cos = np.clip(np.divide(s, r, out=np.zeros_like(s), where=r > 0), -1, 1)
            angle = np.arccos(cos)
            new.append(r * (np.sin(angle) + (np.pi - angle) * cos) / (2 * np.pi))
        tangent = tangent * (np.pi - angle) / (2 * np.pi)
        blocks = new
    s = blocks[2]
    if pooled:
        return s.mean(), s.mean() + tangent.mean()
    s, t = (np.einsum("ijij->ij", a).mean() for a in (s, tangent))
    return s, s + t


@pytest.mark.parametrize("pooled", [True, False])
def test_equals_a_plain_recursion(pooled):
    x, y = np.random.default_rng(3).normal(size=(2, 7, 6, 3))
    layers = [Conv(8, (3, 3), W_std=2**0.5), Relu()] * 4
    net = serial(*layers, GlobalAvgPool() if pooled else Flatten(), Dense())
    plan = infinite_kernel(net).plan((7, 6, 3))
    want = plain(x, y, 4, pooled=pooled)
    for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 5e-7)):
        found = FusedConv(plan, dtype)(x[None], y[None])
        np.testing.assert_allclose((found.nngp[0, 0], found.ntk[0, 0]), want, rtol=tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("parametrisation", ["ntk", "standard"])
@pytest.mark.parametrize("name", NETS)
def test_equals_the_reference(name, parametrisation, dtype):
    kernel = infinite_kernel(NETS[name], parametrisation=parametrisation, method="reference")
    fused = FusedConv(kernel.plan((8, 6, 3)), dtype)
    x, y = images(), images(2, seed=1)
    for other in (None, y):
        ours, theirs = fused(x, other), kernel(x, other)
        # float64 carries S, not delta: sites with cos = 1 cost sqrt(eps) in the tangent kernel
        exact = 1e-12, 2e-8
        nngp, ntk = exact if dtype is np.float64 else (3e-7, 6e-7)
        np.testing.assert_allclose(ours.nngp, theirs.nngp, rtol=nngp)
        np.testing.assert_allclose(ours.ntk, theirs.ntk, rtol=ntk)
    np.testing.assert_allclose(fused.diagonal(x, get="ntk"), np.diag(fused(x, get="ntk")), rtol=0)
    assert np.array_equal(fused(x, get="ntk"), fused(x, get="ntk").T)


def test_signals_in_one_dimension_and_threads():
    net = serial(Conv(8, (3,)), Relu(), Conv(8, (5,), b_std=0.1), Relu(), GlobalAvgPool(), Dense())
    kernel = infinite_kernel(net, method="reference")
    x = np.random.default_rng(0).normal(size=(5, 9, 2))
    one = FusedConv(kernel.plan((9, 2)), np.float64)(x, get="ntk")
    two = FusedConv(kernel.plan((9, 2)), np.float64, n_jobs=2)(x, get="ntk")
    np.testing.assert_allclose(one, kernel(x, get="ntk"), rtol=1e-11)
    assert np.array_equal(one, two)


def test_single_precision_at_full_size():
    layers = [Conv(8, (3, 3), W_std=2**0.5), Relu()] * 21
    plan = infinite_kernel(serial(*layers, GlobalAvgPool(), Dense())).plan((32, 32, 3))
    x, y = np.random.default_rng(0).uniform(size=(2, 1, 32, 32, 3))
    double = FusedConv(plan, np.float64)(x, y)
    single = FusedConv(plan, np.float32)(x, y)
    np.testing.assert_allclose(single.ntk, double.ntk, rtol=1e-6)
    np.testing.assert_allclose(single.nngp, double.nngp, rtol=1e-6)


@pytest.mark.parametrize(
    "net",
    [
        serial(Conv(8, (3, 3), stride=(2, 2)), Relu(), GlobalAvgPool(), Dense()),
        serial(Conv(8, (3, 3), padding="CIRCULAR"), Relu(), GlobalAvgPool(), Dense()),
        serial(Conv(8, (3, 3)), Activation("tanh"), GlobalAvgPool(), Dense()),
        serial(Conv(8, (3, 3)), Relu(), GlobalAvgPool(), Dense(), Relu(), Dense()),
        serial(Dense(8), Relu(), Dense()),
    ],
)
def test_what_does_not_fit_is_refused(net):
    shape = (8, 6, 3) if isinstance(net.layers[0], Conv) else (6,)
    with pytest.raises(UnsupportedError, match="displacement form"):
        FusedConv(infinite_kernel(net).plan(shape))


def test_options_are_checked():
    plan = infinite_kernel(NETS["gap"]).plan((8, 6, 3))
    with pytest.raises(InputError, match="float32 or float64"):
        FusedConv(plan, np.int32)
    with pytest.raises(InputError, match="n_jobs"):
        FusedConv(plan, n_jobs=0)
    with pytest.raises(InputError, match="x1 is"):
        FusedConv(plan)(np.ones((2, 5, 5, 3)))
