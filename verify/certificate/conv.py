r"""The check of a Lipschitz bound of a convolutional chain, frequency by frequency.

The chain :math:`x_0 \mapsto \varphi_1(W_1 * x_0) \mapsto \dots \mapsto W_l * x_{l-1}` (and
biases) of zero-padded convolutions is relaxed to a torus. Let E_k put an image of layer k into a
torus T, zero elsewhere, and C_k be the circular convolution. If T is large enough that nothing
wraps round into an input (`ConvLayer.torus`), then the states :math:`X_k = E_kx_k` obey

.. math:: X_k = M_k\,\varphi_k(C_kX_{k-1} + b_k), \qquad f = E_l^T(C_lX_{l-1} + b_l),

M_k being 1 on the image and 0 elsewhere. For two inputs let dX and dZ = C dX be the differences. On
the image :math:`(dX - a\,dZ)(b\,dZ - dX) \ge 0`, the slopes being in [a, b]. Elsewhere dX = 0 and
this is :math:`-ab\,dZ^2 \ge 0`: *hypothesis* :math:`a \le 0 \le b`, which the check requires (a
wider interval of slopes always holds, so that a > 0 is to be replaced by 0). As :math:`dX_0 = E_0
dx` has the norm of dx and :math:`|df| \le |C_l dX_{l-1}|`, a bound of the torus model bounds the
network.

With multipliers :math:`\Lambda` shared by a channel all is diagonal in frequencies. The witness
gives Hermitian :math:`Q_k(w)` with :math:`|df|^2 \le \sum_w d\hat X_k^*Q_k(w)\,d\hat X_k`
(by Parseval, in units of T1 T2), and the check proves at each w, with :math:`V = \hat W_k(w)`,

.. math:: \begin{bmatrix} Q_{k-1} & -V^*\Lambda(a+b) & -V^*H \\ \cdot & 2\Lambda - Q_k & 0 \\
          \cdot & 0 & H\end{bmatrix} \succ 0, \quad H = -2ab\Lambda; \qquad
          \begin{bmatrix} Q_{l-1} & V^* \\ V & I\end{bmatrix} \succ 0; \quad Q_0 = \rho I,

whose Schur complement by the H block is the S-procedure's
:math:`Q_{k-1} + 2V^*\Lambda abV`. Then :math:`L^2 \le \rho`. With one layer it is the layer's norm.

References
----------
.. [1] M. Fazlyab et al., NeurIPS 2019, arXiv 1906.04893, theorem 2.
.. [2] H. Sedghi, V. Gupta, P. M. Long, The singular values of convolutional layers, ICLR 2019,
       arXiv 1805.10408, theorem 6 (the symbol).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.conv_stack import embedded, stack_failure
from tangency.verify.certificate.conv_symbol import ConvLayer, Symbol, frequencies, symbol
from tangency.verify.certificate.directed import ETA, UNIT, sqrt_up, up
from tangency.verify.certificate.layers import Slopes
from tangency.verify.certificate.matrix import Array

__all__ = ["ConvWitness", "check_conv", "common_torus"]

_CHUNK = 2**22  # entries of the matrices tested at once


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
    multipliers : tuple of l - 1 (c_k,) arrays
    storage : tuple of l - 1 (f, c_k, c_k) complex arrays
        Q_k at each of `frequencies(torus)`, Hermitian.
    """

    square: float
    torus: tuple[int, int]
    exponents: tuple[int, ...]
    multipliers: tuple[Array, ...] = ()
    storage: tuple[npt.NDArray[np.complex128], ...] = ()


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


