"""From the outputs back to the inputs: what is needed, with composites in place of their parts."""

from __future__ import annotations

from collections.abc import Sequence

from tangency.models.importers.jaxpr.batchnorm import find_batch_norm
from tangency.models.importers.jaxpr.composites import find_composite
from tangency.models.importers.jaxpr.regions import Region, regions
from tangency.models.importers.jaxpr.terms import Eqn, Ref, Var
from tangency.models.importers.jaxpr.univariate import Catalogue

__all__ = ["recognise"]

#: Primitives with which a composite can end.
_ENDS = {
    *("add", "sub", "mul", "div", "neg", "max", "min", "select_n", "clamp", "log", "exp"),
    *("copy", "pow", "integer_pow", "square", "abs", "convert_element_type", "log1p", "round"),
}


def recognise(
    eqns: Sequence[Eqn], outputs: Sequence[Ref], hints: dict[Var, list[str]], dtype: str
) -> list[Eqn]:
    """The equations that the outputs need, largest composites first.

    A composite that was recognised was compared with the equations that it stands for; what was
    not stays as it is, and is imported primitive by primitive.
    """
    producer = {out: i for i, eqn in enumerate(eqns) for out in eqn.outs}
    catalogue = Catalogue(dtype)
    needed = {r for r in outputs if isinstance(r, Var)}
    kept: list[Eqn] = []

    def maker(ref: Ref) -> Eqn | None:
        return eqns[producer[ref]] if isinstance(ref, Var) and ref in producer else None

    for index in range(len(eqns) - 1, -1, -1):
        eqn = eqns[index]
        if not needed.intersection(eqn.outs):
            continue
        if eqn.prim in _ENDS and len(eqn.outs) == 1 and eqn.out.dtype != "bool":
            eqn = (
                find_batch_norm(eqn, maker)
                or _composite(list(regions(eqn, eqns, producer, index)), catalogue, hints, dtype)
                or eqn
            )
        kept.append(eqn)
        needed.update(r for r in eqn.inputs if isinstance(r, Var))
    return kept[::-1]


def _composite(
    found: Sequence[Region], catalogue: Catalogue, hints: dict[Var, list[str]], dtype: str
) -> Eqn | None:
    for region in reversed(found):
        record = catalogue.find(region, hints.get(region.result, []))
        if record is not None:
            params = {"record": record}
            return Eqn("@activation", params, (region.entry,), (region.result,))
        composite = find_composite(region, dtype)
        if composite is not None:
            return composite
    return None
