r"""From a search's multipliers, however rough, to a witness that the checker can prove.

By homogeneity, multipliers raised by :math:`(1+\delta)^{l-k}` from the output to the input give
every pivot a relative margin, :math:`2c_k\Lambda_k - c_{k+1}Y_{k+1} \succeq 2(c_k - c_{k+1})
\Lambda_k`, and the square of the bound grows by at most :math:`(1+\delta)^l`. Storage matrices are
loosened by :math:`\delta` too, so that each inequality holds with room for rounding. Where a pivot
is not positive (the word of a rough solver) its multipliers are raised until it is: this always
succeeds. It is plain float64: proof is the checker's business.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.chain import ChainWitness, check_chain
from tangency.verify.certificate.layers import Residual, Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.engine.assemble import Assembly
from tangency.verify.lipschitz.engine.layers import Layer
from tangency.verify.lipschitz.engine.recursion import eliminate
from tangency.verify.lipschitz.spectra import top_eigenvalue

__all__ = ["Found", "proof_operations", "prove", "prove_rows", "repair"]

_LOOSENINGS = (1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
_ENTRY, _TRIES = 1000.0, 2.0


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Parameters
    ----------
    assembly : Assembly
    strengths : list of (count_k,) arrays
        Multipliers, any numbers.
    last : (m, n) array
        The last matrix with the weights of the output in it: |df|^2 <= |last dy|^2.
    norm : {"2", "1", "inf"}
        Of the input.
    head : (n_0,) array
        d for the norm "inf", up to a factor; otherwise empty.
    """

    assembly: Assembly
    strengths: list[Array]
    last: Array
    norm: str = "2"
    head: Array | None = None


def prove(
    chain: Chain,
    found: Found,
    *,
    output: str = "2",
    margin: tuple[int, ...] = (),
    tail: tuple[Array, ...] = (),
) -> ChainWitness | None:
    """Return a checked witness with the smallest loosening that can be proved, or None."""
    for loosening in _loosenings(chain):
        try:
            witness = repair(
                chain, found, loosening=loosening, output=output, margin=margin, tail=tail
            )
            check_chain(chain.weights, chain.activations, witness)
        except (NotProvedError, np.linalg.LinAlgError):
            continue
        return witness
    return None


def prove_rows(chain: Chain, rows: Sequence[Found]) -> ChainWitness | None:
    """Return a checked witness for the output norm "inf" from what was found for each entry."""
    for loosening in _loosenings(chain):
        try:
            parts = [repair(chain, found, loosening=loosening, output="inf") for found in rows]
            witness = ChainWitness(
                max(part.bound for part in parts),
                tuple(e for part in parts for e in part.exponents),
                tuple(m for part in parts for m in part.multipliers),
                tuple(q for part in parts for q in part.storage),
                norm=rows[0].norm,
                output="inf",
                head=tuple(h for part in parts for h in part.head),
            )
            check_chain(chain.weights, chain.activations, witness)
        except (NotProvedError, np.linalg.LinAlgError):
            continue
        return witness
    return None


def proof_operations(chain: Chain) -> float:
    """Return about how many operations of the BLAS the proof of one bound takes.

    Entry by entry the rounding of an (n, n) inequality costs as much as `_ENTRY` operations each;
    one loosening in two suffices.
    """
    total = 0.0
    for activation, weight in zip(chain.activations, chain.weights, strict=False):
        n, p = weight.shape
        m = n  # of these, free
        if isinstance(activation, Slopes):
            lower, upper = activation.arrays(n)
            m = int((lower != upper).sum())
            plain = m == n and not (lower * upper).any()
        else:
            plain = False
        side = float(m + p)
        swept = m**3 / 3.0 + m**2 * p + 2.0 * m * p**2 + m**3
        checked = side**3 / 3.0 + _ENTRY * side**2
        if not plain:  # products of intervals, twice two operations an entry
            checked += 4.0 * (n * n * p + n * p * p + n * n * m + n * m * m + n * m * p)
        total += swept + checked
    n, p = chain.weights[-1].shape
    return _TRIES * (total + 4.0 * n * p * p + p**3 / 3.0 + _ENTRY * p**2)


