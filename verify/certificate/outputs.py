r"""Claims about outputs over sets of inputs: :math:`C f(x) \ge b` for all x of each set.

Robustness is the case in which the rows of C are margins and b is positive. The witness says which
linear bounds prove it: the method and the slopes that a search chose; intermediate bounds and
offsets are derived again from the model by whoever checks.
"""

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from hashlib import sha256
from typing import Literal, TypeAlias

import numpy as np

from tangency.verify.certificate.matrix import Array

__all__ = ["BallSet", "LinearWitness", "Method", "NodeSlopes", "OutputsClaim"]

Method: TypeAlias = Literal["ibp", "crown-ibp", "crown", "forward"]


@dataclass(frozen=True, eq=False)
class BallSet:
    """Balls of inputs: all x with ``||x - center|| <= radius``.

    Parameters
    ----------
    center : (N or 1, *input_shape) array
    radius : (N or 1,) array
    norm : int
        1 or 2.
    """

    center: Array
    radius: Array
    norm: int


@dataclass(frozen=True, eq=False)
class OutputsClaim:
    """That linear functions of the output stay above their bounds on sets of inputs.

    For each n, s and each x with ``low[n] <= x <= high[n]`` (and inside ball n, where there are
    balls): ``spec[n, s] . f(x) >= lower[n, s]``, f flattened.

    Parameters
    ----------
    low, high : (N, *input_shape) arrays
        Corners of boxes.
    spec : (N or 1, S, outputs) array
        The linear functions.
    lower : (N, S) array
        Their bounds.
    ball : BallSet, optional
        Balls with which the boxes are cut.
    """

    low: Array
    high: Array
    spec: Array
    lower: Array
    ball: BallSet | None = None

    @property
    def bound(self) -> float:
        """The least of the bounds; 0 where there are none, which nothing proves."""
        return float(self.lower.min()) if self.lower.size else 0.0

    @property
    def digest(self) -> str:
        """The sha256 of all that is stated."""
        digest = sha256()
        parts = [self.low, self.high, self.spec, self.lower]
        if self.ball is not None:
            digest.update(str(self.ball.norm).encode())
            parts += [self.ball.center, self.ball.radius]
        for part in parts:
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputsClaim) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        """Count the sets and the functions, with the least bound rounded downward to 12 digits.

        Examples
        --------
        >>> print(OutputsClaim(np.zeros((2, 3)), np.ones((2, 3)), np.ones((1, 1, 1)),
        ...     np.full((2, 1), 0.5)))
        c.f(x) >= 0.5 for all x in each of 2 boxes, for 1 linear function c of the output on each, \
with sha256 91c48d86489a
        """
        rounded = Context(prec=12, rounding=ROUND_FLOOR).create_decimal(Decimal(self.bound))
        sets, functions = len(self.low), self.spec.shape[-2] if self.spec.ndim > 1 else 0
        kind = "boxes" if self.ball is None else f"l{self.ball.norm} balls"
        return (
            f"c.f(x) >= {format(rounded.normalize(), 'g')} for all x in each of {sets} {kind}, "
            f"for {functions} linear function{'s' * (functions != 1)} c of the output on each, "
            f"with sha256 {self.digest[:12]}"
        )

    def words(self, network: str) -> str:
        """The claim with its conditions, for the network of a hash."""
        return f"{self}, in real arithmetic, for exactly the weights with sha256 {network}"


@dataclass(frozen=True, eq=False)
class NodeSlopes:
    """Slopes of the relaxation of one node, any of which prove something.

    Parameters
    ----------
    node : int
        Index in the lowered network.
    slopes : tuple of (N or 1, S or 1, *shape) arrays
        Below, then above; see `tangency.verify.rigorous.relaxations`.
    """

    node: int
    slopes: tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class LinearWitness:
    """Which linear bounds prove a claim about outputs.

    Parameters
    ----------
    method : {"ibp", "crown-ibp", "crown", "forward"}
        Intervals, or lines carried backwards or forwards.
    plain : bool
        Without intersection with interval bounds at each node.
    last : tuple of NodeSlopes
        Slopes of the pass from the output, where they are not the default ones.
    inner : tuple of NodeSlopes
        Slopes of the passes from the layers before it, likewise.
    """

    method: Method
    plain: bool = False
    last: tuple[NodeSlopes, ...] = ()
    inner: tuple[NodeSlopes, ...] = ()
