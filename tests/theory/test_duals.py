"""Dual functions against quadrature, higher precision, each other and simulation."""

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.activations import Activation, get
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels import duals as d
from tangency.theory.kernels import duals_bends

PROBIT = Activation("probit_test", lambda nx, x: 0.5 * nx.erfc(-x / nx.sqrt(2.0)))
GABOR = Activation("gabor_test", lambda nx, x: nx.exp(-(x**2)) * nx.sin(x))
RBF = Activation("rbf_test", lambda nx, x: math.sqrt(2.0) * nx.sin(x * 1.2 + math.pi / 4))
CUBED = Activation("cubed_test", lambda nx, x: nx.maximum(x, 0.0) ** 3)
TWOSIDED = Activation("two_test", lambda nx, x: nx.where(x > 0.0, x**2, -0.4 * x**2), kinks=(0.0,))
POLY = Activation("poly_test", lambda nx, x: 1.0 - x + 0.5 * x**2 + 0.1 * x**5)

CLOSED = {
    **{
        name: (get(name), d.dual_of(name))
        for name in (
            *("relu", "leaky_relu", "abs", "relu_squared", "sign", "heaviside", "erf", "gelu"),
            *("sin", "cos", "exp", "gaussian", "identity", "square", "cube", "hermite3"),
        )
    },
    "sine": (get("sine", omega=3.0), d.dual_of(get("sine", omega=3.0))),
    "fourth": (get("power", n=4), d.dual_of(get("power", n=4))),
    "fifth": (get("power", n=5), d.dual_of(get("power", n=5))),
    "probit": (PROBIT, d.Erf(PROBIT, 0.5, 1.0 / math.sqrt(2.0), 0.5)),
    "gabor": (GABOR, d.Gabor(GABOR)),
    "rbf": (RBF, d.Wave(RBF, math.sqrt(2.0), 1.2, math.pi / 4)),
    "phase": (
        Activation("phase_test", lambda nx, x: 1.3 * nx.sin(0.7 * x + 0.4)),
        d.Wave(None, 1.3, 0.7, 0.4),
    ),
    "cubed": (CUBED, d.Rectified(CUBED, 3, 0.0, 1.0)),
    "two-sided": (TWOSIDED, d.Rectified(TWOSIDED, 2, -0.4, 1.0)),
    "polynomial": (POLY, d.Polynomial(POLY, (1.0, -1.0, 0.5, 0.0, 0.0, 0.1))),
}
SERIES = ("tanh", "silu", "softplus", "sigmoid", "mish", "gelu_tanh", "arctan", "gcu", "snake")
KINKED = ("elu", "selu", "softsign", "stablemax", "crrelu", "hardswish", "smelu")
LINEAR = ("hardtanh", "relu6", "softshrink", "hardsigmoid", "threshold", "hardshrink")
COSINES = np.array([-0.95, -0.4, 0.0, 0.3, 0.8, 0.97])


def _panels(edges, count):
    nodes, weights = np.polynomial.legendre.leggauss(count)
    half = np.diff(edges, axis=-1)[..., None] / 2.0
    z = edges[..., :-1, None] + half * (1.0 + nodes)
    w = half * weights * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return z.reshape(*z.shape[:-2], -1), w.reshape(*w.shape[:-2], -1)


def quadrature(function, q1, q2, cos, breaks):
    """E[f(u) f(v)] by Gauss-Legendre in u and in v given u, both split at the breaks."""
    r1, r2, sin = math.sqrt(q1), math.sqrt(q2), math.sqrt(1.0 - cos * cos)
    b = np.array([0.0, *breaks])
    fixed = np.linspace(-11.0, 11.0, 23)
    x, wx = _panels(np.unique(np.concatenate([fixed, b / r1])), 20)
    moving = np.clip((b / r2 - cos * x[:, None]) / sin, -11.0, 11.0)
    grid = np.broadcast_to(fixed, (x.size, fixed.size))
    y, wy = _panels(np.sort(np.concatenate([grid, moving], axis=1), axis=1), 14)
    inner = np.sum(wy * function(r2 * (cos * x[:, None] + sin * y)), axis=1)
    return float(np.sum(wx * function(r1 * x) * inner))


