"""From the outputs back to the inputs: what is needed, with batch norms in place of their parts."""

from __future__ import annotations

from collections.abc import Sequence

from tangency.models.importers.jaxpr.batchnorm import find_batch_norm
from tangency.models.importers.jaxpr.terms import Eqn, Ref, Var

__all__ = ["needed"]


def needed(eqns: Sequence[Eqn], outputs: Sequence[Ref]) -> list[Eqn]:
    """The equations that the outputs need.

    A batch norm is found here, behind the constants that folding has made of its parameters; all
    else is recognised on the graph that is written.
    """
    producer = {out: i for i, eqn in enumerate(eqns) for out in eqn.outs}
    wanted = {r for r in outputs if isinstance(r, Var)}
    kept: list[Eqn] = []

    def maker(ref: Ref) -> Eqn | None:
        return eqns[producer[ref]] if isinstance(ref, Var) and ref in producer else None

    for eqn in reversed(eqns):
        if not wanted.intersection(eqn.outs):
            continue
        if eqn.prim in ("add", "mul"):
            eqn = find_batch_norm(eqn, maker) or eqn
        kept.append(eqn)
        wanted.update(r for r in eqn.inputs if isinstance(r, Var))
    return kept[::-1]
