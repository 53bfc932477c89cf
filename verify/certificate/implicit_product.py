r"""The naive bound of an implicit layer z = phi(W z + U x + b), y = C z, as a witness.

Where :math:`m\,|W| < 1`, m the constant of phi, the layer has one z for each x by Banach's theorem,
and for differences :math:`|dz| \le m(|W||dz| + |U||dx|)`, so that

.. math:: |dy| \le \frac{|C|\,m\,|U|}{1 - m|W|}\,|dx|.

The norms are proved in float64, the rest is done in rationals.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.product import norm_is_at_most

__all__ = ["ImplicitProductWitness", "check_implicit_product"]


@dataclass(frozen=True, eq=False)
class ImplicitProductWitness:
    """Bounds of the norms of W, U and C; nothing in it is trusted.

    Parameters
    ----------
    bound : float
        The claim: x -> y is `bound`-Lipschitz in l2.
    norms : tuple of three floats
        Of W, U and C.
    """

    norm: ClassVar[str] = "2"
    output: ClassVar[str] = "2"
    margin: ClassVar[tuple[int, ...]] = ()

    bound: float
    norms: tuple[float, float, float]


def check_implicit_product(
    weight: Matrix,
    inputs: Matrix,
    output: Matrix,
    activation: Slopes | GroupSort,
    witness: ImplicitProductWitness,
) -> float:
    """Prove the claim of a witness from the weights alone; arguments as `check_implicit` takes.

    Raises
    ------
    NotProvedError
        If a norm is not proved, the layer is no contraction, or the bound is too small.

    Examples
    --------
    >>> half, one = Matrix(np.array([[0.5]])), Matrix(np.array([[1.0]]))
    >>> witness = ImplicitProductWitness(2.1, (0.501, 1.001, 1.001))
    >>> check_implicit_product(half, one, one, Slopes(0.0, 1.0), witness)
    2.1
    """
    n = weight.shape[0]
    if weight.shape[1] != n or inputs.shape[0] != n or output.shape[1] != n:
        raise NotProvedError("W, U and C do not fit together")
    for number in (witness.bound, *witness.norms):
        if not (isinstance(number, float) and math.isfinite(number) and number >= 0):
            raise NotProvedError(f"{number!r} is not a finite number from 0")
    parts = zip("WUC", (weight, inputs, output), witness.norms, strict=True)
    with np.errstate(all="ignore"):  # what overflows is refused, not warned of
        for name, part, norm in parts:
            if not norm_is_at_most(Matrix.of(part, name=name), norm):
                raise NotProvedError(f"the norm of {name} is not proved to be {norm!r}")
    w, u, c = (Fraction(norm) for norm in witness.norms)
    slope = Fraction(activation.lipschitz())
    if slope * w >= 1:
        raise NotProvedError("the fixed point (contraction): |W| Lip(phi) is not below 1")
    if c * slope * u > Fraction(witness.bound) * (1 - slope * w):
        raise NotProvedError(f"the norms prove no bound of {witness.bound!r}")
    return witness.bound
