"""What a search hands to the checker of chains; nothing in it is trusted."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.matrix import Array

__all__ = ["ChainWitness", "rows_of"]


@dataclass(frozen=True, eq=False)
class ChainWitness:
    """Multipliers and storage matrices that prove a Lipschitz bound of a chain.

    Parameters
    ----------
    bound : float
        The claim: the chain is `bound`-Lipschitz from the norm of the input to that of the output.
    exponents : tuple of int, length l
        Layer k is checked as W_k / 2**exponents[k]; in a residual block, G times this too.
    multipliers : tuple of arrays, length l - 1
        (n_k,) array for slopes, (groups,) array for GroupSort and Householder.
    storage : tuple of (n_k, n_k) arrays, length l - 1
        Q_1, ..., Q_{l-1}, symmetric.
    norm : {"2", "1", "inf"}
        Of the input.
    output : {"2", "1", "inf", "margin"}
        Norm of the output, or the difference of the two entries in `margin`.
    margin : tuple of int
        i and j for the output f_i - f_j, otherwise empty.
    head : tuple of arrays
        For the input norm 1 one (n_0, n_0) array Q_0; for "inf" one (n_0,) array d, Q_0 = diag(d).
    tail : tuple of arrays
        For the output norm 1 one (n_l,) array nu, otherwise empty.

    Notes
    -----
    For the output norm "inf" everything but the bound is there once for each entry of the output,
    one entry after the other: l n_l exponents, (l - 1) n_l multipliers and storages, n_l heads.
    """

    bound: float
    exponents: tuple[int, ...]
    multipliers: tuple[Array, ...]
    storage: tuple[Array, ...]
    norm: str = "2"
    output: str = "2"
    margin: tuple[int, ...] = ()
    head: tuple[Array, ...] = ()
    tail: tuple[Array, ...] = ()


def rows_of(witness: ChainWitness, layers: int, outputs: int) -> Iterator[ChainWitness]:
    """Yield the witness of each entry of the output, for the output norm "inf".

    Raises
    ------
    NotProvedError
        If the parts are not there once for each entry.
    """
    heads = 0 if witness.norm == "2" else 1
    for part, count, name in (
        (witness.exponents, layers, "exponents"),
        (witness.multipliers, layers - 1, "multipliers"),
        (witness.storage, layers - 1, "storage matrices"),
        (witness.head, heads, "heads"),
    ):
        if len(part) != count * outputs:
            raise NotProvedError(
                f"the witness has {len(part)} {name} for {count} in each of {outputs} outputs"
            )
    hidden = layers - 1
    for i in range(outputs):
        yield replace(
            witness,
            exponents=witness.exponents[i * layers : (i + 1) * layers],
            multipliers=witness.multipliers[i * hidden : (i + 1) * hidden],
            storage=witness.storage[i * hidden : (i + 1) * hidden],
            head=witness.head[i * heads : (i + 1) * heads],
        )
