"""neural-tangents as a guest: its kernel functions as kernels, its analytic half importable.

The package is archived and imports on no JAX since 0.6. Installed without its dependencies
(``pip install --no-deps neural-tangents frozendict``), its ``stax`` and ``predict`` still
run once the names that JAX has since removed are given back and the parts that need TensorFlow or
JAX's internals are left out.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, util
from typing import Any

import numpy as np

from tangency.models.errors import InputError, MissingPackageError
from tangency.theory.kernels.kernel import KINDS, Get, Gram, selected, wanted

__all__ = ["GuestKernel", "import_neural_tangents", "is_guest"]


def is_guest(kernel: Callable[..., Any]) -> bool:
    """Whether a callable has the signature ``kernel_fn(x1, x2, get)`` of neural-tangents."""
    try:
        names = list(inspect.signature(kernel).parameters)
    except (TypeError, ValueError):
        return False
    return "get" in names and len(names) >= 3


@dataclass(frozen=True)
class GuestKernel:
    """A ``kernel_fn`` of neural-tangents as a kernel.

    Its numbers are passed on as they are, but for symmetry: with ``x2=None`` the matrix is the
    mean of itself and its transpose.
    """

    kernel_fn: Callable[..., Any]

    def __call__(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Any:
        """The Gram that the kernel_fn gives, as NumPy arrays."""
        names = wanted(get)
        arrays = self._arrays(x1, x2, names)
        for name, array in arrays.items():
            if array.ndim != 2:
                raise InputError(f"the kernel_fn's {name} has shape {array.shape}, not (n1, n2)")
            if x2 is None:
                arrays[name] = (array + array.T) / 2
        gram = Gram(arrays.get("nngp"), arrays.get("ntk"), symmetric=x2 is None)
        return selected(gram, get)

    def diagonal(self, x: Any, *, get: Get = KINDS) -> Any:
        """The kernel of each sample with itself."""
        names = wanted(get)
        rows = [self._arrays(x[i : i + 1], None, names) for i in range(len(x))]
        joined = {name: np.array([row[name].reshape(()) for row in rows]) for name in names}
        return selected(Gram(joined.get("nngp"), joined.get("ntk")), get)

    def _arrays(self, x1: Any, x2: Any, names: tuple[str, ...]) -> dict[str, Any]:
        result = self.kernel_fn(x1, x2, names)
        return {name: np.asarray(getattr(result, name)) for name in names}


#: Names that the guest takes from ``jax.core`` and that have moved to JAX's extension modules.
_CORE = ("Jaxpr", "JaxprEqn", "Literal", "Value", "Var", "Primitive", "ShapedArray", "eval_context")


def import_neural_tangents() -> types.ModuleType:
    """Import neural-tangents' analytic half on the JAX that is installed.

    Returns
    -------
    module
        ``neural_tangents`` with ``stax`` and ``predict``, and ``empirical`` left out where this
        JAX no longer has what it is built on.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    if "neural_tangents" in sys.modules:
        return sys.modules["neural_tangents"]
    if util.find_spec("neural_tangents") is None or util.find_spec("frozendict") is None:
        raise MissingPackageError(
            "neural-tangents is not installed: pip install --no-deps neural-tangents frozendict"
        )
    before = set(sys.modules)
    _give_back_names()
    for name in ("neural_tangents.experimental", "neural_tangents._src.empirical"):
        sys.modules[name] = _Hollow(name)
    try:
        return import_module("neural_tangents")
    except BaseException:
        for name in set(sys.modules) - before:
            if name.startswith("neural_tangents"):
                del sys.modules[name]
        raise


class _Hollow(types.ModuleType):
    """A module that has every name, none of which does anything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def left_out(*args: Any, **options: Any) -> Any:
            raise InputError(
                f"{self.__name__}.{name} is left out on this JAX: use tangency's empirical_ntk"
            )

        return left_out


def _give_back_names() -> None:
    """Restore what JAX has moved, where it is missing and where it still exists."""
    import jax

    inner = import_module("jax._src.core")
    for name in _CORE:
        if name not in vars(jax.core) and hasattr(inner, name):
            setattr(jax.core, name, getattr(inner, name))
    if "jax.util" not in sys.modules:
        try:
            import_module("jax.util")
        except ImportError:
            moved = import_module("jax._src.util")
            sys.modules["jax.util"] = moved
            jax.util = moved  # type: ignore[attr-defined]
