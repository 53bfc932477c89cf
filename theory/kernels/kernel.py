"""What a kernel is to those who use one, and how other people's kernels become one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tangency.models.errors import InputError

__all__ = ["CallableKernel", "Get", "Gram", "Kernel", "as_kernel", "selected", "wanted"]

Array = np.ndarray[Any, Any]
Get = str | tuple[str, ...]

KINDS = ("nngp", "ntk")


@dataclass(frozen=True, eq=False)
class Gram:
    """Kernel values between two batches, or on the diagonal of one.

    Attributes
    ----------
    nngp, ntk : array (n1, n2), or (n,) for a diagonal, or None
        None for what was not asked for.
    symmetric : bool
        Whether both batches are one: the arrays are then equal to their transposes bit by bit.
    """

    nngp: Array | None
    ntk: Array | None
    symmetric: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the entries."""
        array = self.ntk if self.nngp is None else self.nngp
        assert array is not None
        dtype: np.dtype[Any] = array.dtype
        return dtype


@runtime_checkable
class Kernel(Protocol):
    """A function of pairs of samples."""

    def __call__(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Any:
        """A Gram; for a ``get`` of one name, the array alone. ``x2=None`` means ``x1``."""

    def diagonal(self, x: Any, *, get: Get = KINDS) -> Any:
        """The same for each sample with itself, ``(n,)``."""


def wanted(get: Get) -> tuple[str, ...]:
    """The names asked for; InputError for an unknown one."""
    names = (get,) if isinstance(get, str) else tuple(get)
    if not names or any(name not in KINDS for name in names):
        raise InputError(f"get = {get!r}: it is 'nngp', 'ntk' or a tuple of both")
    return names


def selected(gram: Gram, get: Get) -> Any:
    """The Gram, or the array alone where ``get`` is one name."""
    return getattr(gram, get) if isinstance(get, str) else gram


@dataclass(frozen=True)
class CallableKernel:
    """A function ``(x1, x2) -> (n1, n2) array`` as a kernel: its one kind stands for either."""

    function: Callable[[Any, Any], Any]

    def __call__(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Any:
        """The function's array, under the one name asked for."""
        names = wanted(get)
        if len(names) > 1:
            raise InputError("a plain function is one kernel: ask for get='nngp' or get='ntk'")
        array = np.asarray(self.function(x1, x1 if x2 is None else x2))
        if array.shape != (len(x1), len(x1 if x2 is None else x2)):
            raise InputError(f"the kernel function returned an array of shape {array.shape}")
        if x2 is None:
            array = (array + array.T) / 2
        return selected(_gram(names[0], array, symmetric=x2 is None), get)

    def diagonal(self, x: Any, *, get: Get = KINDS) -> Any:
        """The function's value of each sample with itself."""
        names = wanted(get)
        if len(names) > 1:
            raise InputError("a plain function is one kernel: ask for get='nngp' or get='ntk'")
        rows = [np.asarray(self.function(x[i : i + 1], x[i : i + 1])) for i in range(len(x))]
        array = np.array([r.reshape(()) for r in rows])
        return selected(_gram(names[0], array), get)


def _gram(name: str, array: Array, *, symmetric: bool = False) -> Gram:
    nngp, ntk = (array, None) if name == "nngp" else (None, array)
    return Gram(nngp, ntk, symmetric)


def as_kernel(kernel: Any) -> Kernel:
    """Anything that can serve as a kernel, as one.

    Parameters
    ----------
    kernel : Kernel, neural-tangents ``kernel_fn``, or callable (x1, x2) -> array

    Raises
    ------
    InputError
        If it is none of these; of a model or of layers, which have kernels, it says how to get one.
    """
    from tangency.models.network import Network
    from tangency.theory.kernels.guest import GuestKernel, is_guest
    from tangency.theory.kernels.layers import Layer

    if isinstance(kernel, Kernel):
        return kernel
    kind = type(kernel).__name__
    parts = kernel if isinstance(kernel, list | tuple) else [kernel]
    if parts and all(isinstance(part, Layer) for part in parts):
        raise InputError(f"{kind} is layers and no kernel: give infinite_kernel(layers)")
    if isinstance(kernel, Network):
        raise InputError(f"{kind} is no kernel: {_OF_MODELS}")
    if not callable(kernel):
        raise InputError(
            f"{kind} is no kernel: give one of tangency, a kernel_fn of neural-tangents or a "
            "function (x1, x2) -> array"
        )
    if is_guest(kernel):
        return GuestKernel(kernel)
    try:
        inspect.signature(getattr(kernel, "forward", kernel)).bind(None, None)
    except ValueError:  # it does not say what it takes
        pass
    except TypeError:
        raise InputError(f"{kind} takes no two batches and is no kernel: {_OF_MODELS}") from None
    return CallableKernel(kernel)


# A model has more than one kernel, and only the user knows which of them is meant.
_OF_MODELS = (
    "of a model, infinite_kernel(network) is the kernel of its architecture in the limit of "
    "infinite width (from_torch and from_jax make a Network of it); that of its weights, "
    "empirical_ntk(model, x), is an array"
)
