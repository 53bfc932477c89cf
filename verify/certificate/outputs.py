r"""Claims about outputs over sets of inputs: :math:`C f(x) \ge b` for all x of each set.

Robustness is the case in which the rows of C are margins and b is positive. The witness says which
linear bounds prove it: the method and the slopes that a search chose; intermediate bounds and
offsets are derived again from the model by whoever checks.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.matrix import Array
from tangency.verify.certificate.regions import (
    decimal,
    digest,
    edges_as_data,
    edges_in_words,
    is_at_most,
)

__all__ = ["BallSet", "LinearWitness", "Method", "NodeSlopes", "OutputsClaim"]

_SHOWN = 24  # labels that are printed one by one
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
        parts = [self.low, self.high, self.spec, self.lower]
        if self.ball is not None:
            parts += [self.ball.center, self.ball.radius, np.array(self.ball.norm)]
        return digest(*parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OutputsClaim) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The label of each set, where the functions are its margins over all other outputs."""
        count = self.spec.shape[2]
        if self.spec.shape[1] != count - 1:
            return None
        ones, others = self.spec == 1.0, self.spec == -1.0
        label, other = ones.argmax(axis=2), others.argmax(axis=2)
        margins = (ones.sum(axis=2) == 1) & (others.sum(axis=2) == 1)
        margins &= ((self.spec != 0.0).sum(axis=2) == 2) & (label == label[:, :1])
        if not margins.all() or (np.diff(np.sort(other, axis=1)) == 0).any():
            return None
        return np.broadcast_to(label[:, 0], len(self.low)).astype(np.int64)

    @property
    def cut(self) -> bool:
        """Whether a box leaves out a part of its ball."""
        assert self.ball is not None
        center, radius = self.ball.center, self.ball.radius
        radius = radius.reshape((-1,) + (1,) * (center.ndim - 1))
        below = is_at_most(self.low, center, -radius)
        above = is_at_most(-self.high, -center, -radius)
        return not (below.all() and above.all())

    def as_dict(self) -> dict[str, Any]:
        """What is stated as data, for programs."""
        sets: dict[str, Any] = {"sets": len(self.low), "kind": "boxes"}
        edges = edges_as_data(self.low, self.high)
        if self.ball is not None:
            radius = self.ball.radius
            sets |= {
                "kind": "balls",
                "norm": self.ball.norm,
                "radius": [float(radius.min()), float(radius.max())],
                "balls_sha256": digest(self.ball.center, radius),
                "cut_with_boxes": self.cut,
            }
        labels = self.labels
        return {
            "kind": "outputs",
            "bound": self.bound,
            "region": sets | edges,
            "functions": self.spec.shape[1],
            "labels": None if labels is None else labels.tolist(),
            "functions_and_bounds_sha256": digest(self.spec, self.lower),
        }

    def __str__(self) -> str:
        """Name the sets, the functions and the least bound, which is rounded downward to 12 digits.

        Examples
        --------
        >>> low, margin = np.zeros((1, 2)), np.array([[[-1.0, 1.0]]])
        >>> print(OutputsClaim(low, low + 0.5, margin, np.full((1, 1), 0.25)))
        f[y](x) - f[j](x) >= 0.25 for all j other than the label y and all x in the box with \
half-edges between 0.25 and 0.25 and corners with sha256 \
e217a896ad984866c8f4c4d6140f934a3559aced83e4e5fbd5e2a1c6ff79b709; the label y is 1
        """
        least, where = decimal(self.bound, up=False, digits=12), self._where()
        if self.labels is not None:
            labels = self.labels.tolist()
            shown = ", ".join(map(str, labels[:_SHOWN]))
            if len(labels) > _SHOWN:
                shown += f", ... ({len(labels)} with sha256 {digest(self.labels)})"
            verb = "label y is" if len(labels) == 1 else "labels y are"
            return (
                f"f[y](x) - f[j](x) >= {least} for all j other than the label y and all x in "
                f"{where}; the {verb} {shown}"
            )
        count = self.spec.shape[1]
        return (
            f"c.f(x) >= b for {count} linear function{'s' * (count != 1)} c of the output with "
            f"bound{'s' * (self.lower.size != 1)} b, at least {least}, and all x in {where}; "
            f"c and b with sha256 {digest(self.spec, self.lower)}"
        )

    def _where(self) -> str:
        """The sets in words that determine them."""
        one = len(self.low) == 1
        boxes = f"{'the box' if one else 'boxes'} with {edges_in_words(self.low, self.high)}"
        if self.ball is None:
            return boxes if one else f"each of {len(self.low)} {boxes}"
        least, largest = (
            decimal(float(r), up=up)
            for r, up in ((self.ball.radius.min(), False), (self.ball.radius.max(), True))
        )
        words = "the l{} ball" if one else f"each of {len(self.low)} l{{}} balls"
        words = words.format(self.ball.norm) + f" of radius {least}"
        if (self.ball.radius != self.ball.radius[0]).any():
            words += f" to {largest}"
        words += f" and centre with sha256 {digest(self.ball.center, self.ball.radius)}"
        return f"{words}, cut with {boxes}" if self.cut else words

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
