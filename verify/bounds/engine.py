"""Bounds of a network's output over a box or a ball, by a method's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.bounds.jobs import LINEAR, Job
from tangency.verify.result import Bounds, Pair, Statement
from tangency.verify.rigorous.sets import InputSet, batch_of
from tangency.verify.rigorous.specification import entrance, specified
from tangency.verify.rigorous.walk import Walk, walk
from tangency.verify.sets import Region, input_intervals, input_sets, norm_of
from tangency.verify.spec import check_labels, check_spec, margin_spec

__all__ = ["bound", "margins"]

Array = Any


def bound(
    network: Network,
    box: Region | Sequence[Region],
    *,
    method: str = "ibp",
    spec: Array | None = None,
    rigorous: bool = True,
    plain: bool = False,
    keep: bool = False,
    mode: str = "last",
    steps: int = 20,
) -> Bounds:
    """Bound the output of a network for all inputs of a box or a ball.

    With ``rigorous`` the bounds are true in real arithmetic: for the network whose weights are the
    stored floats, taken as real numbers, and whose operations are exact. They are not bounds of a
    float32 forward pass, whose own rounding comes on top. Everything is computed in NumPy float64
    with a-priori error bounds and outward rounding; an entry that overflows is bounded by infinity.

    Parameters
    ----------
    network : Network
        Of any dtype; its weights are widened to float64 without loss.
    box : Box or Ball, or a tuple of them
        One for each input, of N samples or of one (which then serves all N).
    method : {"ibp", "crown-ibp", "crown", "forward", "alpha-crown"}
        Interval bound propagation; linear bounds carried backwards from the output, over intervals
        or over linear bounds of the layers before; linear bounds carried forwards (for few
        inputs); backwards with slopes that a search has improved.
    spec : (S, n_out) or (N, S, n_out) array, optional
        Linear maps of the flattened output to bound in its place, such as margins; a last dense
        layer is multiplied by it first.
    rigorous : bool
        False: an estimate in JAX in the network's own dtype, compiled once for a structure.
        Bounds that are carried forwards (``ibp``, ``forward``) are always proved.
    plain : bool
        Linear bounds as the literature has them. By default they are intersected with interval
        bounds at each layer, which is never looser.
    keep : bool
        Hold the bounds of every layer in ``intermediate``.
    mode : {"last", "joint"}
        Of alpha-CROWN: slopes of the last backward pass alone, or of those that bound the layers
        before it as well.
    steps : int
        Of alpha-CROWN: steps of the search.

    Returns
    -------
    Bounds
        ``lower`` and ``upper`` of shape ``(N, *output_shape)``, or ``(N, S)`` with a spec.

    Raises
    ------
    InputError
        For an unknown method, a box or a spec that does not fit, or a layer that is not bounded on
        the box (a divisor that may be zero, a logarithm of what may be negative), by its name.

    References
    ----------
    Gowal et al., arXiv 1810.12715 (IBP); Zhang et al., arXiv 1811.00866 (CROWN); Zhang et al.,
    arXiv 1906.06316 (CROWN-IBP); Xu et al., arXiv 2011.13824 (alpha-CROWN).

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> from tangency.verify import Box
    >>> net = from_layers([np.array([[1.0, -1.0]])])
    >>> found = bound(net, Box(np.array([0.0, 0.0]), np.array([1.0, 1.0])))
    >>> found.lower.round(6), found.upper.round(6)
    (array([[-1.]]), array([[1.]]))
    """
    start = perf_counter()
    job = Job(method, rigorous, plain, mode, steps)
    check_network(network)
    sets = input_sets(network, box)
    samples, matrix = batch_of(sets), None
    if spec is not None:
        matrix = check_spec(spec, samples, int(np.prod(network.output_shape)))
        samples = max(samples, matrix.shape[0])
    outputs, widths, kept, statement = _found(network, sets, job, matrix, keep)
    return Bounds(
        outputs=tuple(_spread(y, samples) for y in outputs),
        method=method,
        seconds=perf_counter() - start,
        widths=widths,
        intermediate=kept,
        certified=job.certified,
        norm=norm_of(box),
        statement=statement,
    )


def margins(
    network: Network,
    box: Region,
    labels: Array,
    *,
    method: str = "ibp",
    rigorous: bool = True,
    plain: bool = False,
    mode: str = "last",
    steps: int = 20,
) -> Array:
    """Lower bounds of ``y_label - y_j`` over a box or a ball, for the other classes j in order.

    Parameters
    ----------
    network : Network
        With one output, a vector of K scores.
    box : Box or Ball
        N samples.
    labels : (N,) array of integers
        One class a sample, from 0.
    method, rigorous, plain, mode, steps
        As of :func:`bound`.

    Returns
    -------
    (N, K-1) array
        A sample whose row is positive is robust: its label wins everywhere on its box.

    Raises
    ------
    InputError
        As :func:`bound`, and for labels that do not fit or a network that is not a classifier.
    """
    job = Job(method, rigorous, plain, mode, steps)
    check_network(network)
    classes = check_classifier(network)
    sets = input_sets(network, box)
    spec = margin_spec(check_labels(labels, batch_of(sets), classes), classes)
    if method in LINEAR:
        from tangency.verify.bounds.linear import LinearBounds

        return LinearBounds(network, sets, job).specified(spec, upper=False).lower
    return bound(network, box, spec=spec).lower


def check_network(network: Any) -> None:
    """Refuse what is not a Network."""
    if not isinstance(network, Network):
        raise InputError(
            f"network is a {type(network).__name__}: read it first, with tangency.models.load"
        )


def check_classifier(network: Network) -> int:
    """Number of classes; InputError unless the output is a vector of two scores or more."""
    shape = network.output_shape
    if len(shape) != 1 or shape[0] < 2:
        raise InputError(f"margins need an output of K >= 2 scores, the network's is {shape}")
    return shape[0]


def scores_and_margins(
    network: Network, box: Region, spec: Array, job: Job
) -> tuple[Interval, Interval, Statement | None]:
    """Bounds of the outputs ``(N, K)`` and, below, of a specification ``(N, S)`` of them."""
    sets = input_sets(network, box)
    if job.method in LINEAR:
        from tangency.verify.bounds.linear import LinearBounds

        found = LinearBounds(network, sets, job)
        scores, margin = found.outputs(search=False)[0], found.specified(spec, upper=False)
        return scores, margin, found.statement(spec, margin, upper=False)
    done, margin = _specified(network, input_intervals(network, box), spec, keep=False)
    stated = Statement(sets[0], spec, margin.lower, None, "ibp", False)
    return done.found[network.structure.outputs[0]], margin, stated


def _found(
    network: Network, sets: Sequence[InputSet], job: Job, matrix: Array | None, keep: bool
) -> tuple[list[Interval], Mapping[str, float], Mapping[str, Pair], Statement | None]:
    """Bounds asked for, widths by layer, what is to be kept, and what is stated."""
    if job.method in LINEAR:
        from tangency.verify.bounds.linear import LinearBounds

        found = LinearBounds(network, sets, job)
        outputs = found.outputs() if matrix is None else [found.specified(matrix)]
        layers = found.by_name()
        with np.errstate(all="ignore"):
            widths = {name: float((high - low).mean()) for name, (low, high) in layers.items()}
        stated = found.statement(matrix, outputs[0], upper=True)
        return outputs, widths, layers if keep else {}, stated
    inputs, ends = [x.interval for x in sets], network.structure.outputs
    if matrix is None:
        done = walk(network, inputs, ends, keep=keep)
        outputs = [done.found[i] for i in ends]
    else:
        done, output = _specified(network, inputs, matrix, keep)
        outputs = [output]
    names = [node.name for node in network.structure.nodes]
    kept = {names[i]: (y.lower, y.upper) for i, y in done.found.items()} if keep else {}
    stated = None
    if job.single(network):
        low, high = (v.reshape((len(v), -1)) for v in (outputs[0].lower, outputs[0].upper))
        stated = Statement(sets[0], matrix, low, high, "ibp", False)
    return outputs, done.widths, kept, stated


def _specified(
    network: Network, inputs: Sequence[Interval], spec: Array, keep: bool
) -> tuple[Walk, Interval]:
    before = entrance(network)
    done = walk(network, inputs, [network.structure.outputs[0], before], keep=keep)
    return done, specified(network, spec, done.found[before])


def _spread(y: Interval, samples: int) -> tuple[Array, Array]:
    shape = (samples, *y.shape[1:])
    return np.broadcast_to(y.lower, shape).copy(), np.broadcast_to(y.upper, shape).copy()
