"""Sums and maxima along axes of an entry's tensor, in normal form."""

from __future__ import annotations

from tangency.models.importers._recognise.terms import (
    ONE,
    Atom,
    Axes,
    Poly,
    constant,
    exp,
    power,
    total,
)

__all__ = ["is_variance", "reduce_max", "reduce_sum"]


def reduce_sum(p: Poly, over: Axes, count: int) -> Poly:
    """The sum of ``count`` terms along axes; what is constant along them goes out of it."""
    out = []
    for m, c in p.terms:
        outside, inside = constant(c), ONE
        for atom, k in m:
            if atom.kind == "exp":  # of e^(u + v), with v constant along the axes, e^v goes out
                u = atom.args[0]
                own = Poly({n: a for n, a in u.terms if Poly({n: a}).axes & over})
                inside, outside = inside * exp(own), outside * exp(u - own)
            elif atom.axes & over:
                inside = inside * power(Poly.of(atom), k)
            else:
                outside = outside * power(Poly.of(atom), k)
        out.append(outside * _summed(inside, over, count))
    return total(out)


def _summed(p: Poly, over: Axes, count: int) -> Poly:
    if p == ONE:
        return constant(count)
    if len(p.terms) == 1 and len(p.terms[0][0]) == 1:
        ((atom, k),) = p.terms[0][0]
        if atom.kind == "sum" and k == 1:  # a sum of sums
            return Poly.of(_reduction("sum", atom.args[0], over | atom.over, count * atom.count))
    return Poly.of(_reduction("sum", p, over, count))


def _reduction(kind: str, p: Poly, over: Axes, count: int) -> Atom:
    text = f"{kind} {sorted(over)} {count} ({p.text})"
    return Atom(text, kind, (p,), p.axes - over, over, count)


def reduce_max(p: Poly, over: Axes, count: int) -> Poly:
    """The largest entry along axes."""
    return Poly.of(_reduction("max", p, over, count)) if p.axes & over else p


def is_variance(p: Poly) -> bool:
    """Whether p is ``a sum m^2 - b (sum m)^2`` with ``a >= n b``: by Cauchy's inequality, >= 0."""
    if len(p.terms) != 2:
        return False
    for (m, a), (n, b) in (p.terms, p.terms[::-1]):
        if len(m) != 1 or len(n) != 1 or m[0][1] != 1 or n[0][1] != 2:
            continue
        squares, first = m[0][0], n[0][0]
        if squares.kind == first.kind == "sum" and a > 0 > b:
            same = (squares.over, squares.count) == (first.over, first.count)
            square = power(first.args[0], 2)
            return same and squares.args[0] == square and a >= -b * first.count
    return False
