"""Dense kernels: the host build of the CUDA source against plain formulas and against sampling."""

import math
import shutil

import numpy as np
import pytest

from tangency.gpu.dense import DenseKernel
from tangency.gpu.errors import PlanError
from tangency.gpu.plans import Activation, Dense, Norm, Scale, Series, Sum
from tangency.gpu.reference import dense_reference

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

FIRST = Dense(-1, 1.7, 0.3, 1.2, 0.5)
LAST = Dense(1, 2.0, 0.1, 1.0, 0.1)
PLANS = {
    "relu": (Dense(-1, 2.0), Activation(0), Dense(1, 2.0), Activation(2), Dense(3, 2.0)),
    "leaky": (FIRST, Activation(0, "rectified", (0.1, 1.0, 1)), LAST),
    "step": (FIRST, Activation(0, "rectified", (-0.3, 1.0, 0)), LAST),
    "square": (FIRST, Activation(0, "rectified", (-0.3, 1.0, 2)), LAST),
    "erf": (FIRST, Activation(0, "erf", (1.1, 0.9, 0.2)), LAST, Activation(2), Dense(3)),
    "gelu": (FIRST, Activation(0, "gelu", ()), LAST),
    "sine": (FIRST, Activation(0, "sine", (1.1, 0.7, 0.4)), LAST),
    "exp": (FIRST, Activation(0, "exp", (1.1, 0.5)), LAST),
    "series": (FIRST, Series(0, np.tanh, 64), LAST),
    "residual": (
        *(Dense(-1, 2.0), Activation(0), Dense(1, 2.0), Sum((0, 2), (1.0, 0.5))),
        *(Norm(3, 0.1), Scale(4, 1.5), Activation(5), Dense(6, 1.0, 0.1)),
    ),
}
FUNCTIONS = {
    "leaky": lambda x: np.where(x < 0, 0.1 * x, x),
    "step": lambda x: np.where(x < 0, -0.3, 1.0),
    "square": lambda x: np.where(x < 0, -0.3 * x**2, x**2),
    "erf": lambda x: 1.1 * _ERF(0.9 * x) + 0.2,
    "gelu": lambda x: x * 0.5 * (1 + _ERF(x / math.sqrt(2))),
    "sine": lambda x: 1.1 * np.sin(0.7 * x + 0.4),
    "exp": lambda x: 1.1 * np.exp(0.5 * x),
    "series": np.tanh,
}
_ERF = np.vectorize(math.erf, otypes=[float])


def apart(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", PLANS)
def test_host_build_equals_the_reference(name, rng):
    x, y = rng.normal(size=(40, 9)), rng.normal(size=(33, 9))
    nngp, ntk = dense_reference(PLANS[name], x, y)
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-13)):
        ours = DenseKernel(PLANS[name], dtype, "cpu", tile=24)(x, y)
        assert ours["ntk"].dtype == dtype
        assert apart(ours["nngp"], nngp) < tolerance
        assert apart(ours["ntk"], ntk) < tolerance


@pytest.mark.parametrize("name", PLANS)
def test_one_triangle_is_the_whole(name, rng):
    x = rng.normal(size=(70, 9))
    kernel = DenseKernel(PLANS[name], np.float64, "cpu", tile=40)
    ours, other = kernel(x), kernel(x, x.copy())
    for key in ours:
        assert np.array_equal(ours[key], ours[key].T)
        away = ~np.eye(70, dtype=bool)
        assert apart(ours[key][away], other[key][away]) < 1e-14
    # The diagonal, exactly: at one sample alone everything is a function of its variance.
    nngp, _ = dense_reference(PLANS[name], x, x)
    assert apart(np.diag(ours["nngp"]), np.diag(nngp)) < 2e-8


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_layer_is_the_expectation(name):
    """By two-dimensional quadrature, which knows no dual: E phi(u) phi(v) of one pair."""
    x = np.array([[1.0, 0.4, -0.3], [0.2, -0.8, 0.9]])
    s = 1.7 * x @ x.T / 3 + 0.3
    z = np.linspace(-9.0, 9.0, 1201)
    weight = np.exp(-0.5 * z * z) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    lower = np.linalg.cholesky(s)
    u = lower[0, 0] * z[:, None]
    v = lower[1, 0] * z[:, None] + lower[1, 1] * z[None, :]
    phi = FUNCTIONS[name]
    mean = float((phi(u) * phi(v) * weight[:, None] * weight).sum())
    ours = DenseKernel((*PLANS[name][:2], LAST), np.float64, "cpu")(x)
    # Jumps and kinks cost the rectangle rule its order.
    tolerance = {"step": 2e-2, "leaky": 1e-4}.get(name, 1e-6)
    assert ours["nngp"][0, 1] == pytest.approx(2.0 * mean + 0.1, rel=tolerance)