def _breaks(record):
    return tuple({*record.kinks, *record.jumps, 1.0, -1.0, 3.0, -3.0, 0.5, -0.5, 20.0})


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_against_quadrature(name):
    record, dual = CLOSED[name]
    q1, q2 = 0.6, 1.7
    found = dual.pair(q1, q2, math.sqrt(q1 * q2) * COSINES)
    assert dual.closed_form
    assert np.all(found.error == 0.0)
    scale = math.sqrt(dual.variance(q1) * dual.variance(q2))
    inner = math.sqrt(dual.slope_variance(q1) * dual.slope_variance(q2))
    for i, cos in enumerate(COSINES):
        k = quadrature(record, q1, q2, cos, record.kinks)
        assert found.k[i] == pytest.approx(k, rel=1e-11, abs=2e-13 * scale)
        slope = quadrature(record.slope, q1, q2, cos, record.kinks)
        assert found.slope[i] == pytest.approx(slope, rel=1e-11, abs=2e-13 * inner)
    k11, k22 = dual.variance(q1), dual.variance(q2)
    np.testing.assert_allclose(found.delta, 1.0 - found.k / np.sqrt(k11 * k22), atol=3e-15)


@pytest.mark.parametrize("name", [*SERIES, *KINKED, *LINEAR])
def test_series_against_quadrature_within_their_error(name):
    record, dual = get(name), d.dual_of(name)
    if name == "threshold":
        record = get(name, threshold=0.5, value=-1.0)
        dual = d.dual_of(record)
    assert not dual.closed_form
    q1, q2 = 0.6, 1.7
    found = dual.pair(q1, q2, math.sqrt(q1 * q2) * COSINES)
    scale = math.sqrt(dual.variance(q1) * dual.variance(q2))
    for i, cos in enumerate(COSINES):
        k = quadrature(record, q1, q2, cos, _breaks(record))
        assert abs(found.k[i] - k) <= found.error[i] + 1e-12 * scale
        if abs(cos) < 0.9:  # the tail's slope is only estimated through its value
            slope = quadrature(record.slope, q1, q2, cos, _breaks(record))
            assert found.slope[i] == pytest.approx(slope, rel=1e-6, abs=1e-6)
    if name in SERIES or name in LINEAR:
        assert np.max(found.error) < 1e-12 * scale


