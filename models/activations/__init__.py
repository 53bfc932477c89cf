"""Activation functions: one record each, with proved slope and value ranges.

``get("gelu")`` finds a record by name, ``names()`` lists them, ``register`` adds one.
"""

from tangency.models.activations.catalogue import FAMILIES
from tangency.models.activations.record import Activation
from tangency.models.activations.registry import get, names, register

__all__ = ["FAMILIES", "Activation", "get", "names", "register"]
