r"""The storage recursion of a convolutional chain, one frequency at a time, and its gradient.

In the notation of `tangency.verify.certificate.conv`, with :math:`S = a + b`, :math:`D = -ab`,

.. math:: Y_{l-1} = \hat W_l^*J^{-1}\hat W_l, \quad R_k = 2\Lambda_k - Y_k \succ 0, \quad
          Y_{k-1} = \hat W_k^*(S\Lambda R_k^{-1}\Lambda S + 2\Lambda D)\hat W_k,

at each of half the frequencies (`frequency_chain`); J = I but for a dense head. The objective, for
:math:`\theta = \log\Lambda`, is

.. math:: F_\mu(\theta) = \min_\rho\ \log\rho - \mu\sum_w p_w\Big[\log\det(I - Y_0(w)/\rho) +
          \sum_k \log\det\big(R_k(w)\,\Lambda_k^{-1}\big)\Big],

p the share of each frequency (2 / (T1 T2), or half for one that is its own conjugate). Its gradient
goes through the layers in reverse by the envelope theorem, at about twice the cost of F.
"""

from dataclasses import dataclass

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.conv.frequency_chain import FrequencyChain, Stack, adjoint
from tangency.verify.lipschitz.conv.head import allotted

__all__ = ["Problem", "State"]


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
    rho : float
        The minimiser in F.
    stiffness : float
        The second derivative in log rho there.
    sweeps : list of list of pairs of (f, n, m) arrays
        For each part of the frequencies and each layer, from the first on, the inverse of R_k and
        the image R_k^{-1} S Lambda W_k.
    inner : (f, c_0, c_0) array
        (rho I - Y_0)^{-1}; times mu and the share it is dF / dY_0.
    head : (f, m, m) array or None
        J, where the chain ends in a dense layer.
    """

    theta: Array
    value: float
    square: float
    rho: float
    stiffness: float
    sweeps: list[list[tuple[Stack, Stack]]]
    inner: Stack
    head: Stack | None = None


class Problem(FrequencyChain):
    """The recursion of a chain on its torus, as a function of the multipliers."""

    def improve_head(self, state: State, mu: float) -> State:
        """Return a state of lower objective at the same multipliers, where a better J is found."""
        if self.head is None:
            return state
        before, flow = self.head, self.gradient(state, mu)[1]
        found = allotted(self.weights[-1], flow, self.shares)
        for share in (1.0, 0.5, 0.2, 0.05):
            self.set_head((1.0 - share) * before + share * found)
            trial = self.evaluate(state.theta, mu)
            if trial is not None and trial.value < state.value:
                return trial
        self.set_head(before)
        return state

    def start(self) -> Array | None:
        """Return the closed form with one multiplier a layer: lambda a little above |Y|.

        None where a storage is zero or leaves the range of float64.
        """
        theta = np.zeros(self.size_theta)
        storage = self.last
        with np.errstate(all="ignore"):
            for k in range(len(self.parts) - 1, -1, -1):
                if not np.isfinite(storage).all():
                    return None
                largest = float(np.linalg.eigvalsh(storage)[:, -1].max())
                if not largest > 1e-290:
                    return None
                theta[self.parts[k]] = np.log(1.02 * largest)
                found = self.step(k, self.strengths(theta, k), storage)
                if found is None:
                    return None
                storage = found[0]
        return theta

    def step(
        self,
        k: int,
        strength: Array,
        storage: Stack,
        which: slice = slice(None),
        mixing: Array | None = None,
    ) -> tuple[Stack, Stack, Stack, float] | None:
        """Return Y before layer k, the inverse pivot, the image, and the barrier.

        Of the frequencies in `which` only, which are those of `storage`.
        """
        pivot = -storage
        index = np.arange(len(strength))
        rows = 0 if mixing is None else len(mixing)
        pivot[:, index[rows:], index[rows:]] += 2.0 * strength[rows:]
        if mixing is not None:
            pivot[:, :rows] += mixing
            pivot[:, :, :rows] += mixing.T
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
        if mixing is None:
            coupling = (self.sums[k] * strength)[:, None]
            image = inverse @ (coupling * weight)
            outer = coupling * image
        else:
            image = inverse @ (mixing.T @ weight[:, :rows])
            outer = np.zeros_like(weight)
            outer[:, :rows] = mixing @ image
        if self.extras[k].any():
            outer = outer + (2.0 * self.extras[k] * strength)[:, None] * weight
        before = adjoint(weight) @ outer
        return 0.5 * (before + adjoint(before)), inverse, image, barrier

    def evaluate(self, theta: Array, mu: float) -> State | None:
        """Return the state at theta, or None where F is infinite."""
        found = list(self.map(lambda which: self._forward(theta, which)))
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
            inner = (vectors / gaps[:, None, :]) @ adjoint(vectors)
            value = np.log(rho) + mu * barrier
            value -= mu * float(self.shares @ np.log(gaps / rho).sum(axis=1))
            stiffness = mu * float(self.shares @ (rho * values / gaps**2).sum(axis=1))
        if not np.isfinite(value):
            return None
        sweeps = [part[1] for part in parts]
        return State(theta, float(value), square, rho, stiffness, sweeps, inner, self.head)

    def _forward(
        self, theta: Array, which: slice
    ) -> tuple[Stack, list[tuple[Stack, Stack]], float] | None:
        """Return Y_0, what the gradient needs and the barrier at some of the frequencies."""
        storage = self.last[which]
        kept: list[tuple[Stack, Stack]] = []
        barrier = 0.0
        with np.errstate(all="ignore"):
            for k in range(len(self.parts) - 1, -1, -1):
                mixing = self.mixing(theta, k)
                found = self.step(k, self.strengths(theta, k), storage, which, mixing)
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

    def gradient(self, state: State, mu: float) -> tuple[Array, Stack]:
        """Return dF / dtheta, and dF / dY at the last layer."""
        sweeps = dict(zip((c.start for c in self.chunks), state.sweeps, strict=True))
        parts = list(self.map(lambda which: self._backward(state, mu, which, sweeps[which.start])))
        slope = np.asarray(sum(part[0] for part in parts))
        slope[: self.size_theta] += mu * self.widths
        if len(state.theta) > self.size_theta:
            for k, unit in self.units.items():
                slope[self.parts[k].start : self.parts[k].start + len(unit)] = 0.0
        return np.asarray(slope), np.concatenate([part[1] for part in parts])

    def _backward(
        self, state: State, mu: float, which: slice, kept: list[tuple[Stack, Stack]]
    ) -> tuple[Array, Stack]:
        """Return the gradient's part that comes from some of the frequencies, and the flow."""
        result = np.empty(len(state.theta))
        end = self.size_theta
        shares = mu * self.shares[which]
        flow = shares[:, None, None] * state.inner[which]
        for k, part in enumerate(self.parts):
            weight, (inverse, image) = self.weights[k][which], kept[k]
            strength = self.strengths(state.theta, k)
            carried = image @ flow
            turned = carried @ adjoint(image)
            crossed = np.einsum("fij,fij->i", carried, weight.conj()).real
            own = np.diagonal(turned, axis1=1, axis2=2).real.sum(axis=0)
            pivots = shares @ np.diagonal(inverse, axis1=1, axis2=2).real
            slope = 2.0 * (self.sums[k] * crossed - own - pivots)
            if self.extras[k].any():
                plain = np.einsum("fij,fij->i", weight @ flow, weight.conj()).real
                slope += 2.0 * self.extras[k] * plain
            result[part] = self.neurons[k].collect(strength * slope)
            if k in self.units and len(result) > self.size_theta:
                unit = self.units[k]
                rows = len(unit)
                kept_sums = (weight[:, :rows] @ flow @ adjoint(image)).real - turned[:, :rows].real
                noise = np.tensordot(shares, inverse[:, :rows].real, axes=(0, 0))
                free = 2.0 * unit * (kept_sums.sum(axis=0) - noise)
                result[end : end + unit.size] = free.reshape(-1)
                end += unit.size
            flow = turned + shares[:, None, None] * inverse
        return result, flow
