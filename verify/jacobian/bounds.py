"""Bounds of a network's Jacobian over a box: the function that people call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.jacobian.walk import node_intervals, pull_back
from tangency.verify.sets import Box, input_intervals
from tangency.verify.spec import check_spec

__all__ = ["JACOBIAN_METHODS", "JacobianBounds", "jacobian_bounds", "jacobian_intervals"]

JACOBIAN_METHODS = ("interval", "crown")

Array = Any
Pair = tuple[Array, Array]

_BUDGET = 2**22  # entries of the largest cotangent of one part of a batch


@dataclass(frozen=True, eq=False)
class JacobianBounds:
    """Entrywise bounds of Clarke's Jacobian over a box.

    Attributes
    ----------
    inputs : tuple of (array, array)
        (lower, upper) for each input of the network, float64 ``(N, S, *input_shape)``: S outputs,
        or rows of a spec.
    method : str
        How they were found.
    seconds : float
        Wall-clock time.
    certified : bool
        True: the bounds are proved in real arithmetic.
    """

    inputs: tuple[Pair, ...]
    method: str
    seconds: float
    certified: bool = True

    @property
    def lower(self) -> Array:
        """Lower bounds for the only input; InputError when there are several."""
        return self._only()[0]

    @property
    def upper(self) -> Array:
        """Upper bounds for the only input; InputError when there are several."""
        return self._only()[1]

    def _only(self) -> Pair:
        if len(self.inputs) != 1:
            raise InputError(f"the network has {len(self.inputs)} inputs: use .inputs")
        return self.inputs[0]


def jacobian_bounds(
    network: Network,
    box: Box | Sequence[Box],
    *,
    outputs: Sequence[int] | None = None,
    spec: Array | None = None,
    method: str = "interval",
) -> JacobianBounds:
    r"""Enclose every element of Clarke's Jacobian at every point of a box.

    Where the network is differentiable this is its Jacobian; at a kink, the convex hull of the
    limits around it. By the mean value theorem, differences of outputs over the box are products of
    such elements with differences of inputs: hence Lipschitz constants and proofs of monotonicity.

    Parameters
    ----------
    network : Network
        With one output, of any dtype; its weights are widened to float64 without loss.
    box : Box or tuple of Box
        One for each input, of N samples or of one; of a Ball, the box around it is taken.
    outputs : sequence of int, optional
        Flattened indices of the outputs to take; by default all of them.
    spec : (S, n_out) or (N, S, n_out) array, optional
        Linear maps of the flattened output to take in their place, such as margins.
    method : {"interval", "crown"}
        Interval: one walk back with interval cotangents. Crown: the Jacobian as a network of its
        own, bounded by linear functions; never looser, and as dear as one sweep for each entry.

    Returns
    -------
    JacobianBounds
        ``lower`` and ``upper`` of shape ``(N, S, *input_shape)``; infinite where a slope is
        unbounded, as across a jump.

    Raises
    ------
    InputError
        For an unknown method, a box, outputs or a spec that do not fit, or a layer that is not
        bounded on the box.
    UnsupportedError
        For a Select that is open on the box and may jump, by the name of its layer.

    References
    ----------
    Shi, Wang, Zhang, Kolter, Hsieh, "Efficiently computing local Lipschitz constants of neural
    networks via bound propagation", arXiv 2210.07394.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> net = from_layers([np.array([[1.0, -1.0]]), np.array([[2.0]])], "relu")
    >>> found = jacobian_bounds(net, Box(np.array([0.0, 0.0]), np.array([1.0, 1.0])))
    >>> found.lower, found.upper
    (array([[[ 0., -2.]]]), array([[[2., 0.]]]))
    """
    start = perf_counter()
    if not isinstance(network, Network):
        raise InputError(f"network is a {type(network).__name__}: give a tangency Network")
    if method not in JACOBIAN_METHODS:
        raise InputError(f"method {method!r}: Jacobian bounds have {', '.join(JACOBIAN_METHODS)}")
    inputs = input_intervals(network, box)
    samples = max(x.shape[0] for x in inputs)
    seed = seeds(network, outputs, spec, samples)
    if method == "interval":
        found = jacobian_intervals(network, inputs, seed)
    else:
        from tangency.verify.jacobian.linear import jacobian_linear

        found = jacobian_linear(network, inputs, seed)
    return JacobianBounds(
        inputs=tuple((x.lower, x.upper) for x in found),
        method=method,
        seconds=perf_counter() - start,
    )


def seeds(
    network: Network, outputs: Sequence[int] | None, spec: Array | None, samples: int
) -> Array:
    """The rows whose Jacobian is asked for, float64 ``(N or 1, S, n_out)``."""
    size = int(np.prod(network.output_shape))
    if spec is not None:
        if outputs is not None:
            raise InputError("give outputs or a spec, not both")
        return check_spec(spec, samples, size)
    if outputs is None:
        return np.eye(size)[None]
    rows = np.asarray(outputs)
    if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in "iu":
        raise InputError(f"outputs is {outputs!r}: give a list of indices, in 0..{size - 1}")
    if (rows < 0).any() or (rows >= size).any():
        raise InputError(f"outputs {rows.tolist()}: the network has outputs 0..{size - 1}")
    return np.eye(size)[None, rows]


def jacobian_intervals(
    network: Network, inputs: Sequence[Interval], seed: Array
) -> tuple[Interval, ...]:
    """The interval method: part by part of the batch, so that memory grows with it alone.

    Parameters
    ----------
    inputs : sequence of Interval, (N or 1, *shape)
        May be unbounded.
    seed : (N or 1, S, n_out) array
        Rows.

    Returns
    -------
    tuple of Interval, (N, S, *input_shape)
    """
    samples = max(seed.shape[0], *(x.shape[0] for x in inputs))
    widest = max(int(np.prod(node.shape)) for node in network.structure.nodes)
    step = max(1, _BUDGET // (seed.shape[1] * widest))
    shape = network.output_shape
    parts = []
    for first in range(0, samples, step):
        rows = _part(seed, first, step).reshape((-1, seed.shape[1], *shape))
        known = node_intervals(network, [_cut(x, first, step) for x in inputs])
        count = min(step, samples - first)
        parts.append([_spread(x, count) for x in pull_back(network, known, Interval(rows))])
    if len(parts) == 1:
        return tuple(parts[0])
    return tuple(
        Interval(
            np.concatenate([x.lower for x in column]), np.concatenate([x.upper for x in column])
        )
        for column in zip(*parts, strict=True)
    )


def _part(array: Array, first: int, step: int) -> Array:
    return array if array.shape[0] == 1 else array[first : first + step]


def _cut(x: Interval, first: int, step: int) -> Interval:
    return Interval(_part(x.lower, first, step), _part(x.upper, first, step))


def _spread(x: Interval, samples: int) -> Interval:
    shape = (samples, *x.shape[1:])
    return Interval(np.broadcast_to(x.lower, shape), np.broadcast_to(x.upper, shape))
