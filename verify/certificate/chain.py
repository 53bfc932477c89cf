r"""The check, in rigorous arithmetic, of a witness that a chain of layers is Lipschitz.

The chain is :math:`x_0 \mapsto \varphi_1(W_1x_0) \mapsto \dots \mapsto W_lx_{l-1}`, biases apart;
a layer may be a residual block :math:`x + G\varphi(Wx)`. For differences of two inputs the witness
gives symmetric storage matrices Q_k that bound what remains, :math:`|df|^2 \le dx_k^T Q_k\,dx_k`,
from the last layer to the first. The check proves, layer by layer, in the notation of `reduction`:

- last layer: :math:`Q_{l-1} - W_l^TDW_l \succ 0`, D = I for l2, D = diag(nu) with
  :math:`\sum 1/\nu_i \le 1` for l1, one row of W_l for an entry or a margin;
- layers with multipliers :math:`\Lambda \ge 0`, by the S-procedure:

  .. math:: \begin{bmatrix} Q_{k-1} + 2V^T\Lambda abV - A^TQ_kA & -(V^T\Lambda(a+b) + A^TQ_kB) \\
            \cdot & 2\Lambda - B^TQ_kB\end{bmatrix} \succ 0;

- input: Q_0 = :math:`\rho I` with :math:`\rho \le L^2` for l2, diag(d) with
  :math:`1^Td \le L^2` for l-infinity, any with diagonal at most L^2 for l1.

Every W_k is first divided by the power of two that the witness names; all these activations commute
with such a scaling in what is used of them. A multiplier shared between different neurons of an
elementwise function ("LipSDP-Network") has no place here: it is unsound.

References
----------
.. [1] P. Pauli et al., Novel Quadratic Constraints for Extending LipSDP beyond Slope-Restricted
       Activations, ICLR 2024, arXiv 2401.14033, lemma 1 and theorem 1.
.. [2] M. Fazlyab et al., Efficient and Accurate Estimation of Lipschitz Constants for Deep Neural
       Networks, NeurIPS 2019, arXiv 1906.04893, theorem 2 (with diagonal T only).
"""

from collections.abc import Sequence

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.definite import definiteness
from tangency.verify.certificate.diagonal import diagonal, times
from tangency.verify.certificate.directed import congruence, difference, product, scale_rows, total
from tangency.verify.certificate.ends import first_storage, last_storage
from tangency.verify.certificate.layers import Activation, Residual, output_width
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.certificate.reduction import Reduction, reduce
from tangency.verify.certificate.witness import ChainWitness, rows_of

__all__ = ["ChainWitness", "check_chain"]


def check_chain(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ChainWitness
) -> float:
    """Prove the claim of a witness from the weights alone.

    Parameters
    ----------
    weights : sequence of l (n_k, n_{k-1}) Matrix
        W_1, ..., W_l; with a radius, the claim is proved for every matrix of the enclosure.
    activations : sequence of l - 1 Slopes, GroupSort, Householder or Residual
    witness : ChainWitness

    Returns
    -------
    float
        The proved bound, which is the witness's.

    Raises
    ------
    NotProvedError
        If a step cannot be proved; the message names the layer and the reason.
    InputError
        If weights or activations are not valid.

    Examples
    --------
    >>> one = np.eye(1)
    >>> witness = ChainWitness(1.01, (0, 0), (1.004 * one[0],), (1.001 * one,))
    >>> from tangency.verify.certificate import Slopes
    >>> check_chain([Matrix(one), Matrix(one)], [Slopes(0.0, 1.0)], witness)
    1.01
    """
    with np.errstate(all="ignore"):  # what overflows is refused, not warned of
        matrices = [Matrix.of(w, name=f"weight {k + 1}") for k, w in enumerate(weights)]
        _require_chain(matrices, activations)
        if witness.output != "inf":
            _check(matrices, activations, witness, None)
        else:
            outputs = matrices[-1].shape[0]
            for i, part in enumerate(rows_of(witness, len(matrices), outputs)):
                _check(matrices, activations, part, i)
    return witness.bound


def _check(
    matrices: Sequence[Matrix],
    activations: Sequence[Activation],
    witness: ChainWitness,
    row: int | None,
) -> None:
    """Prove every layer's inequality, or raise."""
    _require_fit(matrices, activations, witness)
    exponents = witness.exponents
    scaled = [w.scaled(-e) for w, e in zip(matrices, exponents, strict=True)]
    if not all(np.isfinite(w.midpoint).all() for w in scaled):
        raise NotProvedError("an exponent of the witness makes the weights overflow")
    # In a residual block the exponent is undone by its output.
    blocks = [isinstance(a, Residual) for a in activations] + [False]
    scale = sum(e for e, block in zip(exponents, blocks, strict=True) if not block)
    storages = [first_storage(witness, matrices[0].shape[1], scale)]
    storages += [_symmetric(q, k + 1) for k, q in enumerate(witness.storage)]
    last = len(scaled)
    for k in range(1, last):
        name = f"layer {k}"
        reduction = reduce(
            activations[k - 1],
            scaled[k - 1],
            witness.multipliers[k - 1],
            exponent=exponents[k - 1],
            name=name,
        )
        _require(_inequality(reduction, storages[k - 1], storages[k]), name)
    final, weights = last_storage(witness, scaled[-1], row)
    _require(difference(storages[-1], congruence(final, weights)), f"layer {last} (last)")


