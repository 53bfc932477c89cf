"""Both ends of a chain's proof in rational arithmetic; see `ends` for the same in float64."""

from fractions import Fraction

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.matrix import Array
from tangency.verify.certificate.rationals import Rational, diagonal, number, rational
from tangency.verify.certificate.witness import ChainWitness

__all__ = ["first_storage", "last_storage"]


def first_storage(witness: ChainWitness, n: int, square: Fraction) -> Rational:
    """Return Q_0, for which L^2 = `square` follows from the norm of the input.

    Parameters
    ----------
    witness : ChainWitness
    n : int
        Entries of the input.
    square : Fraction

    Raises
    ------
    NotProvedError
        If it does not follow, or the head does not fit.
    """
    shapes = {"2": (), "1": ((n, n),), "inf": ((n,),)}
    if witness.norm not in shapes or _shapes(witness.head) != shapes[witness.norm]:
        raise NotProvedError(f"the head does not fit the norm {witness.norm!r} of the input")
    if witness.norm == "2":
        return diagonal([number(square)] * n)
    head = rational(witness.head[0])
    limit = number(square)
    if witness.norm == "1":
        if not np.array_equal(witness.head[0], witness.head[0].T):
            raise NotProvedError("the head is not symmetric")
        if not all(x <= limit for x in np.diagonal(head)):
            raise NotProvedError("the head's diagonal exceeds the square of the claimed bound")
        return head
    if sum(head, start=number(Fraction(0))) > limit:
        raise NotProvedError("the head's sum exceeds the square of the claimed bound")
    if not (witness.head[0] >= 0).all():
        raise NotProvedError("the head has a negative entry")
    return diagonal(head)


def last_storage(witness: ChainWitness, weight: Rational, row: int) -> tuple[Rational, Rational]:
    """Return V and d for which |df|^2 <= dx^T V^T diag(d) V dx in the norm of the output.

    Parameters
    ----------
    witness : ChainWitness
    weight : (m, n) array
        The last one.
    row : int
        The entry of the output that is meant, for the output norm "inf".

    Raises
    ------
    NotProvedError
        If the witness does not fit the output.
    """
    m = len(weight)
    one = rational(np.ones(1))
    if (witness.output == "margin") != bool(witness.margin):
        raise NotProvedError("the margin does not fit the output")
    if _shapes(witness.tail) != (((m,),) if witness.output == "1" else ()):
        raise NotProvedError(f"the tail does not fit the norm {witness.output!r} of the output")
    if witness.output == "2":
        return weight, rational(np.ones(m))
    if witness.output == "inf":
        return weight[[row]], one
    if witness.output == "margin":
        if len(witness.margin) != 2 or not all(0 <= i < m for i in witness.margin):
            raise NotProvedError(f"the margin is not two of {m} outputs")
        i, j = witness.margin
        return weight[[i]] - weight[[j]], one
    if witness.output != "1":
        raise NotProvedError(f"unknown norm {witness.output!r} of the output")
    if not (witness.tail[0] > 0).all():
        raise NotProvedError("the tail has an entry that is not positive")
    if sum(1 / Fraction(x) for x in witness.tail[0].tolist()) > 1:
        raise NotProvedError("the inverses of the tail sum to more than one")
    return weight, rational(witness.tail[0])


def _shapes(parts: tuple[Array, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(part.shape for part in parts)
