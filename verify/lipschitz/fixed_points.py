"""A lower bound of an implicit layer's Lipschitz constant: Jacobians at sampled fixed points."""

import numpy as np

from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Function

__all__ = ["fixed_point", "implicit_attack"]


def fixed_point(
    weight: Array,
    constant: Array,
    activation: Slopes | GroupSort,
    function: Function | None,
    *,
    tolerance: float = 1e-12,
    steps: int = 1000,
) -> Array | None:
    """Return z = phi(W z + h) by damped iteration, or None where it does not converge.

    Parameters
    ----------
    weight : (n, n) array
        W.
    constant : (n,) array
        h.
    activation : Slopes or GroupSort
    function : Function or None
        phi; sorting needs none.
    tolerance : float
        Of the residual, relative to the size of z.
    steps : int
        At most, for each damping.
    """
    for step in (1.0, 0.5, 0.1, 0.02):
        z = np.zeros_like(constant)
        for _ in range(steps):
            change = _apply(weight @ z + constant, activation, function) - z
            size = float(np.linalg.norm(change))
            if size <= tolerance * (1.0 + np.linalg.norm(z)):
                return z
            if not size < 1e100:
                break
            z = z + step * change
    return None


def implicit_attack(
    weight: Array,
    inputs: Array,
    output: Array,
    bias: Array,
    activation: Slopes | GroupSort,
    function: Function | None,
    *,
    samples: int = 60,
    climbs: int = 60,
    seed: int = 0,
) -> float | None:
    """Return the largest Jacobian norm at sampled fixed points, improved by random steps.

    Parameters
    ----------
    weight, inputs, output, bias : (n, n), (n, m), (p, n), (n,) arrays
        W, U, C and b.
    activation : Slopes or GroupSort
    function : Function or None
        phi; None for Slopes means that there is nothing to sample.
    samples, climbs : int
        Random inputs, and random steps from the best.
    seed : int

    Returns
    -------
    float or None
        In float64, not proved; None where no fixed point was reached.
    """
    if function is None and isinstance(activation, Slopes):
        return None
    rng = np.random.default_rng(seed)

    def norm_at(x: Array) -> float:
        z = fixed_point(weight, inputs @ x + bias, activation, function)
        if z is None:
            return -1.0
        slope = _derivative(weight @ z + inputs @ x + bias, activation, function)
        try:
            response = np.linalg.solve(np.eye(len(z)) - slope @ weight, slope @ inputs)
        except np.linalg.LinAlgError:
            return -1.0
        return float(np.linalg.norm(output @ response, 2))

    size = 1.0 + float(np.linalg.norm(bias)) / max(float(np.linalg.norm(inputs, 2)), 1e-300)
    best, at = -1.0, np.zeros(inputs.shape[1])
    for k in range(samples + climbs):
        spread = size * 4.0 ** rng.uniform(-1, 2)
        start = 0.0 if k < samples else 1.0
        x = start * at + spread * rng.standard_normal(len(at))
        value = norm_at(x)
        if value > best:
            best, at = value, x
    return None if best < 0.0 else best


def _apply(z: Array, activation: Slopes | GroupSort, function: Function | None) -> Array:
    if function is not None:
        return function.value(z)
    assert isinstance(activation, GroupSort)
    groups = np.sort(z.reshape(-1, activation.size), axis=1)
    return (groups[:, ::-1] if activation.descending else groups).reshape(-1)


def _derivative(z: Array, activation: Slopes | GroupSort, function: Function | None) -> Array:
    """Return the Jacobian of phi, a diagonal or a permutation matrix."""
    if function is not None:
        return np.diag(function.derivative(z))
    assert isinstance(activation, GroupSort)
    order = np.argsort(z.reshape(-1, activation.size), axis=1)
    order = order[:, ::-1] if activation.descending else order
    first = activation.size * np.arange(len(order))[:, None]
    return np.asarray(np.eye(z.size)[(first + order).reshape(-1)])
