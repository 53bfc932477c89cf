"""Regions: the equations between one variable and one result that depends on it alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tangency.models.importers.jaxpr.evaluate import ELEMENTWISE, GROUPWISE
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var

__all__ = ["Region", "regions"]

#: The longest composite of the catalogue takes about twenty equations.
_LONGEST = 48
_AFFINE = {"add", "sub", "neg", "convert_element_type", "reshape", "broadcast_in_dim"}


@dataclass(frozen=True)
class Region:
    """``result = f(entry)``, computed by ``eqns`` in order."""

    entry: Var
    result: Var
    eqns: tuple[Eqn, ...]

    @property
    def prims(self) -> set[str]:
        """Names of the primitives in it."""
        return {eqn.prim for eqn in self.eqns}

    @property
    def constants(self) -> list[Const]:
        """Its constants, in order of use."""
        found = (r for eqn in self.eqns for r in eqn.inputs if isinstance(r, Const))
        return list(dict.fromkeys(found))

    @property
    def elementwise(self) -> bool:
        """Whether each entry of the result depends on the same entry of the variable."""
        return self.prims <= ELEMENTWISE.keys() and self.entry.shape == self.result.shape

    @property
    def affine(self) -> bool:
        """Whether nothing in it bends."""
        return all(
            eqn.prim in _AFFINE
            or (eqn.prim == "mul" and _has_constant(eqn.inputs))
            or (eqn.prim == "div" and isinstance(eqn.inputs[1], Const))
            for eqn in self.eqns
        )


def _has_constant(inputs: Sequence[Ref]) -> bool:
    return any(isinstance(r, Const) for r in inputs)


def regions(
    end: Eqn, eqns: Sequence[Eqn], producer: Mapping[Var, int], start: int
) -> Iterator[Region]:
    """All regions that end with an equation, the smallest first.

    Parameters
    ----------
    end : Eqn
        The last equation, of index ``start``.
    eqns : sequence of Eqn
        All of them.
    producer : mapping of Var to int
        Index of the equation that makes a variable.
    """
    taken, frontier = [start], _variables(end)
    while True:
        if any(v.dtype not in (end.out.dtype, "bool") for v in frontier):
            return  # a cast rounds: it is not left out of what is compared
        if len(frontier) == 1:
            (entry,) = frontier
            yield Region(entry, end.out, tuple(eqns[i] for i in sorted(taken)))
        # The latest variable goes first: none that depends on it can come up again.
        index = max((producer.get(v, -1) for v in frontier), default=-1)
        if index < 0 or len(taken) >= _LONGEST:
            return
        eqn = eqns[index]
        if len(eqn.outs) != 1 or eqn.prim not in ELEMENTWISE.keys() | GROUPWISE.keys():
            return
        taken.append(index)
        frontier = (frontier - {eqn.out}) | _variables(eqn)


def _variables(eqn: Eqn) -> set[Var]:
    return {r for r in eqn.inputs if isinstance(r, Var)}
