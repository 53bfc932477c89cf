"""Both ends of a chain's proof: what the claimed bound says of Q_0, and what the output asks."""

import math

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.directed import add_up, difference, divide_up, down
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.certificate.witness import ChainWitness

__all__ = ["first_storage", "last_storage"]


def first_storage(witness: ChainWitness, n: int, scale: int) -> Matrix:
    """Return Q_0, for which the claimed bound follows from the norm of the input.

    Parameters
    ----------
    witness : ChainWitness
    n : int
        Entries of the input.
    scale : int
        The weights are divided by 2**scale in all.

    Raises
    ------
    NotProvedError
        If the bound is not a positive number, or does not follow.
    """
    square = _square(witness.bound, scale)
    if witness.norm == "2":
        if witness.head:
            raise NotProvedError("the norm 2 of the input has no head")
        return Matrix(np.diag(np.full(n, square)))
    if witness.norm not in ("1", "inf"):
        raise NotProvedError(f"unknown norm {witness.norm!r} of the input")
    if len(witness.head) != 1:
        raise NotProvedError(f"the norm {witness.norm} of the input takes one head")
    head = _floats(witness.head[0], "the head")
    if witness.norm == "1":
        if head.shape != (n, n) or not np.array_equal(head, head.T):
            raise NotProvedError(f"the head is not a symmetric {n} by {n} matrix")
        if not (np.diagonal(head) <= square).all():
            raise NotProvedError("the head's diagonal exceeds the square of the claimed bound")
        return Matrix(head)
    if head.shape != (n,) or not (head >= 0).all():
        raise NotProvedError(f"the head is not {n} nonnegative numbers")
    if _sum_up(head) > square:
        raise NotProvedError("the head's sum exceeds the square of the claimed bound")
    return Matrix(np.diag(head))


def last_storage(witness: ChainWitness, weight: Matrix, row: int | None) -> tuple[Matrix, Array]:
    """Return V and d for which |df|^2 <= dx^T V^T diag(d) V dx in the norm of the output.

    Parameters
    ----------
    witness : ChainWitness
    weight : (m, n) Matrix
        The last one.
    row : int or None
        The entry of the output that is meant, for the output norm "inf".

    Raises
    ------
    NotProvedError
        If the witness does not fit the output.
    """
    m = weight.shape[0]
    if witness.output != "margin" and witness.margin:
        raise NotProvedError("a margin is given for an output that is a norm")
    if witness.output != "1" and witness.tail:
        raise NotProvedError("a tail is given for an output norm that has none")
    if witness.output == "2":
        return weight, np.ones(m)
    if witness.output == "inf":
        return weight.rows(np.array([row])), np.ones(1)
    if witness.output == "margin":
        if len(witness.margin) != 2 or not all(
            isinstance(i, int) and 0 <= i < m for i in witness.margin
        ):
            raise NotProvedError(f"the margin is not two of {m} outputs")
        i, j = witness.margin
        return difference(weight.rows(np.array([i])), weight.rows(np.array([j]))), np.ones(1)
    if witness.output != "1":
        raise NotProvedError(f"unknown norm {witness.output!r} of the output")
    if len(witness.tail) != 1:
        raise NotProvedError("the norm 1 of the output takes one tail")
    tail = _floats(witness.tail[0], "the tail")
    if tail.shape != (m,) or not (tail > 0).all():
        raise NotProvedError(f"the tail is not {m} positive numbers")
    if _sum_up(np.array([divide_up(1.0, float(v)) for v in tail])) > 1.0:
        raise NotProvedError("the inverses of the tail sum to more than one")
    return weight, tail


def _square(bound: float, scale: int) -> float:
    """Return no more than the square of the claimed bound, scaled."""
    if not (isinstance(bound, float) and math.isfinite(bound) and bound > 0):
        raise NotProvedError(f"the claimed bound {bound!r} is not a positive finite number")
    mantissa, exponent = math.frexp(bound)  # 2**-1074 and 2**1023 would not survive a division
    shift = exponent - scale
    if abs(shift) > 500:
        raise NotProvedError("the claimed bound is out of proportion to the exponents")
    root = math.ldexp(mantissa, shift)
    return down(root * root)


def _sum_up(values: Array) -> float:
    total = 0.0
    for value in values:
        total = add_up(total, float(value))
    return total


def _floats(values: Array, name: str) -> Array:
    if not (isinstance(values, np.ndarray) and values.dtype == np.float64):
        raise NotProvedError(f"{name} is not float64")
    if not np.isfinite(values).all():
        raise NotProvedError(f"{name} is not finite")
    return values