@pytest.mark.parametrize("name", ["relu", "gelu", "erf", "gaussian", "sin", "leaky_relu", "cube"])
def test_hermite_series_agree_with_closed_forms(name):
    series, closed = d.Hermite(get(name)), d.dual_of(name)
    q1 = np.array([0.1, 1.0, 1.0, 3.0])[:, None]
    q2 = np.array([0.1, 1.0, 1.1, 0.2])[:, None]
    delta = np.array([0.0, 1e-13, 1e-8, 1e-3, 0.2, 1.0, 1.5, 1.99, 2.0])
    s = np.sqrt(q1 * q2) * (1.0 - delta)
    ours, truth = series.pair(q1, q2, s, delta), closed.pair(q1, q2, s, delta)
    assert np.all(np.abs(ours.k - truth.k) <= ours.error + 2e-15 * np.max(truth.k))
    np.testing.assert_allclose(ours.slope, truth.slope, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(ours.delta, truth.delta, rtol=1e-9, atol=1e-16)


def _angle(cos):
    return mp.acos(cos)


def _arc(order, a, b):
    def kernel(q1, q2, s):
        root = mp.sqrt(q1 * q2)
        total = 0
        for sign, weight in ((1, a * a + b * b), (-1, 2 * a * b * (-1) ** order)):
            c = sign * s / root
            t = mp.acos(c)
            j = (mp.pi - t, mp.sin(t) + (mp.pi - t) * c)
            j += (3 * mp.sin(t) * c + (mp.pi - t) * (1 + 2 * c * c),)
            total += weight * root**order * j[order] / (2 * mp.pi)
        return total

    return kernel


def _gelu(q1, q2, s):
    root = mp.sqrt((1 + q1) * (1 + q2) - s * s)
    rest = (s * s + q1 * q2 * root**2) / ((1 + q1) * (1 + q2) * root)
    return s / 4 + (s * mp.atan2(s, root) + rest) / (2 * mp.pi)


def _gabor(q1, q2, s):
    area = 4 * (q1 * q2 - s * s)
    det, num = 1 + 2 * (q1 + q2) + area, q1 + q2 + area + 2 * s
    return mp.exp(-num / (2 * det)) * (mp.exp(2 * s / det) - 1) / (2 * mp.sqrt(det))


EXACT = {
    "relu": _arc(1, 0, 1),
    "abs": _arc(1, -1, 1),
    "relu_squared": _arc(2, 0, 1),
    "sign": _arc(0, -1, 1),
    "heaviside": _arc(0, 0, 1),
    "two-sided": _arc(2, mp.mpf(-0.4), 1),
    "erf": lambda q1, q2, s: 2 / mp.pi * mp.asin(2 * s / mp.sqrt((1 + 2 * q1) * (1 + 2 * q2))),
    "gelu": _gelu,
    "gabor": _gabor,
    "sin": lambda q1, q2, s: (mp.exp(s - (q1 + q2) / 2) - mp.exp(-s - (q1 + q2) / 2)) / 2,
    "cos": lambda q1, q2, s: (mp.exp(s - (q1 + q2) / 2) + mp.exp(-s - (q1 + q2) / 2)) / 2,
    "exp": lambda q1, q2, s: mp.exp((q1 + q2) / 2 + s),
    "gaussian": lambda q1, q2, s: 1 / mp.sqrt((1 + q1) * (1 + q2) - s * s),
    "cube": lambda q1, q2, s: 6 * s**3 + 9 * s * q1 * q2,
    "fifth": lambda q1, q2, s: 120 * s**5 + 600 * s**3 * q1 * q2 + 225 * s * (q1 * q2) ** 2,
}


@pytest.mark.parametrize("name", EXACT)
def test_near_degeneracy_in_higher_precision(name):
    """delta' to 1e-12, but for what the rounding of unequal variances does to it."""
    dual, kernel = CLOSED[name][1], EXACT[name]
    with mp.workdps(70):
        for q1, ratio in ((0.7, 1.0), (3.0, 1.0), (1.0, 1.0 + 1e-6), (0.5, 1.01), (2.0, 0.3)):
            for delta in (0.0, 1e-16, 1e-12, 1e-8, 1e-4, 0.05, 0.6, 1.0, 1.7):
                a, b = mp.mpf(q1), mp.mpf(q1 * ratio)
                s = mp.sqrt(a * b) * (1 - mp.mpf(delta))
                found = dual.pair(q1, q1 * ratio, float(s), delta)
                truth = 1 - kernel(a, b, s) / mp.sqrt(kernel(a, a, a) * kernel(b, b, b))
                slack = 1e-15 * abs(ratio - 1.0)
                assert abs(float(found.delta - truth)) <= 1e-12 * float(truth) + slack
                k = float(kernel(a, b, s))
                assert float(found.k) == pytest.approx(k, rel=1e-13, abs=5e-16)


@pytest.mark.parametrize("name", ["tanh", "silu", "softplus"])
@pytest.mark.parametrize("delta", [1e-4, 1e-8, 1e-12, 1e-16])
def test_series_near_degeneracy_in_higher_precision(name, delta):
    """Against E (phi(u) - phi(v))^2 / (2 E phi^2), with u, v = m +- half their difference."""
    formulas = {
        "tanh": mp.tanh,
        "silu": lambda x: x / (1 + mp.exp(-x)),
        "softplus": lambda x: mp.log1p(mp.exp(x)),
    }
    phi = formulas[name]
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    keep = weights > 1e-22
    few, few_weights = np.polynomial.hermite_e.hermegauss(7)
    few_weights = few_weights / few_weights.sum()
    q = 0.5
    with mp.workdps(45):
        sine = mp.sqrt(mp.mpf(delta) / 2)
        cosine, root = mp.sqrt(1 - sine**2), mp.sqrt(mp.mpf(q))
        gap, square = mp.mpf(0), mp.mpf(0)
        for x, wx in zip(nodes[keep], weights[keep], strict=True):
            square += wx * phi(root * x) ** 2
            for y, wy in zip(few, few_weights, strict=True):
                m, half = root * cosine * x, root * sine * y
                gap += wx * wy * (phi(m + half) - phi(m - half)) ** 2
        truth = float(gap / (2 * square))
    found = d.dual_of(name).pair(q, q, q * (1.0 - delta), delta)
    assert float(found.delta) == pytest.approx(truth, rel=1e-11)


@pytest.mark.parametrize("name", ["hardtanh", "relu6", "softshrink"])
def test_shifted_kinks_near_degeneracy(name, monkeypatch):
    """The series near cos = 1 meets the closed form, and tends to q E phi'^2 / E phi^2 delta."""
    dual = d.dual_of(name)
    delta = np.array([0.02, 0.03, 0.04])
    for q1, q2 in ((1.0, 1.0), (0.8, 0.9), (3.0, 3.0), (0.5, 4.0)):
        near = dual.pair(q1, q2, math.sqrt(q1 * q2) * (1.0 - delta), delta)
        with monkeypatch.context() as patch:
            patch.setattr(duals_bends, "_NEAR", 0.0)
            far = dual.pair(q1, q2, math.sqrt(q1 * q2) * (1.0 - delta), delta)
        np.testing.assert_allclose(near.delta, far.delta, rtol=1e-12)
    for q in (0.4, 2.5):
        small = np.array([1e-16, 1e-12, 1e-10])
        found = dual.pair(q, q, q * (1.0 - small), small)
        rate = q * dual.slope_variance(q) / dual.variance(q)
        np.testing.assert_allclose(found.delta / small, rate, rtol=3e-5)
        np.testing.assert_allclose(found.delta[0] / small[0], rate, rtol=3e-8)


@pytest.mark.parametrize("name", ["hardtanh", "hardshrink", "elu", "tanh", "erf", "relu6", "gcu"])
def test_variances_of_any_size(name):
    """From 0 to 1e4, parallel to opposed: finite, exact on the diagonal, no warning."""
    dual = d.dual_of(name)
    q = np.array([0.0, 1e-300, 1e-12, 1e-4, 0.3, 1.0, 50.0, 1e4])
    delta = np.array([0.0, 1e-16, 1e-6, 0.02, 0.3, 1.0, 1.9, 2.0])
    s = (np.sqrt(q)[:, None] * np.sqrt(q))[..., None] * (1.0 - delta)
    found = dual.pair(q[:, None, None], q[None, :, None], s, delta)
    assert all(np.isfinite(part).all() for part in found)
    variance = dual.variance(q)
    np.testing.assert_allclose(np.einsum("iik->ik", found.k)[:, 0], variance, rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from([*CLOSED, "tanh", "selu", "hardtanh"]),
    q1=st.floats(0.01, 20.0),
    q2=st.floats(0.01, 20.0),
    cos=st.floats(-1.0, 1.0),
)
def test_symmetric_and_below_cauchy_schwarz(name, q1, q2, cos):
    dual = CLOSED[name][1] if name in CLOSED else d.dual_of(name)
    s = math.sqrt(q1) * math.sqrt(q2) * cos
    one, two = dual.pair(q1, q2, s), dual.pair(q2, q1, s)
    size = math.sqrt(dual.variance(q1) * dual.variance(q2))
    assert float(one.k) == pytest.approx(float(two.k), rel=1e-12, abs=1e-13 * size)
    assert float(one.delta) == pytest.approx(float(two.delta), rel=1e-9, abs=1e-14)
    assert abs(float(one.k)) <= size * (1.0 + 1e-12)
    assert 0.0 <= float(one.delta) <= 2.0


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(["relu", "leaky_relu", "abs", "cube", "cubed", "two-sided", "sign"]),
    factor=st.floats(0.01, 100.0),
    cos=st.floats(-0.999, 0.999),
)
def test_homogeneity(name, factor, cos):
    dual = CLOSED[name][1]
    degree = {"cube": 3, "cubed": 3, "two-sided": 2, "sign": 0}.get(name, 1)
    base = dual.pair(0.8, 1.3, math.sqrt(0.8 * 1.3) * cos)
    wide = dual.pair(0.8 * factor**2, 1.3, math.sqrt(0.8 * 1.3) * factor * cos)
    assert float(wide.k) == pytest.approx(factor**degree * float(base.k), rel=1e-9, abs=1e-12)
    assert float(wide.delta) == pytest.approx(float(base.delta), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["relu", "gelu", "erf", "sin", "gabor", "tanh", "elu", "hardtanh"])
