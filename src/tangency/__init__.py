"""tangency: tangent kernels, Lipschitz certificates and output bounds of neural networks.

>>> import numpy as np, tangency
>>> network = tangency.from_layers([np.eye(2), np.ones((1, 2))], "maxmin")
>>> bound = tangency.lipschitz_bound(network)
>>> bool(bound.lower <= 2**0.5 <= bound.upper), bound.certified
(True, True)

Every public name is imported when it is first used, so that ``import tangency`` is immediate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tangency._version import __version__

if TYPE_CHECKING:
    from tangency.models import InputError as InputError
    from tangency.models import Network as Network
    from tangency.models import TangencyError as TangencyError
    from tangency.models import UnsupportedError as UnsupportedError
    from tangency.models import from_jax as from_jax
    from tangency.models import from_layers as from_layers
    from tangency.models import from_mat as from_mat
    from tangency.models import from_onnx as from_onnx
    from tangency.models import from_torch as from_torch
    from tangency.models import load as load
    from tangency.models.errors import NotProvedError as NotProvedError
    from tangency.theory import empirical_ntk as empirical_ntk
    from tangency.verify import Ball as Ball
    from tangency.verify import Box as Box
    from tangency.verify import Certificate as Certificate
    from tangency.verify import bound as bound
    from tangency.verify import certify_monotone as certify_monotone
    from tangency.verify import certify_robust as certify_robust
    from tangency.verify import check as check
    from tangency.verify import jacobian_bounds as jacobian_bounds
    from tangency.verify import lipschitz_bound as lipschitz_bound
    from tangency.verify import local_lipschitz as local_lipschitz
    from tangency.verify import write_certificate as write_certificate

_HOMES = {
    "Ball": "tangency.verify",
    "Box": "tangency.verify",
    "Certificate": "tangency.verify",
    "InputError": "tangency.models",
    "Network": "tangency.models",
    "NotProvedError": "tangency.models.errors",
    "TangencyError": "tangency.models",
    "UnsupportedError": "tangency.models",
    "bound": "tangency.verify",
    "certify_monotone": "tangency.verify",
    "certify_robust": "tangency.verify",
    "check": "tangency.verify",
    "empirical_ntk": "tangency.theory",
    "from_jax": "tangency.models",
    "from_layers": "tangency.models",
    "from_mat": "tangency.models",
    "from_onnx": "tangency.models",
    "from_torch": "tangency.models",
    "jacobian_bounds": "tangency.verify",
    "lipschitz_bound": "tangency.verify",
    "load": "tangency.models",
    "local_lipschitz": "tangency.verify",
    "write_certificate": "tangency.verify",
}

__all__ = [
    "Ball",
    "Box",
    "Certificate",
    "InputError",
    "Network",
    "NotProvedError",
    "TangencyError",
    "UnsupportedError",
    "__version__",
    "bound",
    "certify_monotone",
    "certify_robust",
    "check",
    "empirical_ntk",
    "from_jax",
    "from_layers",
    "from_mat",
    "from_onnx",
    "from_torch",
    "jacobian_bounds",
    "lipschitz_bound",
    "load",
    "local_lipschitz",
    "write_certificate",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its room when it is first asked for."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in ("models", "theory", "verify", "gpu"):
        return import_module(f"tangency.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "gpu", "models", "theory", "verify"})
