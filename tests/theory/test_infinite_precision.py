"""Right near cos = 1: near and smooth data against mpmath; tiles, symmetry, definiteness."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.theory.kernels import (
    Conv,
    Dense,
    Erf,
    Flatten,
    GlobalAvgPool,
    Relu,
    infinite_kernel,
    infinite_tiles,
    repeat,
    residual,
    serial,
    walk_source,
)


def exact_fully_connected(x, depth, weight=2.0, bias=0.0):
    """NTK of a ReLU network in 40 digits, from the samples as they stand."""
    with mpmath.workdps(40):
        rows = [[mpmath.mpf(float(v)) for v in row] for row in x]
        n, d = len(x), len(x[0])
        weight, bias = mpmath.mpf(weight), mpmath.mpf(bias)
        out = np.empty((n, n))
        for i in range(n):
            for j in range(i + 1):
                q1, q2, s = (
                    weight * mpmath.fdot(rows[a], rows[b]) / d + bias
                    for a, b in ((i, i), (j, j), (i, j))
                )
                t = s
                for _ in range(depth):
                    w = mpmath.sqrt(q1 * q2)
                    angle = mpmath.acos(s / w) if i != j else mpmath.mpf(0)
                    slope = (mpmath.pi - angle) / (2 * mpmath.pi)
                    s = w * mpmath.sin(angle) / (2 * mpmath.pi) + s * slope
                    s, t = weight * s + bias, weight * (s + slope * t) + bias
                    q1, q2 = weight * q1 / 2 + bias, weight * q2 / 2 + bias
                out[i, j] = out[j, i] = t
        return out


def fully_connected(depth, bias=None):
    layer = serial(Dense(1, 2**0.5, bias), Relu())
    return infinite_kernel(serial(repeat(layer, depth), Dense(1, 2**0.5, bias)))


def smooth_curve(n, d):
    """A smooth curve: slow waves in d coordinates."""
    t = np.linspace(0.0, 1.0, n)[:, None]
    phase = 2.0 * np.pi * np.arange(d) / d
    return np.cos(phase + t) + 0.5 * np.sin(2.0 * phase + t)


@pytest.mark.parametrize(("depth", "bias"), [(3, None), (10, None), (10, 0.3)])
def test_smooth_data_stay_positive_definite(depth, bias):
    x = smooth_curve(40, 784)
    exact = exact_fully_connected(x, depth, bias=0.0 if bias is None else bias**2)
    ntk = fully_connected(depth, bias)(x, get="ntk")
    np.testing.assert_allclose(ntk, exact, rtol=1e-12)
    least, truth = np.linalg.eigvalsh(ntk)[0], np.linalg.eigvalsh(exact)[0]
    assert truth > 0.0
    assert least == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6, 1e-9])
def test_near_pairs_of_deep_networks(distance):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 50))
    x = np.concatenate([x, x + distance * rng.normal(size=(2, 50)), 3.0 * x * (1.0 + distance)])
    for bias in (None, 0.5):
        exact = exact_fully_connected(x, 20, bias=0.0 if bias is None else bias**2)
        kernel = fully_connected(20, bias)
        np.testing.assert_allclose(kernel(x, get="ntk"), exact, rtol=1e-13)
        # the same through two batches, where nothing tells that samples are equal
        np.testing.assert_allclose(kernel(x, x.copy(), get="ntk"), exact, rtol=1e-13)
        # inner products alone lose it: the test would notice
    if distance == 1e-9:
        angles = np.sqrt(2.0 * np.abs(1.0 - np.corrcoef(x[:2])[0, 1]))
        assert not np.isclose(angles, distance, rtol=0.1)


def exact_convolution(x1, x2, pool):
    """NTK of conv-ReLU-conv-ReLU-(pool or flatten) on a row of sites, in 40 digits."""
    with mpmath.workdps(40):
        data = [[mpmath.mpf(float(v)) for v in site] for x in (x1, x2) for site in x]
        sites, size = len(x1), len(data)
        where = [(a // sites, a % sites) for a in range(size)]
        s = {
            (a, b): mpmath.fdot(data[a], data[b]) / len(data[0])
            for a in range(size)
            for b in range(size)
        }
        t = dict.fromkeys(s, mpmath.mpf(0))
        bias = mpmath.mpf(0.25)

        def conv(old):
            new = {}
            for a, b in old:
                total = mpmath.mpf(0)
                for tap in (-1, 0, 1):
                    (m, p), (n, q) = where[a], where[b]
                    if 0 <= p + tap < sites and 0 <= q + tap < sites:
                        total += old[m * sites + p + tap, n * sites + q + tap]
                new[a, b] = 2 * total / 3
            return new

        for _ in range(2):
            moved, s = conv(t), {k: v + bias for k, v in conv(s).items()}
            t = {k: v + s[k] for k, v in moved.items()}
            new_s, new_t = {}, {}
            for a, b in s:
                w = mpmath.sqrt(s[a, a] * s[b, b])
                angle = mpmath.acos(min(s[a, b] / w, 1)) if a != b else mpmath.mpf(0)
                slope = (mpmath.pi - angle) / (2 * mpmath.pi)
                new_s[a, b] = w * mpmath.sin(angle) / (2 * mpmath.pi) + s[a, b] * slope
                new_t[a, b] = slope * t[a, b]
            s, t = new_s, new_t
        pairs = [(p, sites + q) for p in range(sites) for q in range(sites) if pool or p == q]
        return float(sum(s[k] + t[k] for k in pairs) / len(pairs))


@pytest.mark.parametrize("end", [GlobalAvgPool(), Flatten()])
@pytest.mark.parametrize("distance", [1.0, 1e-5, 1e-9])
def test_near_images(end, distance):
    rng = np.random.default_rng(1)
    x1 = rng.normal(size=(1, 4, 3))
    x2 = x1 + distance * rng.normal(size=(1, 4, 3))
    conv = Conv(1, (3,), W_std=2**0.5, b_std=0.5)
    kernel = infinite_kernel(serial(conv, Relu(), conv, Relu(), end, Dense(1)))
    exact = exact_convolution(x1[0], x2[0], isinstance(end, GlobalAvgPool))
    assert kernel(x1, x2, get="ntk")[0, 0] == pytest.approx(exact, rel=1e-13)


def test_tiles_equal_the_whole(monkeypatch):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 3, 2, 2)), rng.normal(size=(23, 3, 2, 2))
    layers = serial(Conv(1, (3, 3), b_std=0.1), Relu(), residual(Conv(1, (3, 3))), GlobalAvgPool())
    kernel = infinite_kernel(serial(layers, Dense(1)))
    whole, cross = kernel(x), kernel(x, y)
    monkeypatch.setattr(infinite_tiles, "TILE_ENTRIES", 36 * 5 * 7)
    monkeypatch.setattr(walk_source, "_CHUNK", 6)
    for which in ("nngp", "ntk"):
        small = kernel(x, get=which)
        np.testing.assert_allclose(small, getattr(whole, which), rtol=1e-13)
        np.testing.assert_array_equal(small, small.T)
        np.testing.assert_allclose(kernel(x, y, get=which), getattr(cross, which), rtol=1e-13)
        np.testing.assert_allclose(kernel(x, x.copy(), get=which), small, rtol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100.0), st.integers(1, 4))
def test_homogeneous_symmetric_and_definite(seed, scale, depth):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(9, 3))
    x[1], x[2] = -x[0], 0.0  # opposite samples and a zero one
    gram = fully_connected(depth)(x)
    for matrix in (gram.nngp, gram.ntk):
        assert np.isfinite(matrix).all()
        assert np.linalg.eigvalsh(matrix)[0] > -1e-13 * np.trace(matrix)
    scaled = fully_connected(depth)(scale * x, get="ntk")
    np.testing.assert_allclose(scaled, scale**2 * gram.ntk, rtol=1e-10, atol=1e-13)
    # ReLU with weight variance 2 keeps the variances: depth + 1 equal terms on the diagonal
    want = (depth + 1) * 2.0 * np.sum(x**2, axis=1) / 3
    np.testing.assert_allclose(np.diag(gram.ntk), want, rtol=1e-13)


def test_activation_of_a_zero_sample_and_of_saturated_ones():
    x = np.array([[0.0, 0.0], [1e8, 0.0], [1e8, 1.0], [0.0, 1e-8]])
    gram = infinite_kernel(serial(Dense(1), Erf(), Dense(1, 1.0, 0.1)))(x)
    assert np.isfinite(gram.ntk).all()
    assert np.linalg.eigvalsh(gram.nngp)[0] > -1e-14
