"""Proofs that outputs rise or fall with inputs, on a box or everywhere; or pairs that refute it.

A sign of the Jacobian over the whole box decides; signs are computed without rounding, so that a
network of non-negative weights and monotone activations is proved by its construction. Where the
sign is open the box is cut at its longest edge, in the box's own units, and its parts are asked.

References
----------
Runje, Shankaranarayana, "Constrained Monotonic Neural Networks", arXiv 2205.11775.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.verify.jacobian.bounds import JACOBIAN_METHODS, seeds
from tangency.verify.jacobian.monotone_search import MonotoneSearch
from tangency.verify.sets import Box, input_intervals

__all__ = ["Monotonicity", "certify_monotone"]

Array = Any


@dataclass(frozen=True, eq=False)
class Monotonicity:
    """What is known of each pair of an output and an input.

    Attributes
    ----------
    verdicts : (S, K) array of str
        "proved", "refuted" or "unknown" for output ``outputs[s]`` and input ``inputs[k]``.
    outputs, inputs : tuple of int
        Flattened indices.
    signs : tuple of int
        1 where the output was to rise with the input, -1 where it was to fall.
    pairs : mapping of (output, input, sign) to (array, array)
        Two points that differ in that input alone, the first below the second, whose outputs stand
        in the wrong order; proved in real arithmetic.
    lower, upper : (S, K) array
        Bounds of the partial derivatives on the whole box, before any cut.
    boxes : int
        Boxes that were bounded.
    seconds : float
        Wall-clock time.
    certified : bool
        True: every "proved" and "refuted" holds in real arithmetic.
    """

    verdicts: Array
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    signs: tuple[int, ...]
    pairs: Mapping[tuple[int, int, int], tuple[Array, Array]] = field(repr=False)
    lower: Array = field(repr=False)
    upper: Array = field(repr=False)
    boxes: int
    seconds: float
    certified: bool = True

    @property
    def proved(self) -> bool:
        """Whether all that was asked is proved."""
        return bool((self.verdicts == "proved").all())


def certify_monotone(
    network: Network,
    box: Box | None = None,
    *,
    increasing: Sequence[int] = (),
    decreasing: Sequence[int] = (),
    outputs: Sequence[int] | None = None,
    method: str = "crown",
    boxes: int = 512,
    seed: int = 0,
) -> Monotonicity:
    """Prove or refute that outputs never fall (never rise) as an input grows, others held.

    Parameters
    ----------
    network : Network
        With one input and one output.
    box : Box, optional
        One box; by default all of space, where the global slope ranges of the activations decide.
    increasing, decreasing : sequence of int
        Flattened indices of inputs.
    outputs : sequence of int, optional
        Flattened indices of outputs; by default all.
    method : {"crown", "interval"}
        How the Jacobian is bounded on parts of a box; without a box, by intervals.
    boxes : int
        At most so many parts of the box are bounded.
    seed : int
        Of the points that are tried; the search is deterministic.

    Returns
    -------
    Monotonicity

    Raises
    ------
    InputError
        For indices that do not fit, or a box of several samples.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> net = from_layers([np.array([[1.0, -1.0], [2.0, 0.0]]), np.array([[1.0, 3.0]])], "relu")
    >>> certify_monotone(net, increasing=[0, 1], decreasing=[1]).verdicts
    array([['proved', 'refuted', 'proved']], dtype='<U7')
    """
    start = perf_counter()
    if not isinstance(network, Network):
        raise InputError(f"network is a {type(network).__name__}: give a tangency Network")
    shape, size = network.input_shape, int(np.prod(network.input_shape))
    wanted = _indices("increasing", increasing, size) + _indices("decreasing", decreasing, size)
    signs = (1,) * len(increasing) + (-1,) * len(decreasing)
    if not wanted:
        raise InputError("give the inputs that the outputs rise with (increasing), or fall with")
    if boxes < 1:
        raise InputError(f"boxes is {boxes}: give at least one")
    if method not in JACOBIAN_METHODS:
        raise InputError(f"method {method!r}: Jacobian bounds have {', '.join(JACOBIAN_METHODS)}")
    rows = seeds(network, outputs, None, 1)
    rng = np.random.default_rng(seed)
    job = MonotoneSearch(network, rows, np.array(wanted), np.array(signs), method, rng)
    if box is None:
        low, high = np.full((1, size), -np.inf), np.full((1, size), np.inf)
        job.everywhere(low, high)
    else:
        (x,) = input_intervals(network, box)
        if x.shape[0] != 1:
            raise InputError(f"the box holds {x.shape[0]} samples: give one box of shape {shape}")
        job.inside(x.lower.reshape((1, size)), x.upper.reshape((1, size)), boxes)
    chosen = tuple(int(i) for i in rows[0].argmax(axis=1))
    return Monotonicity(
        verdicts=job.verdicts,
        outputs=chosen,
        inputs=wanted,
        signs=signs,
        pairs={(chosen[s], wanted[k], signs[k]): pair for (s, k), pair in job.pairs.items()},
        lower=job.first.lower,
        upper=job.first.upper,
        boxes=job.count,
        seconds=perf_counter() - start,
    )


def _indices(name: str, given: Sequence[int], size: int) -> tuple[int, ...]:
    array = np.asarray(given)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"{name} is {given!r}: give a list of input indices, in 0..{size - 1}")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise InputError(f"{name} {array.tolist()}: the network has inputs 0..{size - 1}")
    return tuple(int(i) for i in array)
