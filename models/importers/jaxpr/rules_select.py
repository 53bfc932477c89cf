"""Rules of comparisons, logic and the choice between two values."""

from __future__ import annotations

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.importers.jaxpr.emitter import Emitter, rule
from tangency.models.importers.jaxpr.layout import Laid
from tangency.models.importers.jaxpr.predicates import And, Compare, Given, Not, Predicate
from tangency.models.importers.jaxpr.rules_elementwise import add, binary, mul
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var
from tangency.models.ops import Select


def condition(em: Emitter, ref: Ref) -> Predicate:
    """The condition that a truth value stands for."""
    if isinstance(ref, Const):
        return Given(ref)
    held = em.env[ref]
    if not isinstance(held, Predicate):
        raise UnsupportedError("a number is used as a condition: compare it with another first")
    return held


@rule("gt", "ge", "lt", "le", "eq", "ne")
def compare(em: Emitter, eqn: Eqn) -> Predicate:
    """A comparison; it becomes nodes where it decides something."""
    x, y = eqn.inputs
    if x.dtype == "bool" or y.dtype == "bool":
        raise UnsupportedError(f"primitive {eqn.prim!r} on truth values: use & | ~")
    if eqn.prim in ("gt", "ge"):
        return Compare(x, y, eqn.prim == "gt")
    if eqn.prim in ("lt", "le"):
        return Compare(y, x, eqn.prim == "lt")
    same = And(Compare(x, y, strict=False), Compare(y, x, strict=False))
    return same if eqn.prim == "eq" else Not(same)


@rule("not")
def not_(em: Emitter, eqn: Eqn) -> Predicate:
    """The contrary."""
    return Not(condition(em, eqn.inputs[0]))


@rule("and", "or")
def both_or_either(em: Emitter, eqn: Eqn) -> Predicate:
    """Logic of two conditions."""
    x, y = (condition(em, r) for r in eqn.inputs)
    return And(x, y) if eqn.prim == "and" else Not(And(Not(x), Not(y)))


@rule("select_n")
def select_n(em: Emitter, eqn: Eqn) -> Laid | Predicate:
    """One of two values, by a condition."""
    which, *cases = eqn.inputs
    if which.dtype != "bool" or len(cases) != 2:
        raise UnsupportedError(f"primitive 'select_n' among {len(cases)} cases: two are supported")
    p = condition(em, which)
    if eqn.out.dtype == "bool":
        a, b = (condition(em, c) for c in cases[::-1])
        return Not(And(Not(And(p, a)), Not(And(Not(p), b))))
    return _choose(em, p, cases[1], cases[0], eqn.out)


@rule("convert_element_type")
def convert(em: Emitter, eqn: Eqn) -> Laid:
    """A condition as 1 or 0."""
    if eqn.inputs[0].dtype != "bool" or eqn.out.dtype != em.builder.dtype:
        raise UnsupportedError(
            f"primitive 'convert_element_type': a value that depends on the input is cast from "
            f"{eqn.inputs[0].dtype} to {eqn.out.dtype}; casts are not imported"
        )
    rank = (1,) * len(eqn.out.shape)
    one, zero = (Const(np.full(rank, c, em.builder.dtype), eqn.out.shape) for c in (1.0, 0.0))
    return _choose(em, condition(em, eqn.inputs[0]), one, zero, eqn.out)


def _choose(em: Emitter, p: Predicate, a: Ref, b: Ref, out: Var) -> Laid:
    """``a`` where the condition holds, else ``b``."""
    if isinstance(p, Not):
        return _choose(em, p.inner, b, a, out)
    if isinstance(p, And):
        inner = Var(out.shape, out.dtype)
        em.env[inner] = _choose(em, p.right, a, b, out)
        return _choose(em, p.left, inner, b, out)
    if isinstance(p, Given):
        assert isinstance(p.mask, Const)
        return _masked(em, p.mask, a, b, out)
    assert isinstance(p, Compare)
    x = binary(em, Select(p.strict), p.x, p.y, a, b)
    if x.shape != out.shape:
        inverse = tuple(int(i) for i in np.argsort(x.perm))
        return Laid(em.layouts.repeated(x.value, tuple(out.shape[i] for i in inverse)), x.perm)
    return x


def _masked(em: Emitter, mask: Const, a: Ref, b: Ref, out: Var) -> Laid:
    """``m a + (1 - m) b``: affine, and exact as long as a and b are finite."""
    given = np.asarray(mask.array)
    rank = len(out.shape)
    given = given.reshape((1,) * (rank - given.ndim) + given.shape)
    terms: list[Ref] = []
    for m, ref in ((given, a), (~given, b)):
        if isinstance(ref, Const):
            array = np.asarray(ref.array).reshape((1,) * (rank - ref.array.ndim) + ref.array.shape)
            used = np.where(m, array, np.zeros((), array.dtype)).astype(em.builder.dtype)
            terms.append(Const(used, out.shape, ref.key, ref.trainable))
            continue
        kept = Var(out.shape, out.dtype)
        factor = Const(m.astype(em.builder.dtype), out.shape)
        em.env[kept] = mul(em, Eqn("mul", {}, (ref, factor), (kept,)))
        terms.append(kept)
    if all(isinstance(t, Const) for t in terms):
        return em.laid(Const(np.add(*(t.full() for t in terms if isinstance(t, Const))), out.shape))
    return add(em, Eqn("add", {}, tuple(terms), (out,)))