def _inequality(reduction: Reduction, before: Matrix, after: Matrix) -> Matrix:
    """Return the matrix that is to be positive definite."""
    inner, strength = reduction.inner, reduction.strength
    a, b = reduction.lower, reduction.upper
    top, spread = before, reduction.spread
    if ((a != 0) & (b != 0)).any():
        ab = scale_rows(a, Matrix((2.0 * b)[:, None]))
        term = times(strength, ab)
        top = total(top, product(inner.transpose, times(term, inner)).mirrored())
    image = after if spread is None else product(after, spread)  # Q B
    corner = after if spread is None else product(spread.transpose, image).mirrored()
    corner = difference(diagonal(Matrix(2.0 * strength.midpoint, _twice(strength.radius))), corner)
    sums = _sum(a, b)
    side: Matrix | None = None
    if sums.midpoint.any():
        factor = times(strength, sums)
        side = times(factor, inner)
    if reduction.linear is not None:
        linear = reduction.linear
        top = difference(top, congruence(linear, after))
        coupled = product(image.transpose, linear)
        side = coupled if side is None else total(side, coupled)
    if side is None:
        side = Matrix(np.zeros(inner.shape))
    midpoint = np.block([[top.midpoint, -side.midpoint.T], [-side.midpoint, corner.midpoint]])
    zero = np.zeros_like
    r_top, r_side, r_corner = (
        zero(m.midpoint) if m.radius is None else m.radius for m in (top, side, corner)
    )
    return Matrix(midpoint, np.block([[r_top, r_side.T], [r_side, r_corner]]))


def _sum(a: Array, b: Array) -> Matrix:
    """Return an enclosure of a + b, exact for the usual slopes."""
    found = total(Matrix(a[:, None]), Matrix(b[:, None]))
    if ((a == 0) | (b == 0) | (a == -b)).all():
        return Matrix(found.midpoint)
    return found


def _twice(radius: Array | None) -> Array | None:
    return None if radius is None else 2.0 * radius


def _require(matrix: Matrix, name: str) -> None:
    symmetric = matrix.mirrored()
    found = definiteness(symmetric.midpoint, symmetric.radius)
    if not found.proved:
        raise NotProvedError(f"{name}: not proved positive definite: {found.reason}")


def _require_chain(weights: Sequence[Matrix], activations: Sequence[Activation]) -> None:
    count = len(weights)
    if count == 0 or len(activations) != count - 1:
        raise NotProvedError(f"{count} weights and {len(activations)} activations are no chain")
    for k in range(1, count):
        given = output_width(activations[k - 1], weights[k - 1])
        if weights[k].shape[1] != given:
            raise NotProvedError(
                f"layer {k + 1} takes {weights[k].shape[1]} inputs, layer {k} gives {given}"
            )


def _require_fit(
    weights: Sequence[Matrix], activations: Sequence[Activation], witness: ChainWitness
) -> None:
    """Refuse what does not fit together, before any arithmetic."""
    count = len(weights)
    if len(witness.exponents) != count:
        raise NotProvedError(f"the witness has {len(witness.exponents)} exponents for {count}")
    if not all(isinstance(e, int) and abs(e) <= 4000 for e in witness.exponents):
        raise NotProvedError("an exponent of the witness is out of range")
    if len(witness.multipliers) != count - 1 or len(witness.storage) != count - 1:
        raise NotProvedError("the witness does not have one multiplier and storage an activation")
    for k in range(count - 1):
        n = output_width(activations[k], weights[k])
        for kind, values in (("multipliers", witness.multipliers), ("storage", witness.storage)):
            part = values[k]
            if not (isinstance(part, np.ndarray) and part.dtype == np.float64):
                raise NotProvedError(f"layer {k + 1}: the {kind} are not float64")
            if not np.isfinite(part).all():
                raise NotProvedError(f"layer {k + 1}: the {kind} are not finite")
        if witness.storage[k].shape != (n, n):
            raise NotProvedError(f"layer {k + 1}: the storage is not {n} by {n}")


def _symmetric(storage: Array, k: int) -> Matrix:
    if not np.array_equal(storage, storage.T):
        raise NotProvedError(f"layer {k}: the storage is not symmetric")
    return Matrix(storage)
