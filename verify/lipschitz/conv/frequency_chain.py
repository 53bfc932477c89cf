r"""A convolutional chain as matrices at each frequency, and the multipliers of its neurons.

A layer that sorts is turned to an orthonormal basis of sums and of what is orthogonal to them in
each group (`bases`): the sums become neurons of slopes in [0, 1], since the mask sets them to zero
or keeps them, the rest neurons of slopes in [-1, 1] that share one multiplier a group. The
multipliers of the sums may then become a matrix (`FrequencyChain.free_sums`).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.conv_symbol import ConvLayer, frequencies, symbol
from tangency.verify.certificate.conv_witness import common_torus
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.conv.bases import Neurons, neurons_of
from tangency.verify.lipschitz.conv.head import allotted, gram

__all__ = ["FrequencyChain", "Stack", "adjoint"]

Stack: TypeAlias = npt.NDArray[np.complex128]
Result = TypeVar("Result")
_STEEP = 500  # exponent of slopes beyond which float64 has no room for their squares
_CACHE = 2**15  # entries of a stack of matrices that is worked on at once


class FrequencyChain:
    """A chain on its torus, each layer divided by a power of two.

    Parameters
    ----------
    layers : sequence of l ConvLayer
    activations : sequence of l - 1 Slopes or GroupSort
        Slopes with lower <= 0 <= upper.
    size : pair of int
    dense : bool
        Whether the last layer, which then gives one pixel, is a dense head.
    """

    def __init__(
        self,
        layers: Sequence[ConvLayer],
        activations: Sequence[Slopes | GroupSort],
        size: tuple[int, int],
        *,
        dense: bool = False,
    ) -> None:
        self.layers, self.activations, self.size = layers, activations, size
        self.torus = common_torus(layers, size)
        t1, t2 = self.torus
        half = frequencies(self.torus)
        own = ((2 * half) % np.array([t1, t2]) == 0).all(axis=1)
        self.shares = np.where(own, 1.0, 2.0) / (t1 * t2)
        raw = [symbol(layer, self.torus) for layer in layers]
        stacks = [s.real + 1j * s.imag for s in raw]
        norms = [float(np.linalg.norm(w, 2, axis=(1, 2)).max()) for w in stacks]
        self.neurons: list[Neurons] = [
            neurons_of(a, layer.channels[1]) for a, layer in zip(activations, layers, strict=False)
        ]
        # Slopes of 1e-200, of a batch norm, would leave storages of zero.
        slopes = [float(np.maximum(-n.lower, n.upper).max()) for n in self.neurons]
        self.exponents = tuple(
            int(np.frexp(n)[1] + np.clip(np.frexp(s)[1] - 1, -_STEEP, _STEEP))
            for n, s in zip(norms, [*slopes, 1.0], strict=True)
        )
        self.weights: list[Stack] = [
            np.ldexp(w.real, -e) + 1j * np.ldexp(w.imag, -e)
            for w, e in zip(stacks, self.exponents, strict=True)
        ]
        for k, neurons in enumerate(self.neurons):
            if neurons.basis is not None:
                self.weights[k] = neurons.basis @ self.weights[k]
                self.weights[k + 1] = self.weights[k + 1] @ neurons.basis.T
        self.head: Stack | None = None
        self.last: Stack = adjoint(self.weights[-1]) @ self.weights[-1]
        if dense:
            width = self.weights[-1].shape[2]
            even = (self.shares[:, None, None] * np.eye(width)).astype(np.complex128)
            self.set_head(allotted(self.weights[-1], even, self.shares))
        rows = max(max(w.shape[1:]) for w in self.weights)
        step = max(1, _CACHE // rows**2)
        self.chunks = [slice(a, a + step) for a in range(0, len(half), step)]
        ends = np.cumsum([0, *(n.count for n in self.neurons)])
        self.parts = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self.size_theta = int(ends[-1])
        #: Neurons that share each multiplier.
        self.widths = np.concatenate(
            [np.zeros(0), *(np.bincount(n.members, minlength=n.count) for n in self.neurons)]
        )
        #: What one unit of a free matrix of sums stands for; see `free_sums`.
        self.units: dict[int, Array] = {}
        self.sums = [n.lower + n.upper for n in self.neurons]
        self.extras = [-n.lower * n.upper for n in self.neurons]

    def set_head(self, head: Stack | None) -> None:
        """Take another J, and with it Y before the last layer."""
        self.head = head
        if head is not None:
            self.last = gram(self.weights[-1], head)

    def strengths(self, theta: Array, k: int) -> Array:
        """Return the multiplier of each neuron of a layer."""
        found = np.exp(theta[self.parts[k]])
        group = self.neurons[k].group
        return found if group is None else np.asarray(found[group])

    def free_sums(self, theta: Array) -> Array:
        r"""Let sums have a matrix N of multipliers in place of a diagonal one; return the point.

        :math:`(s_{in} - s_{out})^TN\,x_{out} = 0` holds for any N. Its entries are counted in
        units of the roots of the multipliers at theta; those of sums are no longer free.
        """
        parts = [theta]
        for k, neurons in enumerate(self.neurons):
            if neurons.size > 1:
                roots = np.exp(0.5 * theta[self.parts[k]])[neurons.members]
                groups = len(roots) // neurons.size
                self.units[k] = roots[:groups, None] * roots
                parts.append(np.eye(groups, len(roots)).reshape(-1))
        return np.concatenate(parts)

    def mixing(self, theta: Array, k: int) -> Array | None:
        """Return N of a layer, (g, c), or None where it is diagonal."""
        if k not in self.units or len(theta) == self.size_theta:
            return None
        begin = self.size_theta + sum(u.size for i, u in self.units.items() if i < k)
        unit = self.units[k]
        return unit * theta[begin : begin + unit.size].reshape(unit.shape)

    def map(self, function: Callable[[slice], Result]) -> Iterable[Result]:
        """Apply a function to each part of the frequencies, on all cores where it pays."""
        if len(self.chunks) == 1:
            return map(function, self.chunks)
        return _pool().map(function, self.chunks)


def adjoint(stack: Stack) -> Stack:
    """Return the conjugate transpose of each matrix."""
    return stack.conj().swapaxes(1, 2)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Return threads for NumPy, which lets go of the interpreter in its loops."""
    return ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)))
