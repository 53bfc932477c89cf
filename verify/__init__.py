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
    from tangency.verify.checking import Certificate as Certificate
    from tangency.verify.checking import Check as Check
    from tangency.verify.checking import check as check
    from tangency.verify.checking import read_certificate as read_certificate
    from tangency.verify.checking import write_certificate as write_certificate
    from tangency.verify.lipschitz import LipschitzBound as LipschitzBound
    from tangency.verify.lipschitz import lipschitz_bound as lipschitz_bound

_HOMES = {
    "Bounds": "bounds",
    "Box": "bounds",
    "Certificate": "checking",
    "Check": "checking",
    "LipschitzBound": "lipschitz",
    "Robustness": "bounds",
    "bound": "bounds",
    "certify_robust": "bounds",
    "check": "checking",
    "lipschitz_bound": "lipschitz",
    "read_certificate": "checking",
    "write_certificate": "checking",
    "margins": "bounds",
}

__all__ = [
    "Bounds",
    "Box",
    "Certificate",
    "Check",
    "LipschitzBound",
    "Robustness",
    "bound",
    "certify_robust",
    "check",
    "lipschitz_bound",
    "margins",
    "read_certificate",
    "write_certificate",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tangency.verify.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