def check_conv(
    layers: Sequence[ConvLayer],
    activations: Sequence[Slopes],
    size: tuple[int, int],
    witness: ConvWitness,
) -> float:
    """Prove the claim of a witness from the kernels alone.

    Parameters
    ----------
    layers : sequence of l ConvLayer
        Stride 1 but for the first.
    activations : sequence of l - 1 Slopes
        Of each channel or all; lower <= 0 <= upper.
    size : pair of int
        Spatial size of the input.
    witness : ConvWitness

    Returns
    -------
    float
        The proved bound of the l2 Lipschitz constant.

    Raises
    ------
    NotProvedError
        Naming the layer and the reason.
    InputError
        If the layers do not fit together, or a slope interval does not hold zero.

    Examples
    --------
    >>> one = ConvLayer(np.ones((1, 1, 1, 1)))
    >>> storage = np.full((10, 1, 1), 1.0 + 1e-9, complex)
    >>> witness = ConvWitness(1.01, (4, 4), (0, 0), (np.array([1.004]),), (storage,))
    >>> round(check_conv([one, one], [Slopes(0.0, 1.0)], (4, 4), witness), 6)
    1.004988
    """
    sides = _require_fit(layers, activations, size, witness)
    count = len(frequencies(witness.torus))
    with np.errstate(all="ignore"):  # what overflows is refused, not warned of
        for k, layer in enumerate(layers):
            inner = symbol(layer, witness.torus, exponent=witness.exponents[k])
            rows = 2 * sum(inner.real.shape[1:]) + 2 * inner.real.shape[1]
            step = max(1, _CHUNK // rows**2)
            for begin in range(0, count, step):
                part = slice(begin, begin + step)
                blocks = _blocks(inner.part(part), k, part, sides, witness)
                reason = stack_failure(*blocks)
                if reason:
                    raise NotProvedError(f"layer {k + 1}: not proved positive definite: {reason}")
    try:
        bound = math.ldexp(sqrt_up(witness.square), sum(witness.exponents))
    except OverflowError:
        return math.inf
    return bound if bound > 1e-300 else up(bound)


def _blocks(
    inner: Symbol,
    k: int,
    part: slice,
    sides: list[tuple[Array, Array]],
    witness: ConvWitness,
) -> tuple[Array, Array]:
    """Return midpoints and radii of one layer's matrices, embedded in the reals."""
    f, _, width = inner.real.shape
    last = k == len(witness.multipliers)
    first = np.broadcast_to(witness.square * np.eye(width, dtype=np.complex128), (f, width, width))
    before = witness.storage[k - 1][part] if k else first
    if last:
        n = inner.real.shape[1]
        stacked, zeros = inner, np.zeros((f, n, n))
        real, imag, spread = zeros + np.eye(n), zeros, zeros
    else:
        lower, upper = sides[k]
        strength = witness.multipliers[k]
        # Any H >= -2 ab Lambda serves: H stands for itself in its row and on the diagonal.
        extra = up(up(-lower * upper) * (2.0 * strength))
        held = np.flatnonzero((lower != 0) & (upper != 0))
        coupling = strength * (lower + upper)
        error = up(np.abs(coupling) * (4 * UNIT) + ETA)
        error[(lower == 0) & (upper == 1)] = 0.0
        stacked = _rows(inner, coupling, error, extra[held], held)
        n, m = len(strength), len(strength) + len(held)
        real, imag, spread = np.zeros((3, f, m, m))
        after = witness.storage[k][part]
        real[:, :n, :n], imag[:, :n, :n] = -after.real, -after.imag
        index = np.arange(m)
        real[:, index[:n], index[:n]] += 2.0 * strength
        spread[:, index[:n], index[:n]] = up(np.abs(real[:, index[:n], index[:n]]) * UNIT * 2)
        real[:, index[n:], index[n:]] = extra[held]
    zero = np.zeros((f, width, width))
    adjoint = stacked.real.swapaxes(1, 2), -stacked.imag.swapaxes(1, 2)
    midpoint = embedded(
        _square(before.real, adjoint[0], stacked.real, real),
        _square(before.imag, adjoint[1], stacked.imag, imag),
    )
    turned = stacked.real_radius.swapaxes(1, 2), stacked.imag_radius.swapaxes(1, 2)
    diagonal = _square(zero, turned[0], stacked.real_radius, spread)
    crossed = _square(zero, turned[1], stacked.imag_radius, np.zeros_like(spread))
    radius = np.concatenate(
        [np.concatenate([diagonal, crossed], 2), np.concatenate([crossed, diagonal], 2)], 1
    )
    return midpoint, radius


def _square(a: Array, b: Array, c: Array, d: Array) -> Array:
    return np.concatenate([np.concatenate([a, b], axis=2), np.concatenate([c, d], axis=2)], axis=1)


def _rows(
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


def _require_fit(
    layers: Sequence[ConvLayer],
    activations: Sequence[Slopes],
    size: tuple[int, int],
    witness: ConvWitness,
) -> list[tuple[Array, Array]]:
    """Refuse what does not fit together; return the slopes of each channel."""
    hidden = len(layers) - 1
    if hidden < 0 or len(activations) != hidden:
        raise InputError(f"{len(layers)} layers and {len(activations)} activations are no chain")
    least = common_torus(layers, size)
    if not all(isinstance(t, int) and t >= n for t, n in zip(witness.torus, least, strict=True)):
        raise NotProvedError(f"the torus {witness.torus} is too small: it takes {least}")
    if not (math.isfinite(witness.square) and witness.square > 0):
        raise NotProvedError("the square of the bound is not a positive number")
    if not all(isinstance(e, int) and abs(e) <= 4000 for e in witness.exponents):
        raise NotProvedError("an exponent of the witness is out of range")
    counts = (len(witness.exponents) - 1, len(witness.multipliers), len(witness.storage))
    if counts != (hidden, hidden, hidden):
        raise NotProvedError("the witness does not have one multiplier and storage an activation")
    f = len(frequencies(witness.torus))
    sides = []
    for k in range(hidden):
        n = layers[k].channels[1]
        lower, upper = activations[k].arrays(n, name=f"activation {k + 1}")
        if (lower > 0).any() or (upper < 0).any():
            raise InputError(f"activation {k + 1}: the slopes [a, b] must hold zero for the mask")
        sides.append((lower, upper))
        strength, storage = witness.multipliers[k], witness.storage[k]
        if strength.dtype != np.float64 or strength.shape != (n,) or not (strength >= 0).all():
            raise NotProvedError(f"layer {k + 1}: the multipliers are not {n} numbers >= 0")
        if storage.dtype != np.complex128 or storage.shape != (f, n, n):
            raise NotProvedError(f"layer {k + 1}: the storage is not complex, {(f, n, n)}")
        if not np.array_equal(storage, storage.conj().swapaxes(1, 2)):
            raise NotProvedError(f"layer {k + 1}: the storage is not Hermitian")
    return sides
