r"""The inequalities of a witness in exact rational arithmetic, for small networks.

A second opinion on the checker in floating point: nothing is rounded here, and the inequalities are
built another way. Every layer is :math:`dy = A\,dx + B\,dw` with free coordinates :math:`u = Vx`
and slopes in [a, b] (`exact_layers`); it is proved by

.. math:: \begin{bmatrix} Q_{k-1} & 0\\ 0 & 0\end{bmatrix} - C^TQ_kC - S - S^T \succ 0, \qquad
          C = [A\ B],\quad S = [-aV\ \ I]^T\Lambda\,[bV\ \ -I].

A wide first layer takes, for the norm 2, :math:`dx = W^Tu`: what is orthogonal to the rows of W
adds :math:`\rho|dx|^2` alone.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.exact_ends import first_storage, last_storage
from tangency.verify.certificate.exact_layers import Form, form_of
from tangency.verify.certificate.layers import Activation, Residual, output_width
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.certificate.product import ProductWitness, exact_square, require_product
from tangency.verify.certificate.rationals import (
    Rational,
    flint,
    identity,
    is_definite,
    multiply,
    number,
    rational,
)
from tangency.verify.certificate.witness import ChainWitness, rows_of

__all__ = ["LARGEST", "check_exact"]

#: The most rows of a matrix that is decided exactly: about five seconds.
LARGEST = 128


def check_exact(
    weights: Sequence[Matrix],
    activations: Sequence[Activation],
    witness: ChainWitness | ProductWitness,
) -> float:
    """Prove the claim of a witness in rational arithmetic.

    Parameters
    ----------
    weights : sequence of l (n_k, n_{k-1}) Matrix
        Without radii.
    activations : sequence of l - 1 activations
    witness : ChainWitness or ProductWitness

    Returns
    -------
    float
        The proved bound, which is the witness's.

    Raises
    ------
    NotProvedError
        If an inequality does not hold; here that is a fact, not a failure of rounding.
    InputError
        If the network is too large for exact arithmetic, or its matrices are enclosures.
    MissingPackageError
        If python-flint is not installed.
    """
    flint()
    matrices = [Matrix.of(w) for w in weights]
    for k, w in enumerate(matrices):
        if w.radius is not None and w.radius.any():
            raise InputError(f"layer {k + 1}: its matrix is an enclosure, not exact in float64")
    if isinstance(witness, ProductWitness):
        require_product(matrices, activations, witness)
        for k, (w, norm) in enumerate(zip(matrices, witness.norms, strict=True)):
            if not _norm_is_at_most(w.midpoint, norm, f"layer {k + 1}"):
                raise NotProvedError(f"layer {k + 1}: its norm exceeds {norm!r}")
        return witness.bound
    parts = [(witness, 0)]
    if witness.output == "inf":
        rows = rows_of(witness, len(matrices), matrices[-1].shape[0])
        parts = [(part, i) for i, part in enumerate(rows)]
    for part, i in parts:
        _require_fit(matrices, activations, part)
        for name, form in _inequalities(matrices, activations, part, i):
            if not _decided(form, name):
                raise NotProvedError(f"{name}: not positive definite, in exact arithmetic")
    return witness.bound


def _inequalities(
    matrices: Sequence[Matrix],
    activations: Sequence[Activation],
    witness: ChainWitness,
    row: int,
) -> Iterator[tuple[str, Rational]]:
    """Yield what must be positive definite, with its name."""
    scales = [Fraction(2) ** e for e in witness.exponents]
    weights = [rational(w.midpoint) * number(1 / s) for w, s in zip(matrices, scales, strict=True)]
    square = Fraction(witness.bound) ** 2
    for k, scale in enumerate(scales):
        if k == len(activations) or not isinstance(activations[k], Residual):
            square /= scale**2
    before = first_storage(witness, weights[0].shape[1], square)
    for k, weight in enumerate(weights):
        name = f"layer {k + 1}"
        if k == len(activations):
            final, factors = last_storage(witness, weight, row)
            weight = final
        wide = k == 0 and weight.shape[1] > weight.shape[0] and witness.norm == "2"
        if wide and (k == len(activations) or not isinstance(activations[k], Residual)):
            weight = multiply(weight, weight.T)
            before = number(square) * weight
        if k == len(activations):
            yield f"{name} (last)", before - multiply(weight.T, factors[:, None] * weight)
            return
        after = rational(witness.storage[k])
        form = form_of(activations[k], weight, witness.multipliers[k], scale=scales[k], name=name)
        yield name, _block(form, before, after)
        before = after


def _block(form: Form, before: Rational, after: Rational) -> Rational:
    p, m = form.inner.shape[1], form.inner.shape[0]
    outputs = np.hstack([form.linear, form.spread])
    below = np.hstack([-form.lower[:, None] * form.inner, identity(m)])
    above = np.hstack([form.upper[:, None] * form.inner, -identity(m)])
    sector = multiply(below.T, form.strength[:, None] * above)
    block: Rational = -multiply(outputs.T, after, outputs) - sector - sector.T
    block[:p, :p] += before
    return block


def _norm_is_at_most(values: Array, norm: float, name: str) -> bool:
    limit = Fraction(norm) ** 2
    _require_size(min(values.shape), name)
    thin = rational(values if values.shape[0] <= values.shape[1] else values.T)
    if _decided(number(limit) * identity(len(thin)) - multiply(thin, thin.T), name):
        return True
    if exact_square(values) <= limit:  # the norm of Frobenius
        return True
    sizes = np.abs(values).tolist()
    rows = max(sum(map(Fraction, row)) for row in sizes)
    columns = max(sum(map(Fraction, column)) for column in zip(*sizes, strict=True))
    return rows * columns <= limit


def _decided(form: Rational, name: str) -> bool:
    _require_size(len(form), name)
    return is_definite(form)


def _require_size(rows: int, name: str) -> None:
    if rows > LARGEST:
        raise InputError(
            f"{name}: {rows} rows are too many for exact arithmetic, which takes up to {LARGEST}: "
            "check without it"
        )


def _require_fit(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ChainWitness
) -> None:
    """Refuse a witness whose parts do not fit the chain."""
    count, bound = len(weights), witness.bound
    if not (isinstance(bound, float) and math.isfinite(bound) and bound > 0):
        raise NotProvedError(f"the claimed bound {bound!r} is not a positive finite number")
    lengths = (len(activations), len(witness.multipliers), len(witness.storage))
    if lengths != (count - 1,) * 3 or len(witness.exponents) != count:
        raise NotProvedError(f"the witness does not fit a chain of {count} layers")
    if not all(abs(e) <= 4000 for e in witness.exponents):
        raise NotProvedError("an exponent of the witness is out of range")
    for k in range(count - 1):
        name, multiplier, storage = f"layer {k + 1}", witness.multipliers[k], witness.storage[k]
        width = output_width(activations[k], weights[k])
        if weights[k + 1].shape[1] != width:
            raise NotProvedError(f"layer {k + 2} does not fit {name}")
        if storage.shape != (width, width):
            raise NotProvedError(f"{name}: the storage is not {width} by {width}")
        if not (np.isfinite(multiplier).all() and np.isfinite(storage).all()):
            raise NotProvedError(f"{name}: multipliers or storage are not finite")
        if not np.array_equal(storage, storage.T):
            raise NotProvedError(f"{name}: the storage is not symmetric")
