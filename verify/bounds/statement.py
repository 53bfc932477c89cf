"""What a bound says about linear functions of the output, with all that a certificate needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.verify.certificate.outputs import Method
from tangency.verify.rigorous.sets import BallPart, InputSet

__all__ = ["Statement", "two_sided"]

Array = Any


@dataclass(frozen=True, eq=False)
class Statement:
    """That ``spec[n, s] . f(x) >= lower[n, s]`` for all x of set n, f flattened.

    Attributes
    ----------
    inputs : InputSet
        N sets of inputs.
    spec : (N or 1, S, outputs) array
        The linear functions.
    lower : (N, S) array
        Their bounds.
    method : {"ibp", "crown-ibp", "crown", "forward"}
        Of the walk that proved them.
    plain : bool
        Whether that walk was the literature's.
    slopes : mapping of int to tuple of arrays
        Slopes that a search chose for the last pass, by node of the lowered network.
    """

    inputs: InputSet
    spec: Array
    lower: Array
    method: Method
    plain: bool
    slopes: Mapping[int, tuple[Array, ...]] = field(default_factory=dict)

    def take(self, mask: Array) -> Statement:
        """What is said of some samples, ``(N,) array of bool``."""
        ball = self.inputs.ball
        if ball is not None:
            ball = BallPart(_part(ball.center, mask), _part(ball.radius, mask), ball.norm)
        return Statement(
            InputSet(_part(self.inputs.lower, mask), _part(self.inputs.upper, mask), ball),
            _part(self.spec, mask),
            _part(self.lower, mask),
            self.method,
            self.plain,
            {i: tuple(_part(v, mask) for v in own) for i, own in self.slopes.items()},
        )

    @staticmethod
    def joined(parts: Sequence[Statement]) -> Statement | None:
        """Statements about batches of one data set as one; None where there is nothing to say."""
        parts = [part for part in parts if len(part.lower)]
        if not parts:
            return None
        first = parts[0]
        assert first.inputs.ball is None
        nodes = first.slopes
        return Statement(
            InputSet(_all([p.inputs.lower for p in parts]), _all([p.inputs.upper for p in parts])),
            _all([p.spec for p in parts]),
            _all([p.lower for p in parts]),
            first.method,
            first.plain,
            {
                i: tuple(_all([p.slopes[i][k] for p in parts]) for k in range(len(own)))
                for i, own in nodes.items()
            },
        )


def two_sided(
    inputs: InputSet,
    spec: Array | None,
    found: Interval,
    method: Method,
    plain: bool,
    slopes: Mapping[int, tuple[Array, ...]],
    *,
    upper: bool,
) -> Statement:
    """Bounds of outputs ``(N, *shape)``, or of a specification, as one statement about minima."""
    low, high = (v.reshape((len(v), -1)) for v in (found.lower, found.upper))
    maps = np.eye(low.shape[1])[None] if spec is None else spec
    if upper:
        maps, low = np.concatenate([maps, -maps], axis=1), np.concatenate([low, -high], axis=1)
    return Statement(inputs, maps, low, method, plain, slopes)


def _part(v: Array, mask: Array) -> Array:
    return v if len(v) != len(mask) else v[mask]


def _all(arrays: list[Array]) -> Array:
    return np.concatenate(arrays)
