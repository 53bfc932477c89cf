"""Hermite tools against NumPy's polynomials, quadrature and sampling."""

from itertools import permutations
from math import comb, factorial, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss, hermeval

from tangency.models.errors import InputError
from tangency.theory.hierarchical import (
    hermite,
    hermite_basis,
    hermite_coefficients,
    hermite_sum,
    hermite_tensor,
    information_exponent,
)


def test_values_are_numpys_over_the_root_of_the_factorial():
    x = np.linspace(-4, 4, 31)
    for k, ours in enumerate(hermite(x, 8)):
        np.testing.assert_allclose(
            ours, hermeval(x, np.eye(9)[k]) / sqrt(factorial(k)), rtol=1e-10, atol=1e-12
        )


def test_orthonormal_to_high_degree():
    points, weights = hermegauss(120)
    table = hermite(points, 60)
    np.testing.assert_allclose(
        (table * weights / weights.sum()) @ table.T, np.eye(61), rtol=0, atol=1e-9
    )


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=7))
@settings(max_examples=20, deadline=None)
def test_coefficients_give_the_polynomial_back(coefficients):
    found = hermite_coefficients(lambda z: hermite_sum(z, coefficients), 8, nodes=40)
    padded = np.zeros(9)
    padded[: len(coefficients)] = coefficients
    np.testing.assert_allclose(found, padded, atol=1e-9)


def test_coefficients_of_the_exponential():
    # E[exp(z) h_k(z)] = exp(1/2) / sqrt(k!)
    found = hermite_coefficients(np.exp, 6, nodes=80)
    np.testing.assert_allclose(
        found, [np.exp(0.5) / sqrt(factorial(k)) for k in range(7)], rtol=1e-10
    )


def test_information_exponents():
    assert information_exponent([3.0, 0.0, 1.0]) == 2
    assert information_exponent([0.0, 1e-17, 0.0, 2.0]) == 3
    assert information_exponent([1.0, 0.0]) is None
    assert information_exponent(hermite_coefficients(lambda z: z**3 - z, 3)) == 1
    # the sine is odd, its square even
    assert information_exponent(hermite_coefficients(lambda z: np.sin(z) ** 2, 3)) == 2


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_basis_is_orthonormal(degree):
    # a product quadrature, exact for these degrees
    points, weights = hermegauss(6)
    grid = np.stack(np.meshgrid(points, points, points), -1).reshape(-1, 3)
    mass = np.prod(np.stack(np.meshgrid(weights, weights, weights), -1), -1).ravel()
    basis = hermite_basis(grid, degree)
    assert basis.shape == (216, comb(2 + degree, degree))
    gram = (basis * (mass / mass.sum())[:, None]).T @ basis
    np.testing.assert_allclose(gram, np.eye(basis.shape[1]), atol=1e-10)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_tensors_contract_to_polynomials_of_one_direction(degree):
    rng = np.random.default_rng(degree)
    x, v = rng.standard_normal((7, 3)), rng.standard_normal(3)
    v /= np.linalg.norm(v)
    tensor = hermite_tensor(x, degree)
    for order in permutations(range(degree)):
        np.testing.assert_allclose(tensor, tensor.transpose(0, *(1 + i for i in order)), atol=1e-12)
    contracted = tensor
    for _ in range(degree):
        contracted = contracted @ v
    np.testing.assert_allclose(
        contracted, sqrt(factorial(degree)) * hermite(x @ v, degree)[degree], atol=1e-11
    )


def test_refusals_name_what_is_wrong():
    with pytest.raises(InputError, match="degree = -1"):
        hermite(0.0, -1)
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        hermite_tensor(np.zeros(3), 2)
    with pytest.raises(InputError, match="nodes = 4"):
        hermite_coefficients(np.exp, 4, nodes=4)
    with pytest.raises(InputError, match="coefficients"):
        hermite_sum(0.0, [[1.0]])
