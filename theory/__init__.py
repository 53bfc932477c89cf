"""Theory of networks: tangent kernels and what they predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ != "tangency.theory":  # the folder was imported by its bare name from the checkout
    raise ImportError("this folder is the package tangency.theory: pip install -e . and import it")

if TYPE_CHECKING:
    from tangency.theory.ntk import EmpiricalNTK as EmpiricalNTK
    from tangency.theory.ntk import empirical_ntk as empirical_ntk

__all__ = ["EmpiricalNTK", "empirical_ntk"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tangency.theory import ntk

    return getattr(ntk, name)
