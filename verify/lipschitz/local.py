r"""Lipschitz constants on a box: slopes from interval bounds, then the same engine and proof.

.. math:: \|f(x) - f(y)\|_q \le L\,\|x - y\|_p \qquad\text{for all } x, y \in [l, u],

and for no other pairs. Interval bounds over the box, rounded outward, enclose the input of every
activation; the slopes that are left there replace the global ones. A neuron with one slope alone,
such as a ReLU that does not switch on the box, is linear and costs nothing; so is a pair of MaxMin
that keeps its order.

The box is convex, so the segment between two of its points lies in it. That is why slopes on
intervals bound difference quotients, and why a box may be cut into pieces: a segment passes from
piece to piece, so that the constant of the whole is at most the largest of theirs (see `.branch`).

A ball is bounded on the box around it; the search for a lower bound stays inside of the ball.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.network import Network
from tangency.verify.chain.chain import Chain
from tangency.verify.chain.networks import local_chain
from tangency.verify.chain.unroll import Unrolled, is_plain, unroll
from tangency.verify.lipschitz.bound import bound_chain
from tangency.verify.lipschitz.local_attack import attack_box
from tangency.verify.lipschitz.local_result import LocalBound, as_local
from tangency.verify.result import LipschitzBound
from tangency.verify.sets import Box, Region, box_around, input_sets

__all__ = ["attained", "bound_leaf", "local_bound"]


def local_bound(
    network: Network,
    box: Region,
    *,
    method: str = "lipsdp",
    norm: Any = 2,
    output: Any = 2,
    solver: str = "engine",
    time_limit: float | None = 60.0,
    rtol: float | None = None,
    progress: Callable[[float, float], None] | None = None,
    seed: int = 0,
    attack: bool = True,
    branch: bool = False,
    max_boxes: int = 1000,
    unrolled: Unrolled | None = None,
) -> LocalBound:
    """Bound the Lipschitz constant of a network on a box, or on a ball.

    Parameters
    ----------
    network : Network
        As :func:`tangency.verify.lipschitz.lipschitz_bound` takes it. An activation with unbounded
        slope, such as sqrt, will do where its slope is bounded on the box.
    box : Box or Ball
        One, of the shape of the input or (1, *shape). Of a ball, the bound is that of the box
        around it.
    method, norm, output, solver, time_limit, rtol, progress
        As in :func:`tangency.verify.lipschitz.bound_chain`.
    seed : int
        Of the search for the lower bound.
    attack : bool
        Whether to search the box for a lower bound.
    branch : bool
        Whether to cut the box, longest edge first, for a better bound; for inputs of up to about
        four entries that vary. `rtol` (1e-3 here) is then the distance to the lower bound at which
        it stops.
    max_boxes : int
        Pieces at most.
    unrolled : Unrolled, optional
        Of the same network, where many boxes are bounded.

    Returns
    -------
    LocalBound
        `upper` holds for all pairs of points in the result's `box`; `lower` is the norm of a
        Jacobian at a point inside of the region given.

    Raises
    ------
    InputError
        If the region does not fit, holds several samples, or an option is unknown; if an
        activation has no bounded slope on the box.
    UnsupportedError, NotProvedError
        As in `bound_chain`.

    Examples
    --------
    >>> from tangency.models import from_layers
    >>> network = from_layers([np.array([[1.0], [1.0]]), np.array([[3.0, -1.0]])], "relu")
    >>> found = local_bound(network, Box(np.array([-2.0]), np.array([-1.0])))
    >>> found.upper  # both neurons are off
    0.0
    >>> from tangency.verify.sets import Ball
    >>> round(local_bound(network, Ball(np.array([3.0]), 2.0)).upper, 6)
    2.0
    """
    start = time.perf_counter()
    region, box = _one(network, box)
    parts = unroll(network) if unrolled is None and is_plain(network) else unrolled
    options = {
        "method": method,
        "norm": norm,
        "output": output,
        "solver": solver,
        "attack": False,
    }
    chain = local_chain(network, box, unrolled=parts)
    if branch:
        from tangency.verify.lipschitz.branch import branch_and_bound

        return branch_and_bound(
            network,
            region,
            parts,
            options,
            time_limit=time_limit,
            rtol=1e-3 if rtol is None else rtol,
            progress=progress,
            seed=seed,
            attack=attack,
            max_boxes=max_boxes,
        )
    found = bound_leaf(chain, options | {"time_limit": time_limit, "rtol": rtol}, progress)
    lower = attained(network, chain, region, found, seed) if attack else None
    return as_local(found, box, lower, time.perf_counter() - start)


def _one(network: Network, region: Region) -> tuple[Region, Box]:
    """Return the only region and the box around it.

    Raises
    ------
    InputError
        If the region does not fit the network, or holds several samples.
    """
    if isinstance(region, tuple | list) and len(region) == 1:
        region = region[0]
    first, *others = input_sets(network, region)
    if others:
        raise UnsupportedError(f"{1 + len(others)} inputs: a Lipschitz bound is of one input alone")
    if first.samples != 1:
        raise InputError(
            f"box of shape {region.shape}: a local Lipschitz bound takes one box at a time, a Box "
            f"or Ball of shape {network.input_shape} or {(1, *network.input_shape)}: call it for "
            "each sample"
        )
    return region, box_around(region)


def attained(
    network: Network, chain: Chain, region: Region, found: LipschitzBound, seed: int
) -> float:
    """Return the lower bound that a search in a region finds: in the chain, or in the graph."""
    lower = attack_box(chain, region, norm=found.norm, output=found.output, seed=seed)
    if lower is None:
        from tangency.verify.lipschitz.network_attack import attack_network

        lower = attack_network(network, norm=found.norm, output=found.output, box=region, seed=seed)
    return lower


def bound_leaf(
    chain: Chain,
    options: dict[str, Any],
    progress: Callable[[float, float], None] | None = None,
) -> LipschitzBound:
    """Bound a chain with local slopes, many of which may be zero."""
    with np.errstate(all="ignore"):
        return bound_chain(chain, progress=progress, **options)
