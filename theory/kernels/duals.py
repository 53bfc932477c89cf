"""The dual of an activation: the closed form where there is one, a Hermite series elsewhere.

>>> dual_of("relu").pair(1.0, 1.0, 0.0).k.round(6)
np.float64(0.159155)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from tangency.models.activations import Activation, get
from tangency.models.activations.registry import is_of_catalogue
from tangency.models.errors import UnsupportedError
from tangency.theory.kernels.duals_base import DualFunction, DualPair
from tangency.theory.kernels.duals_exponential import (
    Bell,
    Exponential,
    Gabor,
    NormalisedExponential,
    Wave,
)
from tangency.theory.kernels.duals_gaussian_cdf import Erf, Gelu
from tangency.theory.kernels.duals_hermite import Hermite
from tangency.theory.kernels.duals_rectified import Rectified
from tangency.theory.kernels.duals_series import Polynomial, hermite_polynomial

__all__ = [
    "CLOSED_FORMS",
    "Bell",
    "DualFunction",
    "DualPair",
    "Erf",
    "Exponential",
    "Gabor",
    "Gelu",
    "Hermite",
    "NormalisedExponential",
    "Polynomial",
    "Rectified",
    "Wave",
    "dual_of",
    "hermite_polynomial",
]

Params = Mapping[str, Any]
Maker = Callable[[Activation, Params], DualFunction | None]


def _leaky(key: str) -> Maker:
    return lambda r, p: Rectified(r, 1, float(p[key]), 1.0)


def _power(r: Activation, p: Params) -> DualFunction | None:
    n = int(p["n"])
    return Polynomial(r, (*(0.0 for _ in range(n)), 1.0)) if n >= 0 else None


def _polyrelu(r: Activation, p: Params) -> DualFunction | None:
    terms = [(i, c) for i, c in enumerate(p["coefficients"]) if c]
    return Rectified(r, terms[0][0], 0.0, float(terms[0][1])) if len(terms) == 1 else None


CLOSED_FORMS: dict[str, Maker] = {
    "relu": lambda r, p: Rectified(r, 1, 0.0, 1.0),
    "helu": lambda r, p: Rectified(r, 1, 0.0, 1.0),
    "leaky_relu": _leaky("negative_slope"),
    "prelu": _leaky("slope"),
    "abs": lambda r, p: Rectified(r, 1, -1.0, 1.0),
    "relu_squared": lambda r, p: Rectified(r, 2, 0.0, 1.0),
    "sign": lambda r, p: Rectified(r, 0, -1.0, 1.0),
    "heaviside": lambda r, p: Rectified(r, 0, 0.0, 1.0),
    "erf": lambda r, p: Erf(r),
    "gelu": lambda r, p: Gelu(r),
    "sin": lambda r, p: Wave(r),
    "cos": lambda r, p: Wave(r, 1.0, 1.0, math.pi / 2.0),
    "sine": lambda r, p: Wave(r, 1.0, float(p["omega"])),
    "exp": lambda r, p: Exponential(r),
    "gaussian": lambda r, p: Bell(r, 1.0, -0.5),
    "identity": lambda r, p: Polynomial(r),
    "square": lambda r, p: Polynomial(r, (0.0, 0.0, 1.0)),
    "cube": lambda r, p: Polynomial(r, (0.0, 0.0, 0.0, 1.0)),
    "power": _power,
    "hermite3": lambda r, p: Polynomial(r, (0.0, -3.0, 0.0, 1.0)),
}
"""Makers of closed forms by the name of the catalogue's record."""


def dual_of(activation: Any) -> DualFunction:
    """The dual function of an activation.

    Parameters
    ----------
    activation : Activation, str, an op with an ``activation``, or DualFunction
        A record of the catalogue or of the user's own (name and value suffice), a name of the
        catalogue, or a layer of a Network. A DualFunction is returned as it is.

    Returns
    -------
    DualFunction
        In closed form where there is one; else a Hermite series with an error estimate.

    Raises
    ------
    InputError
        If the activation has no Gaussian moments.
    UnsupportedError
        If it is no function of one variable, the same for all neurons.
    """
    if isinstance(activation, DualFunction):
        return activation
    if isinstance(activation, str):
        activation = get(activation)
    record = activation if isinstance(activation, Activation) else None
    if record is None:
        record = getattr(activation, "activation", None)
    if not isinstance(record, Activation):
        raise UnsupportedError(
            f"{type(activation).__name__} has no dual: an Activation record, the name of one or "
            "an activation layer is needed"
        )
    return _dual_of(record)


@functools.lru_cache(maxsize=512)
def _dual_of(record: Activation) -> DualFunction:
    maker = CLOSED_FORMS.get(record.name)
    if maker is not None and is_of_catalogue(record):
        closed = maker(record, dict(record.params))
        if closed is not None:
            return closed
    return Hermite(record)
