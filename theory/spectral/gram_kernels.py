"""Kernels as functions of Gram matrices, in JAX: what deep kernel machines differentiate.

References
----------
Cho and Saul, "Kernel Methods for Deep Learning", NIPS 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["GRAM_KERNELS"]

# Cosines beyond 1 - _EDGE are held there: arccos has no slope at 1.
_EDGE = 1e-9


def _relu(left: Any, right: Any, cross: Any) -> Any:
    """``2 E[relu(u) relu(v)]``: the diagonal is kept."""
    import jax.numpy as jnp

    scale = jnp.sqrt(left[:, None] * right[None, :])
    cos = jnp.clip(cross / scale, -1.0 + _EDGE, 1.0 - _EDGE)
    theta = jnp.arccos(cos)
    return scale * (jnp.sqrt(1.0 - cos**2) + (jnp.pi - theta) * cos) / jnp.pi


def _squared_exponential(left: Any, right: Any, cross: Any) -> Any:
    """``exp(-|x - x'|^2 / 2)``."""
    import jax.numpy as jnp

    return jnp.exp(cross - (left[:, None] + right[None, :]) / 2.0)


def _linear(left: Any, right: Any, cross: Any) -> Any:
    """The Gram matrix itself."""
    return cross


GRAM_KERNELS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "relu": _relu,
    "squared exponential": _squared_exponential,
    "linear": _linear,
}
"""Name -> K(diagonal of x, diagonal of x', Gram matrix of x by x')."""
