"""Lipschitz constants of networks: certified upper bounds and lower bounds by attack.

Importing this package needs NumPy alone; what works on a Network is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from tangency.verify.certificate.layers import GroupSort, Householder, Residual, Slopes
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.chain.chain import Chain, Function
from tangency.verify.lipschitz.attack import attack
from tangency.verify.lipschitz.bound import bound_chain
from tangency.verify.lipschitz.lipsdp import lipsdp_witness
from tangency.verify.lipschitz.product import product_bound
from tangency.verify.result import LipschitzBound

if TYPE_CHECKING:
    from tangency.verify.chain.networks import chain_of
    from tangency.verify.lipschitz.implicit import implicit_bound
    from tangency.verify.lipschitz.network import lipschitz_bound

__all__ = [
    "Chain",
    "Function",
    "GroupSort",
    "Householder",
    "LipschitzBound",
    "Matrix",
    "Residual",
    "Slopes",
    "attack",
    "bound_chain",
    "chain_of",
    "implicit_bound",
    "lipschitz_bound",
    "lipsdp_witness",
    "product_bound",
]


def __getattr__(name: str) -> Any:
    """Import what needs the Network when it is first asked for."""
    homes = {
        "chain_of": "chain.networks",
        "implicit_bound": "lipschitz.implicit",
        "lipschitz_bound": "lipschitz.network",
    }
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tangency.verify.{homes[name]}"), name)