def test_gram_matrices_are_positive_definite_with_exact_diagonals(name):
    """Points on a smooth curve: near neighbours are near degenerate."""
    dual = CLOSED[name][1] if name in CLOSED else d.dual_of(name)
    t = np.linspace(0.0, 1.0, 60)
    x = np.stack([np.cos(t), np.sin(t), 0.3 * t, 0.5 * np.ones_like(t)], axis=1)
    q = np.sum(x * x, axis=1)
    gaps = np.sum((x[:, None] - x[None]) ** 2, axis=-1)
    roots = np.sqrt(q)
    delta = (gaps - (roots[:, None] - roots) ** 2) / (2.0 * roots[:, None] * roots)
    delta = np.maximum(delta, 0.0)
    np.fill_diagonal(delta, 0.0)
    found = dual.pair(q[:, None], q[None, :], x @ x.T, delta)
    diagonal = np.diag(found.k)
    np.testing.assert_allclose(diagonal, dual.variance(q), rtol=1e-14)
    assert np.all(np.diag(found.delta) == 0.0)
    np.testing.assert_allclose(np.diag(found.slope), dual.slope_variance(q), rtol=1e-5)
    least = np.linalg.eigvalsh(found.k)[0]
    assert least > -1e-14 * 60 * diagonal.max()


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "elu", "hardtanh"])
def test_against_simulation(name):
    rng = np.random.default_rng(7)
    record, dual = get(name), d.dual_of(name)
    z = rng.normal(size=(2, 400_000))
    u, v = math.sqrt(1.2) * z[0], math.sqrt(0.7) * (0.6 * z[0] + 0.8 * z[1])
    found = dual.pair(1.2, 0.7, 0.6 * math.sqrt(1.2 * 0.7))
    for sample, value in (
        (record(u) * record(v), found.k),
        (record.slope(u) * record.slope(v), found.slope),
    ):
        deviation = np.std(sample) / math.sqrt(sample.size)
        assert abs(np.mean(sample) - float(value)) < 5.0 * deviation


