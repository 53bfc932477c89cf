r"""The product of norms as a witness: one number a layer, each proved by itself.

.. math:: L \le \prod_k s_k\,\mathrm{Lip}(\varphi_k), \qquad s_k^2 I - W_kW_k^T \succ 0,

with :math:`1 + \|G_k\|\,s_k\,\mathrm{Lip}(\varphi_k)` for a residual block. Other norms than l2
cost what they differ from it: the roots of n_0 for l-infinity of the input, of n_l for l1 of the
output, of 2 for a margin.

The constants of the activations come from the model, and the product is taken in rationals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.definite import is_positive_definite
from tangency.verify.certificate.directed import (
    difference,
    down,
    multiply_down,
    product,
    row_sums_up,
)
from tangency.verify.certificate.layers import Activation, Residual, output_width
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.certificate.norms import scale_exponent, spectral_norm_bound

__all__ = [
    "ProductWitness",
    "check_product",
    "exact_square",
    "norm_is_at_most",
    "require_product",
]

_LARGEST = 10**6  # entries whose squares are summed in Python's integers


@dataclass(frozen=True, eq=False)
class ProductWitness:
    """Bounds of the layers' spectral norms; nothing in it is trusted.

    Parameters
    ----------
    bound : float
        The claim: the chain is `bound`-Lipschitz from the norm of the input to that of the output.
    norms : tuple of float, length l
        s_1, ..., s_l.
    norm, output, margin
        As in `ChainWitness`.
    """

    bound: float
    norms: tuple[float, ...]
    norm: str = "2"
    output: str = "2"
    margin: tuple[int, ...] = ()


def check_product(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ProductWitness
) -> float:
    """Prove the claim of a product of norms from the weights alone.

    Parameters
    ----------
    weights : sequence of l (n_k, n_{k-1}) Matrix
    activations : sequence of l - 1 activations
    witness : ProductWitness

    Returns
    -------
    float
        The proved bound, which is the witness's.

    Raises
    ------
    NotProvedError
        If a norm cannot be proved, naming the layer, or their product exceeds the bound.

    Examples
    --------
    >>> check_product([Matrix(np.array([[3.0], [4.0]]))], [], ProductWitness(5.1, (5.1,)))
    5.1
    """
    require_product(weights, activations, witness)
    with np.errstate(all="ignore"):
        for k, (weight, norm) in enumerate(zip(weights, witness.norms, strict=True)):
            if not norm_is_at_most(Matrix.of(weight), norm):
                raise NotProvedError(f"layer {k + 1}: its norm is not proved to be {norm!r}")
    return witness.bound


def require_product(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ProductWitness
) -> None:
    """Prove that the bound is no less than the product, if the norms hold."""
    count = len(weights)
    if count == 0 or len(activations) != count - 1 or len(witness.norms) != count:
        raise NotProvedError(f"{len(witness.norms)} norms are no witness for {count} layers")
    for k in range(1, count):
        if weights[k].shape[1] != output_width(activations[k - 1], weights[k - 1]):
            raise NotProvedError(f"layer {k + 1} does not fit layer {k}")
    for number in (witness.bound, *witness.norms):
        if not (isinstance(number, float) and math.isfinite(number) and number >= 0):
            raise NotProvedError(f"{number!r} is not a finite number from 0")
    total = Fraction(witness.norms[-1])
    for activation, norm in zip(activations, witness.norms[:-1], strict=True):
        total *= _factor(activation, Fraction(norm))
    square = total**2 * _change(witness, weights[0].shape[1], weights[-1].shape[0])
    if Fraction(witness.bound) ** 2 < square:
        raise NotProvedError(f"the product of the norms exceeds the bound {witness.bound!r}")


def _change(witness: ProductWitness, n: int, m: int) -> int:
    """Return the square of what the norms of n inputs and m outputs cost against l2."""
    margin = witness.margin
    if witness.norm not in ("1", "2", "inf") or witness.output not in ("1", "2", "inf", "margin"):
        raise NotProvedError(f"unknown norms {witness.norm!r} and {witness.output!r}")
    if len(margin) != (2 if witness.output == "margin" else 0):
        raise NotProvedError("the margin does not fit the output")
    if not all(0 <= i < m for i in margin):
        raise NotProvedError(f"the margin is not two of {m} outputs")
    # |x|_2 <= |x|_1 and |y|_inf <= |y|_2 cost nothing.
    return (n if witness.norm == "inf" else 1) * {"1": m, "margin": 2}.get(witness.output, 1)


def _factor(activation: Activation, norm: Fraction) -> Fraction:
    """Return the constant of a layer whose weight has a norm."""
    factor = norm * Fraction(activation.lipschitz())
    if not isinstance(activation, Residual):
        return factor
    if activation.output is not None:
        factor *= Fraction(spectral_norm_bound(activation.output))
    return 1 + factor


def exact_square(values: Array) -> Fraction:
    """Return the sum of the squares of an array's entries, exactly.

    Examples
    --------
    >>> exact_square(np.array([0.5, 3.0]))
    Fraction(37, 4)
    """
    mantissas, exponents = np.frexp(values[values != 0])
    if not mantissas.size:
        return Fraction(0)
    least = int(exponents.min())
    whole = np.ldexp(mantissas, 53).astype(np.int64).tolist()
    shifts = (exponents.astype(np.int64) - least).tolist()
    number = sum((m * m) << (2 * s) for m, s in zip(whole, shifts, strict=True))
    return Fraction(number) * Fraction(4) ** (least - 53)


def norm_is_at_most(weight: Matrix, norm: float) -> bool:
    """Whether the spectral norm of every matrix of an enclosure is proved to be at most a float.

    Examples
    --------
    >>> four = Matrix(np.array([[0.0, 4.0]]))
    >>> norm_is_at_most(four, 4.001), norm_is_at_most(four, 3.999)
    (True, False)
    """
    rest = norm
    if weight.radius is not None and weight.radius.any():
        rest = down(norm - spectral_norm_bound(weight.radius))
    values = weight.midpoint
    if not values.any():
        return rest >= 0.0
    exponent = scale_exponent(values)
    if not (rest > 0.0 and abs(math.frexp(rest)[1] - exponent) <= 100):  # out of proportion
        return False
    scaled = Matrix(values).scaled(-exponent)
    root = math.ldexp(rest, -exponent)
    if root < 1e-300 or math.ldexp(root, exponent) != rest:
        return False
    thin = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.transpose
    gram = product(thin, thin.transpose).mirrored()
    square = Matrix(multiply_down(root, root) * np.eye(gram.shape[0]))
    gap = difference(square, gram)
    if is_positive_definite(gap.midpoint, gap.radius):
        return True
    # What needs no eigenvalue: the norm of Frobenius, and sqrt(|W|_1 |W|_inf).
    limit = Fraction(rest) ** 2
    if values.size <= _LARGEST and exact_square(values) <= limit:
        return True
    sizes = np.abs(scaled.midpoint)
    if scaled.radius is not None:
        sizes = np.nextafter(sizes + scaled.radius, np.inf)
    rows, columns = (Fraction(float(row_sums_up(s).max())) for s in (sizes, sizes.T))
    return rows * columns <= Fraction(root) ** 2
