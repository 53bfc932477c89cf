"""Lipschitz bounds of a Network: which engine a model and the options ask for."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.network import Network
from tangency.verify.chain.networks import chain_of
from tangency.verify.chain.unroll import TooLargeError
from tangency.verify.lipschitz.bound import bound_chain
from tangency.verify.result import LipschitzBound, consistent

if TYPE_CHECKING:
    from tangency.verify.sets import Region

__all__ = ["lipschitz_bound"]


def lipschitz_bound(
    network: Network,
    *,
    box: Region | None = None,
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
    box : Box or Ball, optional
        Bound the constant on this set alone: for all pairs x and y inside it, of no others. The
        slopes are those that interval bounds leave possible on it, or the box around it; see
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
    seconds = found.seconds + time.perf_counter() - begin
    return replace(found, lower=consistent(lower, found.upper), seconds=seconds)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are not left to their default."""
    return {name: value for name, value in options.items() if value is not None}