def test_a_users_record_of_two_fields():
    record = Activation("wobble_test", lambda nx, x: x + nx.sin(x) / 2.0)
    found = d.dual_of(record).pair(0.9, 1.4, 0.5)
    truth = quadrature(record, 0.9, 1.4, 0.5 / math.sqrt(0.9 * 1.4), ())
    assert float(found.k) == pytest.approx(truth, rel=1e-12)
    # E x^2 + E x sin x + E sin^2 x / 4
    q = np.array([0.2, 0.9, 5.0])
    closed = q + q * np.exp(-q / 2.0) + (1.0 - np.exp(-2.0 * q)) / 8.0
    np.testing.assert_allclose(d.dual_of(record).variance(q), closed, rtol=1e-13)


def test_a_users_kinks_are_found_without_being_listed():
    listed = Activation("bent_test", lambda nx, x: nx.maximum(x, 0.0) + nx.sin(x), kinks=(0.0,))
    silent = Activation("silent_test", lambda nx, x: nx.maximum(x, 0.0) + nx.sin(x))
    one, two = (d.dual_of(r).pair(1.0, 1.0, COSINES) for r in (listed, silent))
    np.testing.assert_allclose(one.k, two.k, rtol=1e-12)
    for i, cos in enumerate(COSINES):
        truth = quadrature(listed, 1.0, 1.0, cos, (0.0,))
        assert one.k[i] == pytest.approx(truth, rel=1e-11, abs=1e-12)


