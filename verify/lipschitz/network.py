"""Lipschitz bounds of a Network: its layers as a chain of matrices and activations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.models.intervals import Interval
from tangency.models.namespace import numpy_namespace
from tangency.models.network import Network
from tangency.models.ops import Activate, GroupSort, Prelu
from tangency.models.structure import Node
from tangency.verify.certificate import GroupSort as Sorting
from tangency.verify.certificate import Slopes
from tangency.verify.lipschitz.blocks import chain_of_blocks
from tangency.verify.lipschitz.bound import bound_chain
from tangency.verify.lipschitz.chain import Chain, Function
from tangency.verify.lipschitz.graph import is_plain
from tangency.verify.lipschitz.result import LipschitzBound
from tangency.verify.lipschitz.unroll import TooLargeError, Unrolled, unroll

if TYPE_CHECKING:
    from tangency.verify.bounds import Box

__all__ = ["chain_of", "lipschitz_bound"]

#: Slopes that differ by less than this part of the layer's largest are set this far apart: the
#: multipliers grow as 1 / (b - a), and float64 has digits for so much.
NARROWEST = 1e-5


def lipschitz_bound(
    network: Network,
    *,
    box: Box | None = None,
    method: str = "lipsdp",
    norm: Any = 2,
    solver: str = "engine",
    seed: int = 0,
    **options: Any,
) -> LipschitzBound:
    """Bound the Lipschitz constant of a network: ``|f(x) - f(y)| <= L |x - y|``.

    Parameters
    ----------
    network : Network
        One input, one output, a chain of affine layers (dense, convolution, batch norm, average
        pooling, ...) with activations of one variable, GroupSort, MaxMin, Householder or max
        pooling between them; sums of branches, as in residual blocks, where `blocks` takes them.
        Affine layers are unrolled to matrices; a convolutional network too large for that is
        bounded frequency by frequency in l2, see :func:`tangency.verify.lipschitz.conv.conv_bound`.
    box : Box, optional
        Bound the constant on this box alone: for all pairs x and y inside it, of no others. The
        slopes are those that interval bounds leave possible there; see
        :func:`tangency.verify.lipschitz.local.local_bound`.
    method : {"lipsdp", "eclipse_fast", "product"}
        LipSDP-Neuron [1]_ for slope-restricted activations and the quadratic constraint of [2]_
        for GroupSort, the preserved sums eliminated exactly; its closed form layer by layer; or
        the product of the layers' spectral norms.
    norm : {2, 1, "inf"}
        Norm on the input.
    solver : {"engine", "scs", "clarabel"}
        Solver of the search; its answer is proved, not trusted.
    seed : int
        Of the attack that finds the lower bound.
    **options
        ``output``, ``time_limit``, ``rtol``, ``progress``, ``attack``, ``checkpoint``,
        ``hidden_limit`` of :func:`tangency.verify.lipschitz.bound_chain`; with a box also
        ``branch``, ``max_boxes``, and no checkpoint.

    Returns
    -------
    LipschitzBound
        ``upper`` (certified: proved in real arithmetic for exactly these weights), ``lower``
        (attained by a search), and how they were found; a LocalBound where a box is given.

    Raises
    ------
    UnsupportedError
        Naming the layer that a chain has no place for.
    InputError
        Naming an activation without a global slope bound, or a network too large to unroll.

    References
    ----------
    .. [1] M. Fazlyab et al., NeurIPS 2019, arXiv 1906.04893, theorem 2.
    .. [2] P. Pauli et al., ICLR 2024, arXiv 2401.14033, theorem 1.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    >>> bound = lipschitz_bound(from_layers([quarter, quarter], "maxmin"), method="product")
    >>> bound.certified, round(bound.upper, 6)
    (True, 1.0)
    """
    if options.get("checkpoint") is None:
        options.pop("checkpoint", None)
    if box is not None:
        from tangency.verify.lipschitz.local import local_bound

        if "checkpoint" in options:
            raise InputError("a checkpoint keeps the search for one global bound: leave the box")

        return local_bound(
            network, box, method=method, norm=norm, solver=solver, seed=seed, **options
        )
    try:
        chain = chain_of(network)
    except TooLargeError:
        plain = (method, str(norm), str(options.get("output", 2))) == ("lipsdp", "2", "2")
        if not plain or solver != "engine":
            raise
        from tangency.verify.lipschitz.conv import conv_bound

        if "checkpoint" in options:
            raise UnsupportedError(
                "this network is bounded frequency by frequency, a search that has no checkpoint"
            ) from None
        options.pop("output", None)
        return conv_bound(network, seed=seed, **_given(options))
    found = bound_chain(chain, method=method, norm=norm, solver=solver, seed=seed, **options)
    if found.lower is not None or not options.get("attack", True):
        return found
    return _attacked(found, network, seed)


def _attacked(found: LipschitzBound, network: Network, seed: int) -> LipschitzBound:
    """Return a bound with the lower bound that a search on the graph itself finds."""
    from tangency.verify.lipschitz.network_attack import attack_network

    begin = time.perf_counter()
    lower = attack_network(network, norm=found.norm, output=found.output, seed=seed)
    if lower > found.upper * (1.0 + 1e-9) + 1e-320:
        raise NotProvedError(f"the lower bound {lower!r} contradicts the upper {found.upper!r}")
    seconds = found.seconds + time.perf_counter() - begin
    return replace(found, lower=min(lower, found.upper), seconds=seconds)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not left to their default."""
    return {name: value for name, value in options.items() if value is not None}


