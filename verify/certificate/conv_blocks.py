r"""The matrices of one layer of a convolutional chain that must be positive definite, enclosed.

They are those of `tangency.verify.certificate.conv`, at some of the frequencies, as real symmetric
matrices of twice the size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.conv_stack import embedded
from tangency.verify.certificate.conv_symbol import Symbol
from tangency.verify.certificate.directed import ETA, UNIT, product, up
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["Sloped", "Sorted", "bordered", "last_blocks", "sloped_blocks", "sorted_blocks"]

Blocks = tuple[Symbol, Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Sloped:
    """Slopes in [lower, upper] and multipliers, (c,) arrays."""

    lower: Array
    upper: Array
    strength: Array


@dataclass(frozen=True, eq=False)
class Sorted:
    """Sorting of groups of `size` channels: multipliers (g,), and the matrix K (g, c) of sums."""

    size: int
    strength: Array
    kept: Array


def last_blocks(inner: Symbol, head: npt.NDArray[np.complex128] | None) -> Blocks:
    """Return V and the block below it: the identity, or J."""
    f, n, _ = inner.real.shape
    zeros = np.zeros((f, n, n))
    if head is None:
        return inner, zeros + np.eye(n), zeros, zeros
    return inner, head.real.copy(), head.imag.copy(), zeros


def sloped_blocks(inner: Symbol, after: npt.NDArray[np.complex128], layer: Sloped) -> Blocks:
    """Return V's rows (a + b) Lambda W and H W, and the midpoint and radius of what is below."""
    f = inner.real.shape[0]
    lower, upper, strength = layer.lower, layer.upper, layer.strength
    # Any H >= -2 ab Lambda serves: H stands for itself in its row and on the diagonal.
    extra = up(up(-lower * upper) * (2.0 * strength))
    held = np.flatnonzero((lower != 0) & (upper != 0))
    coupling = strength * (lower + upper)
    error = up(np.abs(coupling) * (4 * UNIT) + ETA)
    error[(lower == 0) & (upper == 1)] = 0.0
    stacked = _scaled_rows(inner, coupling, error, extra[held], held)
    n, m = len(strength), len(strength) + len(held)
    real, imag, spread = np.zeros((3, f, m, m))
    real[:, :n, :n], imag[:, :n, :n] = -after.real, -after.imag
    index = np.arange(m)
    real[:, index[:n], index[:n]] += 2.0 * strength
    spread[:, index[:n], index[:n]] = up(np.abs(real[:, index[:n], index[:n]]) * UNIT * 2)
    real[:, index[n:], index[n:]] = extra[held]
    return stacked, real, imag, spread


def sorted_blocks(inner: Symbol, after: npt.NDArray[np.complex128], layer: Sorted) -> Blocks:
    """Return V's rows K^T S W and lambda (W_a - W_b), and the midpoint and radius below."""
    f, n, _ = inner.real.shape
    size, strength, kept = layer.size, layer.strength, layer.kept
    pairs = np.array([(a, b) for a in range(size) for b in range(a + 1, size)], dtype=np.int64)
    pairs = pairs.reshape(-1, 2)
    begins = np.arange(0, n, size)
    first = (begins[:, None] + pairs[:, 0]).reshape(-1)
    second = (begins[:, None] + pairs[:, 1]).reshape(-1)
    factor = np.repeat(strength, len(pairs))
    parts = []
    for values, radius in ((inner.real, inner.real_radius), (inner.imag, inner.imag_radius)):
        sums, sums_radius = _group_sums(values, radius, size)
        found = product(
            Matrix(np.ascontiguousarray(kept.T)), Matrix(_flat(sums), _flat(sums_radius))
        )
        assert found.radius is not None
        apart = values[:, first] - values[:, second]
        wide = up(up(radius[:, first] + radius[:, second]) + up(np.abs(apart) * (2 * UNIT)))
        scaled = factor[:, None] * apart
        own = up(up(np.abs(scaled) * (2 * UNIT)) + ETA)
        own = up(own + up(factor[:, None] * up(wide + ETA)))
        parts.append(
            (
                np.concatenate([_stack(found.midpoint, f), scaled], axis=1),
                np.concatenate([_stack(found.radius, f), own], axis=1),
            )
        )
    stacked = Symbol(parts[0][0], parts[1][0], parts[0][1], parts[1][1])
    m = n + len(first)
    real, imag, spread = np.zeros((3, f, m, m))
    spanned = np.repeat(kept, size, axis=0)
    free = spanned + spanned.T
    error = up(np.abs(free) * (2 * UNIT))
    own_pairs = np.kron(np.diag(strength), size * np.eye(size) - 1.0)
    error = up(error + up(np.abs(own_pairs) * (2 * UNIT) + ETA))
    free = free + own_pairs
    error = up(error + up(np.abs(free) * (2 * UNIT)))
    real[:, :n, :n] = free - after.real
    spread[:, :n, :n] = up(error + up(np.abs(real[:, :n, :n]) * (2 * UNIT)))
    imag[:, :n, :n] = -after.imag
    index = np.arange(n, m)
    real[:, index, index] = factor
    return stacked, real, imag, spread


