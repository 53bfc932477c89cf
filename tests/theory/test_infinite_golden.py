"""Kernels against golden values of neural-tangents, and against mpmath where it is wrong."""

import importlib.util
from pathlib import Path

import mpmath
import numpy as np
import pytest

import tangency.theory.kernels as kernels

FOLDER = Path(__file__).with_name("golden")
SPEC = importlib.util.spec_from_file_location("golden_cases", FOLDER / "cases.py")
CASES_MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CASES_MODULE)
CASES, INPUTS = CASES_MODULE.CASES, CASES_MODULE.inputs
GOLDEN = np.load(FOLDER / "golden.npz")
VECTORS = sorted(name for name, case in CASES.items() if case[0] == "vectors")

# The peer loses half of the digits of these diagonals (cos = 1 up to rounding, and then the
# square root of its complement), and divides 0 by 0 in RectifiedMonomial.
WRONG_DIAGONALS = {
    ("sign", "nngp"), ("sign_of_sign", "nngp"), ("sign", "ntk"), ("sign_of_sign", "ntk"),
    ("rectified_monomial_1", "nngp"), ("rectified_monomial_2", "nngp"),
    *((name, "ntk") for name in (
        "relu", "relu_standard", "relu_without_bias", "leaky_relu", "abs", "dense_residual",
        "concat", "product", "dropout", "layer_norm", "rectified_monomial_1",
        "rectified_monomial_2",
    )),
}  # fmt: skip


@pytest.fixture(scope="module")
def ours():
    """Kernels of all cases, computed once each."""
    done = {}

    def compute(name):
        if name not in done:
            kind, parametrisation, build = CASES[name]
            kernel = kernels.infinite_kernel(build(kernels), parametrisation=parametrisation)
            x1, x2 = INPUTS(kind)
            done[name] = {"same": kernel(x1), "cross": kernel(x1, x2)}
        return done[name]

    return compute


def _error(got, reference):
    return np.abs(got - reference) / np.abs(reference)


@pytest.mark.parametrize("name", sorted(CASES))
def test_agrees_with_neural_tangents(name, ours):
    for label, gram in ours(name).items():
        for which in ("nngp", "ntk"):
            error = _error(getattr(gram, which), GOLDEN[f"{name}/{label}/{which}"])
            if label == "same" and (name, which) in WRONG_DIAGONALS:
                np.fill_diagonal(error, 0.0)  # mpmath decides, below
            assert error.max() < 1e-9


class Diagonal:
    """Kernels of one sample with itself in 40 digits: moments by quadrature, no dual."""

    def __init__(self, parametrisation):
        self.standard = parametrisation == "standard"

    def Dense(self, width=1, W_std=1.0, b_std=None):
        weight, bias = mpmath.mpf(W_std) ** 2, mpmath.mpf(b_std or 0) ** 2

        def layer(q, t, n):
            if self.standard:
                return weight * q + bias, n * q + weight * t + (b_std is not None), width
            return weight * q + bias, weight * (q + t) + bias, width

        return layer

    def serial(self, *layers):
        def run(q, t, n):
            for layer in layers:
                q, t, n = layer(q, t, n)
            return q, t, n

        return run

    def residual(self, branch):
        def meet(q, t, n):
            q2, t2, _ = branch(q, t, n)
            return q + q2, t + t2, n

        return meet

    def concat(self, *branches):
        def meet(*state):
            ends = [branch(*state) for branch in branches]
            total = sum(n for _, _, n in ends)
            mean = [sum(end[i] * end[2] for end in ends) / total for i in (0, 1)]
            return (*mean, total)

        return meet

    def product(self, *branches):
        def meet(*state):
            (q1, t1, n), (q2, t2, _) = (branch(*state) for branch in branches)
            return q1 * q2, t1 * q2 + q1 * t2, n

        return meet

    def LayerNorm(self, axes, eps):
        return lambda q, t, n: (q / (q + eps), t / (q + eps), n)

    def Dropout(self, keep):
        return lambda q, t, n: (q / mpmath.mpf(keep), t / mpmath.mpf(keep), n)

    def _of(self, value, slope):
        def layer(q, t, n):
            root = mpmath.sqrt(q)

            def mean(f):
                whole = [-mpmath.inf, -4, 0, 4, mpmath.inf]
                return mpmath.quad(lambda z: f(root * z) ** 2 * mpmath.npdf(z), whole)

            return mean(value), mean(slope) * t, n

        return layer

    def ABRelu(self, a, b):
        return self._of(lambda x: x * (a if x < 0 else b), lambda x: a if x < 0 else b)

    def Relu(self):
        return self.ABRelu(0, 1)

    def LeakyRelu(self, alpha):
        return self.ABRelu(alpha, 1)

    def Abs(self):
        return self.ABRelu(-1, 1)

    def Sign(self):
        return self._of(mpmath.sign, lambda x: mpmath.mpf(0))

    def RectifiedMonomial(self, n):
        return self._of(
            lambda x: x**n if x > 0 else mpmath.mpf(0),
            lambda x: n * x ** (n - 1) if x > 0 else mpmath.mpf(0),
        )

    def Erf(self, a=1, b=1, c=0):
        def slope(x):
            return 2 * a * b / mpmath.sqrt(mpmath.pi) * mpmath.exp(-((b * x) ** 2))

        return self._of(lambda x: a * mpmath.erf(b * x) + c, slope)

    def Gelu(self):
        return self._of(lambda x: x * mpmath.ncdf(x), lambda x: mpmath.ncdf(x) + x * mpmath.npdf(x))


@pytest.mark.parametrize("name", sorted({name for name, _ in WRONG_DIAGONALS}))
def test_diagonals_where_the_peer_is_wrong(name, ours):
    kind, parametrisation, build = CASES[name]
    x = INPUTS(kind)[0]
    gram = ours(name)["same"]
    with mpmath.workdps(25):
        network = build(Diagonal(parametrisation))
        exact = []
        for row in x[:2]:
            q = sum(mpmath.mpf(float(v)) ** 2 for v in row) / len(row)
            exact.append([float(v) for v in network(q, mpmath.mpf(0), len(row))[:2]])
    exact = np.array(exact)
    np.testing.assert_allclose(np.diag(gram.nngp)[:2], exact[:, 0], rtol=1e-12)
    np.testing.assert_allclose(np.diag(gram.ntk)[:2], exact[:, 1], rtol=1e-12)
    for which, column in (("nngp", 0), ("ntk", 1)):
        if (name, which) in WRONG_DIAGONALS:
            peer = np.diag(GOLDEN[f"{name}/same/{which}"])[:2]
            assert not (_error(peer, exact[:, column]) < 1e-9).all()


@pytest.mark.parametrize("name", ["relu", "conv_pool", "resnet", "attention", "dropout_images"])
def test_diagonal_is_that_of_the_matrix(name, ours):
    kind, parametrisation, build = CASES[name]
    kernel = kernels.infinite_kernel(build(kernels), parametrisation=parametrisation)
    diagonal = kernel.diagonal(INPUTS(kind)[0])
    gram = ours(name)["same"]
    assert gram.symmetric
    for which in ("nngp", "ntk"):
        matrix = getattr(gram, which)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_allclose(np.diag(matrix), getattr(diagonal, which), rtol=1e-14)
