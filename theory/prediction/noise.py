"""The noise floor of a Gram matrix: the smallest ridge that its precision supports.

An n x n Gram matrix whose entries carry independent relative errors e has eigenvalues that are
wrong by about ``2 e sqrt(n)`` times the mean diagonal (Wigner's semicircle: the norm of a random
symmetric matrix is twice the deviation of its entries times sqrt(n)). Below that, a spectrum, and a
ridge, say nothing.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from tangency.models.arrays import real_array
from tangency.models.errors import InputError

__all__ = ["NoiseFloorWarning", "noise_floor"]

#: Error of an entry in units of the dtype's epsilon: 4e-7 in float32, the largest error measured
#: of the recursion on 1 - cos over all depths and distances that were tried.
ULPS = 3.4


class NoiseFloorWarning(UserWarning):
    """A ridge, or the spectrum without one, lies below what the Gram's precision can tell."""


def noise_floor(gram: Any, *, error: float | None = None) -> float:
    """Noise floor of a Gram matrix's spectrum, relative to its mean diagonal.

    ``2 e sqrt(n)``, with e the relative error of an entry: the smallest relative ridge that
    means anything.

    Parameters
    ----------
    gram : (n, n) or (n, n, K, K) array
        The dtype is what counts: float16, float32 or float64 (anything else is float64).
    error : float, optional
        Relative error of an entry, by default 3.4 epsilons of the dtype: 4e-7 for float32,
        7.5e-16 for float64. Give it where the entries are worse than their dtype (3e-4 after
        a tf32 product).

    Returns
    -------
    float

    Raises
    ------
    InputError
        For an array that is not a Gram matrix, or a negative error.

    Examples
    --------
    >>> import numpy as np
    >>> round(noise_floor(np.eye(100, dtype=np.float32)), 8)
    8.11e-06
    """
    gram = gram if hasattr(gram, "ndim") else real_array("gram", gram)
    if gram.ndim not in (2, 4) or gram.shape[0] != gram.shape[1]:
        raise InputError(f"a Gram matrix is (n, n) or (n, n, K, K), this is {gram.shape}")
    if error is None:
        kind = np.dtype(gram.dtype)
        error = ULPS * float(np.finfo(kind if kind.kind == "f" else np.float64).eps)
    if not error >= 0:
        raise InputError(f"error={error}: the relative error of an entry is at least 0")
    size = gram.shape[0] * (gram.shape[2] if gram.ndim == 4 else 1)
    return 2.0 * error * math.sqrt(size)


def check_ridge(ridge: float) -> float:
    """A relative ridge as a float; refuses negative, infinite and NaN ones."""
    if not (isinstance(ridge, int | float | np.number) and 0 <= ridge < math.inf):
        raise InputError(f"ridge={ridge!r}: a number >= 0, relative to the mean diagonal")
    return float(ridge)


def warn_of_noise(ridge: float, least: float, floor: float, stacklevel: int = 3) -> None:
    """Warn where the answer rests on eigenvalues that are noise.

    A positive ridge below the floor is one that rounding drowns. With no ridge at all the user
    asked for interpolation, and what counts is the least eigenvalue (all relative to the mean
    diagonal).
    """
    advice = f"give ridge >= {1.1 * floor:.2g} or a Gram of more precision"
    if 0 < ridge < floor:
        warnings.warn(
            f"ridge={ridge:.3g} is below {floor:.3g}, the noise floor of the Gram's precision "
            f"(2 e sqrt(n)): {advice}",
            NoiseFloorWarning,
            stacklevel=stacklevel + 1,
        )
    elif ridge == 0 and least < floor:
        warnings.warn(
            f"without a ridge the answer rests on eigenvalues down to {least:.3g} of the mean "
            f"diagonal, below {floor:.3g}, the noise floor of the Gram's precision "
            f"(2 e sqrt(n)): {advice}",
            NoiseFloorWarning,
            stacklevel=stacklevel + 1,
        )
