"""Bounds of a network's Jacobian over a box, and what follows from them."""

from tangency.verify.jacobian.bounds import JACOBIAN_METHODS, JacobianBounds, jacobian_bounds
from tangency.verify.jacobian.lipschitz import LocalLipschitz, local_lipschitz
from tangency.verify.jacobian.monotone import Monotonicity, certify_monotone

__all__ = [
    "JACOBIAN_METHODS",
    "JacobianBounds",
    "LocalLipschitz",
    "Monotonicity",
    "certify_monotone",
    "jacobian_bounds",
    "local_lipschitz",
]