def repair(
    chain: Chain,
    found: Found,
    *,
    loosening: float,
    output: str = "2",
    margin: tuple[int, ...] = (),
    tail: tuple[Array, ...] = (),
) -> ChainWitness:
    """Return a witness with positive pivots for any given multipliers; it is not checked.

    Parameters
    ----------
    chain : Chain
    found : Found
    loosening : float
        delta.
    output, margin, tail
        As in the witness.

    Raises
    ------
    NotProvedError
        If the numbers leave the range of float64.
    """
    assembly = found.assembly
    storage: list[Array] = []
    multipliers: list[Array] = []
    with np.errstate(all="ignore"):
        value = found.last.T @ found.last
        for k in range(len(assembly.layers) - 1, -1, -1):
            layer, basis = assembly.layers[k], assembly.bases[k]
            value = _loosened(value, loosening)
            turned = value if basis is None else basis @ value @ basis.T
            storage.append((turned + turned.T) / 2)
            growth = (1.0 + loosening) ** (len(assembly.layers) - k)
            value, strength = _through(layer, found.strengths[k] * growth, value, loosening)
            multipliers.append(_spread(chain, k, strength))
        value = _loosened(value, loosening)
        if not np.isfinite(value).all():
            raise NotProvedError("the storage matrices exceed the range of float64")
        square, head = _head(found, value, loosening)
        root = math.sqrt(square * (1.0 + loosening))
    scale = sum(
        e
        for k, e in enumerate(assembly.exponents)
        if k == len(assembly.layers) or not isinstance(chain.activations[k], Residual)
    )
    try:
        bound = math.ldexp(root, scale)
    except OverflowError:
        bound = math.inf
    return ChainWitness(
        bound,
        assembly.exponents,
        tuple(multipliers[::-1]),
        tuple(storage[::-1]),
        norm=found.norm,
        output=output,
        margin=margin,
        head=head,
        tail=tail,
    )


def _loosenings(chain: Chain) -> list[float]:
    """Return what to try: nothing below the rounding errors of matrices of this size."""
    widest = max(chain.sizes[1:])
    least = min(8.0 * (2 * widest) ** 2 * 2.0**-53, _LOOSENINGS[-2])
    return [loosening for loosening in _LOOSENINGS if loosening >= least]


def _head(found: Found, value: Array, loosening: float) -> tuple[float, tuple[Array, ...]]:
    """Return the square of the bound at the input and the head that shows it."""
    if found.norm == "2":
        return max(float(np.linalg.eigvalsh(value)[-1]), 0.0), ()
    if found.norm == "1":
        return float(np.diagonal(value).max()), (value,)
    assert found.head is not None
    head = _diagonal_above(value, found.head)
    # The mean: an entry near zero, of an input whose effect cancels, has room for rounding too.
    head = head + loosening * (head + head.mean())
    return float(head.sum()) * (1.0 + 1e-14 * head.size), (head,)


def _diagonal_above(value: Array, guess: Array) -> Array:
    """Return d of the least sum found for which diag(d) lies above a symmetric matrix.

    The guess is scaled, which keeps its proportions, or raised by one number, which leaves an entry
    near zero near zero, whatever it lacks relative to its size. All entries alike are the third
    choice: the l-infinity bound is then sqrt(n) times that of l2.
    """
    choices = [np.full_like(guess, float(np.linalg.eigvalsh(value)[-1]))]
    root = 1.0 / np.sqrt(guess)
    relative = root[:, None] * value * root
    if np.isfinite(relative).all():
        choices.append(guess * float(np.linalg.eigvalsh(relative)[-1]))
        lacking = float(np.linalg.eigvalsh(value - np.diag(guess))[-1])
        choices.append(guess + max(lacking, 0.0))
    return min(choices, key=lambda d: float(d.sum()))


def _loosened(value: Array, loosening: float) -> Array:
    """Return the symmetric matrix with its diagonal raised by a relative amount."""
    value = (value + value.T) / 2
    diagonal = np.maximum(np.diagonal(value), 0.0)
    floor = max(float(diagonal.max(initial=0.0)) * 1e-6, 1e-280)
    return np.asarray(value + np.diag(loosening * (diagonal + floor)))


def _through(layer: Layer, given: Array, storage: Array, loosening: float) -> tuple[Array, Array]:
    """Eliminate a layer with its multipliers raised where that is needed."""
    inner = layer.inner(storage)
    level = np.zeros(layer.count)
    np.maximum.at(
        level,
        np.arange(layer.width) if layer.group is None else layer.group,
        np.diagonal(inner) * (0.5 * (1.0 + loosening)),
    )
    strength = np.maximum(np.nan_to_num(given, nan=0.0, posinf=1e100, neginf=0.0), level)
    strength = np.maximum(strength, 1e-290)
    done = eliminate(layer, layer.expand(strength), storage)
    if done is None:
        root = 1.0 / np.sqrt(layer.expand(strength))
        ratio = top_eigenvalue(root[:, None] * inner * root, rtol=1e-12) / 2
        if not math.isfinite(ratio):
            raise NotProvedError("the multipliers exceed the range of float64")
        strength = strength * max(1.0, ratio) * (1.0 + 10 * max(loosening, 1e-9))
        done = eliminate(layer, layer.expand(strength), storage)
    if done is None:
        raise NotProvedError("no multipliers make the pivot positive in float64")
    return done[1], strength


def _spread(chain: Chain, k: int, strength: Array) -> Array:
    """Return multipliers in the form of a witness: zero for linear neurons."""
    activation = chain.activations[k]
    if isinstance(activation, Residual):
        activation = activation.inner
    if not isinstance(activation, Slopes):
        return strength
    n = chain.weights[k].shape[0]
    lower, upper = activation.arrays(n)
    result = np.zeros(n)
    result[lower != upper] = strength
    return result
