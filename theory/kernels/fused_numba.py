"""How the fused kernels are compiled: without the interpreter lock, kept on disk, FMA allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.extending import overload

__all__ = ["chosen", "compiled"]

F = TypeVar("F", bound=Callable[..., Any])

# Contraction to fused multiply-adds alone: sums are not reordered, NaN stays NaN.
_FAST = {"contract"}


def compiled(function: F) -> F:
    """Compile a function at its first call."""
    made: F = njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)(function)
    return made


def chosen(stub: Callable[..., Any]) -> Callable[[F], F]:
    """Mark a function of types as the one that chooses an implementation of ``stub``.

    It is inlined where it is called: a call inside a loop would keep it from being vectorised.
    """

    def mark(function: F) -> F:
        made: F = overload(stub, inline="always", jit_options={"fastmath": _FAST})(function)
        return made

    return mark
