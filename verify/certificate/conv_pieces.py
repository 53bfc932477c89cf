r"""The check of a convolutional network: runs of convolutions by frequency, the rest by norms.

.. math:: L \le \prod_i L_i,

over the pieces of a path of layers: a run of convolutions with activations between them, proved by
`conv`, or the product of the norms of its layers; a matrix, by its norm; and any other layer by a
number that the model gives. Storage matrices are Hermitian, so a file holds the real part in the
lower triangle and the imaginary one in the upper. The product is taken in rationals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.conv import check_conv
from tangency.verify.certificate.conv_norm import conv_norm_is_at_most
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.certificate.conv_witness import ConvWitness
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.certificate.product import norm_is_at_most

__all__ = ["FrequencyWitness", "Part", "RunWitness", "check_frequencies"]


class ConvRun(Protocol):
    """Convolutions with activations between them, read from a model."""

    @property
    def size(self) -> tuple[int, int]:
        """Of the input."""

    @property
    def layers(self) -> Sequence[ConvLayer]:
        """Stride 1 but for the first."""

    @property
    def activations(self) -> Sequence[Slopes | GroupSort]:
        """One between each two layers; slopes hold zero."""


#: A piece of a model: a run, a matrix, or a number that a layer's constant does not exceed.
Part: TypeAlias = ConvRun | Matrix | float


@dataclass(frozen=True, eq=False)
class RunWitness:
    """A `ConvWitness` as a file holds it.

    Parameters
    ----------
    square, torus, exponents, multipliers, kept
        As in `ConvWitness`.
    storage : tuple of l - 1 (f, c_k, c_k) arrays
        The real part of Q_k in the lower triangle and on the diagonal, the imaginary part of the
        lower triangle, transposed, above it.
    head : (f, m, m) array, optional
        J, likewise.
    """

    square: float
    torus: tuple[int, int]
    exponents: tuple[int, ...]
    multipliers: tuple[Array, ...] = ()
    storage: tuple[Array, ...] = ()
    kept: tuple[Array, ...] = ()
    head: Array | None = None

    @classmethod
    def of(cls, witness: ConvWitness) -> "RunWitness":
        """Return the same witness packed; nothing is rounded.

        Raises
        ------
        NotProvedError
            If a storage matrix is not Hermitian.
        """
        storage = tuple(_packed(q) for q in witness.storage)
        head = None if witness.head is None else _packed(witness.head)
        return cls(
            witness.square,
            witness.torus,
            witness.exponents,
            witness.multipliers,
            storage,
            witness.kept,
            head,
        )

    def unpacked(self) -> ConvWitness:
        """Return the witness that `check_conv` takes."""
        storage = tuple(_hermitian(q) for q in self.storage)
        head = None if self.head is None else _hermitian(self.head)
        return ConvWitness(
            self.square, self.torus, self.exponents, self.multipliers, storage, self.kept, head
        )


@dataclass(frozen=True, eq=False)
class FrequencyWitness:
    """What proves the l2 bound of a convolutional network; nothing in it is trusted.

    Parameters
    ----------
    bound : float
        The claim: the network is `bound`-Lipschitz in l2.
    pieces : tuple of RunWitness or tuple of float
        For each piece of the network, from the input to the output: the witness of a run, or bounds
        of the norms of its layers, in order.
    """

    norm: ClassVar[str] = "2"
    output: ClassVar[str] = "2"
    margin: ClassVar[tuple[int, ...]] = ()

    bound: float
    pieces: tuple[RunWitness | tuple[float, ...], ...]


def check_frequencies(parts: Sequence[Part], witness: FrequencyWitness) -> float:
    """Prove the claim of a witness from the pieces of a model.

    Parameters
    ----------
    parts : sequence of ConvRun, Matrix or float
        Read from the model, never from the certificate.
    witness : FrequencyWitness

    Returns
    -------
    float
        The proved bound, which is the witness's.

    Raises
    ------
    NotProvedError
        Naming the piece and the layer, or if the product exceeds the bound.
    InputError
        If the layers of a run do not fit together.

    Examples
    --------
    >>> check_frequencies([Matrix(np.array([[3.0], [4.0]])), 2.0], FrequencyWitness(
    ...     10.1, ((5.01,), (2.0,))))
    10.1
    """
    bound = witness.bound
    if not (isinstance(bound, float) and math.isfinite(bound) and bound >= 0):
        raise NotProvedError(f"the claimed bound {bound!r} is not a finite number from 0")
    if len(parts) != len(witness.pieces):
        raise NotProvedError(
            f"the witness has {len(witness.pieces)} pieces, the model {len(parts)}"
        )
    total = Fraction(1)
    for i, (part, piece) in enumerate(zip(parts, witness.pieces, strict=True)):
        try:
            total *= _proved(part, piece)
        except NotProvedError as error:
            raise NotProvedError(f"piece {i + 1} of {len(parts)}: {error}") from None
    if total > Fraction(bound):
        raise NotProvedError(f"the product of the pieces exceeds the bound {bound!r}")
    return bound


def _proved(part: Part, piece: RunWitness | tuple[float, ...]) -> Fraction:
    """Return a proved constant of a piece."""
    if isinstance(piece, RunWitness):
        if isinstance(part, Matrix | float):
            raise NotProvedError("the model has no convolutions there")
        found = check_conv(part.layers, part.activations, part.size, piece.unpacked())
        if not math.isfinite(found):
            raise NotProvedError("its bound exceeds the range of float64")
        return Fraction(found)
    layers = 1 if isinstance(part, Matrix | float) else len(part.layers)
    if len(piece) != layers:
        raise NotProvedError(f"{len(piece)} norms are no witness for {layers} layers")
    for norm in piece:
        if not (isinstance(norm, float) and math.isfinite(norm) and norm >= 0):
            raise NotProvedError(f"{norm!r} is not a finite number from 0")
    if isinstance(part, float):
        if not part <= piece[0]:
            raise NotProvedError(f"its norm is not proved to be {piece[0]!r}")
        return Fraction(piece[0])
    with np.errstate(all="ignore"):  # what overflows is refused, not warned of
        if isinstance(part, Matrix):
            if not norm_is_at_most(part, piece[0]):
                raise NotProvedError(f"its norm is not proved to be {piece[0]!r}")
            return Fraction(piece[0])
        total, size = Fraction(1), part.size
        for k, (layer, norm) in enumerate(zip(part.layers, piece, strict=True)):
            if not conv_norm_is_at_most(layer, size, norm):
                raise NotProvedError(f"layer {k + 1}: its norm is not proved to be {norm!r}")
            total *= Fraction(norm)
            size = layer.output_size(size)
    for slopes in part.activations:
        total *= Fraction(slopes.lipschitz())
    return total


def _packed(stack: npt.NDArray[np.complex128]) -> Array:
    """Return the real and the imaginary parts of Hermitian matrices in one real array."""
    found = np.tril(stack.real) + np.tril(stack.imag, -1).swapaxes(1, 2)
    if not np.array_equal(_hermitian(found), stack):
        raise NotProvedError("a storage matrix of the witness is not Hermitian")
    return np.asarray(found, dtype=np.float64)


def _hermitian(packed: Array) -> npt.NDArray[np.complex128]:
    """Return the Hermitian matrices of packed ones."""
    if packed.ndim != 3 or packed.shape[1] != packed.shape[2]:
        raise NotProvedError(f"a storage of shape {packed.shape} is no stack of square matrices")
    index = np.arange(packed.shape[1])
    low = np.tril(packed, -1) + 1j * np.triu(packed, 1).swapaxes(1, 2)
    found = low + low.conj().swapaxes(1, 2)
    found[:, index, index] = packed[:, index, index]
    return np.asarray(found, dtype=np.complex128)
