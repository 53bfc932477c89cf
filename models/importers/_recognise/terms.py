"""Normal forms of expressions in real arithmetic, with exact rational coefficients.

A :class:`Poly` is a sum of monomials in atoms: the entry x, a parameter, a function of another
Poly, a sum over axes. Every rewriting is an identity on all of the reals on which the expression
is defined, so that expressions with equal forms are equal functions. (The contrary need not hold:
an expression that is not seen to be a template merely stays as the model writes it.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, reduce

__all__ = [
    "FUNCTIONS",
    "ONE",
    "ZERO",
    "Atom",
    "NoFormError",
    "Poly",
    "X",
    "constant",
    "entry",
    "exp",
    "function",
    "inverse",
    "is_positive",
    "log",
    "parameter",
    "power",
    "product",
    "root",
    "substitute",
    "total",
]

#: Larger expressions are not looked at: no template comes near.
_TERMS, _LENGTH, _DIGITS = 64, 4000, 4096
Axes = frozenset[int]


class NoFormError(Exception):
    """An expression has no normal form here; it is imported as it stands."""


@dataclass(frozen=True)
class Atom:
    """What a monomial is a product of; two atoms are equal when their texts are.

    Attributes
    ----------
    text : str
        All of it, in writing.
    kind : str
        ``x``, ``param``, ``sum``, ``max`` or the name of a function.
    args : tuple
        The Poly that the function is taken of; of a reduction also its axes and number of terms.
    axes : frozenset of int
        Axes of the entry along which it varies.
    """

    text: str
    kind: str = field(compare=False)
    args: tuple[Poly, ...] = field(compare=False, default=())
    axes: Axes = field(compare=False, default=frozenset())
    over: Axes = field(compare=False, default=frozenset())
    count: int = field(compare=False, default=1)


Monomial = tuple[tuple[Atom, int], ...]


def _written(monomial: Monomial) -> str:
    return "".join(f"[{a.text}]{n if n > 1 else ''}" for a, n in monomial)


class Poly:
    """``sum_i c_i m_i`` with rational ``c_i`` and monomials ``m_i`` in atoms, in a fixed order."""

    def __init__(self, terms: Mapping[Monomial, Fraction]) -> None:
        kept = [(_written(m), m, c) for m, c in terms.items() if c]
        if len(kept) > _TERMS or any(c.denominator.bit_length() > _DIGITS for *_, c in kept):
            raise NoFormError("too many terms")
        kept.sort(key=lambda term: term[0])
        self.terms: tuple[tuple[Monomial, Fraction], ...] = tuple((m, c) for _, m, c in kept)
        self.text = "+".join(f"{c}{w}" for w, _, c in kept)
        if len(self.text) > _LENGTH:
            raise NoFormError("too long")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Poly) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __add__(self, other: Poly) -> Poly:
        return total((self, other))

    def __sub__(self, other: Poly) -> Poly:
        return total((self, other.times(-1)))

    def __mul__(self, other: Poly) -> Poly:
        return product(self, other)

    @staticmethod
    def of(atom: Atom, c: Fraction | int = 1) -> Poly:
        """A multiple of an atom."""
        return Poly({((atom, 1),): Fraction(c)})

    def times(self, c: Fraction | int) -> Poly:
        """A rational multiple."""
        return Poly({m: c * a for m, a in self.terms})

    @cached_property
    def number(self) -> Fraction | None:
        """The rational number that it is, or None."""
        if not self.terms:
            return Fraction(0)
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @cached_property
    def line(self) -> tuple[Fraction, Fraction] | None:
        """(a, b) if it is ``a + b x``, else None."""
        parts = {m: c for m, c in self.terms if not m or (len(m) == 1 and m[0][1] == 1)}
        own = {(): Fraction(0), **parts}
        slope = sum((c for m, c in own.items() if m and m[0][0].kind == "x"), Fraction(0))
        known = all(not m or m[0][0].kind == "x" for m in own)
        return (own[()], slope) if len(parts) == len(self.terms) and known else None

    @cached_property
    def axes(self) -> Axes:
        """Axes of the entry along which it varies."""
        return frozenset(i for m, _ in self.terms for a, _ in m for i in a.axes)

    def atoms(self) -> Iterator[Atom]:
        """All atoms, those within others too."""
        for monomial, _ in self.terms:
            for atom, _ in monomial:
                yield atom
                for arg in atom.args:
                    yield from arg.atoms()

    def numbers(self) -> Iterator[Fraction]:
        """All coefficients, those within functions too."""
        for monomial, c in self.terms:
            yield c
            for atom, _ in monomial:
                for arg in atom.args:
                    yield from arg.numbers()


def constant(c: Fraction | int) -> Poly:
    """A rational number."""
    return Poly({(): Fraction(c)})


def entry(axes: Iterable[int] = (0,)) -> Poly:
    """The entry x of a tensor, which varies along all its axes."""
    return Poly.of(Atom("x", "x", axes=frozenset(axes)))


def parameter(name: str, axes: Iterable[int]) -> Poly:
    """The entry of a tensor of parameters that varies along some axes."""
    own = frozenset(axes)
    return Poly.of(Atom(f"param {name} {sorted(own)}", "param", axes=own))


ZERO, ONE, X = constant(0), constant(1), entry()


# --- sums and products ----------------------------------------------------------------------------


def total(polys: Iterable[Poly]) -> Poly:
    """Their sum."""
    terms: dict[Monomial, Fraction] = {}
    for p in polys:
        for m, c in p.terms:
            terms[m] = terms.get(m, Fraction(0)) + c
    return Poly(terms)


def product(p: Poly, q: Poly) -> Poly:
    """``p q``, multiplied out."""
    if len(p.terms) * len(q.terms) > _TERMS:
        raise NoFormError("too many terms")
    terms: dict[Monomial, Fraction] = {}
    for m, a in p.terms:
        for n, b in q.terms:
            for k, c in _joined(m, n).terms:
                terms[k] = terms.get(k, Fraction(0)) + a * b * c
    return Poly(terms)


def _joined(m: Monomial, n: Monomial) -> Poly:
    powers: dict[Atom, int] = {}
    for atom, k in (*m, *n):
        powers[atom] = powers.get(atom, 0) + k
    exponents = [(a, k) for a, k in powers.items() if a.kind == "exp"]
    # exp(u) exp(v) = exp(u + v)
    if len(exponents) > 1 or any(k > 1 for _, k in exponents):
        exponent = total(a.args[0].times(k) for a, k in exponents)
        for a, _ in exponents:
            del powers[a]
        rest = Poly({_ordered(powers): Fraction(1)})
        return product(rest, exp(exponent))
    if exponents:
        u = exponents[0][0].args[0]
        for gate in (a for a in powers if a.kind == "sigmoid"):
            v = gate.args[0]
            if u not in (v, v.times(-1)):
                continue
            # e^v s(v) = e^v - s(v) and e^-v s(v) = 1 - s(v), for s(v) = 1/(1 + e^-v)
            powers[gate] -= 1
            if not powers[gate]:
                del powers[gate]
            del powers[exponents[0][0]]
            rest = Poly({_ordered(powers): Fraction(1)})
            return product(rest, (exp(v) if u == v else ONE) - Poly.of(gate))
    return Poly({_ordered(powers): Fraction(1)})


def _ordered(powers: Mapping[Atom, int]) -> Monomial:
    return tuple(sorted(powers.items(), key=lambda item: item[0].text))


def power(p: Poly, n: int) -> Poly:
    """``p^n`` for an integer n."""
    if abs(n) > 16:
        raise NoFormError("a large power")
    if n < 0:
        return inverse(power(p, -n))
    return reduce(product, [p] * n, ONE)


def inverse(p: Poly) -> Poly:
    """``1/p``. Nothing is cancelled but what has no zero."""
    if not p.terms:
        raise NoFormError("division by zero")
    if len(p.terms) == 1:
        ((m, c),) = p.terms
        exponents = [a for a, _ in m if a.kind == "exp"]
        rest = tuple((a, k) for a, k in m if a.kind != "exp")
        out = constant(1 / c)
        for a in exponents:
            out = out * exp(a.args[0].times(-1))
        return out * Poly.of(_atom("inverse", Poly({rest: Fraction(1)}))) if rest else out
    pair = _two_exponentials(p)
    if pair is not None:  # 1/(c (e^u + e^v)) = e^-u s(u - v)/c
        c, u, v = pair
        return exp(u.times(-1)).times(1 / c) * _sigmoid(u - v)
    lead = p.terms[0][1]
    return Poly.of(_atom("inverse", p.times(1 / lead)), 1 / lead)


def _two_exponentials(p: Poly) -> tuple[Fraction, Poly, Poly] | None:
    """(c, u, v) if p is ``c (e^u + e^v)``; 1 is ``e^0``."""
    if len(p.terms) != 2 or p.terms[0][1] != p.terms[1][1]:
        return None
    found = []
    for m, _ in p.terms:
        if not m:
            found.append(ZERO)
        elif len(m) == 1 and m[0][0].kind == "exp":
            found.append(m[0][0].args[0])
    return (p.terms[0][1], found[0], found[1]) if len(found) == 2 else None


# --- functions ------------------------------------------------------------------------------------


def _atom(kind: str, p: Poly) -> Atom:
    return Atom(f"{kind}({p.text})", kind, (p,), p.axes)


def _negative(p: Poly) -> bool:
    """Whether the first coefficient is: of p and -p, functions are taken of the one without."""
    return bool(p.terms) and p.terms[0][1] < 0


def is_positive(p: Poly) -> bool:
    """Whether p is a sum of what is positive on all of the reals: exponentials and their kin."""
    kinds = ("exp", "sigmoid", "softplus")

    def positive(atom: Atom) -> bool:
        inner = atom.kind in ("sum", "inverse", "sqrt") and is_positive(atom.args[0])
        return atom.kind in kinds or inner

    return bool(p.terms) and all(c > 0 and all(positive(a) for a, _ in m) for m, c in p.terms)


def exp(p: Poly) -> Poly:
    """``e^p``; of n log q and n log(1 + e^v) in p it is ``q^n`` and ``(1 + e^v)^n``."""
    rest, out = p, ONE
    for m, c in p.terms:
        if len(m) != 1 or m[0][1] != 1 or c.denominator != 1:
            continue
        atom = m[0][0]
        if atom.kind == "softplus" or (atom.kind == "log" and is_positive(atom.args[0])):
            inner = atom.args[0] if atom.kind == "log" else ONE + exp(atom.args[0])
            rest, out = rest - Poly({m: c}), out * power(inner, int(c))
    return out * Poly.of(_atom("exp", rest)) if rest.terms else out


def log(p: Poly) -> Poly:
    """``log p``, where p is positive."""
    if p == ONE:
        return ZERO
    if len(p.terms) == 1:
        ((m, c),) = p.terms
        exponents = [a for a, _ in m if a.kind == "exp"]
        if exponents:  # log(e^u r) = u + log r: r is positive where e^u r is
            rest = Poly({tuple((a, k) for a, k in m if a.kind != "exp"): c})
            return exponents[0].args[0] + log(rest)
        if c == 1 and len(m) == 1 and m[0][1] == 1:
            atom = m[0][0]
            if atom.kind == "inverse":
                return log(atom.args[0]).times(-1)
            if atom.kind == "sigmoid":  # log s(v) = v - softplus(v)
                return atom.args[0] - _softplus(atom.args[0])
    pair = _two_exponentials(p)
    if pair is not None and pair[0] == 1:  # log(e^u + e^v) = u + softplus(v - u)
        return pair[1] + _softplus(pair[2] - pair[1])
    if len(p.terms) == 2 and p.terms[0] == ((), Fraction(1)) and p.terms[1][1] == -1:
        m = p.terms[1][0]
        if len(m) == 1 and m[0][1] == 1 and m[0][0].kind == "sigmoid":
            return _softplus(m[0][0].args[0]).times(-1)  # log(1 - s(v)) = -softplus(v)
    return Poly.of(_atom("log", p))


def _sigmoid(p: Poly) -> Poly:
    """``s(p) = 1/(1 + e^-p)``, and ``s(-p) = 1 - s(p)``."""
    if not p.terms:
        return constant(Fraction(1, 2))
    if _negative(p):
        return ONE - Poly.of(_atom("sigmoid", p.times(-1)))
    return Poly.of(_atom("sigmoid", p))


def _softplus(p: Poly) -> Poly:
    """``log(1 + e^p)``; for -p it is less by p."""
    if not p.terms:
        return log(constant(2))
    if _negative(p):
        return Poly.of(_atom("softplus", p.times(-1))) + p
    return Poly.of(_atom("softplus", p))


def _odd(kind: str) -> Callable[[Poly], Poly]:
    def apply(p: Poly) -> Poly:
        if not p.terms:
            return ZERO
        if _negative(p):
            return Poly.of(_atom(kind, p.times(-1)), -1)
        return Poly.of(_atom(kind, p))

    return apply


def _even(kind: str) -> Callable[[Poly], Poly]:
    def apply(p: Poly) -> Poly:
        if not p.terms:
            return ONE
        return Poly.of(_atom(kind, p.times(-1) if _negative(p) else p))

    return apply


def _other(kind: str) -> Callable[[Poly], Poly]:
    return lambda p: Poly.of(_atom(kind, p))


def root(p: Poly) -> Poly:
    """``sqrt p``."""
    return p if p in (ZERO, ONE) else Poly.of(_atom("sqrt", p))


_ODD = ("erf", "sin", "tan", "arcsin", "arctan", "sinh", "arcsinh", "arctanh")
FUNCTIONS: dict[str, Callable[[Poly], Poly]] = {
    **{name: _odd(name) for name in _ODD},
    **{name: _even(name) for name in ("cos", "cosh")},
    **{name: _other(name) for name in ("arccos", "floor", "ceil", "rint")},
    "exp": exp,
    "log": log,
    "sqrt": root,
    "inverse": inverse,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "expm1": lambda p: exp(p) - ONE,
    "log1p": lambda p: log(ONE + p),
    "erfc": lambda p: ONE - FUNCTIONS["erf"](p),
    # tanh u = 2 s(2u) - 1
    "tanh": lambda p: _sigmoid(p.times(2)).times(2) - ONE,
}


def function(name: str, p: Poly) -> Poly:
    """A function of :mod:`tangency.models.namespace` that is analytic, or a rounding."""
    return FUNCTIONS[name](p)


def substitute(p: Poly, at: Fraction) -> Poly:
    """The Poly with a number for x. What was reduced over axes is no function of one entry."""
    out = ZERO
    for m, c in p.terms:
        part = constant(c)
        for atom, k in m:
            if atom.kind == "x":
                part = part.times(at**k)
            elif atom.kind in ("param", "sum", "max"):
                part = part * power(Poly.of(atom), k)
            else:
                part = part * power(function(atom.kind, substitute(atom.args[0], at)), k)
        out = out + part
    return out
