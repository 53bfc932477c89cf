r"""The check of a Lipschitz bound on a box that was cut into pieces.

Each piece has a witness of its own, for the slopes that are left on it. If closed boxes j cover the
box, a segment from x to y in the box is cut into finitely many parts, each inside one piece, and as
they lie on one line

.. math:: |f(x) - f(y)| \le \sum_i L_{j(i)}\,|x_{i+1} - x_i| \le \max_j L_j\,|x - y|.

The check proves that the pieces cover the box, and each piece's bound; the slopes on a piece come
from the model, by whoever calls it, and never from the certificate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.cover import require_cover
from tangency.verify.certificate.matrix import Array
from tangency.verify.certificate.product import ProductWitness
from tangency.verify.certificate.witness import ChainWitness

__all__ = ["BranchWitness", "check_branch"]


@dataclass(frozen=True, eq=False)
class BranchWitness:
    """Pieces of a box and what proves the bound on each; nothing in it is trusted.

    Parameters
    ----------
    bound : float
        The claim: on the box the network is `bound`-Lipschitz in the norms below.
    lower, upper : (pieces, n) arrays
        Corners of the pieces, flattened.
    pieces : tuple of ChainWitness or ProductWitness
        One for each piece, in the same norms.
    norm, output, margin
        As in `ChainWitness`.
    """

    bound: float
    lower: Array
    upper: Array
    pieces: tuple[ChainWitness | ProductWitness, ...]
    norm: str = "2"
    output: str = "2"
    margin: tuple[int, ...] = ()


def check_branch(
    witness: BranchWitness,
    low: Array,
    high: Array,
    prove: Callable[[ChainWitness | ProductWitness, Array, Array], float],
) -> float:
    """Prove the claim of a witness on a box.

    Parameters
    ----------
    witness : BranchWitness
    low, high : (n,) arrays
        The box.
    prove : callable
        ``prove(part, lower, upper)`` proves one piece's witness on the box between two (n,) corners
        and returns its bound, or raises NotProvedError.

    Returns
    -------
    float
        The proved bound, which is the witness's.

    Raises
    ------
    NotProvedError
        If the pieces do not cover the box, or a piece is not proved; the message names it.

    Examples
    --------
    >>> part = ProductWitness(2.0, (2.0,))
    >>> witness = BranchWitness(2.0, np.zeros((1, 3)), np.ones((1, 3)), (part,))
    >>> check_branch(witness, np.zeros(3), np.ones(3), lambda part, low, high: part.bound)
    2.0
    """
    bound, count = witness.bound, len(witness.pieces)
    if not (isinstance(bound, float) and math.isfinite(bound) and bound >= 0):
        raise NotProvedError(f"the claimed bound {bound!r} is not a finite number from 0")
    for side in (witness.lower, witness.upper):
        if side.dtype != np.float64 or side.ndim != 2 or len(side) != count:
            raise NotProvedError(f"boxes of shape {side.shape} do not fit {count} pieces")
    require_cover(witness.lower, witness.upper, low, high)
    stated = (witness.norm, witness.output, witness.margin)
    for k, part in enumerate(witness.pieces):
        name = f"piece {k + 1} of {count}"
        if (part.norm, part.output, part.margin) != stated:
            raise NotProvedError(f"{name}: it is bounded in other norms")
        if not part.bound <= bound:
            raise NotProvedError(f"{name}: its bound {part.bound!r} exceeds {bound!r}")
        try:
            proved = prove(part, witness.lower[k], witness.upper[k])
        except NotProvedError as error:
            raise NotProvedError(f"{name}: {error}") from None
        if not proved <= bound:
            raise NotProvedError(f"{name}: {proved!r} is proved, which exceeds {bound!r}")
    return bound
