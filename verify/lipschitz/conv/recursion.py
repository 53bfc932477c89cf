r"""The storage recursion of a convolutional chain, one frequency at a time, and its gradient.

In the notation of `tangency.verify.certificate.conv`, with :math:`S = a + b`, :math:`D = -ab`,

.. math:: Y_{l-1} = \hat W_l^*\hat W_l, \quad R_k = 2\Lambda_k - Y_k \succ 0, \quad
          Y_{k-1} = \hat W_k^*(S\Lambda R_k^{-1}\Lambda S + 2\Lambda D)\hat W_k,

at each of half the frequencies. The objective, for :math:`\theta = \log\Lambda`, is

.. math:: F_\mu(\theta) = \min_\rho\ \log\rho - \mu\sum_w p_w\Big[\log\det(I - Y_0(w)/\rho) +
          \sum_k \log\det\big(R_k(w)\,\Lambda_k^{-1}\big)\Big],

p the share of each frequency (2 / (T1 T2), or half for one that is its own conjugate). Its gradient
goes through the layers in reverse by the envelope theorem, at about twice the cost of F.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.conv import common_torus
from tangency.verify.certificate.conv_symbol import ConvLayer, frequencies, symbol
from tangency.verify.certificate.layers import Slopes
from tangency.verify.certificate.matrix import Array

__all__ = ["Problem", "State", "adjoint"]

Stack: TypeAlias = npt.NDArray[np.complex128]
Result = TypeVar("Result")
_CACHE = 2**14  # entries of a stack of matrices that is worked on at once


@dataclass(frozen=True, eq=False)
class State:
    """The recursion at a point.

    Parameters
    ----------
    theta : (d,) array
    value : float
        F.
    square : float
        The largest eigenvalue of Y_0: the square of the bound in the problem's scale.
    sweeps : list of list of pairs of (f, n, m) arrays
        For each part of the frequencies and each layer, from the first on, the inverse of R_k and
        the image R_k^{-1} S Lambda W_k.
    head : (f, c_0, c_0) array
        dF / dY_0.
    """

    theta: Array
    value: float
    square: float
    sweeps: list[list[tuple[Stack, Stack]]]
    head: Stack


class Problem:
    """A chain on its torus, each layer divided by a power of two.

    Parameters
    ----------
    layers : sequence of l ConvLayer
    activations : sequence of l - 1 Slopes
        With lower <= 0 <= upper.
    size : pair of int
    """

    def __init__(
        self, layers: Sequence[ConvLayer], activations: Sequence[Slopes], size: tuple[int, int]
    ) -> None:
        self.layers, self.activations, self.size = tuple(layers), tuple(activations), size
        self.torus = common_torus(layers, size)
        t1, t2 = self.torus
        half = frequencies(self.torus)
        own = ((2 * half) % np.array([t1, t2]) == 0).all(axis=1)
        self.shares = np.where(own, 1.0, 2.0) / (t1 * t2)
        raw = [symbol(layer, self.torus) for layer in layers]
        stacks = [s.real + 1j * s.imag for s in raw]
        norms = [float(np.linalg.norm(w, 2, axis=(1, 2)).max()) for w in stacks]
        self.exponents = tuple(int(np.frexp(n)[1]) for n in norms)
        self.weights: list[Stack] = [
            np.ldexp(w.real, -e) + 1j * np.ldexp(w.imag, -e)
            for w, e in zip(stacks, self.exponents, strict=True)
        ]
        rows = max(max(w.shape[1:]) for w in self.weights)
        step = max(1, _CACHE // rows**2)
        self.chunks = [slice(a, a + step) for a in range(0, len(half), step)]
        self.norms = [n * 0.5**e for n, e in zip(norms, self.exponents, strict=True)]
        counts = [w.shape[1] for w in self.weights[:-1]]
        ends = np.cumsum([0, *counts])
        self.parts = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self.size_theta = int(ends[-1])
        pairs = [a.arrays(n) for a, n in zip(activations, counts, strict=True)]
        self.sums = [a + b for a, b in pairs]
        self.extras = [-a * b for a, b in pairs]

    def start(self) -> Array:
        """Return the closed form with one multiplier a layer: lambda a little above |Y|."""
        theta = np.zeros(self.size_theta)
        storage = adjoint(self.weights[-1]) @ self.weights[-1]
        for k in range(len(self.parts) - 1, -1, -1):
            largest = float(np.linalg.eigvalsh(storage)[:, -1].max())
            strength = np.full(self.weights[k].shape[1], 1.02 * largest)
            theta[self.parts[k]] = np.log(strength)
            found = self.step(k, strength, storage)
            assert found is not None
            storage = found[0]
        return theta

    def step(
        self, k: int, strength: Array, storage: Stack, which: slice = slice(None)
    ) -> tuple[Stack, Stack, Stack, float] | None:
        """Return Y before layer k, the inverse pivot, the image, and the barrier.

        Of the frequencies in `which` only, which are those of `storage`.
        """
        pivot = -storage
        index = np.arange(len(strength))
        pivot[:, index, index] += 2.0 * strength
        try:
            factors = np.linalg.cholesky(pivot)
        except np.linalg.LinAlgError:
            return None
        diagonal = np.diagonal(factors, axis1=1, axis2=2).real
        # 2 Lambda bounds R, so that the barrier is not negative.
        logs = 2.0 * np.log(diagonal) - np.log(2.0 * strength)
        barrier = -float(self.shares[which] @ logs.sum(axis=1))
        inverse: Stack = np.asarray(np.linalg.inv(pivot), np.complex128)
        weight = self.weights[k][which]
        coupling = (self.sums[k] * strength)[:, None]
        image = inverse @ (coupling * weight)
        outer = coupling * image
        if self.extras[k].any():
            outer = outer + (2.0 * self.extras[k] * strength)[:, None] * weight
        before = adjoint(weight) @ outer
        return 0.5 * (before + adjoint(before)), inverse, image, barrier

    def evaluate(self, theta: Array, mu: float) -> State | None:
        """Return the state at theta, or None where F is infinite."""
        found = list(self._map(lambda which: self._forward(theta, which)))
        parts = [part for part in found if part is not None]
        if len(parts) < len(found):
            return None
        storage = np.concatenate([part[0] for part in parts])
        barrier = sum(part[2] for part in parts)
        with np.errstate(all="ignore"):
            values, vectors = np.linalg.eigh(storage)
            square = float(values[:, -1].max())
            if not square > 0.0:
                return None
            rho = self._rho(values, mu)
            gaps = rho - values
            head = (vectors * (mu * self.shares[:, None, None] / gaps[:, None, :])) @ adjoint(
                vectors
            )
            value = np.log(rho) + mu * barrier
            value -= mu * float(self.shares @ np.log(gaps / rho).sum(axis=1))
        if not np.isfinite(value):
            return None
        return State(theta, float(value), square, [part[1] for part in parts], head)

    def _map(self, function: Callable[[slice], Result]) -> Iterable[Result]:
        """Apply a function to each part of the frequencies, on all cores where it pays."""
        if len(self.chunks) == 1:
            return map(function, self.chunks)
        return _pool().map(function, self.chunks)

    def _forward(
        self, theta: Array, which: slice
    ) -> tuple[Stack, list[tuple[Stack, Stack]], float] | None:
        """Return Y_0, what the gradient needs and the barrier at some of the frequencies."""
        last = self.weights[-1][which]
        storage = adjoint(last) @ last
        kept: list[tuple[Stack, Stack]] = []
        barrier = 0.0
        with np.errstate(all="ignore"):
            for k in range(len(self.parts) - 1, -1, -1):
                found = self.step(k, np.exp(theta[self.parts[k]]), storage, which)
                if found is None or not np.isfinite(found[3]):
                    return None
                storage = found[0]
                kept.append((found[1], found[2]))
                barrier += found[3]
        return (storage, kept[::-1], barrier) if np.isfinite(storage).all() else None

    def _rho(self, values: Array, mu: float) -> float:
        """Solve 1 = mu sum p y / (rho - y) for rho above all eigenvalues y, by bisection."""
        top = float(values.max())
        scaled = values / top
        low, high = np.log(1e-14), np.log(max(mu * scaled.shape[1] * 2.0, 1e-13))
        for _ in range(60):
            middle = 0.5 * (low + high)
            total = mu * float(self.shares @ (scaled / (1.0 + np.exp(middle) - scaled)).sum(axis=1))
            low, high = (middle, high) if total > 1.0 else (low, middle)
        return top * float(1.0 + np.exp(high))

    def gradient(self, state: State, mu: float) -> Array:
        """Return dF / dtheta."""
        sweeps = dict(zip((c.start for c in self.chunks), state.sweeps, strict=True))
        parts = self._map(lambda which: self._backward(state, mu, which, sweeps[which.start]))
        return np.asarray(mu + sum(parts))

    def _backward(
        self, state: State, mu: float, which: slice, kept: list[tuple[Stack, Stack]]
    ) -> Array:
        """Return the gradient's part that comes from some of the frequencies."""
        result = np.empty(self.size_theta)
        flow = state.head[which]
        shares = self.shares[which]
        for k, part in enumerate(self.parts):
            weight, (inverse, image) = self.weights[k][which], kept[k]
            strength = np.exp(state.theta[part])
            carried = image @ flow
            turned = carried @ adjoint(image)
            crossed = np.einsum("fij,fij->i", carried, weight.conj()).real
            own = np.diagonal(turned, axis1=1, axis2=2).real.sum(axis=0)
            pivots = shares @ np.diagonal(inverse, axis1=1, axis2=2).real
            slope = 2.0 * (self.sums[k] * crossed - own - mu * pivots)
            if self.extras[k].any():
                plain = np.einsum("fij,fij->i", weight @ flow, weight.conj()).real
                slope += 2.0 * self.extras[k] * plain
            result[part] = strength * slope
            flow = turned + (mu * shares)[:, None, None] * inverse
        return result


def adjoint(stack: Stack) -> Stack:
    """Return the conjugate transpose of each matrix."""
    return stack.conj().swapaxes(1, 2)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Return threads for NumPy, which lets go of the interpreter in its loops."""
    return ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)))
