"""Lipschitz constants of networks: certified upper bounds and lower bounds by attack.

Importing this package needs NumPy alone; what works on a Network is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from tangency.verify.certificate.layers import GroupSort, Householder, Residual, Slopes
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.lipschitz.attack import attack
from tangency.verify.lipschitz.bound import bound_chain
from tangency.verify.lipschitz.chain import Chain, Function
from tangency.verify.lipschitz.lipsdp import lipsdp_witness
from tangency.verify.lipschitz.product import product_bound
from tangency.verify.lipschitz.result import LipschitzBound

if TYPE_CHECKING:
    from tangency.verify.lipschitz.implicit import implicit_bound
    from tangency.verify.lipschitz.network import chain_of, lipschitz_bound

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
    if name == "implicit_bound":
        from tangency.verify.lipschitz.implicit import implicit_bound

        return implicit_bound
    if name not in ("chain_of", "lipschitz_bound"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tangency.verify.lipschitz import network

    return getattr(network, name)
