"""Fused fully connected kernels: against the reference, closed forms and precision near cos = 1."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels import infinite_kernel
from tangency.theory.kernels.fused import FusedDense
from tangency.theory.kernels.layers import Conv, Dense, GlobalAvgPool, LayerNorm
from tangency.theory.kernels.layers_activations import Abs, Activation, Erf, Gelu, LeakyRelu, Relu
from tangency.theory.kernels.layers_branches import residual, serial

RELU = serial(*[Dense(8, 2**0.5), Relu()] * 3, Dense())
NETS = {
    "relu": RELU,
    "bias": serial(Dense(8, 1.4, 0.3), Relu(), Dense(8, 1.2, 0.1), Relu(), Dense(1, 1.0, 0.2)),
    "kinks": serial(Dense(8), Abs(), Dense(8, 1.0, 0.3), LeakyRelu(0.2), Dense()),
    "smooth": serial(Dense(8, 1.4, 0.3), Gelu(), Dense(8, 1.4, 0.1), Erf(), Dense()),
    "other": serial(Dense(8, 1.4, 0.3), Activation("tanh"), Dense(), Relu(), Dense()),
    "residual": serial(
        Dense(8, 1.4, 0.3), residual(serial(Relu(), Dense(8, 1.0, 0.2))), Relu(), Dense()
    ),
    "norm": serial(Dense(8, 1.4, 0.3), LayerNorm(), Relu(), Dense()),
}


def samples(n=90, d=12, seed=0):
    """Random ones, and a repeat, a multiple, a neighbour and zero."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    x[5], x[7], x[8], x[10] = x[4], 2 * x[6], x[6] + 1e-7 * x[9], 0.0
    return x


@pytest.mark.parametrize("recursion", [np.float64, np.float32])
@pytest.mark.parametrize("parametrisation", ["ntk", "standard"])
@pytest.mark.parametrize("name", NETS)
def test_equals_the_reference(name, parametrisation, recursion):
    x, y = samples(), samples(40, seed=1)
    kernel = infinite_kernel(NETS[name], parametrisation=parametrisation, method="reference")
    fused = FusedDense(kernel.plan((12,)), recursion, recursion)
    # eps of the entry's own scale: sqrt(K_ii K_jj)
    tolerance = 2e-12 if recursion is np.float64 else 6e-7
    for other in (None, y):
        ours, theirs = fused(x, other), kernel(x, other)
        for kind in ("nngp", "ntk"):
            ends = [kernel.diagonal(z, get=kind) for z in (x, x if other is None else other)]
            scale = np.sqrt(np.outer(*ends)) + 1e-300
            gap = np.abs(getattr(ours, kind) - getattr(theirs, kind)) / scale
            assert gap.max() <= tolerance
            assert getattr(ours, kind).dtype == recursion


def test_symmetric_to_the_bit_with_exact_diagonal_whatever_the_number_of_threads():
    x = samples(700)  # several panels and tiles
    kernel = infinite_kernel(NETS["bias"], method="reference")
    one = FusedDense(kernel.plan((12,)))(x)
    two = FusedDense(kernel.plan((12,)), n_jobs=2)(x)
    for kind in ("nngp", "ntk"):
        array = getattr(one, kind)
        assert np.array_equal(array, array.T)
        assert np.array_equal(array, getattr(two, kind))
        exact = kernel.diagonal(x, get=kind)
        np.testing.assert_allclose(np.diag(array), exact, rtol=6e-8)
        np.testing.assert_allclose(
            FusedDense(kernel.plan((12,)), np.float64).diagonal(x, get=kind), exact, rtol=1e-14
        )


@settings(max_examples=20, deadline=None)
@given(st.floats(1e-6, np.pi), st.floats(0.1, 10.0), st.sampled_from([np.float32, np.float64]))
def test_three_layers_in_closed_form(theta, norm, dtype):
    x = np.array([[1.0, 0.0]]) * np.sqrt(2.0)
    y = np.array([[np.cos(theta), np.sin(theta)]]) * norm * np.sqrt(2.0)
    with mpmath.workdps(40):
        a = mpmath.mpf(theta)
        ntk = mpmath.cos(a)
        for _ in range(3):
            slope = 1 - a / mpmath.pi
            value = (mpmath.sin(a) + (mpmath.pi - a) * mpmath.cos(a)) / mpmath.pi
            ntk, a = value + ntk * slope, mpmath.acos(value)
        want = float(ntk)
    got = FusedDense(infinite_kernel(RELU).plan((2,)), dtype, dtype)(x, y, get="ntk")[0, 0] / norm
    # W_std^2 = 2 keeps the variance: norm is sqrt(q1 q2) in every layer
    assert abs(got - want) <= (1e-6 if dtype is np.float32 else 1e-13)