def bordered(before: npt.NDArray[np.complex128], blocks: Blocks) -> tuple[Array, Array]:
    """Return midpoints and radii of [[Q, V*], [V, R]], embedded in the reals."""
    stacked, real, imag, spread = blocks
    zero = np.zeros(before.shape)
    adjoint = stacked.real.swapaxes(1, 2), -stacked.imag.swapaxes(1, 2)
    midpoint = embedded(
        _square(before.real, adjoint[0], stacked.real, real),
        _square(before.imag, adjoint[1], stacked.imag, imag),
    )
    turned = stacked.real_radius.swapaxes(1, 2), stacked.imag_radius.swapaxes(1, 2)
    diagonal = _square(zero, turned[0], stacked.real_radius, spread)
    crossed = _square(zero, turned[1], stacked.imag_radius, np.zeros_like(spread))
    return midpoint, np.abs(embedded(diagonal, crossed))


def _square(a: Array, b: Array, c: Array, d: Array) -> Array:
    return np.concatenate([np.concatenate([a, b], axis=2), np.concatenate([c, d], axis=2)], axis=1)


def _flat(stack: Array) -> Array:
    """Return the matrices side by side."""
    return np.asarray(stack.transpose(1, 0, 2).reshape(stack.shape[1], -1))


def _stack(flat: Array, count: int) -> Array:
    return np.asarray(flat.reshape(flat.shape[0], count, -1).transpose(1, 0, 2))


def _group_sums(values: Array, radius: Array, size: int) -> tuple[Array, Array]:
    """Return the sums of the rows of each group, and their radii."""
    total, spread = values[:, ::size], radius[:, ::size]
    for a in range(1, size):
        total = total + values[:, a::size]
        spread = up(up(spread + radius[:, a::size]) + up(np.abs(total) * (2 * UNIT) + ETA))
    return total, spread


def _scaled_rows(
    inner: Symbol, coupling: Array, error: Array, extra: Array, held: npt.NDArray[np.intp]
) -> Symbol:
    """Return an enclosure of the rows coupling_i W_i, then extra_i W_i for those held.

    The sign of all of V does not matter to definiteness: it is a change of sign of variables.
    """
    factor = np.concatenate([coupling, extra])[None, :, None]
    error = np.concatenate([error, np.zeros_like(extra)])[None, :, None]
    parts = []
    for values, radius in ((inner.real, inner.real_radius), (inner.imag, inner.imag_radius)):
        wide = np.concatenate([values, values[:, held]], axis=1)
        spread = np.concatenate([radius, radius[:, held]], axis=1)
        midpoint = factor * wide
        own = up(up(np.abs(midpoint) * (2 * UNIT)) + ETA)
        own = up(own + up(np.abs(factor) * spread))
        own = up(own + up(error * up(np.abs(wide) + spread)))
        parts.append((midpoint, own))
    return Symbol(parts[0][0], parts[1][0], parts[0][1], parts[1][1])
