r"""The smooth function that the engine minimises, of the logarithms of all multipliers.

.. math:: F_\mu(\theta) = \mathrm{head}_\mu(Y_0) - \mu\sum_k \log\det(\Lambda_k^{-1/2}R_k
          \Lambda_k^{-1/2}), \qquad \Lambda = e^\theta.

Every point where it is finite gives a valid bound, :math:`\log L^2 \le F_\mu` without the barrier.
For an l1 norm of the output :math:`|df|_1^2 \le df^T\mathrm{diag}(\nu)df` with
:math:`\sum 1/\nu_i = 1`, where :math:`1/\nu` is a softmax of variables of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.clock import Clock
from tangency.verify.lipschitz.engine.heads import HeadValue, head_value
from tangency.verify.lipschitz.engine.layers import Layer
from tangency.verify.lipschitz.engine.recursion import (
    Adjoint,
    Elimination,
    backward,
    forward,
)

__all__ = ["Objective", "State"]


@dataclass(frozen=True, eq=False)
class State:
    """The objective at a point, and what its gradient needs.

    Parameters
    ----------
    theta : (d,) array
        The point.
    value : float
        F.
    square : float
        The bound's square.
    head : HeadValue
    eliminations : list of Elimination
    """

    theta: Array
    value: float
    square: float
    head: HeadValue
    eliminations: list[Elimination]


class Objective:
    """F of a chain: its layers, its last matrix, the norms of input and output.

    Parameters
    ----------
    layers : sequence of Layer
    last : (m, n) array
    norm : {"2", "1", "inf"}
        Of the input.
    output : {"2", "1"}
        Of the output.
    clock : Clock, optional
        Looked at before each layer of each sweep.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        last: Array,
        *,
        norm: str = "2",
        output: str = "2",
        clock: Clock | None = None,
    ) -> None:
        self.clock = Clock(None) if clock is None else clock
        self.layers = tuple(layers)
        self.last = last
        self.norm = norm
        self.output = output
        inputs = (self.layers[0].weight if self.layers else last).shape[1]
        self.counts = [layer.count for layer in self.layers]
        self.head_count = inputs if norm == "inf" else 0
        self.tail_count = last.shape[0] if output == "1" else 0
        sizes = [self.head_count, *self.counts, self.tail_count]
        ends = np.cumsum(sizes)
        self.parts = [slice(int(e - s), int(e)) for s, e in zip(sizes, ends, strict=True)]
        self.size = int(ends[-1])
        self._constant = last.T @ last

    def strengths(self, theta: Array) -> list[Array]:
        """Return Lambda of each layer."""
        return [
            layer.expand(np.exp(theta[part]))
            for layer, part in zip(self.layers, self.parts[1:-1], strict=True)
        ]

    def shares(self, theta: Array) -> Array:
        """Return 1 / nu, of sum 1."""
        tail = theta[self.parts[-1]]
        shares = np.exp(tail - tail.max())
        return np.asarray(shares / shares.sum())

    def terminal(self, theta: Array) -> Array:
        """Return the storage at the output of the last layer."""
        if self.output == "2":
            return self._constant.copy()
        return np.asarray(self.last.T @ (self.last / self.shares(theta)[:, None]))

    def input_storage(self, theta: Array) -> Array | None:
        """Return Y_0, or None where a pivot is not positive definite."""
        swept = forward(self.layers, self.strengths(theta), self.terminal(theta), self.clock.check)
        return None if swept is None else swept[1]

    def evaluate(self, theta: Array, mu: float) -> State | None:
        """Return the state at theta, or None where F is infinite."""
        with np.errstate(all="ignore"):
            swept = forward(
                self.layers, self.strengths(theta), self.terminal(theta), self.clock.check
            )
            if swept is None:
                return None
            eliminations, storage = swept
            head = head_value(self.norm, storage, theta[self.parts[0]], mu)
            if head is None:
                return None
            value = head.value - mu * sum(e.logdet for e in eliminations)
        if not np.isfinite(value):
            return None
        return State(theta, value, head.square, head, eliminations)

    def gradient(
        self, state: State, mu: float, *, keep: bool = False
    ) -> tuple[Array, list[Adjoint], Array]:
        """Return dF/dtheta, the adjoints if asked for, and the gradient in the last storage.

        The state's eliminations are used up unless the adjoints are kept.
        """
        slopes, final, adjoints = backward(
            self.layers,
            state.eliminations,
            state.head.gradient,
            mu,
            keep=keep,
            check=self.clock.check,
        )
        result = np.zeros(self.size)
        result[self.parts[0]] = state.head.slope
        for layer, part, slope in zip(self.layers, self.parts[1:-1], slopes, strict=True):
            ones = layer.collect(np.ones(layer.width))
            result[part] = np.exp(state.theta[part]) * slope + mu * ones
        if self.tail_count:
            shares = self.shares(state.theta)
            moved = np.einsum("ij,ij->i", self.last @ final, self.last) / shares
            # d nu_i / d t_j = nu_i (shares_j - [i = j])
            result[self.parts[-1]] = shares * moved.sum() - moved
        return result, adjoints, final
