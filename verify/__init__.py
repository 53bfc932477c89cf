"""Verification of networks: output bounds, Lipschitz constants, certificates.

Importing this package needs NumPy alone; cvxpy, SCS and JAX are imported by what uses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ != "tangency.verify":  # the folder was imported by its bare name from the checkout
    raise ImportError("this folder is the package tangency.verify: pip install -e . and import it")

if TYPE_CHECKING:
    from tangency.verify.bounds import bound as bound
    from tangency.verify.bounds import certify_robust as certify_robust
    from tangency.verify.bounds import margins as margins
    from tangency.verify.bounds import perturbed as perturbed
    from tangency.verify.checking import Certificate as Certificate
    from tangency.verify.checking import Check as Check
    from tangency.verify.checking import check as check
    from tangency.verify.checking import read_certificate as read_certificate
    from tangency.verify.checking import write_certificate as write_certificate
    from tangency.verify.implicit_layer import ImplicitLayer as ImplicitLayer
    from tangency.verify.jacobian import JacobianBounds as JacobianBounds
    from tangency.verify.jacobian import LocalLipschitz as LocalLipschitz
    from tangency.verify.jacobian import Monotonicity as Monotonicity
    from tangency.verify.jacobian import certify_monotone as certify_monotone
    from tangency.verify.jacobian import jacobian_bounds as jacobian_bounds
    from tangency.verify.jacobian import local_lipschitz as local_lipschitz
    from tangency.verify.lipschitz import lipschitz_bound as lipschitz_bound
    from tangency.verify.lipschitz.local_result import LocalBound as LocalBound
    from tangency.verify.result import Bounds as Bounds
    from tangency.verify.result import LipschitzBound as LipschitzBound
    from tangency.verify.result import Robustness as Robustness
    from tangency.verify.sets import Ball as Ball
    from tangency.verify.sets import Box as Box

_HOMES = {
    "Ball": "sets",
    "Bounds": "result",
    "Box": "sets",
    "Certificate": "checking",
    "Check": "checking",
    "ImplicitLayer": "implicit_layer",
    "JacobianBounds": "jacobian",
    "LipschitzBound": "result",
    "LocalBound": "lipschitz.local_result",
    "LocalLipschitz": "jacobian",
    "Monotonicity": "jacobian",
    "Robustness": "result",
    "bound": "bounds",
    "certify_monotone": "jacobian",
    "certify_robust": "bounds",
    "check": "checking",
    "jacobian_bounds": "jacobian",
    "lipschitz_bound": "lipschitz",
    "local_lipschitz": "jacobian",
    "margins": "bounds",
    "perturbed": "bounds",
    "read_certificate": "checking",
    "write_certificate": "checking",
}

__all__ = [
    "Ball",
    "Bounds",
    "Box",
    "Certificate",
    "Check",
    "ImplicitLayer",
    "JacobianBounds",
    "LipschitzBound",
    "LocalBound",
    "LocalLipschitz",
    "Monotonicity",
    "Robustness",
    "bound",
    "certify_monotone",
    "certify_robust",
    "check",
    "jacobian_bounds",
    "lipschitz_bound",
    "local_lipschitz",
    "margins",
    "perturbed",
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
