"""The positive-definiteness test and the norm bound against exact rational arithmetic."""

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tangency.models.errors import InputError
from tangency.verify.certificate import (
    Matrix,
    definiteness,
    is_positive_definite,
    spectral_norm_bound,
)
from tangency.verify.certificate.directed import congruence, difference, gamma, product


def exact_definite(matrix):
    """Decide positive definiteness by LDL^T in fractions."""
    rows = [[Fraction(v) for v in row] for row in np.asarray(matrix).tolist()]
    while rows:
        pivot = rows[0][0]
        if pivot <= 0:
            return False
        rows = [
            [v - row[0] * w / pivot for v, w in zip(row[1:], rows[0][1:], strict=True)]
            for row in rows[1:]
        ]
    return True


def mirrored(a):
    return np.tril(a) + np.tril(a, -1).T


small = st.integers(1, 5).flatmap(
    lambda n: arrays(np.float64, (n, n), elements=st.integers(-8, 8).map(float))
)
exponents = st.lists(st.integers(-480, 480), min_size=5, max_size=5)


@settings(max_examples=200, deadline=None)
@given(small, exponents, st.sampled_from([0.0, 1e-17, -1e-17, 1e-16, -1e-16, 1e-13, 0.1]))
def test_never_true_for_what_is_not_definite(factor, powers, shift):
    n = len(factor)
    scale = np.ldexp(1.0, powers[:n])
    base = factor @ factor.T  # often singular, in integers
    matrix = (base + shift * np.eye(n)) * scale[:, None] * scale[None, :]
    if is_positive_definite(matrix):
        assert exact_definite(matrix)


@settings(max_examples=100, deadline=None)
@given(small, exponents)
def test_true_where_there_is_a_margin(factor, powers):
    n = len(factor)
    scale = np.ldexp(1.0, powers[:n])
    matrix = (factor @ factor.T + 1e-9 * np.eye(n)) * scale[:, None] * scale[None, :]
    found = definiteness(matrix)
    assert found.proved
    assert found.margin > 0


@settings(max_examples=60, deadline=None)
@given(small, st.integers(0, 2**32 - 1), st.sampled_from([1e-16, 1e-8, 0.3, 1.0, 4.0]))
def test_every_matrix_of_an_enclosure(factor, seed, size):
    n = len(factor)
    rng = np.random.default_rng(seed)
    centre = factor @ factor.T + np.eye(n)
    radius = mirrored(rng.random((n, n)) * size)
    if is_positive_definite(centre, radius):
        for _ in range(10):
            signs = mirrored(rng.choice([-1.0, 1.0], (n, n)))
            corner = [
                [Fraction(c) + Fraction(s) * Fraction(r) for c, s, r in zip(*row, strict=True)]
                for row in zip(centre.tolist(), signs.tolist(), radius.tolist(), strict=True)
            ]
            assert exact_definite(np.array(corner, dtype=object))


@pytest.mark.parametrize("scale", [1e-150, 1e-75, 1.0, 1e150])
def test_matrices_next_to_singular(scale):
    ulp = 2.0**-52
    for last, definite in [(1 - ulp, False), (1.0, False), (1 + ulp, True), (1 + 1e-12, True)]:
        matrix = np.array([[1.0, 1.0], [1.0, last]]) * 2.0 ** round(math.log2(scale))
        assert exact_definite(matrix) is definite
        assert not (is_positive_definite(matrix) and not definite)
    assert is_positive_definite(matrix)


def test_a_large_random_gram_matrix():
    factor = np.random.default_rng(0).standard_normal((300, 300))
    gram = mirrored(factor @ factor.T)
    lowest = np.linalg.eigvalsh(gram)[0]
    assert is_positive_definite(gram - (lowest - 1e-6) * np.eye(300))
    assert not is_positive_definite(gram - (lowest + 1e-6) * np.eye(300))
    assert not is_positive_definite(gram - (lowest - 1e-6) * np.eye(300), np.full((300, 300), 1e-6))


