"""Where a plan needs covariances between different sites, and where equal sites do."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tangency.theory.kernels.plan import Attention, Flatten, Linear, PlanNode

__all__ = ["pairs_needed"]


def pairs_needed(nodes: Sequence[PlanNode], end: int) -> dict[int, bool]:
    """The nodes that the last one depends on, and whether each carries pairs of sites.

    Pooling and attention need all pairs of their input; flattening needs equal sites, and so do
    convolutions and nonlinearities before it.
    """
    needed: dict[int, bool] = {end: False}
    for i in range(end, -1, -1):
        if i in needed:
            step = nodes[i].step
            full = needed[i] and not isinstance(step, Flatten)
            for j in nodes[i].inputs:
                needed[j] = needed.get(j, False) or full or step.needs_full
    # Branches that meet are carried alike.
    changed = True
    while changed:
        changed = False
        for i in sorted(needed):
            step = nodes[i].step
            if isinstance(step, Linear | Flatten | Attention) or not nodes[i].inputs:
                continue
            full = needed[i] or any(needed[j] for j in nodes[i].inputs)
            for j in (i, *nodes[i].inputs):
                changed |= needed[j] != full and prod(nodes[j].sites) > 1
                needed[j] = full
    return needed
