"""Bounds of a network's output over a box, by a method's name."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.bounds.box import Box
from tangency.verify.bounds.inputs import input_intervals
from tangency.verify.bounds.result import Bounds
from tangency.verify.bounds.specification import (
    check_labels,
    check_spec,
    elided,
    margin_spec,
    on_last_layer,
    on_output,
)
from tangency.verify.rigorous.walk import Walk, walk

__all__ = ["METHODS", "bound", "margins"]

METHODS = ("ibp",)

Array = Any


def bound(
    network: Network,
    box: Box | Sequence[Box],
    *,
    method: str = "ibp",
    spec: Array | None = None,
    keep: bool = False,
) -> Bounds:
    """Bound the output of a network for all inputs of a box.

    The bounds are true in real arithmetic: for the network whose weights are the stored floats,
    taken as real numbers, and whose operations are exact. They are not bounds of a float32
    forward pass, whose own rounding comes on top. Everything is computed in NumPy float64 with
    a-priori error bounds and outward rounding; an entry that overflows is bounded by infinity.

    Parameters
    ----------
    network : Network
        Of any dtype; its weights are widened to float64 without loss.
    box : Box or tuple of Box
        One for each input, of N samples or of one (which then serves all N).
    method : {"ibp"}
        Interval bound propagation.
    spec : (S, n_out) or (N, S, n_out) array, optional
        Linear maps of the flattened output to bound in its place, such as margins; a last dense
        layer is multiplied by it first.
    keep : bool
        Hold the bounds of every layer in ``intermediate``.

    Returns
    -------
    Bounds
        ``lower`` and ``upper`` of shape ``(N, *output_shape)``, or ``(N, S)`` with a spec.

    Raises
    ------
    InputError
        For an unknown method, a box or a spec that does not fit, or a layer that is not bounded on
        the box (a divisor that may be zero, a logarithm of what may be negative), by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> net = from_layers([np.array([[1.0, -1.0]])])
    >>> found = bound(net, Box(np.array([0.0, 0.0]), np.array([1.0, 1.0])))
    >>> found.lower.round(6), found.upper.round(6)
    (array([[-1.]]), array([[1.]]))
    """
    start = perf_counter()
    check_network(network)
    check_method(method)
    inputs = input_intervals(network, box)
    samples = max(x.shape[0] for x in inputs)
    if spec is None:
        ends = network.structure.outputs
        done = walk(network, inputs, ends, keep=keep)
        outputs = [done.found[i] for i in ends]
    else:
        size = int(np.prod(network.output_shape))
        matrix = check_spec(spec, samples, size)
        samples = max(samples, matrix.shape[0])
        done, output = _specified(network, inputs, matrix, keep)
        outputs = [output]
    names = [node.name for node in network.structure.nodes]
    return Bounds(
        outputs=tuple(_spread(y, samples) for y in outputs),
        method=method,
        seconds=perf_counter() - start,
        widths=done.widths,
        intermediate={names[i]: (y.lower, y.upper) for i, y in done.found.items()} if keep else {},
    )


def margins(network: Network, box: Box, labels: Array, *, method: str = "ibp") -> Array:
    """Lower bounds of ``y_label - y_j`` over a box, for the other classes j in order.

    Parameters
    ----------
    network : Network
        With one output, a vector of K scores.
    box : Box
        N samples.
    labels : (N,) array of integers
        One class a sample, from 0.

    Returns
    -------
    (N, K-1) array
        A sample whose row is positive is robust: its label wins everywhere on its box.

    Raises
    ------
    InputError
        As :func:`bound`, and for labels that do not fit or a network that is not a classifier.
    """
    check_network(network)
    classes = check_classifier(network)
    samples = max(x.shape[0] for x in input_intervals(network, box))
    spec = margin_spec(check_labels(labels, samples, classes), classes)
    return bound(network, box, method=method, spec=spec).lower


def check_network(network: Any) -> None:
    """Refuse what is not a Network."""
    if not isinstance(network, Network):
        raise InputError(
            f"network is a {type(network).__name__}: read it first, with tangency.models.load"
        )


def check_method(method: str) -> None:
    """Refuse a method that there is not."""
    if method not in METHODS:
        raise InputError(f"method {method!r}: bounds are computed by {', '.join(METHODS)}")


def check_classifier(network: Network) -> int:
    """Number of classes; InputError unless the output is a vector of two scores or more."""
    shape = network.output_shape
    if len(shape) != 1 or shape[0] < 2:
        raise InputError(f"margins need an output of K >= 2 scores, the network's is {shape}")
    return shape[0]


def scores_and_margins(
    network: Network, box: Box, spec: Array, method: str
) -> tuple[Interval, Interval]:
    """Bounds of the outputs ``(N, K)`` and of a specification ``(N, S)`` of them, in one walk."""
    check_method(method)
    done, margin = _specified(network, input_intervals(network, box), spec, keep=False)
    return done.found[network.structure.outputs[0]], margin


def _specified(
    network: Network, inputs: Sequence[Interval], spec: Array, keep: bool
) -> tuple[Walk, Interval]:
    end, last = network.structure.outputs[0], elided(network)
    if last is None:
        done = walk(network, inputs, [end], keep=keep)
        y = done.found[end]
        flat = (y.shape[0], -1)
        return done, on_output(spec, Interval(y.lower.reshape(flat), y.upper.reshape(flat)))
    node = network.structure.nodes[last]
    done = walk(network, inputs, [end, *node.inputs], keep=keep)
    params = {p.role: network.weights[p.key].astype(np.float64) for p in node.params}
    with np.errstate(all="ignore"):
        h = done.found[node.inputs[0]]
        return done, on_last_layer(spec, params["weight"], params.get("bias"), h)


def _spread(y: Interval, samples: int) -> tuple[Array, Array]:
    shape = (samples, *y.shape[1:])
    return np.broadcast_to(y.lower, shape).copy(), np.broadcast_to(y.upper, shape).copy()