# Section 4.4 of the notes on kernels: smooth data on a line in 784 dimensions. Least eigenvalues
# there are proportional to the step along the curve, whatever the curve; this step gives theirs.
STEP = 1.587e-4


def arc(n):
    one, two = np.linalg.qr(np.random.default_rng(0).normal(size=(784, 2)))[0].T
    angle = STEP * np.arange(n)[:, None]
    return 28.0 * (np.cos(angle) * one + np.sin(angle) * two)


def least(matrix):
    """Least eigenvalue over the mean of the diagonal."""
    matrix = matrix.astype(np.float64)
    return np.linalg.eigvalsh(matrix)[0] / np.diag(matrix).mean()


@pytest.mark.parametrize(("depth", "truth"), [(3, 3.78e-5), (10, 1.26e-4)])
def test_smooth_data_keep_their_least_eigenvalue_in_single_precision(depth, truth):
    net = serial(*[Dense(8, 2**0.5), Relu()] * depth, Dense())
    plan = infinite_kernel(net).plan((784,))
    x = arc(400)
    double = least(FusedDense(plan, np.float64)(x, get="ntk"))
    single = least(FusedDense(plan, np.float32)(x, get="ntk"))
    assert abs(double / truth - 1.0) <= 0.02
    assert abs(single / truth - 1.0) <= 0.02
    assert abs(single / double - 1.0) <= 0.01
    fast = least(FusedDense(plan, np.float32, np.float32)(x, get="ntk"))
    assert abs(fast / double - 1.0) <= 0.06


def test_smooth_data_against_forty_digits():
    n, depth = 24, 10
    plan = infinite_kernel(serial(*[Dense(8, 2**0.5), Relu()] * depth, Dense())).plan((784,))
    with mpmath.workdps(40):
        values = []
        for k in range(n):
            angle = k * mpmath.mpf(STEP)
            ntk = mpmath.cos(angle)
            for _ in range(depth):
                slope = 1 - angle / mpmath.pi
                value = (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)) / mpmath.pi
                ntk, angle = value + ntk * slope, mpmath.acos(value)
            values.append(ntk)
        exact = mpmath.matrix(n, n)
        for i in range(n):
            for j in range(n):
                exact[i, j] = values[abs(i - j)]
        truth = float(min(mpmath.eigsy(exact, eigvals_only=True)) / values[0])
    double = FusedDense(plan, np.float64)(arc(n), get="ntk")
    np.testing.assert_allclose(double[0], np.array(values, dtype=float), rtol=1e-12)
    assert abs(least(double) / truth - 1.0) <= 1e-7
    assert abs(least(FusedDense(plan)(arc(n), get="ntk")) / truth - 1.0) <= 0.01


def test_what_does_not_fit_is_refused():
    conv = infinite_kernel(serial(Conv(8, (3, 3)), Relu(), GlobalAvgPool(), Dense()))
    with pytest.raises(UnsupportedError, match="on vectors"):
        FusedDense(conv.plan((4, 4, 3)))
    plan = infinite_kernel(RELU).plan((12,))
    with pytest.raises(InputError, match="float32 or float64"):
        FusedDense(plan, np.float16)
    with pytest.raises(InputError, match="n_jobs"):
        FusedDense(plan, n_jobs=0)
    with pytest.raises(InputError, match="x1 is"):
        FusedDense(plan)(np.ones((3, 5)))
    with pytest.raises(InputError, match="NaN"):
        FusedDense(plan)(np.full((3, 12), np.nan))


def test_the_polynomials_have_the_error_that_they_state():
    from numba import njit

    from tangency.theory.kernels.fused_angle import angle_and_gap

    both = njit(lambda d: angle_and_gap(d))
    for kind, bound in ((np.float32, 3e-7), (np.float64, 1e-15)):
        for delta in [0.0, *np.geomspace(1e-12, 1.0, 40), *np.linspace(1.0, 2.0, 20)]:
            delta = kind(delta)
            with mpmath.workdps(40):
                a = 2 * mpmath.asin(mpmath.sqrt(mpmath.mpf(float(delta)) / 2))
                want = float(a), float(mpmath.sin(a) - a * mpmath.cos(a))
            got = both(delta)
            np.testing.assert_allclose(got, want, rtol=bound)