def test_near_samples_keep_their_distance():
    """delta of near-duplicates comes from differences: compared with 50 digits."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 50))
    y = x + 1e-7 * rng.normal(size=(1, 50))
    plan = (Dense(-1, 2.0), Activation(0), Dense(1, 2.0), Activation(2), Dense(3, 1.0))
    with mpmath.workdps(50):
        a, b = ([mpmath.mpf(float(v)) for v in row[0]] for row in (x, y))
        q1, q2, s = (mpmath.fdot(p, q) / 50 for p, q in ((a, a), (b, b), (a, b)))
        t = mpmath.mpf(0)
        for _ in range(2):
            q1, q2, s, t = 2 * q1, 2 * q2, 2 * s, s + 2 * t
            w = mpmath.sqrt(q1 * q2)
            theta = mpmath.acos(s / w)
            s = w * (mpmath.sin(theta) + (mpmath.pi - theta) * s / w) / (2 * mpmath.pi)
            t, q1, q2 = t * (mpmath.pi - theta) / (2 * mpmath.pi), q1 / 2, q2 / 2
        ntk = float(s + t)
    for dtype, tolerance in ((np.float32, 3e-7), (np.float64, 1e-14)):
        ours = DenseKernel(plan, dtype, "cpu")(x, y)["ntk"][0, 0]
        assert ours == pytest.approx(ntk, rel=tolerance)


def test_smooth_data_keeps_its_positive_eigenvalues():
    t = np.linspace(0.0, 1.0, 200)[:, None]
    phases = np.random.default_rng(2).uniform(0, 6.3, size=(1, 64))
    x = np.sin(2 * np.pi * t * np.arange(1, 65) / 40 + phases)
    plan = []
    for _ in range(6):
        plan += [Dense(len(plan) - 1, 2.0, 0.0, 2.0), Activation(len(plan))]
    exact = DenseKernel((*plan, Dense(11)), np.float64, "cpu")(x, get="ntk")["ntk"]
    single = DenseKernel((*plan, Dense(11)), np.float32, "cpu")(x, get="ntk")["ntk"]
    truth = np.linalg.eigvalsh(exact)[0]
    assert truth > 0.0
    assert np.linalg.eigvalsh(single.astype(np.float64))[0] > 0.5 * truth


def test_odd_sizes_and_zero_samples(rng):
    for n1, n2 in ((1, 1), (1, 65), (33, 1), (0, 4), (31, 64)):
        x, y = rng.normal(size=(n1, 5)), rng.normal(size=(n2, 5))
        ours = DenseKernel(PLANS["relu"], np.float64, "cpu")(x, y)["ntk"]
        assert ours.shape == (n1, n2)
        assert np.allclose(ours, dense_reference(PLANS["relu"], x, y)[1], rtol=1e-13)
    zero = DenseKernel(PLANS["leaky"], np.float64, "cpu")(np.zeros((2, 5)))["ntk"]
    assert np.allclose(zero, dense_reference(PLANS["leaky"], *[np.zeros((2, 5))] * 2)[1], rtol=1e-7)


@pytest.mark.parametrize(
    ("plan", "word"),
    [
        ((), "no layers"),
        ((Activation(0),), "earlier layers"),
        ((Activation(-1, "tanh", ()),), "none of"),
        ((Activation(-1, "erf", (1.0,)),), "takes"),
        ((Activation(-1, "rectified", (0.0, 1.0, 3)),), "n = 0, 1 or 2"),
        ((Dense(-1, -1.0),), "negative"),
    ],
)
def test_a_wrong_plan_is_named(plan, word):
    with pytest.raises(PlanError, match=word):
        DenseKernel(plan, device="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("name", PLANS)
def test_device_equals_host(name, rng):
    x = rng.normal(size=(300, 40))
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-13)):
        host = DenseKernel(PLANS[name], dtype, "cpu", tile=128)(x)
        device = DenseKernel(PLANS[name], dtype, "cuda", tile=128)(x)
        for key in host:
            assert apart(device[key].get(), host[key]) < tolerance
