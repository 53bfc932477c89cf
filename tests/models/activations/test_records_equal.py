"""Which records are equal: what is compiled or cached for one must never serve another."""

import numpy as np

import tangency
from tangency.models.activations import Activation, get


def scaled(factor: float) -> Activation:
    return Activation("scaled", lambda nx, x: factor * x)


def test_a_name_is_not_enough():
    assert Activation("mine", lambda nx, x: x) != Activation("mine", lambda nx, x: 2.0 * x)
    assert scaled(1.0) == scaled(1.0)
    assert hash(scaled(1.0)) == hash(scaled(1.0))
    assert scaled(1.0) != scaled(2.0)
    assert get("leaky_relu", negative_slope=0.1) == get("leaky_relu", negative_slope=0.1)
    assert get("leaky_relu", negative_slope=0.1) != get("leaky_relu", negative_slope=0.2)


def test_two_formulas_of_one_name_are_compiled_apart():
    weights = [np.eye(2), np.eye(2)]
    x = np.array([[1.0, 2.0]])
    for factor in (1.0, 3.0):
        network = tangency.from_layers(weights, scaled(factor))
        np.testing.assert_allclose(network(x), factor * x)
        np.testing.assert_allclose(network.evaluate(x), factor * x)
