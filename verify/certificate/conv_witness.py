"""The witness of a convolutional chain, and whether it fits the chain.

What each number must prove is in `tangency.verify.certificate.conv`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.conv_blocks import Sloped, Sorted
from tangency.verify.certificate.conv_symbol import ConvLayer, frequencies
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array

__all__ = ["ConvWitness", "common_torus", "require_fit"]


@dataclass(frozen=True, eq=False)
class ConvWitness:
    """Multipliers and storage matrices that prove a bound of a convolutional chain.

    Parameters
    ----------
    square : float
        rho: the claim is sqrt(rho) times 2**sum(exponents).
    torus : pair of int
    exponents : tuple of l int
        Layer k is checked as W_k / 2**exponents[k].
    multipliers : tuple of l - 1 arrays
        (c_k,) for slopes, (g_k,) for groups that are sorted.
    storage : tuple of l - 1 (f, c_k, c_k) complex arrays
        Q_k at each of `frequencies(torus)`, Hermitian.
    kept : tuple of (g_k, c_k) arrays
        K of each layer that sorts, in order.
    head : (f, m, m) complex array, optional
        J at each frequency, Hermitian, where the last layer gives one pixel.
    """

    square: float
    torus: tuple[int, int]
    exponents: tuple[int, ...]
    multipliers: tuple[Array, ...] = ()
    storage: tuple[npt.NDArray[np.complex128], ...] = ()
    kept: tuple[Array, ...] = ()
    head: npt.NDArray[np.complex128] | None = None


def common_torus(layers: Sequence[ConvLayer], size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest torus that serves all layers for inputs of a size."""
    found = (1, 1)
    for k, layer in enumerate(layers):
        if k and layer.stride != (1, 1):
            raise InputError(f"layer {k + 1}: only the first layer may have a stride")
        if k and layer.channels[0] != layers[k - 1].channels[1]:
            raise InputError(f"layer {k + 1} takes {layer.channels[0]} channels")
        own = layer.torus(size)
        found = max(found[0], own[0]), max(found[1], own[1])
        size = layer.output_size(size)
    return found


def require_fit(
    layers: Sequence[ConvLayer],
    activations: Sequence[Slopes | GroupSort],
    size: tuple[int, int],
    witness: ConvWitness,
) -> list[Sloped | Sorted]:
    """Refuse what does not fit together; return what a check must know of each activation.

    Raises
    ------
    NotProvedError
        Naming what the witness lacks.
    InputError
        If the layers do not fit together, or a slope interval does not hold zero.
    """
    hidden = len(layers) - 1
    if hidden < 0 or len(activations) != hidden:
        raise InputError(f"{len(layers)} layers and {len(activations)} activations are no chain")
    least = common_torus(layers, size)
    if not all(isinstance(t, int) and t >= n for t, n in zip(witness.torus, least, strict=True)):
        raise NotProvedError(f"the torus {witness.torus} is too small: it takes {least}")
    if not all(t <= 2 * n for t, n in zip(witness.torus, least, strict=True)):
        # A larger one proves nothing more, and costs what no size of the file limits.
        raise NotProvedError(f"the torus {witness.torus} is too large: {least} is enough")
    if not (math.isfinite(witness.square) and witness.square > 0):
        raise NotProvedError("the square of the bound is not a positive number")
    if not all(isinstance(e, int) and abs(e) <= 4000 for e in witness.exponents):
        raise NotProvedError("an exponent of the witness is out of range")
    counts = (len(witness.exponents) - 1, len(witness.multipliers), len(witness.storage))
    if counts != (hidden, hidden, hidden):
        raise NotProvedError("the witness does not have one multiplier and storage an activation")
    if len(witness.kept) != sum(isinstance(a, GroupSort) for a in activations):
        raise NotProvedError("the witness does not have one matrix of sums a sorting layer")
    f = len(frequencies(witness.torus))
    kept = iter(witness.kept)
    found: list[Sloped | Sorted] = []
    for k, activation in enumerate(activations):
        n, strength, name = layers[k].channels[1], witness.multipliers[k], f"activation {k + 1}"
        count = n
        if isinstance(activation, GroupSort):
            count = activation.groups(n, name=name)
        if strength.dtype != np.float64 or strength.shape != (count,) or not (strength >= 0).all():
            raise NotProvedError(f"layer {k + 1}: the multipliers are not {count} numbers >= 0")
        if isinstance(activation, GroupSort):
            sums = next(kept)
            if sums.dtype != np.float64 or sums.shape != (count, n):
                raise NotProvedError(f"layer {k + 1}: the matrix of sums is not {(count, n)}")
            found.append(Sorted(activation.size, strength, sums))
        else:
            lower, upper = activation.arrays(n, name=name)
            if (lower > 0).any() or (upper < 0).any():
                raise InputError(f"{name}: the slopes [a, b] must hold zero for the mask")
            found.append(Sloped(lower, upper, strength))
        _require_hermitian(witness.storage[k], (f, n, n), f"layer {k + 1}: the storage")
    if witness.head is not None:
        end = size
        for layer in layers:
            end = layer.output_size(end)
        if end != (1, 1):
            raise NotProvedError(f"a head takes a last layer of one pixel, not {end}")
        m = layers[-1].channels[1]
        _require_hermitian(witness.head, (f, m, m), "the head")
    return found


def _require_hermitian(
    stack: npt.NDArray[np.complex128], shape: tuple[int, int, int], name: str
) -> None:
    if stack.dtype != np.complex128 or stack.shape != shape:
        raise NotProvedError(f"{name} is not complex, {shape}")
    if not np.array_equal(stack, stack.conj().swapaxes(1, 2)):
        raise NotProvedError(f"{name} is not Hermitian")