def test_a_users_record_named_like_one_of_ours_is_not_taken_for_it():
    mine = Activation("relu", lambda nx, x: 2.0 * nx.maximum(x, 0.0), kinks=(0.0,))
    assert float(d.dual_of(mine).variance(1.0)) == pytest.approx(2.0, rel=1e-12)
    assert float(d.dual_of("relu").variance(1.0)) == 0.5


@pytest.mark.parametrize("name", [*CLOSED, "tanh", "silu", "elu", "sigmoid"])
def test_a_variance_of_zero(name):
    record, dual = CLOSED[name] if name in CLOSED else (get(name), d.dual_of(name))
    found = dual.pair(np.array([0.0, 0.0]), np.array([0.0, 1.3]), np.zeros(2), np.zeros(2))
    base = float(record(0.0))
    z, weight = _panels(np.linspace(-11.0, 11.0, 45), 20)
    mean = float(np.sum(weight * record(math.sqrt(1.3) * z)))
    np.testing.assert_allclose(found.k, [base * base, base * mean], atol=1e-13)
    assert np.isfinite(found.slope).all()
    assert np.isfinite(found.delta).all()
    assert float(dual.variance(0.0)) == pytest.approx(base**2, abs=1e-15)


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "elu"])
def test_blocks_and_broadcasting_change_nothing(name):
    dual, rng = d.dual_of(name), np.random.default_rng(1)
    q1, q2 = rng.uniform(0.3, 3.0, (150, 1)), rng.uniform(0.3, 3.0, (1, 260))
    s = np.sqrt(q1 * q2) * rng.uniform(-1.0, 1.0, (150, 260))
    whole = dual.pair(q1, q2, s)
    flat = dual.pair(
        np.broadcast_to(q1, s.shape).ravel(), np.broadcast_to(q2, s.shape).ravel(), s.ravel()
    )
    for a, b in zip(whole, flat, strict=True):
        np.testing.assert_allclose(a.ravel(), b, rtol=1e-12, atol=1e-15)
    deep = dual.pair(q1[:5, :, None], q2[:, :7, None], s[:5, :7, None] * np.ones(3))
    np.testing.assert_allclose(deep.k[..., 1], whole.k[:5, :7], rtol=1e-12)
    assert dual.pair(1.0, 1.0, 0.5).k.shape == ()
    assert dual.pair(np.ones(0), 1.0, np.ones(0)).k.shape == (0,)


@pytest.mark.parametrize("name", ["tanh", "elu", "gelu_tanh"])
def test_variances_are_smooth_over_many_octaves(name):
    """Interpolated rows against moments by another quadrature, to 1e-12, at 1e-6 to 1e4."""
    record, dual = get(name), d.dual_of(name)
    q = np.geomspace(1e-6, 1e4, 11)
    second = [record.gaussian_moments(float(v)).second for v in q]
    inner = [record.gaussian_moments(float(v)).slope_second for v in q]
    np.testing.assert_allclose(dual.variance(q), second, rtol=1e-11)
    np.testing.assert_allclose(dual.slope_variance(q), inner, rtol=1e-11)


def test_what_has_no_dual_says_so():
    with pytest.raises(UnsupportedError, match="int has no dual"):
        d.dual_of(3)
    with pytest.raises(InputError, match="no Gaussian moments"):
        d.dual_of("log")
    with pytest.raises(InputError, match="no activation is called"):
        d.dual_of("rleu")


def test_normalised_exponential_keeps_norms():
    dual = d.NormalisedExponential(None, 2.0)
    found = dual.pair(np.array([2.0, 1.0]), np.array([2.0, 3.0]), np.array([2.0, 0.5]))
    truth = [2.0, math.sqrt(3.0) * math.exp(2.0 * (0.5 / math.sqrt(3.0) - 1.0))]
    np.testing.assert_allclose(found.k, truth, rtol=1e-14)
    np.testing.assert_allclose(
        dual.pair(1.0, 1.0, 1.0, 1e-12).delta, -math.expm1(-2e-12), rtol=1e-15
    )
