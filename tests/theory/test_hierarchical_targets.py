"""Targets: their moments by quadrature, and the best approximation of degree k by regression."""

from math import sqrt

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.hierarchical import hermite_basis, hierarchical_target


def product_rule(dimension, nodes):
    points, weights = hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[points] * dimension), -1).reshape(-1, dimension)
    mass = np.prod(np.stack(np.meshgrid(*[weights] * dimension), -1), -1).ravel()
    return grid, mass / mass.sum()


@pytest.mark.parametrize(("dimension", "degree"), [(4, 2), (6, 3), (5, 2), (3, 1)])
def test_the_feature_has_mean_zero_and_variance_one(dimension, degree):
    target = hierarchical_target(
        dimension, degree=degree, rng=np.random.default_rng(1), weights=None
    )
    x, mass = product_rule(dimension, 5)
    p = target.feature(x)
    assert mass @ p == pytest.approx(0, abs=1e-10)
    assert mass @ p**2 == pytest.approx(1, abs=1e-10)
    assert (target.degree, target.dimension, target.terms) == (
        degree,
        dimension,
        dimension // degree,
    )


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("dimension", "degree", "link", "weights"),
    [
        (4, 2, (0, 1, 1), None),
        (4, 2, (0, 1, 1), (1.0, 2.0)),
        (4, 2, (0.3, 1, -0.5, 0.7), (1.0, 2.0)),
        (6, 3, (0, 1, 1), None),
        (6, 3, (0, 1, 0.4, 0.6), (1.0, -2.0)),
        (3, 1, (0, 1, 0.4, 0.6), None),
    ],
)
def test_asymptotic_correlation_is_that_of_the_exact_projection(
    dimension, degree, link, weights, lower
):
    target = hierarchical_target(dimension, degree=degree, link=link, weights=weights)
    # p has degree one in every coordinate: h of degree 3 there, the basis of degree at most 3
    x, mass = product_rule(dimension, 5)
    degrees = range(1, degree + 1) if lower else (degree,)
    basis = np.hstack([hermite_basis(x, k) for k in degrees])
    projection = basis @ (basis.T @ (mass * target(x)))
    p = target.feature(x)
    found = mass @ (projection * p) / sqrt(mass @ projection**2)
    assert target.asymptotic_correlation(lower_degrees=lower) == pytest.approx(found, abs=1e-10)


@pytest.mark.parametrize("terms", [4, 8, 12, 22])
def test_the_reference_target_has_the_known_asymptote(terms):
    target = hierarchical_target(2 * terms)
    assert target.asymptotic_correlation() == pytest.approx(1 / sqrt(1 + 2 / terms))
    assert target.information_exponent == 1


def test_rotations_keep_the_directions_orthonormal_and_samples_fit():
    rng = np.random.default_rng(0)
    target = hierarchical_target(7, degree=3, terms=2, rng=rng)
    flat = target.directions.reshape(6, 7)
    np.testing.assert_allclose(flat @ flat.T, np.eye(6), atol=1e-12)
    x, y = target.sample(5, np.random.default_rng(3))
    more, further = target.sample(9, np.random.default_rng(3))
    np.testing.assert_array_equal(x, more[:5])  # one stream: more samples are further ones
    np.testing.assert_array_equal(y, further[:5])
    np.testing.assert_array_equal(y, target(x))


def test_noise_is_added():
    target = hierarchical_target(4)
    x, y = target.sample(4000, np.random.default_rng(0), noise=0.5)
    assert np.std(y - target(x)) == pytest.approx(0.5, rel=0.05)


def test_refusals():
    with pytest.raises(InputError, match="fit into dimension 3"):
        hierarchical_target(3, degree=2, terms=2)
    with pytest.raises(InputError, match="degree 0"):
        hierarchical_target(3, degree=0)
    with pytest.raises(InputError, match="link"):
        hierarchical_target(4, link=(0.0, 0.0))
    with pytest.raises(InputError, match="weights"):
        hierarchical_target(4, weights=(1.0,))
    with pytest.raises(InputError, match="x has shape"):
        hierarchical_target(4).feature(np.zeros((2, 3)))
    with pytest.raises(UnsupportedError, match="degree 4"):
        hierarchical_target(4, link=(0, 1, 0, 0, 1)).asymptotic_correlation()
    target = hierarchical_target(4)
    with pytest.raises(InputError, match="orthonormal"):
        type(target)(2 * target.directions, target.weights, target.link)
    with pytest.raises(InputError, match="sum of squares"):
        type(target)(target.directions, 2 * target.weights, target.link)
