r"""The symbol of a convolution on a torus: an enclosure of its c x c matrix at each frequency.

.. math:: \hat W(j) = \sum_q W_q\, e^{2\pi i (j_1q_1/T_1 + j_2q_2/T_2)}

has one term for each tap of the kernel and is summed directly, with error radii; no FFT is trusted.
Nor is the cosine of the C library: turns are summed in integers of 192 bits and rounded once. A
stride s makes the phases of the input (its entries modulo s) channels of their own, c s1 s2 in all,
which only reorders the input. As :math:`\hat W(-j)` is the conjugate of :math:`\hat W(j)` for a
real kernel, half of the frequencies suffice.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tangency.models.errors import InputError
from tangency.verify.certificate.directed import UNIT, product, up
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["ConvLayer", "Symbol", "frequencies", "symbol"]

_BITS = 192
_LARGEST = 2**16  # turns of a table; the error bound of `_turns` needs 2**18
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """A convolution (cross-correlation) of two axes with zero padding.

    Parameters
    ----------
    weight : (o, i / groups, k1, k2) array of float32 or float64
    stride, dilation : pair of int
    padding : pair of (before, after)
    groups : int

    Raises
    ------
    InputError
        If the numbers do not make a convolution.
    """

    weight: Array
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        weight = np.asarray(self.weight)
        if weight.ndim != 4 or 0 in weight.shape:
            raise InputError(f"the weight of a convolution is (o, i, k1, k2), not {weight.shape}")
        exact = Matrix.of(weight.reshape(weight.shape[0], -1), name="the weight").midpoint
        object.__setattr__(self, "weight", exact.reshape(weight.shape))
        if self.groups < 1 or weight.shape[0] % self.groups:
            raise InputError(f"{weight.shape[0]} channels do not fit {self.groups} groups")
        if min(*self.stride, *self.dilation) < 1 or min(min(p) for p in self.padding) < 0:
            raise InputError("stride and dilation are positive, padding is not negative")

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of the input and of the output."""
        return self.weight.shape[1] * self.groups, self.weight.shape[0]

    def output_size(self, size: Pair) -> Pair:
        """Return the spatial size of the output."""
        found = [
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                size, self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        ]
        if min(found) < 1:
            raise InputError(f"the kernel {self.weight.shape[2:]} is larger than the input {size}")
        return found[0], found[1]

    def torus(self, size: Pair) -> Pair:
        """Return the smallest torus on which nothing wraps round into the input.

        An output at i reads the input at s i + d t - p, from -before to n + after - 1 at most, so
        that s T >= n + max(before, after) keeps what lies outside [0, n) outside it modulo s T.
        """
        out = self.output_size(size)
        found = [
            max(o, -(-(n + max(p)) // s))
            for n, p, s, o in zip(size, self.padding, self.stride, out, strict=True)
        ]
        return found[0], found[1]

    def is_dense(self, size: Pair) -> bool:
        """Whether each entry of the kernel meets one entry of an image of this size: a matrix."""
        whole = self.weight.shape[2:] == tuple(size) and self.groups == 1
        return whole and self.padding == ((0, 0), (0, 0))

    def taps(self) -> tuple[npt.NDArray[np.int64], Array]:
        """Return offsets (t, 2) and matrices (t, o, i s1 s2) of the layer on phases of its input.

        Each entry is one weight or zero.
        """
        i, o = self.channels
        (s1, s2), (d1, d2), (p1, p2) = self.stride, self.dilation, self.padding
        share = o // self.groups
        width = self.weight.shape[1]
        found: dict[Pair, Array] = {}
        for t1 in range(self.weight.shape[2]):
            for t2 in range(self.weight.shape[3]):
                q1, r1 = divmod(d1 * t1 - p1[0], s1)
                q2, r2 = divmod(d2 * t2 - p2[0], s2)
                tap = found.setdefault((q1, q2), np.zeros((o, i, s1, s2)))
                for g in range(self.groups):
                    rows, columns = slice(g * share, (g + 1) * share), slice(g * width, None)
                    tap[rows, columns, r1, r2][:, :width] = self.weight[rows, :, t1, t2]
        values = np.stack(list(found.values())).reshape(len(found), o, i * s1 * s2)
        return np.array(list(found), dtype=np.int64), values


@dataclass(frozen=True, eq=False)
class Symbol:
    """Enclosures of complex matrices, one for each frequency, real and imaginary parts apart.

    Parameters
    ----------
    real, imag : (f, o, i) arrays
    real_radius, imag_radius : (f, o, i) arrays
    """

    real: Array
    imag: Array
    real_radius: Array
    imag_radius: Array

    def part(self, which: slice) -> "Symbol":
        """Return the symbol at some of the frequencies."""
        return Symbol(
            self.real[which], self.imag[which], self.real_radius[which], self.imag_radius[which]
        )


def frequencies(torus: Pair) -> npt.NDArray[np.int64]:
    """Return one of each pair of conjugate frequencies, (f, 2).

    Examples
    --------
    >>> len(frequencies((15, 15))), len(frequencies((4, 4)))
    (113, 10)
    """
    t1, t2 = torus
    found = [(a, b) for a in range(t1) for b in range(t2) if (a, b) <= ((-a) % t1, (-b) % t2)]
    return np.array(found, dtype=np.int64)


def symbol(layer: ConvLayer, torus: Pair, *, exponent: int = 0) -> Symbol:
    """Return the enclosure of a layer's symbol on a torus, divided by 2**exponent.

    Parameters
    ----------
    layer : ConvLayer
    torus : pair of int
    exponent : int

    Returns
    -------
    Symbol

    Examples
    --------
    >>> mean = ConvLayer(np.full((1, 1, 1, 2), 0.5))
    >>> symbol(mean, (1, 4)).real[:, 0, 0].round(3)
    array([1. , 0.5, 0. ])
    """
    length = math.lcm(*torus)
    if length > _LARGEST:
        raise InputError(f"the torus {torus} is too large")
    offsets, values = layer.taps()
    steps = np.array([length // t for t in torus], dtype=np.int64)
    phase = (frequencies(torus) * steps) @ offsets.T % length
    count, o, i = values.shape
    flat = Matrix(values.reshape(count, o * i)).scaled(-exponent)
    parts = []
    for table in _turns(length):
        factors = table[phase]
        spread = np.where(factors.astype(np.int64) == factors, 0.0, up(np.abs(factors) * UNIT))
        found = product(Matrix(factors, spread), flat)
        assert found.radius is not None
        parts.append((found.midpoint.reshape(-1, o, i), found.radius.reshape(-1, o, i)))
    (real, real_radius), (imag, imag_radius) = parts
    return Symbol(real, imag, real_radius, imag_radius)


@lru_cache(maxsize=8)
def _turns(n: int) -> tuple[Array, Array]:
    """Return cos and sin of m / n of a turn for m < n, correctly rounded but for about 2**-180.

    Zero and one are exact. The others exceed 2**-16, so that ``up(|value| UNIT)`` bounds the error.
    """
    quarter = _pi() // 2
    cosines, sines = np.empty(n), np.empty(n)
    for m in range(n):
        turn, rest = divmod(4 * m, n)
        swap = 2 * rest > n  # keep the angle below 45 degrees
        c, s = _series(quarter * (n - rest if swap else rest) // n)
        if swap:
            c, s = s, c
        if rest == 0:
            c, s = 1 << _BITS, 0
        for _ in range(turn):
            c, s = -s, c
        cosines[m], sines[m] = c / (1 << _BITS), s / (1 << _BITS)  # correctly rounded
    cosines.flags.writeable = sines.flags.writeable = False
    return cosines, sines


def _series(angle: int) -> tuple[int, int]:
    """Return cos and sin in units of 2**-_BITS, within 2**8 units, for 0 <= angle <= pi/4."""
    sums, term, k = [0, 0], 1 << _BITS, 0
    while term:
        sums[k % 2] += term if k % 4 < 2 else -term
        k += 1
        term = (term * angle >> _BITS) // k
    return sums[0], sums[1]


def _pi() -> int:
    """Return pi in units of 2**-_BITS, within 2**9 units: 16 atan(1/5) - 4 atan(1/239)."""

    def arctangent(x: int) -> int:
        total, power, k = 0, (1 << _BITS) // x, 0
        while power:
            total += (-power if k % 2 else power) // (2 * k + 1)
            power //= x * x
            k += 1
        return total

    return 16 * arctangent(5) - 4 * arctangent(239)
