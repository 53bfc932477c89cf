"""Checks of arrays that users give: one clear error instead of a silent cast or copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["check_array", "real_array"]


def check_array(name: str, x: Any, *, dtype: str | None = None, finite: bool = False) -> None:
    """Refuse what is not a real floating-point array laid out in row-major order.

    Parameters
    ----------
    name : str
        What the array is, for the message.
    x : object
        A NumPy or JAX array is accepted.
    dtype : {"float32", "float64"}, optional
        The dtype of the network: an array of more precision is refused, of less is not, as it
        widens without loss.
    finite : bool
        Refuse NaN and infinity too.

    Raises
    ------
    InputError
        Naming the array, what it is and what is accepted.
    """
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise InputError(f"{name} is a {type(x).__name__}: give a NumPy or JAX array")
    kind = str(x.dtype)
    if kind.startswith("torch."):
        raise InputError(f"{name} is a torch tensor: give it as x.detach().cpu().numpy()")
    if kind not in ("float32", "float64"):
        raise InputError(f"{name} is {kind}: give float32 or float64, as x.astype('float32')")
    if dtype == "float32" and kind == "float64":
        raise InputError(
            f"{name} is float64 and the network float32: give x.astype('float32'), "
            "or take network.astype('float64')"
        )
    if isinstance(x, np.ndarray):
        if not x.flags.c_contiguous:
            raise InputError(f"{name} is not contiguous: give numpy.ascontiguousarray(x)")
        if finite and not np.isfinite(x).all():
            raise InputError(f"{name} has a NaN or infinite entry")


def real_array(name: str, x: Any) -> Any:
    """Real numbers of any dtype and layout as a NumPy array, a memory map as a view of it.

    Raises
    ------
    InputError
        Naming what it is: an object or text, complex numbers, a tensor that requires a gradient.
    """
    try:
        array = np.asarray(x)
    except Exception as error:  # whatever a class raises that says it were an array
        reason = " ".join(str(error).split())
        raise InputError(f"{name} is a {type(x).__name__} and no array: {reason}") from None
    if array.dtype.kind not in "fiub" and not np.can_cast(array.dtype, np.float64):  # bfloat16 may
        what = array.dtype if hasattr(x, "ndim") else f"a {type(x).__name__}"
        raise InputError(f"{name} is {what}: an array of real numbers is needed")
    return array
