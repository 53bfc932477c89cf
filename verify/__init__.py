"""Verification of networks: output bounds, Lipschitz constants, certificates.

Importing this package needs NumPy alone; cvxpy, SCS and JAX are imported by what uses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ != "tangency.verify":  # the folder was imported by its bare name from the checkout
    raise ImportError("this folder is the package tangency.verify: pip install -e . and import it")

if TYPE_CHECKING:
    from tangency.verify.bounds import Bounds as Bounds
    from tangency.verify.bounds import Box as Box
    from tangency.verify.bounds import Robustness as Robustness
    from tangency.verify.bounds import bound as bound
    from tangency.verify.bounds import certify_robust as certify_robust
    from tangency.verify.bounds import margins as margins
    from tangency.verify.lipschitz import LipschitzBound as LipschitzBound
    from tangency.verify.lipschitz import lipschitz_bound as lipschitz_bound

_HOMES = {
    "Bounds": "bounds",
    "Box": "bounds",
    "LipschitzBound": "lipschitz",
    "Robustness": "bounds",
    "bound": "bounds",
    "certify_robust": "bounds",
    "lipschitz_bound": "lipschitz",
    "margins": "bounds",
}

__all__ = [
    "Bounds",
    "Box",
    "LipschitzBound",
    "Robustness",
    "bound",
    "certify_robust",
    "lipschitz_bound",
    "margins",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tangency.verify.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
