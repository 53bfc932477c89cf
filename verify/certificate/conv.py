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

*Sorting* of groups of n channels at each pixel (GroupSort, MaxMin). With S the sums of groups, on
the image :math:`S\,dX = S\,dZ`, elsewhere dX = 0: everywhere :math:`(S\,dZ - S\,dX)^TK\,dX = 0`,
*for every matrix K*, of any sign. Sorting does not increase the norm and keeps the sum, so that
:math:`\sum_{a<b}(dX_a - dX_b)^2 = n|dX|^2 - (S\,dX)^2 \le \sum_{a<b}(dZ_a - dZ_b)^2` in each group,
on the image and elsewhere. With a multiplier :math:`\lambda_j \ge 0` for each group, B the
differences of its pairs, :math:`\Lambda` the multipliers of the pairs, the first matrix becomes

.. math:: \begin{bmatrix} Q_{k-1} & -V^*S^TK & -V^*B^T\Lambda \\
          \cdot & S^TK + K^TS + B^T\Lambda B - Q_k & 0 \\ \cdot & 0 & \Lambda\end{bmatrix} \succ 0.

*A dense head.* If the last layer gives one pixel, :math:`df = \frac{1}{T_1T_2}\sum_w\hat W_l(w)\,
d\hat X_{l-1}(w)`, a sum and not a convolution. The witness then gives Hermitian J(w) whose mean is
at most I, which stands in place of I above: :math:`Q_{l-1} \succeq V^*J^{-1}V`, and by the
inequality of Cauchy and Schwarz :math:`|\sum_w v_w|^2 \le \sum_w v_w^*J(w)^{-1}v_w` times the norm
of :math:`\sum_wJ(w)`. The real part of the sum is what counts, df being real. So a block-circulant
matrix lies above the Gram matrix of a dense layer, at a loss that J keeps small.

References
----------
.. [1] M. Fazlyab et al., NeurIPS 2019, arXiv 1906.04893, theorem 2.
.. [2] H. Sedghi, V. Gupta, P. M. Long, The singular values of convolutional layers, ICLR 2019,
       arXiv 1805.10408, theorem 6 (the symbol).
.. [3] P. Pauli et al., ICLR 2024, arXiv 2401.14033, lemma 1 (sorting).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tangency.models.errors import NotProvedError
from tangency.verify.certificate.conv_blocks import (
    Sorted,
    bordered,
    last_blocks,
    sloped_blocks,
    sorted_blocks,
)
from tangency.verify.certificate.conv_stack import stack_failure
from tangency.verify.certificate.conv_symbol import ConvLayer, frequencies, symbol
from tangency.verify.certificate.conv_witness import ConvWitness, require_fit
from tangency.verify.certificate.definite import definiteness
from tangency.verify.certificate.directed import gamma, sqrt_up, up
from tangency.verify.certificate.layers import GroupSort, Slopes

__all__ = ["check_conv"]

_CHUNK = 2**22  # entries of the matrices tested at once


def check_conv(
    layers: Sequence[ConvLayer],
    activations: Sequence[Slopes | GroupSort],
    size: tuple[int, int],
    witness: ConvWitness,
) -> float:
    """Prove the claim of a witness from the kernels alone.

    Parameters
    ----------
    layers : sequence of l ConvLayer
        Stride 1 but for the first.
    activations : sequence of l - 1 Slopes or GroupSort
        Slopes of each channel or all, lower <= 0 <= upper; sorting of adjacent channels.
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
    parts = require_fit(layers, activations, size, witness)
    count = len(frequencies(witness.torus))
    with np.errstate(all="ignore"):  # what overflows is refused, not warned of
        for k, layer in enumerate(layers):
            inner = symbol(layer, witness.torus, exponent=witness.exponents[k])
            width = inner.real.shape[2]
            rows = 2 * width + 4 * inner.real.shape[1]
            step = max(1, _CHUNK // rows**2)
            for begin in range(0, count, step):
                which = slice(begin, begin + step)
                here = inner.part(which)
                if k == len(parts):
                    head = None if witness.head is None else witness.head[which]
                    blocks = last_blocks(here, head)
                else:
                    part, after = parts[k], witness.storage[k][which]
                    if isinstance(part, Sorted):
                        blocks = sorted_blocks(here, after, part)
                    else:
                        blocks = sloped_blocks(here, after, part)
                before = witness.storage[k - 1][which] if k else np.zeros((0, 0, 0), np.complex128)
                if not k:
                    shape = (here.real.shape[0], width, width)
                    before = np.broadcast_to(
                        witness.square * np.eye(width, dtype=np.complex128), shape
                    )
                reason = stack_failure(*bordered(before, blocks))
                if reason:
                    raise NotProvedError(f"layer {k + 1}: not proved positive definite: {reason}")
        if witness.head is not None:
            _require_mean(witness.head, witness.torus)
    try:
        bound = math.ldexp(sqrt_up(witness.square), sum(witness.exponents))
    except OverflowError:
        return math.inf
    return bound if bound > 1e-300 else up(bound)


def _require_mean(head: npt.NDArray[np.complex128], torus: tuple[int, int]) -> None:
    """Prove that the mean of J over all frequencies is below the identity."""
    half = frequencies(torus)
    own = ((2 * half) % np.array(torus) == 0).all(axis=1)
    weight = np.where(own, 1.0, 2.0)[:, None, None]
    total = (weight * head.real).sum(axis=0)
    slack = up((weight * np.abs(head.real)).sum(axis=0) * up(4.0 * gamma(len(half) + 4)))
    midpoint = torus[0] * torus[1] * np.eye(head.shape[1]) - total
    found = definiteness(midpoint, up(slack + up(np.abs(midpoint) * 2.0**-52)))
    if not found.proved:
        raise NotProvedError(f"the mean of the head is not proved below 1: {found.reason}")