def chain_of(
    network: Network,
    *,
    unrolled: Unrolled | None = None,
    inputs: Sequence[Interval] | None = None,
) -> Chain:
    """The chain of matrices and activations that a network is.

    Parameters
    ----------
    network : Network
        As :func:`lipschitz_bound` takes it.
    unrolled : Unrolled, optional
        Of the same network, to spend no time on it again.
    inputs : sequence of Interval, optional
        Bounds on the inputs of the nonlinearities, each of its flattened node: slopes are then
        those of the bounds. Without it they hold everywhere.

    Raises
    ------
    UnsupportedError, InputError
        As :func:`lipschitz_bound` does.
    """
    if unrolled is None and inputs is None and not is_plain(network):
        return chain_of_blocks(network)
    parts = unroll(network) if unrolled is None else unrolled
    nodes = network.structure.nodes
    activations, functions = [], []
    for k, end in enumerate(parts.ends):
        given = None if inputs is None else inputs[k]
        activation, function = _activation(nodes[end], network, given)
        activations.append(activation)
        functions.append(function)
    return Chain(parts.matrices, tuple(activations), parts.biases, tuple(functions))


def _activation(
    node: Node, network: Network, given: Interval | None
) -> tuple[Slopes | Sorting, Function | None]:
    """The constraint and the function of a nonlinearity."""
    op = node.op
    low: Any
    high: Any
    if isinstance(op, GroupSort):
        return Sorting(op.size, descending=op.descending), None
    if isinstance(op, Prelu):
        slope = network.weights[node.params[0].key].astype(np.float64)
        slope = op.slopes(slope, len(node.shape))[0]
        slope = np.broadcast_to(slope, node.shape).reshape(-1)
        low, high = np.minimum(slope, 1.0), np.maximum(slope, 1.0)
        if given is not None:
            left, right = given.upper <= 0.0, given.lower >= 0.0
            low = np.where(left, slope, np.where(right, 1.0, low))
            high = np.where(left, slope, np.where(right, 1.0, high))
        function = Function(
            lambda z: np.where(z > 0, z, slope * z), lambda z: np.where(z > 0, 1.0, slope), True
        )
        return Slopes(low, high), function
    assert isinstance(op, Activate)
    record = op.activation
    where = "" if given is None else " on the box"
    if given is None:
        low, high = record.slope_range
    else:
        slopes = record.slopes_on(given.lower, given.upper)
        low, high = _apart(slopes.lower, slopes.upper)
    if record.jumps or record.staircase or not np.isfinite([low, high]).all():
        hint = (
            "; a choice in its formula is not shown to be continuous: write it with maximum, "
            "minimum or abs"
        )
        raise InputError(
            f"layer {node.name!r}: {record} has no bounded slope{where} (range "
            f"[{np.min(low):g}, {np.max(high):g}]), so the network has no "
            f"{'global' if given is None else 'local'} Lipschitz bound"
            + ("" if record.continuous or record.jumps or record.staircase else hint)
        )
    function = Function(
        _elementwise(record.value), _elementwise(record.derivative), record.homogeneous == 1
    )
    return Slopes(low, high), function


def _apart(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widen slopes that are nearly, but not quite, equal."""
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return low, high
    largest = max(float(np.abs(low).max(initial=0.0)), float(np.abs(high).max(initial=0.0)))
    narrow = (high > low) & (high - low < NARROWEST * largest)
    half = NARROWEST * largest / 2
    return np.where(narrow, low - half, low), np.where(narrow, high + half, high)


def _elementwise(formula: Callable[[Any, Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    def function(z: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(formula(numpy_namespace, z), float)

    return function
