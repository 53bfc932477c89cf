"""How alike two kernel matrices are: alignment, its centred form, and alignment with labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.arrays import real_array
from tangency.models.errors import InputError

__all__ = ["alignment", "centred_alignment", "label_kernel"]


def alignment(one: Any, other: Any) -> float:
    """``<A, B> / (|A| |B|)`` in the Frobenius inner product; in [0, 1] for kernels.

    Parameters
    ----------
    one, other : (n, n) arrays

    Raises
    ------
    InputError
        For matrices of different shape.

    References
    ----------
    Cristianini, Shawe-Taylor, Elisseeff, Kandola, "On kernel-target alignment", NIPS 2001.
    """
    a, b = (
        real_array(name, v).astype(np.float64, copy=False)
        for name, v in (("one", one), ("other", other))
    )
    if a.shape != b.shape or a.ndim != 2:
        raise InputError(f"kernels of shape {a.shape} and {b.shape}: two equal matrices are taken")
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / norm if norm else 0.0


def centred_alignment(one: Any, other: Any) -> float:
    """Alignment of the kernels of centred features (CKA); a constant added to a kernel is nothing.

    References
    ----------
    Kornblith, Norouzi, Lee, Hinton, arXiv 1905.00414, section 3; Cortes, Mohri, Rostamizadeh,
    arXiv 1203.0550.
    """
    return alignment(_centred(one), _centred(other))


def label_kernel(y: Any, n: int) -> np.ndarray:
    """``Y Y^T`` (n, n) of targets: labels become one-hot rows.

    Parameters
    ----------
    y : (n,) integers, or (n,) or (n, m) floating-point targets

    Raises
    ------
    InputError
        For another number of targets, or entries that are not finite.
    """
    y = np.asarray(y)
    if y.ndim not in (1, 2) or len(y) != n:
        raise InputError(f"targets of shape {y.shape}: ({n},) or ({n}, m) is accepted")
    if y.dtype.kind in "iub" and y.ndim == 1:
        y = (y[:, None] == np.unique(y)).astype(np.float64)
    y = y.reshape(n, -1).astype(np.float64)
    if not np.isfinite(y).all():
        raise InputError("the targets have a NaN or infinite entry")
    return np.asarray(y @ y.T)


def _centred(kernel: Any) -> np.ndarray:
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise InputError(f"a kernel of shape {kernel.shape} is not square, so has no centred form")
    rows = kernel - kernel.mean(0)
    return np.asarray(rows - rows.mean(1, keepdims=True))