@pytest.mark.parametrize(
    ("midpoint", "radius", "word"),
    [
        ([[1.0, 0.0], [1e-300, 1.0]], None, "not symmetric"),
        ([[np.nan, 0.0], [0.0, 1.0]], None, "NaN"),
        ([[np.inf, 0.0], [0.0, 1.0]], None, "infinite"),
        ([[1.0, 0.0]], None, "not square"),
        ([1.0], None, "must be a matrix"),
        ([[1.0j]], None, "real"),
        ([[2**53 + 1]], None, "exact"),
        ([[0.0]], None, "not positive"),
        ([[1.0]], [[-1e-3]], "negative"),
        ([[1.0]], [[np.nan]], "NaN"),
        ([[1.0]], [[1.0]], "exceeds"),
        ([[1.0]], np.zeros((2, 2)), "shape"),
        ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.1], [0.0, 0.0]], "not symmetric"),
        ([[1.0, 9.0], [9.0, 1.0]], None, "off-diagonal"),
        ([[1.0, 1.0], [1.0, 1.0]], None, "breaks down"),
    ],
)
def test_refusals_say_why(midpoint, radius, word):
    found = definiteness(midpoint, radius)
    assert not found
    assert word in found.reason


def test_layouts_and_types():
    matrix = np.array([[4, 1], [1, 4]])
    assert is_positive_definite(matrix)
    assert is_positive_definite(matrix.astype(np.float32))
    assert is_positive_definite(np.asfortranarray(np.eye(9))[::2, ::2])
    assert is_positive_definite(np.zeros((0, 0)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([-1060, -530, 0, 400]))
def test_products_enclose_the_exact_one(seed, n, power):
    rng = np.random.default_rng(seed)
    a, b = (np.ldexp(rng.standard_normal((n, n)), power) for _ in range(2))
    middle = rng.standard_normal(n)
    pairs = [
        (product(Matrix(a), Matrix(b)), lambda x, y, m: x @ y),
        (difference(Matrix(a), Matrix(b)), lambda x, y, m: x - y),
        (congruence(Matrix(a), middle), lambda x, y, m: x.T @ (m[:, None] * x)),
    ]
    fraction = np.vectorize(Fraction, otypes=[object])
    for found, operation in pairs:
        exact = operation(fraction(a), fraction(b), fraction(middle))
        for i, j in itertools.product(range(n), repeat=2):
            error = abs(exact[i, j] - Fraction(found.midpoint[i, j]))
            assert error <= Fraction(found.radius[i, j])
    assert gamma(n) >= n * 2.0**-53


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([1e-300, 1e-150, 1.0, 1e150]),
)
def test_norm_bound_is_tight_and_above(seed, m, n, scale):
    matrix = np.random.default_rng(seed).standard_normal((m, n)) * scale
    bound = spectral_norm_bound(matrix)
    with mpmath.workdps(40):
        norm = max(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False))
        assert norm <= bound
        assert bound <= norm * (1 + mpmath.mpf(1e-10))


def test_norm_bound_of_special_matrices():
    assert spectral_norm_bound(np.zeros((3, 4))) == 0.0
    assert 1.0 <= spectral_norm_bound(np.eye(50)) < 1 + 1e-10
    assert 1.0 <= spectral_norm_bound(np.array([[0.6, 0.8]])) < 1 + 1e-15
    assert spectral_norm_bound(np.full((4, 4), 1.7e308)) == np.inf
    assert 0 < spectral_norm_bound(np.array([[5e-324]])) <= 1e-323
    wide = np.random.default_rng(1).standard_normal((64, 784))
    assert np.linalg.norm(wide, 2) <= spectral_norm_bound(wide) * (1 + 1e-14)
    assert spectral_norm_bound(wide) <= np.linalg.norm(wide, 2) * (1 + 1e-10)
    assert spectral_norm_bound(np.eye(3), np.full((3, 3), 0.1)) >= 1.3
    with pytest.raises(InputError, match="NaN"):
        spectral_norm_bound(np.array([[np.nan]]))
    with pytest.raises(InputError, match="matrix"):
        spectral_norm_bound(np.ones(3))
